//! PCRE's spelling: from text to a tree of what is to match.
//!
//! Source: pcre2pattern(3), for `PCRE2_DOTALL | PCRE2_DOLLAR_ENDONLY`, 8-bit, without UTF: the
//! options of ModSecurity 2, for which the Core Rule Set is written.

mod class;
mod escape;
mod group;

use super::PatternError;
use super::class::ByteSet;

/// What a part of a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Empty,
    Set(ByteSet),
    Assert(Assertion),
    /// A capturing group: its number, and what is inside.
    Group(u32, Box<Node>),
    Concat(Vec<Node>),
    /// The first that leads to a match counts.
    Alternation(Vec<Node>),
    Repeat {
        node: Box<Node>,
        min: u32,
        max: Option<u32>,
        greed: Greed,
    },
    Look {
        ahead: bool,
        negated: bool,
        node: Box<Node>,
    },
    /// `(?>...)`: never tried again.
    Atomic(Box<Node>),
    /// What a group matched, once more.
    Back {
        group: u32,
        caseless: bool,
    },
}

/// Something that matches between bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assertion {
    Start,
    End,
    /// `$` in multi-line mode.
    LineEnd,
    /// Where a line begins, the place after a last line feed among them (PCRE's `^` excludes it).
    LineStart,
    Word,
    NotWord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greed {
    Greedy,
    Lazy,
    Possessive,
}

/// Quantifiers of quantifiers; each is a level of recursion too.
const QUANTIFIERS: usize = 10;

/// PCRE's limit for the numbers in `{n,m}`.
const REPEAT: u32 = 65_535;

/// Reads `pattern`.
pub(super) fn parse(pattern: &[u8]) -> Result<Node, PatternError> {
    let pattern = &*escape::unquoted(pattern);
    let mut parser = Parser {
        pattern,
        at: 0,
        flags: Flags {
            caseless: false,
            multi_line: false,
            dot_all: true,
            extended: false,
            lazy: false,
        },
        groups: 0,
        names: Vec::new(),
        depth: 0,
        group_count: group::count(pattern),
    };
    let node = parser.alternation()?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => parser.refuse("this ')' closes nothing; write '\\)'"),
    }
}

#[derive(Clone, Copy)]
struct Flags {
    caseless: bool,
    multi_line: bool,
    dot_all: bool,
    extended: bool,
    /// `(?U)`: quantifiers are lazy unless `?` follows.
    lazy: bool,
}

struct Parser<'p> {
    pattern: &'p [u8],
    at: usize,
    flags: Flags,
    groups: u32,
    names: Vec<(&'p [u8], u32)>,
    depth: usize,
    /// How many groups the whole pattern has: `\12` is a group where there are twelve.
    group_count: u32,
}

type Parsed<T> = Result<T, PatternError>;

impl<'p> Parser<'p> {
    fn alternation(&mut self) -> Parsed<Node> {
        let mut branches = vec![self.sequence()?];
        while self.take(b"|") {
            branches.push(self.sequence()?);
        }
        Ok(match branches.len() {
            1 => branches.remove(0),
            _ => Node::Alternation(branches),
        })
    }

    fn sequence(&mut self) -> Parsed<Node> {
        let mut items = Vec::new();
        loop {
            self.skip_ignored();
            match self.peek() {
                None | Some(b'|' | b')') => break,
                _ => {}
            }
            let Some(item) = self.item()? else { continue };
            self.skip_ignored();
            items.push(self.quantified(item)?);
        }
        Ok(match items.len() {
            0 => Node::Empty,
            1 => items.remove(0),
            _ => Node::Concat(items),
        })
    }

    /// One item; `None` where something stands that matches nothing of its own, such as `(?i)`.
    fn item(&mut self) -> Parsed<Option<Node>> {
        let Some(byte) = self.next() else {
            return Ok(None);
        };
        Ok(Some(match byte {
            b'.' if self.flags.dot_all => Node::Set(ByteSet::ALL),
            b'.' => Node::Set(ByteSet::of(b"\n").negated()),
            b'^' if self.flags.multi_line => line_start(),
            b'^' => Node::Assert(Assertion::Start),
            b'$' if self.flags.multi_line => Node::Assert(Assertion::LineEnd),
            b'$' => Node::Assert(Assertion::End),
            b'[' => Node::Set(self.class()?),
            b'(' => return self.group(),
            b'\\' => return self.escape(),
            b'*' | b'+' | b'?' => {
                self.at -= 1;
                return self.refuse("there is nothing before this quantifier that it could repeat");
            }
            _ => self.byte(byte),
        }))
    }

