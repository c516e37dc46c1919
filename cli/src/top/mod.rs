//! `clew top`: the clew that runs, once a second.
//!
//! [`Reading`] is what the admin API says at one moment, [`Rates`] what two of them say together, `draw` puts
//! that on a screen or on paper, and `screen` is the terminal, which is left as it was.

mod draw;
mod screen;

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::api::bans::BanList;
use crate::api::client::Client;
use crate::api::counters::CounterSums;
use crate::api::incidents::IncidentList;
use crate::api::rules::RuleHits;
use crate::api::status::Status;
use crate::paper::{put, say};
use screen::{Screen, Wish};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between the two looks that text and JSON are made of.
const ONCE: Duration = Duration::from_millis(500);

/// What the API says at one moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    at: Instant,
    status: Status,
    counters: CounterSums,
    bans: BanList,
    incidents: IncidentList,
    hits: Vec<RuleHits>,
}

/// What has happened between two readings, and what is now.
#[derive(Debug, Clone, Serialize)]
pub(super) struct View {
    pub(super) status: Status,
    pub(super) rates: Rates,
    pub(super) counters: CounterSums,
    pub(super) bans: BanList,
    pub(super) incidents: IncidentList,
    /// The rules that match most.
    pub(super) hits: Vec<RuleHits>,
}

/// A second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) requests_per_second: f64,
    pub(super) blocked_per_second: f64,
    pub(super) failed_per_second: f64,
    pub(super) connections_per_second: f64,
}

/// Shows it until `q`; once, as text, where there is no terminal, and as JSON where that is asked for.
pub(crate) fn run(state: &Path, json: bool) -> Result<()> {
    let client = Client::of(state)?;
    let first = Reading::take(&client)?;
    let is_watched = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if json || !is_watched {
        std::thread::sleep(ONCE);
        let view = View::of(&first, Reading::take(&client)?);
        if json {
            say!("{}", serde_json::to_string_pretty(&view)?);
        } else {
            put!("{}", draw::text(&view));
        }
        return Ok(());
    }
    watch(&client, first)
}

fn watch(client: &Client, first: Reading) -> Result<()> {
    let mut screen = Screen::open()?;
    let mut last = first.clone();
    let mut view = View::of(&first, first.clone());
    loop {
        screen.draw(|frame| draw::screen(frame, &view))?;
        match screen.wait(INTERVAL)? {
            Wish::Quit => return Ok(()),
            // Drawn anew, with what is known.
            Wish::Redraw => continue,
            Wish::Nothing => {}
        }
        let next = match Reading::take(client) {
            Ok(next) => next,
            Err(error) => {
                drop(screen);
                bail!("{error:#}");
            }
        };
        view = View::of(&last, next.clone());
        last = next;
    }
}

impl Reading {
    fn take(client: &Client) -> Result<Self> {
        Ok(Self {
            status: client.get("/v1/status")?,
            counters: client.get("/v1/counters")?,
            bans: client.get("/v1/bans?limit=16")?,
            incidents: client.get("/v1/incidents?limit=16")?,
            hits: client.get("/v1/rules/hits")?,
            at: Instant::now(),
        })
    }
}

impl View {
    fn of(before: &Reading, now: Reading) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        Self {
            rates: Rates::between(&before.counters, &now.counters, seconds),
            status: now.status,
            counters: now.counters,
            bans: now.bans,
            incidents: now.incidents,
            hits: now.hits,
        }
    }
}

impl Rates {
    /// A counter that is lower than before is another clew's: it has been started anew.
    fn between(before: &CounterSums, now: &CounterSums, seconds: f64) -> Self {
        let rate = |of: &dyn Fn(&CounterSums) -> u64| match seconds > 0.0 {
            true => of(now).saturating_sub(of(before)) as f64 / seconds,
            false => 0.0,
        };
        let ended = |sums: &CounterSums, endings: &[&str]| {
            let wanted = |it: &str| endings.is_empty() || endings.contains(&it);
            let counts = sums.requests.iter().filter(|it| wanted(&it.outcome));
            counts.map(|it| it.count).sum()
        };
        Self {
            requests_per_second: rate(&|it| ended(it, &[])),
            blocked_per_second: rate(&|it| {
                ended(it, &["denied", "banned", "limited", "cancelled"])
            }),
            failed_per_second: rate(&|it| ended(it, &["failed"])),
            connections_per_second: rate(&|it| it.edge.get("connections").copied().unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::counters::RequestSum;

    fn sums(served: u64, denied: u64) -> CounterSums {
        let sum = |outcome: &str, count| RequestSum {
            outcome: outcome.to_owned(),
            status: "2xx".to_owned(),
            count,
        };
        CounterSums {
            edge: [("connections".to_owned(), served)].into(),
            requests: vec![sum("served", served), sum("denied", denied)],
            kernel: None,
        }
    }

    #[test]
    fn rates_are_by_the_second_and_never_negative() {
        let rates = Rates::between(&sums(10, 0), &sums(110, 20), 2.0);
        assert_eq!(rates.requests_per_second, 60.0);
        assert_eq!(rates.blocked_per_second, 10.0);
        assert_eq!(
            Rates::between(&sums(9, 9), &sums(0, 0), 1.0),
            Rates::default()
        );
        assert_eq!(
            Rates::between(&sums(0, 0), &sums(9, 9), 0.0),
            Rates::default()
        );
    }
}
