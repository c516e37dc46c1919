//! What the sensor tells the correlator: decoded, bounded kernel events.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{Moment, Sequence};

/// One event of the kernel.
///
/// Decisions ([`Exec`], [`Connect`], [`FileAccess`]) come one by one, in the order the kernel made them. Reads
/// ([`Bound`]) come in batches, in order of `at`: at the latest before the next decision, so that
/// every read that came before a decision is known by then. A batch may hold reads that are later
/// than the decision, and of requests that the proxy has reported as ended.
#[derive(Debug, Clone, PartialEq)]
pub enum KernelEvent {
    /// A task has read a request.
    Bound(Bound),
    /// A task of a request's lineage started a program, or was stopped from it.
    Exec(Box<Exec>),
    /// A task of a request's lineage opened an outbound flow, or was stopped from it.
    Connect(Box<Connect>),
    /// A task of a request's lineage opened a file that is watched, or put one there, or was stopped from it.
    File(Box<FileAccess>),
    /// The kernel could not report this many events since the last message of this class.
    Lost {
        /// What kind of record was lost.
        class: LostClass,
        /// How many since start.
        total: u64,
    },
}

/// Kinds of events that can be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum LostClass {
    /// Requests of which it cannot be known any more who read them.
    Bound,
    /// [`Exec`] records: the ring buffer was full.
    Exec,
    /// [`Connect`] records: the ring buffer was full.
    Connect,
    /// [`FileAccess`] records: the ring buffer was full.
    File,
}

/// A process, safe against reuse of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// `task_struct.start_boottime` of the group leader, nanoseconds.
    pub start: u64,
}

/// A file, by identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileKey {
    /// Device, in `stat(2)`'s encoding.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// A thread has read the head of a request from the socket that it came in at, or from one that it went on
/// through to another process.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// When the read returned.
    pub at: Moment,
    /// The request.
    pub sequence: Sequence,
    /// The backend process.
    pub process: ProcessKey,
    /// The thread that read.
    pub tid: u32,
    /// The backend's executable.
    pub executable: FileKey,
    /// Further requests that the same read returned (pipelining), this one being the last.
    pub same_read: u8,
    /// The thread had not written a single byte to the connection of its previous request.
    pub previous_unanswered: bool,
    /// Who has sent it, where it had no token that says what request it is.
    pub handed: Option<Handed>,
}

/// A backend has sent a head without a token to another process of this host, and `sequence` of the reading is
/// what the sending task carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handed {
    /// Thread group id of the backend, which has read the request.
    pub tgid: u32,
    /// How the sending task carried the request.
    pub strength: Strength,
}

/// How a task came to carry a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Strength {
    /// The thread read the request itself, or the process was forked (not cloned as a thread)
    /// from the thread that did, directly or over generations.
    Reader,
    /// A thread cloned from the one that read it, or a process forked from such a thread.
    Thread,
    /// Nothing but the process is known: some thread of it has read requests.
    Process,
}

/// The requests a kernel event could belong to, as the kernel saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lineage {
    /// How the task carries `sequence`.
    pub strength: Strength,
    /// The request the task carries; with [`Strength::Process`] the one read last.
    pub sequence: Sequence,
    /// The backend process whose thread read it.
    pub backend: ProcessKey,
    /// The thread of the backend that carried it when the lineage began (its `tid`).
    pub tid: u32,
    /// The last requests the backend process had read when the lineage began, newest first,
    /// at most 8, `sequence` among them. [`Sequence::STRANGER`] comes last when it may be the work of
    /// a request that did not come through Clew: nobody who did can be named alone then.
    pub recent: Vec<Sequence>,
}

/// What the kernel did with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Decision {
    /// In the profile or on the allow list.
    Allowed,
    /// Policy would have stopped it; the mode is `observe` or `learn`, or (connections only)
    /// there is no profile yet, or (files only) the kernel has nothing that could refuse it.
    Observed,
    /// The new program was killed before its first instruction.
    Killed,
    /// Refused with `EPERM`: the connection, or, where the kernel has BPF LSM, the start of the program or the file.
    Denied,
}

impl Decision {
    /// Whether the kernel has stopped something.
    pub const fn is_stop(self) -> bool {
        matches!(self, Self::Killed | Self::Denied)
    }
}

/// A program start in a request's lineage.
#[derive(Debug, Clone, PartialEq)]
pub struct Exec {
    /// When the kernel decided.
    pub at: Moment,
    /// Whose work it is.
    pub lineage: Lineage,
    /// What was done.
    pub decision: Decision,
    /// The new program.
    pub process: Process,
}

/// An outbound flow in a request's lineage.
#[derive(Debug, Clone, PartialEq)]
pub struct Connect {
    /// When the kernel decided.
    pub at: Moment,
    /// Whose work it is.
    pub lineage: Lineage,
    /// What was done.
    pub decision: Decision,
    /// Process id (tgid) of the caller.
    pub pid: u32,
    /// Thread id of the caller.
    pub tid: u32,
    /// `comm` of the caller.
    pub comm: String,
    /// Where to.
    pub target: SocketAddr,
    /// Transport protocol.
    pub transport: Transport,
}

/// A file that a request's lineage opens where the configuration has files watched, or moves to there.
#[derive(Debug, Clone, PartialEq)]
pub struct FileAccess {
    /// When the kernel decided.
    pub at: Moment,
    /// Whose work it is.
    pub lineage: Lineage,
    /// What was done. Allowed: a write where writes are remembered, or a look into what a request has written.
    pub decision: Decision,
    /// Process id (tgid) of the caller.
    pub pid: u32,
    /// Thread id of the caller.
    pub tid: u32,
    /// `comm` of the caller.
    pub comm: String,
    /// The file.
    pub file: FileKey,
    /// Its path, as far as it is known.
    pub path: Vec<u8>,
    /// What for.
    pub access: Access,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Access {
    /// To be read, or run by an interpreter.
    Read,
    /// To be written; or it was moved, or linked, to where it is.
    Write,
}

/// Transport protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Transport {
    /// TCP (`connect`).
    Tcp,
    /// UDP (`connect` or `sendmsg`).
    Udp,
    /// A raw socket, or another protocol: seen when it is made, with `[::]:0` for a target.
    Raw,
}

/// A program at the moment the kernel decided on it; read from its own new memory map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Process {
    /// Process id (tgid), initial pid namespace.
    pub pid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// `comm`, at most 15 bytes.
    pub comm: String,
    /// Absolute path of the executable inside its mount namespace.
    pub executable: Vec<u8>,
    /// The path the caller handed to `execve`.
    pub filename: Vec<u8>,
    /// Working directory.
    pub working_directory: Vec<u8>,
    /// Executable's identity.
    pub file: Option<FileKey>,
    /// `argv`.
    pub arguments: Vec<Vec<u8>>,
    /// `envp`, `NAME=value`; values may be redacted before they get here.
    pub environment: Vec<Vec<u8>>,
    /// Parents, nearest first, up to init or 32.
    pub ancestry: Vec<Ancestor>,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Names of the cgroup and its parents, nearest first, at most 8.
    pub cgroup_path: Vec<String>,
    /// Container id, where the cgroup's name holds one.
    pub container_id: Option<String>,
    /// Some of the above was longer than its bound and is cut.
    pub truncated: bool,
}

/// One step up the process tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Ancestor {
    /// Process id (tgid).
    pub pid: u32,
    /// `comm`.
    pub comm: String,
}
