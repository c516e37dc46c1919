//! The language: from files to a syntax tree.
//!
//! [`load`] reads files and what they include, [`parse_text`] a text; both report every error with
//! its place. Lines become words (`lexer`), words directives (`directive`, after `table`), their
//! arguments `variables`, an `operator` and `actions`. Whether that can be run is decided when it is compiled.

mod actions;
pub mod ast;
mod directive;
mod display;
mod errors;
mod lexer;
mod loader;
mod operator;
mod table;
mod text;
mod value;
mod variables;

pub use errors::{LoadError, SyntaxError};
pub use loader::{load, parse_text};

/// Reads a list of variables that stands within an argument, as in
/// `ctl:ruleRemoveTargetById=942100;ARGS:foo`. Places in it are counted from `at`.
///
/// # Errors
///
/// The first that is wrong, as a sentence.
pub fn parse_variables(
    list: &str,
    at: ast::At,
) -> Result<Vec<ast::Spanned<ast::Variable>>, String> {
    let mut faults = errors::Faults::default();
    let text = text::Text::placed(list, at);
    let variables = variables::parse(text.span(), &mut faults);
    match faults.located(&[]).into_iter().next() {
        None => Ok(variables),
        Some(error) => Err(error.message),
    }
}
