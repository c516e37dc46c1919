//! Brings an incident and the report of its request together, whichever comes first.
//!
//! No clock, no I/O: time comes in. Nothing is lost: what waits for its other half is told by itself when the wait
//! is over, when there is no room left to wait, and at the end.
//!
//! | first | second | told |
//! |---|---|---|
//! | report that no verdict ended | | at once |
//! | cancelled report | its incident within [`REPORT_WAIT`] | one event, the incident's |
//! | cancelled report | | by itself, after [`REPORT_WAIT`] |
//! | incident whose request is to be reported | the report within [`INCIDENT_WAIT`] | one event, the incident's |
//! | the same | a later revision | the later one, when its time has come |
//! | the same | | without a report, after [`INCIDENT_WAIT`]; a cancelled report that comes later is told by itself |
//! | any other incident | | at once, with the report if that is remembered |

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use clew_protocol::incident::{Incident, IncidentAction};
use clew_protocol::report::{Outcome, Report};
use clew_protocol::{IncidentId, Moment, RequestId};

use super::{Event, mask};

/// Reports that are remembered, for incidents to come.
pub const REPORTS: usize = 4096;
/// Most bytes of them, as JSON.
pub const REPORTS_BYTES: usize = 32 << 20;
/// Incidents that may wait for a report.
pub const INCIDENTS: usize = 1024;
/// How long a cancelled report waits for its incident: the correlator holds one back for a quarter of a second at most.
pub const REPORT_WAIT: Duration = Duration::from_secs(5);
/// How long an incident waits for the report of its request, which comes when the edge is done with that.
pub const INCIDENT_WAIT: Duration = Duration::from_secs(2);

/// Both clocks, as they were read.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For what waits.
    pub moment: Moment,
    /// For what is written: since the Unix epoch.
    pub wall: Duration,
}

/// Reports that may be asked for, and halves that wait.
#[derive(Debug, Default)]
pub struct Pairing {
    reports: HashMap<RequestId, Remembered>,
    /// Of `reports`, oldest first.
    order: VecDeque<RequestId>,
    /// JSON bytes of `reports`.
    bytes: usize,
    incidents: HashMap<IncidentId, Incident>,
    /// Halves that wait for the other, in order of their time. One that has been told is not in its map any more.
    waits: VecDeque<(Moment, Half)>,
    late: VecDeque<(Moment, Half)>,
}

#[derive(Debug)]
struct Remembered {
    report: Box<Report>,
    bytes: usize,
    /// It is in no event so far.
    waits: bool,
}

#[derive(Debug, Clone, Copy)]
enum Half {
    Report(RequestId),
    Incident(IncidentId),
}

impl Pairing {
    /// Takes a report; the events that are told now.
    pub fn report(&mut self, mut report: Report, now: Now) -> Vec<Event> {
        mask::report(&mut report);
        let alone = Event::of_masked_report(Box::new(report), now.wall);
        let Some(report) = alone.report.clone() else {
            return vec![alone];
        };
        let is_cancelled = report.outcome == Outcome::Cancelled;
        let awaited = self.awaiting(&report);
        let mut events = match is_cancelled {
            true => Vec::new(),
            false => vec![alone],
        };
        let waits = is_cancelled && awaited.is_none();
        if let Some(incident) = awaited {
            events.push(Event::of_incident(incident, Some(report.clone()), now.wall));
        }
        if waits {
            let wait = (now.moment.after(REPORT_WAIT), Half::Report(report.id));
            self.late.push_back(wait);
        }
        events.extend(self.remember(report, waits, now));
        events
    }

