//! Who hears what the edge says of requests: the block log, whoever bans, and who counts how often rules match.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use clew_bans::Keeper;
use clew_blocklog::{BlockLog, Counters};
use clew_protocol::report::Report;
use clew_proxy::{Offenders, Reports};

use crate::banning;

/// Rules that are counted; those that have matched least make room.
const RULES: usize = 4096;

/// They are there before who listens is: the edge is bound first.
#[derive(Clone, Default)]
pub(crate) struct Ears(Arc<Inner>);

#[derive(Default)]
struct Inner {
    listeners: OnceLock<(BlockLog, Keeper)>,
    hits: Mutex<HashMap<u64, Hits>>,
}

/// How often a rule has matched, since start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hits {
    pub(crate) matches: u64,
    /// Those that stopped a request, or its response.
    pub(crate) stops: u64,
    pub(crate) message: String,
}

impl Ears {
    pub(crate) fn open(&self, log: &BlockLog, bans: &Keeper) {
        let _ = self.0.listeners.set((log.clone(), bans.clone()));
    }

    pub(crate) fn reports(&self) -> Reports {
        let ears = self.clone();
        Reports::new(move |report| {
            ears.count(&report);
            if let Some((log, _)) = ears.0.listeners.get() {
                log.report(report);
            }
        })
    }

    pub(crate) fn offenders(&self) -> Offenders {
        let ears = self.clone();
        Offenders::new(move |client, limit| {
            if let Some((_, bans)) = ears.0.listeners.get() {
                banning::by_limit(bans, client, limit);
            }
        })
    }

    /// What the block log has counted; none before it is started.
    pub(crate) fn log_counters(&self) -> Option<Counters> {
        Some(self.0.listeners.get()?.0.counters())
    }

    /// The rules that match most, at most `most` of them.
    pub(crate) fn hottest(&self, most: usize) -> Vec<(u64, Hits)> {
        let mut all: Vec<_> = self
            .hits()
            .iter()
            .map(|(id, hits)| (*id, hits.clone()))
            .collect();
        all.sort_by_key(|(id, hits)| (std::cmp::Reverse(hits.matches), *id));
        all.truncate(most);
        all
    }

    /// Requests without a match are not told of.
    fn count(&self, report: &Report) {
        if report.matches.is_empty() {
            return;
        }
        let mut all = self.hits();
        for matched in &report.matches {
            if !all.contains_key(&matched.id) && all.len() >= RULES {
                let least = all.iter().min_by_key(|(_, hits)| hits.matches);
                let least = least.map(|(id, _)| *id);
                least.map(|id| all.remove(&id));
            }
            let hits = all.entry(matched.id).or_default();
            hits.matches += 1;
            hits.stops += u64::from(matched.disruptive);
            if hits.message.is_empty() {
                hits.message = matched.message.chars().take(80).collect();
            }
        }
    }

    fn hits(&self) -> MutexGuard<'_, HashMap<u64, Hits>> {
        self.0.hits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
