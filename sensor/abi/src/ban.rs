//! Sources whose packets are dropped where they come in.

/// Most bans of each kind, addresses and prefixes.
pub const BANS: u32 = 131_072;

/// Value of the `BANS` and `BAN_PREFIXES` maps. The keys are addresses in network order, IPv4 mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ban {
    /// Until when, `CLOCK_MONOTONIC`, nanoseconds.
    pub until: u64,
    /// When its first packet was dropped, likewise; 0: none was.
    pub first: u64,
    /// Packets dropped.
    pub packets: u64,
}
