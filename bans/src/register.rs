//! The bans in force and the offences remembered, both bounded. Pure: the time is told.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use clew_protocol::IncidentId;
use ipnet::IpNet;
use thiserror::Error;

use crate::Wall;
use crate::policy::{Measure, Policy, canonical};

/// Most bytes of a reason.
pub(crate) const REASON_BYTES: usize = 256;
/// Most entries that are forgotten at once: whoever bans does not wait for a hundred thousand.
const SWEPT: usize = 256;
/// The longest ban that a hand can give: ten years.
pub(crate) const LONGEST: Duration = Duration::from_secs(315_360_000);

/// One ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Whom: an address, or all of a prefix.
    pub source: IpNet,
    /// Since when.
    pub since: Wall,
    /// Until when.
    pub until: Wall,
    /// Why, in words; may be empty.
    pub reason: String,
    /// The incident that is why, if one is.
    pub incident: Option<IncidentId>,
    /// Which offence of this source it is for: 1 is the first, 0 where a hand has banned.
    pub offence: u32,
    /// It refuses nobody.
    pub dry_run: bool,
}

/// What is to be banned.
#[derive(Debug, Clone)]
pub struct Order {
    /// By whom, and of whom.
    pub cause: Cause,
    /// For how long.
    pub span: Span,
    /// Why, in words: at most 256 bytes, no control characters.
    pub reason: String,
}

/// By whom a source is banned.
#[derive(Debug, Clone, Copy)]
pub enum Cause {
    /// By a verdict on a request of this address.
    Verdict(IpAddr, IncidentId),
    /// By hand.
    Hand(IpNet),
}

/// How long a ban is.
#[derive(Debug, Clone, Copy)]
pub enum Span {
    /// As the policy has it.
    Policy,
    /// Just so long.
    Exactly(Duration),
}

/// Why there is no ban.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// All addresses.
    #[error("{0} would be everybody")]
    Everybody(IpNet),
    /// It would hit who is never banned.
    #[error(
        "{source_net} has addresses of {spared}, which is never banned (ban.never, trust.hops, trust.shared)"
    )]
    Spared {
        /// What was to be banned.
        source_net: IpNet,
        /// Who is not.
        spared: IpNet,
    },
    /// Longer than ten years, or no time at all.
    #[error("a ban lasts from 1 to 315360000 seconds")]
    Span,
    /// Too long, or with control characters.
    #[error("a reason has at most 256 bytes and no control characters")]
    Reason,
}

/// A ban that has been entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banned {
    /// It.
    pub ban: Ban,
    /// The one that made room for it.
    pub evicted: Option<IpNet>,
}

/// How often a source has offended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offences {
    pub(crate) count: u32,
    /// When the last ban ends, or has ended.
    pub(crate) last: Wall,
}

/// The bans in force, and the offences that are remembered.
#[derive(Debug)]
pub struct Register {
    policy: Policy,
    capacity: usize,
    bans: BTreeMap<IpNet, Ban>,
    /// In the order in which they end.
    ends: BTreeSet<(Wall, IpNet)>,
    offences: HashMap<IpNet, Offences>,
    /// In the order in which they are forgotten.
    oldest: BTreeSet<(Wall, IpNet)>,
    changes: Changes,
}

/// What differs from what has been written.
#[derive(Debug, Default)]
struct Changes {
    sources: HashSet<IpNet>,
    /// Too many: all is written anew.
    all: bool,
}

/// What is to be written of a source: what is not there is to be removed.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) source: IpNet,
    pub(crate) ban: Option<Ban>,
    pub(crate) offences: Option<Offences>,
}

/// What is to be written at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Nothing of what was written before counts any more.
    pub(crate) anew: bool,
    pub(crate) entries: Vec<Entry>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        !self.anew && self.entries.is_empty()
    }
}

impl Register {
    /// An empty one, for `capacity` bans and as many offenders.
    pub fn new(policy: Policy, capacity: usize) -> Self {
        Self {
            policy,
            capacity: capacity.max(1),
            bans: BTreeMap::new(),
            ends: BTreeSet::new(),
            offences: HashMap::new(),
            oldest: BTreeSet::new(),
            changes: Changes::default(),
        }
    }

    /// Punishes otherwise from now on; what is in force stays as it is.
    pub fn set_measure(&mut self, measure: Measure) {
        self.policy.measure = measure;
    }

    /// How it punishes.
    pub fn measure(&self) -> Measure {
        self.policy.measure
    }

