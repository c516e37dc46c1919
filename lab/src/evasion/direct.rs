//! Requests that bypass the proxy: nobody that Clew knows sent them, so nobody may be blamed.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cases::news;
use super::limits::limit;
use super::stage::{Mode, Stage, get};
use super::watch::{Outcome, Verdict, describe, mentions, named};
use crate::clew::Clew;
use crate::client::send;

const VISITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 9);
const OTHER_VISITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 10);
const STRAIGHT: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 3);
const SETTLE: Duration = Duration::from_millis(400);

/// Straight to a backend that serves a visitor too.
pub(crate) fn play(stage: &mut Stage, clew: &Clew, name: &str) -> Result<Outcome> {
    let backend = stage.backend(Mode::Prefork)?;
    send(VISITOR, clew.port, &get(Mode::Prefork, "/benign"))?;
    attack(stage, clew, name, || {
        let request = get(Mode::Prefork, &exec_target(stage, name));
        send(STRAIGHT, backend, &request).map(drop)
    })
}

/// The same, from the port that Clew's connection for a visitor's request came from.
pub(crate) fn same_port(stage: &mut Stage, clew: &Clew, name: &str) -> Result<Outcome> {
    let backend = stage.backend(Mode::Prefork)?;
    let answer = send(OTHER_VISITOR, clew.port, &get(Mode::Prefork, "/peer"))?;
    let port: u16 = answer.body.trim().parse().context("the peer's port")?;
    let target = exec_target(stage, name);
    attack(stage, clew, name, || {
        let done = Command::new(stage.program())
            .args(["knock", &port.to_string(), &backend.to_string(), &target])
            .status()?;
        ensure!(done.success(), "no request came from port {port}: {done}");
        Ok(())
    })
}

fn exec_target(stage: &Stage, name: &str) -> String {
    format!("/run?case=exec&mark={}&port=9", stage.mark(name, "with"))
}

fn attack(
    stage: &Stage,
    clew: &Clew,
    name: &str,
    act: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    let before = clew.incidents()?;
    act()?;
    std::thread::sleep(SETTLE);
    let news = news(clew, &before)?;
    let mark = stage.mark(name, "with");
    let own = news.iter().find(|it| mentions(it, &mark));
    if let Some(incident) = own
        && let Some(address) = named(incident)
    {
        let reason = format!(
            "{address}, who had sent a request before, is blamed: {}",
            describe(incident)
        );
        return Ok(Outcome::new(Verdict::Missed, reason));
    }
    Ok(match (stage.is_marked(&mark), own) {
        (false, incident) => Outcome::new(
            Verdict::Stopped,
            incident.map_or_else(|| "no effect, no incident".to_owned(), describe),
        ),
        (true, Some(incident)) => Outcome::new(Verdict::Reported, describe(incident)),
        (true, None) => match limit(name) {
            Some(reason) => Outcome::new(Verdict::Declared, reason),
            None => Outcome::new(Verdict::Missed, "the program ran"),
        },
    })
}
