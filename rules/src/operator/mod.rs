//! Operators: what a rule asks of a value.
//!
//! Names, arguments and results are those of the ModSecurity reference manual (v3, "Operators").
//! [`Operator::compile`] reads the argument once, when rules are loaded; [`Operator::matches`]
//! is then bounded in time (linear in the value) for any value.

mod encoding;
mod found;
mod identity;
mod lookup;
mod network;
mod number;
mod pattern;
mod phrase;
mod sqli;
mod text;
mod xss;

pub use encoding::ByteRange;
pub use found::{Found, GROUPS};
pub use identity::{Number, Verify};
pub use lookup::{BlockList, GeoLookup};
pub use network::Networks;
pub use number::{Order, integer};
pub use pattern::Rx;
pub use phrase::Phrases;
pub use text::Comparison;

use crate::regex::PatternError;

/// Files that operators name: phrase lists and address lists.
pub trait Files {
    /// The whole content of `name`, resolved against the file of the rule.
    ///
    /// # Errors
    ///
    /// A sentence that says why it cannot be read.
    fn read(&self, name: &str) -> Result<Vec<u8>, String>;
}

/// Why an operator does not compile.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum OperatorError {
    /// No such operator.
    #[error("there is no operator @{0}; see the ModSecurity reference manual for their names")]
    Unknown(String),
    /// An operator that Clew refuses to run.
    #[error("@{name} is not supported: {reason}")]
    Unsupported {
        /// The operator's name as documented.
        name: &'static str,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// Its argument cannot be read.
    #[error("@{name}: {reason}")]
    Argument {
        /// The operator's name as documented.
        name: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Its argument is a pattern that does not compile.
    #[error("@{name}: {error}")]
    Pattern {
        /// The operator's name as documented.
        name: &'static str,
        /// What is wrong, and at which byte of the argument.
        error: PatternError,
    },
}

/// A compiled operator. Negation (`!`) is the rule's.
#[derive(Clone, Debug)]
pub enum Operator {
    /// `@rx`.
    Rx(Rx),
    /// `@rxGlobal`: all matches, until [`GROUPS`] groups are filled.
    RxGlobal(Rx),
    /// `@pm`, `@pmf`, `@pmFromFile`.
    Phrases(Phrases),
    /// `@streq`, `@contains`, `@containsWord`, `@beginsWith`, `@endsWith`, `@within`, `@strmatch`.
    Text(Comparison),
    /// `@eq`, `@ge`, `@gt`, `@le`, `@lt`.
    Number(Order),
    /// `@ipMatch`, `@ipMatchF`, `@ipMatchFromFile`.
    IpMatch(Networks),
    /// `@detectSQLi`.
    DetectSqli,
    /// `@detectXSS`.
    DetectXss,
    /// `@validateByteRange`: matches a byte outside of the ranges.
    ValidateByteRange(ByteRange),
    /// `@validateUrlEncoding`: matches an invalid `%`.
    ValidateUrlEncoding,
    /// `@validateUtf8Encoding`: matches what is not UTF-8.
    ValidateUtf8Encoding,
    /// `@verifyCC`, `@verifyCPF`, `@verifySSN`, `@verifySVNR`.
    Verify(Verify),
    /// `@geoLookup`: the engine asks its [`GeoLookup`]; `matches` says `false`.
    GeoLookup,
    /// `@rbl ZONE`: the engine asks its [`BlockList`]; `matches` says `false`.
    Rbl(String),
    /// `@unconditionalMatch`.
    UnconditionalMatch,
    /// `@noMatch`.
    NoMatch,
}

impl Operator {
    /// Compiles `@name argument`; names are compared without regard to case.
    /// `argument` is taken as written: of an operator that [takes macros](Self::takes_macros), they
    /// are expanded later. An `@rx` with a macro in it is compiled by the engine, with [`Rx::compile`].
    ///
    /// # Errors
    ///
    /// An unknown or refused operator, an argument that cannot be read, a file that cannot be read.
    pub fn compile(name: &str, argument: &str, files: &dyn Files) -> Result<Self, OperatorError> {
        let verify = |name, number| {
            let verify = Verify::compile(number, argument);
            verify
                .map(Self::Verify)
                .map_err(|error| OperatorError::Pattern { name, error })
        };
        let rx =
            |name| Rx::compile(argument).map_err(|error| OperatorError::Pattern { name, error });
        Ok(match name.to_ascii_lowercase().as_str() {
            "rx" => Self::Rx(rx("rx")?),
            "rxglobal" => Self::RxGlobal(rx("rxGlobal")?),
            "pm" => Self::Phrases(Phrases::list(argument)?),
            "pmf" | "pmfromfile" => Self::Phrases(Phrases::from_files(argument, files)?),
            "streq" => Self::Text(Comparison::Streq),
            "contains" => Self::Text(Comparison::Contains),
            "containsword" => Self::Text(Comparison::ContainsWord),
            "beginswith" => Self::Text(Comparison::BeginsWith),
            "endswith" => Self::Text(Comparison::EndsWith),
            "within" => Self::Text(Comparison::Within),
            "strmatch" => Self::Text(Comparison::Strmatch),
            "eq" => Self::Number(Order::Equal),
            "ge" => Self::Number(Order::GreaterOrEqual),
            "gt" => Self::Number(Order::Greater),
            "le" => Self::Number(Order::LessOrEqual),
            "lt" => Self::Number(Order::Less),
            "ipmatch" => Self::IpMatch(Networks::list(argument)?),
            "ipmatchf" | "ipmatchfromfile" => {
                Self::IpMatch(Networks::from_file(argument.trim(), files)?)
            }
            "detectsqli" => Self::DetectSqli,
            "detectxss" => Self::DetectXss,
            "validatebyterange" => Self::ValidateByteRange(ByteRange::parse(argument)?),
            "validateurlencoding" => Self::ValidateUrlEncoding,
            "validateutf8encoding" => Self::ValidateUtf8Encoding,
            "verifycc" => verify("verifyCC", Number::Card)?,
            "verifycpf" => verify("verifyCPF", Number::Cpf)?,
            "verifyssn" => verify("verifySSN", Number::Ssn)?,
            "verifysvnr" => verify("verifySVNR", Number::Svnr)?,
            "geolookup" => Self::GeoLookup,
            "rbl" => Self::Rbl(zone(argument)?),
            "unconditionalmatch" => Self::UnconditionalMatch,
            "nomatch" => Self::NoMatch,
            other => {
                return Err(
                    refused(other).unwrap_or_else(|| OperatorError::Unknown(name.to_owned()))
                );
            }
        })
    }

    /// Whether the argument given to [`matches`](Self::matches) counts, and may come from a macro:
    /// the text and the number operators.
    pub fn takes_macros(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Number(_))
    }

    /// The operator's name as documented, without `@`; of several names for the same, the first.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rx(_) => "rx",
            Self::RxGlobal(_) => "rxGlobal",
            Self::Phrases(_) => "pm",
            Self::Text(comparison) => comparison.name(),
            Self::Number(order) => order.name(),
            Self::IpMatch(_) => "ipMatch",
            Self::DetectSqli => "detectSQLi",
            Self::DetectXss => "detectXSS",
            Self::ValidateByteRange(_) => "validateByteRange",
            Self::ValidateUrlEncoding => "validateUrlEncoding",
            Self::ValidateUtf8Encoding => "validateUtf8Encoding",
            Self::Verify(verify) => verify.name(),
            Self::GeoLookup => "geoLookup",
            Self::Rbl(_) => "rbl",
            Self::UnconditionalMatch => "unconditionalMatch",
            Self::NoMatch => "noMatch",
        }
    }

    /// Whether `value` matches; what was found is in `found`.
    /// `argument` is the expanded argument for operators that [take macros](Self::takes_macros),
    /// and is not looked at for others.
    ///
    /// Where [`Found::limit_exceeded`] then says so, the answer is not certain: it is `true`, and a
    /// negated rule should take it for a match as well.
    ///
    /// Cost: linear in `value`.
    pub fn matches(&self, value: &[u8], argument: &[u8], found: &mut Found) -> bool {
        match self {
            Self::Rx(rx) => return rx.matches(value, found),
            Self::RxGlobal(rx) => return rx.matches_all(value, found),
            Self::Phrases(phrases) => return phrases.matches(value, found),
            Self::DetectSqli => return sqli::matches(value, found),
            Self::DetectXss => return xss::matches(value, found),
            Self::Verify(verify) => return verify.matches(value, found),
            _ => {}
        }
        found.clear();
        match self {
            Self::Text(comparison) => comparison.holds(value, argument),
            Self::Number(order) => order.holds(value, argument),
            Self::IpMatch(networks) => networks.contain(value),
            Self::ValidateByteRange(range) => range.is_violated(value),
            Self::ValidateUrlEncoding => encoding::is_invalid_url(value),
            Self::ValidateUtf8Encoding => encoding::is_invalid_utf8(value),
            Self::UnconditionalMatch => true,
            _ => false,
        }
    }
}

