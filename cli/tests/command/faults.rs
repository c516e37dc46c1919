//! What goes wrong, and how it is said.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow, ensure};
use rustix::process::Signal;

use crate::Test;
use crate::stage::{CLEW, Process, Stage, get, pins_of, shared_directory, stopped, wait_until};

pub(crate) const TESTS: &[Test] = &[
    (
        "faults::without_rights_it_says_what_is_missing",
        without_rights_it_says_what_is_missing,
    ),
    (
        "faults::killed_in_mid_flight_the_kernel_goes_on",
        killed_in_mid_flight_the_kernel_goes_on,
    ),
    (
        "faults::the_next_run_removes_what_a_killed_one_left",
        the_next_run_removes_what_a_killed_one_left,
    ),
    ("faults::a_restart_leaves_no_gap", a_restart_leaves_no_gap),
    ("faults::the_doctor_speaks_json", the_doctor_speaks_json),
    (
        "faults::bad_configurations_are_refused",
        bad_configurations_are_refused,
    ),
    ("faults::a_taken_port_is_an_error", a_taken_port_is_an_error),
    (
        "faults::a_missing_interface_is_an_error",
        a_missing_interface_is_an_error,
    ),
    ("faults::one_state_one_clew", one_state_one_clew),
    (
        "faults::a_log_that_nobody_reads_stalls_nobody",
        a_log_that_nobody_reads_stalls_nobody,
    ),
];

fn without_rights_it_says_what_is_missing() -> Result<()> {
    let directory = shared_directory()?;
    // A copy: the build directory may be closed to others.
    let clew = directory.path().join("clew");
    std::fs::copy(CLEW, &clew)?;
    let state = tempfile::tempdir()?;
    std::os::unix::fs::chown(state.path(), Some(65534), Some(65534))?;
    let done = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&clew)
        .args([
            "run",
            "--upstream",
            "127.0.0.1:9",
            "--listen",
            "127.0.0.1:0",
            "--state",
        ])
        .arg(state.path())
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(!done.status.success());
    ensure!(
        said.contains("CAP_BPF") && said.contains("--no-sensor"),
        "{said}"
    );
    Ok(())
}

/// SIGKILL: the pinned programs stay and still stop shells; `doctor --clean` removes them.
fn killed_in_mid_flight_the_kernel_goes_on() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    ensure!(stage.get("/")?.0 == 200);
    let pid = stage.clew.0.id();
    stage.clew.signal(Signal::KILL)?;
    stage.clew.0.wait()?;
    ensure!(pins_of(pid)? == 1, "the pins went with the process");
    // The backend has read requests of Clew's: what it starts is judged, also for strangers.
    let (_, body) = crate::stage::get(stage.upstream, "/run/true")?;
    ensure!(body == stopped()?, "{body}");
    let shown = Command::new(CLEW).arg("doctor").output()?;
    ensure!(String::from_utf8_lossy(&shown.stdout).contains("doctor --clean"));
    let cleaned = Command::new(CLEW).args(["doctor", "--clean"]).output()?;
    ensure!(
        cleaned.status.success(),
        "{}",
        String::from_utf8_lossy(&cleaned.stderr)
    );
    ensure!(pins_of(pid)? == 0);
    let (_, body) = crate::stage::get(stage.upstream, "/run/true")?;
    ensure!(body == "status 0", "{body}");
    Ok(())
}

fn the_next_run_removes_what_a_killed_one_left() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let killed = stage.clew.0.id();
    stage.clew.signal(Signal::KILL)?;
    stage.clew.0.wait()?;
    ensure!(pins_of(killed)? == 1, "the pins went with the process");
    let (clew, port) = crate::stage::start(stage.directory.path(), stage.upstream, &[])?;
    (stage.clew, stage.port) = (clew, port);
    ensure!(pins_of(killed)? == 0, "{}", stage.log()?);
    ensure!(pins_of(stage.clew.0.id())? == 1);
    let (status, _) = stage.get("/run/true")?;
    ensure!(status == 403, "{status}");
    Ok(())
}

/// Somebody starts shells in the backend's process all the time, while Clew is killed and started anew, and
/// while it is stopped with its programs kept: none of them runs.
fn a_restart_leaves_no_gap() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let configuration = stage.directory.path().join("keep.toml");
    std::fs::write(&configuration, "[sensor]\non_stop = \"keep\"\n")?;
    let keep = ["--config", &configuration.to_string_lossy()].map(str::to_owned);
    let keep = keep.each_ref().map(String::as_str);
    ensure!(stage.get("/")?.0 == 200);
    let is_over = AtomicBool::new(false);
    let upstream = stage.upstream;
    let restarts = |stage: &mut Stage| -> Result<()> {
        for signal in [Signal::KILL, Signal::TERM] {
            stage.clew.signal(signal)?;
            stage.clew.0.wait()?;
            let next = crate::stage::start(stage.directory.path(), upstream, &keep)?;
            (stage.clew, stage.port) = next;
            let log = stage.log()?;
            ensure!(log.contains("are followed on"), "{log}");
        }
        Ok(())
    };
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                answers.push(crate::stage::get(upstream, "/run/true")?.1);
            }
            Ok::<_, anyhow::Error>(answers)
        });
        let restarted = restarts(&mut stage);
        is_over.store(true, Ordering::Release);
        let answers = asking.join().map_err(|_| anyhow!("who asks has panicked"));
        restarted.and(answers?)
    })?;
    let stopped = stopped()?;
    let ran = answers.iter().filter(|it| *it != stopped).count();
    ensure!(ran == 0, "{ran} of {} shells ran", answers.len());
    // Its own requests are served, and what they start is stopped. It may be a stranger's: nobody is named.
    let (status, body) = stage.get("/run/true")?;
    ensure!(status == 200 && body == stopped, "{status} {body}");
    let pid = stage.clew.0.id();
    stage.stop()?;
    ensure!(pins_of(pid)? == 1, "the programs were to be kept");
    ensure!(
        Command::new(CLEW)
            .args(["doctor", "--clean"])
            .status()?
            .success()
    );
    ensure!(pins_of(pid)? == 0);
    Ok(())
}

