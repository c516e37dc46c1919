//! What Clew said, held against what was sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use clew_protocol::incident::{Incident, StepKind};
use clew_protocol::verdict::Proof;
use serde::Serialize;

use super::mix::{self, Aim, Planned};
use crate::client::Answer;

/// The figures of one stack at one concurrency.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Cell {
    pub(crate) stack: &'static str,
    /// A thread of it works on one request at a time.
    pub(crate) blocking: bool,
    pub(crate) concurrency: u32,
    pub(crate) requests: usize,
    /// Attacks that a kernel can see: a program or a connection.
    pub(crate) attempts: usize,
    pub(crate) killed: usize,
    pub(crate) side_effects: usize,
    /// Body bytes that attackers were sent after the kernel's decision.
    pub(crate) leaked_response_bytes: usize,
    /// Body bytes that they were sent before there was one.
    pub(crate) sent_before_decision: usize,
    /// Attempts with one request named, the right one; by proof.
    pub(crate) exact: BTreeMap<Proof, usize>,
    pub(crate) candidates: usize,
    pub(crate) wrong: usize,
    pub(crate) missed: usize,
    pub(crate) innocent_bans: usize,
    pub(crate) benign_failed: usize,
}

impl Cell {
    pub(crate) fn exact_all(&self) -> usize {
        self.exact.values().sum()
    }

    /// Adds what the answers tell.
    pub(crate) fn answered(&mut self, plan: &[Planned], answers: &[Option<Answer>]) {
        self.requests += plan.len();
        for (planned, answer) in plan.iter().zip(answers) {
            let (status, bytes) = answer
                .as_ref()
                .map_or((0, 0), |it| (it.status, it.body.len()));
            match planned.aim {
                Aim::Benign | Aim::Upload => self.benign_failed += usize::from(status != 200),
                Aim::Later => self.sent_before_decision += bytes,
                Aim::Exec | Aim::Connect if status != 403 => self.leaked_response_bytes += bytes,
                Aim::Exec | Aim::Connect => {}
            }
        }
    }

    /// Adds what the incidents tell.
    pub(crate) fn judged(
        &mut self,
        plan: &[Planned],
        answers: &[Option<Answer>],
        incidents: &[Incident],
    ) {
        let attacks = plan.iter().filter(|it| !it.mark.is_empty());
        let truth: HashMap<&str, IpAddr> = attacks
            .map(|it| (it.mark.as_str(), it.source.into()))
            .collect();
        let attackers: HashSet<IpAddr> = truth.values().copied().collect();
        self.attempts = truth.len();
        let mut seen = HashSet::new();
        for incident in incidents {
            let bans = incident.ban.iter();
            self.innocent_bans += bans.filter(|it| !attackers.contains(&it.address)).count();
            let marks = marks_of(incident);
            let known: Vec<&str> = marks
                .iter()
                .filter_map(|it| truth.get_key_value(it.as_str()))
                .map(|(mark, _)| *mark)
                .collect();
            let Some(first) = known.first() else {
                self.wrong += usize::from(incident.request.is_some());
                continue;
            };
            for mark in &known {
                if seen.insert(*mark) {
                    self.killed += usize::from(is_stopped(incident));
                }
            }
            let named = incident.request.as_ref().map(|it| it.source_ip);
            match named {
                None => self.candidates += 1,
                Some(address) if known.iter().all(|it| truth[it] == address) => {
                    *self.exact.entry(incident.proof).or_default() += 1;
                }
                Some(address) => {
                    self.wrong += 1;
                    eprintln!(
                        "   wrong: {first} is of {}, and {address} was named by {:?}, {:?}",
                        truth[first], incident.proof, incident.evidence
                    );
                }
            }
        }
        for (planned, answer) in plan.iter().zip(answers) {
            if !planned.mark.is_empty() && !seen.contains(planned.mark.as_str()) {
                self.missed += 1;
                let line = planned.text.lines().next().unwrap_or("");
                let status = answer.as_ref().map(|it| it.status);
                eprintln!("   missed: {line}, answered with {status:?}");
            }
        }
    }
}

fn is_stopped(incident: &Incident) -> bool {
    let mut steps = incident.steps.iter();
    steps.any(|step| step.decision.is_stop())
}

/// The marks that show in what was stopped.
fn marks_of(incident: &Incident) -> Vec<String> {
    let mut marks = Vec::new();
    for step in &incident.steps {
        match &step.what {
            StepKind::Exec(exec) => {
                // A CGI program is told in its environment.
                for text in exec.args.iter().chain(&exec.env_vars) {
                    let starts = text.match_indices(mix::MARK).map(|(at, _)| at);
                    let found = starts.filter_map(|at| text.get(at..at + mix::MARK_BYTES));
                    marks.extend(found.map(str::to_owned));
                }
            }
            StepKind::Connect { target, .. } => marks.push(target.ip().to_canonical().to_string()),
            StepKind::File { .. } => {}
        }
    }
    marks.dedup();
    marks
}
