//! The barrier: banned sources are refused at the interfaces that they come in at.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError};
use aya::programs::links::FdLink;
use aya::programs::{Program, ProgramError, XdpMode};
use aya::{Btf, Ebpf};
use clew_protocol::Moment;
use clew_sensor_abi::ban::Ban;
use ipnet::IpNet;
use thiserror::Error;

use crate::attach::failed;
use crate::maps::Raw;
use crate::pin::PinDirectory;
use crate::sensor::LoadError;
use crate::steps::{BARRIER, REFUSE};
use crate::tables::take;

/// Bits of an address that is not a prefix.
const ALL_BITS: u32 = 128;
/// Those before an IPv4 address where it is mapped (RFC 4291, 2.5.5.2).
const MAPPED_BITS: u32 = 96;

/// Why an interface has no barrier.
#[derive(Debug, Error)]
pub enum BarrierError {
    /// No such interface.
    #[error("there is no network interface {0}; `ip link` lists them")]
    Unknown(String),
    /// Another program is there.
    #[error("the interface {0} has an XDP program already; only one can be there")]
    Taken(String),
    /// The kernel does not want it there.
    #[error("the interface {interface} takes no XDP program")]
    Refused {
        /// Which.
        interface: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The program or its maps.
    #[error(transparent)]
    Program(#[from] LoadError),
}

/// How many packets of a source were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// When the first was.
    pub first: Moment,
    /// How many.
    pub packets: u64,
}

/// The tables of the banned; any number of hands may hold it.
#[derive(Debug, Clone)]
pub struct Barrier(Arc<Mutex<Tables>>);

#[derive(Debug)]
struct Tables {
    addresses: HashMap<MapData, [u8; 16], Raw<Ban>>,
    prefixes: LpmTrie<MapData, [u8; 16], Raw<Ban>>,
}

impl Barrier {
    /// Loads the program and puts it at `interfaces`, in the best mode that each supports; it looks at what is
    /// for `ports` only. The links are pinned in `pins`.
    pub(crate) fn raise(
        ebpf: &mut Ebpf,
        pins: &PinDirectory,
        interfaces: &[String],
        ports: &[u16],
    ) -> Result<Self, BarrierError> {
        let barrier = Self::load(ebpf, ports)?;
        let names: BTreeSet<&String> = interfaces.iter().collect();
        for (nth, name) in names.into_iter().enumerate() {
            let link = attach(ebpf, name)?;
            // Not by its name: a pin's has no dots.
            let pinned = link.pin(pins.join(&format!("{}-{nth}", REFUSE.program)));
            pinned.map_err(|error| LoadError::Pin(io::Error::other(error)))?;
        }
        Ok(barrier)
    }

    /// The program, nowhere yet, and its tables.
    pub(crate) fn load(ebpf: &mut Ebpf, ports: &[u16]) -> Result<Self, LoadError> {
        let mut fronts: HashMap<MapData, u32, u32> = take(ebpf, "FRONT_PORTS")?;
        for &port in ports {
            let told = fronts.insert(u32::from(port), 1, 0);
            told.map_err(|source| LoadError::Map {
                name: "FRONT_PORTS",
                source,
            })?;
        }
        let tables = Tables {
            addresses: take(ebpf, "BANS")?,
            prefixes: take(ebpf, "BAN_PREFIXES")?,
        };
        let loaded = REFUSE.load(ebpf, &Btf::from_sys_fs()?);
        loaded.map_err(|source| failed(BARRIER.step, &REFUSE, source))?;
        Ok(Self(Arc::new(Mutex::new(tables))))
    }

    /// Refuses a source until then. Packets that were dropped stay counted.
    ///
    /// # Errors
    ///
    /// The table is full, or cannot be written.
    pub fn put(&self, source: IpNet, until: Moment) -> Result<(), MapError> {
        let mut tables = self.lock();
        let before = tables.get(source)?.unwrap_or_default();
        tables.set(
            source,
            Ban {
                until: until.0,
                ..before
            },
        )
    }

