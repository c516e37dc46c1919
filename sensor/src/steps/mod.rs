//! What the programs do, step by step, and what in a kernel can provide each: one file a step.
//!
//! Nothing is concluded from a kernel's version: a provider is there when the kernel takes its program.

mod ban;
mod bind;
mod decide;
mod deny;
mod file;
mod hop;
mod inherit;
mod measure;
mod send;
mod tag;

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};

use crate::attach::Hook;
use crate::policy::Policy;

pub(crate) use ban::{BARRIER, REFUSE};
pub(crate) use file::{BY_CALL, PARTS as FILES};
pub(crate) use measure::{NULL, NULLS};

/// What programs at the entries and exits of kernel functions need.
const TRAMPOLINES: &str = "CONFIG_FUNCTION_TRACER, and trampolines (x86: Linux 5.5, arm64: 6.4)";

/// All that a request is followed by. Those that judge come before the one that tags: what is tagged is always
/// judged.
pub(crate) const PARTS: [&[Part]; 7] = [
    &decide::PARTS,
    &deny::PARTS,
    &inherit::PARTS,
    &send::PARTS,
    &hop::PARTS,
    &[bind::PART],
    &[tag::PART],
];

/// One thing to be done, which one program does.
pub(crate) struct Part {
    /// The step's name in the design and in `clew doctor`.
    pub(crate) step: &'static str,
    /// Who can do it, the best first.
    pub(crate) providers: &'static [Provider],
    /// What is lost where nobody can; `None`: nothing goes without it.
    pub(crate) without: Option<&'static str>,
}

/// A program of `sensor-ebpf`, and where it is put.
pub(crate) struct Provider {
    /// The program's name.
    pub(crate) program: &'static str,
    /// Its hook.
    pub(crate) hook: Hook,
    /// What the kernel must have for it.
    pub(crate) needs: &'static str,
}

/// What came of looking for a provider.
pub(crate) struct Choice {
    /// The one whose program is loaded.
    pub(crate) chosen: Option<&'static Provider>,
    /// Those before it, and why not.
    pub(crate) refused: Vec<(&'static Provider, ProgramError)>,
}

/// Every part, in the order in which they are attached.
pub(crate) fn parts() -> impl Iterator<Item = &'static Part> {
    PARTS.iter().copied().flatten()
}

/// What is attached beside, where `policy` watches files.
pub(crate) fn files(policy: &Policy, by_call: bool) -> impl Iterator<Item = &'static Part> {
    let (opens, puts) = FILES.split_at(1);
    let opens = if by_call {
        std::slice::from_ref(&BY_CALL)
    } else {
        opens
    };
    let is_watched = !policy.files.is_empty();
    let all = opens.iter().chain(puts);
    all.filter(move |_| is_watched)
}

/// Whether the program follows requests, by whatever provider.
pub(crate) fn is_ours(program: &str) -> bool {
    parts()
        .chain(&FILES)
        .chain([&BY_CALL])
        .flat_map(|part| part.providers)
        .any(|provider| provider.program == program)
}

impl Part {
    /// Loads the program of the first provider whose program the kernel takes.
    pub(crate) fn choose(&self, ebpf: &mut Ebpf, btf: &Btf) -> Choice {
        let mut refused = Vec::new();
        for provider in self.providers {
            match provider.load(ebpf, btf) {
                Ok(()) => {
                    let chosen = Some(provider);
                    return Choice { chosen, refused };
                }
                Err(error) => refused.push((provider, error)),
            }
        }
        let chosen = None;
        Choice { chosen, refused }
    }
}

impl Provider {
    /// Has the verifier look at the program.
    pub(crate) fn load(&self, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
        self.hook.load(ebpf.program_mut(self.program), btf)
    }

    /// Instructions that the verifier has followed in the loaded program, over all paths (Linux 5.16).
    pub(crate) fn verified_instructions(&self, ebpf: &Ebpf) -> Option<u32> {
        let info = ebpf.program(self.program).map(Program::info)?;
        info.ok()?.verified_instruction_count()
    }
}
