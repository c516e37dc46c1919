//! What the programs are told, in the kernel's tables: services before they run, policy then and whenever it changes.

use std::borrow::BorrowMut;
use std::collections::HashSet;
use std::hash::Hash;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use clew_protocol::TokenKey;
use clew_sensor_abi::FileKey;
use clew_sensor_abi::file::{NameKey, WatchKey};
use clew_sensor_abi::policy::{ConnectKey, ExecKey, Service as ServiceEntry};
use clew_sensor_abi::socket::{PORT_OPAQUE, PORT_PLAIN};

use crate::file;
use crate::maps::Raw;
use crate::policy::{Policy, Watched, service_number};
use crate::sensor::{Config, LoadError};

/// Enters the ports of the services.
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
    tell(ebpf, "PORTS", ports)
}

/// What the kernel's tables hold of a policy: its files looked up, its arguments hashed.
#[derive(Default)]
pub struct PolicyTables {
    exec: Entries<ExecKey>,
    connect: HashSet<ConnectKey>,
    files: Entries<WatchKey>,
    names: Entries<NameKey>,
    launchers: Entries<FileKey>,
    profiled: HashSet<u32>,
}

type Entries<K> = std::collections::HashMap<K, u32>;

impl PolicyTables {
    /// Looks the files of `policy` up, which waits for disks. What is not there is logged and left out. `key` is that of
    /// the tokens.
    pub fn of(policy: &Policy, key: &TokenKey) -> Self {
        let key = key.words();
        let mounts = file::Mounts::read();
        let programs = policy.exec.iter().flat_map(|rule| rule.keys(key, &mounts));
        let watched = Watched::new(&policy.files, &mounts);
        let known = file::known_trampolines();
        let launchers = known.iter().chain(&policy.trampolines).filter_map(|path| {
            mounts
                .key_of(path)
                .inspect_err(
                    |error| tracing::warn!(path = %path.display(), %error, "no such launcher"),
                )
                .ok()
        });
        Self {
            exec: programs.map(|key| (key, 1)).collect(),
            connect: policy.connect.iter().map(|rule| rule.key()).collect(),
            files: watched.files,
            names: watched.names,
            launchers: launchers.map(|key| (key, 1)).collect(),
            profiled: policy
                .profiled
                .iter()
                .map(|&index| service_number(Some(index)))
                .collect(),
        }
    }

    /// Whether it has files to be watched.
    pub(crate) fn watches(&self) -> bool {
        !self.files.is_empty() || !self.names.is_empty()
    }

    /// Enters all of it, and takes out what is in `before` alone. What both allow is allowed all the time.
    pub(crate) fn enter(&self, ebpf: &mut Ebpf, before: &Self) -> Result<(), LoadError> {
        exchange(ebpf, "EXEC_ALLOW", &self.exec, &before.exec)?;
        self.enter_flows(ebpf, before)?;
        // Names before the directories that say there are some.
        exchange(ebpf, "WATCHED_NAMES", &self.names, &before.names)?;
        exchange(ebpf, "WATCHED", &self.files, &before.files)?;
        exchange(ebpf, "TRAMPOLINES", &self.launchers, &before.launchers)?;
        let mut services: Array<_, Raw<ServiceEntry>> = lend(ebpf, "SERVICES")?;
        for &number in self.profiled.union(&before.profiled) {
            let has_profile = self.profiled.contains(&number).into();
            let entry = Raw(ServiceEntry { has_profile });
            set(&mut services, "SERVICES", number, entry)?;
        }
        Ok(())
    }

    fn enter_flows(&self, ebpf: &mut Ebpf, before: &Self) -> Result<(), LoadError> {
        const NAME: &str = "CONNECT_ALLOW";
        let fail = |source| LoadError::Map { name: NAME, source };
        let mut map: LpmTrie<_, [u8; 24], u32> = lend(ebpf, NAME)?;
        let key = |rule: &ConnectKey| Key::new(rule.prefix_bits, lpm_data(rule));
        for rule in self.connect.difference(&before.connect) {
            map.insert(&key(rule), 1, 0).map_err(fail)?;
        }
        for rule in before.connect.difference(&self.connect) {
            map.remove(&key(rule)).map_err(fail)?;
        }
        Ok(())
    }
}

/// Enters what is new or other than before, and takes out what is there no longer.
fn exchange<K: Copy + Eq + Hash + 'static>(
    ebpf: &mut Ebpf,
    name: &'static str,
    now: &Entries<K>,
    before: &Entries<K>,
) -> Result<(), LoadError> {
    let is_new = |(key, value): &(&K, &u32)| before.get(key) != Some(value);
    let new = now.iter().filter(is_new);
    tell(ebpf, name, new.map(|(&key, &value)| (key, value)))?;
    let mut map: HashMap<_, Raw<K>, u32> = lend(ebpf, name)?;
    for key in before.keys().filter(|key| !now.contains_key(key)) {
        map.remove(&Raw(*key))
            .map_err(|source| LoadError::Map { name, source })?;
    }
    Ok(())
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
