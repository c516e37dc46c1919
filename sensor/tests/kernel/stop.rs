//! Decide: what a request starts, and how the others hear of it.

use anyhow::{Context, Result, ensure};
use clew_protocol::kernel::{Decision, KernelEvent, LostClass, Strength};
use clew_sensor::{ExecRule, Mode, Policy};
use std::path::Path;

use crate::Test;
use crate::stage::Stage;

pub(crate) const TESTS: &[Test] = &[
    ("decide::a_shell_never_runs", a_shell_never_runs),
    (
        "decide::the_record_says_what_it_was",
        the_record_says_what_it_was,
    ),
    (
        "decide::long_arguments_are_cut_and_flagged",
        long_arguments_are_cut_and_flagged,
    ),
    ("decide::children_of_every_kind", children_of_every_kind),
    (
        "decide::a_thread_that_becomes_a_shell",
        a_thread_that_becomes_a_shell,
    ),
    ("decide::a_full_ring_saves_nobody", a_full_ring_saves_nobody),
    (
        "decide::a_full_ring_lets_nobody_start",
        a_full_ring_lets_nobody_start,
    ),
    (
        "decide::strangers_run_what_they_like",
        strangers_run_what_they_like,
    ),
    ("decide::observe_stops_nothing", observe_stops_nothing),
    (
        "stops::are_counted_before_anybody_can_know",
        are_counted_before_anybody_can_know,
    ),
    ("unload::nothing_is_left", nothing_is_left),
];

fn a_shell_never_runs() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let dir = tempfile::tempdir()?;
    for n in 0..50 {
        let marker = dir.path().join(n.to_string());
        let mut client = stage.connect()?;
        let (sequence, head) = stage.head(&format!("/run/echo>{}", marker.display()));
        client.send(&head)?;
        let exec = stage.wait_exec(sequence)?;
        ensure!(exec.decision == stage.end().0);
        ensure!(exec.lineage.strength == Strength::Reader);
        ensure!(client.answer()? == stage.end().1);
        ensure!(!marker.exists());
    }
    Ok(())
}

fn the_record_says_what_it_was() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/run/echo%20hello");
    client.send(&head)?;
    let exec = stage.wait_exec(sequence)?;
    let process = &exec.process;
    let shell = std::fs::canonicalize("/bin/sh")?;
    ensure!(
        process.arguments == [&b"/bin/sh"[..], b"-c", b"echo hello"],
        "{process:?}"
    );
    ensure!(process.environment == [b"SECRET=hunter2"]);
    ensure!(process.filename == b"/bin/sh");
    ensure!(
        process.executable == shell.as_os_str().as_encoded_bytes(),
        "{process:?}"
    );
    ensure!(process.working_directory == b"/usr");
    ensure!(process.comm == "sh" && process.uid == 0 && !process.truncated);
    ensure!(process.cgroup_id != 0);
    let stat = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(&shell)?);
    ensure!(process.file.is_some_and(|file| file.device == stat));
    ensure!(
        process
            .ancestry
            .first()
            .is_some_and(|parent| parent.pid == stage.backend.pid())
    );
    ensure!(process.ancestry.last().is_some_and(|init| init.pid == 1));
    ensure!(exec.lineage.backend.tgid == stage.backend.pid());
    Ok(())
}

fn long_arguments_are_cut_and_flagged() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head(&format!("/run/true%20{}", "a".repeat(6000)));
    client.send(&head)?;
    let exec = stage.wait_exec(sequence)?;
    ensure!(exec.process.truncated);
    ensure!(exec.process.arguments[2].len() == 4096 - "/bin/sh\0-c\0".len());
    Ok(())
}

/// A new thread, vfork, and a grandchild that left its session and its parent: each is the
/// request's work.
fn children_of_every_kind() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let dir = tempfile::tempdir()?;
    let (_, stopped) = stage.end();
    for (verb, answer, strength) in [
        ("thread", stopped, Strength::Thread),
        ("spawn", stopped, Strength::Reader),
        ("orphan", "ok", Strength::Reader),
    ] {
        let marker = dir.path().join(verb);
        let mut client = stage.connect()?;
        let (sequence, head) = stage.head(&format!("/{verb}/echo>{}", marker.display()));
        client.send(&head)?;
        let exec = stage.wait_exec(sequence).context(verb)?;
        ensure!(exec.decision == stage.end().0, "{verb}: {exec:?}");
        ensure!(exec.lineage.strength == strength, "{verb}: {exec:?}");
        ensure!(
            exec.lineage.backend.tgid == stage.backend.pid(),
            "{verb}: {exec:?}"
        );
        ensure!(client.answer()? == answer, "{verb}");
        ensure!(!marker.exists(), "{verb}");
    }
    Ok(())
}

