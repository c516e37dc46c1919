//! The ledger: what the kernel knows of each request, in memory that the loader maps. A request
//! costs the kernel a few stores and no record; the loader looks when it wants to know.
//!
//! For the socket that a request comes in at it is two arrays. Where a token arrives and where it is read are mostly different CPUs, and a
//! line that both wrote would travel between them with each request. Where requests go on to another
//! process, who reads them there is a third: a log, for they may be read there several times.

use crate::FileKey;

/// Entries of each array; a power of two. Requests share an entry when their sequences are the
/// same modulo this.
///
/// A token is accepted when its sequence is larger than what its entry holds, so it stays valid
/// until this many newer requests have been accepted: 26 s at 10,000 requests a second.
pub const ENTRIES: usize = 1 << 18;

/// Entries of the log of further readings; a power of two.
pub const HOPS: usize = 1 << 14;

/// Value of the `ACCEPTED` map: the newest request accepted of those that share the entry.
pub type Accepted = u64;

/// Value of the `READINGS` map: the newest request read of those that share the entry; a cache
/// line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The request; 0: none yet.
    pub sequence: u64,
    /// When it was read, `CLOCK_MONOTONIC`, nanoseconds.
    pub at: u64,
    /// `task_struct.start_boottime` of the process that read it, nanoseconds.
    pub start: u64,
    /// Thread group id of that process.
    pub tgid: u32,
    /// Thread id of the reader.
    pub tid: u32,
    /// Executable of that process.
    pub executable: FileKey,
    /// How it was read.
    pub flags: Flags,
    /// [`Reading::digest`]: who finds it right has read one writing and not parts of two, in
    /// whatever order the stores were seen.
    pub check: u64,
}

/// How a request was read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Other requests that the same read returned; 255: more than could be queued.
    pub same_read: u8,
    /// 1: the thread's request before had not been answered with one byte.
    pub previous_unanswered: u8,
    /// Where it had no token: how the backend that sent it carried the request, one of the `STRENGTH_*` of
    /// [`crate::record`]. 0: it had one.
    pub handed: u8,
    /// Zero.
    pub pad: u8,
    /// Thread group id of that backend.
    pub from: u32,
}

impl Reading {
    /// What `check` is in the `nth` entry of the log: who finds it right has not read an earlier one of
    /// those that share its place.
    #[inline(always)]
    pub fn digest_in_log(&self, nth: u64) -> u64 {
        self.digest().wrapping_add(nth)
    }

    /// What `check` is when the rest is whole.
    ///
    /// ```
    /// # use clew_sensor_abi::ledger::Reading;
    /// let (mut one, two) = (Reading { sequence: 7, tid: 3, ..Reading::default() }, Reading::default());
    /// one.check = one.digest();
    /// let torn = Reading { tid: two.tid, ..one };
    /// assert_ne!(torn.digest(), torn.check);
    /// ```
    #[inline(always)]
    pub fn digest(&self) -> u64 {
        // Rotated, so that members that change alike do not cancel each other.
        let members = [
            self.at,
            self.start,
            u64::from(self.tgid) << 32 | u64::from(self.tid),
            self.executable.inode,
            self.executable.device << 16
                | u64::from(self.flags.same_read) << 8
                | u64::from(self.flags.previous_unanswered),
            u64::from(self.flags.from) << 8 | u64::from(self.flags.handed),
        ];
        let mut sum = self.sequence;
        let mut nth = 0;
        while nth < members.len() {
            sum = sum.rotate_left(13) ^ members[nth];
            nth += 1;
        }
        !sum
    }
}

const _: () = assert!(ENTRIES.is_power_of_two() && HOPS.is_power_of_two());
const _: () = assert!(size_of::<Reading>() == 64);
