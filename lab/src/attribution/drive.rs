//! Sends a plan with so many requests at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::mix::Planned;
use crate::client::{Answer, send};

/// What became of each request of the plan, in its order; none where no connection could be made.
pub(crate) fn drive(plan: &[Planned], port: u16, concurrency: u32) -> Vec<Option<Answer>> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(vec![None; plan.len()]);
    let work = || {
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(planned) = plan.get(nth) else { break };
            let answer = send(planned.source, port, &planned.text).ok();
            if let Ok(mut all) = all.lock() {
                all[nth] = answer;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..concurrency {
            scope.spawn(work);
        }
    });
    all.into_inner().unwrap_or_default()
}
