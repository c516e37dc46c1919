//! What begins with `(`.

use super::{Flags, Node, Parsed, Parser};

/// Groups in groups. Patterns may come from macros, so a value must not decide how deep Clew recurses.
const DEPTH: usize = 100;

impl<'p> Parser<'p> {
    pub(super) fn group(&mut self) -> Parsed<Option<Node>> {
        if self.take(b"*") {
            return self.refuse("verbs such as (*UTF) are not supported");
        }
        if self.take(b"?#") {
            return self.refuse("this comment is not closed; ')' is missing");
        }
        if self.depth == DEPTH {
            return self.refuse("more than 100 groups in one another");
        }
        self.depth += 1;
        let outer = self.flags;
        let node = self.group_body()?;
        self.depth -= 1;
        if node.is_some() {
            self.flags = outer;
        }
        Ok(node)
    }

    fn group_body(&mut self) -> Parsed<Option<Node>> {
        let look = |ahead, negated| {
            move |node| Node::Look {
                ahead,
                negated,
                node: Box::new(node),
            }
        };
        let node = if !self.take(b"?") {
            self.capture()?
        } else if self.take(b":") {
            self.inside()?
        } else if self.take(b"=") {
            look(true, false)(self.inside()?)
        } else if self.take(b"!") {
            look(true, true)(self.inside()?)
        } else if self.take(b"<=") {
            look(false, false)(self.inside()?)
        } else if self.take(b"<!") {
            look(false, true)(self.inside()?)
        } else if self.take(b">") {
            Node::Atomic(Box::new(self.inside()?))
        } else if self.take(b"P=") {
            let name = self.name(b')')?;
            self.back_to(name)?
        } else if self.take(b"P<") || self.take(b"<") {
            self.named(b'>')?
        } else if self.take(b"'") {
            self.named(b'\'')?
        } else {
            return self.options();
        };
        Ok(Some(node))
    }

    fn inside(&mut self) -> Parsed<Node> {
        let start = self.at;
        let node = self.alternation()?;
        if self.take(b")") {
            return Ok(node);
        }
        self.at = start;
        self.refuse("this group is not closed; ')' is missing")
    }

    fn capture(&mut self) -> Parsed<Node> {
        self.groups += 1;
        let number = self.groups;
        Ok(Node::Group(number, Box::new(self.inside()?)))
    }

    fn named(&mut self, end: u8) -> Parsed<Node> {
        let name = self.name(end)?;
        self.names.push((name, self.groups + 1));
        self.capture()
    }

    pub(super) fn name(&mut self, end: u8) -> Parsed<&'p [u8]> {
        let pattern = self.pattern;
        let rest = &pattern[self.at..];
        match rest.iter().position(|&byte| byte == end) {
            Some(length) if length > 0 => {
                self.at += length + 1;
                Ok(&rest[..length])
            }
            _ => self.refuse("a group's name is missing here, or not closed"),
        }
    }

    /// `(?i)` and `(?i:...)`.
    fn options(&mut self) -> Parsed<Option<Node>> {
        let mut on = true;
        if self.take(b"^") {
            self.flags = Flags {
                caseless: false,
                multi_line: false,
                dot_all: false,
                extended: false,
                lazy: self.flags.lazy,
            };
        }
        loop {
            match self.next() {
                Some(b'-') => on = false,
                Some(b'i') => self.flags.caseless = on,
                Some(b'm') => self.flags.multi_line = on,
                Some(b's') => self.flags.dot_all = on,
                Some(b'x') => self.flags.extended = on,
                Some(b'U') => self.flags.lazy = on,
                Some(b')') => return Ok(None),
                Some(b':') => return self.inside().map(Some),
                _ => {
                    self.at = self.at.min(self.pattern.len()).saturating_sub(1);
                    return self.refuse("this kind of group is not supported (recursion, conditions, callouts, branch reset)");
                }
            }
        }
    }
}

/// How many capturing groups a pattern opens (more where a quoted or commented `(` looks like one).
pub(super) fn count(pattern: &[u8]) -> u32 {
    let mut count = 0;
    let mut at = 0;
    let mut in_class = false;
    while let Some(&byte) = pattern.get(at) {
        match byte {
            b'\\' => at += 1,
            b'[' if !in_class => {
                in_class = true;
                at += usize::from(pattern.get(at + 1) == Some(&b'^'));
                at += usize::from(pattern.get(at + 1) == Some(&b']'));
            }
            b']' => in_class = false,
            b'(' if !in_class => count += u32::from(captures(&pattern[at + 1..])),
            _ => {}
        }
        at += 1;
    }
    count
}

fn captures(inside: &[u8]) -> bool {
    let Some(kind) = inside.strip_prefix(b"?") else {
        return !inside.starts_with(b"*");
    };
    match kind {
        [b'P', b'<', ..] | [b'\'', ..] => true,
        [b'<', next, ..] => !matches!(next, b'=' | b'!'),
        _ => false,
    }
}
