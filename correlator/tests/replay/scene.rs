//! A correlator on a fake clock, and short words for what can happen to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clew_correlator::{Config, Correlator, Input};
use clew_protocol::incident::Incident;
use clew_protocol::kernel::{
    Access, Ancestor, Bound, Connect, Decision, Exec, FileAccess, FileKey, Handed, KernelEvent,
    Lineage, Process, ProcessKey, Strength, Transport,
};
use clew_protocol::request::{
    Client, EdgeFindings, InFlight, ProxyRecord, RequestEnded, RequestStarted,
};
use clew_protocol::verdict::Action;
use clew_protocol::{IncidentId, Moment, RequestId, Sequence};
use uuid::Uuid;

pub(crate) struct Scene {
    pub(crate) correlator: Correlator,
    pub(crate) now: u64,
    pub(crate) actions: Vec<Action>,
}

pub(crate) const BACKEND: ProcessKey = ProcessKey {
    tgid: 100,
    start: 1,
};

/// Processes with this id or a higher one run another program than the rest.
pub(crate) const OTHER_PROGRAM: u32 = 1000;

impl Scene {
    pub(crate) fn new() -> Self {
        let mut next = 0;
        let config = Config {
            ban: true,
            ban_span: Duration::from_secs(3600),
            redact_environment: true,
            epoch_ns: 1_700_000_000_000_000_000,
            next_id: Box::new(move || {
                next += 1;
                IncidentId(Uuid::from_u128(next))
            }),
        };
        Self {
            correlator: Correlator::new(config),
            now: 1_000_000,
            actions: Vec::new(),
        }
    }

    fn pass(&mut self) -> Moment {
        self.now += 1000;
        Moment(self.now)
    }

    pub(crate) fn put(&mut self, input: Input) {
        self.correlator.handle(input, &mut self.actions);
    }

    pub(crate) fn start(&mut self, sequence: u64, inputs: &str) {
        self.start_as(sequence, inputs, |_| {});
    }

    /// A request for another service than the rest.
    pub(crate) fn start_elsewhere(&mut self, sequence: u64, inputs: &str) {
        let edge = EdgeFindings::default();
        self.start_with(sequence, inputs, |_| {}, edge, "elsewhere");
    }

    pub(crate) fn start_as(
        &mut self,
        sequence: u64,
        inputs: &str,
        adjust: impl FnOnce(&mut Client),
    ) {
        self.start_judged(sequence, inputs, adjust, EdgeFindings::default());
    }

    /// A request that the rules had something to say of.
    pub(crate) fn start_scored(&mut self, sequence: u64, inputs: &str, score: i64) {
        let edge = EdgeFindings {
            score,
            rules: [932_100].into(),
        };
        self.start_judged(sequence, inputs, |_| {}, edge);
    }

    fn start_judged(
        &mut self,
        sequence: u64,
        inputs: &str,
        adjust: impl FnOnce(&mut Client),
        edge: EdgeFindings,
    ) {
        self.start_with(sequence, inputs, adjust, edge, "test");
    }

    fn start_with(
        &mut self,
        sequence: u64,
        inputs: &str,
        adjust: impl FnOnce(&mut Client),
        edge: EdgeFindings,
        service: &str,
    ) {
        let at = self.pass();
        let mut client = Client {
            address: address(sequence),
            port: 1,
            shared: false,
            cross_site: false,
        };
        adjust(&mut client);
        self.put(Input::Proxy(ProxyRecord::Started(Box::new(
            RequestStarted {
                sequence: Sequence(sequence),
                id: RequestId(Uuid::from_u128(u128::from(sequence))),
                at,
                sent_at: at,
                client,
                method: "GET".into(),
                target: "/".into(),
                authority: "test".into(),
                service: service.into(),
                upstream: SocketAddr::from(([127, 0, 0, 1], 80)),
                inputs: inputs.as_bytes().into(),
                edge,
            },
        ))));
    }

    pub(crate) fn read(&mut self, sequence: u64, tid: u32) {
        self.read_when(sequence, tid, false);
    }

    pub(crate) fn read_when(&mut self, sequence: u64, tid: u32, previous_unanswered: bool) {
        let at = self.pass();
        self.read_at(at.0, sequence, tid, previous_unanswered);
    }

    /// A read that is told of late.
    pub(crate) fn read_at(&mut self, at: u64, sequence: u64, tid: u32, previous_unanswered: bool) {
        self.read_by(BACKEND, at, sequence, tid, previous_unanswered);
    }

    /// A read by a process.
    pub(crate) fn read_by(
        &mut self,
        process: ProcessKey,
        at: u64,
        sequence: u64,
        tid: u32,
        previous_unanswered: bool,
    ) {
        self.bind(process, at, sequence, tid, previous_unanswered, None);
    }

    /// A process has read what thread `tid` of [`BACKEND`] sent it, who carries `sequence` thus.
    pub(crate) fn read_handed(
        &mut self,
        process: ProcessKey,
        sequence: u64,
        tid: u32,
        strength: Strength,
    ) {
        let at = self.pass();
        let handed = Handed {
            tgid: BACKEND.tgid,
            strength,
        };
        self.bind(process, at.0, sequence, tid, false, Some(handed));
    }

