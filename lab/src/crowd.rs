//! Bystanders: benign clients that go on while others attack.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::client;

/// What the crowd saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    /// Milliseconds of each request that was answered.
    pub(crate) latencies_ms: Vec<f64>,
    /// What became of those that were not served.
    pub(crate) failures: Vec<String>,
}

/// Clients at work; stopped by [`Crowd::stop`], or by drop.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Seen>>,
}

impl Crowd {
    /// `count` clients, each at an address of its own (127.0.1.x), one request after the other.
    pub(crate) fn start(
        count: u8,
        port: u16,
        pause: Duration,
        request: impl Fn(u32, u32) -> String + Clone + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let clients = (1..=count).map(|visitor| {
            let (stop, served, request) = (stop.clone(), served.clone(), request.clone());
            std::thread::spawn(move || visit(visitor, port, pause, &stop, &served, request))
        });
        Self {
            clients: clients.collect(),
            served,
            stop,
        }
    }

    /// Waits until they have been served `count` times.
    pub(crate) fn wait_served(&self, count: u64, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while self.served.load(Ordering::Relaxed) < count {
            let served = self.served.load(Ordering::Relaxed);
            ensure!(
                Instant::now() < deadline,
                "{served} of {count} benign requests were served within {patience:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(crate) fn stop(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Release);
        let mut all = Seen::default();
        for client in self.clients.drain(..) {
            let seen = client
                .join()
                .map_err(|_| anyhow::anyhow!("a benign client panicked"))?;
            all.sent += seen.sent;
            all.ok += seen.ok;
            all.latencies_ms.extend(seen.latencies_ms);
            all.failures.extend(seen.failures);
        }
        all.latencies_ms.sort_by(f64::total_cmp);
        Ok(all)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn visit(
    visitor: u8,
    port: u16,
    pause: Duration,
    stop: &AtomicBool,
    served: &AtomicU64,
    request: impl Fn(u32, u32) -> String,
) -> Seen {
    let source = Ipv4Addr::new(127, 0, 1, visitor);
    let mut seen = Seen::default();
    while !stop.load(Ordering::Acquire) {
        let text = request(visitor.into(), seen.sent as u32);
        seen.sent += 1;
        match client::send(source, port, &text) {
            Ok(answer) if answer.status == 200 => {
                seen.ok += 1;
                served.fetch_add(1, Ordering::Relaxed);
                seen.latencies_ms.push(answer.took.as_secs_f64() * 1e3);
            }
            Ok(answer) => seen.failures.push(format!(
                "{} after {:?}: {}",
                answer.status, answer.took, answer.body
            )),
            Err(error) => seen.failures.push(error.to_string()),
        }
        std::thread::sleep(pause);
    }
    seen
}
