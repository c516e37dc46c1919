//! GraphQL documents (specification of October 2021), flattened.
//!
//! A document arrives in the member `query` of a JSON body or in the argument `query` of a GET.
//! What an attacker controls in it are its literals, whose strings have escapes of their own
//! (`\u0027`, block strings), so that rules do not see through JSON's alone. Each is given
//! decoded, under `graphql`, the fields around it and the argument's name:
//!
//! ```text
//! query Q { user(id: "1\u0027", in: {a: [2]}) { n: posts(first: 3) } }
//!
//! Literal  graphql.user.id             1'
//! Literal  graphql.user.in.a.array_0   2
//! Literal  graphql.user.posts.first    3
//! Name     graphql.user                user
//! Alias    graphql.user.posts          n
//! ```

mod lexer;

use super::{
    BodyError, BodyLimits, Budget, Frame, FrameKind, Parsed, Scratch, is_space, push_index,
};
use lexer::{Lexer, Token};

/// What a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A number, string (decoded), `true`, `false`, `null` or enumeration value as an argument.
    Literal,
    /// `$name` as an argument: the value is in the JSON's `variables`.
    Variable,
    /// A field's or a directive's name, or that of an operation or fragment (under `graphql`
    /// alone), or of a spread.
    Name,
    /// Another name under which a field is asked for.
    Alias,
}

/// Gives what stands in `document` to `found`, as kind, name and value. One pass without
/// recursion; pairs beyond `limits.arguments` are counted out.
///
/// # Errors
///
/// When `document` is no executable GraphQL, is nested deeper than `limits.depth`, or would
/// flatten to more than [`BodyLimits::output_bytes`]. What stands before the error has been
/// given: a caller that is not sure to have GraphQL before it keeps it back until the end.
pub fn pairs(
    document: &[u8],
    limits: &BodyLimits,
    scratch: &mut Scratch,
    found: impl FnMut(Kind, &[u8], &[u8]),
) -> Result<Parsed, BodyError> {
    let Scratch {
        name,
        value,
        frames,
        ..
    } = scratch;
    name.clear();
    name.extend_from_slice(b"graphql");
    frames.clear();
    let mut reader = Reader {
        lexer: Lexer::new(document, value),
        path: name,
        frames,
        depth: limits.depth,
        budget: Budget::new(limits, document.len()),
        found,
    };
    match reader.document() {
        Ok(()) => Ok(reader.budget.parsed),
        Err(what) => Err(BodyError {
            processor: "GraphQL",
            what,
            at: reader.lexer.at(),
        }),
    }
}

/// Whether `text` starts like an executable document; to be asked before anything in an argument
/// that is only perhaps GraphQL is parsed.
#[must_use]
pub fn looks_like(text: &[u8]) -> bool {
    let space = |byte: &u8| is_space(*byte) || *byte == b',';
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let start = text
        .iter()
        .position(|byte| !space(byte))
        .unwrap_or(text.len());
    let text = &text[start..];
    let starts = |word: &[u8]| {
        let after = text.strip_prefix(word)?;
        after
            .first()
            .filter(|byte| !byte.is_ascii_alphanumeric() && **byte != b'_')
    };
    let words: [&[u8]; 4] = [b"query", b"mutation", b"subscription", b"fragment"];
    matches!(text.first(), Some(b'{' | b'#')) || words.iter().any(|word| starts(word).is_some())
}

type Outcome<T = ()> = Result<T, &'static str>;

struct Reader<'d, 's, F> {
    lexer: Lexer<'d, 's>,
    path: &'s mut Vec<u8>,
    frames: &'s mut Vec<Frame>,
    depth: usize,
    budget: Budget,
    found: F,
}

