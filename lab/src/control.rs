//! How late this machine runs a thread of the correlator's priority that is due: beside it stands how
//! late verdicts are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How often it is due.
const SPAN: Duration = Duration::from_millis(1);

/// The correlator's (`cli/src/run.rs`).
const NICE: i32 = -20;

/// A thread that sleeps, and notes how much longer than it wanted to, until it is stopped.
pub(crate) struct Control {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<f64>>,
}

impl Control {
    pub(crate) fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        Self {
            is_over,
            thread: std::thread::spawn(move || measure(&until)),
        }
    }

    /// Milliseconds, the shortest first.
    pub(crate) fn stop(self) -> Result<Vec<f64>> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut late = self
            .thread
            .join()
            .map_err(|_| anyhow!("the control panicked"))?;
        late.sort_by(f64::total_cmp);
        Ok(late)
    }
}

fn measure(is_over: &AtomicBool) -> Vec<f64> {
    if let Err(error) = clew_sensor::run_soon(NICE) {
        eprintln!("lab: the control has no priority: {error}");
    }
    let mut late = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let due = Instant::now() + SPAN;
        std::thread::sleep(SPAN);
        late.push(due.elapsed().as_secs_f64() * 1e3);
    }
    late
}
