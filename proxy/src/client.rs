//! Who sent a request: the socket's peer, or what trusted hops say.

use std::net::{IpAddr, SocketAddr};

use clew_protocol::request::Client;
use http::HeaderMap;
use http::header::{HOST, REFERER};
use ipnet::IpNet;
use pingora::http::RequestHeader;

/// Most hops looked at in a forwarding header; longer chains are cut at the far end.
const HOPS: usize = 32;

/// Whom the configuration trusts, and whom it knows to be many.
#[derive(Debug)]
pub(crate) struct Neighbours {
    trusted: Vec<IpNet>,
    shared: Vec<IpNet>,
}

impl Neighbours {
    pub(crate) fn new(trusted: Vec<IpNet>, shared: Vec<IpNet>) -> Self {
        Self { trusted, shared }
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    /// The sender: from the right, the first forwarded address that is no trusted hop.
    ///
    /// `Forwarded` (RFC 7239) wins over `X-Forwarded-For`. An entry that is no address ends the
    /// walk at the hop that added it: what lies beyond is hearsay.
    pub(crate) fn client(&self, peer: SocketAddr, request: &RequestHeader) -> Client {
        let address = self.address(peer.ip().to_canonical(), &request.headers);
        Client {
            address,
            port: peer.port(),
            shared: self.shared.iter().any(|network| network.contains(&address)),
            cross_site: is_cross_site(&request.headers, own_authority(request)),
        }
    }

    pub(crate) fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.trusted.is_empty() || !self.trusts(peer) {
            return peer;
        }
        let mut nearest = peer;
        for hop in forwarded(headers).into_iter().rev().take(HOPS) {
            let Some(address) = hop else { break };
            nearest = address.to_canonical();
            if !self.trusts(nearest) {
                break;
            }
        }
        nearest
    }
}

/// Forwarded addresses, farthest first; `None` for an entry that is none.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let of = |name: &str| -> Vec<String> {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .map(|item| item.trim().to_owned())
            .collect()
    };
    let standard = of("forwarded");
    if !standard.is_empty() {
        return standard
            .iter()
            .map(|element| forwarded_for(element))
            .collect();
    }
    of("x-forwarded-for")
        .iter()
        .map(|item| node_address(item))
        .collect()
}

/// The `for` parameter of one `Forwarded` element.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    node_address(found.next()?.1.trim().trim_matches('"'))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn node_address(node: &str) -> Option<IpAddr> {
    if let Some(rest) = node.strip_prefix('[') {
        return rest.split(']').next()?.parse().ok();
    }
    node.parse()
        .ok()
        .or_else(|| node.rsplit_once(':')?.0.parse().ok())
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

    fn neighbours() -> Neighbours {
        let nets = |text: &str| text.parse().map(|net| vec![net]).expect("network");
        Neighbours::new(nets("10.0.0.0/8"), nets("192.0.2.0/24"))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")))
            .collect()
    }

    fn seen(peer: &str, pairs: &[(&'static str, &str)]) -> String {
        neighbours()
            .address(peer.parse().expect("peer"), &headers(pairs))
            .to_string()
    }

    #[test]
    fn strangers_cannot_name_themselves() {
        assert_eq!(
            seen("203.0.113.9", &[("x-forwarded-for", "198.51.100.1")]),
            "203.0.113.9"
        );
    }

    #[test]
    fn the_last_untrusted_hop_is_the_client() {
        let header = [("x-forwarded-for", "6.6.6.6, 198.51.100.1, 10.0.0.2")];
        assert_eq!(seen("10.0.0.1", &header), "198.51.100.1");
        let header = [(
            "forwarded",
            "for=\"[2001:db8::7]:4711\";proto=https, for=10.0.0.3",
        )];
        assert_eq!(seen("10.0.0.1", &header), "2001:db8::7");
    }

    #[test]
    fn hearsay_ends_the_walk() {
        assert_eq!(
            seen("10.0.0.1", &[("x-forwarded-for", "1.2.3.4, unknown")]),
            "10.0.0.1"
        );
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
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
