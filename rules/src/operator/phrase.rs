//! `@pm`, `@pmf`, `@pmFromFile`: many phrases at once.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::memchr;

use super::{Files, Found, OperatorError};

/// A compiled list of phrases, compared without regard to ASCII case. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Phrases {
    phrases: Arc<[Vec<u8>]>,
    automaton: AhoCorasick,
}

impl Phrases {
    /// `@pm`: phrases with white space between them. `|41 42|` writes bytes in hexadecimal, and `\`
    /// stands before `:`, `;`, `"` or another `\`, as in Snort's `content`.
    ///
    /// # Errors
    ///
    /// No phrase, or too many.
    pub fn list(argument: &str) -> Result<Self, OperatorError> {
        let phrases = split(strip_quotes(argument.trim()).as_bytes());
        if phrases.is_empty() {
            return Err(refuse(
                "no phrase is given; name one or more, with spaces between them",
            ));
        }
        Self::new(phrases)
    }

    /// `@pmFromFile`: one phrase a line, of one file or more with spaces between their names. White
    /// space around a phrase, empty lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, an address instead of a file, too many phrases.
    pub fn from_files(argument: &str, files: &dyn Files) -> Result<Self, OperatorError> {
        let argument = argument.trim();
        if argument.is_empty() {
            return Err(refuse("no file is named"));
        }
        let mut phrases = Vec::new();
        for name in argument.split_ascii_whitespace() {
            if name.starts_with("https://") || name.starts_with("http://") {
                return Err(refuse(
                    "lists are not fetched from the network; store the list in a file",
                ));
            }
            let content = files
                .read(name)
                .map_err(|error| refuse(&format!("{name}: {error}")))?;
            phrases.extend(lines(&content).map(<[u8]>::to_vec));
        }
        Self::new(phrases)
    }

    fn new(mut phrases: Vec<Vec<u8>>) -> Result<Self, OperatorError> {
        for phrase in &mut phrases {
            phrase.make_ascii_lowercase();
        }
        phrases.sort_unstable();
        phrases.dedup();
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            // The first phrase that ends, as ModSecurity finds it.
            .match_kind(MatchKind::Standard)
            .build(&phrases)
            .map_err(|error| refuse(&format!("the phrases cannot be compiled: {error}")))?;
        Ok(Self {
            phrases: phrases.into(),
            automaton,
        })
    }

    /// The phrases: in lower case, sorted, each once.
    pub fn phrases(&self) -> &[Vec<u8>] {
        &self.phrases
    }

    /// Whether `value` has a phrase in it; the one that ends first is group 0.
    pub fn matches(&self, value: &[u8], found: &mut Found) -> bool {
        found.clear();
        match self.automaton.find(value) {
            Some(phrase) => {
                found.push(phrase.range());
                true
            }
            None => false,
        }
    }

    /// What the compiled list takes, bytes.
    pub fn memory_usage(&self) -> usize {
        self.automaton.memory_usage()
            + self
                .phrases
                .iter()
                .map(|phrase| phrase.len() + 24)
                .sum::<usize>()
    }
}

/// The lines of a list that count: trimmed, neither empty nor a comment.
pub(super) fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && line[0] != b'#')
}

fn refuse(reason: &str) -> OperatorError {
    OperatorError::Argument {
        name: "pm",
        reason: reason.to_owned(),
    }
}

fn strip_quotes(argument: &str) -> &str {
    argument
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(argument)
}

fn split(argument: &[u8]) -> Vec<Vec<u8>> {
    let mut phrases = Vec::new();
    let mut phrase = Vec::new();
    let mut rest = argument;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' if after.first().is_some_and(|next| b":;\"\\".contains(next)) => {
                phrase.push(after[0]);
                rest = &after[1..];
            }
            b'|' => match hexadecimal(after) {
                Some((bytes, length)) => {
                    phrase.extend(bytes);
                    rest = &after[length..];
                }
                None => phrase.push(byte),
            },
            _ if byte.is_ascii_whitespace() || byte == 0x0b => {
                phrases.push(std::mem::take(&mut phrase))
            }
            _ => phrase.push(byte),
        }
    }
    phrases.push(phrase);
    phrases.retain(|phrase| !phrase.is_empty());
    phrases
}

/// The bytes before the next `|`, and how many bytes of text lead past it.
fn hexadecimal(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let end = memchr(b'|', text)?;
    let digits: Vec<u8> = text[..end]
        .iter()
        .copied()
        .filter(|byte| *byte != b' ')
        .collect();
    if digits.is_empty() || digits.len() % 2 == 1 {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let all_digits = digits.iter().all(u8::is_ascii_hexdigit);
    let bytes = digits
        .chunks(2)
        .map(byte)
        .collect::<Option<_>>()
        .filter(|_| all_digits)?;
    Some((bytes, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrases(argument: &str) -> Vec<String> {
        let list = Phrases::list(argument).expect("a list");
        list.phrases()
            .iter()
            .map(|phrase| String::from_utf8_lossy(phrase).into_owned())
            .collect()
    }

    #[test]
    fn spellings_of_a_list() {
        assert_eq!(phrases("B  a\ta"), ["a", "b"]);
        assert_eq!(phrases(r#""x y""#), ["x", "y"]);
        assert_eq!(phrases("A|42 43|D|20|e"), ["abcd e"]);
        assert_eq!(phrases(r"a\;b \w a|b"), [r"\w", "a;b", "a|b"]);
        assert!(Phrases::list("  ").is_err());
    }

    #[test]
    fn the_phrase_that_ends_first_is_found() {
        let list = Phrases::list("select lec").expect("a list");
        let mut found = Found::new();
        assert!(list.matches(b"xSELECTx", &mut found));
        assert_eq!(found.range(0), Some(3..6));
    }

    #[test]
    fn lines_that_count() {
        let content = b"# a\r\n  one two \r\n\n\tthree";
        assert_eq!(
            lines(content).collect::<Vec<_>>(),
            [&b"one two"[..], b"three"]
        );
    }
}
