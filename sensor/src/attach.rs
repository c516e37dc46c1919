//! Loading the programs and putting each on its hook.

use std::fs::File;

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError};
use aya::{Btf, Ebpf};

use crate::network;
use crate::sensor::LoadError;

/// What a program hooks.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    /// A BTF tracepoint, by name.
    Tracepoint(&'static str),
    /// One that came late to the kernel, and without which the rest works.
    OptionalTracepoint(&'static str),
    /// Packets into a cgroup's sockets.
    Ingress,
    /// `connect` and `sendmsg` in a cgroup.
    SocketAddress,
    /// `socket` in a cgroup.
    SocketCreation,
    /// What TCP asks of its own in a cgroup's sockets.
    SocketOperations,
    /// The TCP sockets that are there, once; without it the rest works.
    Sockets,
    /// What comes in at an interface.
    Interface,
}

/// One program of `sensor-ebpf`, and the step it does.
pub(crate) struct Step {
    /// The step's name in the design and in `clew doctor`.
    pub(crate) step: &'static str,
    /// The program's name.
    pub(crate) program: &'static str,
    /// Its hook.
    pub(crate) hook: Hook,
}

/// All programs. Those that judge come before the one that tags: what is tagged is always judged.
pub(crate) const STEPS: [Step; 14] = [
    Step {
        step: "decide",
        program: "decide",
        hook: Hook::Tracepoint("sched_process_exec"),
    },
    Step {
        step: "deny",
        program: "connect4",
        hook: Hook::SocketAddress,
    },
    Step {
        step: "deny",
        program: "connect6",
        hook: Hook::SocketAddress,
    },
    Step {
        step: "deny",
        program: "sendmsg4",
        hook: Hook::SocketAddress,
    },
    Step {
        step: "deny",
        program: "sendmsg6",
        hook: Hook::SocketAddress,
    },
    Step {
        step: "deny",
        program: "socket",
        hook: Hook::SocketCreation,
    },
    Step {
        step: "inherit",
        program: "inherit",
        hook: Hook::Tracepoint("sched_process_fork"),
    },
    Step {
        step: "inherit",
        program: "prepare",
        hook: Hook::OptionalTracepoint("sched_prepare_exec"),
    },
    Step {
        step: "send",
        program: "send",
        hook: Hook::SocketOperations,
    },
    Step {
        step: "send",
        program: "adopt",
        hook: Hook::Sockets,
    },
    Step {
        step: "hop",
        program: "answer",
        hook: Hook::Tracepoint("sock_send_length"),
    },
    Step {
        step: "hop",
        program: "hop",
        hook: Hook::Tracepoint("sock_recv_length"),
    },
    Step {
        step: "bind",
        program: "bind",
        hook: Hook::Tracepoint("tcp_rcv_space_adjust"),
    },
    Step {
        step: "tag",
        program: "tag",
        hook: Hook::Ingress,
    },
];

/// What refuses the banned; only where interfaces are named.
pub(crate) const BARRIER: Step = Step {
    step: "ban",
    program: "refuse",
    hook: Hook::Interface,
};

/// The program that does nothing.
pub(crate) const NULL: &str = "null";

/// Programs that do nothing, on the hooks that every request passes.
const NULLS: [Step; 2] = [
    Step {
        step: "measure",
        program: NULL,
        hook: Hook::Ingress,
    },
    Step {
        step: "measure",
        program: "null_read",
        hook: Hook::Tracepoint("tcp_rcv_space_adjust"),
    },
];

/// Attaches what does nothing, until the links are dropped.
pub(crate) fn attach_nulls(ebpf: &mut Ebpf, cgroup: &File) -> Result<Vec<FdLink>, LoadError> {
    let btf = Btf::from_sys_fs()?;
    let attach = |step: &Step| step.attach(ebpf, &btf, cgroup).transpose();
    NULLS.iter().filter_map(attach).collect()
}

impl Step {
    /// Whether `error` says that this kernel has nothing to hook, for a step that is optional.
    pub(crate) fn is_dispensable(&self, error: &ProgramError) -> bool {
        match self.hook {
            Hook::OptionalTracepoint(_) => matches!(error, ProgramError::Btf(_)),
            Hook::Sockets => true,
            _ => false,
        }
    }

    /// Has the verifier look at the program.
    pub(crate) fn load(&self, ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
        match (self.hook, ebpf.program_mut(self.program)) {
            (
                Hook::Tracepoint(name) | Hook::OptionalTracepoint(name),
                Some(Program::BtfTracePoint(it)),
            ) => it.load(name, btf),
            (Hook::Ingress, Some(Program::CgroupSkb(it))) => it.load(),
            (Hook::SocketAddress, Some(Program::CgroupSockAddr(it))) => it.load(),
            (Hook::SocketCreation, Some(Program::CgroupSock(it))) => it.load(),
            (Hook::SocketOperations, Some(Program::SockOps(it))) => it.load(),
            (Hook::Sockets, Some(Program::Iter(it))) => it.load("tcp", btf),
            (Hook::Interface, Some(Program::Xdp(it))) => it.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        }
    }

    /// Puts the loaded program on its hook; the link keeps it there. None of what is run at once.
    fn hook_up(&self, ebpf: &mut Ebpf, cgroup: &File) -> Result<Option<FdLink>, ProgramError> {
        // No flag: a link always leaves the programs of others in place (kernel/bpf/cgroup.c).
        let mode = CgroupAttachMode::default();
        // Links to cgroups have descriptors since Linux 5.7.
        let no_link = |_| ProgramError::NotAttached;
        let link = match (self.hook, ebpf.program_mut(self.program)) {
            (
                Hook::Tracepoint(_) | Hook::OptionalTracepoint(_),
                Some(Program::BtfTracePoint(it)),
            ) => {
                let id = it.attach()?;
                Ok(it.take_link(id)?.into())
            }
            (Hook::Sockets, Some(Program::Iter(it))) => {
                network::visit_sockets(it)?;
                return Ok(None);
            }
            (Hook::Ingress, Some(Program::CgroupSkb(it))) => {
                let id = it.attach(cgroup, CgroupSkbAttachType::Ingress, mode)?;
                it.take_link(id)?.try_into().map_err(no_link)
            }
            (Hook::SocketAddress, Some(Program::CgroupSockAddr(it))) => {
                let id = it.attach(cgroup, mode)?;
                it.take_link(id)?.try_into().map_err(no_link)
            }
            (Hook::SocketCreation, Some(Program::CgroupSock(it))) => {
                let id = it.attach(cgroup, mode)?;
                it.take_link(id)?.try_into().map_err(no_link)
            }
            (Hook::SocketOperations, Some(Program::SockOps(it))) => {
                let id = it.attach(cgroup, mode)?;
                it.take_link(id)?.try_into().map_err(no_link)
            }
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        link.map(Some)
    }

    /// Loads the program and puts it on its hook; no link where it is done already, or has none and need not.
    pub(crate) fn attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        cgroup: &File,
    ) -> Result<Option<FdLink>, LoadError> {
        let done = self
            .load(ebpf, btf)
            .and_then(|()| self.hook_up(ebpf, cgroup));
        match done {
            Ok(link) => Ok(link),
            Err(error) if self.is_dispensable(&error) => {
                tracing::info!(program = self.program, "this kernel has no hook for it");
                Ok(None)
            }
            Err(source) => Err(LoadError::Program {
                step: self.step,
                program: self.program,
                source: Box::new(source),
            }),
        }
    }
}
