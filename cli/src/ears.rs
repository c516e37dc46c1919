//! Who is told what the edge says of requests.

use std::sync::{Arc, OnceLock};

use clew_bans::Keeper;
use clew_blocklog::BlockLog;
use clew_proxy::{Offenders, Reports};

use crate::banning;

/// Who is told of requests, before he can be: the edge is bound first.
#[derive(Clone, Default)]
pub(crate) struct Ears(Arc<OnceLock<(BlockLog, Keeper)>>);

impl Ears {
    pub(crate) fn open(&self, log: &BlockLog, bans: &Keeper) {
        let _ = self.0.set((log.clone(), bans.clone()));
    }

    pub(crate) fn reports(&self) -> Reports {
        let ears = self.0.clone();
        Reports::new(move |report| {
            if let Some((log, _)) = ears.get() {
                log.report(report);
            }
        })
    }

    pub(crate) fn offenders(&self) -> Offenders {
        let ears = self.0.clone();
        Offenders::new(move |client, limit| {
            if let Some((_, bans)) = ears.get() {
                banning::by_limit(bans, client, limit);
            }
        })
    }
}
