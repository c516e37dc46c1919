//! From the tree to what the engines read: a [`Hir`] for the linear one, text for the one that backtracks.

use regex_syntax::hir::{Capture, Hir, Look, Repetition};

use super::class::ByteSet;
use super::syntax::{Assertion, Greed, Node};

/// The `Hir` that matches just what `node` matches, groups included, if possessive quantifiers are
/// taken for greedy. `None` where no regular expression does: lookaround, backreferences, atomic
/// groups.
pub(super) fn greedy(node: &Node) -> Option<Hir> {
    Some(match node {
        Node::Group(index, node) => Hir::capture(Capture {
            index: *index,
            name: None,
            sub: Box::new(greedy(node)?),
        }),
        Node::Concat(nodes) => Hir::concat(nodes.iter().map(greedy).collect::<Option<_>>()?),
        Node::Alternation(nodes) => {
            Hir::alternation(nodes.iter().map(greedy).collect::<Option<_>>()?)
        }
        Node::Repeat {
            greed: Greed::Possessive,
            ..
        } => return None,
        Node::Repeat {
            node,
            min,
            max,
            greed,
        } => repetition(greedy(node)?, *min, *max, *greed),
        Node::Look { .. } | Node::Atomic(_) | Node::Back { .. } => return None,
        Node::Empty | Node::Set(_) | Node::Assert(_) => superset(node),
    })
}

/// A `Hir` without groups that matches wherever `node` does, and perhaps elsewhere: lookaround
/// always holds, a backreference matches anything.
pub(super) fn superset(node: &Node) -> Hir {
    match node {
        Node::Empty | Node::Look { .. } => Hir::empty(),
        Node::Set(set) => set.hir(),
        Node::Assert(assertion) => Hir::look(match assertion {
            Assertion::Start => Look::Start,
            Assertion::End => Look::End,
            Assertion::LineStart => Look::StartLF,
            Assertion::LineEnd => Look::EndLF,
            Assertion::Word => Look::WordAscii,
            Assertion::NotWord => Look::WordAsciiNegate,
        }),
        Node::Group(_, node) | Node::Atomic(node) => superset(node),
        Node::Concat(nodes) => Hir::concat(nodes.iter().map(superset).collect()),
        Node::Alternation(nodes) => Hir::alternation(nodes.iter().map(superset).collect()),
        Node::Repeat {
            node,
            min,
            max,
            greed,
        } => repetition(superset(node), *min, *max, *greed),
        Node::Back { .. } => repetition(ByteSet::ALL.hir(), 0, None, Greed::Greedy),
    }
}

fn repetition(sub: Hir, min: u32, max: Option<u32>, greed: Greed) -> Hir {
    let greedy = greed != Greed::Lazy;
    Hir::repetition(Repetition {
        min,
        max,
        greedy,
        sub: Box::new(sub),
    })
}

/// Whether a backreference takes either case.
pub(super) fn has_caseless_back(node: &Node) -> bool {
    any(node, &|node| {
        matches!(node, Node::Back { caseless: true, .. })
    })
}

/// Whether some part takes a letter in one case only.
pub(super) fn is_case_sensitive(node: &Node) -> bool {
    any(node, &|node| match node {
        Node::Set(set) => set.folded() != *set,
        Node::Back { caseless, .. } => !caseless,
        _ => false,
    })
}

fn any(node: &Node, holds: &impl Fn(&Node) -> bool) -> bool {
    holds(node)
        || match node {
            Node::Group(_, node)
            | Node::Atomic(node)
            | Node::Look { node, .. }
            | Node::Repeat { node, .. } => any(node, holds),
            Node::Concat(nodes) | Node::Alternation(nodes) => {
                nodes.iter().any(|node| any(node, holds))
            }
            _ => false,
        }
}

/// The pattern in fancy-regex's spelling, for its byte mode; backreferences compare bytes. Every
/// byte is written as a class, so that no byte has a meaning and none is taken for a code point.
pub(super) fn spelling(node: &Node) -> String {
    let mut text = String::new();
    spell(node, &mut text);
    text
}

fn spell(node: &Node, text: &mut String) {
    match node {
        Node::Empty => text.push_str("(?:)"),
        Node::Set(set) => spell_set(set, text),
        Node::Assert(assertion) => text.push_str(match assertion {
            Assertion::Start => "\\A",
            Assertion::End => "\\z",
            Assertion::LineStart => "(?m:^)",
            Assertion::LineEnd => "(?m:$)",
            Assertion::Word => "\\b",
            Assertion::NotWord => "\\B",
        }),
        Node::Group(_, node) => spell_in("(", node, text),
        Node::Atomic(node) => spell_in("(?>", node, text),
        Node::Look {
            ahead,
            negated,
            node,
        } => spell_in(
            match (ahead, negated) {
                (true, false) => "(?=",
                (true, true) => "(?!",
                (false, false) => "(?<=",
                (false, true) => "(?<!",
            },
            node,
            text,
        ),
        Node::Concat(nodes) => nodes.iter().for_each(|node| spell(node, text)),
        Node::Alternation(nodes) => {
            text.push_str("(?:");
            for (index, node) in nodes.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "|" });
                spell(node, text);
            }
            text.push(')');
        }
        Node::Repeat {
            node,
            min,
            max,
            greed,
        } => spell_repeat(node, *min, *max, *greed, text),
        Node::Back { group, .. } => text.push_str(&format!("(?:\\{group})")),
    }
}

fn spell_in(open: &str, node: &Node, text: &mut String) {
    text.push_str(open);
    spell(node, text);
    text.push(')');
}

fn spell_repeat(node: &Node, min: u32, max: Option<u32>, greed: Greed, text: &mut String) {
    if *node == Node::Empty {
        return;
    }
    if greed == Greed::Possessive {
        text.push_str("(?>");
    }
    spell_in("(?:", node, text);
    let max = max.map_or_else(String::new, |max| max.to_string());
    text.push_str(&format!("{{{min},{max}}}"));
    text.push_str(match greed {
        Greed::Greedy => "",
        Greed::Lazy => "?",
        Greed::Possessive => ")",
    });
}

fn spell_set(set: &ByteSet, text: &mut String) {
    if *set == ByteSet::EMPTY {
        text.push_str("(?!)");
        return;
    }
    text.push('[');
    for (first, last) in set.runs() {
        text.push_str(&format!("\\x{first:02x}-\\x{last:02x}"));
    }
    text.push(']');
}
