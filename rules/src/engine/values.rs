//! The values of a transaction: one growing buffer, and spans in it.
//!
//! Nothing here is freed before the transaction is reset, so a [`ValueId`] stays good, and a
//! transformation that leaves a value unchanged answers with the same [`ValueId`].

use super::classes::{self, ALWAYS, Classes, classes, triggers};
use super::pipeline::{NodeId, Pipelines, ROOT};
use crate::transformation::{Transformation, UnicodeMap};

/// A value of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ValueId(u32);

impl ValueId {
    /// No value.
    pub(super) const NONE: Self = Self(u32::MAX);
    /// The empty value, there from the beginning.
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn is_some(self) -> bool {
        self != Self::NONE
    }

    pub(super) fn some(self) -> Option<Self> {
        self.is_some().then_some(self)
    }

    /// Its number; numbers count up from 0.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Copy, Debug)]
struct Value {
    start: u32,
    len: u32,
    classes: Classes,
    /// Where its row of `rows` starts; 0: none yet.
    row: u32,
    /// Which filtered rules may match it: their places modulo 64.
    bloom: u64,
}

/// How many transformations there are; the width of a row.
const WIDTH: usize = Transformation::UrlEncode as usize + 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Values {
    bytes: Vec<u8>,
    values: Vec<Value>,
    /// What each transformation makes of a value; `ValueId::NONE` where it was not asked yet.
    rows: Vec<ValueId>,
    scratch: Vec<u8>,
}

/// Buffers that one large transaction made larger than this are given back when it is reset.
pub(super) const KEEP_BYTES: usize = 1 << 20;

impl Default for Values {
    fn default() -> Self {
        let mut values = Self {
            bytes: Vec::with_capacity(4096),
            values: Vec::new(),
            rows: Vec::new(),
            scratch: Vec::new(),
        };
        values.reset();
        values
    }
}

impl Values {
    /// Forgets all values.
    pub(super) fn reset(&mut self) {
        self.bytes.clear();
        self.values.clear();
        self.rows.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        self.scratch.shrink_to(KEEP_BYTES);
        self.values.push(Value {
            start: 0,
            len: 0,
            classes: ALWAYS,
            row: 0,
            bloom: 0,
        });
        self.rows.push(ValueId::NONE);
    }

    /// Notes which filtered rules may match it.
    pub(super) fn mark(&mut self, id: ValueId, bloom: u64) {
        if let Some(value) = self.values.get_mut(id.index()) {
            value.bloom |= bloom;
        }
    }

    /// Which filtered rules may match it: their places modulo 64.
    pub(super) fn bloom(&self, id: ValueId) -> u64 {
        self.values
            .get(id.index())
            .map_or(u64::MAX, |value| value.bloom)
    }

    /// The bytes of a value; of `NONE`, none.
    pub(super) fn get(&self, id: ValueId) -> &[u8] {
        match self.values.get(id.index()) {
            Some(v) => &self.bytes[v.start as usize..(v.start + v.len) as usize],
            None => &[],
        }
    }

    /// The length of a value in bytes.
    pub(super) fn len(&self, id: ValueId) -> usize {
        self.values.get(id.index()).map_or(0, |v| v.len as usize)
    }

    /// Classes among which are those of its bytes.
    pub(super) fn classes(&self, id: ValueId) -> Classes {
        self.values.get(id.index()).map_or(ALWAYS, |v| v.classes)
    }

    /// A new value. What does not fit below 4 GiB is cut off; body limits keep a transaction far below.
    pub(super) fn push(&mut self, bytes: &[u8]) -> ValueId {
        self.push_known(bytes, classes(bytes))
    }

    /// A new value of which the classes are known.
    pub(super) fn push_known(&mut self, bytes: &[u8], classes: Classes) -> ValueId {
        if bytes.is_empty() {
            return ValueId::EMPTY;
        }
        let start = self.bytes.len();
        let room = (u32::MAX as usize).saturating_sub(start);
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.enter(start, classes)
    }

    /// A new value of several pieces.
    pub(super) fn push_all(&mut self, pieces: &[&[u8]]) -> ValueId {
        let start = self.bytes.len();
        pieces
            .iter()
            .for_each(|piece| self.bytes.extend_from_slice(piece));
        let set = classes(&self.bytes[start..]);
        self.enter(start, set)
    }

