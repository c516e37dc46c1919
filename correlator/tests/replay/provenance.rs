//! What one request writes and another runs is told in one incident.

use clew_protocol::Sequence;
use clew_protocol::incident::{Incident, IncidentAction, Loss, StepKind, Writer};
use clew_protocol::kernel::{Access, Decision, KernelEvent, LostClass, Strength};
use clew_protocol::verdict::Proof;

use crate::scene::{Opened, READ, Scene, WRITTEN, address, lineage};

/// The request `sequence` writes `/up/x`, and is long gone.
fn written_by(scene: &mut Scene, sequence: u64) {
    scene.start(sequence, "/upload\n");
    scene.read(sequence, 1);
    scene.open(sequence, 1, &WRITTEN);
    scene.end(sequence);
    scene.tick();
    scene.forget();
    assert!(scene.correlator.service_of(Sequence(sequence)).is_none());
}

/// The last record of the only incident.
fn only(scene: &mut Scene) -> Incident {
    let reports = scene.reports();
    assert_eq!(scene.correlator.counters().incidents, 1);
    reports.last().cloned().expect("a record")
}

fn names(writers: &[Writer]) -> Vec<Option<u64>> {
    let name = |it: &Writer| it.request.as_ref().map(|request| request.sequence.0);
    writers.iter().map(name).collect()
}

#[test]
fn a_program_that_another_request_has_written() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    scene.start(2, "/run\n");
    scene.read(2, 1);
    scene.run_file(501, 2, 1, WRITTEN.inode);
    assert_eq!(scene.condemned(), [2]);
    let record = only(&mut scene);
    let named = record.request.as_ref().map(|it| it.sequence.0);
    assert_eq!(named, Some(2));
    let [step] = &record.steps[..] else {
        panic!("{:?}", record.steps)
    };
    let [writer] = &step.written_by[..] else {
        panic!("{:?}", step.written_by)
    };
    let request = writer.request.as_ref().expect("a name");
    assert_eq!(request.source_ip, address(1));
    assert_eq!(
        (writer.proof, writer.path.as_str()),
        (Proof::Sole, WRITTEN.path)
    );
    assert!(writer.before_ms > 200_000.0 && writer.before_ms < 201_000.0);
    assert!(writer.at.starts_with("2023-11-14T22:13:20."), "{writer:?}");
}

/// Neither the ban nor the end of a request is for him who wrote it.
#[test]
fn a_writer_is_told_and_not_banned() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    scene.start(2, "/run?/bin/sh -c 'touch /tmp/marker-1'\n");
    scene.read(2, 1);
    scene.open(2, 1, &READ);
    scene.exec(2, 1, "touch /tmp/marker-1");
    let record = only(&mut scene);
    assert_eq!(record.action, IncidentAction::Banned);
    assert_eq!(scene.banned(), [address(2)]);
    assert_eq!(scene.condemned(), [2]);
    assert_eq!(names(&record.steps[0].written_by), [Some(1)]);
}

/// `php x.php`, in a process of its own: it reads what has been written, and starts a shell.
#[test]
fn a_script_that_a_child_reads() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    // Another request is open on the thread: only what the same processes did belongs to it.
    for sequence in [2, 3] {
        scene.start(sequence, &format!("/run?touch /srv/marker-{sequence}\n"));
        scene.read_when(sequence, 1, sequence == 3);
    }
    scene.open(3, 1, &Opened { pid: 501, ..READ });
    scene.open(3, 1, &Opened { pid: 502, ..READ });
    scene.exec_forked(501, 3, 1, "touch /srv/marker-3");
    assert_eq!(scene.condemned(), [3]);
    let record = only(&mut scene);
    assert_eq!(record.steps.len(), 2);
    assert_eq!(names(&record.steps[0].written_by), [Some(1)]);
    assert!(record.steps[1].written_by.is_empty());
}

/// `include "x.php"`, in the worker itself, which then starts a shell.
#[test]
fn a_script_that_the_worker_reads() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    scene.start(2, "/x.php\n");
    scene.read(2, 1);
    scene.open(2, 1, &READ);
    scene.exec_forked(501, 2, 1, "id");
    let record = only(&mut scene);
    assert_eq!(record.steps.len(), 2);
    assert_eq!(names(&record.steps[0].written_by), [Some(1)]);
    let StepKind::File {
        path,
        access,
        inode,
        ..
    } = &record.steps[0].what
    else {
        panic!("no file")
    };
    assert_eq!((path.as_str(), *access), (READ.path, Access::Read));
    assert_eq!(*inode, READ.inode);
}

/// What is read after the incident has begun belongs to it as well: a program that was seen and not stopped.
#[test]
fn a_script_that_is_read_by_what_was_observed() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    scene.start(2, "/run\n");
    scene.read(2, 1);
    let (strength, observed) = (Strength::Reader, Decision::Observed);
    scene.exec_with(2, 1, "sh /up/x", strength, observed);
    scene.open(2, 1, &Opened { pid: 501, ..READ });
    let record = only(&mut scene);
    assert_eq!(names(&record.steps[1].written_by), [Some(1)]);
}

