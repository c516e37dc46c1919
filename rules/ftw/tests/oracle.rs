//! The filtered evaluation against the plain one: the same rules match, in the same order, with the
//! same log and the same `TX`, over every request of the suite of CRS, whole and damaged.
//!
//! Needs Debian's `modsecurity-crs` and the suite in `../shared/corpora`; without them it is skipped, and says so.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clew_ftw::{AFTER, BEFORE, Run, bytes, load};
use clew_rules::engine::{Connection, Now, Options, RuleSet, Transaction, compile};

const RULES: &str = "/usr/share/modsecurity-crs/owasp-crs.load";

fn suites() -> Option<PathBuf> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora/crs-3.3.4-regression");
    let there = folder.is_dir() && Path::new(RULES).is_file();
    if !there {
        eprintln!("skipped: needs {RULES} and {}", folder.display());
    }
    there.then_some(folder)
}

fn rules(before: &str, prefilter: bool) -> Arc<RuleSet> {
    let folder = std::env::temp_dir().join(format!(
        "clew-oracle-{}-{prefilter}-{}",
        std::process::id(),
        before.len()
    ));
    std::fs::create_dir_all(&folder).unwrap();
    let files = [
        folder.join("before.conf"),
        PathBuf::from(RULES),
        folder.join("after.conf"),
    ];
    std::fs::write(&files[0], before).unwrap();
    std::fs::write(&files[2], AFTER).unwrap();
    let ast = clew_rules::seclang::load(&files).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    Arc::new(
        compile(
            &ast,
            Options {
                prefilter,
                ..Options::default()
            },
        )
        .unwrap(),
    )
}

/// A request with some bytes changed, doubled or left out; always the same for the same seed.
fn damaged(request: &[u8], seed: &mut u64) -> Vec<u8> {
    let mut next = |below: usize| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed % below.max(1) as u64) as usize
    };
    // The head's first line stays, so that most are still requests.
    let first = request.iter().position(|b| *b == b'\n').unwrap_or(0) + 1;
    let mut out = request.to_vec();
    for _ in 0..1 + next(6) {
        let at = first + next(out.len().saturating_sub(first));
        let pool = b"'\"<>()%+;=&/\\. \tAa0-#*`$|{}\0\x80\xc3\xa9";
        match next(4) {
            0 if at < out.len() && out[at] != b'\n' && out[at] != b'\r' => {
                out[at] = pool[next(pool.len())]
            }
            1 if at < out.len() && out[at] != b'\n' && out[at] != b'\r' => drop(out.remove(at)),
            _ => out.insert(at.min(out.len()), pool[next(pool.len())]),
        }
    }
    out
}

fn compare(plain: &Arc<RuleSet>, filtered: &mut Transaction, request: &[u8], title: &str) {
    let want = Run::of_bytes(plain, request);
    let name = |run: &Run| {
        run.matched
            .iter()
            .map(|n| plain.rules()[*n as usize].id)
            .collect::<Vec<_>>()
    };
    // What is remembered of the first time, and of all requests before, must change nothing either.
    for _ in 0..2 {
        let have = Run::again(filtered, request);
        assert_eq!(
            name(&want),
            name(&have),
            "{title}: {}",
            String::from_utf8_lossy(request)
        );
        assert_eq!(want.log, have.log, "{title}");
        assert_eq!(want.status, have.status, "{title}");
        assert_eq!(want.tx, have.tx, "{title}");
    }
}

fn all(before: &str, damages: usize) {
    let Some(folder) = suites() else { return };
    let plain = rules(before, false);
    let connection = Connection {
        client: (Ipv4Addr::LOCALHOST.into(), 1),
        server: (Ipv4Addr::LOCALHOST.into(), 80),
    };
    let mut filtered = rules(before, true).transaction(connection, Now::default(), b"");
    let mut seed = 0x2545_f491_4f6c_dd1d;
    let mut requests = 0;
    for suite in load(&folder).unwrap() {
        for test in &suite.tests {
            for stage in &test.stages {
                let request = bytes(stage);
                compare(&plain, &mut filtered, &request, &test.title);
                for _ in 0..damages {
                    compare(
                        &plain,
                        &mut filtered,
                        &damaged(&request, &mut seed),
                        &test.title,
                    );
                }
                requests += 1 + damages;
            }
        }
    }
    assert!(requests > 2000);
}

#[test]
fn the_filter_changes_nothing_at_level_4() {
    all(BEFORE, 2);
}

#[test]
fn the_filter_changes_nothing_at_level_1() {
    all(
        &BEFORE
            .replace("paranoia_level=4", "paranoia_level=1")
            .replace("DetectionOnly", "On"),
        1,
    );
}

/// What fuzzing has found.
#[test]
fn the_filter_misses_nothing_again() {
    if suites().is_none() {
        return;
    }
    let plain = rules(BEFORE, false);
    let connection = Connection {
        client: (Ipv4Addr::LOCALHOST.into(), 1),
        server: (Ipv4Addr::LOCALHOST.into(), 80),
    };
    let mut filtered = rules(BEFORE, true).transaction(connection, Now::default(), b"");
    for body in [&b"\x0099\n\r;IF;"[..], b"1 ; int ;"] {
        let mut request = format!(
            "POST /? HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        compare(&plain, &mut filtered, &request, "found by fuzzing");
    }
}
