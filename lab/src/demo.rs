//! One Log4Shell and one command injection, told step by step. Ends well only if all of it held.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clew_protocol::incident::{Incident, IncidentAction, StepKind};
use serde_json::json;

use crate::backend::{Backend, Kind, benign};
use crate::clew::Clew;
use crate::client::{Answer, send};
use crate::crowd::{Crowd, Seen};
use crate::figures;

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 6);
const STREAMING_ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 6, 6, 7);
const VISITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const CLIENTS: u8 = 32;
/// How often they are served before the attack: Clew has seen how the service works by then.
const SERVED: u64 = 4000;

pub(crate) fn run(clew: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("clew-demo-").tempdir()?;
    // Clew's state is its user's, who must be able to get there.
    open_to_all(work.path())?;
    println!(
        "1. Starting a JVM that logs the User-Agent with log4j-core 2.14.1, and an LDAP responder"
    );
    let java = Backend::start(Kind::Log4Shell, work.path())?;
    println!("2. The exploit, sent straight to the service");
    let ran = prove_hole(&java)?;
    println!("3. Clew in front, no HTTP rules; the exploit among {CLIENTS} benign clients");
    let log4shell = attack(clew, &java, work.path())?;
    println!("4. A command injection in a Python service");
    let python = Backend::start(Kind::Injection, work.path())?;
    prove_hole(&python)?;
    let injection = attack(clew, &python, work.path())?;
    println!("   both again in observe mode");
    for backend in [&java, &python] {
        observe(clew, backend, work.path())?;
    }
    println!("5. The incidents\n");
    println!("{}\n{}", log4shell.tree, injection.tree);
    let kept = Path::new("target/lab/demo-incident.json");
    std::fs::create_dir_all("target/lab")?;
    std::fs::write(kept, serde_json::to_string_pretty(&log4shell.incident)?)?;
    println!("the record as JSON: {}", kept.display());
    report(ran, &log4shell, &injection)
}

fn report(ran: bool, log4shell: &Outcome, injection: &Outcome) -> Result<()> {
    let incident = &log4shell.incident;
    figures::write(
        "demo",
        &json!({
            "exploit_without_clew_ran_shell": ran,
            "shell_ran": log4shell.shell_ran || injection.shell_ran,
            "attacker_status": log4shell.answer.status,
            "leaked_response_bytes": log4shell.leaked + injection.leaked,
            "sent_before_decision": log4shell.sent_before + injection.sent_before,
            "proof": incident.proof,
            "banned": incident.action == IncidentAction::Banned,
            "benign_sent": log4shell.crowd.sent + injection.crowd.sent,
            "benign_ok": log4shell.crowd.ok + injection.crowd.ok,
            "attributed_to_exploit_request": log4shell.attributed,
            "exec_to_cancel_ms": incident.timing.exec_to_cancel_ms,
            "exec_to_ban_ms": incident.timing.exec_to_ban_ms,
        }),
    )?;
    println!(
        "\nAll of it held: the shells never ran, the attackers got nothing, nobody else noticed."
    );
    Ok(())
}

fn prove_hole(backend: &Backend) -> Result<bool> {
    send(ATTACKER, backend.port, &backend.exploit("direct", false))?;
    let ran = backend.marker("direct").exists();
    ensure!(
        ran,
        "{}: the exploit did not work without Clew",
        backend.kind.name()
    );
    println!(
        "   {}: the shell ran, its marker is there: the hole is real",
        backend.kind.name()
    );
    backend.forget_markers()?;
    Ok(ran)
}

/// What became of an attack.
struct Outcome {
    answer: Answer,
    shell_ran: bool,
    attributed: bool,
    leaked: usize,
    sent_before: usize,
    crowd: Seen,
    incident: Incident,
    tree: String,
}

