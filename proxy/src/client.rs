//! Who sent a request: the socket's peer, or what trusted hops say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clew_protocol::request::Client;
use http::HeaderMap;
use http::header::{FORWARDED, HOST, HeaderName, REFERER};
use ipnet::IpNet;
use pingora::http::RequestHeader;

use crate::config::{ForwardingHeader, TrustedHops};

pub(crate) static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Most hops looked at in a forwarding header; longer chains are cut at the far end.
const HOPS: usize = 32;

/// Whom the configuration trusts, and whom it knows to be many.
#[derive(Debug)]
pub(crate) struct Neighbours {
    trusted: TrustedHops,
    shared: Vec<IpNet>,
}

impl Neighbours {
    pub(crate) fn new(trusted: TrustedHops, shared: Vec<IpNet>) -> Self {
        Self { trusted, shared }
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        contains(&self.trusted.networks, address.to_canonical())
    }

    /// Whether a trusted hop is in `network`.
    pub(crate) fn trusts_any_of(&self, network: IpNet) -> bool {
        let mut trusted = self.trusted.networks.iter();
        trusted.any(|it| it.contains(&network) || network.contains(it))
    }

    /// The sender of `request`, which came from `peer`.
    ///
    /// An address of a trusted hop counts as shared: whoever is behind it, it is never banned.
    pub(crate) fn client(&self, peer: SocketAddr, request: &RequestHeader) -> Client {
        let address = self.address(peer.ip().to_canonical(), &request.headers);
        Client {
            address,
            port: peer.port(),
            shared: contains(&self.shared, address) || self.trusts(address),
            cross_site: is_cross_site(&request.headers, own_authority(request)),
        }
    }

    /// The entries of the forwarding header that trusted hops own, nearest first, as they came.
    pub(crate) fn forwarded<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        entries(self.trusted.header, headers)
    }

    /// From the right, the first forwarded address that is no trusted hop.
    ///
    /// An entry that is no address ends the walk at the hop that added it: what lies beyond is
    /// hearsay.
    pub(crate) fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        let mut nearest = peer;
        let mut hops = hops(self.trusted.header, headers).take(HOPS);
        while self.trusts(nearest)
            && let Some(Some(hop)) = hops.next()
        {
            nearest = hop;
        }
        nearest
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Forwarded addresses, nearest first; `None` for an entry that is none.
///
/// Read from the right, byte by byte: what a client wrote, which is on the left, cannot change
/// how the entries of trusted hops are read, be it with an open quote or with bytes that are no
/// text.
fn hops(
    header: ForwardingHeader,
    headers: &HeaderMap,
) -> impl Iterator<Item = Option<IpAddr>> + '_ {
    entries(header, headers).map(move |entry| match header {
        ForwardingHeader::XForwardedFor => node_address(entry),
        ForwardingHeader::Forwarded => forwarded_for(entry),
    })
}

fn entries(header: ForwardingHeader, headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let (name, has_quotes) = match header {
        ForwardingHeader::XForwardedFor => (&FORWARDED_FOR, false),
        ForwardingHeader::Forwarded => (&FORWARDED, true),
    };
    let lines = headers.get_all(name).iter().rev();
    lines
        .flat_map(move |line| split_from_the_right(line.as_bytes(), b',', has_quotes))
        .map(<[u8]>::trim_ascii)
}

/// The parts of `list`, last first, separated by `separator` outside of quoted strings.
fn split_from_the_right(
    list: &[u8],
    separator: u8,
    has_quotes: bool,
) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    list.rsplit(move |byte| {
        is_quoted ^= has_quotes && *byte == b'"';
        *byte == separator && !is_quoted
    })
}

/// The address in the `for` parameter of one `Forwarded` element (RFC 7239 §4); none if there are
/// two.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = split_from_the_right(element, b';', true).filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        name.trim_ascii()
            .eq_ignore_ascii_case(b"for")
            .then_some(value)
    });
    let value = found.next()?.trim_ascii();
    if found.next().is_some() {
        return None;
    }
    let quoted = value.strip_prefix(b"\"").map(|it| it.strip_suffix(b"\""));
    node_address(quoted.unwrap_or(Some(value))?)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node_address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let address: IpAddr = if let Some(rest) = node.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_sound = port.is_empty() || port.starts_with(':');
        is_sound.then(|| address.parse::<Ipv6Addr>().ok())??.into()
    } else if let Ok(address) = node.parse() {
        address
    } else {
        node.split_once(':')?.0.parse::<Ipv4Addr>().ok()?.into()
    };
    Some(address.to_canonical())
}

/// Whether another site's page made the browser send this (Fetch Metadata §2.3, or a `Referer`
/// of another authority): the sender may be the victim.
fn is_cross_site(headers: &HeaderMap, own: &[u8]) -> bool {
    if headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site")
    {
        return true;
    }
    let referer = headers.get(REFERER).and_then(|value| value.to_str().ok());
    referer
        .and_then(referring_authority)
        .is_some_and(|from| !from.as_bytes().eq_ignore_ascii_case(own))
}

/// The authority a request is for: `:authority` in HTTP/2, `Host` in HTTP/1; empty when it names
/// none.
pub(crate) fn own_authority(request: &RequestHeader) -> &[u8] {
    match request.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => request
            .headers
            .get(HOST)
            .map_or(&b""[..], |host| host.as_bytes()),
    }
}

