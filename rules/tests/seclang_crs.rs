//! Debian's Core Rule Set is read whole, and no mutation of it makes the parser panic.
//!
//! Where the package `modsecurity-crs` is not installed, these tests count as ignored.

use std::fs;
use std::path::{Path, PathBuf};

use clew_rules::seclang::ast::{Ast, Directive, Operator, Rule, Selector, Spanned, Variable};
use clew_rules::seclang::{load, parse_text};
use libtest_mimic::{Arguments, Failed, Trial};

const SETUP: &str = "/etc/modsecurity/crs/crs-setup.conf";
const RULES: &str = "/usr/share/modsecurity-crs/rules";
const LOADER: &str = "/usr/share/modsecurity-crs/owasp-crs.load";

fn main() {
    let absent = !(Path::new(SETUP).exists() && Path::new(RULES).is_dir());
    if absent {
        eprintln!("ignored: {SETUP} and {RULES} are absent; install Debian's modsecurity-crs");
    }
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        Trial::test(name, test).with_ignored_flag(absent)
    };
    let trials = vec![
        trial("as_many_rules_as_lines_that_begin_one", as_many_rules),
        trial("debians_load_file_includes_them_all", debians_load_file),
        trial("patterns_keep_every_byte", patterns_keep_every_byte),
        trial(
            "actions_and_selectors_are_what_is_written",
            actions_and_selectors,
        ),
        trial(
            "rules_are_written_back_as_they_were_read",
            rules_written_back,
        ),
        trial("mutations_never_panic", mutations_never_panic),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn files() -> Result<Vec<PathBuf>, Failed> {
    let mut files = Vec::new();
    for entry in fs::read_dir(RULES)? {
        files.push(entry?.path());
    }
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "conf")
    });
    files.sort();
    files.insert(0, SETUP.into());
    Ok(files)
}

fn read(paths: &[PathBuf]) -> Result<Ast, Failed> {
    load(paths).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Failed::from(lines.join("\n"))
    })
}

/// The lines whose first word is that one, as grep counts them.
fn lines_with(word: &str) -> Result<usize, Failed> {
    let mut count = 0;
    for path in files()? {
        let text = fs::read_to_string(path)?;
        count += text
            .lines()
            .filter(|line| line.split_whitespace().next() == Some(word))
            .count();
    }
    Ok(count)
}

type Is = fn(&Directive) -> bool;

fn count(ast: &Ast, is: Is) -> usize {
    ast.directives
        .iter()
        .filter(|directive| is(&directive.node))
        .count()
}

fn as_many_rules() -> Result<(), Failed> {
    let ast = read(&files()?)?;
    let kinds: [(&str, Is); 4] = [
        ("SecRule", |directive| {
            matches!(directive, Directive::Rule(_))
        }),
        ("SecAction", |directive| {
            matches!(directive, Directive::Action(_))
        }),
        ("SecMarker", |directive| {
            matches!(directive, Directive::Marker(_))
        }),
        ("SecDefaultAction", |directive| {
            matches!(directive, Directive::DefaultAction(_))
        }),
    ];
    for (word, is) in kinds {
        assert_eq!(count(&ast, is), lines_with(word)?, "{word}");
    }
    assert!(count(&ast, |directive| matches!(directive, Directive::Rule(_))) > 500);
    Ok(())
}

fn debians_load_file() -> Result<(), Failed> {
    let by_include = read(&[LOADER.into()])?;
    let by_name = read(&files()?)?;
    assert!(by_include.files.len() > by_name.files.len());
    let is = |directive: &Directive| matches!(directive, Directive::Rule(_));
    assert_eq!(count(&by_include, is), count(&by_name, is));
    Ok(())
}

fn operators(ast: &Ast) -> impl Iterator<Item = &Operator> {
    ast.directives
        .iter()
        .filter_map(|directive| match &directive.node {
            Directive::Rule(rule) => Some(&rule.operator.node),
            _ => None,
        })
}

/// The rules of CRS stand on one line up to their operator: what is between `"@rx ` and the last
/// `"` of that line is the pattern, byte for byte, and stands where its place says.
fn patterns_keep_every_byte() -> Result<(), Failed> {
    let ast = read(&files()?)?;
    let mut patterns = 0;
    for operator in operators(&ast).filter(|operator| operator.name == "rx") {
        let at = operator.argument_at;
        let text = fs::read_to_string(ast.files[at.file as usize].as_path())?;
        let line = text
            .lines()
            .nth(at.line as usize - 1)
            .ok_or("no such line")?;
        let rest = &line[at.column as usize - 1..];
        let after = rest.strip_prefix(operator.argument.as_str());
        assert!(
            after.is_some_and(|after| after.starts_with('"')),
            "{at:?} {operator:?}"
        );
        let before = &line[..at.column as usize - 1];
        assert!(
            before.ends_with("@rx ") || before.ends_with("@rx"),
            "{before}"
        );
        patterns += 1;
    }
    assert!(patterns > 200, "{patterns}");
    Ok(())
}