fn attack(clew: &Path, backend: &Backend, work: &Path) -> Result<Outcome> {
    let name = backend.kind.name();
    let clew = Clew::start(
        clew,
        backend.port,
        "enforce",
        work.join(format!("enforce-{name}")),
    )?;
    let first = send(VISITOR, clew.port, &benign(0, 0))?;
    ensure!(
        first.status == 200,
        "{name}: a benign request got {}",
        first.status
    );
    let crowd = Crowd::start(CLIENTS, clew.port, Duration::from_millis(5), benign);
    crowd.wait_served(SERVED, Duration::from_secs(120))?;
    let answer = send(ATTACKER, clew.port, &backend.exploit("m-1", false))?;
    let streamed = send(STREAMING_ATTACKER, clew.port, &backend.exploit("m-2", true))?;
    let again = send(ATTACKER, clew.port, &benign(1, 1));
    let other = send(VISITOR, clew.port, &benign(0, 1))?;
    std::thread::sleep(Duration::from_secs(1));
    let crowd = crowd.stop()?;
    let incidents = clew.wait_incidents(2)?;
    let incident = of(&incidents, ATTACKER)
        .with_context(|| format!("{name}: no incident names the attacker: {incidents:#?}"))?;
    let tree = clew.tree(incident)?;

    let shell_ran = backend.side_effects()? > 0;
    let leaked: usize = [&answer, &streamed]
        .iter()
        .map(|answer| leaked(backend.kind, answer))
        .sum();
    ensure!(!shell_ran, "{name}: the shell ran");
    ensure!(
        answer.status == 403,
        "{name}: the attacker got {}",
        answer.status
    );
    ensure!(
        answer.header("x-request-id").is_some(),
        "{name}: the block page has no request id"
    );
    ensure!(leaked == 0, "{name}: {leaked} bytes leaked");
    let before = backend.kind.text_before();
    ensure!(
        streamed.body.contains(before) || streamed.status == 403,
        "{name}: what was sent before the decision is missing: {streamed:?}"
    );
    ensure!(
        refused(&again),
        "{name}: the attacker's next request was served: {again:?}"
    );
    ensure!(
        other.status == 200,
        "{name}: a bystander got {}",
        other.status
    );
    ensure!(
        crowd.ok == crowd.sent,
        "{name}: {} of {} benign requests failed",
        crowd.sent - crowd.ok,
        crowd.sent
    );
    ensure!(
        incident.action == IncidentAction::Banned,
        "{name}: {:?}",
        incident.action
    );
    ensure!(
        stopped_shell(incident),
        "{name}: the tree shows no shell that was stopped"
    );
    println!(
        "   {name}: shell stopped, attacker got 403 and a ban; {} benign requests, all served",
        crowd.sent
    );
    let outcome = Outcome {
        // The block page and the incident name the same request.
        attributed: incident
            .request
            .as_ref()
            .is_some_and(|it| answer.header("x-request-id") == Some(&it.id.to_string())),
        incident: incident.clone(),
        sent_before: if streamed.status == 200 {
            streamed.body.len()
        } else {
            0
        },
        answer,
        shell_ran,
        leaked,
        crowd,
        tree,
    };
    clew.stop()?;
    Ok(outcome)
}

/// Bytes of the backend that it sent after the decision: all but the block page, and what a
/// streaming exploit is sent before it.
pub(crate) fn leaked(kind: Kind, answer: &Answer) -> usize {
    if answer.status == 403 {
        return 0;
    }
    let allowed = kind.text_before();
    let chunks = answer.body.replace("\r\n", "\n");
    let sent = chunks
        .find(allowed)
        .map_or("", |at| &chunks[at + allowed.len()..]);
    sent.trim().len()
}

/// In observe mode nothing is stopped, and all is reported.
fn observe(clew: &Path, backend: &Backend, work: &Path) -> Result<()> {
    let name = backend.kind.name();
    let clew = Clew::start(
        clew,
        backend.port,
        "observe",
        work.join(format!("observe-{name}")),
    )?;
    let answer = send(ATTACKER, clew.port, &backend.exploit("seen", false))?;
    ensure!(
        answer.status == 200,
        "{name}: observe mode answered {}",
        answer.status
    );
    ensure!(
        backend.marker("seen").exists(),
        "{name}: observe mode stopped the shell"
    );
    let incidents = clew.wait_incidents(1)?;
    ensure!(
        incidents
            .iter()
            .all(|it| it.action == IncidentAction::Observed && it.ban.is_none()),
        "{name}: observe mode acted: {incidents:#?}"
    );
    let again = send(ATTACKER, clew.port, &benign(0, 0))?;
    ensure!(again.status == 200, "{name}: observe mode banned");
    backend.forget_markers()?;
    println!("   {name}: the shell ran, nothing was stopped, the incident is reported");
    clew.stop()
}

/// A banned source gets no connection, or 403.
pub(crate) fn refused(answer: &Result<Answer>) -> bool {
    answer
        .as_ref()
        .map_or(true, |answer| answer.status == 403 || answer.status == 0)
}

fn of(incidents: &[Incident], source: Ipv4Addr) -> Option<&Incident> {
    incidents
        .iter()
        .find(|it| it.request.as_ref().is_some_and(|it| it.source_ip == source))
}

fn stopped_shell(incident: &Incident) -> bool {
    incident.steps.iter().any(|step| match &step.what {
        StepKind::Exec(exec) => {
            step.decision.is_stop()
                && exec
                    .args
                    .first()
                    .is_some_and(|program| program == "/bin/sh")
                && exec.args.get(1).is_some_and(|flag| flag == "-c")
        }
        StepKind::Connect { .. } | StepKind::File { .. } => false,
    })
}

/// Lets every user pass through a directory.
pub(crate) fn open_to_all(directory: &Path) -> Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    Ok(std::fs::set_permissions(directory, mode)?)
}
