//! Clew is killed again and again while its webhook's receiver is busy, down, and back: what the block log has
//! accepted arrives.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::load::{Load, Pace, Turn};
use super::receiver::Receiver;
use super::site::{Case, PATIENCE, SHOP, Site, wait_until};
use super::spool::Watch;

/// Every request is refused, and makes an event.
const RULES: &str =
    "SecRule REQUEST_FILENAME \"@beginsWith /deny\" \"id:1,phase:1,deny,status:418,t:none\"\n";
const PACE: Pace = Pace {
    clients: 4,
    period: Duration::from_millis(1),
    per_connection: 50,
    noted: &[418],
};
/// Requests before the earliest kill, and how much later the latest is.
const BEFORE: u64 = 50;
const SPREAD: Duration = Duration::from_millis(400);
/// Requests while the receiver is in each of its states, and clew lives.
const CALM: u64 = 400;
/// When a kill is, is random, but the same in each run of the lab.
const SEED: u64 = 7;

/// How the receiver is.
#[derive(Debug, Clone, Copy)]
enum State {
    Well,
    Busy,
    Down,
}

const STATES: [State; 3] = [State::Well, State::Busy, State::Down];

pub(super) fn run(site: &Site, kills: u32) -> Result<Value> {
    let mut receiver = Receiver::start()?;
    let rules = site.work.join("outage.rules");
    std::fs::write(&rules, RULES)?;
    let more = format!(
        "[rules]\nengine = \"on\"\nfiles = [\"{}\"]\n{}",
        rules.display(),
        receiver.sink()
    );
    let case = site.case("outage", false, &more)?;
    let mut seen = Seen::default();
    let mut random = fastrand::Rng::with_seed(SEED);
    for kill in 0..kills {
        set(&mut receiver, STATES[kill as usize % STATES.len()])?;
        until_killed(&case, kill, &mut random, &mut seen)?;
    }
    let calm = while_it_lives(&case, &mut receiver, &mut seen)?;
    let (events, repeats) = receiver.taken();
    let lost = seen.accepted.keys().filter(|id| !receiver.has(id)).count();
    let told: BTreeSet<&str> = events.iter().map(|it| it.path.as_str()).collect();
    let missing = |answered: &BTreeSet<String>| {
        let missing = answered.iter().filter(|it| !told.contains(it.as_str()));
        missing.count()
    };
    Ok(json!({
        "log_kills": kills,
        "log_events_sent": seen.accepted.len(),
        "log_events_lost": lost,
        "log_events_repeated": repeats,
        "log_events_in_memory_at_kills": missing(&seen.before_kills),
        "log_outage_requests": calm.len(),
        "log_outage_events_lost": missing(&calm),
        "log_receiver_said_503": receiver.refusals(),
    }))
}

#[derive(Default)]
struct Seen {
    /// In the spool at any time: ids and targets.
    accepted: HashMap<String, String>,
    /// Targets of refused requests of runs that ended with a kill.
    before_kills: BTreeSet<String>,
}

fn set(receiver: &mut Receiver, state: State) -> Result<()> {
    match state {
        State::Down => receiver.down(),
        State::Busy | State::Well => receiver.up()?,
    }
    receiver.busy(matches!(state, State::Busy));
    Ok(())
}

fn until_killed(case: &Case, kill: u32, random: &mut fastrand::Rng, seen: &mut Seen) -> Result<()> {
    let clew = case.start()?;
    let watch = Watch::start(case.state.join("log-spool"));
    let load = load(case, format!("kill-{kill}"));
    load.wait(BEFORE, PATIENCE)?;
    std::thread::sleep(SPREAD.mul_f64(random.f64()));
    clew.kill()?;
    let tally = load.stop()?;
    seen.accepted.extend(watch.stop()?);
    ensure!(!tally.noted.is_empty(), "nothing was refused");
    seen.before_kills.extend(tally.noted);
    Ok(())
}

/// The receiver is in one state after the other, and back; nothing at all may be missing of what clients were
/// answered meanwhile. Their targets.
fn while_it_lives(
    case: &Case,
    receiver: &mut Receiver,
    seen: &mut Seen,
) -> Result<BTreeSet<String>> {
    set(receiver, State::Down)?;
    let clew = case.start()?;
    let watch = Watch::start(case.state.join("log-spool"));
    let load = load(case, "calm".to_owned());
    for state in [State::Down, State::Busy, State::Well, State::Down] {
        set(receiver, state)?;
        load.wait(CALM, PATIENCE)?;
    }
    let tally = load.stop()?;
    ensure!(tally.failed == 0, "{:?}", tally.failures);
    set(receiver, State::Well)?;
    let before = watch.stop()?;
    let all = || before.keys().chain(seen.accepted.keys());
    // What is lost does not come; then the figures say so.
    let _ = wait_until("all have arrived", || Ok(all().all(|id| receiver.has(id))));
    clew.stop()?;
    seen.accepted.extend(before);
    Ok(tally.noted)
}

fn load(case: &Case, name: String) -> Load {
    Load::start(case.to, 11, PACE, move |client, nth| Turn {
        host: SHOP,
        target: format!("/deny/{name}/{client}-{nth}"),
        right: &[418],
    })
}
