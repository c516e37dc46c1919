//! What is forgotten or lost makes the correlator less sure, never more; and a flood does not
//! take what it need not.

use clew_protocol::kernel::{Decision, Strength};
use clew_protocol::verdict::Proof;

use crate::scene::{Scene, lineage};

/// More requests than are remembered, 5,000 a second.
fn flood(scene: &mut Scene, first: u64, count: u64, input: impl Fn(u64) -> String) {
    for sequence in first..first + count {
        scene.now += 197_000;
        scene.start(sequence, &input(sequence));
        scene.read(sequence, 3 + (sequence % 8) as u32);
        scene.end(sequence);
    }
}

/// 16,384 reads within two minutes left nothing but candidates.
#[test]
fn ordinary_load_leaves_content() {
    let mut scene = Scene::new();
    flood(&mut scene, 10, 20_000, |it| format!("/item/{it}\n"));
    scene.start(100_000, "/run?touch /tmp/marker-1\n");
    scene.read(100_000, 1);
    scene.exec(100_000, 1, "touch /tmp/marker-1");
    assert_eq!(scene.condemned(), [100_000]);
}

/// One that was evicted had the same bytes, ten seconds ago: it may have left something behind.
#[test]
fn an_evicted_request_with_the_same_bytes_is_a_doubt() {
    let mut scene = Scene::new();
    scene.start(1, "/run?touch /tmp/marker-1\n");
    scene.read(1, 1);
    scene.end(1);
    flood(&mut scene, 10, 132_000, |_| "/item\n".to_owned());
    assert!(
        scene
            .correlator
            .service_of(clew_protocol::Sequence(1))
            .is_none()
    );
    scene.start(500_000, "/run?touch /tmp/marker-1\n");
    scene.read(500_000, 2);
    scene.exec(500_000, 2, "touch /tmp/marker-1");
    assert!(scene.condemned().is_empty());
    assert_eq!(scene.reports()[0].proof, Proof::Candidates);
}

/// At 5,000 requests a second most of the last minute is forgotten; what none of those held is
/// still known.
#[test]
fn a_flood_leaves_content_and_lineage() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/run?touch /tmp/marker-1\n");
    scene.read(8000, 1);
    scene.start(8001, "/a\n");
    scene.read(8001, 2);
    flood(&mut scene, 10_000, 150_000, |it| format!("/item/{it}\n"));
    assert!(scene.correlator.counters().evicted > 0);
    let by_thread = lineage(8000, 1, Strength::Thread);
    scene.now += 1000;
    scene.exec_at(
        scene.now,
        by_thread,
        "touch /tmp/marker-1",
        Decision::Killed,
    );
    scene.exec(8001, 2, "id");
    assert_eq!(scene.condemned(), [8000, 8001]);
    // What is due at once is reported in no particular order.
    let mut proofs: Vec<_> = scene.reports().iter().map(|it| it.proof).collect();
    proofs.sort_by_key(|it| *it != Proof::Content);
    assert_eq!(proofs, [Proof::Content, Proof::Lineage]);
}

/// Evicted, but it could have done it: nobody is alone.
#[test]
fn an_evicted_request_was_company() {
    for (wait, alone) in [(30, false), (61, true)] {
        let mut scene = Scene::new();
        scene.start(1, "/before\n");
        scene.read(1, 1);
        scene.end(1);
        // Of other processes: they have not been read at all.
        for sequence in 10..132_000 {
            scene.start(sequence, "/\n");
            scene.end(sequence);
        }
        assert!(
            scene
                .correlator
                .service_of(clew_protocol::Sequence(1))
                .is_none()
        );
        scene.now += wait * 1_000_000_000;
        scene.tick();
        scene.start(500_000, "/a\n");
        scene.read(500_000, 1);
        scene.exec(500_000, 1, "id");
        assert_eq!(!scene.condemned().is_empty(), alone, "{wait}");
    }
}

/// Inputs that had to go were not the event's, or cannot be ruled out.
#[test]
fn forgotten_inputs_are_ruled_out_by_their_sketch() {
    for (same, proof) in [(true, Proof::Candidates), (false, Proof::Content)] {
        let mut scene = Scene::new();
        let first = if same { "touch /tmp/marker-1" } else { "other" };
        scene.start(1, &format!("/run?{first}\n"));
        scene.read(1, 1);
        scene.end(1);
        let large = "x".repeat(16_000);
        for sequence in 10..9_000 {
            scene.start(sequence, &large);
            scene.end(sequence);
        }
        scene.start(500_000, "/run?touch /tmp/marker-1\n");
        scene.read(500_000, 2);
        scene.exec(500_000, 2, "touch /tmp/marker-1");
        assert_eq!(scene.reports()[0].proof, proof, "{same}");
    }
}

/// The record of a request's start was lost: it was left out of those who could have done it.
#[test]
fn a_request_never_heard_of_is_a_suspect() {
    for end in [true, false] {
        let mut scene = Scene::new();
        scene.start(1, "/run?touch /tmp/marker-1\n");
        scene.read(1, 1);
        scene.read(2, 2);
        if end {
            scene.end(2);
        }
        scene.exec(1, 1, "touch /tmp/marker-1");
        scene.exec(1, 1, "id");
        assert!(scene.condemned().is_empty());
    }
}