    /// Takes a revision of an incident; the events that are told now.
    pub fn incident(&mut self, incident: Incident, now: Now) -> Vec<Event> {
        let request = incident.request.as_ref().map(|it| it.id);
        if let Some(known) = request.and_then(|it| self.reports.get_mut(&it)) {
            known.waits = false;
            self.incidents.remove(&incident.id);
            let report = Some(known.report.clone());
            return vec![Event::of_incident(incident, report, now.wall)];
        }
        if let Some(waiting) = self.incidents.get_mut(&incident.id) {
            if waiting.revision < incident.revision {
                *waiting = incident;
            }
            return Vec::new();
        }
        if !is_to_be_reported(&incident) {
            return vec![Event::of_incident(incident, None, now.wall)];
        }
        let due = now.moment.after(INCIDENT_WAIT);
        self.waits.push_back((due, Half::Incident(incident.id)));
        self.incidents.insert(incident.id, incident);
        let mut told = Vec::new();
        while self.incidents.len() > INCIDENTS || self.waits.len() > 2 * INCIDENTS {
            let Some((_, half)) = self.waits.pop_front() else {
                break;
            };
            told.extend(self.tell(half, now));
        }
        told
    }

    /// When [`Pairing::expire`] has something to do next.
    pub fn due(&self) -> Option<Moment> {
        let first = |queue: &VecDeque<(Moment, Half)>| queue.front().map(|it| it.0);
        first(&self.waits)
            .into_iter()
            .chain(first(&self.late))
            .min()
    }

    /// The halves whose wait is over.
    pub fn expire(&mut self, now: Now) -> Vec<Event> {
        let is_over = |queue: &VecDeque<(Moment, Half)>| {
            queue.front().is_some_and(|(due, _)| *due <= now.moment)
        };
        let mut told = Vec::new();
        while is_over(&self.waits) || is_over(&self.late) {
            let queue = match is_over(&self.waits) {
                true => &mut self.waits,
                false => &mut self.late,
            };
            if let Some((_, half)) = queue.pop_front() {
                told.extend(self.tell(half, now));
            }
        }
        told
    }

    /// All halves that wait, since nothing will come any more.
    pub fn drain(&mut self, now: Now) -> Vec<Event> {
        let halves: Vec<Half> = self
            .waits
            .drain(..)
            .chain(self.late.drain(..))
            .map(|it| it.1)
            .collect();
        halves
            .into_iter()
            .filter_map(|half| self.tell(half, now))
            .collect()
    }

    fn tell(&mut self, half: Half, now: Now) -> Option<Event> {
        match half {
            Half::Incident(id) => {
                let incident = self.incidents.remove(&id)?;
                Some(Event::of_incident(incident, None, now.wall))
            }
            Half::Report(id) => {
                let known = self.reports.get_mut(&id).filter(|it| it.waits)?;
                known.waits = false;
                Some(Event::of_masked_report(known.report.clone(), now.wall))
            }
        }
    }

    /// The incident that waits for this report, taken out.
    fn awaiting(&mut self, report: &Report) -> Option<Incident> {
        let is_its_own = |it: &&Incident| {
            it.request
                .as_ref()
                .is_some_and(|request| request.id == report.id)
        };
        let named = report.incident.filter(|id| self.incidents.contains_key(id));
        let id = named.or_else(|| self.incidents.values().find(is_its_own).map(|it| it.id))?;
        self.incidents.remove(&id)
    }

    /// What had to be forgotten for it, and was in no event so far, is told.
    fn remember(&mut self, report: Box<Report>, waits: bool, now: Now) -> Vec<Event> {
        let bytes = serde_json::to_vec(&report).map_or(0, |it| it.len());
        let id = report.id;
        let remembered = Remembered {
            report,
            bytes,
            waits,
        };
        self.bytes += bytes;
        match self.reports.insert(id, remembered) {
            Some(before) => self.bytes -= before.bytes,
            None => self.order.push_back(id),
        }
        let mut told = Vec::new();
        while self.reports.len() > REPORTS || self.bytes > REPORTS_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            told.extend(self.tell(Half::Report(oldest), now));
            if let Some(forgotten) = self.reports.remove(&oldest) {
                self.bytes -= forgotten.bytes;
            }
        }
        told
    }
}