fn zone(argument: &str) -> Result<String, OperatorError> {
    let zone = argument.trim();
    if zone.is_empty() || zone.contains(char::is_whitespace) {
        let reason = "name the zone to ask, for example dnsbl.example.org".to_owned();
        return Err(OperatorError::Argument {
            name: "rbl",
            reason,
        });
    }
    Ok(zone.to_owned())
}

/// Documented operators that Clew does not run.
fn refused(name: &str) -> Option<OperatorError> {
    const PROGRAM: &str = "Clew starts no programs for a request; remove the rule";
    const SCHEMA: &str =
        "XML is checked for form only; remove the rule, or validate in the application";
    const GONE: &str = "ModSecurity 3 does not run it either; remove the rule";
    let (name, reason) = match name {
        "inspectfile" => ("inspectFile", PROGRAM),
        "fuzzyhash" => ("fuzzyHash", "files are not hashed; remove the rule"),
        "validatedtd" => ("validateDTD", SCHEMA),
        "validateschema" => ("validateSchema", SCHEMA),
        "validatehash" => ("validateHash", GONE),
        "gsblookup" => ("gsbLookup", GONE),
        "rsub" => ("rsub", GONE),
        _ => return None,
    };
    Some(OperatorError::Unsupported { name, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoFiles;

    impl Files for NoFiles {
        fn read(&self, _: &str) -> Result<Vec<u8>, String> {
            Err("there are no files".to_owned())
        }
    }

    fn compile(name: &str, argument: &str) -> Result<Operator, OperatorError> {
        Operator::compile(name, argument, &NoFiles)
    }

    #[test]
    fn names_are_compared_without_regard_to_case() {
        for name in [
            "rx",
            "RX",
            "containsWORD",
            "detectSqli",
            "validateUTF8encoding",
            "geoLookup",
        ] {
            let operator = compile(name, "a").expect(name);
            assert!(operator.name().eq_ignore_ascii_case(name));
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_a_reason() {
        assert!(matches!(
            compile("inspectFile", "/bin/x"),
            Err(OperatorError::Unsupported { .. })
        ));
        assert!(matches!(
            compile("frobnicate", ""),
            Err(OperatorError::Unknown(_))
        ));
        assert!(matches!(
            compile("rx", "("),
            Err(OperatorError::Pattern { name: "rx", .. })
        ));
        let missing = compile("pmFromFile", "x.data").map_err(|error| error.to_string());
        assert_eq!(
            missing.err().as_deref(),
            Some("@pm: x.data: there are no files")
        );
    }

    #[test]
    fn the_fingerprint_is_what_is_captured() {
        let operator = compile("detectSQLi", "").expect("an operator");
        let value = b"1' or '1'='1";
        let mut found = Found::new();
        assert!(operator.matches(value, b"", &mut found));
        assert_eq!(found.matched(value), b"s&sos");
    }
}
