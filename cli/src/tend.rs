//! The thread that joins both ends: kernel events and request records in, verdicts out.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clew_bans::Keeper;
use clew_blocklog::BlockLog;
use clew_correlator::profile::Profile;
use clew_correlator::{Config, Correlator, Deed, Input};
use clew_protocol::kernel::KernelEvent;
use clew_protocol::request::ProxyRecord;
use clew_protocol::verdict::Action;
use clew_protocol::{IncidentId, Moment, RequestId};
use clew_proxy::Handle;
use clew_sensor::Sensor;

use crate::banning::by_verdict;
use crate::beat::Beat;
use crate::reload::PolicyChange;
use crate::store::Writer;

/// How long events that want no verdict may lie in the ring.
const LOOK: Duration = Duration::from_millis(10);
/// How long a verdict that waits for the end of another request may wait for the next look.
const SOON: Duration = Duration::from_micros(100);

/// Everything the thread holds.
pub(crate) struct Tender {
    pub(crate) sensor: Sensor,
    pub(crate) records: Receiver<ProxyRecord>,
    pub(crate) handle: Handle,
    pub(crate) bans: Keeper,
    pub(crate) writer: Writer,
    pub(crate) correlator: Correlator,
    pub(crate) learning: Option<Learning>,
    /// The programs stay at work when this ends in good order.
    pub(crate) keep_programs: bool,
    /// Policies that are to take the place of the one in force.
    pub(crate) policies: Receiver<PolicyChange>,
    /// Who is told of incidents beside the store.
    pub(crate) log: BlockLog,
    /// Tells others what has been counted.
    pub(crate) beat: Beat,
}

/// A profile being learned.
pub(crate) struct Learning {
    pub(crate) profile: Profile,
    pub(crate) path: PathBuf,
    pub(crate) changed: bool,
}

/// The correlator for a configuration.
pub(crate) fn correlator(ban_span: Duration, redact_environment: bool) -> Correlator {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Correlator::new(Config {
        // Whether anybody is, is for who keeps the bans to say.
        ban: true,
        ban_span,
        redact_environment,
        epoch_ns: wall.as_nanos() as i128 - i128::from(Moment::now().0),
        next_id: Box::new(|| IncidentId(RequestId::fresh().0)),
    })
}

impl Tender {
    /// Works until `stop`. The sensor goes with it: programs are detached on return, unless they are kept.
    pub(crate) fn run(mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        let mut events = Vec::new();
        let mut actions = Vec::new();
        while !stop.load(Ordering::Acquire) {
            events.clear();
            // Events first, then records: a request's record is sent before its first byte, so
            // whatever an event is about is in the queue by the time the event can be read. Who
            // has read what comes last: all that was read before an event can be found by then.
            let waiting = self.correlator.is_waiting();
            let span = if waiting { SOON } else { LOOK };
            self.sensor.next_events(span, &mut events)?;
            self.take_records(&mut actions);
            self.sensor.add_reads(&mut events);
            let stops = self.sensor.handed_out();
            for event in events.drain(..) {
                self.learn(&event);
                self.correlator.handle(Input::Kernel(event), &mut actions);
                self.act(&mut actions);
            }
            // Whose they are is known by now, or which responses have to wait for it.
            self.handle.decided(stops);
            let now = Moment::now();
            self.correlator.handle(Input::Tick(now), &mut actions);
            self.act(&mut actions);
            self.change_policy();
            if self.beat.is_due(now) {
                let (sensor, correlator) = (&mut self.sensor, &mut self.correlator);
                self.beat
                    .beat(now, &self.handle, sensor, correlator, &mut actions)?;
                self.act(&mut actions);
                self.write_profile();
            }
        }
        self.finish()
    }

    /// Enters the policy that somebody has asked for, and says whether it is in force.
    fn change_policy(&mut self) {
        if let Ok((tables, answer)) = self.policies.try_recv() {
            let entered = self.sensor.set_policy(tables);
            let _ = answer.try_send(entered.map_err(|error| error.to_string()));
        }
    }

