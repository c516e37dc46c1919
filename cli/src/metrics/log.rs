//! The block log, spans, and what requests are judged by.

use clew_blocklog::{Counters, SinkCounters};
use prometheus_client::registry::Unit;

use crate::spans::SpanCounters;

use super::{Family, Sample, Snapshot, Values};

/// What is counted of a sink.
type OfSink = fn(&SinkCounters) -> u64;

const SINK: &[(&str, &str, OfSink)] = &[
    ("sent", "Events that a sink of the block log has", |it| {
        it.sent
    }),
    (
        "refused",
        "Events that the receiver of a sink will never take",
        |it| it.refused,
    ),
    ("retried", "Attempts of a sink that were made again", |it| {
        it.retried
    }),
    ("dropped", "Events that a sink has given up", |it| {
        it.dropped
    }),
];

pub(super) fn families(snapshot: &Snapshot) -> Vec<Family> {
    let empty = Counters {
        refused: 0,
        queue_bytes: 0,
        events: 0,
        spool: None,
        sinks: Vec::new(),
    };
    let log = snapshot.block_log.as_ref().unwrap_or(&empty);
    let mut families = vec![
        Family::counter(
            "clew_block_log_events",
            "Events made for the block log",
            log.events,
        ),
        Family::counter(
            "clew_block_log_refused",
            "Reports and incidents that the block log had no room for",
            log.refused,
        ),
        Family::gauge(
            "clew_block_log_queue",
            "What waits to be made an event, about",
            log.queue_bytes as f64,
        )
        .measured_in(Unit::Bytes),
        Family::optional_gauge(
            "clew_block_log_spool",
            "The spool on disk; none without network sinks",
            log.spool.map(|it| it.bytes as f64),
        )
        .measured_in(Unit::Bytes),
        Family::optional_gauge(
            "clew_block_log_spool_dropped_events",
            "Events that the spool could not take, since start; none without network sinks",
            log.spool.map(|it| it.dropped as f64),
        ),
    ];
    families.extend(SINK.iter().map(|(name, help, of)| {
        let samples = log.sinks.iter();
        let samples = samples.map(|it| Sample::with(&[&it.name], of(it) as f64));
        let name = format!("clew_block_log_sink_{name}_events");
        Family::plain(name, *help, Values::Counter(samples.collect())).labelled(&["sink"])
    }));
    families.push(waiting(log));
    families.push(spans(snapshot.spans));
    families.extend(rules(snapshot));
    families
}

fn waiting(log: &Counters) -> Family {
    let samples = log.sinks.iter();
    let samples = samples.map(|it| Sample::with(&[&it.name], it.waiting_events as f64));
    Family::plain(
        "clew_block_log_sink_waiting_events",
        "Events that wait for a sink",
        Values::Gauge(samples.collect()),
    )
    .labelled(&["sink"])
}

fn spans(spans: SpanCounters) -> Family {
    let samples = [
        ("exported", spans.exported),
        ("failed", spans.failed),
        ("dropped", spans.dropped),
    ];
    let samples = samples.map(|(result, sum)| Sample::with(&[result], sum as f64));
    Family::plain(
        "clew_spans",
        "Spans by what became of them: `exported` the collector has, `failed` it did not take, `dropped` found too \
         many waiting",
        Values::Counter(samples.to_vec()),
    )
    .labelled(&["result"])
}

fn rules(snapshot: &Snapshot) -> [Family; 3] {
    let packs = snapshot.packs.iter();
    let packs = packs.map(|it| Sample::with(&[&it.name, &it.version], 1.0));
    [
        Family::gauge(
            "clew_rules",
            "Rules that requests are judged by",
            snapshot.rules as f64,
        ),
        Family::plain(
            "clew_rules_time",
            "Processor time that rules have taken",
            Values::Counter(vec![Sample::of(snapshot.endings.rules_seconds)]),
        )
        .measured_in(Unit::Seconds),
        Family::plain(
            "clew_pack_info",
            "The packs in force",
            Values::Gauge(packs.collect()),
        )
        .labelled(&["name", "version"]),
    ]
}