    /// A new value: a number in decimal digits.
    pub(super) fn push_number(&mut self, number: i64) -> ValueId {
        let mut digits = Digits::default();
        self.push(digits.text(number))
    }

    /// A part of a value as a value of its own, without a copy.
    pub(super) fn part(&mut self, id: ValueId, range: std::ops::Range<usize>) -> ValueId {
        let Some(&whole) = self.values.get(id.index()) else {
            return ValueId::EMPTY;
        };
        let end = range.end.min(whole.len as usize);
        let start = range.start.min(end);
        if start == end {
            return ValueId::EMPTY;
        }
        if end - start == whole.len as usize {
            return id;
        }
        let set = classes(&self.get(id)[start..end]);
        let (start, len) = (whole.start + start as u32, (end - start) as u32);
        self.add(Value {
            start,
            len,
            classes: set,
            row: 0,
            bloom: 0,
        })
    }

    fn enter(&mut self, start: usize, classes: Classes) -> ValueId {
        let len = (self.bytes.len() - start) as u32;
        self.add(Value {
            start: start as u32,
            len,
            classes,
            row: 0,
            bloom: 0,
        })
    }

    fn add(&mut self, value: Value) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(value);
        id
    }

    /// What the list of transformations at `node` makes of a value. Each step is done once for
    /// each value and remembered; where nothing changes the answer is the value itself.
    pub(super) fn transformed(
        &mut self,
        id: ValueId,
        node: NodeId,
        tree: &Pipelines,
        unicode: Option<&UnicodeMap>,
    ) -> ValueId {
        if node == ROOT || tree.node(node).triggers & self.classes(id) == 0 {
            return id;
        }
        let step = tree.node(node);
        let before = self.transformed(id, step.parent, tree, unicode);
        self.step(before, step.transformation, unicode)
    }

    /// One transformation of a value, remembered.
    pub(super) fn step(
        &mut self,
        id: ValueId,
        transformation: Transformation,
        unicode: Option<&UnicodeMap>,
    ) -> ValueId {
        if triggers(transformation) & self.classes(id) == 0 {
            return id;
        }
        let row = self.row(id) + transformation as usize;
        if self.rows[row].is_some() {
            return self.rows[row];
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let changed = transformation.apply(self.get(id), unicode, &mut scratch);
        let result = match classes::after(transformation, self.classes(id)) {
            _ if !changed => id,
            Some(classes) => self.push_known(&scratch, classes),
            None => self.push(&scratch),
        };
        self.scratch = scratch;
        self.rows[row] = result;
        result
    }

    fn row(&mut self, id: ValueId) -> usize {
        let known = self.values[id.index()].row as usize;
        if known != 0 {
            return known;
        }
        let row = self.rows.len();
        self.rows.resize(row + WIDTH, ValueId::NONE);
        self.values[id.index()].row = row as u32;
        row
    }
}

/// A number written in decimal digits, without an allocation.
#[derive(Debug, Default)]
pub(super) struct Digits {
    /// `-9223372036854775808` has 20 bytes.
    buffer: [u8; 20],
}

impl Digits {
    pub(super) fn text(&mut self, number: i64) -> &[u8] {
        let mut rest = number.unsigned_abs();
        let mut at = self.buffer.len();
        loop {
            at -= 1;
            self.buffer[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            at -= 1;
            self.buffer[at] = b'-';
        }
        &self.buffer[at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_text() {
        let mut digits = Digits::default();
        assert_eq!(digits.text(0), b"0");
        assert_eq!(digits.text(-15), b"-15");
        assert_eq!(digits.text(i64::MIN), b"-9223372036854775808");
        assert_eq!(digits.text(i64::MAX), b"9223372036854775807");
    }

    #[test]
    fn parts_are_values() {
        let mut values = Values::default();
        let whole = values.push(b"abc=def");
        let part = values.part(whole, 4..7);
        assert_eq!(values.get(part), b"def");
        assert_eq!(values.part(whole, 0..7), whole);
        assert_eq!(values.part(whole, 3..3), ValueId::EMPTY);
    }

    #[test]
    fn unchanged_values_keep_their_number() {
        let mut tree = Pipelines::default();
        let node = tree
            .intern(&[Transformation::UrlDecodeUni, Transformation::JsDecode])
            .expect("few nodes");
        let mut values = Values::default();
        let plain = values.push(b"hello");
        assert_eq!(values.transformed(plain, node, &tree, None), plain);
    }
}
