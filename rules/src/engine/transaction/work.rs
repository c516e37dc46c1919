//! How much work a phase may do.

use super::super::filter::Scanner;

/// Work between two looks at the clock, in bytes of values that operators were asked about.
/// At the slowest that an operator goes (about 100 ns a byte) that is 3 ms.
const STRIDE: usize = 32 << 10;

/// What an operator call costs beside the bytes of its value.
const CALL: usize = 32;

/// What a phase works with. Counts work, and asks now and then whether there is time left.
pub(super) struct Work<'c> {
    pub(super) scanner: &'c mut Scanner,
    since: usize,
    exhausted: bool,
    out_of_time: &'c mut dyn FnMut() -> bool,
}

impl<'c> Work<'c> {
    pub(super) fn new(scanner: &'c mut Scanner, out_of_time: &'c mut dyn FnMut() -> bool) -> Self {
        Self {
            scanner,
            since: 0,
            exhausted: false,
            out_of_time,
        }
    }

    /// Counts an operator call on a value of this length. `false`: there is no time for it.
    pub(super) fn allows(&mut self, bytes: usize) -> bool {
        self.since = self.since.saturating_add(bytes + CALL);
        if self.since >= STRIDE && !self.exhausted {
            self.since = 0;
            self.exhausted = (self.out_of_time)();
        }
        !self.exhausted
    }

    pub(super) fn exhausted(&self) -> bool {
        self.exhausted
    }
}
