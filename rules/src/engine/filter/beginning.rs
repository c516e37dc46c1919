//! With which bytes the matches of a pattern begin.
//!
//! CRS's `(?:^|=)\\s*...` for commands in a shell begins where the value does or at `=`. In a value
//! without `=` one place has to be looked at instead of all.

use regex_syntax::hir::{Hir, HirKind, Look};

use super::super::classes::{self, Classes};
use super::bytes::ByteSet;

/// The classes of the bytes with which a match begins that does not begin at the value's start.
/// `None`: any, or it may be empty.
pub(in super::super) fn first_bytes(hir: &Hir) -> Option<Classes> {
    let first = of(hir, DEPTH)?;
    (!first.may_be_empty).then_some(first.classes)
}

/// Levels of the tree that are looked into.
const DEPTH: usize = 50;

struct First {
    classes: Classes,
    may_be_empty: bool,
}

fn of(hir: &Hir, depth: usize) -> Option<First> {
    let depth = depth.checked_sub(1)?;
    let consuming = |classes| {
        Some(First {
            classes,
            may_be_empty: false,
        })
    };
    match hir.kind() {
        // What follows it stands at the start; of such matches nothing is asked.
        HirKind::Look(Look::Start) => consuming(0),
        HirKind::Empty | HirKind::Look(_) => Some(First {
            classes: 0,
            may_be_empty: true,
        }),
        HirKind::Literal(literal) => consuming(classes::bit(*literal.0.first()?)),
        HirKind::Class(class) => {
            let bytes = ByteSet::of(class)?;
            consuming(bytes.iter().fold(0, |all, byte| all | classes::bit(byte)))
        }
        HirKind::Repetition(repetition) => {
            let sub = of(&repetition.sub, depth)?;
            Some(First {
                may_be_empty: sub.may_be_empty || repetition.min == 0,
                ..sub
            })
        }
        HirKind::Capture(capture) => of(&capture.sub, depth),
        HirKind::Concat(parts) => {
            let mut whole = First {
                classes: 0,
                may_be_empty: true,
            };
            for part in parts {
                let part = of(part, depth)?;
                whole.classes |= part.classes;
                whole.may_be_empty = part.may_be_empty;
                if !whole.may_be_empty {
                    break;
                }
            }
            Some(whole)
        }
        HirKind::Alternation(branches) => {
            let mut whole = First {
                classes: 0,
                may_be_empty: false,
            };
            for branch in branches {
                let branch = of(branch, depth)?;
                whole.classes |= branch.classes;
                whole.may_be_empty |= branch.may_be_empty;
            }
            Some(whole)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regex::Pattern;

    fn first(pattern: &str) -> Option<Classes> {
        first_bytes(Pattern::compile(pattern).expect("a pattern").hir())
    }

    #[test]
    fn beginnings_are_told() {
        assert_eq!(first(r"(?:^|=)\s*x"), Some(classes::bit(b'=')));
        assert_eq!(first(r"^abc"), Some(0));
        assert_eq!(
            first(r"\b(?:a|b)?c"),
            Some(classes::bit(b'a') | classes::bit(b'b') | classes::bit(b'c'))
        );
        assert_eq!(first(r"(?:^|a)?"), None);
    }
}
