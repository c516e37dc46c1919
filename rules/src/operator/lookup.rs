//! What `@geoLookup` and `@rbl` ask outside of the rule set.

use std::net::IpAddr;

/// Answers `@geoLookup`. The engine is given one, or says at load that no rule with `@geoLookup`
/// can match.
pub trait GeoLookup: Send + Sync {
    /// Fills the members of `GEO` (`COUNTRY_CODE`, `COUNTRY_NAME`, `CITY`, `LATITUDE`, ...) for
    /// `address`; `false` when it is not known.
    fn lookup(&self, address: IpAddr, record: &mut Vec<(&'static str, String)>) -> bool;
}

/// Answers `@rbl`. Without one, no rule with `@rbl` can match, and the engine says so at load.
pub trait BlockList: Send + Sync {
    /// Whether `zone` (for example `dnsbl.httpbl.org`) lists `value`, an address or a host name;
    /// the text that `capture` stores in `TX:0`.
    fn listed(&self, zone: &str, value: &[u8]) -> Option<String>;
}
