//! Names: of a request in public, of an upstream attempt in the kernel, of an incident.

use std::fmt;
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Name of the header line that carries a [`Token`]; always the first after the request line.
pub const TOKEN_HEADER: &str = "x-clew-token";

/// The public name of a request: a UUIDv7 (RFC 9562 §5.7), shown in logs, block pages and
/// `x-request-id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RequestId(pub Uuid);

impl RequestId {
    /// A fresh id, ordered by time of creation.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The public name of an incident: a UUIDv7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct IncidentId(pub Uuid);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Which proxy minted a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProxyId(pub u8);

/// Which of its services an attempt is for: its place in the configuration, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(pub u8);

/// One upstream attempt: a 48-bit counter of the proxy that made it, starting at 1.
///
/// A request that is retried has one sequence per attempt. Zero means "none" in the kernel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Sequence(pub u64);

impl Sequence {
    /// Stands for a request that did not come through Clew, of which nothing is known. It is larger
    /// than any sequence there is.
    pub const STRANGER: Self = Self(u64::MAX);
}

/// The secret that makes tokens unforgeable: a 128-bit SipHash key, drawn anew at each start.
#[derive(Clone)]
pub struct TokenKey([u8; 16]);

impl TokenKey {
    /// A key from 16 random bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The two little-endian words SipHash takes (k0, k1), for the kernel's copy of the key.
    pub fn words(&self) -> (u64, u64) {
        let word = |range: std::ops::Range<usize>| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.0[range]);
            u64::from_le_bytes(bytes)
        };
        (word(0..8), word(8..16))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(secret)")
    }
}

/// The secret name of an upstream attempt: proxy (1 byte), service (1 byte), sequence (6 bytes,
/// big-endian), then SipHash-2-4 over those 8 bytes (8 bytes, little-endian).
///
/// On the wire it is 32 lower-case hex digits in the header line [`TOKEN_HEADER`].
/// It has no `Display` and its `Debug` hides it: tokens are never logged.
#[derive(Clone, Copy)]
pub struct Token([u8; 16]);

impl Token {
    /// The token of attempt `sequence` (taken modulo 2^48), made by `proxy` for `service`.
    pub fn mint(key: &TokenKey, proxy: ProxyId, service: ServiceId, sequence: Sequence) -> Self {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[proxy.0, service.0]);
        bytes[2..8].copy_from_slice(&sequence.0.to_be_bytes()[2..]);
        let mut mac = SipHasher24::new_with_key(&key.0);
        mac.write(&bytes[..8]);
        let mac = mac.finish();
        bytes[8..].copy_from_slice(&mac.to_le_bytes());
        Self(bytes)
    }

    /// The 32 hex digits that go on the wire.
    pub fn to_hex(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }

    /// The 16 raw bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_layout_is_proxy_service_sequence_mac() {
        let key = TokenKey::new(*b"0123456789abcdef");
        let mint = |sequence| Token::mint(&key, ProxyId(1), ServiceId(2), Sequence(sequence));
        let token = mint(0x0304_0506_0708);
        assert_eq!(&token.as_bytes()[..8], &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(token.to_hex().starts_with(b"0102030405060708"));
        assert_ne!(token, mint(0x0304_0506_0709));
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let key = TokenKey::new(*b"0123456789abcdef");
        let token = Token::mint(&key, ProxyId(1), ServiceId(1), Sequence(1));
        let shown = format!("{key:?} {token:?}");
        assert_eq!(shown, "TokenKey(secret) Token(secret)");
    }
}
