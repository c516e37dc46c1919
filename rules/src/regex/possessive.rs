//! Possessive quantifiers that may as well be greedy.
//!
//! `[set]*+` never gives back what it took. Where nothing that follows can begin with a byte of the
//! set, giving back would not help anyway: the greedy `[set]*` matches the same, and a linear
//! engine can run it. Where something can, it is so for every value in which none of those bytes
//! occurs: the *doubtful* bytes.

use super::class::ByteSet;
use super::syntax::{Assertion, Greed, Node};

/// What may come after a place in a pattern.
#[derive(Clone, Copy)]
struct Follow {
    /// The bytes that it may begin with.
    set: ByteSet,
    end: End,
}

/// Whether the rest of a pattern may match without another byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    No,
    /// Anywhere.
    Yes,
    /// Where an assertion holds, which may be at one place and not at the next.
    Depends,
}

impl Follow {
    const END: Self = Self {
        set: ByteSet::EMPTY,
        end: End::Yes,
    };
    const UNKNOWN: Self = Self {
        set: ByteSet::ALL,
        end: End::Depends,
    };

    fn or(self, other: Self) -> Self {
        Self {
            set: self.set.union(other.set),
            end: self.end.max(other.end),
        }
    }

    fn behind_assertion(self) -> Self {
        let end = if self.end == End::No {
            End::No
        } else {
            End::Depends
        };
        Self { end, ..self }
    }
}

/// `node` with each possessive quantifier made greedy that may be.
pub(super) fn relaxed(node: Node) -> Node {
    relax(node, Follow::END)
}

/// The bytes without which the possessive quantifiers that are left in `node` may be greedy as well.
/// `None` where that depends on more than bytes, or something else is not regular.
pub(super) fn doubtful(node: &Node) -> Option<ByteSet> {
    doubts(node, Follow::END)
}

fn doubts(node: &Node, follow: Follow) -> Option<ByteSet> {
    let both = |one: ByteSet, other: Option<ByteSet>| Some(one.union(other?));
    match node {
        Node::Empty | Node::Set(_) | Node::Assert(_) => Some(ByteSet::EMPTY),
        Node::Look { .. } | Node::Atomic(_) | Node::Back { .. } => None,
        Node::Group(_, node) => doubts(node, follow),
        Node::Alternation(nodes) => nodes
            .iter()
            .try_fold(ByteSet::EMPTY, |all, node| both(all, doubts(node, follow))),
        Node::Concat(nodes) => {
            let mut follow = follow;
            nodes.iter().rev().try_fold(ByteSet::EMPTY, |all, node| {
                let own = doubts(node, follow);
                follow = first(node, follow);
                both(all, own)
            })
        }
        Node::Repeat {
            node,
            greed: Greed::Possessive,
            ..
        } => match &**node {
            Node::Set(set) if follow.end != End::Depends => Some(set.intersection(follow.set)),
            _ => None,
        },
        Node::Repeat { node, .. } => doubts(node, first(node, follow).or(follow)),
    }
}

fn relax(node: Node, follow: Follow) -> Node {
    match node {
        Node::Group(index, node) => Node::Group(index, Box::new(relax(*node, follow))),
        Node::Concat(mut nodes) => {
            let mut follow = follow;
            for node in nodes.iter_mut().rev() {
                *node = relax(std::mem::replace(node, Node::Empty), follow);
                follow = first(node, follow);
            }
            Node::Concat(nodes)
        }
        Node::Alternation(nodes) => {
            Node::Alternation(nodes.into_iter().map(|node| relax(node, follow)).collect())
        }
        Node::Repeat {
            node,
            min,
            max,
            greed,
        } => {
            let greed = match (&*node, greed) {
                (Node::Set(set), Greed::Possessive) if gives_nothing(set, follow) => Greed::Greedy,
                _ => greed,
            };
            let inside = first(&node, follow).or(follow);
            Node::Repeat {
                node: Box::new(relax(*node, inside)),
                min,
                max,
                greed,
            }
        }
        Node::Look {
            ahead,
            negated,
            node,
        } => {
            let node = Box::new(relax(*node, Follow::UNKNOWN));
            Node::Look {
                ahead,
                negated,
                node,
            }
        }
        Node::Atomic(node) => Node::Atomic(Box::new(relax(*node, Follow::UNKNOWN))),
        Node::Empty | Node::Set(_) | Node::Assert(_) | Node::Back { .. } => node,
    }
}

fn gives_nothing(set: &ByteSet, follow: Follow) -> bool {
    follow.end != End::Depends && follow.set.is_disjoint(set)
}

/// What may come at a place where `node` comes, and then `follow`.
fn first(node: &Node, follow: Follow) -> Follow {
    match node {
        Node::Empty => follow,
        Node::Set(set) => Follow {
            set: *set,
            end: End::No,
        },
        // Before a byte that was given back, the value does not end.
        Node::Assert(Assertion::End) => Follow {
            set: ByteSet::EMPTY,
            end: End::No,
        },
        Node::Assert(_) | Node::Look { .. } => follow.behind_assertion(),
        Node::Group(_, node) | Node::Atomic(node) => first(node, follow),
        Node::Concat(nodes) => nodes
            .iter()
            .rev()
            .fold(follow, |follow, node| first(node, follow)),
        Node::Alternation(nodes) => {
            let nothing = Follow {
                set: ByteSet::EMPTY,
                end: End::No,
            };
            nodes
                .iter()
                .fold(nothing, |all, node| all.or(first(node, follow)))
        }
        Node::Repeat { node, min: 0, .. } => first(node, follow).or(follow),
        Node::Repeat { node, .. } => first(node, follow),
        Node::Back { .. } => Follow::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::super::syntax::parse;
    use super::*;

    fn stays_possessive(pattern: &str) -> bool {
        let node = relaxed(parse(pattern.as_bytes()).expect("a pattern"));
        format!("{node:?}").contains("Possessive")
    }

    #[test]
    fn greedy_where_nothing_is_given_back() {
        for pattern in [
            r"\s*+;",
            r"a++$",
            r"a++",
            r"(?:\s*+,x?)*$",
            r"\d++(?:[a-z]|-\d)",
            r"x*+\z",
        ] {
            assert!(!stays_possessive(pattern), "{pattern}");
        }
    }

    #[test]
    fn doubtful_bytes() {
        let doubtful =
            |pattern: &str| doubtful(&relaxed(parse(pattern.as_bytes()).expect("a pattern")));
        assert_eq!(doubtful(r"a++[ab]"), Some(ByteSet::of(b"a")));
        assert_eq!(doubtful(r"(?:[ab]*+b?c*+)*d"), Some(ByteSet::of(b"bac")));
        assert_eq!(doubtful(r"a++b"), Some(ByteSet::EMPTY));
        assert_eq!(doubtful(r"a++\b"), None);
        assert_eq!(doubtful(r"(?=a)a"), None);
    }

    #[test]
    fn possessive_where_something_would_be() {
        for pattern in [
            r"a*+a",
            r"a*+\b",
            r"a*+b?a",
            r"(?:a*+b?)*",
            r"(?:ab)*+c",
            r"a*+(?=a)",
            r"(x)a*+\1",
        ] {
            assert!(stays_possessive(pattern), "{pattern}");
        }
    }
}
