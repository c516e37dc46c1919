//! Turns records of the kernel into events; the only place that reads their bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use clew_protocol::kernel::{
    Access, Ancestor, Connect, Decision, Exec, FileAccess, FileKey, KernelEvent, Lineage, Process,
    ProcessKey, Strength, Transport,
};
use clew_protocol::{Moment, Sequence};
use clew_sensor_abi::policy::PROTOCOL_RAW;
use clew_sensor_abi::record::{
    self, ACCESS_READ, ACCESS_WRITE, ANCESTORS, CGROUP_LEVELS, DECISION_ALLOWED, DECISION_DENIED,
    DECISION_KILLED, DECISION_OBSERVED, Header, KIND_CONNECT, KIND_EXEC, KIND_FILE,
    STRENGTH_PROCESS, STRENGTH_READER, STRENGTH_THREAD, TaskContext,
};
use clew_sensor_abi::{ABI_VERSION, RECENT};
use thiserror::Error;

use crate::file::user_device;

/// Why a record is not an event.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its kind.
    #[error("record of {found} bytes where {expected} are needed")]
    Short {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// Written by other programs than these.
    #[error("record of version {0}; the programs in the kernel are not this build's")]
    Version(u16),
    /// A number that stands for nothing.
    #[error("unknown {what} {number}")]
    Unknown {
        /// What it should have named.
        what: &'static str,
        /// The number.
        number: u16,
    },
}

/// Decodes one record.
///
/// # Errors
///
/// See [`DecodeError`]; any bytes are safe to hand in.
pub(crate) fn event(bytes: &[u8]) -> Result<KernelEvent, DecodeError> {
    let header: Header = view(bytes)?;
    if header.version != ABI_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    match header.kind {
        KIND_EXEC => exec(&view(bytes)?).map(|exec| KernelEvent::Exec(Box::new(exec))),
        KIND_CONNECT => {
            connect(&view(bytes)?).map(|connect| KernelEvent::Connect(Box::new(connect)))
        }
        KIND_FILE => file(&view(bytes)?).map(|file| KernelEvent::File(Box::new(file))),
        number => Err(DecodeError::Unknown {
            what: "kind of record",
            number,
        }),
    }
}

/// Records: `repr(C)`, integers only, no implicit padding, valid for every bit pattern.
trait Record: Copy {}
impl Record for Header {}
impl Record for record::Exec {}
impl Record for record::Connect {}
impl Record for record::File {}

fn view<T: Record>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() < size_of::<T>() {
        return Err(DecodeError::Short {
            expected: size_of::<T>(),
            found: bytes.len(),
        });
    }
    // SAFETY: enough bytes, and every bit pattern is a `Record`; unaligned reads are fine here.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

fn connect(record: &record::Connect) -> Result<Connect, DecodeError> {
    let address = IpAddr::V6(Ipv6Addr::from(record.address)).to_canonical();
    Ok(Connect {
        at: Moment(record.header.at),
        lineage: lineage(&record.context, Moment(record.header.at))?,
        decision: decision(record.decision)?,
        pid: record.pid,
        tid: record.header.tid,
        comm: text(&record.comm),
        target: SocketAddr::new(address, record.port),
        transport: match record.protocol {
            17 => Transport::Udp,
            PROTOCOL_RAW => Transport::Raw,
            _ => Transport::Tcp,
        },
    })
}

fn file(record: &record::File) -> Result<FileAccess, DecodeError> {
    Ok(FileAccess {
        at: Moment(record.header.at),
        lineage: lineage(&record.context, Moment(record.header.at))?,
        decision: decision(record.decision)?,
        pid: record.pid,
        tid: record.header.tid,
        comm: text(&record.comm),
        file: file_key(record.file),
        path: path(&record.path, record.path_start),
        access: match record.access {
            ACCESS_READ => Access::Read,
            ACCESS_WRITE => Access::Write,
            number => {
                return Err(DecodeError::Unknown {
                    what: "access",
                    number: number.into(),
                });
            }
        },
    })
}

fn exec(record: &record::Exec) -> Result<Exec, DecodeError> {
    Ok(Exec {
        at: Moment(record.header.at),
        lineage: lineage(&record.context, Moment(record.header.at))?,
        decision: decision(record.decision)?,
        process: process(record),
    })
}

fn process(record: &record::Exec) -> Process {
    let cgroup_path: Vec<String> = record
        .cgroups
        .iter()
        .take((record.cgroups_len as usize).min(CGROUP_LEVELS))
        .map(|name| text(name))
        .filter(|name| !name.is_empty())
        .collect();
    Process {
        pid: record.pid,
        uid: record.uid,
        gid: record.gid,
        comm: comm_of(record),
        executable: path(&record.executable, record.executable_start),
        filename: until_nul(&record.filename).to_vec(),
        working_directory: path(&record.directory, record.directory_start),
        file: Some(file_key(record.file)),
        arguments: strings(&record.arguments, record.arguments_len),
        environment: strings(&record.environment, record.environment_len),
        ancestry: record
            .ancestors
            .iter()
            .take(record.ancestors_len as usize)
            .map(|ancestor| Ancestor {
                pid: ancestor.pid,
                comm: text(&ancestor.comm),
            })
            .collect(),
        cgroup_id: record.cgroup_id,
        container_id: cgroup_path.iter().find_map(|name| container_id(name)),
        cgroup_path,
        truncated: record.truncated != 0 || is_cut_short(record),
    }
}

