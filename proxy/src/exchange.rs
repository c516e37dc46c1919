//! What one request carries, and what all of them share.

use std::sync::Arc;
use std::time::Duration;

use clew_protocol::report::Outcome;
use clew_protocol::{IncidentId, Moment, RequestId};
use http::HeaderValue;
use pingora::{Error, ErrorType, OrErr, Result};
use uuid::Uuid;

use crate::access::Accesses;
use crate::bans::Bans;
use crate::client::Neighbours;
use crate::config::{Limits, Offenders, Reports, Tagging};
use crate::counters::Tally;
use crate::endings::{Ending, EndingTally};
use crate::flight::{Flight, Flights, Upstream};
use crate::gate::Gate;
use crate::held::Held;
use crate::inputs::BodyInputs;
use crate::inspection::{Inspection, Inspector};
use crate::page::{Answer, Pages};
use crate::service::{Service, Services};
use crate::trace::{Span, Tracing};
use crate::upload::Upload;

/// Error type of a request that a verdict has ended.
const CONDEMNED: ErrorType = ErrorType::new("condemned");

/// What all requests share.
pub(crate) struct Gateway {
    pub(crate) services: Services,
    pub(crate) limits: Limits,
    pub(crate) neighbours: Neighbours,
    pub(crate) tagging: Option<Tagging>,
    /// None: no rules.
    pub(crate) inspector: Option<Arc<Inspector>>,
    pub(crate) pages: Pages,
    /// None: nobody is told of every request.
    pub(crate) accesses: Option<Accesses>,
    /// None: the edge makes no spans.
    pub(crate) tracing: Option<Tracing>,
    /// None: nobody is banned by limits.
    pub(crate) offenders: Option<Offenders>,
    /// None: nobody is told of requests.
    pub(crate) reports: Option<Reports>,
    pub(crate) flights: Flights,
    pub(crate) gate: Gate,
    pub(crate) bans: Bans,
    pub(crate) tally: Arc<Tally>,
    pub(crate) endings: EndingTally,
}

/// What one request carries.
pub(crate) struct Exchange {
    pub(crate) id: RequestId,
    /// The id as a field's value, once somebody has asked for it.
    id_value: Option<HeaderValue>,
    pub(crate) started: Moment,
    /// Its place in a trace; none where the edge makes no spans.
    pub(crate) span: Option<Span>,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) flight: Option<Arc<Flight>>,
    pub(crate) attempts: u8,
    pub(crate) request_body_bytes: u64,
    /// What is reported of the body; none before the attempt has a name.
    pub(crate) body_inputs: Option<BodyInputs>,
    pub(crate) relayed_body_bytes: u64,
    pub(crate) cancelled_at: Option<Moment>,
    /// Ends an HTTP/2 request whose body does not arrive in time.
    pub(crate) upload: Option<Arc<Upload>>,
    /// What rules see of it; none when there are no rules.
    pub(crate) rules: Option<Box<Inspection>>,
    /// How the client's session is held back, once it is.
    pub(crate) held: Option<Held>,
    /// What the edge has made of it, where that is worth a report.
    pub(crate) outcome: Option<Outcome>,
    /// Why a verdict has ended it.
    pub(crate) incident: Option<IncidentId>,
    /// When the head of the last attempt was sent, and that of its response came; where there are reports.
    pub(crate) asked: Option<Moment>,
    pub(crate) answered: Option<Moment>,
    /// Answered by the edge after a failure, with nothing of the request left on the connection.
    pub(crate) reusable: bool,
    /// What became of it is counted.
    pub(crate) is_counted: bool,
}

impl Exchange {
    pub(crate) fn fresh() -> Self {
        Self {
            id: RequestId::fresh(),
            id_value: None,
            started: Moment::now(),
            span: None,
            service: None,
            upstream: None,
            flight: None,
            attempts: 0,
            request_body_bytes: 0,
            body_inputs: None,
            relayed_body_bytes: 0,
            cancelled_at: None,
            upload: None,
            rules: None,
            held: None,
            outcome: None,
            incident: None,
            asked: None,
            answered: None,
            reusable: false,
            is_counted: false,
        }
    }

    /// The id as both sides are told it; written out once.
    pub(crate) fn id_value(&mut self) -> Result<HeaderValue> {
        if let Some(value) = &self.id_value {
            return Ok(value.clone());
        }
        let mut buffer = Uuid::encode_buffer();
        let text: &str = self.id.0.hyphenated().encode_lower(&mut buffer);
        let value = HeaderValue::from_str(text)
            .or_err(ErrorType::InternalError, "a request id is always ASCII")?;
        self.id_value = Some(value.clone());
        Ok(value)
    }

    /// Since its head was read.
    pub(crate) fn age(&self) -> Duration {
        Moment::now().since(self.started)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.flight
            .as_ref()
            .is_some_and(|flight| flight.is_cancelled())
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.upload
            .as_ref()
            .is_some_and(|upload| upload.is_overdue())
    }

    /// What the client is told once rules have refused the request or its response.
    pub(crate) fn denial(&self) -> Option<&Answer> {
        self.rules.as_ref()?.denial()
    }

    /// Whether rules have seen a response: the request is not sent again.
    pub(crate) fn has_answer(&self) -> bool {
        self.rules.as_ref().is_some_and(|it| it.has_response())
    }

    /// Whether no more of the request's body can come.
    pub(crate) fn has_whole_body(&self) -> bool {
        self.rules.as_ref().is_some_and(|it| it.has_whole_body())
    }

    /// Stops relaying when a verdict has come.
    pub(crate) fn check_verdict(&mut self) -> Result<()> {
        if !self.is_cancelled() {
            return Ok(());
        }
        self.cancelled_at.get_or_insert_with(Moment::now);
        Err(condemned())
    }
}

/// Ends a request that a verdict has been given on.
pub(crate) fn condemned() -> Box<Error> {
    Error::new(CONDEMNED)
}

/// pingora has dropped the request: its body was overdue, and nobody was left to answer.
impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.gateway.end_attempt(self, None);
            if !self.is_counted {
                upload
                    .gateway
                    .endings
                    .add(Ending::Malformed, None, self.age());
            }
        }
    }
}
