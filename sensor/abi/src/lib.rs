//! Records, map keys and settings shared by the BPF programs and their loader.
//!
//! Everything here is `#[repr(C)]`, of fixed size, without implicit padding, and checked at
//! compile time. Records start with a [`record::Header`]; `sensor/src/decode.rs` is the only reader.
#![no_std]

pub mod ban;
pub mod file;
pub mod ledger;
pub mod policy;
pub mod record;
pub mod settings;
pub mod siphash;
pub mod socket;

/// Grows with every change of layout; a loader refuses records and pinned maps of another one.
pub const ABI_VERSION: u16 = 8;

/// Name of the header line that carries the token, as the kernel looks for it: a line feed, the
/// name in lower case, colon, space.
pub const TOKEN_LINE: &[u8; 15] = b"\nx-clew-token: ";

/// Hex digits of a token.
pub const TOKEN_DIGITS: usize = 32;

/// Requests a process remembers having read, newest first in its reports.
pub const RECENT: usize = 8;

/// A file, by identity.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// `super_block.s_dev`: major in the upper 12 bits, minor in the lower 20.
    pub device: u64,
    /// `inode.i_ino`.
    pub inode: u64,
}

/// A process, safe against reuse of its id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessKey {
    /// `task_struct.start_boottime` of the group leader, nanoseconds.
    pub start: u64,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<FileKey>() == 16);
const _: () = assert!(size_of::<ProcessKey>() == 16);
const _: () = assert!(RECENT.is_power_of_two());
