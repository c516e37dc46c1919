//! What is told: events, what joins them, what is masked and cut, and how they are written.

pub(crate) mod bounds;
pub(crate) mod ecs;
pub(crate) mod fields;
pub mod mask;
pub(crate) mod ocsf;
pub mod pairing;
#[cfg(test)]
mod schema_tests;
mod story;

use std::time::Duration;

use clew_protocol::incident::{Incident, IncidentAction};
use clew_protocol::report::{Outcome, Report, RuleMatch};
use serde::{Deserialize, Serialize};

pub use bounds::LINE_BYTES;

/// One event: a request as the edge saw it, or a revision of an incident, with the report of its request where
/// that is known. Secrets are masked and its size is bounded from the start: no other form of it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Stable and unique: the request's id, or the incident's id, `-` and the revision. Who gets an event twice
    /// knows it by this.
    pub id: String,
    /// When it was made, since the Unix epoch.
    pub created: Duration,
    /// What the edge says; none where the incident's request is not known.
    pub report: Option<Box<Report>>,
    /// What the correlator says; none for an event of the edge alone.
    pub incident: Option<Box<Incident>>,
    /// Some of it was longer than its bound, and is cut.
    pub cut: bool,
}

/// How grave an event is: the numbers of OCSF's `severity_id`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Informational = 1,
    /// Refused before rules were asked, or a rule of little weight.
    Low = 2,
    /// A rule has refused a request, or a grave one has matched.
    Medium = 3,
    /// A grave rule has refused a request, or something was stopped or seen in a backend and nobody was cut off.
    High = 4,
    /// An exploit that worked as far as the backend, and was cut off there.
    Critical = 5,
}

impl Severity {
    /// The name that OCSF gives it.
    pub(crate) const fn caption(self) -> &'static str {
        match self {
            Self::Informational => "Informational",
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

/// What became of that which an event tells of; `event.action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventAction {
    /// Rules matched, and the request went on.
    Detected,
    /// Rules have refused the request, or its response.
    Denied,
    /// The request's form or size was not acceptable.
    Malformed,
    /// The request's source was banned.
    Banned,
    /// The request's source asked too often.
    Limited,
    /// A verdict ended the request, and its incident is not known.
    Cancelled,
    /// An incident in which nothing was stopped.
    IncidentObserved,
    /// An incident in which something was stopped, and no request was named.
    IncidentStopped,
    /// An incident whose request was cancelled.
    IncidentCancelled,
    /// An incident whose request was cancelled and its source banned.
    IncidentBanned,
}

impl EventAction {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detected => "detected",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Banned => "banned",
            Self::Limited => "limited",
            Self::Cancelled => "cancelled",
            Self::IncidentObserved => "incident-observed",
            Self::IncidentStopped => "incident-stopped",
            Self::IncidentCancelled => "incident-cancelled",
            Self::IncidentBanned => "incident-banned",
        }
    }

    /// Whether what was asked for did not take place.
    pub const fn is_stop(self) -> bool {
        !matches!(self, Self::Detected | Self::IncidentObserved)
    }
}

impl Event {
    /// The event of a request alone. `created` is since the Unix epoch.
    pub fn of_report(mut report: Report, created: Duration) -> Self {
        mask::report(&mut report);
        Self::of_masked_report(Box::new(report), created)
    }

    /// The same, of a report that has been masked.
    pub(crate) fn of_masked_report(report: Box<Report>, created: Duration) -> Self {
        Self {
            id: report.id.to_string(),
            created,
            report: Some(report),
            incident: None,
            cut: false,
        }
        .bounded()
    }

    /// The event of an incident's revision, with the report of its request where there is one.
    pub fn of_incident(
        mut incident: Incident,
        report: Option<Box<Report>>,
        created: Duration,
    ) -> Self {
        mask::incident(&mut incident);
        let mut event = Self {
            id: format!("{}-{}", incident.id, incident.revision),
            created,
            report,
            incident: Some(Box::new(incident)),
            cut: false,
        };
        if let Some(report) = &mut event.report {
            mask::report(report);
        }
        event.bounded()
    }

    /// The incident, where it tells of one.
    pub fn incident(&self) -> Option<&Incident> {
        self.incident.as_deref()
    }

    /// What became of it.
    pub fn action(&self) -> EventAction {
        if let Some(incident) = self.incident() {
            return match incident.action {
                IncidentAction::Observed => EventAction::IncidentObserved,
                IncidentAction::Stopped => EventAction::IncidentStopped,
                IncidentAction::Cancelled => EventAction::IncidentCancelled,
                IncidentAction::Banned => EventAction::IncidentBanned,
            };
        }
        match self.report.as_ref().map(|it| it.outcome) {
            Some(Outcome::Detected) | None => EventAction::Detected,
            Some(Outcome::Denied) => EventAction::Denied,
            Some(Outcome::Malformed) => EventAction::Malformed,
            Some(Outcome::Banned) => EventAction::Banned,
            Some(Outcome::Limited) => EventAction::Limited,
            Some(Outcome::Cancelled) => EventAction::Cancelled,
        }
    }

    /// How grave it is.
    pub fn severity(&self) -> Severity {
        match self.action() {
            EventAction::IncidentCancelled | EventAction::IncidentBanned => Severity::Critical,
            EventAction::IncidentObserved
            | EventAction::IncidentStopped
            | EventAction::Cancelled => Severity::High,
            EventAction::Denied if self.has_grave_match() => Severity::High,
            EventAction::Denied => Severity::Medium,
            EventAction::Detected if self.has_grave_match() => Severity::Medium,
            EventAction::Detected
            | EventAction::Malformed
            | EventAction::Banned
            | EventAction::Limited => Severity::Low,
        }
    }

    /// A rule of severity 0 to 2 (emergency, alert, critical) matched.
    fn has_grave_match(&self) -> bool {
        let grave = |it: &RuleMatch| it.severity.is_some_and(|severity| severity <= 2);
        self.report
            .as_ref()
            .is_some_and(|it| it.matches.iter().any(grave))
    }

    /// Name of the service, where one was chosen.
    pub fn service(&self) -> Option<&str> {
        let of_report = self.report.as_ref().and_then(|it| it.service.as_deref());
        of_report.or_else(|| {
            let incident = self.incident()?;
            let request = incident.request.as_ref().or(incident.candidates.first())?;
            Some(&request.service)
        })
    }

    /// The rule that tells most: the one that stopped the request, else the gravest, else the first.
    pub(crate) fn leading_match(&self) -> Option<&RuleMatch> {
        let matches = &self.report.as_ref()?.matches;
        let gravest = || {
            matches
                .iter()
                .min_by_key(|it| it.severity.unwrap_or(u8::MAX))
        };
        matches.iter().find(|it| it.disruptive).or_else(gravest)
    }
}
