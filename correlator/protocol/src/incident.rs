//! The record a person or a SIEM reads. Field names follow ECS 8 where ECS has one.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::kernel::{Access, Ancestor, Decision, LostClass, Strength, Transport};
use crate::request::EdgeFindings;
use crate::verdict::Proof;
use crate::{IncidentId, RequestId, Sequence};

/// One incident: a request (or a few that it could have been) and what its lineage did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Incident {
    /// RFC 3339, UTC, of the first kernel decision. Filled by whoever owns a wall clock.
    #[serde(rename = "@timestamp")]
    pub timestamp: String,
    /// Public name.
    pub id: IncidentId,
    /// Starts at 1; a later record of the same incident replaces the earlier one.
    pub revision: u32,
    /// What Clew did about it, strongest measure first.
    pub action: IncidentAction,
    /// What the attribution rests on.
    pub proof: Proof,
    /// For `content`: the bytes that matched, lossy UTF-8, at most 128 bytes.
    pub evidence: Option<String>,
    /// The request; none when there are several candidates.
    pub request: Option<IncidentRequest>,
    /// All requests it could have been, when `request` is none. At most 32.
    pub candidates: Vec<IncidentRequest>,
    /// What the lineage did, in order. At most 64; `steps_cut` counts the rest. What was stopped or observed goes
    /// before what was allowed.
    pub steps: Vec<Step>,
    /// Steps beyond the bound.
    pub steps_cut: u32,
    /// Ban, if there is one.
    pub ban: Option<BanRecord>,
    /// Times, milliseconds.
    pub timing: Timing,
    /// Kernel records that got lost in the minute before this was written: where `exec` or `connect` did, steps may be
    /// missing; where `file` did, steps and writers may; where `bound` did, nobody is named who is not certain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<Loss>,
}

/// Kernel records that got lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Loss {
    /// Of which kind.
    pub class: LostClass,
    /// How many.
    pub records: u64,
}

/// The strongest measure taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum IncidentAction {
    /// Nothing was stopped (mode `observe` or `learn`).
    Observed,
    /// A program was killed, or a connection or a file denied; no request could be named.
    Stopped,
    /// Stopped, and the request was cancelled.
    Cancelled,
    /// Stopped, cancelled, and the source banned.
    Banned,
}

/// The HTTP side.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct IncidentRequest {
    /// Public name.
    pub id: RequestId,
    /// The attempt.
    pub sequence: Sequence,
    /// `source.ip`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub source_ip: IpAddr,
    /// `source.port`.
    pub source_port: u16,
    /// `http.request.method`.
    pub method: String,
    /// `url.original`.
    pub target: String,
    /// `Host` or `:authority`.
    pub authority: String,
    /// Name of the configured service.
    pub service: String,
    /// `destination`: where the attempt went.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub upstream: SocketAddr,
    /// Status the client got, if any.
    pub status: Option<u16>,
    /// Response body bytes of the backend that the client was sent.
    pub relayed_body_bytes: Option<u64>,
    /// What the rules had said of it before it went upstream.
    #[serde(default)]
    pub edge: EdgeFindings,
}

/// One thing the lineage did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Step {
    /// Milliseconds after the request's head was read (negative never occurs; 0 when unknown).
    pub at_ms: f64,
    /// What the kernel did.
    pub decision: Decision,
    /// How the task carried the request.
    pub strength: Strength,
    /// What it was.
    #[serde(flatten)]
    pub what: StepKind,
    /// Where it runs or reads a file that requests have written: those that were the last to, the latest first. At
    /// most 4. The step's own request may be one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written_by: Vec<Writer>,
}

/// Who has written a file. Nothing is done to him for what others make of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Writer {
    /// RFC 3339, UTC: when the request first opened the file to write it, or put it where it is.
    pub at: String,
    /// So long before the step, milliseconds.
    pub before_ms: f64,
    /// `file.path` at that time. Lossy UTF-8; of one longer than 1 KiB the end.
    pub path: String,
    /// What it rests on that it was this request.
    pub proof: Proof,
    /// The request, as it was when it wrote: its outcome is not told, and of its target 512 bytes at most. None when
    /// there are several candidates.
    pub request: Option<IncidentRequest>,
    /// How many requests it could have been, when `request` is none. At most 32.
    #[serde(default)]
    pub candidates: u32,
}

/// Kinds of step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum StepKind {
    /// A program start.
    Exec(Box<ExecStep>),
    /// An outbound flow.
    Connect {
        /// `process.pid`.
        pid: u32,
        /// `process.thread.id`.
        tid: u32,
        /// `process.name`.
        comm: String,
        /// `destination`.
        #[cfg_attr(feature = "schema", schema(value_type = String))]
        target: SocketAddr,
        /// `network.transport`.
        transport: Transport,
    },
    /// A file that is watched.
    File {
        /// `process.pid`.
        pid: u32,
        /// `process.thread.id`.
        tid: u32,
        /// `process.name`.
        comm: String,
        /// `file.path`, as far as it is known; lossy UTF-8.
        path: String,
        /// `file.inode`.
        inode: u64,
        /// What it was opened for.
        access: Access,
    },
}

/// `process.*` of a program start. Byte strings are shown as lossy UTF-8.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ExecStep {
    /// `process.pid`.
    pub pid: u32,
    /// `process.executable`.
    pub executable: String,
    /// What the caller asked for.
    pub filename: String,
    /// `process.args`.
    pub args: Vec<String>,
    /// `process.env_vars`.
    pub env_vars: Vec<String>,
    /// `process.working_directory`.
    pub working_directory: String,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// `file.inode`.
    pub inode: Option<u64>,
    /// Parents, nearest first.
    pub ancestry: Vec<Ancestor>,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// `container.id`.
    pub container_id: Option<String>,
    /// Some of the above is cut.
    pub truncated: bool,
}

/// A ban as the record shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BanRecord {
    /// Whom.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub address: IpAddr,
    /// For how long, seconds.
    pub seconds: u64,
}

/// How fast, in milliseconds from the kernel's first decision.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Timing {
    /// Until the proxy stopped relaying.
    pub exec_to_cancel_ms: Option<f64>,
    /// Until the ban was in force.
    pub exec_to_ban_ms: Option<f64>,
}