    /// Lets a source in again; that it was let in before is as good.
    ///
    /// # Errors
    ///
    /// The table cannot be written.
    pub fn lift(&self, source: IpNet) -> Result<(), MapError> {
        match self.lock().remove(source) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other,
        }
    }

    /// What was dropped of a source that is banned.
    ///
    /// # Errors
    ///
    /// The table cannot be read.
    pub fn dropped(&self, source: IpNet) -> Result<Option<Dropped>, MapError> {
        let ban = self.lock().get(source)?;
        Ok(ban.filter(|ban| ban.packets > 0).map(|ban| Dropped {
            first: Moment(ban.first),
            packets: ban.packets,
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn get(&self, source: IpNet) -> Result<Option<Ban>, MapError> {
        let (address, bits) = place(source);
        let found = if bits == ALL_BITS {
            self.addresses.get(&address, 0)
        } else {
            self.prefixes.get(&Key::new(bits, address), 0)
        };
        match found {
            Ok(Raw(ban)) => Ok(Some(ban)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set(&mut self, source: IpNet, ban: Ban) -> Result<(), MapError> {
        let (address, bits) = place(source);
        if bits == ALL_BITS {
            self.addresses.insert(address, Raw(ban), 0)
        } else {
            self.prefixes.insert(&Key::new(bits, address), Raw(ban), 0)
        }
    }

    fn remove(&mut self, source: IpNet) -> Result<(), MapError> {
        let (address, bits) = place(source);
        if bits == ALL_BITS {
            self.addresses.remove(&address)
        } else {
            self.prefixes.remove(&Key::new(bits, address))
        }
    }
}

/// Address and length of a prefix as the tables have them.
fn place(source: IpNet) -> ([u8; 16], u32) {
    let bits = u32::from(source.prefix_len());
    match source.network() {
        IpAddr::V4(address) => (address.to_ipv6_mapped().octets(), MAPPED_BITS + bits),
        IpAddr::V6(address) => (address.octets(), bits),
    }
}

fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// In the driver where it can, else in the stack's own place for it.
fn attach(ebpf: &mut Ebpf, interface: &str) -> Result<FdLink, BarrierError> {
    let refused = |source| BarrierError::Refused {
        interface: interface.to_owned(),
        source: Box::new(source),
    };
    let Some(Program::Xdp(program)) = ebpf.program_mut(REFUSE.program) else {
        return Err(refused(ProgramError::UnexpectedProgramType));
    };
    let in_driver = program.attach(interface, XdpMode::Driver);
    let mode = if in_driver.is_ok() {
        "native"
    } else {
        "generic"
    };
    let attached = in_driver.or_else(|_| program.attach(interface, XdpMode::Skb));
    let id = attached.map_err(|error| match error {
        ProgramError::UnknownInterface { name } => BarrierError::Unknown(name),
        ProgramError::SyscallError(it) if is_taken(&it.io_error) => {
            BarrierError::Taken(interface.to_owned())
        }
        other => refused(other),
    })?;
    tracing::info!(interface, mode, "banned sources are refused here");
    let link = program.take_link(id).map_err(refused)?;
    // A link has a descriptor since Linux 5.9.
    link.try_into()
        .map_err(|_| refused(ProgramError::NotAttached))
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_prefixes_have_their_places() {
        let place = |text: &str| place(text.parse().expect("a source"));
        let (mapped, bits) = place("203.0.113.7/32");
        assert_eq!(bits, ALL_BITS);
        assert_eq!(mapped[10..], [0xff, 0xff, 203, 0, 113, 7]);
        // What lies behind a prefix does not count.
        assert_eq!(place("203.0.113.7/24"), place("203.0.113.0/24"));
        assert_eq!(place("203.0.113.0/24").1, 120);
        assert_eq!(place("2001:db8:1::5/64").1, 64);
    }
}
