//! `@ipMatch`, `@ipMatchF`, `@ipMatchFromFile`: an address among networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::phrase::lines;
use super::{Files, OperatorError};

/// A set of addresses, as ranges: sorted, not touching. A look-up takes the logarithm of their number.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    /// `@ipMatch`: addresses and networks (`10.0.0.0/8`, `2001:db8::/32`) with commas between them.
    ///
    /// # Errors
    ///
    /// What is neither an address nor a network.
    pub fn list(argument: &str) -> Result<Self, OperatorError> {
        let names = argument
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        Self::new(names)
    }

    /// `@ipMatchFromFile`: one address or network a line; empty lines and lines that begin with `#` do not
    /// count.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and what is neither an address nor a network.
    pub fn from_file(name: &str, files: &dyn Files) -> Result<Self, OperatorError> {
        if name.starts_with("https://") || name.starts_with("http://") {
            return Err(refuse(
                "lists are not fetched from the network; store the list in a file".to_owned(),
            ));
        }
        let content = files
            .read(name)
            .map_err(|error| refuse(format!("{name}: {error}")))?;
        let text = String::from_utf8_lossy(&content);
        Self::new(lines(text.as_bytes()).filter_map(|line| std::str::from_utf8(line).ok()))
    }

    fn new<'n>(names: impl Iterator<Item = &'n str>) -> Result<Self, OperatorError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for name in names {
            match read(name)? {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Ok(Self {
            v4: merged(v4),
            v6: merged(v6),
        })
    }

    /// Whether `value` is an address in one of the networks. An IPv4 address written as
    /// `::ffff:192.0.2.1` counts as both.
    pub fn contain(&self, value: &[u8]) -> bool {
        let text = std::str::from_utf8(value).map(str::trim);
        match text.map(str::parse::<IpAddr>) {
            Ok(Ok(IpAddr::V4(address))) => within(&self.v4, address.to_bits()),
            Ok(Ok(IpAddr::V6(address))) => {
                let mapped = address.to_ipv4_mapped();
                within(&self.v6, address.to_bits())
                    || mapped.is_some_and(|v4| within(&self.v4, v4.to_bits()))
            }
            _ => false,
        }
    }
}

fn read(name: &str) -> Result<IpNet, OperatorError> {
    let address = name.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| name.parse::<IpNet>()).map_err(|_| {
        refuse(format!("'{name}' is neither an address nor a network; write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"))
    })
}

fn refuse(reason: String) -> OperatorError {
    OperatorError::Argument {
        name: "ipMatch",
        reason,
    }
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if *end >= first => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged.into_boxed_slice()
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let before = ranges.partition_point(|&(first, _)| first <= address);
    before
        .checked_sub(1)
        .is_some_and(|index| ranges[index].1 >= address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_networks() {
        let networks =
            Networks::list("10.0.0.0/8, 10.1.0.0/16,192.0.2.7,2001:db8::/33").expect("a list");
        for inside in [
            "10.255.1.2",
            "192.0.2.7",
            "2001:db8:7fff::1",
            "::ffff:10.0.0.1",
            " 10.0.0.1 ",
        ] {
            assert!(networks.contain(inside.as_bytes()), "{inside}");
        }
        for outside in [
            "11.0.0.0",
            "192.0.2.8",
            "2001:db8:8000::",
            "",
            "x",
            "10.0.0",
            "10.0.0.1:80",
        ] {
            assert!(!networks.contain(outside.as_bytes()), "{outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for name in ["10.0.0.0/33", "10.0.0", "example.org"] {
            assert!(Networks::list(name).is_err(), "{name}");
        }
    }
}
