//! What the operators of rules require of a value.

use super::super::ruleset::{Asked, Link, Test};
use super::bytes::ByteSet;
use super::requirement::Requirement;
use crate::operator::{Comparison, Operator};

/// What a value must have for a link of a chain to match. `None`: nothing is known, it must be asked.
pub(super) fn demand(link: &Link) -> Option<Requirement> {
    if link.negated {
        return None;
    }
    let Test::Operator(asked) = &link.test else {
        return None;
    };
    let requirement = of_operator(asked)?;
    let tells = requirement.min_len > 0
        || requirement.max_len.is_some()
        || !requirement.clauses.is_empty()
        || !requirement.sets.is_empty();
    tells.then_some(requirement)
}

fn of_operator(asked: &Asked) -> Option<Requirement> {
    match &asked.operator {
        Operator::Rx(rx) | Operator::RxGlobal(rx) => Some(Requirement::of(rx.pattern().hir())),
        Operator::Verify(verify) => Some(Requirement::of(verify.pattern().hir())),
        Operator::Phrases(phrases) => Some(Requirement::phrases(
            phrases.phrases().iter().map(Vec::as_slice),
        )),
        Operator::Text(comparison) => of_text(*comparison, asked.argument.constant()?),
        Operator::ValidateByteRange(range) => Some(Requirement::byte(
            (0..=255).filter(|byte| !range.allows(*byte)).collect(),
        )),
        Operator::ValidateUrlEncoding => Some(Requirement::byte(ByteSet::from_iter([b'%']))),
        Operator::ValidateUtf8Encoding => Some(Requirement::byte((0x80..=0xff).collect())),
        // Tags begin with `<`, attributes have `=`.
        Operator::DetectXss => Some(Requirement::byte(ByteSet::from_iter(*b"<="))),
        Operator::DetectSqli => Some(Requirement {
            min_len: 1,
            sql: true,
            ..Requirement::default()
        }),
        _ => None,
    }
}

/// `@within` asks the other way round: any part of its argument matches.
fn of_text(comparison: Comparison, argument: &[u8]) -> Option<Requirement> {
    if comparison == Comparison::Within || argument.is_empty() {
        return None;
    }
    let mut requirement = Requirement::phrases(std::iter::once(argument));
    if comparison == Comparison::Streq {
        requirement.max_len = Some(argument.len());
    }
    Some(requirement)
}
