//! The unit cases of `secrules-language-tests` for operators and transformations.
//!
//! They are read in place, from `secrules-language-tests` in the folder that `CLEW_CORPORA` names,
//! or in `../shared/corpora` beside the workspace; where neither is there, the tests count as
//! ignored.
//!
//! In a case's texts, `\xHH` and `\uHHHH` stand for one byte, after JSON's own escapes are undone
//! and the text is UTF-8. The peer reads texts as C strings, which end at a NUL byte; where a case
//! fails as it stands, it is read so (one of `cssDecode`, in which `\0` became a NUL byte when the
//! cases were made, needs it). `re_groups` of `rxGlobal` names some of the groups, in order. `ret`
//! of a transformation says whether the peer rewrote the value, be it to the same bytes; so `0` is
//! compared, `1` is not. An operator that Clew refuses to compile matches nothing: a case that asks
//! for no match passes, and is counted.

use std::path::{Path, PathBuf};

use clew_rules::operator::{Files, Found, Operator};
use clew_rules::transformation::Transformation;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

fn main() {
    let arguments = Arguments::from_args();
    let Some(corpus) = corpus() else {
        eprintln!(
            "ignored: secrules-language-tests is absent; name its parent folder in CLEW_CORPORA"
        );
        let absent = Trial::test("secrules_language_tests", || Ok(())).with_ignored_flag(true);
        libtest_mimic::run(&arguments, vec![absent]).exit();
    };
    let trials = ["operators", "transformations"]
        .iter()
        .flat_map(|kind| trials(&corpus, kind));
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn corpus() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    let corpora = std::env::var_os("CLEW_CORPORA").map_or_else(beside, PathBuf::from);
    Some(corpora.join("secrules-language-tests")).filter(|folder| folder.is_dir())
}

/// One for each file.
fn trials(corpus: &Path, kind: &str) -> Vec<Trial> {
    let folder = corpus.join(kind);
    let entries = std::fs::read_dir(&folder).expect("the folder can be read");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|end| end == "json"))
        .collect();
    files.sort();
    let trial = |file: PathBuf| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let corpus = corpus.to_owned();
        Trial::test(format!("{kind}::{name}"), move || run(&file, &corpus))
    };
    files.into_iter().map(trial).collect()
}

fn run(file: &Path, corpus: &Path) -> Result<(), Failed> {
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(file)?)?;
    let mut refused = 0;
    let mut failures = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let outcome = match &case["type"] {
            kind if kind == "op" => operator(case, corpus, &mut refused),
            kind if kind == "tfn" => transformation(case),
            kind => Err(format!("type {kind}")),
        };
        if let Err(reason) = outcome {
            failures.push(format!("case {number}: {reason}: {case}"));
        }
    }
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    eprintln!(
        "{name}: {} cases, {} failed, {refused} refused at load",
        cases.len(),
        failures.len()
    );
    if cases.is_empty() {
        return Err("the file has no cases".into());
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures.join("\n").into())
    }
}

fn transformation(case: &Value) -> Result<(), String> {
    // One file says cmd_line.
    let name = case["name"].as_str().unwrap_or_default().replace('_', "");
    let transformation = Transformation::named(&name).ok_or("unknown")?;
    let run = |input: &[u8], output: &[u8]| {
        let mut out = Vec::new();
        let changed = transformation.apply(input, None, &mut out);
        let got = if changed { &out } else { input };
        if got != output {
            return Err(format!("got {:?}", String::from_utf8_lossy(got)));
        }
        if changed && case["ret"] == 0 {
            Err("changed".to_owned())
        } else {
            Ok(())
        }
    };
    let whole = run(&bytes(&case["input"]), &bytes(&case["output"]));
    whole.or_else(|error| {
        run(&c_string(&case["input"]), &c_string(&case["output"])).map_err(|_| error)
    })
}

fn operator(case: &Value, corpus: &Path, refused: &mut usize) -> Result<(), String> {
    let name = case["name"].as_str().unwrap_or_default();
    let argument = case["param"].as_str().unwrap_or_default();
    let input = bytes(&case["input"]);
    let mut found = Found::new();
    let matched = match Operator::compile(name, argument, &Folder(corpus)) {
        Ok(operator) => operator.matches(&input, argument.as_bytes(), &mut found),
        Err(_) => {
            *refused += 1;
            false
        }
    };
    if matched != (case["ret"] == 1) {
        return Err(format!("matched: {matched}"));
    }
    let Some(groups) = case["re_groups"].as_array() else {
        return Ok(());
    };
    let groups: Vec<_> = groups.iter().map(bytes).collect();
    let got: Vec<_> = (0..found.len())
        .filter_map(|index| found.group(index, &input).map(<[u8]>::to_vec))
        .collect();
    let agree = if name == "rxGlobal" {
        let mut rest = got.iter();
        groups.iter().all(|group| rest.any(|other| other == group))
    } else {
        got == groups
    };
    if agree {
        Ok(())
    } else {
        Err(format!("groups {got:?}"))
    }
}

/// The corpus names its files by the path that they have in ModSecurity's own tree.
struct Folder<'c>(&'c Path);

impl Files for Folder<'_> {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let inside = name
            .strip_prefix("test-cases/secrules-language-tests/")
            .unwrap_or(name);
        std::fs::read(self.0.join(inside)).map_err(|error| error.to_string())
    }
}

/// The bytes that a text of a case stands for.
fn bytes(text: &Value) -> Vec<u8> {
    unescaped(text.as_str().unwrap_or_default())
}

/// The same, of what stands before the first NUL byte.
fn c_string(text: &Value) -> Vec<u8> {
    unescaped(
        text.as_str()
            .unwrap_or_default()
            .split('\0')
            .next()
            .unwrap_or_default(),
    )
}

fn unescaped(text: &str) -> Vec<u8> {
    unescape(&unescape(text.as_bytes(), b'x', 2), b'u', 4)
}

/// Undoes `\` and `letter` with so many digits. Letters past `f` end the number, as `strtol` has it.
fn unescape(text: &[u8], letter: u8, digits: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .strip_prefix(&[letter])
            .and_then(|after| after.get(..digits));
        match code.filter(|code| byte == b'\\' && code.iter().all(u8::is_ascii_alphanumeric)) {
            Some(code) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let number = code
                    .iter()
                    .map_while(digit)
                    .fold(0, |number, digit| number << 4 | digit);
                out.push(number.to_le_bytes()[0]);
                rest = &after[1 + digits..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}
