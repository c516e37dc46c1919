//! Loading programs and putting each on its hook.

use std::fs::File;
use std::io;

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError};
use aya::{Btf, Ebpf};

use crate::sensor::LoadError;
use crate::steps::{Choice, NULLS, Part, Provider};
use crate::{lsm, network};

/// What a program hooks.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    /// A BTF tracepoint, by name.
    Tracepoint(&'static str),
    /// The entry of a kernel function, by name.
    Entry(&'static str),
    /// A decision of the kernel's security modules, by name.
    Lsm(&'static str),
    /// The return of a kernel function, by name.
    Exit(&'static str),
    /// Packets into a cgroup's sockets.
    Ingress,
    /// `connect` or `sendmsg` in a cgroup, for a family of addresses.
    SocketAddress(&'static str),
    /// `socket` in a cgroup.
    SocketCreation,
    /// What TCP asks of its own in a cgroup's sockets.
    SocketOperations,
    /// The TCP sockets that are there, once.
    Sockets,
    /// What comes in at an interface.
    Interface,
}

impl Hook {
    /// As the kernel's documentation names it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tracepoint(name) => format!("tp_btf/{name}"),
            Self::Entry(function) => format!("fentry/{function}"),
            Self::Lsm(hook) => format!("lsm/{hook}"),
            Self::Exit(function) => format!("fexit/{function}"),
            Self::Ingress => "cgroup_skb/ingress".to_owned(),
            Self::SocketAddress(call) => format!("cgroup/{call}"),
            Self::SocketCreation => "cgroup/sock_create".to_owned(),
            Self::SocketOperations => "cgroup/sock_ops".to_owned(),
            Self::Sockets => "iter/tcp".to_owned(),
            Self::Interface => "xdp".to_owned(),
        }
    }

    pub(crate) fn load(self, program: Option<&mut Program>, btf: &Btf) -> Result<(), ProgramError> {
        match (self, program) {
            (Self::Tracepoint(name), Some(Program::BtfTracePoint(it))) => it.load(name, btf),
            (Self::Entry(function), Some(Program::FEntry(it))) => it.load(function, btf),
            (Self::Lsm(hook), Some(Program::Lsm(it))) => {
                if !lsm::is_active()? {
                    let error = io::Error::other("BPF is not among the kernel's security modules");
                    return Err(error.into());
                }
                it.load(hook, btf)
            }
            (Self::Exit(function), Some(Program::FExit(it))) => it.load(function, btf),
            (Self::Ingress, Some(Program::CgroupSkb(it))) => it.load(),
            (Self::SocketAddress(_), Some(Program::CgroupSockAddr(it))) => it.load(),
            (Self::SocketCreation, Some(Program::CgroupSock(it))) => it.load(),
            (Self::SocketOperations, Some(Program::SockOps(it))) => it.load(),
            (Self::Sockets, Some(Program::Iter(it))) => it.load("tcp", btf),
            (Self::Interface, Some(Program::Xdp(it))) => it.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        }
    }

    /// Puts the loaded program in its place; the link keeps it there. None of what is run at once.
    fn attach(
        self,
        program: Option<&mut Program>,
        cgroup: &File,
    ) -> Result<Option<FdLink>, ProgramError> {
        // No flag: a link always leaves the programs of others in place (kernel/bpf/cgroup.c).
        let mode = CgroupAttachMode::default();
        // Links to cgroups have descriptors since Linux 5.7.
        let no_link = |_| ProgramError::NotAttached;
        let link = match (self, program) {
            (Self::Tracepoint(_), Some(Program::BtfTracePoint(it))) => {
                let id = it.attach()?;
                Ok(it.take_link(id)?.into())
            }
            (Self::Entry(_), Some(Program::FEntry(it))) => {
                let id = it.attach()?;
                Ok(it.take_link(id)?.into())
            }
            (Self::Lsm(_), Some(Program::Lsm(it))) => {
                let id = it.attach()?;
                Ok(it.take_link(id)?.into())
            }
            (Self::Exit(_), Some(Program::FExit(it))) => {
                let id = it.attach()?;
                Ok(it.take_link(id)?.into())
            }
            (Self::Sockets, Some(Program::Iter(it))) => {
                network::visit_sockets(it)?;
                return Ok(None);
            }
            (Self::Ingress, Some(Program::CgroupSkb(it))) => {
                let id = it.attach(cgroup, CgroupSkbAttachType::Ingress, mode)?;
                it.take_link(id)?.try_into().map_err(no_link)
            }
            (Self::SocketAddress(_), Some(Program::CgroupSockAddr(it))) => {
                let id = it.attach(cgroup, mode)?;
                it.take_link(id)?.try_into().map_err(no_link)
            }
            (Self::SocketCreation, Some(Program::CgroupSock(it))) => {
                let id = it.attach(cgroup, mode)?;
                it.take_link(id)?.try_into().map_err(no_link)
            }
            (Self::SocketOperations, Some(Program::SockOps(it))) => {
                let id = it.attach(cgroup, mode)?;
                it.take_link(id)?.try_into().map_err(no_link)
            }
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        link.map(Some)
    }
}

/// Attaches what does nothing, until the links are dropped.
pub(crate) fn attach_nulls(ebpf: &mut Ebpf, cgroup: &File) -> Result<Vec<FdLink>, LoadError> {
    let btf = Btf::from_sys_fs()?;
    let mut links = Vec::new();
    for provider in &NULLS {
        let loaded = provider.load(ebpf, &btf);
        let attached = loaded.and_then(|()| provider.attach(ebpf, cgroup));
        links.extend(attached.map_err(|source| failed("measure", provider, source))?);
    }
    Ok(links)
}

impl Provider {
    /// Puts the loaded program on its hook.
    fn attach(&self, ebpf: &mut Ebpf, cgroup: &File) -> Result<Option<FdLink>, ProgramError> {
        self.hook.attach(ebpf.program_mut(self.program), cgroup)
    }
}

impl Part {
    /// Loads the best program there is for it and puts it on its hook.
    pub(crate) fn attach(
        &self,
        ebpf: &mut Ebpf,
        btf: &Btf,
        cgroup: &File,
    ) -> Result<Attached, LoadError> {
        let Choice { chosen, refused } = self.choose(ebpf, btf);
        let attached = match (chosen, refused.into_iter().next_back()) {
            (Some(provider), _) => match provider.attach(ebpf, cgroup) {
                Ok(Some(link)) => return Ok(Attached::Link(provider.program, link)),
                Ok(None) => return Ok(Attached::Done),
                Err(source) => Some((provider, source)),
            },
            (None, refused) => refused,
        };
        match (self.without, attached) {
            (None, Some((provider, source))) => Err(failed(self.step, provider, source)),
            (without, _) => Ok(Attached::Without(without.unwrap_or_default())),
        }
    }
}

/// What came of attaching a part.
pub(crate) enum Attached {
    /// The program with this name is at work, and its link is to be kept.
    Link(&'static str, FdLink),
    /// It has run, and that was all.
    Done,
    /// The kernel has nobody for it, and what is lost is not needed.
    Without(&'static str),
}

pub(crate) fn failed(step: &'static str, provider: &Provider, source: ProgramError) -> LoadError {
    LoadError::Program {
        step,
        program: provider.program,
        source: Box::new(source),
    }
}
