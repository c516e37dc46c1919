//! What became of a case.

use std::net::{IpAddr, Ipv4Addr};

use clew_protocol::incident::{Incident, Step, StepKind};
use clew_protocol::kernel::Decision;

/// Result of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The attack had no effect.
    Stopped,
    /// It had one, and an incident shows it.
    Reported,
    /// It had one, nobody says so, and that is a documented limit.
    Declared,
    /// It had one and nobody says so, or the wrong one is blamed.
    Missed,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verdict::Stopped => "stopped",
            Verdict::Reported => "reported",
            Verdict::Declared => "declared",
            Verdict::Missed => "missed",
        }
    }
}

/// A verdict, and why.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
}

impl Outcome {
    pub(crate) fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            reason: reason.into(),
        }
    }

    /// The attack does not work without Clew either.
    pub(crate) fn impossible(note: &str) -> Self {
        Self::new(
            Verdict::Stopped,
            format!("not possible on this kernel, Clew or not: {note}"),
        )
    }
}

/// Whether the incident says that `source` did it, or may have.
pub(crate) fn concerns(incident: &Incident, source: Ipv4Addr) -> bool {
    let is = |address: IpAddr| address == IpAddr::V4(source);
    match &incident.request {
        Some(request) => is(request.source_ip),
        None => incident.candidates.iter().any(|it| is(it.source_ip)),
    }
}

/// Whether some step of the incident has `word` among its arguments, or in the path of its file.
pub(crate) fn mentions(incident: &Incident, word: &str) -> bool {
    incident.steps.iter().any(|step| match &step.what {
        StepKind::Exec(exec) => exec.args.iter().any(|argument| argument.contains(word)),
        StepKind::Connect { .. } => false,
        StepKind::File { path, .. } => path.contains(word),
    })
}

/// Whom it names.
pub(crate) fn named(incident: &Incident) -> Option<IpAddr> {
    incident.request.as_ref().map(|it| it.source_ip)
}

/// What was stopped, on what proof, in a few words.
pub(crate) fn describe(incident: &Incident) -> String {
    let step = |step: &Step| match (&step.what, step.decision) {
        (_, Decision::Allowed) => None,
        (StepKind::Exec(exec), Decision::Killed) => Some(format!("killed {}", exec.executable)),
        (StepKind::Exec(exec), Decision::Denied) => Some(format!("refused {}", exec.executable)),
        (StepKind::Exec(exec), _) => Some(format!("saw {}", exec.executable)),
        (
            StepKind::Connect {
                target, transport, ..
            },
            decision,
        ) => Some(format!(
            "{} {transport:?} to {target}",
            if decision == Decision::Denied {
                "denied"
            } else {
                "saw"
            }
        )),
        (StepKind::File { path, access, .. }, Decision::Denied) => {
            Some(format!("denied {access:?} of {path}"))
        }
        (StepKind::File { path, access, .. }, _) => Some(format!("saw {access:?} of {path}")),
    };
    let mut steps: Vec<String> = incident.steps.iter().filter_map(step).collect();
    steps.dedup();
    if steps.is_empty() {
        return format!(
            "stopped, but the record has no room for it after {} harmless steps ({:?})",
            incident.steps.len(),
            incident.proof
        )
        .to_lowercase();
    }
    let cut = steps.len().saturating_sub(3);
    steps.truncate(3);
    let lost = match incident.steps_cut {
        0 => String::new(),
        lost => format!(", {lost} steps more than the record holds"),
    };
    let more = if cut > 0 {
        format!(" and {cut} more")
    } else {
        String::new()
    };
    format!("{}{more}{lost} ({:?})", steps.join(", "), incident.proof).to_lowercase()
}
