//! The sensor and the correlator. Without a sensor its families have no samples.

use prometheus_client::registry::Unit;
use serde::Serialize;

use super::{Family, Sample, Snapshot, Values};

/// Sums of the sensor, and what they count.
const SENSOR: &[(&str, &str)] = &[
    ("accepted", "Requests whose token the kernel has accepted"),
    (
        "hops",
        "Requests found again where they went on to another process",
    ),
    ("forged", "Token lines of this proxy whose MAC is wrong"),
    ("replayed", "Tokens seen before, or too old to tell"),
    (
        "queue_full",
        "Requests not followed: too many unread on one connection",
    ),
    (
        "out_of_order",
        "Segments with a gap before them, dropped to be sent again",
    ),
    (
        "lost_reads",
        "Requests of which nobody can tell who read them",
    ),
    (
        "lost_exec",
        "Program starts not reported: the ring buffer was full",
    ),
    (
        "lost_connect",
        "Connections not reported: the ring buffer was full",
    ),
    ("lost_file", "Files not reported: the ring buffer was full"),
    ("killed", "Programs killed at their start"),
    ("denied", "Connections and files denied"),
    ("refused", "Programs whose start was refused"),
    (
        "no_storage",
        "Contexts that could not be stored: no memory in the kernel",
    ),
];

/// Sums of the correlator.
const CORRELATOR: &[(&str, &str)] = &[
    ("events", "Events of the kernel"),
    ("execs", "Program starts among the events"),
    ("connects", "Outbound flows among the events"),
    ("files", "Files opened among the events"),
    ("requests", "Upstream attempts started"),
    (
        "evicted",
        "Attempts, or their inputs, forgotten before their time",
    ),
    ("lost", "Kernel records lost, of all classes"),
    ("incidents", "Incidents opened"),
];

pub(super) fn families(snapshot: &Snapshot) -> Vec<Family> {
    let sums = snapshot.pulse.map(|it| it.sums);
    let mut families = vec![
        Family::optional_gauge(
            "clew_sensor_healthy",
            "1 while the sensor is tended, 0 when it is not",
            snapshot.sensor_healthy.map(f64::from),
        ),
        Family::optional_gauge(
            "clew_sensor_beat_age",
            "Since the sensor was last tended",
            snapshot.beat_age.map(|it| it.as_secs_f64()),
        )
        .measured_in(Unit::Seconds),
        Family::optional_gauge(
            "clew_correlator_queued_records",
            "Most records of the edge that were found waiting at one look, in the last second; there is room for 65,536",
            snapshot.pulse.map(|it| it.queued_records as f64),
        ),
    ];
    let proofs = snapshot.incidents.iter();
    let proofs = proofs.map(|(proof, count)| Sample::with(&[proof], *count as f64));
    families.push(
        Family::plain(
            "clew_incidents",
            "Incidents by what their attribution rests on at first",
            Values::Counter(proofs.collect()),
        )
        .labelled(&["proof"]),
    );
    families.extend(of("sensor", SENSOR, sums.map(|it| it.sensor)));
    families.extend(of("correlator", CORRELATOR, sums.map(|it| it.correlator)));
    families
}

fn of(
    part: &'static str,
    table: &'static [(&'static str, &'static str)],
    sums: Option<impl Serialize>,
) -> impl Iterator<Item = Family> {
    let sums = sums.and_then(|it| serde_json::to_value(it).ok());
    table.iter().map(move |(name, help)| {
        let sum = sums.as_ref().and_then(|it| it[*name].as_f64());
        let samples = sum.map(Sample::of).into_iter().collect();
        Family::plain(
            format!("clew_{part}_{name}"),
            *help,
            Values::Counter(samples),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sum_has_a_family() {
        let names = |sums: serde_json::Value| -> Vec<String> {
            let sums = sums.as_object().expect("sums");
            let mut names: Vec<_> = sums.keys().cloned().collect();
            names.sort();
            names
        };
        let table = |table: &[(&str, &str)]| {
            let mut names: Vec<_> = table.iter().map(|it| it.0.to_owned()).collect();
            names.sort();
            names
        };
        let sensor = serde_json::to_value(clew_sensor::Counters::default());
        assert_eq!(names(sensor.expect("sums")), table(SENSOR));
        let correlator = serde_json::to_value(clew_correlator::Counters::default());
        assert_eq!(names(correlator.expect("sums")), table(CORRELATOR));
    }
}
