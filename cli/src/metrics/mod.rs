//! What is measured, as Prometheus reads it: families made anew of a [`Snapshot`] for each that asks.
//!
//! Names follow its conventions: `clew_`, base units, `_total` for what only grows. A part has a file; to add
//! a family, say it there, and have `docs/metrics.md` written anew (its test says how).

#[cfg(test)]
mod document;
mod edge;
mod kernel;
mod log;
mod process;

use std::fmt::{self, Error};
use std::time::Duration;

use clew_protocol::Moment;
use clew_protocol::report::PackVersion;
use clew_proxy::{Counters, Endings};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::api::Desk;
use crate::beat::Pulse;
use crate::spans::{SpanCounters, Spans};
use process::Process;

/// Media type of OpenMetrics 1.0.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Media type of Prometheus' own text format.
pub(crate) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that metrics are made of, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    counters: Counters,
    endings: Endings,
    in_flight: usize,
    accepting: bool,
    pulse: Option<Pulse>,
    sensor_healthy: Option<bool>,
    beat_age: Option<Duration>,
    bans: Bans,
    uptime: Duration,
    lost_log_lines: u64,
    audit_failures: u64,
    unwritten_incidents: u64,
    block_log: Option<clew_blocklog::Counters>,
    spans: SpanCounters,
    rules: usize,
    packs: Vec<PackVersion>,
    /// Incidents by proof.
    incidents: Vec<(&'static str, u64)>,
    process: Process,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bans {
    in_force: usize,
    pending: usize,
    stuck: bool,
    tally: clew_bans::Tally,
}

impl Snapshot {
    pub(crate) fn take(desk: &Desk) -> Self {
        let pulse = desk.pulse();
        let has_sensor = desk.about.mode.is_some();
        Self {
            counters: desk.handle.counters(),
            endings: desk.handle.endings(),
            in_flight: desk.handle.in_flight(),
            accepting: desk.handle.is_accepting(),
            pulse,
            sensor_healthy: has_sensor.then(|| desk.sensor().healthy),
            beat_age: pulse.map(|it| Moment::now().since(it.at)),
            bans: Bans {
                in_force: desk.bans.len(),
                pending: desk.bans.pending(),
                stuck: desk.bans.trouble().is_some(),
                tally: desk.bans.tally(),
            },
            uptime: desk.uptime(),
            lost_log_lines: crate::log::lost(),
            audit_failures: desk.audit.failures(),
            unwritten_incidents: desk.incidents.unwritten(),
            block_log: desk.log.log_counters(),
            spans: desk.spans.as_ref().map(Spans::counters).unwrap_or_default(),
            rules: desk.rules().unwrap_or_default(),
            packs: desk.packs(),
            incidents: desk.incidents.by_proof().collect(),
            process: Process::read(),
        }
    }

    /// In Prometheus' own format, or in OpenMetrics.
    pub(crate) fn text(self, open_metrics: bool) -> Result<String, Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        if open_metrics {
            text::encode(&mut out, &registry)?;
        } else {
            prometheus_text::encode(&mut out, &registry)?;
        }
        Ok(out)
    }

    fn families(&self) -> Vec<Family> {
        [
            edge::families(self),
            kernel::families(self),
            log::families(self),
            process::families(self),
        ]
        .concat()
    }
}

/// One metric with all of its labels. `name` is without unit and `_total`.
#[derive(Debug, Clone)]
struct Family {
    name: String,
    unit: Option<Unit>,
    help: String,
    labels: &'static [&'static str],
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    /// What only grows.
    Counter(Vec<Sample>),
    /// What goes up and down.
    Gauge(Vec<Sample>),
    Histogram {
        /// Upper bound of each bucket, and how many are in it alone.
        buckets: Vec<(f64, u64)>,
        sum: f64,
    },
}

#[derive(Debug, Clone)]
struct Sample {
    /// Values of the family's labels, in their order.
    labels: Vec<String>,
    value: f64,
}

impl Family {
    fn counter(name: impl Into<String>, help: impl Into<String>, sum: u64) -> Self {
        Self::plain(name, help, Values::Counter(vec![Sample::of(sum as f64)]))
    }

    fn gauge(name: impl Into<String>, help: impl Into<String>, value: f64) -> Self {
        Self::plain(name, help, Values::Gauge(vec![Sample::of(value)]))
    }

    /// A gauge that there is not always.
    fn optional_gauge(name: &str, help: &str, value: Option<f64>) -> Self {
        let samples = value.map(Sample::of).into_iter().collect();
        Self::plain(name, help, Values::Gauge(samples))
    }

