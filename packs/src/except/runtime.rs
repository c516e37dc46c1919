//! From an incident to allowances: this program with these arguments, this address and port, for this service.

use std::path::Path;

use clew_protocol::incident::{ExecStep, Incident, IncidentRequest, Step, StepKind};
use clew_protocol::kernel::{Decision, Transport};
use clew_protocol::verdict::Proof;
use clew_rules::body::normal::Target;
use clew_rules::transformation::Transformation;
use ipnet::IpNet;

use super::Exception;
use crate::policy::{ConnectAllowance, ExecAllowance};

/// Programs that run what their arguments say.
const INTERPRETERS: [&str; 30] = [
    "sh", "bash", "dash", "ash", "zsh", "ksh", "csh", "tcsh", "fish", "busybox", "python", "perl",
    "ruby", "node", "nodejs", "php", "lua", "tclsh", "awk", "gawk", "mawk", "env", "xargs", "find",
    "nice", "timeout", "ssh", "java", "make", "expect",
];

/// So many bytes of a request in an argument are no accident.
const TELLING_BYTES: usize = 4;

pub(super) fn exception(incident: &Incident) -> Exception {
    let mut exception = Exception::default();
    let service = match service(incident) {
        Ok(service) => service,
        Err(reason) => {
            exception.left.push(reason.to_owned());
            return exception;
        }
    };
    let stopped = |it: &&Step| it.decision != Decision::Allowed;
    for step in incident.steps.iter().filter(stopped) {
        exception.add(step, incident, service);
    }
    if incident.steps_cut > 0 {
        exception.warnings.push(format!(
            "{} more steps were taken than the incident has",
            incident.steps_cut
        ));
    }
    exception
}

impl Exception {
    /// Adds what one step needs, or why it gets nothing.
    fn add(&mut self, step: &Step, incident: &Incident, service: &str) {
        match &step.what {
            _ if !step.written_by.is_empty() => self.left.push(
                "a step runs or reads what requests have written: that is a web shell until the opposite is known"
                    .to_owned(),
            ),
            StepKind::Exec(exec) => match program(exec, incident, service) {
                Ok((allowance, warning)) => {
                    self.warnings.extend(warning);
                    if !self.exec.contains(&allowance) {
                        self.exec.push(allowance);
                    }
                }
                Err(reason) => self.left.push(format!("program {:?}: {reason}", exec.executable)),
            },
            StepKind::Connect { target, transport, .. } => {
                let allowance = ConnectAllowance {
                    network: IpNet::from(target.ip()),
                    port: Some(target.port()),
                    transport: *transport,
                    service: Some(service.to_owned()),
                };
                match connection(&allowance, incident) {
                    Err(reason) => self.left.push(format!("connection to {target}: {reason}")),
                    Ok(()) if self.connect.contains(&allowance) => {}
                    Ok(()) => self.connect.push(allowance),
                }
            }
            StepKind::File { path, .. } => self.left.push(format!(
                "file {path:?}: what is watched has no exceptions; change files.protect or files.web_root"
            )),
        }
    }
}

/// The service, which all requests that it could have been must agree on.
fn service(incident: &Incident) -> Result<&str, &'static str> {
    let mut services = requests(incident).map(|it| it.service.as_str());
    let first = services
        .next()
        .ok_or("the incident names no request, so it is not known which service it is about")?;
    match services.all(|it| it == first) {
        true => Ok(first),
        false => Err("the requests that it could have been are for different services"),
    }
}

fn requests(incident: &Incident) -> impl Iterator<Item = &IncidentRequest> {
    incident.request.iter().chain(&incident.candidates)
}

/// The allowance, and what there is to say of it.
fn program(
    exec: &ExecStep,
    incident: &Incident,
    service: &str,
) -> Result<(ExecAllowance, Option<String>), String> {
    let lossy = exec
        .args
        .iter()
        .chain([&exec.executable])
        .any(|it| it.contains(['\u{fffd}', '\0']));
    if exec.truncated || lossy || exec.args.is_empty() || !exec.executable.starts_with('/') {
        return Err(
            "its path or arguments are not known exactly; write the allowance by hand".to_owned(),
        );
    }
    if let Some(chosen) = chosen(exec, incident) {
        return Err(format!(
            "{chosen:?} in its arguments comes from the request: whoever sends one chooses what is run. \
             If the service is meant to do that, allow the program by hand, and know that this is a hole"
        ));
    }
    let allowance = ExecAllowance {
        path: exec.executable.clone().into(),
        arguments: Some(exec.args.clone()),
        service: Some(service.to_owned()),
    };
    let warning = is_interpreter(&exec.executable).then(|| {
        format!("{} runs what its arguments say: read them, for every request may run them from now on: {:?}", exec.executable, exec.args)
    });
    Ok((allowance, warning))
}

/// `python3.11` is `python`.
fn is_interpreter(path: &str) -> bool {
    let name = Path::new(path)
        .file_name()
        .map(|it| it.to_string_lossy().into_owned())
        .unwrap_or_default();
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.contains(&plain)
}

/// What of a request stands in the arguments of a program.
fn chosen(exec: &ExecStep, incident: &Incident) -> Option<String> {
    let evidence = incident
        .evidence
        .iter()
        .filter(|_| incident.proof == Proof::Content)
        .cloned();
    let pieces = requests(incident).flat_map(|request| pieces(&request.target));
    let mut all = evidence
        .chain(pieces)
        .filter(|piece| piece.len() >= TELLING_BYTES);
    // The program's own name is the service's choice.
    all.find(|piece| {
        exec.args
            .iter()
            .skip(1)
            .any(|argument| argument.contains(piece.as_str()))
    })
}

/// Names, values and parts of the path of a target, decoded. A value's words count each: a command may take one.
fn pieces(target: &str) -> Vec<String> {
    let mut decoded = Vec::new();
    let split = Target::new(target.as_bytes());
    let path = split.filename().into_owned();
    let query = split.query();
    let query = match Transformation::UrlDecode.apply(query, None, &mut decoded) {
        true => decoded.as_slice(),
        false => query,
    };
    let mark = |c: char| c.is_whitespace() || "/?&=;,".contains(c);
    let mut pieces = Vec::new();
    for text in [
        String::from_utf8_lossy(&path),
        String::from_utf8_lossy(query),
    ] {
        pieces.extend(text.split(mark).map(str::to_owned));
    }
    pieces
}

fn connection(allowance: &ConnectAllowance, incident: &Incident) -> Result<(), &'static str> {
    let address = allowance.network.addr();
    let named = |request: &IncidentRequest| {
        pieces(&request.target)
            .iter()
            .any(|it| it.contains(&address.to_string()))
    };
    if allowance.transport == Transport::Raw {
        return Err("raw sockets can be allowed as a whole only; do that by hand");
    }
    if address.is_unspecified() || allowance.port == Some(0) {
        return Err("its address or port is not known");
    }
    match incident.proof == Proof::Content || requests(incident).any(named) {
        true => Err(
            "the request chose where to: allowed, whoever sends one reaches it through the service; allow it by hand if that is meant",
        ),
        false => Ok(()),
    }
}
