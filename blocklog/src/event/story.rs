//! An event in a sentence, for people, and what of an incident comes first.

use clew_protocol::incident::{Incident, IncidentAction, Step, StepKind};
use clew_protocol::kernel::{Access, Decision};

use super::{Event, EventAction};

impl Event {
    /// What was stopped first; else what was observed first; else the first step.
    pub(crate) fn leading_step(&self) -> Option<&Step> {
        let steps = &self.incident()?.steps;
        let first = |is_it: fn(&Decision) -> bool| steps.iter().find(|it| is_it(&it.decision));
        first(|it| it.is_stop())
            .or_else(|| first(|it| *it == Decision::Observed))
            .or(steps.first())
    }

    /// The event's headline.
    pub(crate) fn title(&self) -> String {
        match self.incident() {
            Some(incident) => {
                let step = self
                    .leading_step()
                    .map_or_else(|| "no step is known".to_owned(), of_step);
                format!("{step}; {}", measure(incident))
            }
            None => format!("request {}", self.fate()),
        }
    }

    /// Why: what the leading rule says, or what was done.
    pub(crate) fn reason(&self) -> String {
        if self.incident.is_some() {
            return self.title();
        }
        match self.leading_match() {
            Some(found) if !found.message.is_empty() => found.message.clone(),
            Some(found) => format!("rule {} matched", found.id),
            None => format!("the request was {}", self.fate()),
        }
    }

    fn fate(&self) -> &'static str {
        match self.action() {
            EventAction::Detected => "let through, though rules matched",
            EventAction::Denied => "denied by a rule",
            EventAction::Malformed => "refused for its form or size",
            EventAction::Banned => "refused, its source is banned",
            EventAction::Limited => "refused, its source asks too often",
            _ => "ended by a verdict",
        }
    }
}

fn measure(incident: &Incident) -> &'static str {
    match incident.action {
        IncidentAction::Observed => "nothing was stopped",
        IncidentAction::Stopped => "no request could be named",
        IncidentAction::Cancelled => "its request was cancelled",
        IncidentAction::Banned => "its request was cancelled, and the source banned",
    }
}

fn of_step(step: &Step) -> String {
    let fate = match step.decision {
        Decision::Allowed => "allowed",
        Decision::Observed => "seen",
        Decision::Killed => "killed",
        Decision::Denied => "denied",
    };
    match &step.what {
        StepKind::Exec(exec) => format!("program {} {fate}", exec.executable),
        StepKind::Connect { target, .. } => format!("connection to {target} {fate}"),
        StepKind::File {
            path,
            access: Access::Read,
            ..
        } => format!("reading {path} {fate}"),
        StepKind::File {
            path,
            access: Access::Write,
            ..
        } => format!("writing {path} {fate}"),
    }
}

/// MITRE ATT&CK: a technique that an event is a sign of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Technique {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) tactic_id: &'static str,
    pub(crate) tactic_name: &'static str,
}

const EXPLOIT: Technique = Technique {
    id: "T1190",
    name: "Exploit Public-Facing Application",
    tactic_id: "TA0001",
    tactic_name: "Initial Access",
};
const INTERPRETER: Technique = Technique {
    id: "T1059",
    name: "Command and Scripting Interpreter",
    tactic_id: "TA0002",
    tactic_name: "Execution",
};
const WEB_SHELL: Technique = Technique {
    id: "T1505.003",
    name: "Web Shell",
    tactic_id: "TA0003",
    tactic_name: "Persistence",
};
const INTERPRETERS: [&str; 9] = [
    "sh", "bash", "dash", "busybox", "zsh", "python", "perl", "ruby", "php",
];

impl Event {
    /// The techniques that an incident shows. What rules alone say is suspicion, and has none.
    pub(crate) fn techniques(&self) -> Vec<Technique> {
        let Some(incident) = self.incident() else {
            return Vec::new();
        };
        let mut techniques = vec![EXPLOIT];
        if incident.steps.iter().any(is_interpreter) {
            techniques.push(INTERPRETER);
        }
        if incident.steps.iter().any(|it| !it.written_by.is_empty()) {
            techniques.push(WEB_SHELL);
        }
        techniques
    }
}

fn is_interpreter(step: &Step) -> bool {
    let StepKind::Exec(exec) = &step.what else {
        return false;
    };
    let name = exec.executable.rsplit('/').next().unwrap_or_default();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.contains(&name)
}
