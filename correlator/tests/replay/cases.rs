//! An incident grows: what was in doubt may be proven by what follows.

use std::time::Duration;

use clew_correlator::{Deed, Input};
use clew_protocol::Moment;
use clew_protocol::incident::{Incident, IncidentAction};
use clew_protocol::kernel::{Decision, Strength};
use clew_protocol::verdict::Proof;

use crate::scene::{Scene, address};

fn two_requests() -> Scene {
    let mut scene = Scene::new();
    scene.start(1, "/run?touch /tmp/marker-1\n");
    scene.start(2, "/run?rm -r /srv/everything\n");
    scene.read(1, 1);
    scene.read(2, 2);
    scene
}

/// A case was attributed once: by the connection, which proves nothing.
#[test]
fn a_later_stop_proves_what_the_first_did_not() {
    let mut scene = two_requests();
    scene.connect_with(1, 1, 4444, Decision::Denied);
    assert!(scene.condemned().is_empty());
    assert_eq!(scene.reports()[0].action, IncidentAction::Stopped);
    scene.exec(1, 1, "touch /tmp/marker-1");
    assert_eq!(scene.condemned(), [1]);
    assert_eq!(scene.banned(), [address(1)]);
    let reports = scene.reports();
    let last = reports.last().expect("a record");
    assert_eq!((last.id, last.revision), (reports[0].id, 2));
    assert_eq!(last.action, IncidentAction::Banned);
    assert_eq!(last.proof, Proof::Content);
    assert_eq!(last.steps.len(), 2);
    assert_eq!(scene.correlator.counters().incidents, 1);
}

#[test]
fn an_incident_has_the_ban_that_there_is() {
    let span = Duration::from_secs(240);
    for (deed, action) in [
        (Deed::Banned { span }, IncidentAction::Banned),
        (Deed::Spared, IncidentAction::Cancelled),
    ] {
        let mut scene = two_requests();
        scene.exec(1, 1, "touch /tmp/marker-1");
        let (incident, at) = (scene.ban_of(), Moment(scene.now));
        scene.put(Input::Acted { incident, deed, at });
        let last = scene.reports().pop().expect("a record");
        assert_eq!(last.action, action);
        let seconds = last.ban.map(|it| it.seconds);
        assert_eq!(seconds, (action == IncidentAction::Banned).then_some(240));
    }
}

#[test]
fn a_proof_that_was_acted_upon_stays() {
    let mut scene = two_requests();
    scene.exec(1, 1, "touch /tmp/marker-1");
    scene.exec(1, 1, "rm -r /srv/everything");
    assert_eq!(scene.condemned(), [1]);
    assert_eq!(scene.banned(), [address(1)]);
    let reports = scene.reports();
    let request = reports.last().and_then(|last| last.request.as_ref());
    assert_eq!(request.map(|it| it.sequence.0), Some(1));
}

/// Two requests proven for one mark: the mark is worth nothing, and neither is named.
#[test]
fn proofs_that_contradict_are_none() {
    let mut scene = two_requests();
    let (strength, observed) = (Strength::Reader, Decision::Observed);
    scene.exec_with(1, 1, "touch /tmp/marker-1", strength, observed);
    scene.exec(1, 1, "rm -r /srv/everything");
    assert!(scene.condemned().is_empty());
    let reports = scene.reports();
    let last = reports.last().expect("a record");
    assert_eq!(last.proof, Proof::Candidates);
    assert_eq!(last.candidates.len(), 2);
}

/// What was proven when nothing was stopped is acted upon when something is.
#[test]
fn a_stop_after_an_observed_proof_is_acted_upon() {
    let mut scene = two_requests();
    let (strength, observed) = (Strength::Reader, Decision::Observed);
    scene.exec_with(1, 1, "touch /tmp/marker-1", strength, observed);
    assert!(scene.condemned().is_empty());
    scene.exec(1, 1, "id");
    assert_eq!(scene.condemned(), [1]);
}

/// The later stop waits for the end of the request before, as the first would.
#[test]
fn a_later_stop_may_wait_too() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/a\n");
    scene.read(8000, 1);
    scene.start(8001, "/b\n");
    scene.read(8001, 1);
    scene.connect_with(8001, 1, 4444, Decision::Denied);
    scene.now += 110_000_000;
    scene.tick();
    scene.exec(8001, 1, "id");
    assert!(scene.condemned().is_empty());
    scene.end(8000);
    assert_eq!(scene.condemned(), [8001]);
}

/// Three requests open on one thread, which is marked with the last. Whose a program is does not follow
/// from the mark, nor from whose the program before was.
#[test]
fn programs_of_an_event_loop_are_incidents_of_their_own() {
    let mut scene = Scene::new();
    for sequence in 1..=3 {
        scene.start(sequence, &format!("/run?touch /srv/marker-{sequence}\n"));
        scene.read_when(sequence, 1, sequence > 1);
    }
    scene.exec_forked(501, 3, 1, "touch /srv/marker-1");
    scene.exec_forked(502, 3, 1, "touch /srv/marker-2");
    scene.exec_forked(503, 3, 1, "id");
    assert_eq!(scene.condemned(), [1, 2]);
    let named = |it: &Incident| it.request.as_ref().map(|request| request.sequence.0);
    let mut reports = scene.reports();
    assert!(reports.iter().all(|it| it.steps.len() == 1));
    reports.sort_by_key(|it| it.id.0);
    let last: Vec<_> = reports.iter().map(named).collect();
    assert_eq!(last, [Some(1), Some(2), None]);
}

/// The second program of a request is not a second incident, whatever process it is in.
#[test]
fn programs_of_one_request_are_one_incident() {
    let mut scene = two_requests();
    scene.exec_forked(501, 1, 1, "touch /tmp/marker-1");
    scene.exec_forked(502, 1, 1, "sh; touch /tmp/marker-1");
    assert_eq!(scene.correlator.counters().incidents, 1);
    assert_eq!(scene.condemned(), [1]);
}

/// What an event loop has connected to for one request says nothing of the program of another.
#[test]
fn a_connection_of_another_request_is_no_evidence() {
    let mut scene = Scene::new();
    scene.start(1, "/fetch?u=http://127.0.0.1:4444/\n");
    scene.start(2, "/run?x=hidden\n");
    scene.read(2, 1);
    scene.read_when(1, 1, true);
    scene.connect(1, 1, 4444);
    scene.exec_forked(501, 1, 1, "id");
    assert!(scene.condemned().is_empty());
}

/// Puma: the reactor reads for its workers. What a worker has read itself, long ago, is nobody it works
/// for, and two of its deeds are not one.
#[test]
fn an_old_mark_joins_nothing() {
    let mut scene = Scene::new();
    scene.start(1, "/old\n");
    scene.read(1, 1);
    scene.end(1);
    for (sequence, port) in [(2, 4002), (3, 4003), (4, 4004)] {
        scene.start(sequence, &format!("/fetch?url=http://127.0.0.1:{port}/\n"));
        scene.read(sequence, 9);
    }
    scene.connect_with(1, 1, 4002, Decision::Denied);
    scene.connect_with(1, 1, 4999, Decision::Denied);
    scene.connect_with(1, 1, 4003, Decision::Denied);
    assert_eq!(scene.condemned(), [2, 3]);
    let reports = scene.reports();
    assert_eq!(reports.len(), 3);
    assert!(reports.iter().all(|report| report.steps.len() == 1));
}
