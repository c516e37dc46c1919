//! What the programs are told before they run, in the kernel's tables: services and policy.

use std::borrow::BorrowMut;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use clew_sensor_abi::policy::{ConnectKey, Service as ServiceEntry};
use clew_sensor_abi::socket::{PORT_OPAQUE, PORT_PLAIN};

use crate::file;
use crate::maps::Raw;
use crate::policy::{Policy, Watched, service_number};
use crate::sensor::{Config, LoadError};

/// Enters the services: their ports, and which have a profile.
pub(crate) fn tell_services(ebpf: &mut Ebpf, config: &Config) -> Result<(), LoadError> {
    let ports = config.services.iter().flat_map(|service| {
        let kind = if service.is_opaque {
            PORT_OPAQUE
        } else {
            PORT_PLAIN
        };
        service
            .ports
            .iter()
            .map(move |&port| (u32::from(port), kind))
    });
    tell(ebpf, "PORTS", ports)?;
    let mut services: Array<_, Raw<ServiceEntry>> = lend(ebpf, "SERVICES")?;
    for &index in &config.policy.profiled {
        let number = service_number(Some(index));
        set(
            &mut services,
            "SERVICES",
            number,
            Raw(ServiceEntry { has_profile: 1 }),
        )?;
    }
    Ok(())
}

/// Enters what is allowed, and what is watched. `key` is that of the tokens.
pub(crate) fn tell_policy(
    ebpf: &mut Ebpf,
    policy: &Policy,
    key: (u64, u64),
) -> Result<(), LoadError> {
    let mounts = file::Mounts::read();
    let programs = policy.exec.iter().flat_map(|rule| rule.keys(key, &mounts));
    tell(ebpf, "EXEC_ALLOW", programs.map(|key| (key, 1)))?;
    let mut connect: LpmTrie<_, [u8; 24], u32> = lend(ebpf, "CONNECT_ALLOW")?;
    for rule in policy.connect.iter().map(|rule| rule.key()) {
        connect
            .insert(&Key::new(rule.prefix_bits, lpm_data(&rule)), 1, 0)
            .map_err(|source| LoadError::Map {
                name: "CONNECT_ALLOW",
                source,
            })?;
    }
    let watched = Watched::new(&policy.files, &mounts);
    tell(ebpf, "WATCHED", watched.files)?;
    tell(ebpf, "WATCHED_NAMES", watched.names)?;
    let known = file::known_trampolines();
    let launchers = known.iter().chain(&policy.trampolines).filter_map(|path| {
        mounts
            .key_of(path)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "no such launcher"))
            .ok()
    });
    tell(ebpf, "TRAMPOLINES", launchers.map(|key| (key, 1)))
}

/// Enters all of `entries` into a map.
fn tell<K: Copy + 'static>(
    ebpf: &mut Ebpf,
    name: &'static str,
    entries: impl IntoIterator<Item = (K, u32)>,
) -> Result<(), LoadError> {
    let mut map: HashMap<_, Raw<K>, u32> = lend(ebpf, name)?;
    entries.into_iter().try_for_each(|(key, value)| {
        let told = map.insert(Raw(key), value, 0);
        told.map_err(|source| LoadError::Map { name, source })
    })
}

/// The key behind its prefix length, as it lies in memory.
fn lpm_data(key: &ConnectKey) -> [u8; 24] {
    let mut data = [0; 24];
    data[..4].copy_from_slice(&key.service.to_ne_bytes());
    data[4..6].copy_from_slice(&key.port.to_ne_bytes());
    data[6..8].copy_from_slice(&key.protocol.to_ne_bytes());
    data[8..].copy_from_slice(&key.address);
    data
}

/// A map to fill; it stays with the object, for dropping it would close it.
fn lend<'a, M>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<&'a mut aya::maps::Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).ok_or(MapError::KeyNotFound);
    map.and_then(M::try_from)
        .map_err(|source| LoadError::Map { name, source })
}

/// A map to keep.
pub(crate) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(MapError::KeyNotFound);
    map.and_then(M::try_from)
        .map_err(|source| LoadError::Map { name, source })
}

/// Writes one element of an array.
pub(crate) fn set<M: BorrowMut<MapData>, T: aya::Pod>(
    array: &mut Array<M, T>,
    name: &'static str,
    index: u32,
    value: T,
) -> Result<(), LoadError> {
    array
        .set(index, value, 0)
        .map_err(|source| LoadError::Map { name, source })
}
