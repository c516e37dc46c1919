//! Incidents being put together: steps, measures, and when to report.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clew_protocol::incident::{
    BanRecord, ExecStep, Incident, IncidentAction, IncidentRequest, Loss, Step, StepKind, Timing,
};
use clew_protocol::kernel::{
    Connect, Decision, Exec, FileAccess, FileKey, Lineage, ProcessKey, Transport,
};
use clew_protocol::{IncidentId, Moment, Sequence};

use crate::correlator::Deed;
use crate::proof::Attribution;
use crate::provenance::Write;
use crate::requests::Requests;

/// Most steps in one record.
const STEPS: usize = 64;
/// Most bytes of evidence in one record.
const EVIDENCE_BYTES: usize = 128;
/// Most records of one incident.
pub(crate) const REVISIONS: u32 = 8;
/// How long a cancelled request's end is waited for before the record goes out without it.
pub(crate) const END_WAIT: Duration = Duration::from_millis(250);
/// How long a record waits for more steps.
pub(crate) const QUIET: Duration = Duration::from_millis(50);

/// A lineage: one request on one thread of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Thread {
    backend: ProcessKey,
    sequence: Sequence,
    tid: u32,
}

impl Thread {
    pub(crate) fn of(lineage: &Lineage) -> Self {
        Self {
            backend: lineage.backend,
            sequence: lineage.sequence,
            tid: lineage.tid,
        }
    }
}

/// What did a step, below the thread: where a thread's mark means little, steps of one program, or
/// those of the programs it has started, are of one request nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    /// The process that the backend has forked, or the backend itself where it has become another
    /// program.
    Process(u32),
    /// The backend itself has connected to this.
    Within(SocketAddr),
    /// The backend itself has opened this.
    Opened(FileKey),
}

impl Tree {
    fn of_exec(exec: &Exec) -> Self {
        let backend = exec.lineage.backend.tgid;
        let process = &exec.process;
        let above = process.ancestry.iter().map(|it| it.pid);
        let line: Vec<u32> = std::iter::once(process.pid).chain(above).collect();
        let below = line.iter().position(|pid| *pid == backend);
        // One whose parent has gone has its ancestry cut short.
        let at = below.and_then(|it| it.checked_sub(1)).unwrap_or(0);
        Self::Process(line[at])
    }

    fn of_connect(connect: &Connect) -> Self {
        if connect.pid == connect.lineage.backend.tgid {
            Self::Within(connect.target)
        } else {
            Self::Process(connect.pid)
        }
    }

    fn of_file(access: &FileAccess) -> Self {
        if access.pid == access.lineage.backend.tgid {
            Self::Opened(access.file)
        } else {
            Self::Process(access.pid)
        }
    }
}

/// One thing that a lineage has done.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) lineage: Lineage,
    pub(crate) tree: Tree,
    pub(crate) at: Moment,
    pub(crate) step: Step,
    /// Its command line and path, for content proof.
    pub(crate) text: Vec<u8>,
    /// Who has written the file that it runs or reads, the latest first.
    pub(crate) writes: Vec<Arc<Write>>,
    /// It has been looked at, and nothing but lineage can name its request.
    pub(crate) is_in_doubt: bool,
    /// Those whose responses wait for what comes of it.
    pub(crate) held: Vec<Sequence>,
}

impl Event {
    pub(crate) fn of_exec(exec: &Exec, redact: bool) -> Self {
        let mut text = exec.process.arguments.join(&0);
        text.push(0);
        text.extend_from_slice(&exec.process.filename);
        Self {
            lineage: exec.lineage.clone(),
            tree: Tree::of_exec(exec),
            at: exec.at,
            step: exec_step(exec, redact),
            text,
            writes: Vec::new(),
            is_in_doubt: false,
            held: Vec::new(),
        }
    }

    pub(crate) fn of_connect(connect: &Connect) -> Self {
        Self {
            lineage: connect.lineage.clone(),
            tree: Tree::of_connect(connect),
            at: connect.at,
            step: connect_step(connect),
            text: Vec::new(),
            writes: Vec::new(),
            is_in_doubt: false,
            held: Vec::new(),
        }
    }

    pub(crate) fn of_file(access: &FileAccess) -> Self {
        Self {
            lineage: access.lineage.clone(),
            tree: Tree::of_file(access),
            at: access.at,
            step: file_step(access),
            text: access.path.clone(),
            writes: Vec::new(),
            is_in_doubt: false,
            held: Vec::new(),
        }
    }
}

/// What a lineage has done so far, incident or not.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    /// In order.
    steps: Vec<Done>,
    steps_cut: u32,
}

/// A step of a trail.
#[derive(Debug)]
struct Done {
    at: Moment,
    tree: Tree,
    step: Step,
    writes: Vec<Arc<Write>>,
}

impl Done {
    /// How much a record would lack without it: nobody may hide what was stopped behind what is allowed.
    fn weight(&self) -> u8 {
        match self.step.decision {
            Decision::Allowed => u8::from(!self.writes.is_empty()),
            _ => 2,
        }
    }
}

