//! What the programs cost, as the kernel counts it (`kernel.bpf_stats_enabled`).

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use aya::programs::{ProgramError, loaded_programs};
use aya::sys::{Stats, SyscallError, enable_stats};

use crate::attach::STEPS;
use crate::{LoadError, Sensor};

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
    let ours = |cost: &ProgramCost| STEPS.iter().any(|step| step.program == cost.name);
    loaded_programs()
        .map(|info| info.map(|info| cost(&info)))
        .filter(|cost| cost.as_ref().map_or(true, ours))
        .collect()
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
        let program = self.ebpf.program(crate::attach::NULL);
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
    }
}
