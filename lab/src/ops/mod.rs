//! The hard cases of operation: rules swapped under load, a log whose receivers fail, clew killed, replaced, and left
//! alone for long.

mod admin;
mod author;
mod bans;
mod events;
mod h2;
mod load;
mod outage;
mod receiver;
mod rsyslog;
mod site;
mod soak;
mod spool;
mod swaps;
mod upgrade;
mod vitals;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value};

use self::site::Site;
use crate::demo::open_to_all;
use crate::figures;

/// What to run, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Length of the soak
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Reloads under load
    #[arg(long, default_value_t = 1000)]
    swaps: u32,
    /// Kills while receivers of the log fail
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// A soak of two minutes, 200 swaps and 6 kills: what `make test` runs
    #[arg(long, conflicts_with_all = ["minutes", "swaps", "kills"])]
    short: bool,
    /// Cases by name; all if none is given
    only: Vec<String>,
}

/// Most that memory may grow, MiB.
const GROWTH_MIB: f64 = 5.0;
/// Files more than before that are open because connections come and go.
const FILES: f64 = 4.0;
/// Threads that wait for work of the admin API come and go.
const THREADS: f64 = 2.0;

/// # Errors
///
/// A case could not be played, or a goal was missed; what was measured is written anyway.
pub(crate) fn run(clew: &Path, options: &Options) -> Result<()> {
    let (minutes, swaps, kills) = match options.short {
        true => (2.0, 200, 6),
        false => (options.minutes, options.swaps, options.kills),
    };
    let work = tempfile::Builder::new().prefix("clew-ops-").tempdir()?;
    open_to_all(work.path())?;
    let site = Site::start(clew, work.path())?;
    let span = Duration::from_secs_f64(minutes * 60.0);
    let cases: [(&str, &dyn Fn() -> Result<Value>); 6] = [
        ("swaps", &|| swaps::run(&site, swaps)),
        ("log", &|| outage::run(&site, kills)),
        ("rsyslog", &|| rsyslog::run(&site)),
        ("upgrade", &|| upgrade::run(&site)),
        ("bans", &|| bans::run(&site)),
        ("soak", &|| beside(&site, span)),
    ];
    let (mut measured, mut missed) = (Map::new(), Vec::new());
    for (name, case) in cases {
        if !options.only.is_empty() && !options.only.iter().any(|it| it == name) {
            continue;
        }
        println!("{name}");
        let begun = Instant::now();
        match case() {
            Ok(Value::Object(figures)) => {
                figures::print(&Value::Object(figures.clone()));
                measured.extend(figures);
            }
            Ok(other) => bail!("{name}: {other}"),
            Err(error) => missed.push(format!("{name}: {error:#}")),
        }
        println!("  in {:.0} s", begun.elapsed().as_secs_f64());
    }
    missed.extend(goals(&measured));
    figures::save("ops", &Value::Object(measured))?;
    match missed.is_empty() {
        true => Ok(()),
        false => bail!("{}", missed.join("\n     ")),
    }
}

/// The soak, and beside it a reload that has to be given up, which takes a minute of waiting.
fn beside(site: &Site, span: Duration) -> Result<Value> {
    std::thread::scope(|scope| {
        let late = scope.spawn(|| swaps::too_long(site));
        let soaked = soak::run(site, span);
        let late = late.join().map_err(|_| anyhow!("the reload panicked"))?;
        let mut all = soaked?;
        all["swap_given_up_after_seconds"] = match late {
            Ok(took) => took.as_secs().into(),
            Err(error) => format!("{error:#}").into(),
        };
        Ok(all)
    })
}

/// What was missed of what has to hold of these figures; of cases that were left out, nothing.
fn goals(figures: &Map<String, Value>) -> Vec<String> {
    let mut missed = Vec::new();
    let mut hold = |name: &str, is_so: bool| {
        if !is_so {
            missed.push(format!("{name} is {}", figures[name]));
        }
    };
    for (name, value) in figures {
        let is_loss = ["_failed_requests", "_lost", "_of_another_version"];
        if is_loss.iter().any(|end| name.ends_with(end)) {
            hold(name, *value == 0);
        }
        if name.ends_with("_growth_mib") {
            hold(name, value.as_f64().is_some_and(|it| it < GROWTH_MIB));
        }
        let number = |part: &str| value[part].as_f64().unwrap_or(f64::NAN);
        let grown = || number("last_half") - number("first_half");
        match name.as_str() {
            "bans_after_kill" => hold(name, number("made") == number("after")),
            "bans_refused_after_kill" => hold(name, *value == figures["bans_after_kill"]["made"]),
            "swap_given_up_after_seconds" => hold(name, value.is_u64()),
            "swap_events" => hold(name, *value == figures["swap_refused_requests"]),
            "soak_files" => hold(name, grown() <= FILES),
            "soak_threads" => hold(name, grown() <= THREADS),
            _ => {}
        }
    }
    missed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn missed(figures: Value) -> usize {
        goals(figures.as_object().expect("an object")).len()
    }

    #[test]
    fn goals_are_missed_by_what_is_lost_or_grows() {
        assert_eq!(
            missed(json!({ "log_events_lost": 0, "swap_failed_requests": 0 })),
            0
        );
        assert_eq!(
            missed(json!({ "log_events_lost": 1, "swap_failed_requests": 2 })),
            2
        );
        assert_eq!(missed(json!({ "soak_rss_growth_mib": 4.9 })), 0);
        assert_eq!(missed(json!({ "soak_rss_growth_mib": 5.0 })), 1);
        assert_eq!(missed(json!({ "swap_rss_growth_mib": null })), 1);
    }

    #[test]
    fn goals_are_missed_by_bans_and_events_that_are_not_there() {
        let bans = |after: u32| json!({ "bans_after_kill": { "made": 5, "after": after } });
        assert_eq!((missed(bans(5)), missed(bans(4))), (0, 1));
        let events = |told: u32| json!({ "swap_events": told, "swap_refused_requests": 5 });
        assert_eq!((missed(events(5)), missed(events(6))), (0, 1));
        let threads = |last: u32| json!({ "soak_threads": { "first_half": 9, "last_half": last } });
        assert_eq!((missed(threads(11)), missed(threads(12))), (0, 1));
    }
}