impl Trail {
    pub(crate) fn add(&mut self, event: Event) {
        let done = Done {
            at: event.at,
            tree: event.tree,
            step: event.step,
            writes: event.writes,
        };
        if self.steps.len() >= STEPS {
            self.steps_cut = self.steps_cut.saturating_add(1);
            if !self.make_room(done.weight()) {
                return;
            }
        }
        // One that waited for its attribution comes after steps that were later.
        let place = self.steps.partition_point(|before| before.at <= done.at);
        self.steps.insert(place, done);
    }

    /// Forgets the last of those steps that weigh least, if they weigh less.
    fn make_room(&mut self, weight: u8) -> bool {
        let steps = self.steps.iter().enumerate().rev();
        let lightest = steps.min_by_key(|(_, done)| done.weight());
        let lightest = lightest.filter(|(_, done)| done.weight() < weight);
        let nth = lightest.map(|(nth, _)| nth);
        nth.map(|nth| self.steps.remove(nth)).is_some()
    }

    /// Forgets what other trees did.
    pub(crate) fn keep(&mut self, tree: Tree) {
        self.steps.retain(|done| done.tree == tree);
        self.steps_cut = 0;
    }

    /// The tree that a process belongs to which has become a program here.
    pub(crate) fn tree_of(&self, pid: u32) -> Option<Tree> {
        let is_it =
            |done: &&Done| matches!(&done.step.what, StepKind::Exec(exec) if exec.pid == pid);
        let program = self.steps.iter().rev().find(is_it);
        program.map(|done| done.tree)
    }

    /// Where it has connected to, or tried to.
    pub(crate) fn targets(&self) -> Vec<String> {
        let targets = self.steps.iter().filter_map(|done| target_of(&done.step));
        targets.collect()
    }

    /// Who has written the files that it ran or read, those of the last steps first.
    fn writes(&self) -> impl Iterator<Item = &Write> {
        let all = self.steps.iter().rev().flat_map(|done| &done.writes);
        all.map(|write| &**write)
    }
}

pub(crate) fn target_of(step: &Step) -> Option<String> {
    match &step.what {
        // Where a raw socket sends is not seen.
        StepKind::Connect {
            transport: Transport::Raw,
            ..
        } => None,
        StepKind::Connect { target, .. } => Some(target.to_string()),
        StepKind::Exec(_) | StepKind::File { .. } => None,
    }
}

/// One incident.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) id: IncidentId,
    pub(crate) attribution: Attribution,
    pub(crate) trail: Trail,
    /// The kernel's first decision.
    pub(crate) decided_at: Moment,
    pub(crate) stopped: bool,
    pub(crate) condemned: bool,
    pub(crate) ban: Option<BanRecord>,
    pub(crate) cancelled_at: Option<Moment>,
    pub(crate) banned_at: Option<Moment>,
    pub(crate) revision: u32,
    /// When the next record is due; none when the last one says it all.
    pub(crate) due: Option<Moment>,
}

impl Case {
    pub(crate) fn open(id: IncidentId, trail: Trail, at: Moment) -> Self {
        Self {
            id,
            attribution: Attribution::doubt(Vec::new()),
            trail,
            decided_at: at,
            stopped: false,
            condemned: false,
            ban: None,
            cancelled_at: None,
            banned_at: None,
            revision: 0,
            due: Some(at.after(QUIET)),
        }
    }

    pub(crate) fn add(&mut self, event: Event) {
        self.stopped |= event.step.decision.is_stop();
        self.touch(event.at.after(QUIET));
        self.trail.add(event);
    }

    /// Whether `tree` has a part in it.
    pub(crate) fn has(&self, tree: Tree) -> bool {
        self.trail.steps.iter().any(|done| done.tree == tree)
    }

