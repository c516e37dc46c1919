//! Steering and seeing: bans that last, the admin API, metrics, `clew top`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::Test;
use crate::stage::{CLEW, PATIENCE, Process, Stage, get_from, start, wait_until};

pub(crate) const TESTS: &[Test] = &[
    (
        "steering::a_ban_that_was_answered_outlives_any_kill",
        a_ban_that_was_answered_outlives_any_kill,
    ),
    (
        "steering::a_dry_run_refuses_nobody",
        a_dry_run_refuses_nobody,
    ),
    (
        "steering::who_is_never_banned_is_not",
        who_is_never_banned_is_not,
    ),
    (
        "steering::metrics_and_health_have_a_port_of_their_own",
        metrics_and_health_have_a_port_of_their_own,
    ),
    (
        "steering::requests_are_spans_that_a_collector_gets",
        requests_are_spans_that_a_collector_gets,
    ),
    (
        "steering::tokens_are_read_before_rights_are_dropped",
        tokens_are_read_before_rights_are_dropped,
    ),
    (
        "steering::changes_are_in_the_audit_log",
        changes_are_in_the_audit_log,
    ),
    (
        "steering::top_draws_and_leaves_the_terminal_as_it_was",
        top_draws_and_leaves_the_terminal_as_it_was,
    ),
    (
        "steering::top_without_a_terminal_is_text_once",
        top_without_a_terminal_is_text_once,
    ),
];

/// Those that need root: they load BPF programs, or are several users.
pub(crate) const PRIVILEGED: &[Test] = &[
    (
        "steering::a_ban_by_verdict_outlives_a_kill",
        a_ban_by_verdict_outlives_a_kill,
    ),
    (
        "steering::a_rehearsed_ban_is_told_as_none",
        a_rehearsed_ban_is_told_as_none,
    ),
    (
        "steering::the_sensor_is_part_of_being_ready",
        the_sensor_is_part_of_being_ready,
    ),
    (
        "steering::others_may_not_ask_even_if_they_reach_the_socket",
        others_may_not_ask_even_if_they_reach_the_socket,
    ),
];

impl Stage {
    fn json(&self, words: &[&str]) -> Result<Value> {
        let said = self.ask(&[words, &["--json"]].concat())?;
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.success(), "{words:?}: {error}");
        serde_json::from_slice(&said.stdout).context(error)
    }

    fn sources(&self) -> Result<Vec<String>> {
        let bans = self.json(&["bans", "list"])?;
        let bans = bans["bans"].as_array().context("no list of bans")?.iter();
        let source = |ban: &Value| Some(ban["source"].as_str()?.to_owned());
        bans.map(|ban| source(ban).context("no source")).collect()
    }

    /// SIGKILL, and a new clew on what the old one has left.
    fn kill_and_start(&mut self, more: &[&str]) -> Result<()> {
        self.clew.signal(Signal::KILL)?;
        self.clew.0.wait()?;
        let (clew, port) = start(self.directory.path(), self.upstream, more)?;
        (self.clew, self.port) = (clew, port);
        Ok(())
    }

    /// Starts clew anew with this configuration, beside one backend and a port of its own for `PORT`.
    fn configured(text: &str) -> Result<(Self, u16)> {
        let mut stage = Self::new(&["--no-sensor"])?;
        stage.stop()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let path = stage.directory.path().join("clew.toml");
        std::fs::write(&path, text.replace("PORT", &port.to_string()))?;
        let more = ["--no-sensor", "--config", &path.to_string_lossy()];
        let (clew, listens) = start(stage.directory.path(), stage.upstream, &more)?;
        (stage.clew, stage.port) = (clew, listens);
        Ok((stage, port))
    }
}

