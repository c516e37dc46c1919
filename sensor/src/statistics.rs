//! What the programs cost, as the kernel counts it (`kernel.bpf_stats_enabled`).

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::{Program, ProgramError, TestRun, TestRunOptions, loaded_programs};
use aya::sys::{Stats, SyscallError, enable_stats};
use clew_protocol::Moment;
use ipnet::Ipv4Net;

use crate::attach::failed;
use crate::barrier::Barrier;
use crate::steps::{self, BARRIER, REFUSE};
use crate::{BarrierError, LoadError, Sensor};

/// One program's runs so far. Zero unless counting is on: [`count_run_time`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramCost {
    /// The kernel's id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Runs.
    pub runs: u64,
    /// Time spent in them, the counting itself included.
    pub run_time: Duration,
    /// Instructions that the verifier has followed, over all paths (Linux 5.16).
    pub verified_instructions: Option<u32>,
}

/// Switches counting on until the returned descriptor is dropped (Linux 5.8).
///
/// # Errors
///
/// Needs `CAP_SYS_ADMIN`.
pub fn count_run_time() -> Result<OwnedFd, SyscallError> {
    enable_stats(Stats::RunTime)
}

/// The programs of one sensor.
///
/// # Errors
///
/// The kernel does not answer.
pub fn of(sensor: &Sensor) -> Result<Vec<ProgramCost>, ProgramError> {
    sensor
        .programs()
        .map(|program| program.info().map(|info| cost(&info)))
        .collect()
}

/// The programs of all sensors on this host, whoever loaded them; needs `CAP_SYS_ADMIN`.
///
/// # Errors
///
/// The kernel does not answer.
pub fn of_all() -> Result<Vec<ProgramCost>, ProgramError> {
    let ours = |cost: &ProgramCost| steps::is_ours(&cost.name);
    loaded_programs()
        .map(|info| info.map(|info| cost(&info)))
        .filter(|cost| cost.as_ref().map_or(true, ours))
        .collect()
}

/// What the barrier's program costs per packet: medians over many sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierCost {
    /// Of a packet that is for another port, and of measuring.
    pub aside: Duration,
    /// Of one whose source is not banned.
    pub passed: Duration,
    /// Of one whose source is, by its address.
    pub refused: Duration,
    /// Of one whose source is, by a prefix.
    pub refused_by_prefix: Duration,
}

/// Measures the barrier with `bans` addresses and as many prefixes in its tables; it is put at no interface.
/// Each source is asked for `repeat` times in a row: once shows what memory costs, often what the look does.
///
/// # Errors
///
/// See [`LoadError`]; the kernel cannot run a program for a test (Linux 4.12).
pub fn barrier(bans: u32, repeat: u32) -> Result<BarrierCost, BarrierError> {
    const PORT: u16 = 443;
    // Addresses of 11/8 and networks of 16/8 and what follows it are banned; 12/8 is not.
    const BANNED: u32 = 11 << 24;
    const PREFIXES: u32 = 16 << 24;
    const OTHERS: u32 = 12 << 24;
    let mut ebpf = crate::sensor::open()?;
    let barrier = Barrier::load(&mut ebpf, &[PORT])?;
    let full = |source| LoadError::Map {
        name: "BANS",
        source,
    };
    let until = Moment::now().after(Duration::from_secs(3600));
    for nth in 0..bans {
        let prefix = Ipv4Net::new_assert(Ipv4Addr::from(PREFIXES + (nth << 8)), 24);
        barrier.put(prefix.into(), until).map_err(full)?;
        let address = IpAddr::from(Ipv4Addr::from(BANNED + nth));
        barrier.put(address.into(), until).map_err(full)?;
    }
    // The kernel waits for all processors before it runs a program more than once (net/bpf/test_run.c).
    let sources = if repeat == 1 { 4096 } else { 64 };
    // Those that are asked lie all over the table.
    let spread = |nth: u32| nth.wrapping_mul(2_654_435_761);
    let median = |source: &dyn Fn(u32) -> u32, port: u16| {
        let run = |nth| run(&ebpf, &segment(source(spread(nth)), port), repeat);
        let mut spans = (0..sources).map(run).collect::<Result<Vec<_>, _>>()?;
        spans.sort_unstable();
        Ok::<_, BarrierError>(spans[spans.len() / 2])
    };
    let other = |nth: u32| OTHERS + nth % (1 << 24);
    Ok(BarrierCost {
        aside: median(&other, PORT + 1)?,
        passed: median(&other, PORT)?,
        refused: median(&|nth| BANNED + nth % bans.max(1), PORT)?,
        refused_by_prefix: median(&|nth| PREFIXES + ((nth % bans.max(1)) << 8) + 1, PORT)?,
    })
}

/// How long the barrier's program takes for a packet.
fn run(ebpf: &Ebpf, packet: &[u8], repeat: u32) -> Result<Duration, LoadError> {
    let failed = |source| failed(BARRIER.step, &REFUSE, source);
    let Some(Program::Xdp(program)) = ebpf.program(REFUSE.program) else {
        return Err(failed(ProgramError::UnexpectedProgramType));
    };
    let options = TestRunOptions {
        data_in: Some(packet),
        repeat,
        ..TestRunOptions::new()
    };
    Ok(program.test_run(options).map_err(failed)?.duration)
}

/// The headers of a TCP segment (Ethernet, IPv4, TCP) from `source` to `port`.
fn segment(source: u32, port: u16) -> [u8; 54] {
    let mut packet = [0; 54];
    packet[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());
    packet[14] = 0x45;
    packet[23] = 6;
    packet[26..30].copy_from_slice(&source.to_be_bytes());
    packet[36..38].copy_from_slice(&port.to_be_bytes());
    packet
}

/// Whether the program with this id is still loaded.
pub fn exists(id: u32) -> bool {
    loaded_programs().flatten().any(|info| info.id() == id)
}

/// Programs that do nothing on the hooks that each request passes, at work while it lives: what
/// they cost is what the hooks, running and counting cost.
pub struct Null {
    ebpf: aya::Ebpf,
    _links: Vec<aya::programs::links::FdLink>,
}

impl Null {
    /// Loads them and attaches them to `cgroup`, or to all, and to reads from sockets.
    ///
    /// # Errors
    ///
    /// As [`Sensor::load`].
    pub fn attach(cgroup: Option<&Path>) -> Result<Self, LoadError> {
        let cgroup = crate::cgroup::open(cgroup).map_err(LoadError::Cgroup)?;
        let mut ebpf = crate::sensor::open()?;
        let _links = crate::attach::attach_nulls(&mut ebpf, &cgroup)?;
        Ok(Self { ebpf, _links })
    }

    /// The runs so far of the one at ingress.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn cost(&self) -> Result<ProgramCost, ProgramError> {
        let program = self.ebpf.program(steps::NULL);
        program
            .ok_or(ProgramError::NotLoaded)?
            .info()
            .map(|info| cost(&info))
    }
}

fn cost(info: &aya::programs::ProgramInfo) -> ProgramCost {
    ProgramCost {
        id: info.id(),
        name: info.name_as_str().unwrap_or_default().to_owned(),
        runs: info.run_count(),
        run_time: info.run_time(),
        verified_instructions: info.verified_instruction_count(),
    }
}