    /// Who has written the files that its steps ran or read, those of the last steps first.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Write> {
        self.trail.writes()
    }

    /// Something changed: another record is due, if there may be one.
    pub(crate) fn touch(&mut self, due: Moment) {
        if self.revision < REVISIONS {
            self.due = Some(self.due.map_or(due, |before| before.min(due)));
        }
    }

    /// The record as of now; `clock` says what time it was.
    pub(crate) fn record(
        &mut self,
        requests: &Requests,
        clock: impl Fn(Moment) -> String,
        degraded: Vec<Loss>,
    ) -> Incident {
        self.revision += 1;
        self.due = None;
        let request = self.attribution.sequence.and_then(|it| named(requests, it));
        let told = self.attribution.sequence.and_then(|it| requests.told(it));
        let origin = told.map(|it| it.at);
        let candidates = match request {
            Some(_) => Vec::new(),
            None => {
                let all = self.attribution.candidates.iter();
                all.filter_map(|it| named(requests, *it)).collect()
            }
        };
        let since = |at: Option<Moment>| at.map(|at| millis(at.since(self.decided_at)));
        let evidence = self.attribution.evidence.as_ref().map(|bytes| {
            String::from_utf8_lossy(&bytes[..bytes.len().min(EVIDENCE_BYTES)]).into_owned()
        });
        Incident {
            timestamp: clock(self.decided_at),
            id: self.id,
            revision: self.revision,
            action: self.action(),
            proof: self.attribution.proof,
            evidence,
            request,
            candidates,
            steps: self
                .trail
                .steps
                .iter()
                .map(|done| timed(done, origin, &clock))
                .collect(),
            steps_cut: self.trail.steps_cut,
            ban: self.ban.clone(),
            timing: Timing {
                exec_to_cancel_ms: since(self.cancelled_at),
                exec_to_ban_ms: since(self.banned_at),
            },
            degraded,
        }
    }

    /// What has become of the ban that was asked for.
    pub(crate) fn note(&mut self, deed: Deed, at: Moment) {
        match (deed, &mut self.ban) {
            (Deed::Banned { span }, Some(ban)) => {
                self.banned_at.get_or_insert(at);
                ban.seconds = span.as_secs();
            }
            (Deed::Spared, _) => self.ban = None,
            (Deed::Banned { .. }, None) => {}
        }
    }

    fn action(&self) -> IncidentAction {
        match (self.stopped, self.condemned, &self.ban) {
            (true, true, Some(_)) => IncidentAction::Banned,
            (true, true, None) => IncidentAction::Cancelled,
            (true, false, _) => IncidentAction::Stopped,
            (false, ..) => IncidentAction::Observed,
        }
    }

    /// Whether a step that is an incident by itself may change who is named, or what is done.
    ///
    /// Not after a verdict, which cannot be taken back; nor where all that is missing is
    /// something to act upon.
    pub(crate) fn is_open_to(&self, decision: Decision) -> bool {
        !self.condemned && (decision.is_stop() || !self.names_one())
    }

    /// Whether this attribution may end a request.
    pub(crate) fn names_one(&self) -> bool {
        self.attribution.names_one()
    }
}

fn timed(done: &Done, origin: Option<Moment>, clock: impl Fn(Moment) -> String) -> Step {
    let writes = done.writes.iter();
    Step {
        at_ms: origin.map_or(0.0, |origin| millis(done.at.since(origin))),
        written_by: writes.map(|it| it.told(done.at, &clock)).collect(),
        ..done.step.clone()
    }
}

pub(crate) fn millis(span: Duration) -> f64 {
    // Microseconds are as fine as anybody reads.
    (span.as_secs_f64() * 1e6).round() / 1e3
}

pub(crate) fn named(requests: &Requests, sequence: Sequence) -> Option<IncidentRequest> {
    let request = requests.get(sequence)?;
    let started = request.started.as_ref()?;
    let outcome = request.outcome.as_ref();
    Some(IncidentRequest {
        id: started.id,
        sequence,
        source_ip: started.client.address,
        source_port: started.client.port,
        method: started.method.to_string(),
        target: started.target.to_string(),
        authority: started.authority.to_string(),
        service: started.service.to_string(),
        upstream: started.upstream,
        status: outcome.and_then(|ended| ended.status),
        relayed_body_bytes: outcome.map(|ended| ended.relayed_body_bytes),
        edge: started.edge.clone(),
    })
}

/// The step an exec event is.
fn exec_step(exec: &Exec, redact: bool) -> Step {
    let process = &exec.process;
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    Step {
        at_ms: 0.0,
        decision: exec.decision,
        strength: exec.lineage.strength,
        what: StepKind::Exec(Box::new(ExecStep {
            pid: process.pid,
            executable: text(&process.executable),
            filename: text(&process.filename),
            args: process.arguments.iter().map(text).collect(),
            env_vars: process
                .environment
                .iter()
                .map(|it| variable(it, redact))
                .collect(),
            working_directory: text(&process.working_directory),
            uid: process.uid,
            gid: process.gid,
            inode: process.file.map(|file| file.inode),
            ancestry: process.ancestry.clone(),
            cgroup_id: process.cgroup_id,
            container_id: process.container_id.clone(),
            truncated: process.truncated,
        })),
        written_by: Vec::new(),
    }
}

/// The step a connect event is.
fn connect_step(connect: &Connect) -> Step {
    Step {
        at_ms: 0.0,
        decision: connect.decision,
        strength: connect.lineage.strength,
        what: StepKind::Connect {
            pid: connect.pid,
            tid: connect.tid,
            comm: connect.comm.clone(),
            target: connect.target,
            transport: connect.transport,
        },
        written_by: Vec::new(),
    }
}

/// The step a file event is.
fn file_step(access: &FileAccess) -> Step {
    Step {
        at_ms: 0.0,
        decision: access.decision,
        strength: access.lineage.strength,
        what: StepKind::File {
            pid: access.pid,
            tid: access.tid,
            comm: access.comm.clone(),
            path: String::from_utf8_lossy(&access.path).into_owned(),
            inode: access.file.inode,
            access: access.access,
        },
        written_by: Vec::new(),
    }
}

/// An environment variable as it is recorded: values are secrets more often than not.
fn variable(entry: &[u8], redact: bool) -> String {
    let text = String::from_utf8_lossy(entry);
    match text.split_once('=') {
        Some((name, _)) if redact => format!("{name}=<redacted>"),
        _ => text.into_owned(),
    }
}
