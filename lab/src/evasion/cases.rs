//! The cases, and how those are played that are one request.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clew_protocol::incident::{Incident, StepKind};

use super::direct;
use super::limits::limit;
use super::sink::Sink;
use super::stage::{Mode, Stage, get};
use super::tokens::{self, Place};
use super::watch::{Outcome, Verdict, concerns, describe, named};
use crate::clew::Clew;
use crate::client::send;

/// How long an effect, or its record, may take to show once the answer is there.
const SETTLE: Duration = Duration::from_millis(400);
/// The thread left behind waits for two seconds.
const DELAYED: Duration = Duration::from_millis(2800);
const STRAIGHT: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 1);

/// How a case is played.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    /// One request, to the backend of this mode.
    Request(Mode),
    /// Requests that carry a token where none belongs.
    Token(Place),
    /// A request that does not come through Clew.
    Direct,
    /// The same, from the address and port of one that did.
    SamePort,
}

/// One evasion.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) how: How,
}

const fn plain(name: &'static str) -> Case {
    by(name, Mode::Plain)
}

const fn by(name: &'static str, mode: Mode) -> Case {
    Case {
        name,
        how: How::Request(mode),
    }
}

const fn token(name: &'static str, place: Place) -> Case {
    Case {
        name,
        how: How::Token(place),
    }
}

/// All of them.
pub(crate) const CASES: [Case; 64] = [
    plain("io-uring-connect"),
    plain("io-uring-send"),
    by("io-uring-recv", Mode::IoUring),
    plain("io-uring-sqpoll"),
    plain("io-uring-async"),
    plain("mptcp"),
    by("splice-receive", Mode::Splice),
    by("zero-copy-receive", Mode::ZeroCopy),
    plain("v4-mapped-ipv6"),
    plain("msg-fastopen"),
    plain("af-packet"),
    plain("vsock"),
    plain("argv-toctou"),
    plain("path-toctou"),
    plain("int80"),
    plain("execveat-memfd"),
    plain("fexecve-memfd"),
    plain("deleted-binary"),
    plain("dev-shm"),
    plain("ld-so"),
    plain("shebang-chain"),
    plain("symlink"),
    plain("hardlink"),
    plain("bind-mount"),
    plain("relative-path"),
    plain("renamed-shell"),
    plain("busybox"),
    plain("comm-spoof"),
    plain("padded-argv"),
    plain("healthcheck-argv"),
    plain("vfork"),
    plain("posix-spawn"),
    plain("clone3"),
    plain("clone-parent"),
    plain("double-fork-setsid"),
    plain("ancestry-20"),
    plain("setns-unshare"),
    plain("cgroup-move"),
    plain("delayed-thread"),
    plain("at-cron"),
    plain("queue-file"),
    plain("handoff-unix"),
    plain("handoff-pipe"),
    plain("handoff-database"),
    plain("in-process-reverse-shell"),
    plain("udp-exfiltration"),
    plain("dns-exfiltration"),
    plain("raw-socket"),
    plain("sendfile-splice"),
    plain("event-flood"),
    plain("map-eviction"),
    token("token-forged", Place::Forged),
    token("token-replayed", Place::Replayed),
    token("token-echoed", Place::Echoed),
    token("token-truncated", Place::Truncated),
    token("token-in-url", Place::Url),
    token("token-in-body", Place::Body),
    token("token-in-header-continuation", Place::Continuation),
    token("token-in-trailer", Place::Trailer),
    Case {
        name: "direct-connection",
        how: How::Direct,
    },
    plain("pid-reuse"),
    plain("tid-reuse"),
    Case {
        name: "port-reuse",
        how: How::SamePort,
    },
    by("started-before-sensor", Mode::Prefork),
];

impl Case {
    /// Whether it is one request, which can be played without Clew too.
    pub(crate) fn is_request(&self) -> bool {
        matches!(self.how, How::Request(_))
    }

    /// Whether the attack has an effect without Clew.
    pub(crate) fn works(&self, stage: &mut Stage, mode: Mode) -> Result<bool> {
        let sink = Sink::open()?;
        let port = stage.backend(mode)?;
        self.prepare(port, mode)?;
        send(STRAIGHT, port, &self.request(stage, mode, "without", &sink))?;
        self.settle();
        Ok(stage.is_marked(&stage.mark(self.name, "without")) || sink.was_reached())
    }

