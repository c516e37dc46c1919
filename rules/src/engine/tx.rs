//! `TX`: names become numbers when rules are loaded, so that `TX:paranoia_level` is an array access.

use super::name_pattern::NamePattern;
use super::names::{NameTable, hash};
use super::values::{ValueId, Values};

/// `TX:0` to `TX:9` are what `capture` stores; they have the first slots.
pub(super) const CAPTURES: u16 = 10;

/// What the engine itself sets, when a search gave up.
pub(super) const LIMITS_EXCEEDED: &[u8] = b"MSC_PCRE_LIMITS_EXCEEDED";

/// Names that only appear at run time (`setvar:'tx.x_%{MATCHED_VAR_NAME}=1'`), per transaction.
/// Beyond that, new ones are not stored.
const DYNAMIC_NAMES: usize = 8192;
/// Names that rules spell out.
const NAMES: usize = 50_000;

/// The names of `TX` that rules spell out.
#[derive(Clone, Debug)]
pub(super) struct TxNames {
    table: NameTable,
    /// As first written.
    names: Vec<Box<[u8]>>,
}

impl Default for TxNames {
    fn default() -> Self {
        let mut names = Self {
            table: NameTable::default(),
            names: Vec::new(),
        };
        for digit in 0..CAPTURES {
            let slot = names.slot(&digit.to_string());
            debug_assert_eq!(slot, Ok(digit));
        }
        names
    }
}

impl TxNames {
    /// The slot of a name, compared without regard to case; a new one if it was not known.
    ///
    /// # Errors
    ///
    /// A sentence, when there are more than 50,000 names.
    pub(super) fn slot(&mut self, name: &str) -> Result<u16, String> {
        if let Some(slot) = self.known(name.as_bytes()) {
            return Ok(slot);
        }
        if self.names.len() >= NAMES {
            return Err(format!("the rules name more than {NAMES} variables in TX"));
        }
        self.table.add(hash(name.as_bytes()));
        self.names.push(name.as_bytes().into());
        Ok(self.names.len() as u16 - 1)
    }

    /// The slot that the engine itself sets, where rules name it.
    pub(super) fn fickle(&self) -> Option<u16> {
        self.known(LIMITS_EXCEEDED)
    }

    /// The slot of a name, compared without regard to case.
    pub(super) fn known(&self, name: &[u8]) -> Option<u16> {
        self.known_by_hash(name, hash(name))
    }

    fn known_by_hash(&self, name: &[u8], hash: u64) -> Option<u16> {
        let slot = self
            .table
            .find(hash, |slot| self.names[slot].eq_ignore_ascii_case(name))?;
        u16::try_from(slot).ok()
    }

    /// The slots of all names that `selector` means.
    pub(super) fn matching(&self, selector: &NamePattern) -> Box<[u16]> {
        let all = self.names.iter().enumerate();
        all.filter(|(_, name)| selector.is_match(name))
            .map(|(slot, _)| slot as u16)
            .collect()
    }

    /// Whether the name of a slot begins so, compared without regard to case.
    pub(super) fn begins(&self, slot: u16, beginning: &[u8]) -> bool {
        let name = self.name(slot).and_then(|name| name.get(..beginning.len()));
        name.is_some_and(|start| start.eq_ignore_ascii_case(beginning))
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, slot: u16) -> Option<&[u8]> {
        self.names.get(usize::from(slot)).map(|name| &**name)
    }
}

/// A value of `TX`. Numbers are kept as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum TxValue {
    #[default]
    Unset,
    Number(i64),
    Text(ValueId),
}

impl TxValue {
    /// As a number: the text's, as `atoi` reads it; 0 when unset.
    pub(super) fn number(self, values: &Values) -> i64 {
        match self {
            Self::Unset => 0,
            Self::Number(number) => number,
            Self::Text(id) => super::number::integer(values.get(id)),
        }
    }
}

/// The `TX` of one transaction.
#[derive(Debug, Default)]
pub(super) struct Tx {
    values: Vec<TxValue>,
    /// How many slots have names in the rule set.
    fixed: usize,
    dynamic: Vec<Dynamic>,
    /// The names of `dynamic`, as written.
    text: Vec<u8>,
    table: NameTable,
}

/// A name that was made at run time.
#[derive(Clone, Copy, Debug)]
struct Dynamic {
    start: u32,
    len: u32,
    /// Which of the first 32 `/regex/` selectors were asked about it, and what they said.
    asked: u32,
    selected: u32,
}

