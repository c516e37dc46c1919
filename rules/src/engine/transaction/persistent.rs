//! Persistent collections, as a transaction sees them: read when first asked for, written at once.

use std::time::Duration;

use super::super::collections::{Change, Collection, Place, Record, apply_change};
use super::super::number::integer;
use super::super::ruleset::RuleSet;
use super::state::State;

/// A collection that `initcol` opened.
#[derive(Debug)]
pub(super) struct Opened {
    key: Vec<u8>,
    /// What was read, with what was changed since. `None`: not read yet.
    record: Option<Record>,
    new: bool,
}

/// The longest key. Longer ones are cut.
const KEY_BYTES: usize = 256;

impl State {
    pub(super) fn open(&mut self, collection: Collection, key: &[u8]) {
        let key = key[..key.len().min(KEY_BYTES)].to_vec();
        self.opened[collection as usize] = Some(Opened {
            key,
            record: None,
            new: true,
        });
    }

    /// The variables of a collection whose names are `chosen`, those that the engine adds among them.
    pub(super) fn persistent(
        &mut self,
        rules: &RuleSet,
        collection: Collection,
        chosen: impl Fn(&[u8]) -> bool,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let now = self.now.unix;
        let Some(opened) = self.load(rules, collection) else {
            return Vec::new();
        };
        let Some(record) = &opened.record else {
            return Vec::new();
        };
        let live = record
            .variables
            .iter()
            .filter(|v| v.expires.is_none_or(|at| at > now));
        let live = live
            .filter(|v| chosen(&v.name))
            .map(|v| (v.name.clone(), v.value.clone()));
        let mut variables: Vec<_> = live.collect();
        let minutes = now.saturating_sub(record.created).as_secs() / 60;
        let added: [(&[u8], u64, bool); 5] = [
            (b"is_new", opened.new.into(), true),
            (b"create_time", record.created.as_secs(), !opened.new),
            (b"last_update_time", record.updated.as_secs(), !opened.new),
            (b"update_counter", record.updates, !opened.new),
            (b"update_rate", record.updates / minutes.max(1), !opened.new),
        ];
        if chosen(b"key") {
            variables.push((b"key".to_vec(), opened.key.clone()));
        }
        let added = added
            .into_iter()
            .filter(|(name, _, there)| *there && chosen(name));
        variables.extend(
            added.map(|(name, number, _)| (name.to_vec(), number.to_string().into_bytes())),
        );
        variables
    }

    pub(super) fn change(
        &mut self,
        rules: &RuleSet,
        collection: Collection,
        name: &[u8],
        change: Change<'_>,
    ) {
        let now = self.now.unix;
        let name = name.to_ascii_lowercase();
        let Some(opened) = self.load(rules, collection) else {
            return;
        };
        if let Some(record) = &mut opened.record {
            record
                .variables
                .retain(|v| v.expires.is_none_or(|at| at > now));
            apply_change(&mut record.variables, &name, change);
        }
        if let Some(store) = &rules.options.collections {
            let place = Place {
                collection,
                key: &opened.key,
                name: &name,
            };
            store.change(place, change, now, rules.settings.collection_timeout);
        }
    }

    /// `deprecatevar`: takes `by` off for each `period` since the record was changed, down to 0.
    pub(super) fn deprecate(
        &mut self,
        rules: &RuleSet,
        collection: Collection,
        name: &[u8],
        by: i64,
        period: u64,
    ) {
        let now = self.now.unix;
        let name = name.to_ascii_lowercase();
        let Some(Opened {
            record: Some(record),
            ..
        }) = self.load(rules, collection)
        else {
            return;
        };
        let steps = now.saturating_sub(record.updated).as_secs() / period;
        let Some(value) = record
            .variables
            .iter()
            .find(|v| v.name == name)
            .map(|v| integer(&v.value))
        else {
            return;
        };
        let off = by
            .saturating_mul(i64::try_from(steps).unwrap_or(i64::MAX))
            .min(value.max(0));
        if off > 0 {
            self.change(rules, collection, &name, Change::Add(-off));
        }
    }

    pub(super) fn expire(
        &mut self,
        rules: &RuleSet,
        collection: Collection,
        name: &[u8],
        seconds: i64,
    ) {
        let after = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let at = self.now.unix.saturating_add(after);
        self.change(rules, collection, name, Change::Expire(at));
    }

    fn load(&mut self, rules: &RuleSet, collection: Collection) -> Option<&mut Opened> {
        let now = self.now.unix;
        let opened = self.opened[collection as usize].as_mut()?;
        if opened.record.is_none() {
            let store = rules.options.collections.as_ref();
            let record = store.and_then(|store| store.load(collection, &opened.key, now));
            opened.new = record.is_none();
            opened.record = Some(record.unwrap_or_default());
        }
        Some(opened)
    }
}