    /// Plays it with Clew in front.
    pub(crate) fn play(&self, stage: &mut Stage, clew: &Clew, nth: usize) -> Result<Outcome> {
        let source = Ipv4Addr::new(127, 6, 1, nth as u8 + 1);
        match self.how {
            How::Request(mode) => self.through(stage, clew, mode, source),
            How::Token(place) => tokens::play(stage, clew, self.name, place, source),
            How::Direct => direct::play(stage, clew, self.name),
            How::SamePort => direct::same_port(stage, clew, self.name),
        }
    }

    fn through(
        &self,
        stage: &mut Stage,
        clew: &Clew,
        mode: Mode,
        source: Ipv4Addr,
    ) -> Result<Outcome> {
        let sink = Sink::open()?;
        stage.backend(mode)?;
        let before = clew.incidents()?;
        self.prepare(clew.port, mode)?;
        let request = self.request(stage, mode, "with", &sink);
        let answer = send(source, clew.port, &request)?;
        self.settle();
        let effect = stage.is_marked(&stage.mark(self.name, "with")) || sink.was_reached();
        let news = news(clew, &before)?;
        if let Some(wrong) = news
            .iter()
            .find(|it| named(it).is_some() && !concerns(it, source))
        {
            let reason = format!("an incident names another request: {}", describe(wrong));
            return Ok(Outcome::new(Verdict::Missed, reason));
        }
        let own = news.iter().find(|it| concerns(it, source));
        if self.name == "pid-reuse" {
            innocent_may_have_id(stage, own)?;
        }
        let note = stage.note(self.name, "with");
        Ok(self.judge(effect, own, &format!("status {}; {note}", answer.status)))
    }

    fn judge(&self, effect: bool, own: Option<&Incident>, note: &str) -> Outcome {
        match (effect, own) {
            (false, Some(incident)) => Outcome::new(Verdict::Stopped, describe(incident)),
            (false, None) => {
                Outcome::new(Verdict::Stopped, format!("no effect, no incident: {note}"))
            }
            (true, Some(incident)) => Outcome::new(Verdict::Reported, describe(incident)),
            (true, None) => match limit(self.name) {
                Some(reason) => Outcome::new(Verdict::Declared, reason),
                None => Outcome::new(Verdict::Missed, note),
            },
        }
    }

    /// The request that carries it out.
    fn request(&self, stage: &Stage, mode: Mode, turn: &str, sink: &Sink) -> String {
        let mark = stage.mark(self.name, turn);
        let target = format!("/run?case={}&mark={mark}&port={}", self.name, sink.port);
        get(mode, &target)
    }

    /// What somebody else did before.
    fn prepare(&self, port: u16, mode: Mode) -> Result<()> {
        if self.name == "tid-reuse" {
            let answer = send(super::VISITOR, port, &get(mode, "/benign?id=1"))?;
            ensure!(
                answer.status == 200,
                "the visitor before got {}",
                answer.status
            );
        }
        Ok(())
    }

    fn settle(&self) {
        std::thread::sleep(if self.name == "delayed-thread" {
            DELAYED
        } else {
            SETTLE
        });
    }
}

/// Incidents that were not there before.
pub(crate) fn news(clew: &Clew, before: &[Incident]) -> Result<Vec<Incident>> {
    let old: Vec<_> = before.iter().map(|it| it.id).collect();
    let all = clew.incidents()?;
    Ok(all.into_iter().filter(|it| !old.contains(&it.id)).collect())
}

/// Somebody who gets the process id of a killed program is not killed for it.
fn innocent_may_have_id(stage: &Stage, incident: Option<&Incident>) -> Result<()> {
    let pid = incident
        .into_iter()
        .flat_map(|it| &it.steps)
        .find_map(|step| match &step.what {
            StepKind::Exec(exec) => Some(exec.pid),
            StepKind::Connect { .. } | StepKind::File { .. } => None,
        });
    let Some(pid) = pid else { return Ok(()) };
    let mark = stage.mark("pid-reuse", "innocent");
    let start = Instant::now();
    let done = Command::new(stage.payload())
        .args(["--as-pid", &pid.to_string()])
        .arg(stage.work.join("marks").join(&mark))
        .status()?;
    ensure!(
        done.success() && stage.is_marked(&mark),
        "an innocent program with the id {pid} ended with {done} after {:?}",
        start.elapsed()
    );
    Ok(())
}
