//! Records in the ring buffer, and the context they carry.

use crate::{FileKey, ProcessKey, RECENT};

/// A program start.
pub const KIND_EXEC: u16 = 1;
/// An outbound flow.
pub const KIND_CONNECT: u16 = 2;

/// A file that is watched.
pub const KIND_FILE: u16 = 3;

/// First bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    /// [`crate::ABI_VERSION`].
    pub version: u16,
    /// One of the `KIND_*`.
    pub kind: u16,
    /// Thread id of the task it is about.
    pub tid: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at: u64,
}

/// The task carries nothing.
pub const STRENGTH_NONE: u8 = 0;
/// The thread read the request, or its process was forked from the thread that did.
pub const STRENGTH_READER: u8 = 1;
/// A thread cloned from one that read it, or what such a thread forked.
pub const STRENGTH_THREAD: u8 = 2;
/// Only the process is known.
pub const STRENGTH_PROCESS: u8 = 3;

/// What a task carries; the value of the `TASKS` task storage.
///
/// The group leader's also holds what its process read last (`recent`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskContext {
    /// The request; 0: none.
    pub sequence: u64,
    /// The backend process.
    pub backend: ProcessKey,
    /// The backend's executable.
    pub executable: FileKey,
    /// The thread of the backend that carried it.
    pub tid: u32,
    /// The service that the request is for.
    pub service: u32,
    /// Requests read by the process, in all (wrapping).
    pub reads: u32,
    /// `tcp_sock.write_seq` of `socket` when the thread began with the request: behind the last byte that
    /// was written to it by then.
    pub written: u32,
    /// Address of the `struct sock` that the thread has read the request from; compared, and looked at
    /// through what takes no harm from its being gone. [`HOP_SOCKET`] is set in that of a unix socket,
    /// and 0 stands for one that was written to since.
    pub socket: u64,
    /// The last requests read by the process: the n-th at index n % [`RECENT`].
    pub recent: [u64; RECENT],
    /// One of the `STRENGTH_*`.
    pub strength: u8,
    /// 1 in a forked child and its children: the context is theirs for life.
    pub lineage: u8,
    /// 1 once a thread of the process has read a request before it had answered the one before.
    pub overlaps: u8,
    /// Zero.
    pub pad: u8,
    /// When the process last read what did not come through Clew, seconds of `CLOCK_MONOTONIC`; 0:
    /// never. In a forked child: before it was forked, if that was within [`STRANGER_SECONDS`].
    pub stranger: u32,
}

/// Set in [`TaskContext::socket`] where it is a unix socket; addresses are even.
pub const HOP_SOCKET: u64 = 1;

/// For so long what a process does may be the doing of a request that did not come through Clew: as
/// long as any other may be blamed.
pub const STRANGER_SECONDS: u32 = 60;

/// In the profile or on the allow list.
pub const DECISION_ALLOWED: u8 = 0;
/// Would have been stopped in another mode.
pub const DECISION_OBSERVED: u8 = 1;
/// Killed before the first instruction.
pub const DECISION_KILLED: u8 = 2;
/// Refused with `EPERM`.
pub const DECISION_DENIED: u8 = 3;

/// An outbound flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Connect {
    /// `kind` is [`KIND_CONNECT`].
    pub header: Header,
    /// Whose work it is.
    pub context: TaskContext,
    /// Address in network order, IPv4 mapped.
    pub address: [u8; 16],
    /// Port, host order.
    pub port: u16,
    /// `IPPROTO_TCP`, `IPPROTO_UDP` or [`crate::policy::PROTOCOL_RAW`].
    pub protocol: u16,
    /// Process id of the caller.
    pub pid: u32,
    /// Name of the caller.
    pub comm: [u8; 16],
    /// One of the `DECISION_*`.
    pub decision: u8,
    /// Zero.
    pub pad: [u8; 7],
}

/// The file is opened to be read.
pub const ACCESS_READ: u8 = 0;
/// The file is opened to be written, or was moved or linked to where it is.
pub const ACCESS_WRITE: u8 = 1;

