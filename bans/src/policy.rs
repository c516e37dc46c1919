//! What a ban is: of whom, and for how long.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The configuration's word on bans.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What may change while bans are in force.
    pub measure: Measure,
    /// How long after the end of a ban the next offence of that source is a further one.
    pub memory: Duration,
    /// Bits of an IPv4 address that make up a source, 1 to 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make up a source, 1 to 128: an end site has a /64 at least (RFC 6177), and
    /// whoever has one has all of its addresses.
    pub ipv6_prefix: u8,
    /// Nobody of these is ever banned, by whomever: they would be, too.
    pub never: Vec<IpNet>,
    /// Addresses of many people: no verdict bans them.
    pub shared: Vec<IpNet>,
    /// Bans are entered and told, and refuse nobody.
    pub dry_run: bool,
}

/// How offences are punished from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Verdicts ban; else by hand alone.
    pub by_verdict: bool,
    /// Of a first offence.
    pub span: Duration,
    /// Each further offence is punished so many times longer; 1: all the same.
    pub escalation: u32,
    /// No ban that the policy measures is longer.
    pub longest: Duration,
}

impl Policy {
    /// The network that is never banned and has an address in common with `source`.
    pub fn spares(&self, source: IpNet) -> Option<IpNet> {
        overlap(&self.never, source)
    }

    /// Whom a verdict on `address` bans: the prefix it belongs to, or it alone where others in that are not to
    /// be banned.
    pub fn source_of(&self, address: IpAddr) -> IpNet {
        let whole = self.widened(address);
        if self.spares(whole).is_some() || overlap(&self.shared, whole).is_some() {
            return IpNet::from(address.to_canonical());
        }
        whole
    }

    /// Whether a verdict may ban `source`.
    pub(crate) fn protects(&self, source: IpNet) -> Option<IpNet> {
        self.spares(source)
            .or_else(|| overlap(&self.shared, source))
    }

    /// How long the offence of this number (1 is the first) is punished.
    pub fn span_of(&self, offence: u32) -> Duration {
        let measure = &self.measure;
        let factor = measure
            .escalation
            .max(1)
            .checked_pow(offence.saturating_sub(1));
        let span = factor.and_then(|factor| measure.span.checked_mul(factor));
        // Whoever configures a first ban beyond the longest means it.
        span.unwrap_or(Duration::MAX)
            .min(measure.longest.max(measure.span))
    }

    fn widened(&self, address: IpAddr) -> IpNet {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let bits = self.ipv4_prefix.clamp(1, 32);
                Ipv4Net::new_assert(address, bits).trunc().into()
            }
            IpAddr::V6(address) => {
                let bits = self.ipv6_prefix.clamp(1, 128);
                Ipv6Net::new_assert(address, bits).trunc().into()
            }
        }
    }
}

fn overlap(networks: &[IpNet], source: IpNet) -> Option<IpNet> {
    let mut networks = networks.iter();
    networks
        .find(|it| it.contains(&source) || source.contains(*it))
        .copied()
}

/// An IPv4 address by whichever family, without what lies behind the prefix.
pub(crate) fn canonical(source: IpNet) -> IpNet {
    let bits = source.prefix_len();
    match source.addr() {
        IpAddr::V6(address) if bits >= 96 => match address.to_ipv4_mapped() {
            Some(address) => Ipv4Net::new_assert(address, bits - 96).trunc().into(),
            None => source.trunc(),
        },
        _ => source.trunc(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            measure: Measure {
                by_verdict: true,
                span: Duration::from_secs(60),
                escalation: 4,
                longest: Duration::from_secs(1000),
            },
            memory: Duration::from_secs(3600),
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            never: vec!["192.0.2.0/24".parse().expect("network")],
            shared: vec!["2001:db8:5:5::7/128".parse().expect("network")],
            dry_run: false,
        }
    }

    fn of(address: &str) -> String {
        let address = address.parse().expect("address");
        policy().source_of(address).to_string()
    }

    #[test]
    fn sources_are_prefixes_unless_others_are_in_them() {
        assert_eq!(of("198.51.100.9"), "198.51.100.9/32");
        assert_eq!(of("::ffff:198.51.100.9"), "198.51.100.9/32");
        assert_eq!(of("2001:db8::9"), "2001:db8::/64");
        assert_eq!(of("2001:db8:5:5::9"), "2001:db8:5:5::9/128");
    }

    #[test]
    fn each_further_offence_costs_more_up_to_the_longest() {
        let seconds = |offence| policy().span_of(offence).as_secs();
        assert_eq!([1, 2, 3, 4].map(seconds), [60, 240, 960, 1000]);
        assert_eq!(seconds(u32::MAX), 1000);
    }

    #[test]
    fn prefixes_that_hold_a_spared_address_are_spared() {
        let spared = |source: &str| policy().spares(source.parse().expect("source")).is_some();
        assert!(spared("192.0.2.7/32") && spared("192.0.0.0/16"));
        assert!(!spared("192.0.3.0/24") && !spared("::/0"));
    }

    #[test]
    fn mapped_prefixes_are_ipv4() {
        let canonical = |text: &str| canonical(text.parse().expect("source")).to_string();
        assert_eq!(canonical("::ffff:198.51.100.7/120"), "198.51.100.0/24");
        assert_eq!(canonical("2001:db8::7/64"), "2001:db8::/64");
        assert_eq!(canonical("::ffff:0.0.0.0/96"), "0.0.0.0/0");
    }
}