/// Killed in the middle of banning: each ban that was answered is there again, and is refused.
fn a_ban_that_was_answered_outlives_any_kill() -> Result<()> {
    let mut stage = Stage::new(&["--no-sensor"])?;
    let mut answered: Vec<String> = Vec::new();
    for round in 0..6_u8 {
        let socket = stage.directory.path().join("state/admin.sock");
        let (tell, answers) = std::sync::mpsc::channel();
        let banning = std::thread::spawn(move || ban_until_it_ends(&socket, round, &tell));
        // At another time in each round, in the middle of one that is not answered.
        for _ in 0..=2 * round {
            answered.push(answers.recv_timeout(PATIENCE)?);
        }
        stage.kill_and_start(&["--no-sensor"])?;
        banning.join().ok().context("panicked")?;
        answered.extend(answers);
        let known = stage.sources()?;
        for source in &answered {
            ensure!(
                known.contains(source),
                "{source} of {answered:?} is lost: {known:?}"
            );
        }
    }
    ensure!(stage.get("/")?.0 == 200);
    let add = ["bans", "add", "127.0.0.1", "--reason", "a test"];
    ensure!(stage.ask(&add)?.status.success());
    stage.kill_and_start(&["--no-sensor"])?;
    ensure!(stage.get("/").is_err(), "served in spite of a ban");
    let ban = stage.json(&["bans", "list"])?["bans"][0].clone();
    ensure!(
        ban["reason"] == "a test" && ban["seconds_left"].as_u64() > Some(3500),
        "{ban}"
    );
    ensure!(
        stage
            .ask(&["bans", "remove", "127.0.0.1"])?
            .status
            .success()
    );
    stage.kill_and_start(&["--no-sensor"])?;
    ensure!(stage.get("/")?.0 == 200, "a lifted ban is back");
    Ok(())
}

/// Bans one source after the other until nobody answers any more; tells of those that were answered.
fn ban_until_it_ends(socket: &Path, round: u8, tell: &Sender<String>) {
    for n in 1..=u8::MAX {
        let source = format!("198.51.{round}.{n}");
        let body = format!("{{\"source\":\"{source}\",\"seconds\":600}}");
        let answer = post(socket, &body).unwrap_or_default();
        if !answer.starts_with("HTTP/1.1 200") || !answer.contains("\"not_durable\":null") {
            return;
        }
        if tell.send(source).is_err() {
            return;
        }
    }
}

fn post(socket: &Path, body: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "POST /v1/bans HTTP/1.1\r\nHost: clew\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Status, head and body of a request by plain HTTP.
fn fetch(port: u16, target: &str, more: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: clew\r\nConnection: close\r\n{more}\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, answer))
}

/// What a collector is sent is looked at in full by tests of its own; here, that it is sent, the last with the stop.
fn requests_are_spans_that_a_collector_gets() -> Result<()> {
    let collector = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}/v1/traces", collector.local_addr()?);
    let (mut stage, _) = Stage::configured(&format!("[spans]\nurl = \"{url}\"\n"))?;
    ensure!(stage.get("/spanned")?.0 == 200);
    stage.clew.signal(Signal::TERM)?;
    let (mut stream, _) = collector.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut sent = Vec::new();
    let whole = wait_until("the span is sent", || {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece)?;
        sent.extend_from_slice(&piece[..read]);
        let has = |text: &[u8]| sent.windows(text.len()).any(|it| it == text);
        Ok(has(b"POST /v1/traces ") && has(b"/spanned") && has(b"clew.request.id"))
    });
    whole.with_context(|| String::from_utf8_lossy(&sent).into_owned())?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    ensure!(stage.clew.0.wait()?.success(), "{}", stage.log()?);
    Ok(())
}

fn a_ban_by_verdict_outlives_a_kill() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let marker = stage.directory.path().join("marker-of-the-attack");
    let (status, _) = stage.get(&format!("/run/touch%20{}", marker.display()))?;
    ensure!(status == 403);
    // The client knows before the disk does: what a kill within some milliseconds of it loses is said.
    wait_until("the ban is on disk", || {
        let status = stage.json(&["status"])?;
        Ok(status["bans"]["in_force"] == 1 && status["bans"]["pending"] == 0)
    })?;
    stage.kill_and_start(&[])?;
    ensure!(stage.get("/").is_err(), "served in spite of a ban");
    let ban = stage.json(&["bans", "list"])?["bans"][0].clone();
    let incident = ban["incident"].as_str().context("no incident")?;
    ensure!(ban["offence"] == 1 && ban["source"] == "127.0.0.1", "{ban}");
    let shown = stage.ask(&["incidents", "show", incident])?;
    ensure!(String::from_utf8_lossy(&shown.stdout).contains("banned"));
    Ok(())
}

