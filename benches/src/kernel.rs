//! What the sensor costs those it watches: the backend, the kernel, and a process that does
//! nothing it hooks.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clew_protocol::{Moment, ProxyId, Sequence, TokenKey};
use clew_sensor::statistics::{self, Null, ProgramCost};
use clew_sensor::{Config, Mode, Policy, Sensor, Service};
use serde_json::{Value, json};

use crate::load::Shot;
use crate::pairs::{Comparison, compare, median, rounded};
use crate::side::{Cgroup, FILE, Side};
use crate::tagged::{CONNECTIONS, Mint, TaggedShot, fire, stay_off_the_backend};

const PROXY: ProxyId = ProxyId(9);
/// System calls a timed loop makes.
const CALLS: u32 = 3_000_000;

/// Shots of the backend's comparison are this much shorter and as many times more.
const SHORTER: u32 = 5;

/// The shots of a comparison, with the sensor and without, in the order of their pairs.
#[derive(Default)]
struct Shots {
    with: RefCell<Vec<TaggedShot>>,
    without: RefCell<Vec<TaggedShot>>,
}

impl Shots {
    fn note(&self, with: bool, shot: Result<TaggedShot>) -> Result<Shot> {
        let side = if with { &self.with } else { &self.without };
        let shot = shot?;
        side.borrow_mut().push(shot);
        Ok(shot.shot)
    }

    /// Core time per request without the sensor over that with it.
    fn core_ratios(&self) -> Vec<f64> {
        let (with, without) = (self.with.borrow(), self.without.borrow());
        let pairs = with.iter().zip(without.iter());
        pairs
            .map(|(with, without)| without.core_ns() / with.core_ns())
            .collect()
    }

    /// Median share of the time that the backend was at work: near 1, it was what limited.
    fn busy(&self) -> f64 {
        let (with, without) = (self.with.borrow(), self.without.borrow());
        let mut busy: Vec<f64> = with
            .iter()
            .chain(without.iter())
            .map(|shot| shot.busy)
            .collect();
        busy.sort_by(f64::total_cmp);
        rounded(median(&busy))
    }
}

