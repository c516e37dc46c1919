//! `@detectSQLi`: libinjection.

use std::collections::HashSet;
use std::sync::LazyLock;

use libinjectionrs::SqliFlags;
use libinjectionrs::sqli::SqliState;
use libinjectionrs::sqli::sqli_data::SQL_KEYWORDS;

use super::Found;

/// Whether libinjection takes `value` for SQL injection; its fingerprint is group 0.
///
/// Cost: linear in `value`. libinjection looks words up again at each `.` and backtick in them, the
/// square of a word's length. A value for which that would be more than [`LOOKUPS`] allows (a word
/// of several hundred dots) counts as a match, with the fingerprint `X` that libinjection gives to
/// what is evil by its mere form.
pub(super) fn matches(value: &[u8], found: &mut Found) -> bool {
    found.clear();
    if !may_match(value) {
        return false;
    }
    // Where there are so few, no word can have too many.
    let is_pointed = value.iter().filter(|&&byte| is_mark(byte)).count() > LOOKUPS.1;
    if is_pointed && lookup_bytes(value) > LOOKUPS.0 + LOOKUPS.1 * value.len() {
        found.set_fingerprint(b"X", value.len());
        return true;
    }
    let mut state = SqliState::new(value, SqliFlags::FLAG_NONE);
    if !state.detect() {
        return false;
    }
    let length = state.fingerprint.iter().position(|&byte| byte == 0);
    found.set_fingerprint(
        &state.fingerprint[..length.unwrap_or(state.fingerprint.len())],
        value.len(),
    );
    true
}

/// How many bytes may be looked up: so many for any value, and so many for each of its bytes. A
/// byte takes about 0.1 ns, in each of up to five passes.
const LOOKUPS: (usize, usize) = (64 << 10, 256);

/// How many bytes libinjection looks up, or more.
fn lookup_bytes(value: &[u8]) -> usize {
    let words = value.split(|&byte| ends_word(byte));
    let marks = |word: &[u8]| word.iter().filter(|&&byte| is_mark(byte)).count();
    words.map(|word| marks(word) * word.len()).sum()
}

/// The bytes at which libinjection looks a word up again.
fn is_mark(byte: u8) -> bool {
    byte == b'.' || byte == b'`'
}

/// The bytes at which a word of libinjection's ends.
fn ends_word(byte: u8) -> bool {
    matches!(byte, 0 | b'\t'..=b'\r' | b' '..=b'-' | b'/' | b':'..=b'@' | b'['..=b'^' | b'{'..=b'~' | 0xa0)
        && byte != b'$'
}