    fn byte(&self, byte: u8) -> Node {
        let set = ByteSet::of(&[byte]);
        Node::Set(if self.flags.caseless {
            set.folded()
        } else {
            set
        })
    }

    fn quantified(&mut self, mut node: Node) -> Parsed<Node> {
        let mut count = 0;
        while let Some((min, max)) = self.quantifier()? {
            count += 1;
            if count > QUANTIFIERS {
                return self.refuse("more than 10 quantifiers after one another");
            }
            self.skip_ignored();
            let greed = if self.take(b"+") {
                Greed::Possessive
            } else if self.take(b"?") != self.flags.lazy {
                Greed::Lazy
            } else {
                Greed::Greedy
            };
            node = repeated(node, min, max, greed);
            self.skip_ignored();
        }
        Ok(node)
    }

    /// `*`, `+`, `?`, `{n}`, `{n,}`, `{n,m}`; any other `{` is a byte like others.
    fn quantifier(&mut self) -> Parsed<Option<(u32, Option<u32>)>> {
        let range = match self.peek() {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            Some(b'{') => return self.braces(),
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(range))
    }

    fn braces(&mut self) -> Parsed<Option<(u32, Option<u32>)>> {
        let Some(length) = self.rest().iter().position(|&byte| byte == b'}') else {
            return Ok(None);
        };
        let inside = &self.rest()[1..length];
        let (first, second) = match inside.iter().position(|&byte| byte == b',') {
            Some(comma) => (&inside[..comma], Some(&inside[comma + 1..])),
            None => (inside, None),
        };
        let all_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
        if first.is_empty() || !all_digits(first) || !second.is_none_or(all_digits) {
            return Ok(None);
        }
        let min = self.repeat_count(first)?;
        let max = match second {
            None => Some(min),
            Some(b"") => None,
            Some(digits) => Some(self.repeat_count(digits)?),
        };
        if max.is_some_and(|max| max < min) {
            return self.refuse("the second number in braces is smaller than the first");
        }
        self.at += length + 1;
        Ok(Some((min, max)))
    }

    fn repeat_count(&self, digits: &[u8]) -> Parsed<u32> {
        match number(digits, 10).filter(|&count| count <= REPEAT) {
            Some(count) => Ok(count),
            None => self.refuse("a number in braces is larger than 65535"),
        }
    }

    /// `(?#...)`, and white space and comments where `(?x)` is on.
    fn skip_ignored(&mut self) {
        loop {
            let rest = self.rest();
            let length = match rest {
                [b'(', b'?', b'#', ..] => memchr::memchr(b')', rest).map_or(0, |end| end + 1),
                [b' ' | b'\t'..=b'\r', ..] if self.flags.extended => 1,
                [b'#', ..] if self.flags.extended => {
                    memchr::memchr(b'\n', rest).unwrap_or(rest.len())
                }
                _ => 0,
            };
            if length == 0 {
                return;
            }
            self.at += length;
        }
    }

    fn rest(&self) -> &'p [u8] {
        &self.pattern[self.at.min(self.pattern.len())..]
    }

    fn peek(&self) -> Option<u8> {
        self.pattern.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, text: &[u8]) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn refuse<T>(&self, reason: &str) -> Parsed<T> {
        Err(PatternError {
            at: self.at.min(self.pattern.len()),
            reason: reason.to_owned(),
        })
    }
}

/// A lookaround that holds once holds each time, so that repeating it means: it must, or it may.
fn repeated(node: Node, min: u32, max: Option<u32>, greed: Greed) -> Node {
    if !matches!(node, Node::Look { .. }) {
        return Node::Repeat {
            node: Box::new(node),
            min,
            max,
            greed,
        };
    }
    match (min, max, greed) {
        (_, Some(0), _) => Node::Empty,
        (1.., ..) => node,
        (0, _, Greed::Lazy) => Node::Alternation(vec![Node::Empty, node]),
        (0, _, Greed::Greedy) => Node::Alternation(vec![node, Node::Empty]),
        (0, _, Greed::Possessive) => {
            Node::Atomic(Box::new(Node::Alternation(vec![node, Node::Empty])))
        }
    }
}

/// PCRE's `^` in multi-line mode: not after a line feed that ends the value.
fn line_start() -> Node {
    let not_at_end = Node::Look {
        ahead: true,
        negated: false,
        node: Box::new(Node::Set(ByteSet::ALL)),
    };
    let later = Node::Concat(vec![Node::Assert(Assertion::LineStart), not_at_end]);
    Node::Alternation(vec![Node::Assert(Assertion::Start), later])
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}