/// It is one for as long as any other, and leaves lineage alone.
#[test]
fn a_request_never_heard_of_is_forgotten_in_the_end() {
    for read_first in [true, false] {
        let mut scene = Scene::new();
        scene.teach_blocking(10, 2100);
        let read = scene.now + 500;
        if read_first {
            scene.read_at(read, 8000, 3, false);
        }
        scene.end(8000);
        if !read_first {
            scene.read_at(read, 8000, 3, false);
        }
        scene.start(8001, "/a\n");
        scene.read(8001, 1);
        scene.exec(8001, 1, "id");
        assert_eq!(scene.condemned(), [8001]);
        scene.end(8001);
        scene.forget();
        scene.start(8002, "/run?touch /tmp/marker-1\n");
        scene.read(8002, 3);
        scene.exec_with(8002, 3, "id", Strength::Process, Decision::Killed);
        assert_eq!(scene.condemned(), [8001, 8002], "{read_first}");
    }
}

/// The kernel remembers the last eight reads of a process, however long ago.
#[test]
fn what_is_long_past_is_no_company() {
    let mut scene = Scene::new();
    scene.start(1, "/before\n");
    scene.read(1, 1);
    scene.end(1);
    scene.forget();
    scene.start(2, "/a\n");
    scene.read(2, 1);
    let mut lineage = lineage(2, 1, Strength::Reader);
    lineage.recent = [2, 1].map(clew_protocol::Sequence).to_vec();
    scene.now += 1000;
    scene.exec_at(scene.now, lineage, "id", Decision::Killed);
    assert_eq!(scene.condemned(), [2]);
}

/// The proxy gave up, the backend reads it two minutes later and is at it now.
#[test]
fn what_is_read_long_after_its_end_is_a_suspect() {
    for wait in [50, 120] {
        let mut scene = Scene::new();
        scene.start(1, "/abandoned\n");
        scene.end(1);
        scene.now += wait * 1_000_000_000;
        scene.tick();
        scene.read(1, 1);
        scene.now += 30_000_000_000;
        scene.tick();
        scene.start(2, "/a\n");
        scene.read(2, 2);
        scene.exec(2, 2, "id");
        assert!(scene.condemned().is_empty(), "{wait}");
    }
}

/// The record of an end was lost: the thread looked as if it was at two requests for ever.
#[test]
fn what_is_not_in_flight_has_ended() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/its end is lost\n");
    scene.read(8000, 1);
    scene.start(8001, "/long\n");
    scene.read(8001, 2);
    scene.in_flight(8002, &[8001], false);
    scene.start(8002, "/a\n");
    scene.read(8002, 1);
    scene.exec(8002, 1, "id");
    assert_eq!(scene.condemned(), [8002]);
    // The other one goes on.
    scene.exec(8001, 2, "id");
    assert_eq!(scene.condemned(), [8002, 8001]);
}

/// An end that was under way all the time still tells how it ended.
#[test]
fn an_end_that_comes_after_the_list_still_counts() {
    let mut scene = Scene::new();
    scene.start(1, "/run?touch /tmp/marker-1\n");
    scene.read(1, 1);
    let end = scene.now + 1000;
    scene.now += 10_000;
    scene.in_flight(2, &[], false);
    scene.end_at(end, 1);
    scene.exec(1, 1, "touch /tmp/marker-1");
    let reports = scene.reports();
    let request = reports[0].request.as_ref();
    assert_eq!(request.and_then(|it| it.status), Some(200));
}

/// Attempts that are newer than the list are none of its business.
#[test]
fn what_is_newer_than_the_list_is_in_flight() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/a\n");
    scene.read(8000, 1);
    scene.in_flight(8000, &[], false);
    scene.exec(8000, 1, "id");
    assert_eq!(scene.condemned(), [8000]);
}

/// What was lost of an input may have been the same bytes.
#[test]
fn lost_inputs_leave_no_content_but_lineage() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/upload\n");
    scene.read(8000, 2);
    scene.in_flight(8001, &[8000], true);
    scene.more_input(8000, "the rest of it\n");
    scene.start(8001, "/run?touch /tmp/marker-1\n");
    scene.read(8001, 1);
    let thread = Strength::Thread;
    scene.exec_with(8001, 1, "touch /tmp/marker-1", thread, Decision::Killed);
    assert!(scene.condemned().is_empty());
    scene.exec(8000, 2, "id");
    assert_eq!(scene.condemned(), [8000]);
}

/// A thread has been at one request for minutes, and at nothing else: that was forgotten.
#[test]
fn a_long_request_keeps_its_thread_in_doubt() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/poll\n");
    scene.read(8000, 1);
    scene.forget();
    scene.forget();
    scene.start(8001, "/b\n");
    scene.read(8001, 1);
    scene.exec(8001, 1, "id");
    scene.now += 110_000_000;
    scene.tick();
    assert!(scene.condemned().is_empty());
}

/// The client hung up, all was quiet for minutes, then came the next: this ended lineage for good.
#[test]
fn a_forgotten_request_before_is_no_violation() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/abandoned\n");
    scene.read(8000, 1);
    scene.end(8000);
    scene.forget();
    scene.start(8001, "/a\n");
    scene.read_when(8001, 1, true);
    scene.start(8002, "/b\n");
    scene.read(8002, 2);
    scene.exec(8002, 2, "id");
    assert_eq!(scene.reports()[0].proof, Proof::Lineage);
}
