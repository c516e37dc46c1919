//! What the policy allows, by program, by arguments, by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clew_protocol::kernel::{Decision, Transport};
use clew_sensor::{ConnectRule, ExecRule, FileRule, Mode, Policy, PolicyTables, Watch};

use crate::Test;
use crate::stage::Stage;

pub(crate) const TESTS: &[Test] = &[
    ("policy::allowed_programs_run", allowed_programs_run),
    (
        "policy::allowed_programs_below_an_overlay_run",
        allowed_programs_below_an_overlay_run,
    ),
    (
        "policy::services_behind_one_port_are_told_apart",
        services_behind_one_port_are_told_apart,
    ),
    ("policy::another_takes_its_place", another_takes_its_place),
    (
        "policy::arguments_are_part_of_the_rule",
        arguments_are_part_of_the_rule,
    ),
    (
        "policy::trampolines_pass_and_the_next_is_judged",
        trampolines_pass_and_the_next_is_judged,
    ),
    (
        "policy::connections_are_reported_without_a_profile",
        connections_are_reported,
    ),
    (
        "policy::connections_a_profile_lacks_are_denied",
        connections_a_profile_lacks_are_denied,
    ),
    (
        "policy::flows_of_every_kind_are_denied",
        flows_of_every_kind_are_denied,
    ),
    (
        "policy::raw_sockets_are_denied_or_learned",
        raw_sockets_are_denied_or_learned,
    ),
    (
        "policy::nobody_tends_the_programs",
        nobody_tends_the_programs,
    ),
];

fn shell(arguments: Option<&[&str]>) -> ExecRule {
    ExecRule {
        service: Some(0),
        path: PathBuf::from("/bin/sh"),
        arguments: arguments
            .map(|arguments| arguments.iter().map(|a| a.as_bytes().to_vec()).collect()),
    }
}

fn allowed_programs_run() -> Result<()> {
    let policy = Policy {
        exec: vec![shell(None)],
        ..Policy::default()
    };
    let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/run/exit%203");
    client.send(&head)?;
    ensure!(client.answer()? == "status 3");
    ensure!(stage.wait_exec(sequence)?.decision == Decision::Allowed);
    Ok(())
}

/// One after the other, on one connection; what is in force at the end is what was said last.
fn another_takes_its_place() -> Result<()> {
    let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| Policy::default())?;
    let mut client = stage.connect()?;
    let (killed, status) = stage.end();
    let allowed = Policy {
        exec: vec![
            shell(Some(&["/bin/sh", "-c", "exit 3"])),
            shell(Some(&["/bin/sh", "-c", "exit 4"])),
        ],
        ..Policy::default()
    };
    let narrower = Policy {
        exec: vec![shell(Some(&["/bin/sh", "-c", "exit 4"]))],
        ..Policy::default()
    };
    for (policy, exit, decision, answer) in [
        (None, 3, killed, status),
        (Some(&allowed), 3, Decision::Allowed, "status 3"),
        (Some(&allowed), 4, Decision::Allowed, "status 4"),
        (Some(&narrower), 4, Decision::Allowed, "status 4"),
        (Some(&narrower), 3, killed, status),
        (Some(&Policy::default()), 4, killed, status),
    ] {
        if let Some(policy) = policy {
            let tables = PolicyTables::of(policy, &stage.key);
            stage.sensor.set_policy(tables)?;
        }
        let (sequence, head) = stage.head(&format!("/run/exit%20{exit}"));
        client.send(&head)?;
        let said = client.answer()?;
        ensure!(said == answer, "{policy:?} {exit}: {said}");
        let seen = stage.wait_exec(sequence)?.decision;
        // Where arguments decide, it is the kill that does.
        ensure!(
            seen == decision || seen.is_stop() && decision.is_stop(),
            "{seen:?}"
        );
    }
    let watched = Policy {
        files: vec![FileRule {
            service: 0,
            path: "/etc/shadow".into(),
            watch: Watch::Protect,
        }],
        ..Policy::default()
    };
    let tables = PolicyTables::of(&watched, &stage.key);
    ensure!(stage.sensor.set_policy(tables).is_err());
    Ok(())
}

/// Containers have the same ports, and ports are forwarded: the token says whose policy holds.
fn services_behind_one_port_are_told_apart() -> Result<()> {
    let policy = Policy {
        exec: vec![ExecRule {
            service: Some(1),
            ..shell(None)
        }],
        ..Policy::default()
    };
    let stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
    let (_, stopped) = stage.end();
    for (service, answer) in [(1, stopped), (2, "status 3"), (1, stopped)] {
        let mut client = stage.connect()?;
        let (_, head) = stage.head_for(service, "/run/exit%203");
        client.send(&head)?;
        ensure!(client.answer()? == answer, "{service}");
    }
    Ok(())
}

