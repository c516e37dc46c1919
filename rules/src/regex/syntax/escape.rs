//! What begins with `\`.

use std::borrow::Cow;

use super::super::class::{ByteSet, escape_class};
use super::{Assertion, Greed, Node, Parsed, Parser, number};

impl<'p> Parser<'p> {
    pub(super) fn escape(&mut self) -> Parsed<Option<Node>> {
        let Some(letter) = self.next() else {
            return self.refuse("a backslash ends the pattern; write '\\\\' for one");
        };
        if let Some(set) = escape_class(letter) {
            return Ok(Some(Node::Set(set)));
        }
        Ok(Some(match letter {
            b'A' => Node::Assert(Assertion::Start),
            b'z' => Node::Assert(Assertion::End),
            b'Z' => before_last_line_feed(),
            b'b' => Node::Assert(Assertion::Word),
            b'B' => Node::Assert(Assertion::NotWord),
            b'C' => Node::Set(ByteSet::ALL),
            b'R' => line_break(),
            b'E' => return Ok(None),
            b'1'..=b'9' => return self.numbered().map(Some),
            b'g' => self.back_reference()?,
            b'k' => self.named_reference()?,
            _ => {
                self.at -= 1;
                let byte = self.escaped_byte()?;
                self.byte(byte)
            }
        }))
    }

    /// `\1`: a group where it has one digit or there are so many groups, else an octal code.
    fn numbered(&mut self) -> Parsed<Node> {
        let start = self.at - 1;
        let digits: &[u8] = &self.pattern[start..];
        let length = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let group = number(&digits[..length], 10);
        if let Some(group) = group.filter(|&group| group < 10 || group <= self.group_count) {
            self.at = start + length;
            return self.back(group);
        }
        self.at = start;
        let byte = self.escaped_byte()?;
        Ok(self.byte(byte))
    }

    pub(super) fn back(&self, group: u32) -> Parsed<Node> {
        if group == 0 || group > self.group_count {
            return self.refuse("this refers to a group that the pattern does not have");
        }
        Ok(Node::Back {
            group,
            caseless: self.flags.caseless,
        })
    }

    /// `\g1`, `\g{1}`, `\g{-1}`.
    fn back_reference(&mut self) -> Parsed<Node> {
        let braced = self.take(b"{");
        let relative = self.take(b"-");
        let length = self
            .rest()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let digits = &self.rest()[..length];
        let Some(group) = number(digits, 10) else {
            return self.refuse("the number of a group is missing after '\\g'");
        };
        self.at += length;
        if braced && !self.take(b"}") {
            return self.refuse("'}' is missing after '\\g{'");
        }
        match (relative, (self.groups + 1).checked_sub(group)) {
            (false, _) => self.back(group),
            (true, Some(group)) => self.back(group),
            (true, None) => self.refuse("this refers to a group that the pattern does not have"),
        }
    }

    /// `\k<name>`, `\k'name'`, `\k{name}`.
    fn named_reference(&mut self) -> Parsed<Node> {
        let end = match self.next() {
            Some(b'<') => b'>',
            Some(b'\'') => b'\'',
            Some(b'{') => b'}',
            _ => return self.refuse("the name of a group is missing after '\\k'"),
        };
        let name = self.name(end)?;
        self.back_to(name)
    }

    pub(super) fn back_to(&self, name: &[u8]) -> Parsed<Node> {
        match self.names.iter().find(|(known, _)| *known == name) {
            Some(&(_, group)) => self.back(group),
            None => self.refuse("no group before this has that name"),
        }
    }

    /// An escape that means one byte, in and out of classes; its letter comes next.
    pub(super) fn escaped_byte(&mut self) -> Parsed<u8> {
        let letter = self.next().unwrap_or(b'\\');
        Ok(match letter {
            b'a' => 0x07,
            b'e' => 0x1b,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => return self.hexadecimal(),
            b'o' => return self.braced_octal(),
            b'c' => match self.next() {
                Some(byte @ b' '..=b'~') => byte.to_ascii_uppercase() ^ 0x40,
                _ => return self.refuse("a printable character must follow '\\c'"),
            },
            b'0'..=b'7' => {
                self.at -= 1;
                let digits = self.digits(3, 8);
                return self.code(digits, 8);
            }
            letter if letter.is_ascii_alphanumeric() => {
                self.at -= 1;
                return self.refuse(
                    "this letter has no meaning after a backslash, or one that is not supported",
                );
            }
            other => other,
        })
    }

    /// `\xHH` with none to two digits, `\x{H...}`.
    fn hexadecimal(&mut self) -> Parsed<u8> {
        if self.take(b"{") {
            let digits = self.name(b'}')?;
            return self.code(digits, 16);
        }
        let digits = self.digits(2, 16);
        self.code(if digits.is_empty() { b"0" } else { digits }, 16)
    }

    fn braced_octal(&mut self) -> Parsed<u8> {
        if !self.take(b"{") {
            return self.refuse("'{' must follow '\\o'");
        }
        let digits = self.name(b'}')?;
        self.code(digits, 8)
    }

    fn digits(&mut self, limit: usize, radix: u32) -> &'p [u8] {
        let pattern = self.pattern;
        let rest = &pattern[self.at..];
        let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
        let length = rest.iter().take(limit).take_while(is_digit).count();
        self.at += length;
        &rest[..length]
    }

    fn code(&self, digits: &[u8], radix: u32) -> Parsed<u8> {
        match number(digits, radix).map(u8::try_from) {
            Some(Ok(byte)) => Ok(byte),
            Some(Err(_)) => self.refuse("this code is larger than a byte (ff); Clew matches bytes"),
            None => self.refuse("these are no digits"),
        }
    }
}

/// `\Z`.
fn before_last_line_feed() -> Node {
    let feed = Node::Set(ByteSet::of(b"\n"));
    let feed = Node::Repeat {
        node: Box::new(feed),
        min: 0,
        max: Some(1),
        greed: Greed::Greedy,
    };
    let node = Box::new(Node::Concat(vec![feed, Node::Assert(Assertion::End)]));
    Node::Look {
        ahead: true,
        negated: false,
        node,
    }
}

/// `\R`.
fn line_break() -> Node {
    let crlf = Node::Concat(vec![
        Node::Set(ByteSet::of(b"\r")),
        Node::Set(ByteSet::of(b"\n")),
    ]);
    let one = Node::Set(ByteSet::of(b"\n\x0b\x0c\r\x85"));
    Node::Atomic(Box::new(Node::Alternation(vec![crlf, one])))
}

/// The pattern with what stands in `\Q...\E` spelled with a backslash before each mark.
pub(super) fn unquoted(pattern: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(pattern, b"\\Q").is_none() {
        return Cow::Borrowed(pattern);
    }
    let mut out = Vec::with_capacity(2 * pattern.len());
    let mut rest = pattern;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        out.push(byte);
        if byte != b'\\' {
            continue;
        }
        let Some((&letter, after)) = after.split_first() else {
            break;
        };
        rest = after;
        if letter != b'Q' {
            out.push(letter);
            continue;
        }
        out.pop();
        let length = memchr::memmem::find(rest, b"\\E").unwrap_or(rest.len());
        for &byte in &rest[..length] {
            if !byte.is_ascii_alphanumeric() {
                out.push(b'\\');
            }
            out.push(byte);
        }
        rest = rest[length..].strip_prefix(b"\\E").unwrap_or(&[]);
    }
    Cow::Owned(out)
}
