//! Two versions of a pack take turns while clients ask, and those that cannot be in force never are.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::admin;
use super::author::{Author, Draft, rule, tests};
use super::load::{Load, Pace, Turn, get};
use super::site::{Case, SHOP, Site, events};
use super::vitals::{Vitals, growth_mib};

/// Statuses by which the versions 1.0.0 and 2.0.0 are told apart.
const STATUSES: [u16; 2] = [418, 419];
/// One request in so many is for what they refuse.
const REFUSED: u32 = 32;
/// Share of the swaps that come before memory is looked at: caches fill, and the allocator takes what it will keep.
const WARM_UP: u32 = 5;
/// Who asks after each swap.
const PROBE: Ipv4Addr = Ipv4Addr::new(127, 0, 10, 200);

const PACE: Pace = Pace {
    clients: 8,
    period: Duration::ZERO,
    per_connection: 200,
    noted: &[],
};

/// Without a sensor: what the correlator keeps of a minute's requests grows with their rate, which is not the same all
/// the time as this load asks as fast as it is answered. The soak swaps with a sensor.
pub(super) fn run(site: &Site, swaps: u32) -> Result<Value> {
    let author = Author::new(site, "swaps")?;
    let log = site.work.join("swaps.events");
    let sink = format!(
        "[[log]]\nsink = \"file\"\nrotate_bytes = 0\npath = \"{}\"\n",
        log.display()
    );
    let case = site.case("swaps", false, &(author.trusted() + &sink))?;
    for (version, status) in ["1.0.0", "2.0.0"].into_iter().zip(STATUSES) {
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
    let load = Load::start(case.to, 10, PACE, |_, nth| match nth % REFUSED {
        0 => turn(format!("/a/{nth}"), &STATUSES),
        _ => turn(format!("/item/{nth}"), &[200]),
    });
    let begun = Instant::now();
    let mut looks = Vec::new();
    for nth in 0..swaps {
        let at = 1 - (nth % 2) as usize;
        author.activate(&case, ["1.0.0", "2.0.0"][at])?;
        admin::reload(&case.state)?;
        let status = get(PROBE, case.to, SHOP, "/a/probe")?;
        ensure!(
            status == STATUSES[at],
            "after swap {nth} a request got {status}: the other version judged it"
        );
        if nth >= swaps / WARM_UP {
            looks.push(Vitals::of(clew.pid())?);
        }
    }
    let took = begun.elapsed();
    let refused = refused(&author, &case)?;
    let tally = load.stop()?;
    clew.stop()?;
    let (told, mixed) = told(&log)?;
    let expected = tally.of(418) + tally.of(419) + u64::from(swaps) + refused.probes;
    Ok(json!({
        "swaps": swaps,
        "swap_requests": tally.sent,
        "swap_failed_requests": tally.failed,
        "swap_failures": tally.failures,
        "swap_refused_requests": expected,
        "swap_events": told,
        "swap_events_of_another_version": mixed,
        "swap_seconds": took.as_secs(),
        "swap_rss_mib": looks.last().map(|it| it.rss_mib.round()),
        "swap_rss_growth_mib": crate::figures::rounded(growth_mib(&looks)),
        "swap_longest_ms": tally.longest.as_millis() as u64,
        "swap_packs_refused": refused.packs,
    }))
}

fn turn(target: String, right: &'static [u16]) -> Turn {
    Turn {
        host: SHOP,
        target,
        right,
    }
}

/// How many events there are, and how many name another version than their status is of.
fn told(log: &Path) -> Result<(u64, u64)> {
    let (mut told, mut mixed) = (0, 0);
    for event in events(log)? {
        told += 1;
        let expected = match event.status {
            Some(418) => "1.0.0",
            Some(419) => "2.0.0",
            _ => "",
        };
        mixed += u64::from(event.pack != expected);
    }
    Ok((told, mixed))
}

struct Refused {
    packs: u32,
    probes: u64,
}

/// Packs that do not load, or whose tests fail: refused when they are installed, and by the reload when they got in
/// past that.
fn refused(author: &Author, case: &Case) -> Result<Refused> {
    let before = get(PROBE, case.to, SHOP, "/a/probe")?;
    let mut refused = Refused {
        packs: 0,
        probes: 1,
    };
    let broken = "SecRule REQUEST_FILENAME \"@rx (\" \"id:9100001,phase:1,deny\"\n";
    let (sound, passing, failing) = (rule(420), tests("/a/1"), tests("/c/1"));
    let packs = [
        ("3.0.0", broken, &passing, "first.conf:1"),
        ("3.1.0", &sound, &failing, "fail"),
    ];
    for (version, rules, tests, why) in packs {
        let draft = Draft {
            version,
            rules,
            tests,
            more: "",
        };
        let said = author.refused(case, &draft)?;
        ensure!(said.contains(why), "{version}: {said}");
        let (active, kept) = author.smuggle(case, &draft)?;
        let (status, said) = admin::ask(&case.state, "POST", "/v1/reload", "")?;
        let is_told = said.to_string().contains(why);
        ensure!(status == 409 && is_told, "{version}: {status} {said}");
        let after = get(PROBE, case.to, SHOP, "/a/probe")?;
        ensure!(
            after == before,
            "after {version} was refused: {after}, not {before}"
        );
        std::fs::write(active, kept)?;
        admin::reload(&case.state)?;
        refused.packs += 1;
        refused.probes += 1;
    }
    Ok(refused)
}

/// A pack whose tests take longer than a reload may: the one before stays in force, and requests go on.
/// How long it took until it was given up.
pub(super) fn too_long(site: &Site) -> Result<Duration> {
    let author = Author::new(site, "late")?;
    let case = site.case("late", false, &author.trusted())?;
    let (rules, tests) = (rule(418), tests("/a/1"));
    let draft = Draft {
        version: "1.0.0",
        rules: &rules,
        tests: &tests,
        more: "",
    };
    author.install(&case, &draft)?;
    author.activate(&case, "1.0.0")?;
    let clew = case.start()?;
    let (rules, tests) = slow();
    let draft = Draft {
        version: "2.0.0",
        rules: &rules,
        tests: &tests,
        more: "",
    };
    author.smuggle(&case, &draft)?;
    let begun = Instant::now();
    let (status, said) = admin::ask(&case.state, "POST", "/v1/reload", "")?;
    let took = begun.elapsed();
    let said = said.to_string();
    ensure!(
        status == 409 && said.contains("not ready after"),
        "{status} {said}"
    );
    let status = get(PROBE, case.to, SHOP, "/a/probe")?;
    ensure!(
        status == 418,
        "after a pack that took too long: {status}, not 418"
    );
    clew.stop()?;
    Ok(took)
}

/// Rules whose tests take minutes, also where the code is optimised and nothing else runs: each has its own way of
/// going over all that it is given, again and again, so that none finds what another has made of it.
fn slow() -> (String, String) {
    const RULES: usize = 200;
    const TESTS: usize = 40_000;
    const BYTES: usize = 16_000;
    let rules = (0..RULES).map(|nth| {
        let chain = "t:lowercase,".repeat(nth) + &"t:hexEncode,t:hexDecode,".repeat(10);
        let id = 9_100_001 + nth;
        format!("SecRule ARGS \"@streq x\" \"id:{id},phase:1,t:none,{chain}pass,nolog\"\n")
    });
    let test = |nth: usize| {
        let target = match nth {
            0 => format!("&long /?a={}", "a".repeat(BYTES)),
            _ => "*long".to_owned(),
        };
        format!(
            "  - test_id: {nth}\n    stages:\n      - input:\n          uri: {target}\n          \
             headers:\n            Host: localhost\n"
        )
    };
    let tests: String = (0..TESTS).map(test).collect();
    (
        rules.collect(),
        format!("---\nrule_id: 9100001\ntests:\n{tests}"),
    )
}