fn a_rehearsed_ban_is_told_as_none() -> Result<()> {
    let mut stage = Stage::new(&["--no-sensor"])?;
    stage.stop()?;
    let path = stage.directory.path().join("clew.toml");
    std::fs::write(&path, "[ban]\ndry_run = true\n")?;
    let more = ["--config", &path.to_string_lossy()];
    let (clew, port) = start(stage.directory.path(), stage.upstream, &more)?;
    (stage.clew, stage.port) = (clew, port);
    let marker = stage.directory.path().join("marker-of-the-attack");
    let (status, _) = stage.get(&format!("/run/touch%20{}", marker.display()))?;
    ensure!(
        status == 403 && stage.get("/")?.0 == 200,
        "{}",
        stage.log()?
    );
    ensure!(stage.log()?.contains("would be banned"), "{}", stage.log()?);
    let ban = stage.json(&["bans", "list"])?["bans"][0].clone();
    ensure!(
        ban["dry_run"] == true && ban["incident"].is_string(),
        "{ban}"
    );
    wait_until("incident", || {
        let all = stage.json(&["incidents", "list"])?;
        Ok(all[0]["action"] == "cancelled" && all[0]["ban"].is_null())
    })
}

fn the_sensor_is_part_of_being_ready() -> Result<()> {
    let stage = Stage::new(&[])?;
    wait_until("the sensor is tended", || {
        let status = stage.json(&["status"])?;
        let is_well = status["sensor"]["healthy"] == true && status["accepting"] == true;
        Ok(is_well && status["mode"] == "enforce")
    })?;
    let socket = stage.directory.path().join("state/admin.sock");
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: clew\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("it is tended"),
        "{answer}"
    );
    Ok(())
}

fn others_may_not_ask_even_if_they_reach_the_socket() -> Result<()> {
    let stage = Stage::new(&["--no-sensor"])?;
    let at = stage.directory.path();
    // A copy: the build directory may be closed to others.
    let clew = at.join("clew");
    std::fs::copy(CLEW, &clew)?;
    for (path, mode) in [("state", 0o755), ("state/admin.sock", 0o666)] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(at.join(path), mode)?;
    }
    let asked = |user: &str| {
        let mut asked = Command::new("setpriv");
        asked.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        asked.arg(&clew).args(["status", "--state"]);
        asked.arg(at.join("state")).output()
    };
    let refused = asked("65533")?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(
        !refused.status.success() && said.contains("only root"),
        "{said}"
    );
    // Clew's own user, nobody.
    ensure!(asked("65534")?.status.success());
    Ok(())
}

fn a_dry_run_refuses_nobody() -> Result<()> {
    let (stage, _) = Stage::configured("[ban]\ndry_run = true\n")?;
    let added = stage.ask(&["bans", "add", "127.0.0.1"])?;
    let said = String::from_utf8(added.stdout)?;
    ensure!(added.status.success() && said.contains("dry run"), "{said}");
    ensure!(stage.get("/")?.0 == 200);
    ensure!(stage.sources()? == ["127.0.0.1"]);
    Ok(())
}

fn who_is_never_banned_is_not() -> Result<()> {
    let (stage, _) = Stage::configured("[ban]\nnever = [\"127.0.0.0/8\"]\n")?;
    for source in ["127.0.0.1", "127.0.0.0/16", "126.0.0.0/7"] {
        let refused = stage.ask(&["bans", "add", source])?;
        let said = String::from_utf8(refused.stderr)?;
        ensure!(
            !refused.status.success() && said.contains("never banned"),
            "{said}"
        );
    }
    ensure!(stage.get("/")?.0 == 200 && stage.sources()?.is_empty());
    Ok(())
}

/// The value of a metric, as Prometheus would read it.
fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| {
        let rest = line.strip_prefix(name).unwrap_or_default();
        rest.starts_with(' ')
    });
    line?.rsplit(' ').next()?.parse().ok()
}

