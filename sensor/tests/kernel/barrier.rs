//! The barrier, at an interface of the tests' own: a pair of virtual ones, the other in a network namespace.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use clew_protocol::Moment;
use clew_sensor::{Barrier, BarrierError, Mode};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Test;
use crate::stage::Stage;

pub(crate) const TESTS: &[Test] = &[
    (
        "barrier::the_banned_do_not_come_in",
        the_banned_do_not_come_in,
    ),
    ("barrier::a_hundred_thousand", a_hundred_thousand),
    ("barrier::wrong_interfaces", wrong_interfaces),
];

const HOUR: Duration = Duration::from_secs(3600);
/// Long enough for a connection that is let in.
const PATIENCE: Duration = Duration::from_millis(300);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two interfaces, one here, one in a namespace; both go on drop.
struct Wire {
    name: String,
}

impl Wire {
    fn new() -> Result<Self> {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        // An interface's name has 15 bytes at most.
        let wire = Self {
            name: format!("ct{}-{nth}", std::process::id()),
        };
        let name = &wire.name;
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add {name} type veth peer name {name}p netns {name}"
        ))?;
        ip(&format!("addr add 10.213.{nth}.1/24 dev {name}"))?;
        ip(&format!(
            "-6 addr add fd00:213:{nth}::1/64 dev {name} nodad"
        ))?;
        ip(&format!("link set {name} up"))?;
        let inside = format!("-n {name}");
        for host in 2..6 {
            ip(&format!(
                "{inside} addr add 10.213.{nth}.{host}/24 dev {name}p"
            ))?;
            ip(&format!(
                "{inside} -6 addr add fd00:213:{nth}::{host}/64 dev {name}p nodad"
            ))?;
        }
        ip(&format!("{inside} link set {name}p up"))?;
        Ok(wire)
    }

    /// The address of this end, and of one of the other's hosts.
    fn addresses(&self, host: u8) -> [(IpAddr, IpAddr); 2] {
        let nth = self.name.rsplit('-').next().unwrap_or_default();
        let parse = |text: String| text.parse().expect("an address");
        [
            (
                parse(format!("10.213.{nth}.1")),
                parse(format!("10.213.{nth}.{host}")),
            ),
            (
                parse(format!("fd00:213:{nth}::1")),
                parse(format!("fd00:213:{nth}::{host}")),
            ),
        ]
    }

    /// Whether a connection from there comes in here.
    fn comes_in(&self, from: IpAddr, to: SocketAddr) -> Result<bool> {
        let namespace = File::open(format!("/run/netns/{}", self.name))?;
        let connect = move || -> Result<bool> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            connect(from, to)
        };
        let thread = std::thread::spawn(connect);
        thread.join().map_err(|_| anyhow!("the client panicked"))?
    }
}

fn connect(from: IpAddr, to: SocketAddr) -> Result<bool> {
    use rustix::net::{AddressFamily, SocketType, bind, socket};
    let family = if from.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket(family, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    let _ = rustix::net::connect(&socket, &to);
    let mut ready = [rustix::event::PollFd::new(
        &socket,
        rustix::event::PollFlags::OUT,
    )];
    let span = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: PATIENCE.subsec_nanos().into(),
    };
    rustix::event::poll(&mut ready, Some(&span))?;
    Ok(TcpStream::from(socket).peer_addr().is_ok())
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<()> {
    let done = Command::new("ip").args(arguments.split(' ')).output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "ip {arguments}: {said}");
    Ok(())
}

/// A barrier for `port` at the wire's end.
fn raise(stage: &mut Stage, wire: &Wire, port: u16) -> Result<Barrier> {
    Ok(stage
        .sensor
        .raise_barrier(std::slice::from_ref(&wire.name), &[port])?)
}

