//! What became of requests, and how long they took.
//!
//! Each worker counts in a line of memory of its own: two additions and a look at the clock for a request, and
//! nobody waits for anybody.

use std::array::from_fn;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use clew_protocol::report::Outcome;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use crate::exchange::{Exchange, Gateway};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Ending {
    /// A backend's response went to the client as it was.
    Served,
    /// Rules have refused it, or its response.
    Denied,
    /// Its source is banned.
    Banned,
    /// Its source asks too often.
    Limited,
    /// Its form, size or pace is not acceptable.
    Malformed,
    /// A verdict of the correlator has ended it.
    Cancelled,
    /// No backend has answered, or not to the end.
    Failed,
    /// The client has gone before.
    Abandoned,
}

/// Names of [`Ending`]s, in their order, and the class of status that they mostly have.
const ENDINGS: [(&str, usize); 8] = [
    ("served", 2),
    ("denied", 4),
    ("banned", 4),
    ("limited", 4),
    ("malformed", 4),
    ("cancelled", 4),
    ("failed", 5),
    ("abandoned", 0),
];

/// Classes of status (RFC 9110 §15); none where the client got no response.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Upper bounds of the buckets that durations are counted in, seconds; the last one has none.
pub const BUCKETS_SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const BUCKETS: usize = BUCKETS_SECONDS.len() + 1;

/// Lines of memory; more workers share some.
const SHARDS: usize = 16;

/// Sums since start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Endings {
    counts: [[u64; CLASSES.len()]; ENDINGS.len()],
    /// How many took how long: between a bound of [`BUCKETS_SECONDS`] and the one before.
    pub buckets: [u64; BUCKETS],
    /// How long all took together.
    pub seconds: f64,
    /// Processor time of the rules for all of them.
    pub rules_seconds: f64,
}

impl Endings {
    /// Ending, class of the status that the client got, and how many: those that have occurred, and the class that
    /// each ending mostly has.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let rows = ENDINGS.iter().zip(&self.counts);
        rows.flat_map(|((ending, usual), row)| {
            let cells = CLASSES.iter().zip(row).enumerate();
            let cells = cells.filter(move |(nth, (_, count))| **count > 0 || nth == usual);
            cells.map(|(_, (class, count))| (*ending, *class, *count))
        })
    }

    /// Requests of this ending.
    pub fn of(&self, ending: Ending) -> u64 {
        self.counts[ending as usize].iter().sum()
    }
}

/// Where workers count.
#[derive(Debug, Default)]
pub(crate) struct EndingTally([Shard; SHARDS]);

/// Two cache lines apart: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    counts: [[AtomicU64; CLASSES.len()]; ENDINGS.len()],
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
    rules_nanoseconds: AtomicU64,
}

impl EndingTally {
    pub(crate) fn add(&self, ending: Ending, status: Option<u16>, span: Duration) {
        let shard = &self.0[shard()];
        let class = status.map_or(0, |it| usize::from(it / 100).min(CLASSES.len() - 1));
        shard.counts[ending as usize][class].fetch_add(1, Ordering::Relaxed);
        let seconds = span.as_secs_f64();
        let bucket = BUCKETS_SECONDS.partition_point(|bound| *bound < seconds);
        shard.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        shard.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn add_rules(&self, span: Duration) {
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let rules = &self.0[shard()].rules_nanoseconds;
        rules.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Endings {
        let sum = |of: &dyn Fn(&Shard) -> &AtomicU64| -> u64 {
            self.0.iter().map(|it| of(it).load(Ordering::Relaxed)).sum()
        };
        Endings {
            counts: from_fn(|row| from_fn(|class| sum(&|it| &it.counts[row][class]))),
            buckets: from_fn(|nth| sum(&|it| &it.buckets[nth])),
            seconds: Duration::from_nanos(sum(&|it| &it.nanoseconds)).as_secs_f64(),
            rules_seconds: Duration::from_nanos(sum(&|it| &it.rules_nanoseconds)).as_secs_f64(),
        }
    }
}

/// This thread's.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    MINE.with(|mine| match mine.get() {
        Some(shard) => shard,
        None => {
            let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            mine.set(Some(shard));
            shard
        }
    })
}

impl Gateway {
    /// Counts a request that is over.
    pub(crate) fn count_ending(
        &self,
        session: &Session,
        error: Option<&Error>,
        ctx: &mut Exchange,
    ) {
        let status = session.response_written().map(|it| it.status.as_u16());
        let ending = ending_of(status, error, ctx);
        ctx.is_counted = true;
        self.endings.add(ending, status, ctx.age());
        if let Some(rules) = &ctx.rules {
            self.endings.add_rules(rules.spent());
        }
    }
}

fn ending_of(status: Option<u16>, error: Option<&Error>, ctx: &Exchange) -> Ending {
    if ctx.is_cancelled() {
        return Ending::Cancelled;
    }
    match ctx.outcome {
        Some(Outcome::Cancelled) => return Ending::Cancelled,
        Some(Outcome::Denied) => return Ending::Denied,
        Some(Outcome::Banned) => return Ending::Banned,
        Some(Outcome::Limited) => return Ending::Limited,
        Some(Outcome::Malformed) => return Ending::Malformed,
        Some(Outcome::Detected) | None => {}
    }
    let Some(error) = error else {
        return Ending::Served;
    };
    let is_clients_fault = status.is_some_and(|it| (400..500).contains(&it));
    match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(400..=499), _) => Ending::Malformed,
        (_, ErrorSource::Downstream) if is_clients_fault => Ending::Malformed,
        (_, ErrorSource::Downstream) => Ending::Abandoned,
        _ if ctx.is_overdue() => Ending::Malformed,
        _ => Ending::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_adds_up() {
        let tally = EndingTally::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    for _ in 0..100 {
                        tally.add(Ending::Served, Some(204), Duration::from_millis(2));
                        tally.add(Ending::Failed, None, Duration::from_secs(60));
                    }
                });
            }
        });
        let sums = tally.read();
        let all = 200 * SHARDS as u64;
        assert_eq!(sums.of(Ending::Served), all);
        assert_eq!((sums.buckets[1], sums.buckets[BUCKETS - 1]), (all, all));
        assert!((sums.seconds - all as f64 * 60.002).abs() < 1.0, "{sums:?}");
        let served = sums.requests().find(|it| *it == ("served", "2xx", all));
        let cut = sums.requests().find(|it| *it == ("failed", "none", all));
        assert!(served.is_some() && cut.is_some());
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let tally = EndingTally::default();
        tally.add(Ending::Served, Some(999), Duration::from_millis(1));
        assert_eq!(tally.read().buckets[0], 1);
    }
}