fn metrics_and_health_have_a_port_of_their_own() -> Result<()> {
    let (stage, port) = Stage::configured("[observe]\nlisten = \"127.0.0.1:PORT\"\n")?;
    ensure!(stage.get("/")?.0 == 200);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, stage.port))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a%b\r\nConnection: close\r\n\r\n")?;
    let mut refused = String::new();
    stream.read_to_string(&mut refused)?;
    ensure!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    ensure!(stage.ask(&["bans", "add", "127.0.0.9"])?.status.success());
    ensure!(get_from(Ipv4Addr::new(127, 0, 0, 9), stage.port, "/").is_err());
    let mut text = String::new();
    let counted = wait_until("requests are counted", || {
        text = fetch(port, "/metrics", "")?.1;
        let of = |outcome: &str, status: &str| {
            let labels = format!("{{outcome=\"{outcome}\",status=\"{status}\"}}");
            metric(&text, &format!("clew_edge_requests_total{labels}"))
        };
        Ok(of("served", "2xx") == Some(1.0) && of("malformed", "4xx") == Some(1.0))
    });
    counted.with_context(|| text.clone())?;
    ensure!(
        metric(&text, "clew_edge_request_duration_seconds_count") == Some(2.0),
        "{text}"
    );
    ensure!(
        metric(&text, "clew_edge_banned_connections_total") == Some(1.0),
        "{text}"
    );
    ensure!(metric(&text, "clew_bans") == Some(1.0), "{text}");
    ensure!(
        metric(&text, "clew_process_resident_memory_bytes") > Some(1e6),
        "{text}"
    );
    ensure!(metric(&text, "clew_process_open_fds") > Some(5.0), "{text}");
    ensure!(
        !text.contains("clew_sensor_killed_total 0"),
        "there is no sensor: {text}"
    );
    let open = fetch(port, "/metrics", "Accept: application/openmetrics-text\r\n")?.1;
    ensure!(open.trim_end().ends_with("# EOF"), "{open}");
    for target in ["/live", "/ready"] {
        let (status, text) = fetch(port, target, "")?;
        ensure!(status == 200 && text.contains("\"ok\":true"), "{text}");
    }
    // Nothing can be changed here, nor seen of anybody.
    for target in ["/v1/bans", "/v1/incidents", "/openapi.json"] {
        ensure!(fetch(port, target, "")?.0 == 404, "{target}");
    }
    Ok(())
}

fn tokens_are_read_before_rights_are_dropped() -> Result<()> {
    let token = "0123456789abcdef0123456789abcdef";
    let secrets = tempfile::tempdir()?;
    let file = secrets.path().join("tokens");
    std::fs::write(&file, format!("ops {token}\n"))?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let text = format!("[admin]\nlisten = \"127.0.0.1:PORT\"\ntoken_file = {file:?}\n");
    let (stage, port) = Stage::configured(&text)?;
    ensure!(fetch(port, "/v1/status", "")?.0 == 401);
    let with = format!("Authorization: Bearer {token}\r\n");
    ensure!(fetch(port, "/v1/status", &with)?.0 == 200);
    ensure!(!stage.log()?.contains(token));
    Ok(())
}

fn changes_are_in_the_audit_log() -> Result<()> {
    let stage = Stage::new(&["--no-sensor"])?;
    let add = [
        "bans",
        "add",
        "203.0.113.7",
        "--seconds",
        "60",
        "--reason",
        "a test",
    ];
    ensure!(stage.ask(&add)?.status.success());
    ensure!(stage.ask(&["bans", "list"])?.status.success());
    ensure!(
        stage
            .ask(&["bans", "remove", "203.0.113.7"])?
            .status
            .success()
    );
    let entries = stage.json(&["audit"])?;
    let entries = entries.as_array().context("no list")?;
    ensure!(entries.len() == 2, "{entries:?}");
    let uid = rustix::process::getuid().as_raw();
    ensure!(
        entries[0]["actor"]["uid"] == uid && entries[0]["from"] == "unix",
        "{entries:?}"
    );
    ensure!(entries[0]["action"] == "ban.add" && entries[1]["action"] == "ban.remove");
    let shown = String::from_utf8(stage.ask(&["audit", "--last", "1"])?.stdout)?;
    ensure!(
        shown.contains("ban.remove 203.0.113.7  ->  done"),
        "{shown}"
    );
    Ok(())
}

