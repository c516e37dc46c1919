//! `/regex/` selectors of members.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use crate::regex::{Pattern, PatternError};

/// Says which names of a collection are meant, without regard to case. Most are plain text: CRS asks for
/// `TX:/^header_name_/`, of each request.
#[derive(Clone, Debug)]
pub(super) struct NamePattern {
    pattern: Pattern,
    text: Option<Text>,
}

/// What a pattern comes to that is plain text; in lower case.
#[derive(Clone, Debug, PartialEq)]
enum Text {
    Beginning(Vec<u8>),
    Part(Vec<u8>),
}

impl NamePattern {
    /// Compiles the pattern of a selector.
    ///
    /// # Errors
    ///
    /// What is wrong with the pattern.
    pub(super) fn compile(spelling: &str) -> Result<Self, PatternError> {
        let pattern = Pattern::compile(&format!("(?i){spelling}"))?;
        let text = text(pattern.hir()).filter(|_| pattern.is_exact());
        Ok(Self { pattern, text })
    }

    /// Whether it means this name.
    pub(super) fn is_match(&self, name: &[u8]) -> bool {
        let begins = |rest: &[u8], text: &[u8]| {
            rest.get(..text.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(text))
        };
        match &self.text {
            Some(Text::Beginning(text)) => begins(name, text),
            Some(Text::Part(text)) => name
                .windows(text.len())
                .any(|window| window[0].eq_ignore_ascii_case(&text[0]) && begins(window, text)),
            None => self.pattern.is_match(name),
        }
    }
}

fn text(hir: &Hir) -> Option<Text> {
    let parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    let (at_start, rest) = match parts {
        [first, rest @ ..] if *first.kind() == HirKind::Look(Look::Start) => (true, rest),
        parts => (false, parts),
    };
    let mut text = Vec::new();
    for part in rest {
        match part.kind() {
            HirKind::Literal(literal) if !literal.0.iter().any(u8::is_ascii_alphabetic) => {
                text.extend_from_slice(&literal.0);
            }
            HirKind::Class(class) => text.push(letter(class)?),
            _ => return None,
        }
    }
    match (at_start, text.is_empty()) {
        (_, true) => None,
        (true, false) => Some(Text::Beginning(text)),
        (false, false) => Some(Text::Part(text)),
    }
}

/// The letter of which a class has both cases and nothing else.
fn letter(class: &Class) -> Option<u8> {
    let Class::Bytes(bytes) = class else {
        return None;
    };
    match bytes.ranges() {
        [upper, lower] if upper.len() == 1 && lower.len() == 1 => {
            let (upper, lower) = (upper.start(), lower.start());
            (lower.is_ascii_lowercase() && upper == lower.to_ascii_uppercase()).then_some(lower)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(spelling: &str) -> NamePattern {
        NamePattern::compile(spelling).expect("a pattern")
    }

    #[test]
    fn plain_text_is_seen() {
        let beginning = selector("^header_Name_");
        assert_eq!(
            beginning.text,
            Some(Text::Beginning(b"header_name_".to_vec()))
        );
        assert!(beginning.is_match(b"HEADER_NAME_x") && !beginning.is_match(b"a_header_name_"));
        let part = selector(r"A\/b");
        assert_eq!(part.text, Some(Text::Part(b"a/b".to_vec())));
        assert!(part.is_match(b"xa/B") && !part.is_match(b"a/") && !part.is_match(b""));
        assert_eq!(selector("a[bc]").text, None);
    }

    /// The answer is that of the pattern.
    #[test]
    fn texts_answer_as_patterns_do() {
        let names: [&[u8]; 8] = [
            b"",
            b"a",
            b"ab",
            b"AB-",
            b"xab-",
            b"xaB",
            b"\xe2\x84\xaa",
            b"k",
        ];
        for spelling in ["^ab", "ab", "b-", "^$", "^", "-", "k", "^k"] {
            let selector = selector(spelling);
            for name in names {
                assert_eq!(
                    selector.is_match(name),
                    selector.pattern.is_match(name),
                    "{spelling} {name:?}"
                );
            }
        }
    }
}
