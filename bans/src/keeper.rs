//! The register, the table that refuses, and the thread that writes.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::register::{Ban, Banned, Cause, Order, Refusal, Register};
use crate::store::{Store, StoreError};
use crate::{Measure, Policy, Wall};

/// Most sources that one transaction writes: others wait for the lock while they are collected.
const BATCH: usize = 1024;
/// How often ended bans are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How long the thread waits when the disk fails.
const PAUSE: Duration = Duration::from_secs(1);

/// What refuses the banned. It is told while the register is locked, so that both always hold the same.
pub trait Table: Send + Sync {
    /// Refuses the source from now on, for so long.
    fn refuse(&self, ban: &Ban, left: Duration);
    /// Lets it in again.
    fn admit(&self, source: IpNet);
    /// Forgets what has ended.
    fn sweep(&self);
}

/// When a change was made, in the order of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

/// Orders since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bans by verdict, prolonged ones too.
    pub verdicts: u64,
    /// Bans by hand.
    pub hands: u64,
    /// Refused, because the source is never banned.
    pub spared: u64,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// It is on disk.
    Durable,
    /// It is in force, and not on disk: why.
    InForce(String),
}

/// Keeps bans: in force at once, on disk soon. Any number of handles may be held; the thread goes with
/// [`Keeper::stop`].
#[derive(Clone)]
pub struct Keeper(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Something has changed, or the thread is to end.
    changed: Condvar,
    /// Something was written, or could not be.
    written: Condvar,
    table: Box<dyn Table>,
    clock: Box<dyn Fn() -> Wall + Send + Sync>,
}

