//! The operator of a rule, with its argument.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::super::classes::Classes;
use super::super::filter::first_bytes;
use super::super::macros::{Macro, has_macro};
use super::super::number::{Comparison, Operand};
use super::super::ruleset::{Asked, Test};
use super::Compiler;
use crate::operator::{Files, Operator};
use crate::seclang::ast::{self, Spanned};
use regex_syntax::hir::{Class, HirKind, Look};

impl Compiler<'_> {
    /// Compiles an operator.
    pub(super) fn test(&mut self, written: &Spanned<ast::Operator>) -> Option<Test> {
        let at = if written.node.argument.is_empty() {
            written.at
        } else {
            written.node.argument_at
        };
        let result = self.question(written);
        self.check(at, result)
    }

    fn question(&mut self, written: &Spanned<ast::Operator>) -> Result<Test, String> {
        let argument = written.node.argument.as_str();
        if is_rx(&written.node.name)
            && has_macro(argument)
            && let Ok(expression) = Macro::parse(argument, &mut self.names)
        {
            return Ok(Test::MacroRx(expression));
        }
        let files = RuleFiles::beside(&self.file(written.at));
        let single = single_backslashes(&written.node.name, argument);
        let operator =
            Operator::compile(&written.node.name, &single, &files).map_err(|e| e.to_string())?;
        match operator {
            Operator::GeoLookup => {
                self.absent(
                    written,
                    self.options.geo.is_none(),
                    "@geoLookup never matches: no GeoLookup was given to the engine",
                );
                Ok(Test::Geo)
            }
            Operator::Rbl(zone) => {
                self.absent(
                    written,
                    self.options.block_list.is_none(),
                    "@rbl never matches: no BlockList was given to the engine",
                );
                Ok(Test::Rbl(zone.into()))
            }
            operator => self.asked(written, operator),
        }
    }

    fn asked(
        &mut self,
        written: &Spanned<ast::Operator>,
        operator: Operator,
    ) -> Result<Test, String> {
        if !operator.takes_macros() {
            return Ok(Test::Operator(Box::new(Asked {
                everything: is_everything(&operator),
                begins: begins(&operator),
                operator,
                argument: Macro::default(),
                number: None,
            })));
        }
        let argument = Macro::parse(&written.node.argument, &mut self.names)?;
        let comparison = Comparison::named(operator.name());
        let number = comparison.map(|comparison| (comparison, Operand::of(argument.clone())));
        Ok(Test::Operator(Box::new(Asked {
            everything: false,
            begins: None,
            operator,
            argument,
            number,
        })))
    }

    fn absent(&mut self, written: &Spanned<ast::Operator>, absent: bool, message: &str) {
        if absent {
            self.warning(written.at, message);
        }
    }
}

/// A literal backslash is `\\\\` in a pattern for Apache httpd, whose configuration reader takes one
/// of each pair away, and `\\` in one for libmodsecurity, which takes none. CRS has both; each is read
/// as one backslash, which matches whatever either would match.
fn single_backslashes<'a>(name: &str, pattern: &'a str) -> Cow<'a, str> {
    if !is_rx(name) && !name.eq_ignore_ascii_case("rxGlobal") || !pattern.contains(r"\\\\") {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escaped = &rest[at..];
        let (kept, length) = match escaped.strip_prefix(r"\\\\") {
            Some(_) => (r"\\", 4),
            None => {
                let next = escaped[1..].chars().next().map_or(0, char::len_utf8);
                (&escaped[..1 + next], 1 + next)
            }
        };
        out.push_str(kept);
        rest = &escaped[length..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Only of patterns that are exact: of others the engine that decides does not search at one place.
fn begins(operator: &Operator) -> Option<Classes> {
    let Operator::Rx(rx) = operator else {
        return None;
    };
    first_bytes(rx.pattern().hir()).filter(|_| rx.pattern().is_exact())
}

/// CRS captures whole values with `^.*$`.
fn is_everything(operator: &Operator) -> bool {
    let Operator::Rx(rx) = operator else {
        return false;
    };
    let HirKind::Concat(parts) = rx.pattern().hir().kind() else {
        return false;
    };
    let [start, all, end] = parts.as_slice() else {
        return false;
    };
    let HirKind::Repetition(all) = all.kind() else {
        return false;
    };
    let HirKind::Class(Class::Bytes(class)) = all.sub.kind() else {
        return false;
    };
    let every_byte = matches!(class.ranges(), [range] if range.start() == 0 && range.end() == 0xff);
    let anchored =
        *start.kind() == HirKind::Look(Look::Start) && *end.kind() == HirKind::Look(Look::End);
    rx.pattern().is_exact() && anchored && every_byte && (all.min, all.max) == (0, None)
}

fn is_rx(name: &str) -> bool {
    name.eq_ignore_ascii_case("rx")
}

/// Files beside the file of a rule.
struct RuleFiles {
    folder: PathBuf,
}

impl RuleFiles {
    fn beside(file: &Path) -> Self {
        Self {
            folder: file.parent().unwrap_or(Path::new("")).to_owned(),
        }
    }
}

impl Files for RuleFiles {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.folder.join(name);
        std::fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_backslashes_are_one() {
        let single = |pattern| single_backslashes("rx", pattern).into_owned();
        assert_eq!(single(r"(?:^|[^\\\\])\\\\[a-z]"), r"(?:^|[^\\])\\[a-z]");
        assert_eq!(single(r"[\\/]\.\\\\\d"), r"[\\/]\.\\\d");
        assert_eq!(single(r"\\\\\"), r"\\\");
        assert_eq!(single_backslashes("pm", r"\\\\"), r"\\\\");
    }
}