#[test]
fn a_write_or_a_read_that_was_denied_is_an_incident() {
    for access in [Access::Read, Access::Write] {
        let mut scene = Scene::new();
        scene.start(1, "/get?file=/etc/secrets/key\n");
        scene.start(2, "/fine\n");
        scene.read(1, 1);
        scene.read(2, 2);
        let file = Opened {
            access,
            path: "/etc/secrets/key",
            decision: Decision::Denied,
            ..READ
        };
        scene.open(1, 1, &file);
        assert_eq!(scene.condemned(), [1]);
        assert_eq!(scene.banned(), [address(1)]);
        assert_eq!(scene.correlator.written_files(), 0);
        let record = only(&mut scene);
        assert_eq!(record.proof, Proof::Content);
        assert_eq!(record.action, IncidentAction::Banned);
        assert_eq!(record.evidence.as_deref(), Some("/etc/secrets/key"));
    }
}

/// Nothing was stopped, so it was written.
#[test]
fn a_write_that_was_observed_is_an_incident_and_remembered() {
    let mut scene = Scene::new();
    scene.start(1, "/upload\n");
    scene.read(1, 1);
    let decision = Decision::Observed;
    scene.open(
        1,
        1,
        &Opened {
            decision,
            ..WRITTEN
        },
    );
    let record = only(&mut scene);
    assert_eq!(record.action, IncidentAction::Observed);
    assert_eq!(scene.correlator.written_files(), 1);
}

/// A picture that was uploaded is looked at.
#[test]
fn a_look_at_what_was_written_is_no_incident() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    for sequence in 2..10 {
        scene.start(sequence, "/up/x\n");
        scene.read(sequence, 1);
        scene.open(sequence, 1, &READ);
        scene.end(sequence);
    }
    assert!(scene.reports().is_empty());
    assert_eq!(scene.correlator.counters().incidents, 0);
    assert_eq!(scene.correlator.counters().files, 9);
}

#[test]
fn the_oldest_of_five_thousand_files_are_forgotten() {
    let mut scene = Scene::new();
    scene.start(1, "/upload\n");
    scene.read(1, 1);
    let written = |inode| Opened { inode, ..WRITTEN };
    for inode in 1..=5000 {
        scene.open(1, 1, &written(inode));
        // One that is written again is not old.
        scene.open(1, 1, &written(1));
    }
    assert_eq!(scene.correlator.written_files(), 4096);
    for (inode, is_known) in [(1, true), (2, false), (905, false), (906, true)] {
        let sequence = 10 + inode;
        scene.start(sequence, "/run\n");
        scene.read(sequence, 9);
        scene.run_file(501, sequence, 9, inode);
        let reports = scene.reports();
        let record = reports.last().expect("a record");
        assert_eq!(record.steps[0].written_by.len(), usize::from(is_known));
    }
}

#[test]
fn two_requests_have_written_it() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    written_by(&mut scene, 2);
    scene.start(3, "/run\n");
    scene.read(3, 1);
    scene.run_file(501, 3, 1, WRITTEN.inode);
    let record = only(&mut scene);
    assert_eq!(names(&record.steps[0].written_by), [Some(2), Some(1)]);
}

#[test]
fn the_last_four_writers_are_told() {
    let mut scene = Scene::new();
    for sequence in 1..=5 {
        written_by(&mut scene, sequence);
    }
    scene.open(2, 1, &WRITTEN);
    scene.start(6, "/run\n");
    scene.read(6, 1);
    scene.run_file(501, 6, 1, WRITTEN.inode);
    // Whoever writes after it was run has no part in it.
    scene.open(6, 1, &WRITTEN);
    let record = only(&mut scene);
    let told = names(&record.steps[0].written_by);
    assert_eq!(told, [Some(2), Some(5), Some(4), Some(3)]);
}

#[test]
fn a_request_that_runs_what_it_has_written_itself() {
    let mut scene = Scene::new();
    scene.start(1, "/upload-and-run\n");
    scene.read(1, 1);
    scene.open(1, 1, &WRITTEN);
    scene.run_file(501, 1, 1, WRITTEN.inode);
    let record = only(&mut scene);
    assert_eq!(names(&record.steps[1].written_by), [Some(1)]);
    assert!(record.steps[0].written_by.is_empty());
}

/// "One of these" is as honest of a writer as of anybody.
#[test]
fn a_writer_that_is_one_of_several_is_not_named() {
    let mut scene = Scene::new();
    for sequence in 1..=3 {
        scene.start(sequence, "/upload\n");
        scene.read(sequence, 1);
    }
    scene.open(3, 1, &WRITTEN);
    scene.tick();
    scene.forget();
    scene.start(9, "/run\n");
    scene.read(9, 1);
    scene.run_file(501, 9, 1, WRITTEN.inode);
    let record = only(&mut scene);
    let [writer] = &record.steps[0].written_by[..] else {
        panic!("no writer")
    };
    assert_eq!((writer.proof, writer.candidates), (Proof::Candidates, 3));
    assert!(writer.request.is_none());
}