    fn bind(
        &mut self,
        process: ProcessKey,
        at: u64,
        sequence: u64,
        tid: u32,
        previous_unanswered: bool,
        handed: Option<Handed>,
    ) {
        self.put(Input::Kernel(KernelEvent::Bound(Bound {
            at: Moment(at),
            sequence: Sequence(sequence),
            process,
            tid,
            executable: FileKey {
                device: 1,
                inode: 1 + u64::from(process.tgid >= OTHER_PROGRAM),
            },
            same_read: 0,
            previous_unanswered,
            handed,
        })));
    }

    pub(crate) fn end(&mut self, sequence: u64) {
        let at = self.pass();
        self.end_at(at.0, sequence);
    }

    pub(crate) fn end_at(&mut self, at: u64, sequence: u64) {
        let at = Moment(at);
        self.put(Input::Proxy(ProxyRecord::Ended(RequestEnded {
            sequence: Sequence(sequence),
            at,
            status: Some(200),
            relayed_body_bytes: 0,
            cancelled_at: None,
        })));
    }

    /// The proxy says what is in flight; `below` is all there has been.
    pub(crate) fn in_flight(&mut self, below: u64, open: &[u64], inputs_lost: bool) {
        let at = self.pass();
        self.put(Input::Proxy(ProxyRecord::InFlight(InFlight {
            at,
            below: Sequence(below),
            open: open.iter().map(|it| Sequence(*it)).collect(),
            inputs_lost,
        })));
    }

    pub(crate) fn more_input(&mut self, sequence: u64, bytes: &str) {
        self.put(Input::Proxy(ProxyRecord::Input {
            sequence: Sequence(sequence),
            bytes: bytes.as_bytes().into(),
        }));
    }

    /// The backend is done with it; the client is not told yet.
    pub(crate) fn answered(&mut self, sequence: u64) {
        let at = self.pass();
        let sequence = Sequence(sequence);
        self.put(Input::Proxy(ProxyRecord::Answered { sequence, at }));
    }

    /// `count` requests, two at a time on two threads, each answered before the next is read.
    pub(crate) fn teach_blocking(&mut self, first: u64, count: u64) {
        for sequence in (first..first + count).step_by(2) {
            for (sequence, tid) in [(sequence, 1), (sequence + 1, 2)] {
                self.start(sequence, "lesson\n");
                self.read(sequence, tid);
            }
            self.end(sequence);
            self.end(sequence + 1);
        }
    }

    /// Enough time for all that has ended to be past blame.
    pub(crate) fn forget(&mut self) {
        self.now += 200_000_000_000;
        self.tick();
    }

    pub(crate) fn tick(&mut self) {
        let now = self.pass();
        self.put(Input::Tick(now));
    }

    pub(crate) fn exec(&mut self, sequence: u64, tid: u32, command: &str) {
        self.exec_with(sequence, tid, command, Strength::Reader, Decision::Killed);
    }

    pub(crate) fn exec_with(
        &mut self,
        sequence: u64,
        tid: u32,
        command: &str,
        strength: Strength,
        decision: Decision,
    ) {
        let at = self.pass();
        let lineage = lineage(sequence, tid, strength);
        self.exec_at(at.0, lineage, command, decision);
    }

    pub(crate) fn exec_at(&mut self, at: u64, lineage: Lineage, command: &str, decision: Decision) {
        self.exec_in(0, at, lineage, command, decision);
    }

    /// A program in a process of its own, which the thread has forked.
    pub(crate) fn exec_forked(&mut self, pid: u32, sequence: u64, tid: u32, command: &str) {
        let at = self.pass();
        let lineage = lineage(sequence, tid, Strength::Reader);
        self.exec_in(pid, at.0, lineage, command, Decision::Killed);
    }

    /// A program in process `pid`, which process `parent` has forked, which thread 1 has.
    pub(crate) fn exec_below(
        &mut self,
        pid: u32,
        parent: u32,
        sequence: u64,
        command: &str,
        decision: Decision,
    ) {
        let at = self.pass();
        let ancestor = |pid| Ancestor {
            pid,
            comm: "sh".into(),
        };
        self.put(Input::Kernel(KernelEvent::Exec(Box::new(Exec {
            at,
            lineage: lineage(sequence, 1, Strength::Reader),
            decision,
            process: Process {
                pid,
                arguments: vec![b"/bin/sh".to_vec(), b"-c".to_vec(), command.into()],
                ancestry: vec![ancestor(parent), ancestor(BACKEND.tgid)],
                ..Process::default()
            },
        }))));
    }

    fn exec_in(&mut self, pid: u32, at: u64, lineage: Lineage, command: &str, decision: Decision) {
        self.put(Input::Kernel(KernelEvent::Exec(Box::new(Exec {
            at: Moment(at),
            lineage,
            decision,
            process: Process {
                pid,
                arguments: vec![b"/bin/sh".to_vec(), b"-c".to_vec(), command.into()],
                environment: vec![b"KEY=secret".to_vec()],
                filename: b"/bin/sh".to_vec(),
                ..Process::default()
            },
        }))));
    }

