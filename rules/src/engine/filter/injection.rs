//! Which values `@detectSQLi` need not be asked about: those in which libinjection can find no token
//! that any of its fingerprints has.
//!
//! libinjection turns a value into tokens, folds them, and compares the kinds of the first five with
//! its list. None of the list is made of barewords (`N`), numbers (`1`), operators (`O`), dots, commas, colons,
//! semicolons and question marks alone.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use libinjectionrs::sqli::sqli_data::SQL_KEYWORDS;

/// `false` only where libinjection says no.
///
/// Where a value has no byte from which another token could come (quotes, brackets, `#`, `$`, `@`,
/// backslashes, backticks; `--`, `/*`, `&&`, `||`), and no word that is a telling keyword or a part of one, it
/// cannot match. Names of functions and operators that are words tell nothing: without brackets they are
/// barewords and operators. But a function that begins with `IF` is a statement behind a semicolon.
pub(super) fn may_match(value: &[u8]) -> bool {
    if begins_as_prose(value) && memchr::memchr2(b'\'', b'"', value).is_none() {
        return false;
    }
    let mut at = 0;
    // Only a number goes on behind its dot.
    let (mut after_number, mut after_dot) = (false, false);
    while let Some(&byte) = value.get(at) {
        match KINDS[usize::from(byte)] {
            Kind::Word => {
                let rest = &value[at..];
                let length = rest.iter().take_while(|byte| is_word(**byte)).count();
                if has_keyword(&rest[..length], after_dot) {
                    return true;
                }
                after_number = byte.is_ascii_digit() || after_dot;
                after_dot = false;
                at += length;
                continue;
            }
            Kind::Other => return true,
            Kind::Twice if value.get(at + 1) == Some(&byte) => return true,
            Kind::Slash if value.get(at + 1) == Some(&b'*') => return true,
            Kind::Twice | Kind::Slash | Kind::Between => {}
        }
        after_dot = byte == b'.' && after_number;
        after_number = after_dot;
        at += 1;
    }
    false
}

/// Tokens in a fingerprint.
const TOKENS: usize = 5;

/// Whether a value begins with words and numbers, as many as a fingerprint has tokens, with white space between them,
/// none of which is in libinjection's list, alone or together with the next one. They are never folded, so they are the
/// whole fingerprint. What follows is read again only when there are quotes in it.
fn begins_as_prose(value: &[u8]) -> bool {
    let mut rest = value;
    let mut before: &[u8] = b"";
    // One more than a fingerprint has, with which the last might be taken together.
    for _ in 0..=TOKENS {
        let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
        rest = &rest[blanks..];
        let length = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        let (word, after) = rest.split_at(length);
        let plain = match word {
            [] => false,
            [b'0'..=b'9', ..] => word.iter().all(u8::is_ascii_digit),
            _ => !KEYWORDS.holds(&KEYWORDS.all, word) && !KEYWORDS.holds_pair(before, word),
        };
        // The end of a sentence belongs to the word, with which nothing is taken together then.
        let (word, after) = match after {
            [b'.', after @ ..] if !word.first().is_none_or(u8::is_ascii_digit) => (&b""[..], after),
            after => (word, after),
        };
        if !plain || !after.first().is_none_or(|byte| is_blank(*byte)) {
            return false;
        }
        (before, rest) = (word, after);
    }
    true
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In words and numbers.
    Word,
    /// White space and operators.
    Between,
    /// An operator alone, something else when doubled.
    Twice,
    Slash,
    /// What another token may begin with.
    Other,
}

static KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | 0x80..=0x9f | 0xa1..=0xff => {
                Kind::Word
            }
            0 | b'\t'..=b'\r' | b' ' | 0xa0 => Kind::Between,
            b'!' | b'%' | b'*' | b'+' | b',' | b'.' | b':' | b';' | b'<' | b'=' | b'>' | b'?'
            | b'^' | b'~' => Kind::Between,
            b'-' | b'&' | b'|' => Kind::Twice,
            b'/' => Kind::Slash,
            _ => Kind::Other,
        };
        byte += 1;
    }
    kinds
};

fn is_word(byte: u8) -> bool {
    KINDS[usize::from(byte)] == Kind::Word
}

/// Whether a word is a telling keyword, or the end of one that begins as a number: `1union` is read as `1` and
/// `union`, and so is `1.e5union`, of which the dot's right side is seen here.
fn has_keyword(word: &[u8], after_dot: bool) -> bool {
    if !after_dot && !word[0].is_ascii_digit() {
        return KEYWORDS.holds(&KEYWORDS.telling, word);
    }
    let first = word.len().saturating_sub(KEYWORD_BYTES);
    (first..word.len()).any(|start| {
        !word[start].is_ascii_digit() && KEYWORDS.holds(&KEYWORDS.telling, &word[start..])
    })
}

/// All keywords are shorter (29 bytes at most).
const KEYWORD_BYTES: usize = 32;

type Words = HashSet<&'static [u8], BuildHasherDefault<Fnv>>;

/// Keywords. Fingerprints are in the same list, of kind `F`.
struct Keywords {
    /// Those of one word.
    all: Words,
    /// The first two words of those that have several.
    pairs: Words,
    /// All words of them, without functions (but those in `IF`), operators, barewords and numbers.
    telling: Words,
    /// By first letter, a bit for each length that a keyword has: most words end here.
    lengths: [u32; 256],
}

