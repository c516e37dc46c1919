//! What the author of a pack does: begin, check, test, pack, except.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clew_packs::contents::Contents;
use clew_packs::{Exception, Pack, PackName, Record, Severity, Trial};
use serde_json::json;

use super::place::Place;
use crate::paper::say;
use crate::store;

pub(super) fn begin(name: &PackName, folder: Option<PathBuf>) -> Result<ExitCode> {
    let folder = folder.unwrap_or_else(|| name.as_str().into());
    Contents::begin(name, &folder)?;
    say!("{} is begun; next: clew packs check {0}", folder.display());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check(path: &Path, strict: bool, json: bool) -> Result<ExitCode> {
    let pack = Pack::open(path)?;
    let findings = clew_packs::check(&pack);
    let is_error = |severity| strict || severity == Severity::Error;
    let errors = findings.iter().filter(|it| is_error(it.severity)).count();
    if json {
        let list = findings.iter().map(|it| {
            let severity = format!("{:?}", it.severity).to_lowercase();
            json!({ "severity": severity, "message": it.message })
        });
        let list: Vec<_> = list.collect();
        say!(
            "{}",
            json!({ "pack": pack.id(), "sound": errors == 0, "findings": list })
        );
    } else {
        findings.iter().for_each(|it| say!("{it}"));
        say!(
            "{}: {errors} errors, {} warnings",
            pack.id(),
            findings.len() - errors
        );
    }
    Ok(code(errors == 0))
}

pub(super) fn test(path: &Path, json: bool) -> Result<ExitCode> {
    let pack = Pack::open(path)?;
    let trial = Trial::of(&pack).or_else(|errors| bail!("{}", errors.join("\n")))?;
    if trial.passed + trial.failures.len() == 0 {
        bail!(
            "{} has no test that is enabled; put suites (FTW) into tests/",
            pack.id()
        );
    }
    if json {
        let failures = trial.failures.iter();
        let failures = failures.map(|it| json!({ "test": it.test, "reason": it.reason }));
        say!(
            "{}",
            json!({
                "pack": pack.id(), "passed": trial.passed, "disabled": trial.disabled,
                "failed": trial.failures.len(), "failures": failures.collect::<Vec<_>>(),
            })
        );
        return Ok(code(trial.passes()));
    }
    for failure in &trial.failures {
        say!("FAILED {}: {}", failure.test, failure.reason);
    }
    say!(
        "{}: {} passed, {} failed, {} disabled",
        pack.id(),
        trial.passed,
        trial.failures.len(),
        trial.disabled
    );
    Ok(code(trial.passes()))
}

pub(super) fn pack(folder: &Path, output: Option<PathBuf>) -> Result<ExitCode> {
    let pack = Pack::open(folder)?;
    let id = pack.id();
    let output = output.unwrap_or_else(|| format!("{}-{}.clewpack", id.name, id.version).into());
    let archive = pack.contents.to_archive()?;
    std::fs::write(&output, &archive)
        .with_context(|| format!("cannot write {}", output.display()))?;
    say!("{}: {} bytes", output.display(), archive.len());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn except(
    incident: Option<&str>,
    record: Option<&Path>,
    into: &Path,
    place: &Place,
) -> Result<ExitCode> {
    let record = match (incident, record) {
        (Some(id), _) => {
            let state = place.state()?;
            let incidents = store::read(&state)?;
            Record::Incident(Box::new(crate::find(&incidents, id, &state)?.clone()))
        }
        (None, Some(path)) => Record::parse(&contents(path)?)?,
        (None, None) => bail!("name an incident, or a --record"),
    };
    let exception = Exception::of(&record)?;
    let written = exception.write(into)?;
    if place.json {
        say!(
            "{}",
            json!({
                "folder": written.folder, "version": written.version, "text": written.text,
                "warnings": exception.warnings, "left": exception.left,
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    say!("{}", written.text.trim());
    for left in &exception.left {
        say!("not excepted: {left}");
    }
    for warning in &exception.warnings {
        say!("WARNING: {warning}");
    }
    say!(
        "written to {}, version {}: read it before you sign it",
        written.folder.display(),
        written.version
    );
    Ok(ExitCode::SUCCESS)
}

fn contents(path: &Path) -> Result<Vec<u8>> {
    /// An incident with all its bounds reached is smaller.
    const MOST_BYTES: u64 = 16 << 20;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MOST_BYTES)
            .read_to_end(&mut bytes)?;
    } else {
        let file =
            std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn code(is_well: bool) -> ExitCode {
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
