//! Requests, connections, bans.

use clew_proxy::BUCKETS_SECONDS;
use prometheus_client::registry::Unit;

use super::{Family, Sample, Snapshot, Values};

pub(super) fn families(snapshot: &Snapshot) -> Vec<Family> {
    let mut families = vec![
        requests(snapshot),
        durations(snapshot),
        Family::gauge(
            "clew_edge_attempts_in_flight",
            "Upstream attempts in flight; zero without a sensor",
            snapshot.in_flight as f64,
        ),
        Family::gauge(
            "clew_edge_accepting",
            "1 while all listeners take connections",
            f64::from(snapshot.accepting),
        ),
    ];
    let counters = snapshot.counters.each();
    // Requests have a family of their own, by outcome; these are counted at other times.
    families.extend(counters.map(|(name, help, sum)| {
        let name = match name {
            "requests" => "clew_edge_request_heads".to_owned(),
            name => format!("clew_edge_{name}"),
        };
        Family::counter(name, help, sum)
    }));
    families.extend(bans(snapshot));
    families
}

fn requests(snapshot: &Snapshot) -> Family {
    let requests = snapshot.endings.requests();
    let samples =
        requests.map(|(outcome, status, count)| Sample::with(&[outcome, status], count as f64));
    Family::plain(
        "clew_edge_requests",
        "Requests that are over, by what became of them and the class of the status that the client got",
        Values::Counter(samples.collect()),
    )
    .labelled(&["outcome", "status"])
}

fn durations(snapshot: &Snapshot) -> Family {
    let bounds = BUCKETS_SECONDS.into_iter().chain([f64::INFINITY]);
    Family::plain(
        "clew_edge_request_duration",
        "From the head of a request to when the edge was done with it",
        Values::Histogram {
            buckets: bounds.zip(snapshot.endings.buckets).collect(),
            sum: snapshot.endings.seconds,
        },
    )
    .measured_in(Unit::Seconds)
}

fn bans(snapshot: &Snapshot) -> Vec<Family> {
    let bans = &snapshot.bans;
    let entered = [("verdict", bans.tally.verdicts), ("hand", bans.tally.hands)];
    let entered = entered.map(|(cause, count)| Sample::with(&[cause], count as f64));
    vec![
        Family::gauge(
            "clew_bans",
            "Bans in force, those of a dry run included",
            bans.in_force as f64,
        ),
        Family::plain(
            "clew_bans_entered",
            "Bans entered or prolonged since start, by their cause",
            Values::Counter(entered.to_vec()),
        )
        .labelled(&["cause"]),
        Family::counter(
            "clew_bans_spared",
            "Bans not entered, because the source is never banned",
            bans.tally.spared,
        ),
        Family::gauge(
            "clew_bans_pending",
            "Sources whose bans are not on disk as they are",
            bans.pending as f64,
        ),
        Family::gauge(
            "clew_bans_stuck",
            "1 while bans cannot be written to disk",
            f64::from(bans.stuck),
        ),
    ]
}
