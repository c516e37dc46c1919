//! What is left of requests that had to be forgotten before they were past blame.
//!
//! Under load there are more requests in a minute than can be remembered, and forgetting one must
//! not make another look guilty. Nor may it end all attribution, or a flood would buy an attacker
//! anonymity. So of each kind of proof as much is kept as it needs:
//!
//! - `sole` asks whether there was any other request: until when there was is one moment for each
//!   process. The answer is exact, so a flood takes from it nothing that it would not take anyway.
//! - `content` asks whether any other request holds the same bytes: a [`Sketch`] says "no", or
//!   "perhaps". Under a flood of large random inputs it says "perhaps" more often, and in the end
//!   always.
//! - `lineage` asks about one request that is in flight and its thread. Those in flight are the
//!   last to be forgotten, and inputs go before them, so a flood takes nothing from it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use clew_protocol::Moment;
use clew_protocol::kernel::ProcessKey;

use crate::requests::MEMORY;
use crate::sketch::Sketch;

/// Most processes told apart.
const PROCESSES: usize = 4096;
/// How long a request that was forgotten in flight is taken to be in flight: longer than any
/// timeout of a proxy. It takes more requests at once than an address has ports.
const FLIGHT: Duration = Duration::from_secs(3600);
/// Inputs forgotten within this time share a sketch.
const SPAN: Duration = Duration::from_secs(20);

/// What is left of them.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    processes: HashMap<ProcessKey, Blame>,
    /// Of the processes that there was no room for.
    others: Blame,
    /// Inputs, with the time each sketch was begun; newest last.
    sketches: VecDeque<(Moment, Sketch)>,
}

/// Until when requests that one process has read and that are forgotten can be blamed.
#[derive(Debug, Default, Clone, Copy)]
struct Blame {
    until: Moment,
    /// Those whose end is not known.
    open_until: Moment,
}

impl Forgotten {
    /// A request that had ended is forgotten; it can be blamed until `until`.
    pub(crate) fn note_ended(&mut self, process: ProcessKey, until: Moment) {
        let blame = self.blame_mut(process);
        blame.until = blame.until.max(until);
    }

    /// A request is forgotten while in flight.
    pub(crate) fn note_open(&mut self, process: ProcessKey, now: Moment) {
        let until = now.after(FLIGHT);
        let blame = self.blame_mut(process);
        blame.until = blame.until.max(until);
        blame.open_until = blame.open_until.max(until);
    }

    /// Keeps what it takes to say later what `inputs` did not hold.
    pub(crate) fn sketch(&mut self, inputs: &[u8], now: Moment) {
        if inputs.is_empty() {
            return;
        }
        let is_current = |(begun, _): &(Moment, Sketch)| now.since(*begun) < SPAN;
        if !self.sketches.back().is_some_and(is_current) {
            self.expire_sketches(now);
            self.sketches.push_back((now, Sketch::new()));
        }
        if let Some((_, sketch)) = self.sketches.back_mut() {
            sketch.add(inputs);
        }
    }

    /// A forgotten request of `process` can be blamed for something at `at`.
    pub(crate) fn may_blame(&self, process: ProcessKey, at: Moment) -> bool {
        at < self.blame(process).until
    }

    /// A forgotten request of `process` may still have been in flight at `at`.
    pub(crate) fn may_be_open(&self, process: ProcessKey, at: Moment) -> bool {
        at < self.blame(process).open_until
    }

    /// Some inputs that were forgotten may hold `stretch`.
    pub(crate) fn may_hold(&self, stretch: &[u8]) -> bool {
        let mut sketches = self.sketches.iter();
        sketches.any(|(_, sketch)| sketch.may_hold(stretch))
    }

    pub(crate) fn expire(&mut self, now: Moment) {
        self.processes.retain(|_, blame| blame.until > now);
        self.expire_sketches(now);
    }

    fn expire_sketches(&mut self, now: Moment) {
        while let Some((begun, _)) = self.sketches.front()
            && now.since(*begun) >= SPAN + MEMORY
        {
            self.sketches.pop_front();
        }
    }

    fn blame(&self, process: ProcessKey) -> Blame {
        let own = self.processes.get(&process).copied().unwrap_or_default();
        Blame {
            until: own.until.max(self.others.until),
            open_until: own.open_until.max(self.others.open_until),
        }
    }

    fn blame_mut(&mut self, process: ProcessKey) -> &mut Blame {
        if self.processes.len() >= PROCESSES && !self.processes.contains_key(&process) {
            return &mut self.others;
        }
        self.processes.entry(process).or_default()
    }
}