fn actions_and_selectors() -> Result<(), Failed> {
    let ast = read(&files()?)?;
    let mut regexes = Vec::new();
    let mut arguments = Vec::new();
    for directive in &ast.directives {
        let Directive::Rule(rule) = &directive.node else {
            continue;
        };
        for variable in &rule.variables {
            if let Some(Selector::Regex(pattern)) = &variable.node.selector {
                regexes.push(pattern.as_str());
            }
        }
        arguments.extend(
            rule.actions
                .iter()
                .filter_map(|action| action.node.argument.as_deref()),
        );
    }
    for pattern in ["__utm", "_pk_ref"] {
        assert!(regexes.contains(&pattern), "{pattern}");
    }
    let quoted = "Request header x-up-devcap-post-charset detected in combination with prefix 'UP' to User-Agent";
    assert!(arguments.contains(&quoted));
    assert!(
        arguments
            .iter()
            .any(|argument| argument.ends_with("the \"magic number\" crash"))
    );
    assert!(
        !arguments
            .iter()
            .any(|argument| argument.ends_with('\'') && !argument.contains(' '))
    );
    Ok(())
}

type Said<'r> = (
    Vec<&'r Variable>,
    (bool, &'r str, &'r str),
    Vec<(&'r str, Option<&'r str>)>,
);

/// What a rule says, without the places of it.
fn said(rule: &Rule) -> Said<'_> {
    let variables = rule
        .variables
        .iter()
        .map(|variable| &variable.node)
        .collect();
    let operator = &rule.operator.node;
    let operator = (
        operator.negated,
        operator.name.as_str(),
        operator.argument.as_str(),
    );
    let actions = rule.actions.iter().map(|action| &action.node);
    let actions = actions
        .map(|action| (action.name.as_str(), action.argument.as_deref()))
        .collect();
    (variables, operator, actions)
}

fn rules_written_back() -> Result<(), Failed> {
    let ast = read(&files()?)?;
    for directive in &ast.directives {
        let Directive::Rule(rule) = &directive.node else {
            continue;
        };
        let text = rule.to_string();
        let again =
            parse_text("again.conf", &text).map_err(|errors| format!("{text}\n{errors:?}"))?;
        let [
            Spanned {
                node: Directive::Rule(again),
                ..
            },
        ] = again.directives.as_slice()
        else {
            return Err(text.into());
        };
        assert_eq!(said(again), said(rule), "{text}");
    }
    Ok(())
}

/// Xorshift64: the same mutations each time, and a seed to name.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % limit.max(1)
    }
}

fn mutations_never_panic() -> Result<(), Failed> {
    const SYNTAX: [&str; 16] = [
        "\"", "'", "\\", "\\\n", "\n", "|", ",", ":", "/", "&", "!", "@", "#", "<", " ", "\u{b4}",
    ];
    let mut random = Seeded(0x5eed_c1e3);
    for path in files()? {
        let text = fs::read_to_string(path)?;
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        for _ in 0..60 {
            let from = random.below(lines.len());
            let part: String = lines[from..lines.len().min(from + 40)].concat();
            let mut characters: Vec<String> = part.chars().map(String::from).collect();
            for _ in 0..=random.below(12) {
                let at = random.below(characters.len());
                let piece = SYNTAX[random.below(SYNTAX.len())];
                match random.below(3) {
                    0 => characters[at] = piece.to_owned(),
                    1 => characters.insert(at, piece.to_owned()),
                    _ => drop(characters.remove(at)),
                }
            }
            let mutated = characters.concat();
            let last = mutated.split('\n').count();
            for error in parse_text("mutated.conf", &mutated)
                .err()
                .unwrap_or_default()
            {
                assert!((1..=last).contains(&(error.line as usize)), "{error}");
                let line = mutated
                    .split('\n')
                    .nth(error.line as usize - 1)
                    .unwrap_or_default();
                assert!(
                    (1..=line.len() + 1).contains(&(error.column as usize)),
                    "{error}"
                );
            }
        }
    }
    Ok(())
}
