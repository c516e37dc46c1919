//! Reads come in batches: after the end of a request that was quick, and with later reads before
//! an earlier decision.

use clew_protocol::kernel::{Decision, Strength};
use clew_protocol::verdict::Proof;

use crate::scene::{Scene, lineage};

/// Two threads, one request at a time each; the reads of ten rounds are told of after all ends.
fn teach_late(scene: &mut Scene, first: u64, rounds: u64) {
    for batch in (0..rounds).step_by(10) {
        let mut reads = Vec::new();
        for round in batch..batch + 10 {
            let sequence = first + round * 2;
            for (sequence, tid) in [(sequence, 1), (sequence + 1, 2)] {
                scene.start(sequence, "lesson\n");
                scene.now += 1000;
                reads.push((scene.now, sequence, tid));
            }
            scene.end(sequence);
            scene.end(sequence + 1);
        }
        for (at, sequence, tid) in reads {
            scene.read_at(at, sequence, tid, false);
        }
    }
}

#[test]
fn reads_after_the_end_teach_as_those_before() {
    for (rounds, proof) in [(900, Proof::Candidates), (1100, Proof::Lineage)] {
        let mut scene = Scene::new();
        teach_late(&mut scene, 10, rounds);
        scene.start(1, "/a\n");
        scene.read(1, 1);
        scene.exec(1, 1, "id");
        assert_eq!(scene.reports()[0].proof, proof, "{rounds} rounds");
    }
}

/// Unanswered when the next was read, and open then: that both have ended since is no excuse.
#[test]
fn a_violation_that_is_told_of_after_both_ends() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/async\n");
    scene.start(8001, "/async\n");
    let read = scene.now;
    scene.now += 10_000;
    scene.end(8001);
    scene.end(8000);
    scene.read_at(read + 1000, 8000, 1, false);
    scene.read_at(read + 2000, 8001, 1, true);
    scene.start(1, "/a\n");
    scene.read(1, 1);
    scene.exec(1, 1, "id");
    assert_eq!(scene.reports()[0].proof, Proof::Candidates);
}

/// The client hung up, then the thread read the next: no violation, however late it is told.
#[test]
fn an_abandoned_request_that_is_told_of_late_is_no_violation() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/slow\n");
    scene.start(8001, "/next\n");
    let start = scene.now;
    scene.end_at(start + 2000, 8000);
    scene.end_at(start + 4000, 8001);
    scene.now += 10_000;
    scene.read_at(start + 1000, 8000, 1, false);
    scene.read_at(start + 3000, 8001, 1, true);
    scene.start(1, "/a\n");
    scene.read(1, 1);
    scene.exec(1, 1, "id");
    assert_eq!(scene.condemned(), [1]);
}

/// The killed program's thread goes on to the next request before the decision is heard of.
#[test]
fn what_the_thread_read_after_the_decision_is_no_doubt() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(1, "/a\n");
    scene.read(1, 1);
    scene.start(2, "/b\n");
    let decided = scene.now + 1000;
    scene.now += 10_000;
    scene.read(2, 1);
    let lineage = lineage(1, 1, Strength::Reader);
    scene.exec_at(decided, lineage, "id", Decision::Killed);
    assert_eq!(scene.condemned(), [1]);
}

/// The thread's two requests were open at the decision and have ended by the time it is heard of.
#[test]
fn what_was_open_at_the_decision_counts_after_its_end() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(1, "/a\n");
    scene.start(2, "/b\n");
    scene.read(1, 1);
    scene.read(2, 1);
    let decided = scene.now + 1000;
    scene.now += 160_000_000;
    scene.end(1);
    scene.end(2);
    scene.start(3, "/c\n");
    scene.read(3, 1);
    let lineage = lineage(2, 1, Strength::Reader);
    scene.exec_at(decided, lineage, "id", Decision::Killed);
    scene.now += 110_000_000;
    scene.tick();
    assert!(scene.condemned().is_empty());
    assert_eq!(scene.reports()[0].proof, Proof::Candidates);
}