/// The program's name. One that was refused has none yet: it is what it would have become (`begin_new_exec`,
/// fs/exec.c).
fn comm_of(record: &record::Exec) -> String {
    if record.decision != DECISION_DENIED {
        return text(&record.comm);
    }
    let filename = until_nul(&record.filename);
    let name = filename.rsplit(|&byte| byte == b'/').next();
    let name = name.unwrap_or_default();
    text(&name[..name.len().min(record.comm.len() - 1)])
}

/// Whether the ways up end below the top: init is process 1, and the root of cgroups has no name.
fn is_cut_short(record: &record::Exec) -> bool {
    let highest = record.ancestors[ANCESTORS - 1].pid;
    let topmost = record.cgroups[CGROUP_LEVELS - 1][0];
    record.ancestors_len as usize == ANCESTORS && highest != 1
        || record.cgroups_len as usize == CGROUP_LEVELS && topmost != 0
}

fn lineage(context: &TaskContext, at: Moment) -> Result<Lineage, DecodeError> {
    let recent = (1..=RECENT as u32)
        .map(|back| context.recent[context.reads.wrapping_sub(back) as usize % RECENT])
        .filter(|&sequence| sequence != 0)
        .map(Sequence)
        .chain(may_be_strangers(context, at).then_some(Sequence::STRANGER))
        .collect();
    Ok(Lineage {
        strength: strength(context.strength)?,
        sequence: Sequence(context.sequence),
        backend: process_key(context.backend),
        tid: context.tid,
        recent,
    })
}

/// Whether the work may be that of a request without a token.
///
/// Not where a thread read the request itself and no thread of its process was ever at two at once:
/// reading what has no token ends what it was at.
fn may_be_strangers(context: &TaskContext, at: Moment) -> bool {
    let certain = context.strength == STRENGTH_READER && context.overlaps == 0;
    // A forked child's was looked at when it was forked.
    let seconds = (at.0 / 1_000_000_000) as u32;
    let lately = context.lineage != 0
        || seconds.saturating_sub(context.stranger) <= record::STRANGER_SECONDS;
    context.stranger != 0 && lately && !certain
}

fn strength(number: u8) -> Result<Strength, DecodeError> {
    match number {
        STRENGTH_READER => Ok(Strength::Reader),
        STRENGTH_THREAD => Ok(Strength::Thread),
        STRENGTH_PROCESS => Ok(Strength::Process),
        _ => Err(DecodeError::Unknown {
            what: "strength",
            number: number.into(),
        }),
    }
}

fn decision(number: u8) -> Result<Decision, DecodeError> {
    match number {
        DECISION_ALLOWED => Ok(Decision::Allowed),
        DECISION_OBSERVED => Ok(Decision::Observed),
        DECISION_KILLED => Ok(Decision::Killed),
        DECISION_DENIED => Ok(Decision::Denied),
        _ => Err(DecodeError::Unknown {
            what: "decision",
            number: number.into(),
        }),
    }
}

fn process_key(key: clew_sensor_abi::ProcessKey) -> ProcessKey {
    ProcessKey {
        tgid: key.tgid,
        start: key.start,
    }
}

fn file_key(key: clew_sensor_abi::FileKey) -> FileKey {
    FileKey {
        device: user_device(key.device),
        inode: key.inode,
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(until_nul(bytes)).into_owned()
}

/// A path that was written from the end; an empty one is the root.
fn path(bytes: &[u8], start: u32) -> Vec<u8> {
    match bytes.get(start as usize..) {
        Some([]) | None => b"/".to_vec(),
        Some(path) => path.to_vec(),
    }
}

/// The NUL-terminated strings in the first `len` bytes; the last may lack its NUL.
fn strings(block: &[u8], len: u32) -> Vec<Vec<u8>> {
    let used = &block[..(len as usize).min(block.len())];
    let used = used.strip_suffix(&[0]).unwrap_or(used);
    if used.is_empty() && len == 0 {
        return Vec::new();
    }
    used.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

/// The 64-digit id in a cgroup's name: `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`,
/// `libpod-ID.scope`, `crio-ID.scope`.
fn container_id(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".scope").unwrap_or(name);
    let id = stem.rsplit('-').next().unwrap_or(stem);
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_safe() {
        let mut bytes = vec![0_u8; size_of::<record::Exec>()];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2000 {
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                *byte = (state >> 56) as u8;
            }
            bytes[..2].copy_from_slice(&ABI_VERSION.to_ne_bytes());
            bytes[2..4].copy_from_slice(&(round % 6_u16).to_ne_bytes());
            let cut = (state >> 33) as usize % (bytes.len() + 1);
            let _ = event(&bytes);
            let _ = event(&bytes[..cut]);
        }
    }

    #[test]
    fn other_versions_are_refused() {
        let mut bytes = [0_u8; 64];
        bytes[0] = 99;
        assert_eq!(event(&bytes), Err(DecodeError::Version(99)));
    }

    #[test]
    fn strings_keep_empty_arguments() {
        assert_eq!(
            strings(b"sh\0-c\0\0", 7),
            [b"sh".to_vec(), b"-c".to_vec(), vec![]]
        );
        assert_eq!(strings(b"cut", 3), [b"cut".to_vec()]);
        assert_eq!(strings(b"", 0), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn container_ids_are_found_in_the_usual_names() {
        let id = "0123456789abcdef".repeat(4);
        for name in [
            id.clone(),
            format!("docker-{id}.scope"),
            format!("cri-containerd-{id}.scope"),
        ] {
            assert_eq!(container_id(&name).as_deref(), Some(id.as_str()));
        }
        assert_eq!(container_id("user.slice"), None);
        assert_eq!(container_id("session-1.scope"), None);
    }
}
