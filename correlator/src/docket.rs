//! All incidents that can still grow.

use std::collections::{HashMap, VecDeque};

use clew_protocol::{Moment, Sequence};

use crate::cases::{Case, Thread, Tree};
use crate::requests::MEMORY;

/// Most of them.
const CASES: usize = 4096;

/// Incidents by the thread that their first step was marked with. A thread of an event loop has as many
/// as there are requests behind its steps.
#[derive(Debug, Default)]
pub(crate) struct Docket {
    cases: HashMap<Thread, Vec<Case>>,
    /// In the order they were filed in.
    order: VecDeque<Thread>,
}

/// Which incident: the n-th of a thread, until another is filed or forgotten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(Thread, usize);

impl Docket {
    /// The one that `tree` has a part in.
    pub(crate) fn of_tree(&self, thread: Thread, tree: Tree) -> Option<Place> {
        self.find(thread, |case| case.has(tree))
    }

    /// The tree of a process that has become a program in one of the thread's.
    pub(crate) fn tree_of(&self, thread: Thread, pid: u32) -> Option<Tree> {
        let mut cases = self.cases.get(&thread)?.iter().rev();
        cases.find_map(|case| case.trail.tree_of(pid))
    }

    /// The last one of the thread in which no request is named.
    pub(crate) fn in_doubt(&self, thread: Thread) -> Option<Place> {
        self.find(thread, |case| !case.names_one())
    }

    /// The last one of the thread.
    pub(crate) fn last_of(&self, thread: Thread) -> Option<Place> {
        self.find(thread, |_| true)
    }

    /// The one in which `sequence` is named, whatever thread it began on.
    pub(crate) fn naming(&self, sequence: Sequence) -> Option<Place> {
        let is_named =
            |case: &Case| case.names_one() && case.attribution.sequence == Some(sequence);
        let mut threads = self.cases.iter();
        threads.find_map(|(thread, cases)| Some(Place(*thread, cases.iter().rposition(is_named)?)))
    }

    fn find(&self, thread: Thread, is_it: impl Fn(&Case) -> bool) -> Option<Place> {
        let cases = self.cases.get(&thread)?;
        Some(Place(thread, cases.iter().rposition(is_it)?))
    }

    pub(crate) fn get(&self, place: Place) -> Option<&Case> {
        self.cases.get(&place.0)?.get(place.1)
    }

    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut Case> {
        self.cases.get_mut(&place.0)?.get_mut(place.1)
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Case> {
        self.cases.values_mut().flatten()
    }

    /// Files one; gives back those that had to go for it.
    pub(crate) fn file(&mut self, thread: Thread, case: Case) -> Vec<Case> {
        let mut gone = Vec::new();
        while self.order.len() >= CASES {
            gone.extend(self.forget_first());
        }
        self.order.push_back(thread);
        self.cases.entry(thread).or_default().push(case);
        gone
    }

    /// Forgets what has been reported and is past blame.
    pub(crate) fn sweep(&mut self, now: Moment) {
        while let Some(thread) = self.order.front() {
            match self.cases.get(thread).and_then(|cases| cases.first()) {
                Some(case) if case.due.is_some() || now.since(case.decided_at) < MEMORY => break,
                _ => drop(self.forget_first()),
            }
        }
    }

    fn forget_first(&mut self) -> Option<Case> {
        let thread = self.order.pop_front()?;
        let cases = self.cases.get_mut(&thread)?;
        let first = (!cases.is_empty()).then(|| cases.remove(0));
        if cases.is_empty() {
            self.cases.remove(&thread);
        }
        first
    }
}
