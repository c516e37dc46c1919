//! What this kernel and these rights allow, step by step, and what to do about the rest.

use std::error::Error;

use aya::Btf;

use crate::steps::{self, BARRIER, BY_CALL, Choice, FILES, Part};
use crate::{btf, cgroup, pin, sensor};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What it is for.
    pub step: String,
    /// What provides it here.
    pub provider: String,
    /// It works.
    pub ok: bool,
    /// `clew run` cannot protect without it.
    pub needed: bool,
    /// What was seen.
    pub detail: String,
    /// The program that provides it, of those that are loaded into the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// What to do when it does not.
    pub remedy: Option<String>,
}

/// A program that the kernel has taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// What the kernel must have for it.
    pub needs: String,
    /// Instructions that the verifier has followed, over all paths (Linux 5.16).
    pub verified_instructions: Option<u32>,
}

impl Finding {
    fn new(step: &str, provider: &str, seen: Result<String, String>, remedy: &str) -> Self {
        let ok = seen.is_ok();
        Self {
            step: step.to_owned(),
            provider: provider.to_owned(),
            ok,
            needed: true,
            detail: seen.unwrap_or_else(|detail| detail),
            program: None,
            remedy: (!ok).then(|| remedy.to_owned()),
        }
    }
}

/// Tries everything that [`crate::Sensor::load`] needs, without attaching anything.
///
/// Where BTF or rights are missing the programs are not tried: their errors would say the same.
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![kernel(), types(), hierarchy(), file_system()];
    match sensor::open() {
        Ok(mut ebpf) => {
            findings.push(Finding::new(
                "rights",
                "bpf(2)",
                Ok("maps can be made".into()),
                "",
            ));
            findings.extend(programs(&mut ebpf));
        }
        Err(error) => findings.push(Finding::new(
            "rights",
            "bpf(2)",
            Err(chain(&error)),
            "run as root; Clew drops root once its programs are loaded",
        )),
    }
    findings
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let seen = Ok(uname.release().to_string_lossy().into_owned());
    Finding::new("kernel", "uname(2)", seen, "")
}

fn types() -> Finding {
    let seen = btf::Btf::of_kernel()
        .and_then(|btf| btf::offsets(&btf))
        .map(|_| "every structure member found".to_owned())
        .map_err(|error| error.to_string());
    let remedy = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all distributions' are";
    Finding::new("types", btf::VMLINUX, seen, remedy)
}

fn hierarchy() -> Finding {
    let seen = match cgroup::mounted() {
        Some(path) => Ok(format!("mounted at {}", path.display())),
        None if rustix::process::geteuid().is_root() => Ok("not mounted; will be".to_owned()),
        None => Err("not mounted".to_owned()),
    };
    Finding::new("sockets", "cgroup2", seen, "run as root, or mount cgroup2")
}

fn file_system() -> Finding {
    let (seen, needed) = match pin::leftovers() {
        Ok(found) if found.is_empty() => (Ok("nothing left behind".to_owned()), true),
        Ok(found) => {
            let count = found.len();
            let seen = format!("{count} pin directories of processes that are gone");
            (Err(seen), false)
        }
        Err(error) => (Err(error.to_string()), true),
    };
    let remedy = "clew doctor --clean removes what was left behind; so does the next clew run";
    Finding {
        needed,
        ..Finding::new("pins", "/sys/fs/bpf", seen, remedy)
    }
}

fn programs(ebpf: &mut aya::Ebpf) -> Vec<Finding> {
    let btf = match Btf::from_sys_fs() {
        Ok(btf) => btf,
        Err(error) => {
            let seen = Err(error.to_string());
            return vec![Finding::new(
                "types",
                btf::VMLINUX,
                seen,
                "see the line above",
            )];
        }
    };
    let beside = [&BY_CALL, &FILES[1], &FILES[2], &BARRIER];
    let parts = steps::parts().chain(beside);
    parts.map(|it| part(it, ebpf, &btf)).collect()
}

fn part(part: &Part, ebpf: &mut aya::Ebpf, btf: &Btf) -> Finding {
    let Choice { chosen, refused } = part.choose(ebpf, btf);
    let better = refused.iter().map(|(provider, error)| {
        let (name, hook, needs) = (provider.program, provider.hook.name(), provider.needs);
        let reason = reason(&chain(error));
        format!("{name} at {hook} needs {needs}: {reason}")
    });
    let better = better.collect::<Vec<_>>().join("; ");
    let Some(provider) = chosen else {
        let first = part.providers[0].hook.name();
        let remedy = "this kernel lacks the hook or refuses the program; `clew run --no-sensor` runs \
                      the edge alone";
        return match part.without {
            None => Finding::new(part.step, &first, Err(better), remedy),
            Some(without) => Finding {
                needed: false,
                ..Finding::new(part.step, &first, Err(without.to_owned()), &better)
            },
        };
    };
    let program = Program {
        name: provider.program.to_owned(),
        needs: provider.needs.to_owned(),
        verified_instructions: provider.verified_instructions(ebpf),
    };
    let size = program.verified_instructions.unwrap_or(0);
    let mut detail = format!("program {}, {size} instructions followed", program.name);
    if !better.is_empty() {
        detail = format!("{detail}; {better}");
    }
    Finding {
        needed: part.without.is_none(),
        program: Some(program),
        ..Finding::new(part.step, &provider.hook.name(), Ok(detail), "")
    }
}

/// The error and its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What failed, and the verifier's last word on it: what it says before is the program as it has followed
/// it, and behind it come its sums.
fn reason(text: &str) -> String {
    // The last is where the error's own cause is appended.
    const SUMS: [&str; 4] = ["verification time", "stack depth", "processed ", ": "];
    let (failed, log) = text.split_once('\n').unwrap_or((text, ""));
    let failed = failed.split(" Verifier output:").next().unwrap_or(failed);
    let is_sum = |line: &&str| SUMS.iter().any(|sum| line.starts_with(sum));
    let mut words = log.lines().rev().map(str::trim);
    match words.find(|line| !line.is_empty() && !is_sum(line)) {
        Some(word) => format!("{failed} ({word})"),
        None => failed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_word_is_the_reason() {
        let log = "load failed. Verifier output: 0: R1=ctx()\n1: (85) call 9#9\nunknown func 9#9\n\
                   verification time 3 usec\nstack depth 0\nprocessed 2 insns\n: os error";
        assert_eq!(reason(log), "load failed. (unknown func 9#9)");
        assert_eq!(reason("no rights"), "no rights");
    }
}