impl Keywords {
    fn holds_pair(&self, first: &[u8], second: &[u8]) -> bool {
        let length = first.len() + 1 + second.len();
        if length >= KEYWORD_BYTES || first.is_empty() {
            return false;
        }
        let mut pair = [b' '; KEYWORD_BYTES];
        pair[..first.len()].copy_from_slice(first);
        pair[first.len() + 1..length].copy_from_slice(second);
        pair.make_ascii_uppercase();
        self.pairs.contains(&pair[..length])
    }

    fn holds(&self, words: &Words, word: &[u8]) -> bool {
        if word.len() >= KEYWORD_BYTES || self.lengths[usize::from(word[0])] >> word.len() & 1 == 0
        {
            return false;
        }
        let mut upper = [0; KEYWORD_BYTES];
        let upper = &mut upper[..word.len()];
        upper.copy_from_slice(word);
        upper.make_ascii_uppercase();
        words.contains(&*upper)
    }
}

static KEYWORDS: LazyLock<Keywords> = LazyLock::new(|| {
    let listed = |without: &'static [u8]| {
        SQL_KEYWORDS
            .iter()
            .filter(|keyword| !without.contains(&keyword.token_type))
    };
    let parts = |word: &'static str| word.as_bytes().split(|byte| matches!(byte, b' ' | b'.'));
    let all: Words = listed(b"F")
        .map(|keyword| keyword.word.as_bytes())
        .collect();
    let telling: Words = listed(b"Ffno1")
        .flat_map(|keyword| parts(keyword.word))
        .filter(|word| !word.is_empty())
        .chain(all.iter().copied().filter(|word| word.starts_with(b"IF")))
        .collect();
    let pairs = all.iter().filter_map(|word| {
        let first = word.iter().position(|byte| *byte == b' ')?;
        let second = word[first + 1..].iter().position(|byte| *byte == b' ');
        Some(second.map_or(*word, |second| &word[..first + 1 + second]))
    });
    let pairs = pairs.collect();
    let mut lengths = [0; 256];
    for word in all.iter().chain(&telling) {
        lengths[usize::from(word[0])] |= 1 << word.len().min(31);
        lengths[usize::from(word[0].to_ascii_lowercase())] |= 1 << word.len().min(31);
    }
    Keywords {
        all,
        pairs,
        telling,
        lengths,
    }
});

/// FNV-1a: no request can add to the words.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_as_said() {
        let fingerprints = || {
            SQL_KEYWORDS
                .iter()
                .filter(|keyword| keyword.token_type == b'F')
        };
        assert!(fingerprints().count() > 8000);
        let plain = |text: &str| text.bytes().all(|kind| b"N1O.,:;?".contains(&kind));
        assert!(!fingerprints().any(|keyword| plain(&keyword.word[1..])));
        assert!(
            SQL_KEYWORDS
                .iter()
                .all(|keyword| keyword.word.len() < KEYWORD_BYTES)
        );
    }

    /// Every row of up to five of what each kind of token may look like, and each word that is passed over
    /// in every place of the shorter rows.
    #[test]
    fn no_row_of_plain_tokens_matches() {
        const PLAIN: [&str; 10] = ["a", "1", "=", "-", ".", ",", ":", ";", "?", "abs"];
        let check = |value: &str| {
            let passed_over = !may_match(value.as_bytes());
            let detected =
                passed_over && libinjectionrs::detect_sqli(value.as_bytes()).is_injection();
            assert!(!detected, "{value}");
        };
        let words: Vec<&str> = SQL_KEYWORDS
            .iter()
            .filter(|keyword| b"fnot1".contains(&keyword.token_type))
            .map(|keyword| keyword.word)
            .collect();
        let mut rows = vec![Vec::new()];
        for length in 1..=TOKENS {
            let longer = |row: &Vec<&'static str>| {
                let row = row.clone();
                PLAIN.map(move |token| [row.as_slice(), &[token]].concat())
            };
            rows = rows.iter().flat_map(longer).collect();
            for row in &rows {
                check(&row.join(" "));
                // More of them would take minutes.
                if length > 2 && !(length == 3 && row.iter().all(|it| ["a", "1", ";"].contains(it)))
                {
                    continue;
                }
                for (word, place) in words
                    .iter()
                    .flat_map(|word| (0..=length).map(move |place| (word, place)))
                {
                    let mut row = row.clone();
                    row.insert(place, word);
                    check(&row.join(" "));
                }
            }
        }
    }

    /// With all of libinjection's words, in rows that look like prose and arithmetic.
    #[test]
    fn what_is_passed_over_does_not_match() {
        const BETWEEN: [&str; 20] = [
            " ", " ", " ", ",", ".", " = ", " - ", "+", ":", "; ", "<", "/", "1 ", ".5e3", " (",
            ") ", "--", "#", "/*", "'",
        ];
        let keywords = SQL_KEYWORDS
            .iter()
            .filter(|keyword| keyword.token_type != b'F')
            .map(|keyword| keyword.word);
        let words: Vec<&str> = keywords
            .chain(["a", "1", "name", "2x", "0x1f", "1e9"])
            .collect();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize % below
        };
        let mut passed_over = 0;
        for _ in 0..200_000 {
            let mut value = String::new();
            // Half of them begin with words that are in no list.
            for _ in 0..random(2) * random(8) {
                value.push_str(["word ", "123 ", "x ", "lorem\t", "word. "][random(5)]);
            }
            for _ in 0..=random(6) {
                value.push_str(words[random(words.len())]);
                value.push_str(BETWEEN[random(BETWEEN.len())]);
            }
            if !may_match(value.as_bytes()) {
                passed_over += 1;
                let detected = libinjectionrs::detect_sqli(value.as_bytes()).is_injection();
                assert!(!detected, "{value}");
            }
        }
        assert!(passed_over > 20_000, "{passed_over}");
    }
}
