//! The ledger: what the kernel knows of each request, a cache line each, in memory that the
//! loader maps. A request costs the kernel a few stores and no record; the loader looks when it
//! wants to know.

use crate::FileKey;

/// Entries of the ledger; a power of two. Requests share an entry when their sequences are the
/// same modulo this.
///
/// A token is accepted when its sequence is larger than what its entry holds, so it stays valid
/// until this many newer requests have been accepted: 26 s at 10,000 requests a second.
pub const ENTRIES: usize = 1 << 18;

/// Value of the `LEDGER` map.
///
/// `sequence` changes first and `bound` last; whoever finds both equal to a sequence before and
/// after reading the rest has read what belongs to that request.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// The newest request accepted of those that share the entry.
    pub sequence: u64,
    /// The same once a task has read the request, and the members up to `flags` are about it.
    pub bound: u64,
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
    /// What became of it.
    pub flags: Flags,
}

/// A byte each: they are written by different CPUs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Other requests that the same read returned; 255: more than could be queued.
    pub same_read: u8,
    /// 1: the thread's request before had not been answered with one byte.
    pub previous_unanswered: u8,
    /// 1: a byte of the response has left.
    pub answered: u8,
    /// 1: the thread that read it has read another request since.
    pub superseded: u8,
    /// 1: a byte of the response has left after that.
    pub interleaved: u8,
    /// Zero.
    pub pad: [u8; 3],
}

const _: () = assert!(ENTRIES.is_power_of_two());
const _: () = assert!(size_of::<Entry>() == 64);