impl Tx {
    pub(super) fn reset(&mut self, names: &TxNames) {
        self.fixed = names.len();
        self.values.clear();
        self.values.resize(self.fixed, TxValue::Unset);
        self.dynamic.clear();
        self.text.clear();
        self.table.clear();
    }

    pub(super) fn get(&self, slot: u16) -> TxValue {
        self.values
            .get(usize::from(slot))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn set(&mut self, slot: u16, value: TxValue) {
        if let Some(at) = self.values.get_mut(usize::from(slot)) {
            *at = value;
        }
    }

    /// The slot of a name that was made at run time. `None`: there are too many.
    pub(super) fn slot(&mut self, name: &[u8], names: &TxNames) -> Option<u16> {
        let hash = hash(name);
        if let Some(slot) = names.known_by_hash(name, hash) {
            return Some(slot);
        }
        let known = self.table.find(hash, |index| {
            self.written(self.dynamic[index]).eq_ignore_ascii_case(name)
        });
        if let Some(index) = known {
            return u16::try_from(self.fixed + index).ok();
        }
        let slot = u16::try_from(self.values.len())
            .ok()
            .filter(|_| self.dynamic.len() < DYNAMIC_NAMES)?;
        let (start, len) = (self.text.len() as u32, name.len() as u32);
        self.text.extend_from_slice(name);
        self.values.push(TxValue::Unset);
        self.dynamic.push(Dynamic {
            start,
            len,
            asked: 0,
            selected: 0,
        });
        self.table.add(hash);
        Some(slot)
    }

    fn written(&self, name: Dynamic) -> &[u8] {
        &self.text[name.start as usize..(name.start + name.len) as usize]
    }

    pub(super) fn name<'n>(&'n self, slot: u16, names: &'n TxNames) -> &'n [u8] {
        let dynamic = || {
            self.dynamic
                .get(usize::from(slot).checked_sub(self.fixed)?)
                .map(|n| self.written(*n))
        };
        names.name(slot).or_else(dynamic).unwrap_or_default()
    }

    /// The slots of names that were made at run time and that a `/regex/` selector means; each name is
    /// asked once.
    pub(super) fn select(
        &mut self,
        number: u16,
        selector: &NamePattern,
        mut found: impl FnMut(u16, TxValue),
    ) {
        for index in 0..self.dynamic.len() {
            let name = self.dynamic[index];
            let bit = 1_u32.checked_shl(number.into()).unwrap_or(0);
            let is = if bit != 0 && name.asked & bit != 0 {
                name.selected & bit != 0
            } else {
                selector.is_match(self.written(name))
            };
            let known = &mut self.dynamic[index];
            known.asked |= bit;
            known.selected |= if is { bit } else { 0 };
            let slot = self.fixed + index;
            if is && self.values[slot] != TxValue::Unset {
                found(slot as u16, self.values[slot]);
            }
        }
    }

    /// All that is set, in the order of the slots.
    pub(super) fn set_values(&self) -> impl Iterator<Item = (u16, TxValue)> + '_ {
        let all = self.values.iter().enumerate();
        all.filter(|(_, v)| **v != TxValue::Unset)
            .map(|(slot, v)| (slot as u16, *v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case() {
        let mut names = TxNames::default();
        let slot = names.slot("Paranoia_Level").expect("room");
        assert_eq!(names.slot("paranoia_level"), Ok(slot));
        assert_eq!(names.name(slot), Some(&b"Paranoia_Level"[..]));
    }

    #[test]
    fn names_of_the_run_time_are_kept_as_written() {
        let names = TxNames::default();
        let mut tx = Tx::default();
        tx.reset(&names);
        let slot = tx.slot(b"x_ARGS:Foo", &names).expect("room");
        tx.set(slot, TxValue::Number(1));
        assert_eq!(tx.slot(b"X_args:foo", &names), Some(slot));
        assert_eq!(tx.name(slot, &names), b"x_ARGS:Foo");
        tx.reset(&names);
        assert_eq!(tx.set_values().count(), 0);
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let names = TxNames::default();
        let mut tx = Tx::default();
        tx.reset(&names);
        let stored = (0..DYNAMIC_NAMES + 10)
            .filter(|n| tx.slot(format!("n{n}").as_bytes(), &names).is_some());
        assert_eq!(stored.count(), DYNAMIC_NAMES);
    }
}