struct State {
    register: Register,
    /// None while the thread has it, and once it has ended.
    store: Option<Store>,
    /// Changes made, and how many of them are on disk.
    made: u64,
    durable: u64,
    /// Why the last transaction failed, if it did.
    trouble: Option<String>,
    tally: Tally,
    stopping: bool,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// Takes over what `store` has, and has `table` refuse it. `clock` never goes back.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn open(
        mut store: Store,
        policy: Policy,
        capacity: usize,
        table: impl Table + 'static,
        clock: impl Fn() -> Wall + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let mut register = Register::new(policy, capacity);
        let kept = store.read()?;
        let now = clock();
        register.restore(kept.bans, kept.offences, now);
        for ban in register.list(None).filter(|it| !it.dry_run) {
            table.refuse(ban, ban.until.since(now));
        }
        let state = State {
            register,
            store: Some(store),
            made: 0,
            durable: 0,
            trouble: None,
            tally: Tally::default(),
            stopping: false,
            thread: None,
        };
        Ok(Self(Arc::new(Inner {
            state: Mutex::new(state),
            changed: Condvar::new(),
            written: Condvar::new(),
            table: Box::new(table),
            clock: Box::new(clock),
        })))
    }

    /// Starts the thread that writes. Without it nothing becomes durable.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn start(&self) -> std::io::Result<()> {
        let Some(store) = self.0.state().store.take() else {
            return Ok(());
        };
        let inner = self.0.clone();
        let thread = std::thread::Builder::new().name("clew-bans".to_owned());
        let thread = thread.spawn(move || inner.write_all(store))?;
        self.0.state().thread = Some(thread);
        Ok(())
    }

    /// Punishes otherwise from now on; what is in force stays as it is.
    pub fn set_measure(&self, measure: Measure) {
        self.0.state().register.set_measure(measure);
    }

    /// How offences are punished.
    pub fn measure(&self) -> Measure {
        self.0.state().register.measure()
    }

    /// Bans; it is in force when this returns.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn ban(&self, order: &Order) -> Result<(Banned, Stamp), Refusal> {
        let mut state = self.0.state();
        let now = (self.0.clock)();
        let outcome = state.register.ban(order, now);
        state.tally.count(order, &outcome);
        let banned = outcome?;
        if let Some(evicted) = banned.evicted {
            self.0.table.admit(evicted);
        }
        if !banned.ban.dry_run {
            self.0
                .table
                .refuse(&banned.ban, banned.ban.until.since(now));
        }
        Ok((banned, self.0.stamp(&mut state)))
    }

    /// Lifts a ban; none when there was none.
    pub fn lift(&self, source: IpNet) -> Option<Stamp> {
        let mut state = self.0.state();
        let was_banned = state.register.lift(source, (self.0.clock)());
        self.0.table.admit(source);
        was_banned.then(|| self.0.stamp(&mut state))
    }

    /// Waits until a change is on disk, or has failed to be, for at most `patience`.
    pub fn wait_durable(&self, stamp: Stamp, patience: Duration) -> Durability {
        let deadline = Instant::now() + patience;
        let mut state = self.0.state();
        while state.durable < stamp.0 {
            if let Some(trouble) = &state.trouble {
                return Durability::InForce(trouble.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Durability::InForce("the disk is too slow".to_owned());
            }
            let waited = self.0.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Durability::Durable
    }

    /// At most `most` bans in force, in the order of their sources, from the one after `after` on; and the time.
    pub fn list(&self, after: Option<IpNet>, most: usize) -> (Vec<Ban>, Wall) {
        let state = self.0.state();
        let now = (self.0.clock)();
        let bans = state.register.list(after).filter(|it| it.until > now);
        (bans.take(most).cloned().collect(), now)
    }

    /// Whom a hand means that gives an address without a length.
    pub fn source_of_address(&self, address: IpAddr) -> IpNet {
        self.0.state().register.source_of_address(address)
    }

    /// Bans in force.
    pub fn len(&self) -> usize {
        self.0.state().register.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Orders since start.
    pub fn tally(&self) -> Tally {
        self.0.state().tally
    }

    /// The time that bans are measured by.
    pub fn now(&self) -> Wall {
        (self.0.clock)()
    }

    /// Sources whose bans are not on disk as they are.
    pub fn pending(&self) -> usize {
        self.0.state().register.pending()
    }

    /// Why nothing can be written, if nothing can.
    pub fn trouble(&self) -> Option<String> {
        self.0.state().trouble.clone()
    }

    /// Writes what has changed, and ends the thread.
    pub fn stop(&self) {
        let thread = {
            let mut state = self.0.state();
            state.stopping = true;
            self.0.changed.notify_all();
            state.thread.take()
        };
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            tracing::error!("the thread that writes bans panicked");
        }
    }
}

impl Tally {
    fn count(&mut self, order: &Order, outcome: &Result<Banned, Refusal>) {
        match (outcome, order.cause) {
            (Ok(_), Cause::Verdict(..)) => self.verdicts += 1,
            (Ok(_), Cause::Hand(_)) => self.hands += 1,
            (Err(Refusal::Spared { .. }), _) => self.spared += 1,
            (Err(_), _) => {}
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamp(&self, state: &mut State) -> Stamp {
        state.made += 1;
        self.changed.notify_one();
        Stamp(state.made)
    }

    fn write_all(&self, mut store: Store) {
        // Started by a thread that may have the priority of requests; a disk has none.
        if let Err(error) = rustix::process::setpriority_process(None, 0) {
            tracing::debug!(%error, "bans are written at the priority of requests");
        }
        let mut state = self.state();
        loop {
            let is_swept = state.register.sweep((self.clock)());
            self.table.sweep();
            let made = state.made;
            let batch = state.register.take_changes(BATCH);
            let is_last = state.register.pending() == 0;
            if batch.is_empty() {
                if state.stopping {
                    return;
                }
                state.durable = made;
                self.written.notify_all();
                if !is_swept {
                    continue;
                }
                let waited = self.changed.wait_timeout(state, SWEEP);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            drop(state);
            let outcome = store.write(&batch);
            state = self.state();
            match outcome {
                Ok(()) => {
                    state.trouble = None;
                    if is_last {
                        state.durable = made;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "bans are in force, and lost when Clew ends");
                    state.trouble = Some(error.to_string());
                    state.register.put_back(&batch);
                    self.written.notify_all();
                    if state.stopping {
                        return;
                    }
                    let waited = self.changed.wait_timeout(state, PAUSE);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
            }
            self.written.notify_all();
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
