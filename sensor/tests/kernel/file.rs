//! File-open: what requests open, write and move where files are watched.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clew_protocol::Sequence;
use clew_protocol::kernel::{Access, Decision, FileAccess, KernelEvent};
use clew_sensor::{FileRule, Mode, Policy, Watch};
use tempfile::TempDir;

use crate::Test;
use crate::stage::Stage;

pub(crate) const TESTS: &[Test] = &[
    ("file::a_secret_is_not_opened", a_secret_is_not_opened),
    (
        "file::one_that_takes_its_place_is_a_secret_too",
        one_that_takes_its_place_is_a_secret_too,
    ),
    (
        "file::what_was_written_is_known_when_it_is_read",
        what_was_written_is_known_when_it_is_read,
    ),
    ("file::nothing_is_written_there", nothing_is_written_there),
    (
        "file::what_is_moved_there_is_written_there",
        what_is_moved_there_is_written_there,
    ),
    ("file::observe_refuses_nothing", observe_refuses_nothing),
];

/// A stage that watches `below` in a directory of its own.
fn watching(mode: Mode, watch: Watch, below: &str) -> Result<(Stage, TempDir)> {
    let directory = tempfile::tempdir()?;
    let inside = directory.path().join("watched");
    std::fs::create_dir_all(inside.join("deep/er"))?;
    std::fs::write(inside.join("deep/er/key"), "secret")?;
    std::fs::write(directory.path().join("key"), "no secret")?;
    let rule = FileRule {
        service: 0,
        path: inside.join(below),
        watch,
    };
    let policy = Policy {
        files: vec![rule],
        ..Policy::default()
    };
    let stage = Stage::with(mode, "127.0.0.1", 65_536, |_| policy)?;
    Ok((stage, directory))
}

fn ask(stage: &Stage, verb: &str, path: &Path) -> Result<(Sequence, String)> {
    let (sequence, head) = stage.head(&format!("/{verb}{}", path.display()));
    let mut client = stage.connect()?;
    client.send(&head)?;
    Ok((sequence, client.answer()?))
}

fn wait_file(stage: &mut Stage, sequence: Sequence) -> Result<FileAccess> {
    stage.wait("File", |event| match event {
        KernelEvent::File(file) if file.lineage.sequence == sequence => Some(file.as_ref().clone()),
        _ => None,
    })
}

fn is_told(stage: &mut Stage, sequence: Sequence) -> Result<bool> {
    Ok(stage
        .events()?
        .iter()
        .any(|event| matches!(event, KernelEvent::File(file) if file.lineage.sequence == sequence)))
}

/// What a kernel that can refuse answers and decides; others tell.
fn forbidden(stage: &Stage, otherwise: &'static str) -> (Decision, &'static str) {
    match stage.end().0 {
        Decision::Denied => (Decision::Denied, "refused"),
        _ => (Decision::Observed, otherwise),
    }
}

fn a_secret_is_not_opened() -> Result<()> {
    let (mut stage, directory) = watching(Mode::Enforce, Watch::Protect, ".")?;
    let secret = directory.path().join("watched/deep/er/key");
    let (decision, expected) = forbidden(&stage, "secret");
    let (sequence, answer) = ask(&stage, "read", &secret)?;
    ensure!(answer == expected, "{answer}");
    let file = wait_file(&mut stage, sequence)?;
    ensure!(
        file.decision == decision && file.access == Access::Read,
        "{file:?}"
    );
    ensure!(
        file.path == secret.as_os_str().as_encoded_bytes(),
        "{file:?}"
    );
    ensure!(
        file.pid == stage.backend.pid() && file.comm == "python3",
        "{file:?}"
    );
    let meta = std::fs::metadata(&secret)?;
    ensure!(file.file.inode == std::os::unix::fs::MetadataExt::ino(&meta));
    // What is beside it may be opened, and so may the secret by others.
    let (sequence, answer) = ask(&stage, "read", &directory.path().join("key"))?;
    ensure!(answer == "no secret" && !is_told(&mut stage, sequence)?);
    ensure!(std::fs::read_to_string(&secret)? == "secret");
    Ok(())
}

