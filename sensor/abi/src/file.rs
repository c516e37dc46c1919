//! Files that are watched: keys of the maps, and what is to be done.

use crate::FileKey;

/// Requests may not open it, nor what is below it.
pub const RULE_SECRET: u32 = 1;
/// Requests may not write to it, nor to what is below it.
pub const RULE_CLOSED: u32 = 2;
/// What requests write to it, or to what is below it, is remembered.
pub const RULE_REMEMBER: u32 = 4;
/// There are rules for some of its entries by their names, in `WATCHED_NAMES`.
pub const RULE_NAMES: u32 = 8;

/// Most bytes of a name in [`NameKey`], NUL included.
pub const NAME_BYTES: usize = 64;

/// Key of `WATCHED`: a file or directory, for a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchKey {
    /// The file or directory.
    pub file: FileKey,
    /// The service.
    pub service: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of `WATCHED_NAMES`: whatever file a directory has under a name. One that is replaced has another identity.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameKey {
    /// The directory, and the service.
    pub parent: WatchKey,
    /// The name, NUL-terminated, zeros behind it.
    pub name: [u8; NAME_BYTES],
}

const _: () = assert!(size_of::<WatchKey>() == 24);
const _: () = assert!(size_of::<NameKey>() == 88);
