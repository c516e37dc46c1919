//! Clients at the other end of an interface: a pair of virtual ones, the other in a network namespace.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Both ends go on drop.
pub(crate) struct Wire {
    /// Of the interface at this end, and of the namespace.
    pub(crate) name: String,
    namespace: File,
}

impl Wire {
    /// Addresses of this end and of all that are at the other: 10.214.0.1 and 10.214.128.0/17.
    const HERE: Ipv4Addr = Ipv4Addr::new(10, 214, 0, 1);
    const THERE: &str = "10.214.128.0/17";

    pub(crate) fn new() -> Result<Self> {
        // An interface's name has 15 bytes at most.
        let name = format!("clew{}", std::process::id());
        let made = [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name {name}p netns {name}"),
            format!("addr add {}/16 dev {name}", Self::HERE),
            format!("link set {name} up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} link set {name}p up"),
            // Every address of theirs is local there.
            format!("-n {name} addr add 10.214.128.1/16 dev {name}p"),
            format!("-n {name} route add local {} dev lo", Self::THERE),
        ];
        let done = made.iter().try_for_each(|it| ip(it));
        let namespace = done.and_then(|()| Ok(File::open(format!("/run/netns/{name}"))?));
        match namespace {
            Ok(namespace) => Ok(Self { name, namespace }),
            Err(error) => {
                remove(&name);
                Err(error)
            }
        }
    }

    pub(crate) fn here(&self) -> IpAddr {
        Self::HERE.into()
    }

    /// The `nth` client.
    pub(crate) fn client(nth: u16) -> Ipv4Addr {
        let [high, low] = (0x8000 + 2 + nth).to_be_bytes();
        Ipv4Addr::new(10, 214, high, low)
    }

    /// Does `work` at the other end.
    pub(crate) fn there<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let namespace = self.namespace.try_clone()?;
        Ok(std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        }))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn remove(name: &str) {
    let _ = ip(&format!("link del {name}"));
    let _ = ip(&format!("netns del {name}"));
}

fn ip(arguments: &str) -> Result<()> {
    let done = Command::new("ip").args(arguments.split(' ')).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "ip {arguments}: {}", said.trim());
    Ok(())
}
