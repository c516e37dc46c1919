//! What a process takes of the machine.

use anyhow::{Context, Result};

/// At one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vitals {
    pub(super) rss_mib: f64,
    pub(super) threads: u64,
    /// Files that are open.
    pub(super) files: u64,
}

impl Vitals {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|it| it.split_whitespace().next());
            let number = word.and_then(|it| it.parse::<u64>().ok());
            number.with_context(|| format!("no {name} of process {pid}"))
        };
        Ok(Self {
            rss_mib: number("VmRSS:")? as f64 / 1024.0,
            threads: number("Threads:")?,
            files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        })
    }
}

/// By how many MiB memory grew from the first quarter of these looks to the last, by their medians: a single look
/// catches buffers in passing.
pub(super) fn growth_mib(looks: &[Vitals]) -> f64 {
    let median = |looks: &[Vitals]| {
        let mut all: Vec<f64> = looks.iter().map(|it| it.rss_mib).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    };
    let quarter = (looks.len() / 4).max(1);
    let last = looks.len().saturating_sub(quarter);
    median(&looks[last..]) - median(&looks[..quarter.min(looks.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(rss_mib: f64) -> Vitals {
        Vitals {
            rss_mib,
            threads: 1,
            files: 1,
        }
    }

    #[test]
    fn growth_is_from_the_first_quarter_to_the_last() {
        let looks: Vec<Vitals> = (0..12).map(|nth| look(f64::from(nth))).collect();
        assert!((growth_mib(&looks) - 9.0).abs() < 1e-9);
        assert!(growth_mib(&[look(7.0)]).abs() < 1e-9);
        assert!(growth_mib(&[]).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_a_thread_and_a_file() {
        let own = Vitals::of(std::process::id()).expect("this process");
        assert!(own.rss_mib > 0.0 && own.threads > 0 && own.files > 0);
    }
}