/// No fork, in a thread that no request has touched: `execve` ends the thread that read it.
fn a_thread_that_becomes_a_shell() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let dir = tempfile::tempdir()?;
    let marker = dir.path().join("ran");
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head(&format!("/become/echo>{}", marker.display()));
    client.send(&head)?;
    let exec = stage.wait_exec(sequence)?;
    ensure!(exec.decision == stage.end().0);
    ensure!(exec.process.pid == stage.backend.pid());
    ensure!(exec.lineage.strength == Strength::Process);
    ensure!(exec.lineage.recent == [sequence], "{:?}", exec.lineage);
    ensure!(!marker.exists());
    Ok(())
}

/// Nobody reads the ring: what cannot be reported is killed all the same, and counted. What is allowed
/// with its exact arguments runs.
fn a_full_ring_saves_nobody() -> Result<()> {
    let arguments = ["/bin/sh", "-c", "exit 7"].map(Into::into);
    let policy = Policy {
        exec: vec![ExecRule {
            service: None,
            path: "/bin/sh".into(),
            arguments: Some(arguments.into()),
        }],
        ..Policy::default()
    };
    let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
    fill_the_ring(&stage)?;
    let mut client = stage.connect()?;
    let (_, head) = stage.head("/run/exit%207");
    client.send(&head)?;
    ensure!(
        client.answer()? == "status 7",
        "an allowed command was killed"
    );
    the_loss_is_told(&mut stage)
}

/// The same where no arguments are allowed for it: with BPF LSM it is refused before it starts.
fn a_full_ring_lets_nobody_start() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    fill_the_ring(&stage)?;
    the_loss_is_told(&mut stage)
}

/// Shells that are stopped, until there is no room for their records.
fn fill_the_ring(stage: &Stage) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let marker = dir.path().join("ran");
    for n in 1..=700 {
        let mut client = stage.connect()?;
        let (_, head) = stage.head(&format!("/run/echo>{}", marker.display()));
        client.send(&head)?;
        stage.wait_stopped(n)?;
    }
    ensure!(!marker.exists());
    let counters = stage.sensor.counters();
    ensure!(counters.lost_exec > 0, "{counters:?}");
    Ok(())
}

fn the_loss_is_told(stage: &mut Stage) -> Result<()> {
    let lost = stage.sensor.counters().lost_exec;
    let told = stage.wait("Lost", |event| match event {
        KernelEvent::Lost { class, total } if *class == LostClass::Exec => Some(*total),
        _ => None,
    })?;
    ensure!(told == lost);
    // Nobody waits for what will never be told.
    let sensor = &stage.sensor;
    ensure!(sensor.stops().total() == 700 && sensor.handed_out() == 700);
    Ok(())
}

fn strangers_run_what_they_like() -> Result<()> {
    let stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    client.send("GET /run/true HTTP/1.1\r\nHost: test\r\n\r\n")?;
    ensure!(client.answer()? == "status 0");
    ensure!(std::process::Command::new("/bin/true").status()?.success());
    Ok(())
}

fn observe_stops_nothing() -> Result<()> {
    let mut stage = Stage::new(Mode::Observe)?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/run/true");
    client.send(&head)?;
    ensure!(client.answer()? == "status 0");
    let exec = stage.wait_exec(sequence)?;
    ensure!(exec.decision == Decision::Observed && stage.sensor.stops().total() == 0);
    Ok(())
}

/// What has come of an answer by the time a stop is not counted yet is not its consequence.
fn are_counted_before_anybody_can_know() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let stops = stage.sensor.stops();
    let mut client = stage.connect()?;
    for n in 1..=50 {
        let (sequence, head) = stage.head("/run/true");
        client.send(&head)?;
        ensure!(client.answer()? == stage.end().1);
        ensure!(stops.total() == n);
        ensure!(stage.sensor.handed_out() == n - 1);
        stage.wait_exec(sequence)?;
        ensure!(stage.sensor.handed_out() == n);
    }
    Ok(())
}

fn nothing_is_left() -> Result<()> {
    let stage = Stage::new(Mode::Enforce)?;
    let ours = |path: &Path| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name.starts_with(&format!("clew-{}-", std::process::id()))
    };
    let pins = || -> Result<usize> {
        let entries = std::fs::read_dir("/sys/fs/bpf")?.flatten();
        Ok(entries.filter(|entry| ours(&entry.path())).count())
    };
    // Other tests of this process have pins too; this one's must go.
    let pid = stage.backend.pid();
    let programs = clew_sensor::statistics::of(&stage.sensor)?;
    let asked_before = usize::from(stage.end().0 == Decision::Denied);
    ensure!(programs.len() == 14 + asked_before, "{programs:?}");
    ensure!(pins()? > 0);
    let ids: Vec<u32> = programs.iter().map(|program| program.id).collect();
    drop(stage);
    ensure!(!Path::new(&format!("/proc/{pid}")).exists());
    let deadline = std::time::Instant::now() + crate::stage::PATIENCE;
    while ids.iter().any(|&id| clew_sensor::statistics::exists(id)) {
        ensure!(
            std::time::Instant::now() < deadline,
            "programs still loaded"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}