fn the_banned_do_not_come_in() -> Result<()> {
    let wire = Wire::new()?;
    let listeners = [TcpListener::bind("[::]:0")?, TcpListener::bind("[::]:0")?];
    let port = |nth: usize| listeners[nth].local_addr().map(|it| it.port());
    let mut stage = Stage::new(Mode::Enforce)?;
    let barrier = raise(&mut stage, &wire, port(0)?)?;
    let [fine, other] = [wire.addresses(2), wire.addresses(3)];
    for family in 0..2 {
        let (here, source) = fine[family];
        let neighbour = other[family].1;
        let front = SocketAddr::new(here, port(0)?);
        let aside = SocketAddr::new(here, port(1)?);
        let until = Moment::now().after(HOUR);
        ensure!(wire.comes_in(source, front)?, "{source} is not banned");

        barrier.put(source.into(), until)?;
        ensure!(!wire.comes_in(source, front)?, "{source} came in");
        ensure!(wire.comes_in(neighbour, front)?, "{neighbour} is another");
        ensure!(
            wire.comes_in(source, aside)?,
            "this port is not the proxy's"
        );
        let dropped = barrier.dropped(source.into())?;
        ensure!(dropped.is_some_and(|it| it.packets > 0 && it.first < until));
        ensure!(barrier.dropped(neighbour.into())?.is_none());
        barrier.lift(source.into())?;
        ensure!(wire.comes_in(source, front)?, "the ban was lifted");

        let prefix = format!("{here}/{}", if here.is_ipv4() { 24 } else { 64 }).parse()?;
        barrier.put(prefix, until)?;
        for it in [source, neighbour] {
            ensure!(!wire.comes_in(it, front)?, "{it} came in");
        }
        ensure!(barrier.dropped(prefix)?.is_some_and(|it| it.packets > 1));
        barrier.lift(prefix)?;
        barrier.lift(prefix)?;
        ensure!(wire.comes_in(source, front)?, "the ban was lifted");

        barrier.put(source.into(), Moment::now())?;
        ensure!(wire.comes_in(source, front)?, "the ban is over");
    }
    Ok(())
}

/// As many as a table of the edge's holds, of each kind.
fn a_hundred_thousand() -> Result<()> {
    let wire = Wire::new()?;
    let listener = TcpListener::bind("[::]:0")?;
    let port = listener.local_addr()?.port();
    let mut stage = Stage::new(Mode::Enforce)?;
    let barrier = raise(&mut stage, &wire, port)?;
    let until = Moment::now().after(HOUR);
    for nth in 0..100_000_u32 {
        let address = IpAddr::from((0x0b00_0000 + nth).to_be_bytes());
        barrier.put(address.into(), until)?;
        let prefix = IpAddr::from((0x1000_0000 + (nth << 8)).to_be_bytes());
        barrier.put(ipnet::IpNet::new(prefix, 24)?, until)?;
    }
    let (here, source) = wire.addresses(2)[0];
    let front = SocketAddr::new(here, port);
    ensure!(wire.comes_in(source, front)?, "{source} is not banned");
    barrier.put(source.into(), until)?;
    ensure!(!wire.comes_in(source, front)?, "{source} came in");
    Ok(())
}

fn wrong_interfaces() -> Result<()> {
    let wire = Wire::new()?;
    let mut stage = Stage::new(Mode::Enforce)?;
    let unknown = stage.sensor.raise_barrier(&["no-such-if".into()], &[1]);
    ensure!(
        matches!(unknown, Err(BarrierError::Unknown(_))),
        "{unknown:?}"
    );
    drop(stage);
    let mut stage = Stage::new(Mode::Enforce)?;
    let _barrier = raise(&mut stage, &wire, 1)?;
    let mut another = Stage::new(Mode::Enforce)?;
    let taken = raise(&mut another, &wire, 1);
    let error = taken.expect_err("there is one already").to_string();
    ensure!(error.contains("has an XDP program already"), "{error}");
    drop(stage);
    drop(another);
    let mut after = Stage::new(Mode::Enforce)?;
    raise(&mut after, &wire, 1)?;
    Ok(())
}
