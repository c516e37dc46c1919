//! What the sensor costs those it watches: the backend, the kernel, and a process that does
//! nothing it hooks.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clew_protocol::{ProxyId, Sequence, Token, TokenKey};
use clew_sensor::statistics::{self, Null, ProgramCost};
use clew_sensor::{Config, Mode, Policy, Sensor, Service};
use serde_json::{Value, json};

use crate::load::{Shot, fire_tagged};
use crate::pairs::{Comparison, compare, rounded};
use crate::side::Side;

const PROXY: ProxyId = ProxyId(9);
/// Tokens for one shot: more than any server here answers in three seconds.
const TOKENS: u64 = 300_000;
/// System calls a timed loop makes.
const CALLS: u32 = 3_000_000;

/// Tokens, sensors, and the backend they are measured on.
pub(crate) struct Bench<'a> {
    pub(crate) backend: &'a Side,
    pub(crate) work: &'a Path,
    pub(crate) span: Duration,
    key: TokenKey,
    next: Cell<u64>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(backend: &'a Side, work: &'a Path, span: Duration) -> Self {
        Self {
            backend,
            work,
            span,
            key: TokenKey::new(*b"bench-bench-benc"),
            next: Cell::new(1),
        }
    }

    fn load(&self) -> Result<Sensor> {
        Ok(Sensor::load(&Config {
            key: self.key.clone(),
            proxy: PROXY,
            mode: Mode::Enforce,
            fallback_mode: Mode::Enforce,
            heartbeat_limit: Duration::from_secs(3600),
            hold_span: Duration::from_secs(1),
            hold_limit: 4,
            services: vec![Service {
                name: "bench".into(),
                ports: vec![self.backend.port],
            }],
            policy: Policy::default(),
        })?)
    }

    /// One shot whose every request is tagged with a token of its own; `sensor` is tended.
    fn shot(&self, sensor: Option<&mut Sensor>, target: &str) -> Result<Shot> {
        let first = self.next.get();
        self.next.set(first + TOKENS);
        let path = self.work.join("tokens");
        let mut text = Vec::with_capacity(TOKENS as usize * 33);
        for sequence in first..first + TOKENS {
            text.extend(Token::mint(&self.key, PROXY, Sequence(sequence)).to_hex());
            text.push(b'\n');
        }
        std::fs::write(&path, text)?;
        let fire = || fire_tagged(self.backend.port, self.span, self.work, &path, target);
        let Some(sensor) = sensor else { return fire() };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let tender = scope.spawn(|| tend(sensor, &done));
            let shot = fire();
            done.store(true, Ordering::Release);
            tender
                .join()
                .map_err(|_| anyhow::anyhow!("the tender panicked"))??;
            shot
        })
    }

    /// The backend, saturated by tagged requests, with and without the sensor.
    pub(crate) fn backend_cost(&self, pairs: u32) -> Result<Comparison> {
        let with = || {
            let mut sensor = self.load()?;
            self.shot(Some(&mut sensor), "/")
        };
        compare(
            "backend with sensor / without",
            Some(0.95),
            pairs,
            with,
            || self.shot(None, "/"),
        )
    }

    /// Kernel time per request of the programs, from BPF run-time statistics, an empty program's
    /// cost taken off. The programs also run for the load generator's end of each connection,
    /// on the same host; their time there is in the figure.
    pub(crate) fn time_per_request(&self) -> Result<Value> {
        let mut figures = Vec::new();
        for (name, length) in [("line of 200 bytes", 186), ("line of 8 KB", 8178)] {
            let mut sensor = self.load()?;
            let null = Null::attach()?;
            let _counting = statistics::count_run_time()?;
            let target = format!("/{}", "q".repeat(length));
            self.shot(Some(&mut sensor), &target)?;
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
                    "ns": rounded(each(cost)), "runs": rounded(cost.runs as f64 / requests) }),
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

fn tend(sensor: &mut Sensor, done: &AtomicBool) -> Result<()> {
    let mut events = Vec::new();
    while !done.load(Ordering::Acquire) {
        events.clear();
        sensor
            .next_events(Duration::from_millis(10), &mut events)
            .context("events")?;
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