/// `script` gives it a terminal; what `stty` says of that before and after has to be the same.
fn top_draws_and_leaves_the_terminal_as_it_was() -> Result<()> {
    let stage = Stage::new(&["--no-sensor"])?;
    ensure!(stage.ask(&["bans", "add", "203.0.113.7"])?.status.success());
    let state = stage.directory.path().join("state");
    for ending in ["q", "terminate"] {
        let shell = format!(
            "stty rows 40 cols 120; echo before:$(stty -g); {CLEW} top --state {} & echo $! > {pid}; \
             wait $!; echo after:$(stty -g):end",
            state.display(),
            pid = stage.directory.path().join("pid").display()
        );
        // In the foreground, so that it has the terminal; its id is its parent's to tell.
        let shell = match ending {
            "q" => shell
                .replace(" & echo $!", "; echo 0")
                .replace("wait $!; ", ""),
            _ => format!("set -m; {}", shell.replace("wait $!", "fg >/dev/null")),
        };
        let seen = in_a_terminal(&stage, &shell, ending)?;
        // The first words of the settings are the modes of input, output and lines.
        let modes = |word: &str| {
            let (_, settings) = seen.split_once(word)?;
            Some(settings.chars().take(24).collect::<String>())
        };
        let before = modes("before:");
        ensure!(before.is_some() && before == modes("after:"), "{seen:?}");
        for drawn in [
            "clew top",
            "requests/s",
            "203.0.113.7",
            "\u{1b}[?1049h",
            "\u{1b}[?1049l",
            "\u{1b}[?25h",
        ] {
            ensure!(seen.contains(drawn), "{ending}: no {drawn:?} in {seen:?}");
        }
        let left = seen.rfind("\u{1b}[?1049l").context("not left")?;
        ensure!(
            left > seen.rfind("203.0.113.7").context("not drawn")?,
            "{seen:?}"
        );
    }
    Ok(())
}

fn in_a_terminal(stage: &Stage, shell: &str, ending: &str) -> Result<String> {
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command"])
        .arg(format!("bash -c '{}'", shell.replace('\'', "'\\''")))
        .arg("/dev/null")
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("script (util-linux)")?;
    let mut keys = child.stdin.take().context("no input")?;
    let mut out = child.stdout.take().context("no output")?;
    let mut child = Process(child);
    let (seen, news) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(bytes @ 1..) = out.read(&mut piece) {
            if seen.send(piece[..bytes].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut text = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut is_told = false;
    loop {
        ensure!(
            Instant::now() < deadline,
            "{:?}",
            String::from_utf8_lossy(&text)
        );
        match news.recv_timeout(Duration::from_millis(50)) {
            Ok(piece) => text.extend(piece),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
        }
        let is_drawn = String::from_utf8_lossy(&text).contains("203.0.113.7");
        if is_drawn && !is_told {
            is_told = true;
            match ending {
                "q" => keys.write_all(b"q")?,
                _ => {
                    let pid = std::fs::read_to_string(stage.directory.path().join("pid"))?;
                    let pid = rustix::process::Pid::from_raw(pid.trim().parse()?);
                    rustix::process::kill_process(pid.context("no process")?, Signal::TERM)?;
                }
            }
        }
    }
    child.0.wait()?;
    let _ = reading.join();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn top_without_a_terminal_is_text_once() -> Result<()> {
    let stage = Stage::new(&["--no-sensor"])?;
    ensure!(stage.get("/")?.0 == 200);
    let text = String::from_utf8(stage.ask(&["top"])?.stdout)?;
    ensure!(
        text.contains("requests/s") && !text.contains('\u{1b}'),
        "{text}"
    );
    let view = stage.json(&["top"])?;
    ensure!(
        view["status"]["accepting"] == true && view["rates"]["requests_per_second"].is_number()
    );
    let nobody = Command::new(CLEW)
        .args(["top", "--state", "/nonexistent"])
        .output()?;
    let said = String::from_utf8(nobody.stderr)?;
    ensure!(
        !nobody.status.success() && said.contains("is it running"),
        "{said}"
    );
    Ok(())
}
