//! Sources that are refused.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clew_protocol::{IncidentId, Moment};
use dashmap::DashMap;

/// One ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Whom.
    pub address: IpAddr,
    /// Until when.
    pub until: Moment,
    /// Why, when an incident is why.
    pub incident: Option<IncidentId>,
}

/// The bans in force, bounded.
#[derive(Debug)]
pub(crate) struct Bans {
    entries: DashMap<IpAddr, (Moment, Option<IncidentId>)>,
    /// Entries, so that nobody looks anything up while there are none.
    count: AtomicUsize,
    capacity: usize,
}

impl Bans {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: DashMap::new(),
            count: AtomicUsize::new(0),
            capacity,
        }
    }

    /// Bans `address`. When the table is full, what has expired goes, then what would first.
    pub(crate) fn add(&self, address: IpAddr, span: Duration, incident: Option<IncidentId>) {
        let now = Moment::now();
        if self.entries.len() >= self.capacity {
            self.make_room(now);
        }
        self.entries
            .insert(address.to_canonical(), (now.after(span), incident));
        self.recount();
    }

    pub(crate) fn remove(&self, address: IpAddr) -> bool {
        let removed = self.entries.remove(&address.to_canonical()).is_some();
        self.recount();
        removed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        if self.is_empty() {
            return false;
        }
        let address = address.to_canonical();
        let until = self.entries.get(&address).map(|entry| entry.0);
        match until {
            Some(until) if until > Moment::now() => true,
            Some(_) => {
                // Unless it was banned anew since the look.
                let expired = |_: &IpAddr, entry: &(Moment, _)| entry.0 <= Moment::now();
                self.entries.remove_if(&address, expired);
                self.recount();
                false
            }
            None => false,
        }
    }

    pub(crate) fn list(&self) -> Vec<Ban> {
        let now = Moment::now();
        let entries = self.entries.iter().filter(|entry| entry.0 > now);
        entries
            .map(|entry| Ban {
                address: *entry.key(),
                until: entry.0,
                incident: entry.1,
            })
            .collect()
    }

    fn make_room(&self, now: Moment) {
        self.entries.retain(|_, (until, _)| *until > now);
        if self.entries.len() < self.capacity {
            return;
        }
        let first = self
            .entries
            .iter()
            .min_by_key(|entry| entry.0)
            .map(|entry| *entry.key());
        if let Some(first) = first {
            self.entries.remove(&first);
        }
    }

    fn recount(&self) {
        self.count.store(self.entries.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, n])
    }

    #[test]
    fn bans_hold_and_end() {
        let bans = Bans::new(10);
        bans.add(address(1), Duration::from_secs(60), None);
        bans.add(address(2), Duration::ZERO, None);
        assert!(bans.contains(address(1)));
        assert!(!bans.contains(address(2)));
        assert!(bans.remove(address(1)));
        assert!(!bans.contains(address(1)));
    }

    #[test]
    fn mapped_addresses_are_the_same_source() {
        let bans = Bans::new(10);
        bans.add(address(1), Duration::from_secs(60), None);
        let mapped = std::net::Ipv4Addr::new(127, 0, 0, 1).to_ipv6_mapped();
        assert!(bans.contains(mapped.into()));
    }

    #[test]
    fn a_full_table_loses_the_ban_that_ends_first() {
        let bans = Bans::new(3);
        for n in 1..=4 {
            bans.add(address(n), Duration::from_secs(u64::from(n)), None);
        }
        assert_eq!(bans.list().len(), 3);
        assert!(!bans.contains(address(1)));
    }
}
