//! Kernel records that got lost, by class: what is said for a while after may lack something.

use std::collections::BTreeMap;

use clew_protocol::Moment;
use clew_protocol::incident::Loss;
use clew_protocol::kernel::LostClass;

use crate::requests::MEMORY;

/// Sums, and what is still felt of them.
#[derive(Debug, Default)]
pub(crate) struct Losses(BTreeMap<LostClass, Lost>);

#[derive(Debug, Default, Clone, Copy)]
struct Lost {
    /// Since start, as the kernel counts.
    total: u64,
    /// Since there was none for as long as any request can be blamed.
    felt: u64,
    last: Moment,
}

impl Losses {
    /// The kernel has lost so many of a class since start; how many of them are new.
    pub(crate) fn note(&mut self, class: LostClass, total: u64, now: Moment) -> u64 {
        let lost = self.0.entry(class).or_default();
        let new = total.saturating_sub(lost.total);
        if now.since(lost.last) >= MEMORY {
            lost.felt = 0;
        }
        if new > 0 {
            lost.total = total;
            lost.felt = lost.felt.saturating_add(new);
            lost.last = now;
        }
        new
    }

    /// What a record of `now` may lack.
    pub(crate) fn felt(&self, now: Moment) -> Vec<Loss> {
        let recent = self.0.iter().filter(|(_, it)| now.since(it.last) < MEMORY);
        let felt = recent.map(|(&class, it)| Loss {
            class,
            records: it.felt,
        });
        felt.filter(|it| it.records > 0).collect()
    }
}