    pub(crate) fn connect(&mut self, sequence: u64, tid: u32, port: u16) {
        self.connect_with(sequence, tid, port, Decision::Observed);
    }

    pub(crate) fn connect_with(&mut self, sequence: u64, tid: u32, port: u16, decision: Decision) {
        let at = self.pass();
        self.put(Input::Kernel(KernelEvent::Connect(Box::new(Connect {
            at,
            lineage: lineage(sequence, tid, Strength::Reader),
            decision,
            pid: BACKEND.tgid,
            tid,
            comm: "worker".into(),
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            transport: Transport::Tcp,
        }))));
    }

    /// Process `pid`, or the backend itself where it is that, opens a file.
    pub(crate) fn open(&mut self, sequence: u64, tid: u32, file: &Opened) {
        let at = self.pass();
        self.open_at(at.0, lineage(sequence, tid, Strength::Reader), file);
    }

    pub(crate) fn open_at(&mut self, at: u64, lineage: Lineage, file: &Opened) {
        let tid = lineage.tid;
        self.put(Input::Kernel(KernelEvent::File(Box::new(FileAccess {
            at: Moment(at),
            lineage,
            decision: file.decision,
            pid: file.pid,
            tid,
            comm: "worker".into(),
            file: file_key(file.inode),
            path: file.path.into(),
            access: file.access,
        }))));
    }

    /// A request's thread forks a process with this id, which becomes the program that lies in a file.
    pub(crate) fn run_file(&mut self, pid: u32, sequence: u64, tid: u32, inode: u64) {
        let at = self.pass();
        self.put(Input::Kernel(KernelEvent::Exec(Box::new(Exec {
            at,
            lineage: lineage(sequence, tid, Strength::Reader),
            decision: Decision::Killed,
            process: Process {
                pid,
                executable: b"/up/x".to_vec(),
                filename: b"/up/x".to_vec(),
                arguments: vec![b"/up/x".to_vec()],
                file: Some(file_key(inode)),
                ..Process::default()
            },
        }))));
    }

    pub(crate) fn lose_reads(&mut self) {
        self.put(Input::Kernel(KernelEvent::Lost {
            class: clew_protocol::kernel::LostClass::Bound,
            total: 1,
        }));
    }

    pub(crate) fn condemned(&self) -> Vec<u64> {
        let condemned = self.actions.iter().filter_map(|action| match action {
            Action::Condemn { sequence, .. } => Some(sequence.0),
            _ => None,
        });
        condemned.collect()
    }

    pub(crate) fn held(&self) -> Vec<u64> {
        let held = self.actions.iter().filter_map(|action| match action {
            Action::Hold { sequence } => Some(sequence.0),
            _ => None,
        });
        held.collect()
    }

    pub(crate) fn released(&self) -> Vec<u64> {
        let released = self.actions.iter().filter_map(|action| match action {
            Action::Release { sequence } => Some(sequence.0),
            _ => None,
        });
        released.collect()
    }

    pub(crate) fn banned(&self) -> Vec<IpAddr> {
        let banned = self.actions.iter().filter_map(|action| match action {
            Action::Ban { address, .. } => Some(*address),
            _ => None,
        });
        banned.collect()
    }

    /// The incident that somebody was banned for.
    pub(crate) fn ban_of(&self) -> IncidentId {
        let found = self.actions.iter().find_map(|action| match action {
            Action::Ban { incident, .. } => Some(*incident),
            _ => None,
        });
        found.expect("a ban")
    }

    /// All records once every wait is over.
    pub(crate) fn reports(&mut self) -> Vec<Incident> {
        self.now += 1_000_000_000;
        self.tick();
        let reports = self.actions.iter().filter_map(|action| match action {
            Action::Report(incident) => Some(incident.as_ref().clone()),
            _ => None,
        });
        reports.collect()
    }
}

/// A file that is opened.
#[derive(Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) pid: u32,
    pub(crate) inode: u64,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) decision: Decision,
}

/// The backend itself writes the file `/up/x`, and may.
pub(crate) const WRITTEN: Opened = Opened {
    pid: BACKEND.tgid,
    inode: 7,
    path: "/up/x",
    access: Access::Write,
    decision: Decision::Allowed,
};

/// It reads it.
pub(crate) const READ: Opened = Opened {
    access: Access::Read,
    ..WRITTEN
};

fn file_key(inode: u64) -> FileKey {
    FileKey { device: 1, inode }
}

pub(crate) fn address(sequence: u64) -> IpAddr {
    IpAddr::from([
        10,
        (sequence >> 16) as u8,
        (sequence >> 8) as u8,
        sequence as u8,
    ])
}

pub(crate) fn lineage(sequence: u64, tid: u32, strength: Strength) -> Lineage {
    Lineage {
        strength,
        sequence: Sequence(sequence),
        backend: BACKEND,
        tid,
        recent: vec![Sequence(sequence)],
    }
}