/// Directories mounted for a test.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn mount(&mut self, kind: &str, options: &str, at: PathBuf) -> Result<()> {
        let mut mount = Command::new("mount");
        let status = mount
            .args(["-t", kind, "-o", options, "clew-test"])
            .arg(&at);
        ensure!(status.status()?.success(), "no {kind} at {}", at.display());
        self.0.push(at);
        Ok(())
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for at in self.0.iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
    }
}

/// Containers live on overlays, whose files `stat(2)` shows another device of than the kernel has.
fn allowed_programs_below_an_overlay_run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(at(name))?;
    }
    let mut mounts = Mounts(Vec::new());
    mounts.mount("tmpfs", "size=4m", at("lower"))?;
    std::fs::copy("/bin/true", at("lower").join("tool"))?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|it| at(it).display().to_string());
    let layers = format!("lowerdir={lower},upperdir={upper},workdir={work},xino=off");
    mounts.mount("overlay", &layers, at("merged"))?;
    let tool = at("merged").join("tool");
    let rule = ExecRule {
        service: None,
        path: tool.clone(),
        arguments: None,
    };
    let policy = Policy {
        exec: vec![shell(None), rule],
        ..Policy::default()
    };
    let stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
    let mut client = stage.connect()?;
    let (_, head) = stage.head(&format!("/run/{}", tool.display()));
    client.send(&head)?;
    ensure!(client.answer()? == "status 0");
    Ok(())
}

fn arguments_are_part_of_the_rule() -> Result<()> {
    let exact = shell(Some(&["/bin/sh", "-c", "exit 4"]));
    let policy = Policy {
        exec: vec![exact],
        ..Policy::default()
    };
    let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
    let mut client = stage.connect()?;
    let (_, head) = stage.head("/run/exit%204");
    client.send(&head)?;
    ensure!(client.answer()? == "status 4");
    let (sequence, head) = stage.head("/run/exit%205");
    client.send(&head)?;
    ensure!(stage.wait_exec(sequence)?.decision == Decision::Killed);
    Ok(())
}

/// `env` stands in for `jspawnhelper`: it does nothing but exec again.
fn trampolines_pass_and_the_next_is_judged() -> Result<()> {
    let policy = Policy {
        exec: vec![shell(None)],
        trampolines: vec![PathBuf::from("/usr/bin/env")],
        ..Policy::default()
    };
    let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/run/exec%20env%20id");
    client.send(&head)?;
    let (decision, _) = stage.end();
    let stopped = stage.wait("stopped id", |event| match event {
        clew_protocol::kernel::KernelEvent::Exec(exec)
            if exec.lineage.sequence == sequence && exec.decision == decision =>
        {
            Some(exec.process.clone())
        }
        _ => None,
    })?;
    ensure!(stopped.arguments == [b"id"]);
    Ok(())
}

fn connections_are_reported() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let target = TcpListener::bind("127.0.0.1:0")?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head(&format!("/open/tcp/{}", place(&target)?));
    client.send(&head)?;
    ensure!(client.answer()? == "opened");
    let connect = stage.wait_connect(sequence)?;
    ensure!(connect.decision == Decision::Observed);
    ensure!(connect.target == target.local_addr()? && connect.transport == Transport::Tcp);
    Ok(())
}

fn connections_a_profile_lacks_are_denied() -> Result<()> {
    let known = TcpListener::bind("127.0.0.1:0")?;
    let unknown = TcpListener::bind("127.0.0.1:0")?;
    let port = known.local_addr()?.port();
    let policy = Policy {
        connect: vec![ConnectRule {
            service: Some(0),
            address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
            prefix_len: 8,
            port: Some(port),
            transport: Transport::Tcp,
        }],
        profiled: vec![0],
        ..Policy::default()
    };
    let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
    let mut client = stage.connect()?;
    let (_, head) = stage.head(&format!("/open/tcp/{}", place(&known)?));
    client.send(&head)?;
    ensure!(client.answer()? == "opened");
    let (sequence, head) = stage.head(&format!("/open/tcp/{}", place(&unknown)?));
    client.send(&head)?;
    let connect = stage.wait_connect(sequence)?;
    ensure!(connect.decision == Decision::Denied);
    // EPERM.
    ensure!(client.answer()? == "error 1");
    ensure!(stage.sensor.stops().total() == 1 && stage.sensor.handed_out() == 1);
    Ok(())
}