    fn plain(name: impl Into<String>, help: impl Into<String>, values: Values) -> Self {
        Self {
            name: name.into(),
            unit: None,
            help: help.into(),
            labels: &[],
            values,
        }
    }

    fn measured_in(mut self, unit: Unit) -> Self {
        self.unit = Some(unit);
        self
    }

    fn labelled(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    #[cfg(test)]
    /// The name that queries have: of a histogram, without what its parts end in.
    fn full_name(&self) -> String {
        let mut name = self.name.clone();
        if let Some(unit) = &self.unit {
            name = format!("{name}_{}", unit.as_str());
        }
        if let Values::Counter(_) = self.values {
            name.push_str("_total");
        }
        name
    }

    fn kind(&self) -> MetricType {
        match self.values {
            Values::Counter(_) => MetricType::Counter,
            Values::Gauge(_) => MetricType::Gauge,
            Values::Histogram { .. } => MetricType::Histogram,
        }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let unit = self.unit.as_ref();
        let help = format!("{}.", self.help.trim_end_matches('.'));
        let mut metric = encoder.encode_descriptor(&self.name, &help, unit, self.kind())?;
        match &self.values {
            Values::Counter(samples) => samples.iter().try_for_each(|sample| {
                self.each(&mut metric, sample, |it| {
                    it.encode_counter::<NoLabelSet, _, f64>(&sample.value, None)
                })
            }),
            Values::Gauge(samples) => samples.iter().try_for_each(|sample| {
                self.each(&mut metric, sample, |it| it.encode_gauge(&sample.value))
            }),
            Values::Histogram { buckets, sum } => {
                let count = buckets.iter().map(|it| it.1).sum();
                metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
        }
    }

    fn each(
        &self,
        metric: &mut MetricEncoder<'_>,
        sample: &Sample,
        encode: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.labels.is_empty() {
            return encode(metric);
        }
        let values = sample.labels.iter().map(String::as_str);
        let labels: Vec<_> = self.labels.iter().copied().zip(values).collect();
        encode(&mut metric.encode_family(&labels)?)
    }
}

impl Sample {
    fn of(value: f64) -> Self {
        Self::with(&[], value)
    }

    fn with(labels: &[&str], value: f64) -> Self {
        Self {
            labels: labels.iter().map(|it| (*it).to_owned()).collect(),
            value,
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.families()
            .iter()
            .try_for_each(|family| family.encode(&mut encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_log() -> clew_blocklog::Counters {
        clew_blocklog::Counters {
            refused: 0,
            queue_bytes: 0,
            events: 7,
            spool: Some(clew_blocklog::SpoolCounters::default()),
            sinks: vec![clew_blocklog::SinkCounters {
                name: "siem".to_owned(),
                sent: 7,
                refused: 0,
                retried: 0,
                dropped: 0,
                waiting_events: 0,
                waiting_bytes: 0,
                last_error: None,
            }],
        }
    }

    #[test]
    fn both_formats_have_every_family_once() {
        let snapshot = Snapshot {
            pulse: Some(Pulse::default()),
            sensor_healthy: Some(true),
            beat_age: Some(Duration::ZERO),
            incidents: vec![("sole", 1)],
            packs: vec![PackVersion {
                name: "shop".to_owned(),
                version: "1.0.0".to_owned(),
            }],
            block_log: Some(block_log()),
            ..Snapshot::default()
        };
        for open_metrics in [true, false] {
            let text = snapshot.clone().text(open_metrics).expect("text");
            assert_eq!(text.ends_with("# EOF\n"), open_metrics);
            for family in snapshot.families() {
                let name = family.full_name();
                let types = text.lines().filter(|line| {
                    let described = line.strip_prefix("# TYPE ").unwrap_or_default();
                    let described = described.split(' ').next().unwrap_or_default();
                    described == name || format!("{described}_total") == name
                });
                assert_eq!(types.count(), 1, "{name}");
                let is_sample = |line: &str| {
                    let rest = line.strip_prefix(&name).unwrap_or_default();
                    rest.starts_with([' ', '{', '_'])
                };
                assert!(text.lines().any(is_sample), "{name} has no sample: {text}");
            }
        }
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for family in Snapshot::default().families() {
            let name = family.full_name();
            assert!(name.starts_with("clew_"), "{name}");
            let is_sound =
                |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit();
            assert!(name.bytes().all(is_sound), "{name}");
            assert!(family.help.len() > 10, "{name}: {}", family.help);
            assert!(!family.name.ends_with("_total"), "{name}");
        }
    }
}
