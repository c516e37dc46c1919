//! Requests that a backend asks another service something for, with no token that says so.

use clew_protocol::kernel::{Decision, Lineage, ProcessKey, Strength};
use clew_protocol::verdict::Proof;

use crate::scene::{OTHER_PROGRAM, Scene, address, lineage};

/// The service behind.
const BEHIND: ProcessKey = ProcessKey {
    tgid: 200,
    start: 1,
};

/// A program that the service behind starts, in a thread that has read `sequence`.
fn exec_behind(scene: &mut Scene, sequence: u64, command: &str) {
    let lineage = Lineage {
        backend: BEHIND,
        ..lineage(sequence, 200, Strength::Reader)
    };
    scene.now += 1000;
    scene.exec_at(scene.now, lineage, command, Decision::Killed);
}

/// Two threads of a program that is known to block, each at a request.
fn two_at_work() -> Scene {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(1, "/a\n");
    scene.start(2, "/b\n");
    scene.read(1, 1);
    scene.read(2, 2);
    scene
}

/// Which of its requests an event loop has sent it for, nobody knows: it may be any.
#[test]
fn what_an_event_loop_sends_is_of_any_that_it_has_read() {
    for strength in [Strength::Reader, Strength::Process] {
        let mut scene = Scene::new();
        for sequence in [1, 2, 3] {
            scene.start(sequence, &format!("/run?touch /tmp/marker-{sequence}\n"));
            scene.read_when(sequence, 1, sequence > 1);
        }
        scene.read_handed(BEHIND, 3, 200, strength);
        exec_behind(&mut scene, 3, "touch /tmp/marker-1");
        assert_eq!(scene.condemned(), [1]);
        assert_eq!(scene.banned(), [address(1)]);
        assert_eq!(scene.reports()[0].proof, Proof::Content);
    }
}

#[test]
fn where_nothing_shows_all_that_the_sender_has_read_are_candidates() {
    let mut scene = Scene::new();
    for sequence in [1, 2, 3] {
        scene.start(sequence, &format!("/fine-{sequence}\n"));
        scene.read_when(sequence, 1, sequence > 1);
    }
    scene.end(2);
    scene.read_handed(BEHIND, 3, 200, Strength::Reader);
    exec_behind(&mut scene, 3, "id");
    assert!(scene.condemned().is_empty());
    let reports = scene.reports();
    assert_eq!(reports[0].proof, Proof::Candidates);
    assert_eq!(reports[0].candidates.len(), 3);
}

/// Both work on one request per thread: the one that the sender is at.
#[test]
fn threads_that_block_hand_on_what_they_are_at() {
    let mut scene = two_at_work();
    scene.read_handed(BEHIND, 1, 200, Strength::Reader);
    exec_behind(&mut scene, 1, "id");
    assert_eq!(scene.condemned(), [1]);
    assert_eq!(scene.reports()[0].proof, Proof::Lineage);
}

#[test]
fn a_thread_that_read_nothing_hands_on_nothing_certain() {
    let mut scene = two_at_work();
    scene.read_handed(BEHIND, 2, 200, Strength::Process);
    exec_behind(&mut scene, 2, "id");
    assert!(scene.condemned().is_empty());
    assert_eq!(scene.reports()[0].proof, Proof::Candidates);
}

/// The proxy tells late that the sender's request before is over, which may be what it has sent it for.
#[test]
fn what_the_sender_was_at_before_has_to_have_ended() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    for sequence in [1, 2] {
        scene.start(sequence, "/a\n");
        scene.read(sequence, 1);
    }
    scene.read_handed(BEHIND, 2, 200, Strength::Reader);
    exec_behind(&mut scene, 2, "id");
    assert!(scene.condemned().is_empty());
    assert_eq!(scene.held(), [1, 2]);
    scene.end(1);
    assert_eq!(scene.condemned(), [2]);
    assert_eq!(scene.reports()[0].proof, Proof::Lineage);
}

/// How a process works is not learned from requests whose coming and going there nobody sees.
#[test]
fn what_is_handed_on_teaches_nothing() {
    let other = ProcessKey {
        tgid: OTHER_PROGRAM,
        start: 1,
    };
    let mut scene = Scene::new();
    for sequence in (10..2110).step_by(2) {
        for (sequence, tid) in [(sequence, 1), (sequence + 1, 2)] {
            scene.start(sequence, "lesson\n");
            scene.read(sequence, tid);
            scene.read_handed(other, sequence, OTHER_PROGRAM + tid, Strength::Reader);
        }
        scene.end(sequence);
        scene.end(sequence + 1);
    }
    for (sequence, tid) in [(3000, 1), (3001, 2)] {
        scene.start(sequence, "/a\n");
        scene.read(sequence, tid);
        scene.read_handed(other, sequence, OTHER_PROGRAM + tid, Strength::Reader);
    }
    let lineage = Lineage {
        backend: other,
        ..lineage(3000, OTHER_PROGRAM + 1, Strength::Reader)
    };
    scene.exec_at(scene.now + 1, lineage, "id", Decision::Killed);
    assert!(scene.condemned().is_empty());
}
