//! Keys of the policy maps.

use crate::FileKey;
use crate::siphash::SipHash24;

/// Policy for every service.
pub const SERVICE_ANY: u32 = 0;

/// Key of `EXEC_ALLOW`: which program a service's requests may start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExecKey {
    /// The program.
    pub file: FileKey,
    /// Hash of its argument vector ([`arguments_hash`]), [`ARGUMENTS_ANY`] or [`ARGUMENTS_SOME`].
    pub arguments: u64,
    /// The service, or [`SERVICE_ANY`].
    pub service: u32,
    /// Zero.
    pub pad: u32,
}

/// The program may be started with any arguments.
pub const ARGUMENTS_ANY: u64 = 0;
/// There are arguments that it may be started with, in entries of their own. (A hash is odd.)
pub const ARGUMENTS_SOME: u64 = 2;

/// Key of `CONNECT_ALLOW` (longest prefix match): where a service's requests may connect.
///
/// The prefix covers `service`, `port` and `protocol` whole (64 bits), then the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectKey {
    /// Significant bits: 64 + the prefix length of the (mapped) IPv6 address.
    pub prefix_bits: u32,
    /// The service, or [`SERVICE_ANY`].
    pub service: u32,
    /// Port, host order; 0: any port.
    pub port: u16,
    /// `IPPROTO_TCP`, `IPPROTO_UDP` or [`PROTOCOL_RAW`].
    pub protocol: u16,
    /// IPv6 address in network order, IPv4 mapped (RFC 4291 §2.5.5.2).
    pub address: [u8; 16],
}

/// Stands for every socket that is neither TCP nor UDP: what it sends where is not seen, so address
/// and port are 0. (`IPPROTO_RAW`.)
pub const PROTOCOL_RAW: u16 = 255;

/// Bits of [`ConnectKey`] before the address.
pub const CONNECT_FIXED_BITS: u32 = 64;

/// What is known of a service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// 1 when there is a profile: connections it lacks are denied.
    pub has_profile: u32,
}

/// Hash of an argument vector: SipHash-2-4 over the argument block (each argument followed by
/// NUL), padded with NUL to a multiple of 8 bytes.
///
/// Keyed with the token key, which never leaves Clew: an attacker who knows an allowed command
/// cannot search for another one with the same hash. Never 0, which means "any arguments".
pub fn arguments_hash(k0: u64, k1: u64, block: &[u8]) -> u64 {
    let mut hash = SipHash24::new(k0, k1);
    let mut length = 0;
    for chunk in block.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.word(u64::from_le_bytes(word));
        length += 8;
    }
    hash.finish(length) | 1
}

const _: () = assert!(size_of::<ExecKey>() == 32);
const _: () = assert!(size_of::<ConnectKey>() == 28);
