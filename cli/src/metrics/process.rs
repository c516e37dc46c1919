//! Clew's own process.

use std::time::Duration;

use prometheus_client::registry::Unit;
use rustix::time::{ClockId, clock_gettime};

use super::{Family, Sample, Snapshot, Values};

/// What the process takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Process {
    resident_bytes: u64,
    open_files: usize,
    processor_time: Duration,
}

impl Process {
    /// What cannot be read is zero.
    pub(super) fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| {
            let kilobytes = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
            kilobytes.parse::<u64>().ok()
        });
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = Duration::from_secs(u64::try_from(spent.tv_sec).unwrap_or_default());
        Self {
            resident_bytes: resident.unwrap_or_default() * 1024,
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            processor_time: seconds + Duration::from_nanos(spent.tv_nsec.unsigned_abs()),
        }
    }
}

pub(super) fn families(snapshot: &Snapshot) -> Vec<Family> {
    let process = &snapshot.process;
    let build = Sample::with(&[env!("CARGO_PKG_VERSION")], 1.0);
    let spent = Sample::of(process.processor_time.as_secs_f64());
    vec![
        Family::plain(
            "clew_build_info",
            "The version that runs",
            Values::Gauge(vec![build]),
        )
        .labelled(&["version"]),
        Family::gauge("clew_uptime", "Since start", snapshot.uptime.as_secs_f64())
            .measured_in(Unit::Seconds),
        Family::gauge(
            "clew_process_resident_memory",
            "Resident memory of the process",
            process.resident_bytes as f64,
        )
        .measured_in(Unit::Bytes),
        Family::gauge(
            "clew_process_open_fds",
            "Open file descriptors of the process",
            process.open_files as f64,
        ),
        Family::plain(
            "clew_process_cpu",
            "Processor time of the process, user and system",
            Values::Counter(vec![spent]),
        )
        .measured_in(Unit::Seconds),
        Family::counter(
            "clew_log_lost_lines",
            "Lines of the log lost: nobody reads it fast enough",
            snapshot.lost_log_lines,
        ),
        Family::counter(
            "clew_incidents_unwritten",
            "Records of incidents that could not be written: the disk is too slow, or full",
            snapshot.unwritten_incidents,
        ),
        Family::counter(
            "clew_audit_failures",
            "Changes that could not be written to the audit log",
            snapshot.audit_failures,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured() {
        let process = Process::read();
        assert!(
            process.resident_bytes > 1 << 20 && process.open_files > 2,
            "{process:?}"
        );
    }
}