impl<'d, F: FnMut(Kind, &[u8], &[u8])> Reader<'d, '_, F> {
    fn document(&mut self) -> Outcome {
        let mut definitions = 0usize;
        while self.lexer.peek()? != Token::End {
            self.definition()?;
            while let Some(frame) = self.frames.last().copied() {
                self.path.truncate(frame.path);
                self.inside(frame.kind)?;
            }
            definitions += 1;
        }
        if definitions == 0 {
            Err("no operation")
        } else {
            Ok(())
        }
    }

    /// The head of an operation or fragment, up to its opening brace.
    fn definition(&mut self) -> Outcome {
        let word = match self.lexer.peek()? {
            Token::Punctuator(b'{') => return self.open(FrameKind::Selection),
            Token::Name(word) => word,
            _ => return Err("no operation or fragment"),
        };
        self.lexer.next()?;
        match word {
            b"query" | b"mutation" | b"subscription" => {
                if let Token::Name(name) = self.lexer.peek()? {
                    self.lexer.next()?;
                    self.give(Kind::Name, name)?;
                }
                if self.lexer.peek()? == Token::Punctuator(b'(') {
                    return self.open(FrameKind::Variables);
                }
            }
            b"fragment" => {
                let name = self.name()?;
                self.give(Kind::Name, name)?;
                if self.name()? != b"on" {
                    return Err("no type condition after a fragment's name");
                }
                let condition = self.name()?;
                self.give(Kind::Name, condition)?;
            }
            _ => return Err("neither an operation nor a fragment"),
        }
        self.after_head()
    }

    /// What may follow a field, a spread or a definition's head: directives (with arguments),
    /// then a selection. A field's arguments lead here too.
    fn after_head(&mut self) -> Outcome {
        match self.lexer.peek()? {
            Token::Punctuator(b'@') => self.directive(),
            Token::Punctuator(b'{') => self.open(FrameKind::Selection),
            Token::End if self.frames.is_empty() => Err("an operation without a selection"),
            _ if self.frames.is_empty() => Err("neither { nor @ before an operation's selection"),
            _ => Ok(()),
        }
    }

    fn directive(&mut self) -> Outcome {
        loop {
            self.lexer.next()?;
            let name = self.name()?;
            self.give(Kind::Name, name)?;
            if self.lexer.peek()? == Token::Punctuator(b'(') {
                // Named as the field's own arguments, or what follows would be under its name.
                return self.open(FrameKind::Arguments);
            }
            if self.lexer.peek()? != Token::Punctuator(b'@') {
                return self.after_head();
            }
        }
    }

    fn inside(&mut self, kind: FrameKind) -> Outcome {
        match kind {
            FrameKind::Selection => self.selection(),
            FrameKind::Arguments => self.argument(),
            FrameKind::Variables => self.variable_definition(),
            FrameKind::Object => self.object_field(),
            FrameKind::Array => self.element(),
        }
    }

    fn open(&mut self, kind: FrameKind) -> Outcome {
        if self.frames.len() >= self.depth {
            return Err("nested too deep");
        }
        self.lexer.next()?;
        self.frames.push(Frame::new(kind, self.path.len()));
        Ok(())
    }

    /// Ends the innermost frame at `close`, if it is there.
    fn closed(&mut self, close: u8) -> Outcome<bool> {
        if self.lexer.peek()? != Token::Punctuator(close) {
            return Ok(false);
        }
        self.lexer.next()?;
        self.frames.pop();
        Ok(true)
    }

    /// A field, with its alias, arguments, directives and selection; a spread; or the end.
    fn selection(&mut self) -> Outcome {
        if self.closed(b'}')? {
            return Ok(());
        }
        if self.lexer.peek()? == Token::Spread {
            return self.spread();
        }
        let mut name = self.name()?;
        let mut alias = None;
        if self.lexer.peek()? == Token::Punctuator(b':') {
            self.lexer.next()?;
            alias = Some(name);
            name = self.name()?;
        }
        self.path.push(b'.');
        self.path.extend_from_slice(name);
        self.give(Kind::Name, name)?;
        if let Some(alias) = alias {
            self.give(Kind::Alias, alias)?;
        }
        match self.lexer.peek()? {
            Token::Punctuator(b'(') => self.open(FrameKind::Arguments),
            _ => self.after_head(),
        }
    }

    /// `...Fragment`, `... on Type { }`, `... { }`.
    fn spread(&mut self) -> Outcome {
        self.lexer.next()?;
        if let Token::Name(mut name) = self.lexer.peek()? {
            self.lexer.next()?;
            if name == b"on" {
                name = self.name()?;
            }
            self.give(Kind::Name, name)?;
        }
        self.after_head()
    }

    /// `name: value`, or the end of the arguments, after which directives and a selection come.
    fn argument(&mut self) -> Outcome {
        if self.closed(b')')? {
            return self.after_head();
        }
        self.member()
    }

    fn object_field(&mut self) -> Outcome {
        if self.closed(b'}')? {
            return Ok(());
        }
        self.member()
    }

    fn member(&mut self) -> Outcome {
        let name = self.name()?;
        self.colon()?;
        self.path.push(b'.');
        self.path.extend_from_slice(name);
        self.value()
    }

    fn element(&mut self) -> Outcome {
        if self.closed(b']')? {
            return Ok(());
        }
        if let Some(frame) = self.frames.last_mut() {
            push_index(self.path, frame.index);
            frame.index += 1;
        }
        self.value()
    }

    /// `$name: Type = default` with directives; the type is not looked at.
    fn variable_definition(&mut self) -> Outcome {
        if self.closed(b')')? {
            return self.after_head();
        }
        match self.lexer.peek()? {
            // A directive of the variable before.
            Token::Punctuator(b'@') => return self.directive(),
            Token::Punctuator(b'$') => self.lexer.next()?,
            _ => return Err("no variable"),
        }
        let name = self.name()?;
        self.colon()?;
        self.path.extend_from_slice(b".$");
        self.path.extend_from_slice(name);
        while let Token::Name(_) | Token::Punctuator(b'[' | b']' | b'!') = self.lexer.peek()? {
            self.lexer.next()?;
        }
        if self.lexer.peek()? == Token::Punctuator(b'=') {
            self.lexer.next()?;
            return self.value();
        }
        Ok(())
    }

    /// A scalar, or the start of a list or object.
    fn value(&mut self) -> Outcome {
        match self.lexer.peek()? {
            Token::Punctuator(b'[') => self.open(FrameKind::Array),
            Token::Punctuator(b'{') => self.open(FrameKind::Object),
            Token::Punctuator(b'$') => {
                self.lexer.next()?;
                let name = self.name()?;
                self.give(Kind::Variable, name)
            }
            Token::Name(word) | Token::Number(word) => {
                self.lexer.next()?;
                self.give(Kind::Literal, word)
            }
            Token::String => {
                self.lexer.next()?;
                let value = self.lexer.string();
                give(
                    &mut self.budget,
                    &mut self.found,
                    Kind::Literal,
                    self.path,
                    value,
                )
            }
            _ => Err("no value"),
        }
    }

    fn name(&mut self) -> Outcome<&'d [u8]> {
        match self.lexer.peek()? {
            Token::Name(name) => {
                self.lexer.next()?;
                Ok(name)
            }
            _ => Err("no name"),
        }
    }

    fn colon(&mut self) -> Outcome {
        match self.lexer.peek()? {
            Token::Punctuator(b':') => self.lexer.next(),
            _ => Err("no : after a name"),
        }
    }

    fn give(&mut self, kind: Kind, value: &[u8]) -> Outcome {
        give(&mut self.budget, &mut self.found, kind, self.path, value)
    }
}

fn give(
    budget: &mut Budget,
    found: &mut impl FnMut(Kind, &[u8], &[u8]),
    kind: Kind,
    path: &[u8],
    value: &[u8],
) -> Outcome {
    match budget.admit(path, value) {
        None => Err("it flattens to too much: long names over many values"),
        Some(admitted) => {
            if admitted {
                found(kind, path, value);
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