fn referring_authority(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split(['/', '?', '#']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    use ForwardingHeader::{Forwarded, XForwardedFor};

    fn neighbours(header: ForwardingHeader) -> Neighbours {
        let nets = |text: &str| text.parse().map(|net| vec![net]).expect("network");
        let trusted = TrustedHops {
            networks: nets("10.0.0.0/8"),
            header,
        };
        Neighbours::new(trusted, nets("192.0.2.0/24"))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |value: &str| http::HeaderValue::from_bytes(value.as_bytes()).expect("value");
        pairs
            .iter()
            .map(|(name, text)| (name.parse().expect("name"), value(text)))
            .collect()
    }

    /// The address of a request from `peer`, with a `!` where it may not be banned.
    fn seen(peer: &str, header: ForwardingHeader, pairs: &[(&'static str, &str)]) -> String {
        let mut request = RequestHeader::build("GET", b"/", None).expect("request");
        for (name, value) in &headers(pairs) {
            request.append_header(name, value).expect("header");
        }
        let peer = SocketAddr::new(peer.parse().expect("peer"), 1);
        let client = neighbours(header).client(peer, &request);
        format!("{}{}", client.address, if client.shared { "!" } else { "" })
    }

    #[test]
    fn strangers_cannot_name_themselves() {
        for header in [XForwardedFor, Forwarded] {
            let pairs = [
                ("x-forwarded-for", "198.51.100.1"),
                ("forwarded", "for=198.51.100.1"),
            ];
            assert_eq!(seen("203.0.113.9", header, &pairs), "203.0.113.9");
        }
    }

    #[test]
    fn the_last_untrusted_hop_is_the_client() {
        let pairs = [("x-forwarded-for", "6.6.6.6, 198.51.100.1, 10.0.0.2")];
        assert_eq!(seen("10.0.0.1", XForwardedFor, &pairs), "198.51.100.1");
        let pairs = [
            ("x-forwarded-for", "6.6.6.6, 198.51.100.1"),
            ("x-forwarded-for", "10.0.0.2"),
        ];
        assert_eq!(seen("10.0.0.1", XForwardedFor, &pairs), "198.51.100.1");
        let pairs = [(
            "forwarded",
            "for=\"[2001:db8::7]:4711\";proto=https, For = 10.0.0.3;by=\"a,b;c\"",
        )];
        assert_eq!(seen("10.0.0.1", Forwarded, &pairs), "2001:db8::7");
    }

    /// Most balancers append to one header and pass on what a client wrote into the other.
    #[test]
    fn the_header_that_hops_do_not_own_is_ignored() {
        let pairs = [
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-for", "198.51.100.1"),
        ];
        assert_eq!(seen("10.0.0.1", XForwardedFor, &pairs), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", Forwarded, &pairs), "6.6.6.6");
        assert_eq!(seen("10.0.0.1", XForwardedFor, &pairs[..1]), "10.0.0.1!");
    }

    #[test]
    fn hearsay_ends_the_walk() {
        for entry in [
            "unknown",
            "",
            "[::1",
            "[::1]x",
            "[1.2.3.4]",
            "::1%1",
            "\u{e9}",
        ] {
            let line = format!("1.2.3.4, {entry}, 10.0.0.9");
            let pairs = [("x-forwarded-for", &*line)];
            assert_eq!(
                seen("10.0.0.1", XForwardedFor, &pairs),
                "10.0.0.9!",
                "{entry}"
            );
        }
        for element in [
            "for=unknown",
            "for=_hidden",
            "proto=https",
            "for=1.2.3.4;for=5.6.7.8",
            "for=\"1.2.3.4",
        ] {
            let pairs = [("forwarded", element)];
            assert_eq!(
                seen("10.0.0.1", Forwarded, &pairs),
                "10.0.0.1!",
                "{element}"
            );
        }
    }

    /// A hop appends to the line that it got; what that line holds must not hide the entry.
    #[test]
    fn what_a_client_wrote_does_not_hide_it() {
        for junk in [
            "\u{e9}\u{ff}",
            "\"",
            "a=\"b\\",
            "\t,,;=",
            "for=\"6.6.6.6, x",
        ] {
            let line = format!("{junk}, 198.51.100.1");
            let pairs = [("x-forwarded-for", &*line)];
            assert_eq!(
                seen("10.0.0.1", XForwardedFor, &pairs),
                "198.51.100.1",
                "{junk}"
            );
            let line = format!("{junk}, for=198.51.100.1");
            let pairs = [("forwarded", &*line)];
            assert_eq!(
                seen("10.0.0.1", Forwarded, &pairs),
                "198.51.100.1",
                "{junk}"
            );
        }
    }

    #[test]
    fn trusted_hops_and_shared_addresses_are_never_banned() {
        assert_eq!(seen("10.0.0.1", XForwardedFor, &[]), "10.0.0.1!");
        let pairs = [("x-forwarded-for", "10.0.0.3, 10.0.0.2")];
        assert_eq!(seen("10.0.0.1", XForwardedFor, &pairs), "10.0.0.3!");
        let pairs = [("x-forwarded-for", "::ffff:192.0.2.7")];
        assert_eq!(seen("10.0.0.1", XForwardedFor, &pairs), "192.0.2.7!");
        let long = ["10.0.0.2"; 2 * HOPS].join(",");
        let pairs = [("x-forwarded-for", &*format!("198.51.100.1,{long}"))];
        assert_eq!(seen("10.0.0.1", XForwardedFor, &pairs), "10.0.0.2!");
    }

    #[test]
    fn cross_site_requests_are_known() {
        let known = |pairs: &[(&'static str, &str)]| is_cross_site(&headers(pairs), b"a.example");
        assert!(known(&[("sec-fetch-site", "cross-site")]));
        assert!(known(&[("referer", "https://b.example/x")]));
        assert!(!known(&[("referer", "https://A.example/x")]));
        assert!(!known(&[]));
    }
}
