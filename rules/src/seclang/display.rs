//! A rule as SecLang again, on one line.
//!
//! What was read from double quotes reads back as the same tree. What was not may differ in two
//! cases: a double quote in a pattern gains a backslash, which means the same; a text operator's
//! argument in which a backslash stands before a double quote or at the end cannot be written.

use std::fmt::{Display, Formatter, Result, Write};

use super::ast::{Action, Operator, Rule, Selector, Spanned, Variable};

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let variables = joined(&self.variables, "|");
        match variables.contains([' ', '\t', '"']) {
            true => write!(f, "SecRule {}", Quoted(&variables, '"'))?,
            false => write!(f, "SecRule {variables}")?,
        }
        write!(f, " {}", Quoted(&self.operator.node.to_string(), '"'))?;
        match self.actions.as_slice() {
            [] => Ok(()),
            actions => write!(f, " {}", Quoted(&joined(actions, ","), '"')),
        }
    }
}

impl Display for Variable {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let count = if self.count { "&" } else { "" };
        let exclude = if self.exclude { "!" } else { "" };
        write!(f, "{count}{exclude}{}", self.collection)?;
        match &self.selector {
            None => Ok(()),
            Some(Selector::Regex(pattern)) if pattern.contains(MARKS) || pattern.contains('/') => {
                write!(f, ":{}", Quoted(&format!("/{pattern}/"), '\''))
            }
            Some(Selector::Regex(pattern)) => write!(f, ":/{pattern}/"),
            Some(Selector::Key(key)) if key.is_empty() || key.contains(MARKS) => {
                write!(f, ":{}", Quoted(key, '\''))
            }
            Some(Selector::Key(key)) => write!(f, ":{key}"),
        }
    }
}

impl Display for Operator {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let negated = if self.negated { "!" } else { "" };
        let blank = if self.argument.is_empty() { "" } else { " " };
        write!(f, "{negated}@{}{blank}{}", self.name, self.argument)
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.argument {
            None => f.write_str(&self.name),
            Some(text) if text.is_empty() || text.contains(MARKS) => {
                write!(f, "{}:{}", self.name, Quoted(text, '\''))
            }
            Some(text) => write!(f, "{}:{text}", self.name),
        }
    }
}

/// What an argument or selector without quotes does not contain.
const MARKS: [char; 6] = ['\'', ',', '|', ' ', '\t', '"'];

fn joined<T: Display>(parts: &[Spanned<T>], separator: &str) -> String {
    let parts: Vec<_> = parts.iter().map(|part| part.node.to_string()).collect();
    parts.join(separator)
}

/// A text in quotes; a quote in it that no backslash escapes yet gets one.
struct Quoted<'t>(&'t str, char);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self(text, quote) = *self;
        let mut escaped = false;
        f.write_char(quote)?;
        for character in text.chars() {
            if character == quote && !escaped {
                f.write_char('\\')?;
            }
            escaped = character == '\\' && !escaped;
            f.write_char(character)?;
        }
        f.write_char(quote)
    }
}