/// A file that is watched is opened, or put there.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct File {
    /// `kind` is [`KIND_FILE`].
    pub header: Header,
    /// Whose work it is.
    pub context: TaskContext,
    /// The file.
    pub file: FileKey,
    /// Process id of the caller.
    pub pid: u32,
    /// First byte used in `path`: paths are written from the end.
    pub path_start: u32,
    /// Name of the caller.
    pub comm: [u8; 16],
    /// One of the `DECISION_*`.
    pub decision: u8,
    /// One of the `ACCESS_*`.
    pub access: u8,
    /// Zero.
    pub pad: [u8; 6],
    /// Its path. Of one that is moved or linked: in its own file system.
    pub path: [u8; PATH_BYTES],
    /// Nothing: names are written to the path's end, and the verifier cannot know that they end there.
    pub spare: [u8; 256],
}

/// Most bytes of `argv` and of `envp` in a record.
pub const BLOCK_BYTES: usize = 4096;
/// Most bytes of a path in a record.
pub const PATH_BYTES: usize = 1024;
/// Most parents in a record.
pub const ANCESTORS: usize = 32;
/// Most levels of cgroup names in a record.
pub const CGROUP_LEVELS: usize = 8;
/// Most bytes of one cgroup name, NUL included. A container's is its 64-digit id and a word.
pub const CGROUP_NAME_BYTES: usize = 128;

/// `argv` was longer than [`BLOCK_BYTES`].
pub const TRUNCATED_ARGUMENTS: u32 = 1;
/// `envp` was longer than [`BLOCK_BYTES`].
pub const TRUNCATED_ENVIRONMENT: u32 = 2;
/// A path was longer than [`PATH_BYTES`] or deeper than its bound.
pub const TRUNCATED_PATH: u32 = 4;

/// A parent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Zero.
    pub pad: u32,
    /// Its name.
    pub comm: [u8; 16],
}

/// A program start.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Exec {
    /// `kind` is [`KIND_EXEC`].
    pub header: Header,
    /// Whose work it is.
    pub context: TaskContext,
    /// The program.
    pub file: FileKey,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Process id.
    pub pid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// The `TRUNCATED_*` that apply.
    pub truncated: u32,
    /// Bytes used in `arguments`.
    pub arguments_len: u32,
    /// Bytes used in `environment`.
    pub environment_len: u32,
    /// First byte used in `executable`: paths are written from the end.
    pub executable_start: u32,
    /// First byte used in `directory`.
    pub directory_start: u32,
    /// Parents used.
    pub ancestors_len: u32,
    /// Levels used in `cgroups`.
    pub cgroups_len: u32,
    /// One of the `DECISION_*`.
    pub decision: u8,
    /// Zero.
    pub pad: [u8; 7],
    /// Name after exec; before, the caller's ([`DECISION_DENIED`]).
    pub comm: [u8; 16],
    /// Path given to `execve`, NUL-terminated.
    pub filename: [u8; PATH_BYTES],
    /// Path of the executable.
    pub executable: [u8; PATH_BYTES],
    /// Working directory.
    pub directory: [u8; PATH_BYTES],
    /// Arguments, each NUL-terminated.
    pub arguments: [u8; BLOCK_BYTES],
    /// Environment, each NUL-terminated.
    pub environment: [u8; BLOCK_BYTES],
    /// Parents, nearest first.
    pub ancestors: [Ancestor; ANCESTORS],
    /// Names of the cgroup and its parents, nearest first, NUL-terminated.
    pub cgroups: [[u8; CGROUP_NAME_BYTES]; CGROUP_LEVELS],
}

const _: () = assert!(size_of::<Header>() == 16);
const _: () = assert!(size_of::<TaskContext>() == 136);
const _: () = assert!(size_of::<Connect>() == 200);
const _: () = assert!(size_of::<File>() == 16 + 136 + 16 + 8 + 16 + 8 + PATH_BYTES + 256);
const _: () = assert!(size_of::<Exec>().is_multiple_of(8));