    /// Hands on what the proxy says; the sensor looks out for the requests it sends.
    fn take_records(&mut self, actions: &mut Vec<Action>) {
        let mut found = 0;
        while let Ok(record) = self.records.try_recv() {
            match &record {
                ProxyRecord::Started(started) => self.sensor.expect(started.sequence),
                ProxyRecord::Ended(ended) => self.sensor.ended(ended.sequence, ended.at),
                ProxyRecord::Input { .. }
                | ProxyRecord::Answered { .. }
                | ProxyRecord::InFlight(_) => {}
            }
            self.correlator.handle(Input::Proxy(record), actions);
            found += 1;
        }
        self.beat.note_queue(found);
    }

    /// Carries out what the correlator asks for, in its order.
    fn act(&mut self, actions: &mut Vec<Action>) {
        let mut next = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Condemn { sequence, incident } => {
                    self.handle.cancel(sequence, incident);
                }
                Action::Hold { sequence } => self.handle.hold(sequence),
                Action::Release { sequence } => self.handle.release(sequence),
                Action::Ban {
                    address, incident, ..
                } => {
                    let deed = self.ban(address, incident);
                    let at = Moment::now();
                    let acted = Input::Acted { incident, deed, at };
                    self.correlator.handle(acted, &mut next);
                }
                Action::Report(incident) => {
                    if incident.revision == 1 {
                        tracing::warn!(incident = %incident.id, action = ?incident.action,
                            proof = ?incident.proof, "incident");
                    }
                    self.log.incident((*incident).clone());
                    self.writer.write(*incident);
                }
            }
        }
        actions.append(&mut next);
    }

    fn ban(&self, address: IpAddr, incident: IncidentId) -> Deed {
        match by_verdict(&self.bans, address, incident) {
            Ok(Some(span)) => Deed::Banned { span },
            Ok(None) => Deed::Spared,
            Err(refusal) => {
                tracing::warn!(%address, %incident, "not banned: {refusal}");
                Deed::Spared
            }
        }
    }

    fn learn(&mut self, event: &KernelEvent) {
        let Some(learning) = &mut self.learning else {
            return;
        };
        let sequence = match event {
            KernelEvent::Exec(exec) => exec.lineage.sequence,
            KernelEvent::Connect(connect) => connect.lineage.sequence,
            // Which files are watched is for the configuration to say.
            KernelEvent::File(_) | KernelEvent::Bound(_) | KernelEvent::Lost { .. } => return,
        };
        let Some(service) = self.correlator.service_of(sequence) else {
            return;
        };
        learning.changed |= match event {
            KernelEvent::Exec(exec) => learning.profile.learn_exec(service, exec),
            KernelEvent::Connect(connect) => learning.profile.learn_connect(service, connect),
            _ => false,
        };
    }

    fn write_profile(&mut self) {
        let Some(learning) = self.learning.as_mut().filter(|it| it.changed) else {
            return;
        };
        match write_whole(&learning.path, &learning.profile) {
            Ok(()) => learning.changed = false,
            Err(error) => tracing::error!(%error, "profile not written"),
        }
    }

    /// What is due later is due now: nothing is lost at a clean stop.
    fn finish(&mut self) -> Result<()> {
        let (mut actions, mut events) = (Vec::new(), Vec::new());
        self.sensor.next_events(Duration::ZERO, &mut events)?;
        self.take_records(&mut actions);
        self.sensor.add_reads(&mut events);
        for event in events {
            self.learn(&event);
            self.correlator.handle(Input::Kernel(event), &mut actions);
        }
        let late = Moment::now().after(Duration::from_secs(1));
        self.correlator.handle(Input::Tick(late), &mut actions);
        self.act(&mut actions);
        self.write_profile();
        if self.keep_programs {
            self.sensor.leave_programs();
        }
        Ok(())
    }
}

/// Replaces a file at once: a reader finds the old one or the new one.
fn write_whole(path: &Path, profile: &Profile) -> Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec_pretty(profile)?)?;
    std::fs::rename(&beside, path)?;
    Ok(())
}