/// A file is watched by its name as well: what replaces it has another identity.
fn one_that_takes_its_place_is_a_secret_too() -> Result<()> {
    let (mut stage, directory) = watching(Mode::Enforce, Watch::Protect, "deep/er/key")?;
    let secret = directory.path().join("watched/deep/er/key");
    std::fs::write(directory.path().join("watched/other"), "newer")?;
    std::fs::rename(directory.path().join("watched/other"), &secret)?;
    let (decision, expected) = forbidden(&stage, "newer");
    let (sequence, answer) = ask(&stage, "read", &secret)?;
    ensure!(answer == expected, "{answer}");
    ensure!(wait_file(&mut stage, sequence)?.decision == decision);
    Ok(())
}

fn what_was_written_is_known_when_it_is_read() -> Result<()> {
    let (mut stage, directory) = watching(Mode::Enforce, Watch::Remember, ".")?;
    let page = directory.path().join("watched/page");
    let (writer, answer) = ask(&stage, "write", &page)?;
    ensure!(answer == "ok", "{answer}");
    let written = wait_file(&mut stage, writer)?;
    ensure!(
        written.decision == Decision::Allowed && written.access == Access::Write,
        "{written:?}"
    );
    let (reader, answer) = ask(&stage, "read", &page)?;
    ensure!(answer == "written", "{answer}");
    let read = wait_file(&mut stage, reader)?;
    ensure!(
        read.decision == Decision::Allowed && read.access == Access::Read,
        "{read:?}"
    );
    ensure!(read.file == written.file && read.path == written.path);
    // What was there before is nobody's.
    let (sequence, answer) = ask(
        &stage,
        "read",
        &directory.path().join("watched/deep/er/key"),
    )?;
    ensure!(answer == "secret" && !is_told(&mut stage, sequence)?);
    Ok(())
}

fn nothing_is_written_there() -> Result<()> {
    let (mut stage, directory) = watching(Mode::Enforce, Watch::Close, ".")?;
    let page = directory.path().join("watched/deep/page");
    let (decision, expected) = forbidden(&stage, "ok");
    let (sequence, answer) = ask(&stage, "write", &page)?;
    ensure!(answer == expected, "{answer}");
    let file = wait_file(&mut stage, sequence)?;
    ensure!(
        file.decision == decision && file.access == Access::Write,
        "{file:?}"
    );
    let stops = u64::from(decision == Decision::Denied);
    ensure!(stage.sensor.stops().total() == stops && stage.sensor.handed_out() == stops);
    let (sequence, answer) = ask(
        &stage,
        "read",
        &directory.path().join("watched/deep/er/key"),
    )?;
    ensure!(answer == "secret" && !is_told(&mut stage, sequence)?);
    Ok(())
}

/// An upload is written elsewhere, and moved to where it is served from.
fn what_is_moved_there_is_written_there() -> Result<()> {
    let (mut stage, directory) = watching(Mode::Enforce, Watch::Remember, ".")?;
    let (from, to) = (
        directory.path().join("upload"),
        directory.path().join("watched/shown"),
    );
    let (sequence, _) = ask(&stage, "write", &from)?;
    ensure!(!is_told(&mut stage, sequence)?, "it is not watched");
    let both = format!("{}:{}", from.display(), to.display());
    let (mover, answer) = ask(&stage, "move", Path::new(&both))?;
    ensure!(answer == "ok", "{answer}");
    let moved = wait_file(&mut stage, mover)?;
    ensure!(moved.access == Access::Write, "{moved:?}");
    let name = to.file_name().context("a name")?.as_encoded_bytes();
    ensure!(moved.path.ends_with(name), "{moved:?}");
    let (reader, answer) = ask(&stage, "read", &to)?;
    ensure!(answer == "written", "{answer}");
    ensure!(wait_file(&mut stage, reader)?.file == moved.file);
    Ok(())
}

fn observe_refuses_nothing() -> Result<()> {
    let (mut stage, directory) = watching(Mode::Observe, Watch::Protect, ".")?;
    let secret = directory.path().join("watched/deep/er/key");
    let (sequence, answer) = ask(&stage, "read", &secret)?;
    ensure!(answer == "secret", "{answer}");
    ensure!(wait_file(&mut stage, sequence)?.decision == Decision::Observed);
    ensure!(stage.sensor.stops().total() == 0);
    Ok(())
}
