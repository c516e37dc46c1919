//! The gate: what a backend answers goes on to the client unless the kernel has stopped something, and
//! nobody has said yet whose deed that was.
//!
//! Whoever can know of a stop, the stopped program's parent before all, answers after the kernel has
//! counted it. So the count, looked at when a piece of a response has come, tells whether the piece may
//! be the consequence of a stop. Nearly always it is not, and looking costs two loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clew_protocol::Moment;
use clew_protocol::request::ProxyRecord;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{OnFailure, StopCount, Tagging};
use crate::exchange::{Exchange, Gateway, condemned};
use crate::flight::Flight;
use crate::held::Held;

/// What the kernel has stopped, and how much of that has been looked into.
pub(crate) struct Gate {
    /// None without a sensor: always open.
    stops: Option<StopCount>,
    decided: AtomicU64,
    changed: Notify,
    /// How long a response waits for a verdict at most.
    patience: Duration,
}

impl Gate {
    pub(crate) fn new(tagging: Option<&Tagging>) -> Self {
        Self {
            stops: tagging.map(|it| it.stops.clone()),
            decided: AtomicU64::new(0),
            changed: Notify::new(),
            patience: tagging.map_or(Duration::ZERO, |it| it.hold_span),
        }
    }

    /// Whose deeds the first `stops` were is known, or which responses have to wait for it.
    pub(crate) fn decide(&self, stops: u64) {
        if self.decided.swap(stops, Ordering::AcqRel) != stops {
            self.notify();
        }
    }

    /// Those who wait look again.
    pub(crate) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// What must have been decided before what has come by now may go on.
    fn stops(&self) -> u64 {
        self.stops.as_ref().map_or(0, StopCount::read)
    }

    fn is_open(&self, stops: u64, flight: &Flight) -> bool {
        self.decided.load(Ordering::Acquire) >= stops && !flight.is_held()
    }

    /// Waits until what had been stopped by now is decided; false when that has taken too long.
    async fn wait(&self, flight: &Flight) -> bool {
        let stops = self.stops();
        let opened = async {
            loop {
                let changed = self.changed.notified();
                if self.is_open(stops, flight) || flight.is_cancelled() {
                    return;
                }
                changed.await;
            }
        };
        timeout(self.patience, opened).await.is_ok()
    }
}

/// One response's way through the gate.
pub(crate) struct Passage {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) flight: Arc<Flight>,
}

impl Passage {
    /// Waits until nothing of what has come by now can be the consequence of an undecided stop. After
    /// `hold_span` it goes on all the same, unless that is to fail, and is counted.
    ///
    /// # Errors
    ///
    /// A verdict has ended the request, or did not come.
    pub(crate) async fn pass(&self, is_whole: bool) -> Result<()> {
        let (gateway, flight) = (&self.gateway, &self.flight);
        let gate = &gateway.gate;
        if !gate.is_open(gate.stops(), flight) {
            if is_whole && let Some(tagging) = &gateway.tagging {
                let answered = ProxyRecord::Answered {
                    sequence: flight.sequence,
                    at: Moment::now(),
                };
                gateway.record(tagging, answered);
            }
            gateway.tally.held_responses.add_one();
            if !gate.wait(flight).await {
                gateway.tally.unjudged_responses.add_one();
                if let Some(tagging) = &gateway.tagging
                    && tagging.overdue == OnFailure::Closed
                    && !flight.is_cancelled()
                {
                    return Err(Error::new(ErrorType::HTTPStatus(503)));
                }
            }
        }
        if flight.is_cancelled() {
            return Err(condemned());
        }
        Ok(())
    }
}

/// Looks at a piece of a response that has just come: what is written of it waits if it may have to.
///
/// # Errors
///
/// A verdict has ended the request.
pub(crate) fn guard(
    gateway: &Arc<Gateway>,
    session: &mut Session,
    ctx: &mut Exchange,
) -> Result<()> {
    let gate = &gateway.gate;
    if let Some(flight) = &ctx.flight
        && !gate.is_open(gate.stops(), flight)
    {
        let held = ctx.held.get_or_insert_with(|| Held::hold(session, None));
        held.lead_through(Passage {
            gateway: gateway.clone(),
            flight: flight.clone(),
        });
    }
    // Looked at after the gate: by the time it opens, a verdict that has come is known.
    ctx.check_verdict()
}

#[cfg(test)]
mod tests {
    use clew_protocol::Sequence;

    use super::*;
    use crate::flight::Flights;

    fn gate(stops: u64, patience: Duration) -> Gate {
        Gate {
            stops: Some(StopCount::new(move || stops)),
            decided: AtomicU64::new(0),
            changed: Notify::new(),
            patience,
        }
    }

    #[tokio::test]
    async fn it_opens_when_all_stops_are_decided_and_the_flight_is_free() {
        let flights = Flights::new(Sequence(1)).expect("a descriptor");
        let flight = flights.begin(None, None);
        let gate = gate(2, Duration::from_secs(60));
        flight.hold();
        assert!(!gate.is_open(2, &flight));
        let steps = async {
            gate.decide(1);
            gate.decide(2);
            tokio::task::yield_now().await;
            assert!(!gate.is_open(2, &flight), "held");
            flight.free();
            gate.notify();
        };
        let (passed, ()) = tokio::join!(gate.wait(&flight), steps);
        assert!(passed);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let flights = Flights::new(Sequence(1)).expect("a descriptor");
        let flight = flights.begin(None, None);
        assert!(!gate(1, Duration::from_millis(1)).wait(&flight).await);
    }
}