/// Tokens, sensors, and the backend they are measured on.
pub(crate) struct Bench<'a> {
    pub(crate) backend: &'a Side,
    /// Where the backend lives; the load generator does not.
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) span: Duration,
    mint: RefCell<Mint>,
    /// The next token's sequence, as the tender may know it.
    minted: Arc<AtomicU64>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(backend: &'a Side, cgroup: &'a Cgroup, span: Duration) -> Self {
        let minted = Arc::new(AtomicU64::new(1));
        Self {
            backend,
            cgroup,
            span,
            mint: RefCell::new(Mint {
                key: TokenKey::new(*b"bench-bench-benc"),
                proxy: PROXY,
                next: Arc::clone(&minted),
            }),
            minted,
        }
    }

    pub(crate) fn load(&self) -> Result<Sensor> {
        Ok(Sensor::load(&Config {
            key: self.mint.borrow().key.clone(),
            proxy: PROXY,
            mode: Mode::Enforce,
            fallback_mode: Mode::Enforce,
            heartbeat_limit: Duration::from_secs(3600),
            services: vec![Service {
                name: "bench".into(),
                ports: vec![self.backend.port],
                is_opaque: false,
            }],
            policy: Policy::default(),
            trace_opens: false,
            cgroup: Some(self.cgroup.path().into()),
        })?)
    }

    /// One shot whose every request is tagged with a token of its own; `sensor` is tended.
    fn shot(
        &self,
        span: Duration,
        sensor: Option<&mut Sensor>,
        target: &str,
    ) -> Result<TaggedShot> {
        let mut mint = self.mint.borrow_mut();
        let Some(sensor) = sensor else {
            return fire(self.backend, span, &mut mint, target);
        };
        let (minted, done) = (&*self.minted, AtomicBool::new(false));
        std::thread::scope(|scope| {
            let tender = scope.spawn(|| {
                stay_off_the_backend()?;
                tend(sensor, minted, &done)
            });
            let shot = fire(self.backend, span, &mut mint, target);
            done.store(true, Ordering::Release);
            tender
                .join()
                .map_err(|_| anyhow::anyhow!("the tender panicked"))??;
            shot
        })
    }

    /// A shot of tagged requests, with the sensor or without.
    pub(crate) fn tagged(&self, with: bool, target: &str) -> Result<TaggedShot> {
        let mut sensor = with.then(|| self.load()).transpose()?;
        self.shot(self.span, sensor.as_mut(), target)
    }

    /// The backend, saturated by tagged requests: with the sensor, and with programs that do
    /// nothing on the same hooks, each against none. What nginx reads from a file is the small body
    /// of the promise; what its configuration says costs nearly nothing but system calls, and shows
    /// the sensor at its dearest. Many short shots: a disturbance of the machine then falls on both
    /// sides of a pair, or spoils few of them.
    pub(crate) fn backend_cost(&self, pairs: u32) -> Result<Vec<Comparison>> {
        let (pairs, span) = (pairs * SHORTER, self.span / SHORTER);
        let bare = || Ok(self.shot(span, None, FILE)?.shot);
        let mut all = vec![compare(
            "backend without / without (control)",
            None,
            pairs,
            bare,
            bare,
        )?];
        for (name, of_core, goal, target) in [
            (
                "backend with sensor / without",
                "the same, core time per request",
                Some(0.95),
                FILE,
            ),
            (
                "backend that reads nothing / without",
                "the same, core time per request",
                None,
                "/",
            ),
        ] {
            let shots = Shots::default();
            let without = || shots.note(false, self.shot(span, None, target));
            let with = || {
                let mut sensor = self.load()?;
                shots.note(true, self.shot(span, Some(&mut sensor), target))
            };
            all.push(compare(name, goal, pairs, with, without)?);
            all.push(Comparison::of(of_core, None, shots.core_ratios()));
            eprintln!("backend busy in those shots: {}", shots.busy());
        }
        let nothing = || {
            let _null = Null::attach(Some(self.cgroup.path()))?;
            Ok(self.shot(span, None, "/")?.shot)
        };
        all.push(compare(
            "that backend with empty programs / without",
            None,
            pairs,
            nothing,
            || Ok(self.shot(span, None, "/")?.shot),
        )?);
        Ok(all)
    }

    /// Kernel time per request of the programs, from BPF run-time statistics, an empty program's
    /// cost taken off. The socket programs run on the backend's sockets alone, as they would with the
    /// other end on another host; `bind` runs for the load generator's reads too.
    pub(crate) fn time_per_request(&self) -> Result<Value> {
        let mut figures = Vec::new();
        for (name, length) in [("line of 200 bytes", 186), ("line of 8 KB", 8178)] {
            let mut sensor = self.load()?;
            let null = Null::attach(Some(self.cgroup.path()))?;
            let _counting = statistics::count_run_time()?;
            let target = format!("/{}", "q".repeat(length));
            self.shot(self.span, Some(&mut sensor), &target)?;
            let requests = sensor.counters().accepted.max(1) as f64;
            let empty = null.cost()?;
            let empty_ns = per_run(&empty);
            let programs = statistics::of(&sensor)?;
            let each = |cost: &ProgramCost| {
                (cost.run_time.as_nanos() as f64 - cost.runs as f64 * empty_ns) / requests
            };
            let total: f64 = programs.iter().map(each).sum();
            let split: serde_json::Map<String, Value> = programs
                .iter()
                .filter(|cost| cost.runs > 0)
                .map(|cost| {
                    (
                        cost.name.clone(),
                        json!({
                    "ns": rounded(each(cost)), "runs": rounded(cost.runs as f64 / requests),
                    "verified_instructions": cost.verified_instructions }),
                    )
                })
                .collect();
            figures.push(json!({
                "request": name, "ns": rounded(total), "goal_ns": (length < 1000).then_some(1000),
                "holds": length >= 1000 || total <= 1000.0, "null_program_ns": rounded(empty_ns),
                "requests": requests, "programs": split,
            }));
        }
        Ok(Value::Array(figures))
    }

    /// A loop of system calls that no program hooks, with and without the sensor.
    pub(crate) fn bystander(&self, pairs: u32) -> Result<Comparison> {
        let mut ratios = Vec::new();
        for nth in 0..pairs {
            let without = || Ok::<_, anyhow::Error>(loop_time());
            let with = || {
                let _sensor = self.load()?;
                Ok::<_, anyhow::Error>(loop_time())
            };
            let (with, without) = if nth % 2 == 0 {
                let with = with()?;
                (with, without()?)
            } else {
                let without = without()?;
                (with()?, without)
            };
            ratios.push(without.as_secs_f64() / with.as_secs_f64());
        }
        Ok(Comparison::of(
            "getppid loop with sensor / without",
            Some(0.98),
            ratios,
        ))
    }
}

/// What the correlator's thread asks of the sensor while requests go by.
fn tend(sensor: &mut Sensor, minted: &AtomicU64, done: &AtomicBool) -> Result<()> {
    let mut events = Vec::new();
    let mut expected = minted.load(Ordering::Acquire);
    while !done.load(Ordering::Acquire) {
        events.clear();
        sensor
            .next_events(Duration::from_millis(10), &mut events)
            .context("events")?;
        let next = minted.load(Ordering::Acquire);
        for sequence in expected..next {
            sensor.expect(Sequence(sequence));
            // As many are in flight as there are connections.
            if let Some(over) = sequence.checked_sub(CONNECTIONS as u64) {
                sensor.ended(Sequence(over), Moment::now());
            }
        }
        expected = next;
        sensor.add_reads(&mut events);
    }
    Ok(())
}

fn per_run(cost: &ProgramCost) -> f64 {
    cost.run_time.as_nanos() as f64 / cost.runs.max(1) as f64
}

fn loop_time() -> Duration {
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(rustix::process::getppid());
    }
    start.elapsed()
}