/// `false` only where libinjection says no: most benign values, for a hundredth of its time.
///
/// None of libinjection's fingerprints is made of barewords, numbers, operators, dots, commas,
/// colons and semicolons alone. So where a value has no byte from which another token could come
/// (quotes, brackets, `#`, `$`, `@`, backslashes, backticks; `--`, `/*`, `&&`, `||`), and no word
/// that is one of its keywords or a part of one, it cannot match.
fn may_match(value: &[u8]) -> bool {
    let mut at = 0;
    let mut after_dot = false;
    while let Some(&byte) = value.get(at) {
        match KINDS[usize::from(byte)] {
            Kind::Word => {
                let length = value[at..]
                    .iter()
                    .take_while(|&&byte| KINDS[usize::from(byte)] == Kind::Word)
                    .count();
                if has_keyword(&value[at..at + length], after_dot) {
                    return true;
                }
                at += length;
                after_dot = false;
                continue;
            }
            Kind::Other => return true,
            Kind::Twice if value.get(at + 1) == Some(&byte) => return true,
            Kind::Slash if value.get(at + 1) == Some(&b'*') => return true,
            Kind::Twice | Kind::Slash | Kind::Between => {}
        }
        after_dot = byte == b'.';
        at += 1;
    }
    false
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

const KINDS: [Kind; 256] = {
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

/// Whether a word is a keyword, or the end of one that begins as a number: `1union` is read as `1`
/// and `union`, and so is `1.e5union`, of which the dot's right side is seen here.
fn has_keyword(word: &[u8], after_dot: bool) -> bool {
    if !after_dot && !word[0].is_ascii_digit() {
        return is_keyword(word);
    }
    let first = word.len().saturating_sub(KEYWORD);
    (first..word.len()).any(|start| !word[start].is_ascii_digit() && is_keyword(&word[start..]))
}

/// All keywords are shorter (29 bytes at most).
const KEYWORD: usize = 32;

/// Keywords, and the words of those that have several. Fingerprints are in the same list; they
/// begin with `0`.
struct Keywords {
    words: HashSet<&'static [u8]>,
    /// By first letter, a bit for each length that a keyword has: most words end here.
    lengths: [u32; 256],
}

static KEYWORDS: LazyLock<Keywords> = LazyLock::new(|| {
    let keywords = SQL_KEYWORDS
        .iter()
        .filter(|keyword| keyword.token_type != b'F');
    let words = keywords.flat_map(|keyword| {
        keyword
            .word
            .as_bytes()
            .split(|byte| matches!(byte, b' ' | b'.'))
    });
    let words: HashSet<_> = words.filter(|word| !word.is_empty()).collect();
    let mut lengths = [0; 256];
    for word in &words {
        lengths[usize::from(word[0])] |= 1 << word.len();
        lengths[usize::from(word[0].to_ascii_lowercase())] |= 1 << word.len();
    }
    Keywords { words, lengths }
});

fn is_keyword(word: &[u8]) -> bool {
    if word.len() >= KEYWORD || KEYWORDS.lengths[usize::from(word[0])] >> word.len() & 1 == 0 {
        return false;
    }
    let mut upper = [0; KEYWORD];
    let upper = &mut upper[..word.len()];
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    KEYWORDS.words.contains(&*upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_fingerprint_is_made_of_plain_tokens() {
        let plain = |fingerprint: &str| fingerprint.bytes().all(|kind| b"N1O.,:;?".contains(&kind));
        let fingerprints = SQL_KEYWORDS
            .iter()
            .filter(|keyword| keyword.token_type == b'F');
        assert!(fingerprints.clone().count() > 8000);
        assert!(
            !fingerprints
                .into_iter()
                .any(|keyword| plain(&keyword.word[1..]))
        );
        assert!(
            SQL_KEYWORDS
                .iter()
                .all(|keyword| keyword.word.len() < KEYWORD)
        );
    }

    #[test]
    fn what_is_passed_over_does_not_match() {
        const ATOMS: [&[u8]; 52] = [
            b"1", b"a", b"select", b"union", b"like", b"group", b"by", b"not", b"in", b"is",
            b"sys", b"if", b"user", b"e5", b"0x1f", b"0b1", b"1e", b"1.", b".", b",", b":", b";",
            b"=", b"<", b">", b"!", b"%", b"&", b"|", b"^", b"~", b"?", b"+", b"-", b"*", b"/",
            b" ", b"\n", b"\0", b"\xa0", b"\xe9", b"_", b"(", b")", b"'", b"d", b"f", b"or",
            b"and", b"2", b"into", b"x",
        ];
        let mut seed = 88_172_645_463_325_252_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize
        };
        let mut passed_over = 0;
        for _ in 0..60_000 {
            let mut value = Vec::new();
            for _ in 0..random() % 8 {
                value.extend_from_slice(ATOMS[random() % ATOMS.len()]);
            }
            if !may_match(&value) {
                passed_over += 1;
                let detected = libinjectionrs::detect_sqli(&value).is_injection();
                assert!(!detected, "{:?}", String::from_utf8_lossy(&value));
            }
        }
        assert!(passed_over > 5_000, "{passed_over}");
    }

    #[test]
    fn a_word_of_many_dots_counts_as_a_match() {
        let mut found = Found::new();
        let mut value = b"select 1; ".to_vec();
        value.extend(b"a.".repeat(1 << 19));
        assert!(matches(&value, &mut found));
        assert_eq!(found.group(0, &value), Some(&b"X"[..]));
        // A row of dots in a table of contents does not.
        let value = [b"(x) Chapter 1".to_vec(), vec![b'.'; 200]].concat();
        assert!(!matches(&value, &mut found));
    }
}