/// Whether the edge will report the request: a verdict has ended it, or rules have matched.
fn is_to_be_reported(incident: &Incident) -> bool {
    let is_cancelled = matches!(
        incident.action,
        IncidentAction::Cancelled | IncidentAction::Banned
    );
    let request = incident.request.as_ref();
    request.is_some_and(|it| is_cancelled || !it.edge.rules.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventAction;
    use crate::sample;

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment(seconds * 1_000_000_000),
            wall: Duration::from_secs(1_800_000_000 + seconds),
        }
    }

    fn cancelled() -> (Report, Incident) {
        let incident = sample::incident(1);
        let mut report = sample::report();
        report.outcome = Outcome::Cancelled;
        report.incident = Some(incident.id);
        report.id = incident.request.as_ref().expect("a request").id;
        (report, incident)
    }

    #[test]
    fn a_cancelled_report_and_its_incident_are_one_event_in_either_order() {
        let (report, incident) = cancelled();
        let mut first = Pairing::default();
        assert!(first.report(report.clone(), at(1)).is_empty());
        let told = first.incident(incident.clone(), at(2));
        assert!(told.len() == 1 && told[0].report.is_some() && told[0].incident.is_some());
        assert!(first.expire(at(60)).is_empty());

        let mut second = Pairing::default();
        assert!(second.incident(incident.clone(), at(1)).is_empty());
        let told = second.report(report, at(2));
        assert!(told.len() == 1 && told[0].report.is_some() && told[0].incident.is_some());
        assert!(second.expire(at(60)).is_empty());
        // A later revision has the report, too.
        let told = second.incident(
            Incident {
                revision: 2,
                ..incident
            },
            at(3),
        );
        assert!(told.len() == 1 && told[0].report.is_some() && told[0].id.ends_with("-2"));
    }

    #[test]
    fn a_half_without_the_other_is_told_by_itself_and_once() {
        let (report, incident) = cancelled();
        let mut pairing = Pairing::default();
        assert!(pairing.report(report.clone(), at(1)).is_empty());
        assert_eq!(pairing.due(), Some(at(6).moment));
        assert!(pairing.expire(at(5)).is_empty());
        let told = pairing.expire(at(6));
        assert_eq!(
            told.iter().map(Event::action).collect::<Vec<_>>(),
            [EventAction::Cancelled]
        );
        assert!(pairing.expire(at(60)).is_empty() && pairing.drain(at(61)).is_empty());

        let mut pairing = Pairing::default();
        assert!(pairing.incident(incident.clone(), at(1)).is_empty());
        assert!(
            pairing
                .incident(
                    Incident {
                        revision: 3,
                        ..incident
                    },
                    at(2)
                )
                .is_empty()
        );
        let told = pairing.expire(at(3));
        assert!(told.len() == 1 && told[0].report.is_none() && told[0].id.ends_with("-3"));
        // Now it is too late for one event, and the report waits in vain.
        assert!(pairing.report(report, at(4)).is_empty());
        assert_eq!(pairing.drain(at(5)).len(), 1);
    }

    #[test]
    fn an_incident_that_no_report_will_come_for_does_not_wait() {
        let (_, mut incident) = cancelled();
        incident.action = IncidentAction::Observed;
        if let Some(request) = &mut incident.request {
            request.edge.rules = Box::default();
        }
        assert_eq!(Pairing::default().incident(incident, at(1)).len(), 1);
    }

    #[test]
    fn what_is_forgotten_while_it_waits_is_told() {
        let mut pairing = Pairing::default();
        let mut told = 0;
        for _ in 0..REPORTS + 10 {
            let (mut report, _) = cancelled();
            report.matches.clear();
            told += pairing.report(report, at(1)).len();
        }
        assert_eq!(told, 10);
        assert_eq!(pairing.drain(at(2)).len(), REPORTS);
        assert!(pairing.reports.len() <= REPORTS && pairing.bytes <= REPORTS_BYTES);

        let mut pairing = Pairing::default();
        let told: usize = (0..INCIDENTS + 10)
            .map(|_| pairing.incident(cancelled().1, at(1)).len())
            .sum();
        assert_eq!(told, 10);
        assert_eq!(pairing.drain(at(2)).len(), INCIDENTS);
    }
}