/// The name of the file was sent, and by no other: that is content as anywhere else.
#[test]
fn a_writer_is_named_by_what_was_sent() {
    let mut scene = Scene::new();
    let path = "/srv/www/up/report-of-2217.php";
    scene.start(1, "/upload\nreport-of-2217.php\n");
    scene.start(2, "/upload\nholiday.png\n");
    scene.read(1, 1);
    scene.read(2, 1);
    scene.open(2, 1, &Opened { path, ..WRITTEN });
    scene.tick();
    scene.forget();
    scene.start(9, "/run\n");
    scene.read(9, 1);
    scene.run_file(501, 9, 1, WRITTEN.inode);
    let record = only(&mut scene);
    let writers = &record.steps[0].written_by;
    assert_eq!(names(writers), [Some(1)]);
    assert_eq!(writers[0].proof, Proof::Content);
}

/// The proxy's word that the thread's last request has ended comes after the write.
#[test]
fn a_write_waits_for_the_end_of_the_request_before() {
    let mut scene = Scene::new();
    scene.teach_blocking(10, 2100);
    scene.start(8000, "/a\n");
    scene.read(8000, 1);
    scene.start(8001, "/upload\n");
    scene.read(8001, 1);
    scene.open(8001, 1, &WRITTEN);
    scene.tick();
    scene.end(8000);
    scene.end(8001);
    scene.forget();
    scene.start(9000, "/run\n");
    scene.read(9000, 1);
    scene.run_file(501, 9000, 1, WRITTEN.inode);
    let record = only(&mut scene);
    let writers = &record.steps[0].written_by;
    assert_eq!(names(writers), [Some(8001)]);
    assert_eq!(writers[0].proof, Proof::Lineage);
}

/// The program that a process has become, and what that process reads: one tree, where a thread's mark
/// means little.
#[test]
fn a_script_of_an_interpreter_that_another_program_has_started() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    for sequence in [2, 3] {
        scene.start(sequence, &format!("/run?touch /srv/marker-{sequence}\n"));
        scene.read_when(sequence, 1, sequence == 3);
    }
    scene.exec_below(502, 501, 3, "php /up/x", Decision::Allowed);
    scene.open(3, 1, &Opened { pid: 502, ..READ });
    scene.exec_below(503, 501, 3, "touch /srv/marker-3", Decision::Killed);
    let record = only(&mut scene);
    assert_eq!(record.steps.len(), 3);
    assert_eq!(names(&record.steps[1].written_by), [Some(1)]);
}

/// A request that opens files without end hides neither its program nor who wrote that.
#[test]
fn harmless_steps_hide_nothing() {
    let mut scene = Scene::new();
    written_by(&mut scene, 1);
    scene.start(2, "/run\n");
    scene.read(2, 1);
    for inode in 100..300 {
        scene.open(2, 1, &Opened { inode, ..WRITTEN });
    }
    scene.open(2, 1, &READ);
    scene.exec_forked(501, 2, 1, "id");
    let record = only(&mut scene);
    assert_eq!((record.steps.len(), record.steps_cut), (64, 138));
    assert_eq!(names(&record.steps[62].written_by), [Some(1)]);
    assert_eq!(record.steps[63].decision, Decision::Killed);
}

#[test]
fn lost_files_are_said() {
    let mut scene = Scene::new();
    let class = LostClass::File;
    let lost = KernelEvent::Lost { class, total: 3 };
    scene.put(clew_correlator::Input::Kernel(lost));
    scene.start(1, "/run\n");
    scene.read(1, 1);
    scene.exec(1, 1, "id");
    let record = only(&mut scene);
    assert_eq!(record.degraded, [Loss { class, records: 3 }]);
    assert_eq!(record.proof, Proof::Sole);
    assert_eq!(scene.correlator.counters().lost, 3);
}

/// Files far more numerous than can be searched for: the last ones are remembered, and nobody is named wrongly.
#[test]
fn more_writes_than_can_be_searched_for() {
    let mut scene = Scene::new();
    for sequence in [1, 2] {
        scene.start(sequence, "/unpack\n");
        scene.read(sequence, 1);
    }
    for inode in 1..=3000 {
        let at = scene.now + 1000;
        scene.now = at;
        let mut lineage = lineage(2, 1, Strength::Reader);
        lineage.recent = vec![Sequence(2), Sequence(1)];
        scene.open_at(at, lineage, &Opened { inode, ..WRITTEN });
    }
    scene.forget();
    scene.start(9, "/run\n");
    scene.read(9, 1);
    scene.run_file(501, 9, 1, 3000);
    let record = only(&mut scene);
    let writer = &record.steps[0].written_by[0];
    assert_eq!((writer.proof, writer.candidates), (Proof::Candidates, 2));
}