/// Findings for machines, and an exit code that says whether all that is needed is there.
fn the_doctor_speaks_json() -> Result<()> {
    let done = Command::new(CLEW).args(["doctor", "--json"]).output()?;
    ensure!(done.status.success(), "{done:?}");
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&done.stdout)?;
    for step in [
        "kernel", "types", "rights", "tag", "bind", "send", "hop", "inherit", "decide", "deny",
    ] {
        let of_step = |it: &&serde_json::Value| it["step"] == step;
        let found = findings.iter().find(of_step);
        ensure!(
            found.is_some_and(|it| it["ok"] == true && it["needed"] == true),
            "{step}: {found:?}"
        );
    }
    // What can be done without is there or not; either way it is said what would provide it.
    for step in ["file-open", "ban"] {
        let found = findings.iter().find(|it| it["step"] == step);
        ensure!(
            found.is_some_and(|it| it["needed"] == false && it["provider"].is_string()),
            "{step}: {found:?}"
        );
    }
    let directory = shared_directory()?;
    let clew = directory.path().join("clew");
    std::fs::copy(CLEW, &clew)?;
    let done = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&clew)
        .args(["doctor", "--json"])
        .output()?;
    ensure!(!done.status.success());
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&done.stdout)?;
    let rights = findings.iter().find(|it| it["step"] == "rights");
    ensure!(
        rights.is_some_and(|it| it["ok"] == false && it["remedy"].is_string()),
        "{rights:?}"
    );
    Ok(())
}

fn bad_configurations_are_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("clew.toml");
    for (text, words) in [
        ("[sensor]\nmod = \"enforce\"\n", "did you mean `mode`?"),
        ("[limits]\nheaders = \"many\"\n", "clew.toml:2:11"),
        (
            "[[service]]\nname = \"a\"\nupstreams = [\"nowhere\"]\n",
            "clew.toml:3",
        ),
        ("", "--upstream"),
        (
            "[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:9\"]\n\
             [sensor]\nenabled = false\n[ban]\ninterfaces = [\"eth0\"]\n",
            "ban.interfaces needs the sensor",
        ),
    ] {
        std::fs::write(&file, text)?;
        let done = Command::new(CLEW).arg("check").arg(&file).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(
            !done.status.success() && said.contains(words),
            "{text:?}: {said}"
        );
    }
    Ok(())
}

fn a_taken_port_is_an_error() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let directory = shared_directory()?;
    let done = Command::new(CLEW)
        .args([
            "run",
            "--no-sensor",
            "--upstream",
            "127.0.0.1:9",
            "--listen",
        ])
        .arg(taken.local_addr()?.to_string())
        .arg("--state")
        .arg(directory.path().join("state"))
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        !done.status.success() && said.contains("cannot listen on"),
        "{said}"
    );
    Ok(())
}

/// An interface that is not there is said to be so, and nothing is left in the kernel.
fn a_missing_interface_is_an_error() -> Result<()> {
    let directory = shared_directory()?;
    let file = directory.path().join("clew.toml");
    std::fs::write(&file, "[ban]\ninterfaces = [\"no-such-if\"]\n")?;
    let clew = Command::new(CLEW)
        .args([
            "run",
            "--upstream",
            "127.0.0.1:9",
            "--listen",
            "127.0.0.1:0",
        ])
        .arg("--config")
        .arg(&file)
        .arg("--state")
        .arg(directory.path().join("state"))
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = clew.id();
    let done = clew.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        !done.status.success() && said.contains("no network interface no-such-if"),
        "{said}"
    );
    ensure!(pins_of(pid)? == 0, "{said}");
    Ok(())
}

fn one_state_one_clew() -> Result<()> {
    let stage = Stage::new(&["--no-sensor"])?;
    let second = Command::new(CLEW)
        .args([
            "run",
            "--no-sensor",
            "--upstream",
            "127.0.0.1:9",
            "--listen",
            "127.0.0.1:0",
        ])
        .arg("--state")
        .arg(stage.directory.path().join("state"))
        .output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(
        !second.status.success() && said.contains("another clew"),
        "{said}"
    );
    Ok(())
}

/// Whoever reads the log has stopped; requests are answered, and Clew ends when it is asked to.
fn a_log_that_nobody_reads_stalls_nobody() -> Result<()> {
    // A pipe holds 64 KiB, so few of these fit.
    let line_bytes = 2000;
    let directory = shared_directory()?;
    let rules = directory.path().join("rules.conf");
    let said = "x".repeat(line_bytes);
    let rule =
        format!("SecRuleEngine On\nSecAction \"id:1,phase:1,deny,status:406,log,msg:'{said}'\"\n");
    std::fs::write(&rules, rule)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let child = Command::new(CLEW)
        .args(["run", "--no-sensor", "--upstream", "127.0.0.1:9"])
        .args(["--listen", &format!("127.0.0.1:{port}"), "--state"])
        .arg(directory.path().join("state"))
        .arg("--rules")
        .arg(&rules)
        .stderr(Stdio::piped())
        .spawn()?;
    let mut clew = Process(child);
    wait_until("listening", || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
    })?;
    for _ in 0..5 * 65_536 / line_bytes {
        ensure!(get(port, "/")?.0 == 406);
    }
    clew.signal(Signal::TERM)?;
    wait_until("ended", || Ok(clew.0.try_wait()?.is_some()))
}