    /// Bans, by the policy. A verdict never shortens a ban, and what happens during one is no further offence: it
    /// was on its way. By hand it lasts just as long as it is told to. When the register is full, the ban that
    /// ends first goes.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn ban(&mut self, order: &Order, now: Wall) -> Result<Banned, Refusal> {
        check_reason(&order.reason)?;
        let (source, incident) = self.source_of(order.cause)?;
        self.sweep(now);
        let before = self.bans.get(&source).cloned();
        // A dry run's ban has refused nobody: what follows is the first that counts.
        let before = before.filter(|it| it.dry_run == self.policy.dry_run && it.until > now);
        let (offence, span) = self.measured(order, source, before.as_ref(), now)?;
        let mut ban = Ban {
            source,
            since: before.as_ref().map_or(now, |it| it.since),
            until: now.after(span),
            reason: order.reason.clone(),
            incident,
            offence,
            dry_run: self.policy.dry_run,
        };
        if let Some(before) = before {
            ban.incident = incident.or(before.incident);
            if incident.is_some() {
                ban.until = ban.until.max(before.until);
            }
            if ban.reason.is_empty() {
                ban.reason = before.reason;
            }
        }
        if offence > 0 && !ban.dry_run {
            self.remember(source, offence, ban.until);
        }
        let evicted = self.make_room(source);
        self.enter(ban.clone());
        self.changed(source);
        Ok(Banned { ban, evicted })
    }

    /// Lifts a ban, and forgets what it was for; whether there was one.
    pub fn lift(&mut self, source: IpNet, now: Wall) -> bool {
        let source = canonical(source);
        self.sweep(now);
        self.forgive(source);
        self.changed(source);
        self.remove(source).is_some_and(|it| it.until > now)
    }

    /// Forgets what has ended and what need not be remembered, some of it at a time: whether that was all.
    pub fn sweep(&mut self, now: Wall) -> bool {
        for _ in 0..SWEPT {
            match self.ends.first() {
                Some(&(until, source)) if until <= now => {
                    self.remove(source);
                    self.changed(source);
                }
                _ => break,
            }
        }
        for _ in 0..SWEPT {
            match self.oldest.first() {
                Some(&(last, source)) if last.after(self.policy.memory) <= now => {
                    self.forgive(source);
                    self.changed(source);
                }
                _ => break,
            }
        }
        let is_over = |(until, _): &(Wall, IpNet)| *until <= now;
        let is_old = |(last, _): &(Wall, IpNet)| last.after(self.policy.memory) <= now;
        !self.ends.first().is_some_and(is_over) && !self.oldest.first().is_some_and(is_old)
    }

    /// The ban of just this source, which may have ended and not been swept.
    pub fn get(&self, source: IpNet) -> Option<&Ban> {
        self.bans.get(&canonical(source))
    }

    /// Bans in force, in the order of their sources, from the one after `after` on.
    pub fn list(&self, after: Option<IpNet>) -> impl Iterator<Item = &Ban> {
        let first = after.map_or(Bound::Unbounded, |it| Bound::Excluded(canonical(it)));
        self.bans.range((first, Bound::Unbounded)).map(|it| it.1)
    }

    /// Whom a hand means that gives an address without a length.
    pub fn source_of_address(&self, address: IpAddr) -> IpNet {
        self.policy.source_of(address)
    }

    /// Bans in force, and those that have ended and not been swept.
    pub fn len(&self) -> usize {
        self.bans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bans.is_empty()
    }

    /// Takes in what was written by an earlier process. What has ended, and what the policy spares by now, is
    /// passed over, and to be removed; in a dry run nothing of it refuses anybody.
    pub(crate) fn restore(&mut self, bans: Vec<Ban>, offences: Vec<(IpNet, Offences)>, now: Wall) {
        let mut evicted = 0;
        for mut ban in bans {
            if ban.since > now {
                // The clock was set back: it lasts as long as it was to last, not until then.
                ban.until = now.after(ban.until.since(ban.since));
                ban.since = now;
                self.changed(ban.source);
            }
            if ban.until <= now || self.policy.spares(ban.source).is_some() {
                self.changed(ban.source);
                continue;
            }
            // On disk it stays what it was.
            ban.dry_run |= self.policy.dry_run;
            evicted += usize::from(self.make_room(ban.source).is_some());
            self.enter(ban);
        }
        if evicted > 0 {
            tracing::warn!(
                evicted,
                "not all bans are taken over: limits.bans is smaller than it was"
            );
        }
        for (source, offences) in offences {
            let last = offences.last.min(now.after(self.policy.measure.longest));
            self.remember(source, offences.count, last);
        }
        while !self.sweep(now) {}
    }

    /// What has changed since the last time, at most `most` sources of it.
    pub(crate) fn take_changes(&mut self, most: usize) -> Batch {
        if std::mem::take(&mut self.changes.all) {
            self.changes.sources.clear();
            let sources: BTreeSet<IpNet> = self
                .bans
                .keys()
                .chain(self.offences.keys())
                .copied()
                .collect();
            let entries = sources.into_iter().map(|it| self.entry(it)).collect();
            return Batch {
                anew: true,
                entries,
            };
        }
        let sources: Vec<IpNet> = self.changes.sources.iter().take(most).copied().collect();
        for source in &sources {
            self.changes.sources.remove(source);
        }
        let entries = sources.into_iter().map(|it| self.entry(it)).collect();
        Batch {
            anew: false,
            entries,
        }
    }

    /// What could not be written is to be written again.
    pub(crate) fn put_back(&mut self, batch: &Batch) {
        self.changes.all |= batch.anew;
        for entry in &batch.entries {
            self.changed(entry.source);
        }
    }

    /// Sources that have changed.
    pub(crate) fn pending(&self) -> usize {
        match self.changes.all {
            true => self.bans.len().max(1),
            false => self.changes.sources.len(),
        }
    }

    fn source_of(&self, cause: Cause) -> Result<(IpNet, Option<IncidentId>), Refusal> {
        let (source, incident) = match cause {
            Cause::Verdict(address, incident) => (self.policy.source_of(address), Some(incident)),
            Cause::Hand(source) => (canonical(source), None),
        };
        if source.prefix_len() == 0 {
            return Err(Refusal::Everybody(source));
        }
        let spared = match incident {
            Some(_) => self.policy.protects(source),
            None => self.policy.spares(source),
        };
        match spared {
            Some(spared) => Err(Refusal::Spared {
                source_net: source,
                spared,
            }),
            None => Ok((source, incident)),
        }
    }

    /// Which offence it is, and how long the ban.
    fn measured(
        &self,
        order: &Order,
        source: IpNet,
        before: Option<&Ban>,
        now: Wall,
    ) -> Result<(u32, Duration), Refusal> {
        if let Span::Exactly(span) = order.span {
            let is_sound = (Duration::from_secs(1)..=LONGEST).contains(&span);
            return is_sound.then_some((0, span)).ok_or(Refusal::Span);
        }
        if self.policy.dry_run {
            return Ok((1, self.policy.measure.span));
        }
        let known = self.offences.get(&source);
        let known = known.filter(|it| it.last.after(self.policy.memory) > now);
        let count = known.map_or(0, |it| it.count);
        let offence = match before {
            Some(_) => count.max(1),
            None => count.saturating_add(1),
        };
        Ok((offence, self.policy.span_of(offence)))
    }

    fn enter(&mut self, ban: Ban) {
        self.ends.insert((ban.until, ban.source));
        if let Some(before) = self.bans.insert(ban.source, ban.clone())
            && before.until != ban.until
        {
            self.ends.remove(&(before.until, ban.source));
        }
    }

    fn remove(&mut self, source: IpNet) -> Option<Ban> {
        let ban = self.bans.remove(&source)?;
        self.ends.remove(&(ban.until, source));
        Some(ban)
    }

    fn make_room(&mut self, source: IpNet) -> Option<IpNet> {
        if self.bans.len() < self.capacity || self.bans.contains_key(&source) {
            return None;
        }
        let &(_, first) = self.ends.first()?;
        self.remove(first);
        self.changed(first);
        Some(first)
    }

    fn remember(&mut self, source: IpNet, count: u32, last: Wall) {
        self.forgive(source);
        if self.offences.len() >= self.capacity
            && let Some(&(_, first)) = self.oldest.first()
        {
            self.forgive(first);
            self.changed(first);
        }
        self.offences.insert(source, Offences { count, last });
        self.oldest.insert((last, source));
    }

    fn forgive(&mut self, source: IpNet) {
        if let Some(offences) = self.offences.remove(&source) {
            self.oldest.remove(&(offences.last, source));
        }
    }

    fn changed(&mut self, source: IpNet) {
        if self.changes.sources.len() >= 2 * self.capacity {
            self.changes.sources.clear();
            self.changes.all = true;
        }
        if !self.changes.all {
            self.changes.sources.insert(source);
        }
    }

    fn entry(&self, source: IpNet) -> Entry {
        Entry {
            source,
            ban: self.bans.get(&source).cloned(),
            offences: self.offences.get(&source).copied(),
        }
    }
}

fn check_reason(reason: &str) -> Result<(), Refusal> {
    let is_sound = reason.len() <= REASON_BYTES && !reason.chars().any(char::is_control);
    is_sound.then_some(()).ok_or(Refusal::Reason)
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
