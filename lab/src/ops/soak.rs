//! Everything at once, for long: visitors, what rules refuse, what the kernel stops, and rules that change.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::admin;
use super::author::{Author, Draft, rule, tests};
use super::bans::attack;
use super::load::{Load, Pace, Turn};
use super::receiver::Receiver;
use super::site::{SHOP, Site, WEAK, wait_until};
use super::vitals::{Vitals, growth_mib};
use crate::figures::rounded;

const PACE: Pace = Pace {
    clients: 6,
    period: Duration::from_millis(20),
    per_connection: 100,
    noted: &[418, 419],
};
/// Between two looks at the process.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two attacks, and between two reloads.
const ATTACK: u32 = 2;
const RELOAD: u32 = 5;
/// What comes before memory is looked at: the correlator remembers requests for a minute (`correlator/src/requests.rs`),
/// so that after it no more of them are kept than before, at this pace; and the last 256 incidents (`cli/src/store.rs`),
/// of which there are more in it: so many attacks at once.
const WARM_UP: Duration = Duration::from_secs(65);
const AT_ONCE: u32 = 12;

pub(super) fn run(site: &Site, span: Duration) -> Result<Value> {
    let receiver = Receiver::start()?;
    let author = Author::new(site, "soak")?;
    let more = author.trusted() + &receiver.sink();
    let case = site.case("soak", site.is_root, &more)?;
    for (version, status) in [("1.0.0", 418), ("2.0.0", 419)] {
        let (rules, tests) = (rule(status), tests("/a/1"));
        let draft = Draft {
            version,
            rules: &rules,
            tests: &tests,
            more: "",
        };
        author.install(&case, &draft)?;
    }
    author.activate(&case, "1.0.0")?;
    let clew = case.start()?;
    let load = Load::start(case.to, 15, PACE, turn);
    let begun = Instant::now();
    let (mut looks, mut attacks, mut reloads) = (Vec::new(), 0, 0);
    for nth in 1.. {
        if begun.elapsed() >= span {
            break;
        }
        std::thread::sleep(LOOK);
        if nth % RELOAD == 0 {
            let version = ["1.0.0", "2.0.0"][reloads % 2];
            author.activate(&case, version)?;
            admin::reload(&case.state)?;
            reloads += 1;
        }
        let is_warm = begun.elapsed() >= WARM_UP;
        if site.is_root && nth % ATTACK == 0 {
            for _ in 0..if is_warm { 1 } else { AT_ONCE } {
                attacks += 1;
                let [.., high, low] = u32::to_be_bytes(attacks);
                let source = Ipv4Addr::new(127, 30, high, low);
                attack(site, &case, source, &format!("soak-{attacks}"))?;
            }
        }
        if is_warm {
            looks.push(Vitals::of(clew.pid())?);
        }
    }
    let tally = load.stop()?;
    let missing = || {
        let (events, _) = receiver.taken();
        let incidents = events.iter().filter(|it| it.is_incident).count();
        let paths: BTreeSet<&str> = events.iter().map(|it| it.path.as_str()).collect();
        let refused = tally.noted.iter();
        let missing = refused.filter(|it| !paths.contains(it.as_str())).count();
        missing + (attacks as usize).saturating_sub(incidents)
    };
    // What is lost does not come; then the figures say so.
    let _ = wait_until("all events have arrived", || Ok(missing() == 0));
    clew.stop()?;
    ensure!(
        !looks.is_empty(),
        "a soak takes longer than {WARM_UP:?}, which are its warm-up"
    );
    let (first, last) = looks.split_at(looks.len() / 2);
    let most = |looks: &[Vitals], of: fn(&Vitals) -> u64| looks.iter().map(of).max();
    Ok(json!({
        "soak_minutes": rounded(span.as_secs_f64() / 60.0),
        "soak_requests": tally.sent,
        "soak_failed_requests": tally.failed,
        "soak_failures": tally.failures,
        "soak_attacks": attacks,
        "soak_reloads": reloads,
        "soak_events": receiver.count(),
        "soak_events_lost": missing(),
        "soak_rss_mib": looks.last().map(|it| it.rss_mib.round()),
        "soak_rss_growth_mib": rounded(growth_mib(&looks)),
        "soak_files": { "first_half": most(first, |it| it.files), "last_half": most(last, |it| it.files) },
        "soak_threads": { "first_half": most(first, |it| it.threads), "last_half": most(last, |it| it.threads) },
    }))
}

fn turn(client: u8, nth: u32) -> Turn {
    let (host, target, right): (_, _, &[u16]) = match nth % 16 {
        0 | 8 => (SHOP, format!("/a/{client}-{nth}"), &[418, 419]),
        4 => (WEAK, format!("/echo?nth={nth}"), &[200]),
        _ => (SHOP, format!("/item/{nth}"), &[200]),
    };
    Turn {
        host,
        target,
        right,
    }
}