/// Whatever family and protocol: none is a way round the profile.
fn flows_of_every_kind_are_denied() -> Result<()> {
    let policy = Policy {
        profiled: vec![0],
        ..Policy::default()
    };
    let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
    let streams = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("[::1]:0")?,
    ];
    let datagrams = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("[::1]:0")?];
    for socket in &datagrams {
        socket.set_nonblocking(true)?;
    }
    let stream = |nth: usize| streams[nth].local_addr();
    let datagram = |nth: usize| datagrams[nth].local_addr();
    let mapped = |address: SocketAddr| format!("::ffff:127.0.0.1/{}", address.port());
    let plain = |address: SocketAddr| format!("{}/{}", address.ip(), address.port());
    let mut client = stage.connect()?;
    for (kind, place, target, transport) in [
        ("tcp", plain(stream(0)?), stream(0)?, Transport::Tcp),
        ("tcp", plain(stream(1)?), stream(1)?, Transport::Tcp),
        ("tcp", mapped(stream(0)?), stream(0)?, Transport::Tcp),
        ("fastopen", plain(stream(0)?), stream(0)?, Transport::Tcp),
        ("fastopen", plain(stream(1)?), stream(1)?, Transport::Tcp),
        ("mptcp", plain(stream(0)?), stream(0)?, Transport::Tcp),
        ("mptcp", plain(stream(1)?), stream(1)?, Transport::Tcp),
        ("udp", plain(datagram(0)?), datagram(0)?, Transport::Udp),
        ("udp", plain(datagram(1)?), datagram(1)?, Transport::Udp),
        ("udp", mapped(datagram(0)?), datagram(0)?, Transport::Udp),
    ] {
        let (sequence, head) = stage.head(&format!("/open/{kind}/{place}"));
        client.send(&head)?;
        let connect = stage
            .wait_connect(sequence)
            .context(format!("{kind} {place}"))?;
        ensure!(
            connect.decision == Decision::Denied,
            "{kind} {place}: {connect:?}"
        );
        ensure!(
            connect.target == target && connect.transport == transport,
            "{kind} {place}: {connect:?}"
        );
        // EPERM.
        let answer = client.answer()?;
        ensure!(answer == "error 1", "{kind} {place}: {answer}");
    }
    for socket in &streams {
        socket.set_nonblocking(true)?;
        ensure!(socket.accept().is_err(), "a connection came through");
    }
    for socket in &datagrams {
        ensure!(socket.recv(&mut [0; 8]).is_err(), "a datagram came through");
    }
    Ok(())
}

/// What they send passes none of the hooks that judge flows. One rule allows them all.
fn raw_sockets_are_denied_or_learned() -> Result<()> {
    let learned = ConnectRule {
        service: Some(0),
        address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        prefix_len: 128,
        port: Some(0),
        transport: Transport::Raw,
    };
    for (connect, expected) in [
        (vec![], Decision::Denied),
        (vec![learned], Decision::Allowed),
    ] {
        let policy = Policy {
            connect,
            profiled: vec![0],
            ..Policy::default()
        };
        let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 65_536, |_| policy)?;
        let mut client = stage.connect()?;
        for kind in ["raw", "ping"] {
            let (sequence, head) = stage.head(&format!("/raw/{kind}"));
            client.send(&head)?;
            let connect = stage.wait_connect(sequence).context(kind)?;
            ensure!(
                connect.decision == expected && connect.transport == Transport::Raw,
                "{kind}: {connect:?}"
            );
            let opened = client.answer()? == "status 0";
            ensure!(opened == (expected == Decision::Allowed), "{kind}");
        }
    }
    Ok(())
}

fn place(listener: &TcpListener) -> Result<String> {
    let address = listener.local_addr()?;
    Ok(format!("{}/{}", address.ip(), address.port()))
}

/// Mode and fallback mode differ: with no heartbeat the fallback holds.
fn nobody_tends_the_programs() -> Result<()> {
    let mut stage = Stage::untended(Mode::Observe, Mode::Enforce)?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/run/true");
    client.send(&head)?;
    ensure!(stage.wait_exec(sequence)?.decision == stage.end().0);
    ensure!(client.answer()? == stage.end().1);
    stage.sensor.heartbeat()?;
    let (_, head) = stage.head("/run/true");
    client.send(&head)?;
    ensure!(client.answer()? == "status 0");
    Ok(())
}
