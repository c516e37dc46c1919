//! Macros: `%{NAME}` and `%{COLLECTION.key}` in the texts of rules.

use super::classes::{ALWAYS, Classes, classes};
use super::tx::TxNames;
use super::variable::{Kind, Variable};

/// A text with macros, read once when rules are loaded.
#[derive(Clone, Debug, Default)]
pub(super) struct Macro {
    parts: Box<[Part]>,
    /// Of the text, where it has no macro: CRS's lists are stored by each transaction.
    classes: Classes,
}

/// A piece of a [`Macro`].
#[derive(Clone, Debug)]
pub(super) enum Part {
    Text(Box<[u8]>),
    /// A scalar variable.
    Variable(Variable),
    /// `TX.name`.
    Tx(u16),
    /// A member of a collection; the name in lower case.
    Member(Variable, Box<[u8]>),
}

impl Macro {
    /// Reads a text. `%{` without `}` is text.
    ///
    /// # Errors
    ///
    /// A sentence, when a macro names no variable.
    pub(super) fn parse(text: &str, names: &mut TxNames) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, inside, after)) = next_macro(rest) {
            push_text(&mut parts, before);
            parts.push(part(inside, names)?);
            rest = after;
        }
        push_text(&mut parts, rest);
        let classes = match parts.as_slice() {
            [Part::Text(text)] => classes(text),
            _ => ALWAYS,
        };
        Ok(Self {
            parts: parts.into(),
            classes,
        })
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text, where it has no macro.
    pub(super) fn constant(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(&[]),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What the text begins with, whatever its macros come to.
    pub(super) fn beginning(&self) -> &[u8] {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => &[],
        }
    }

    /// The classes of [`constant`](Self::constant).
    pub(super) fn constant_classes(&self) -> Classes {
        self.classes
    }

    /// The slot of `TX`, where the text is just `%{TX.name}`.
    pub(super) fn tx_slot(&self) -> Option<u16> {
        match &*self.parts {
            [Part::Tx(slot)] => Some(*slot),
            _ => None,
        }
    }
}

/// Whether a text has a macro in it.
pub(super) fn has_macro(text: &str) -> bool {
    next_macro(text).is_some()
}

fn next_macro(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find("%{")?;
    let end = start + text[start..].find('}')?;
    Some((&text[..start], &text[start + 2..end], &text[end + 1..]))
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.as_bytes().into()));
    }
}

fn part(inside: &str, names: &mut TxNames) -> Result<Part, String> {
    let (collection, key) = match inside.find(['.', ':']) {
        Some(at) => (&inside[..at], Some(&inside[at + 1..])),
        None => (inside, None),
    };
    let variable =
        Variable::named(collection).map_err(|e| format!("in the macro %{{{inside}}}: {e}"))?;
    match (variable, variable.kind(), key) {
        (Variable::Tx, _, Some(key)) => Ok(Part::Tx(names.slot(key)?)),
        (_, Kind::Scalar, None) => Ok(Part::Variable(variable)),
        (_, Kind::Scalar, Some(_)) => Err(format!(
            "in the macro %{{{inside}}}: {collection} has no members"
        )),
        (_, Kind::Collection, Some(key)) => Ok(Part::Member(
            variable,
            key.to_ascii_lowercase().into_bytes().into(),
        )),
        (_, Kind::Collection, None) => Err(format!(
            "the macro %{{{inside}}} needs a member: %{{{collection}.name}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_macros_are_constant() {
        let mut names = TxNames::default();
        let text = Macro::parse("100%{", &mut names).expect("text");
        assert_eq!(text.constant(), Some(&b"100%{"[..]));
    }

    #[test]
    fn macros_are_read() {
        let mut names = TxNames::default();
        let text =
            Macro::parse("a %{tx.Score} %{REQUEST_HEADERS.Host}", &mut names).expect("macros");
        assert!(
            matches!(text.parts(), [Part::Text(_), Part::Tx(_), Part::Text(_), Part::Member(Variable::RequestHeaders, key)] if &**key == b"host")
        );
        assert!(Macro::parse("%{nothing}", &mut names).is_err());
        assert!(Macro::parse("%{args}", &mut names).is_err());
    }
}
