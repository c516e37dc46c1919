//! Memory stays bounded whatever comes.

use crate::scene::Scene;

#[test]
fn a_million_requests_that_never_end() {
    let mut scene = Scene::new();
    for sequence in 1..=300_000 {
        scene.start(sequence, "/\n");
        scene.read(sequence, (sequence % 64) as u32);
    }
    assert!(scene.correlator.remembered() <= 131_072);
    assert!(scene.correlator.counters().evicted >= 300_000 - 131_072);
}

#[test]
fn large_inputs_are_forgotten_first() {
    let mut scene = Scene::new();
    let large = "x".repeat(16_000);
    for sequence in 1..=10_000 {
        scene.start(sequence, &large);
        scene.end(sequence);
    }
    assert!(scene.correlator.remembered_bytes() <= 128 << 20);
    assert_eq!(scene.correlator.remembered(), 10_000);
}

/// Only requests that had ended made room for others: ten thousand slow ones were too much.
#[test]
fn large_inputs_of_requests_in_flight_are_bounded_too() {
    let mut scene = Scene::new();
    let large = "x".repeat(16_000);
    for sequence in 1..=10_000 {
        scene.start(sequence, &large);
    }
    assert!(scene.correlator.remembered_bytes() <= 128 << 20);
}

/// A case that had to go before its record was due was never written down.
#[test]
fn every_incident_is_reported_however_many_come_at_once() {
    let mut scene = Scene::new();
    for sequence in 1..=5_000 {
        scene.start(sequence, "/\n");
        scene.read(sequence, 1);
        scene.exec(sequence, 1, "id");
        scene.end(sequence);
    }
    assert_eq!(scene.reports().len(), 5_000);
}

#[test]
fn many_incidents() {
    let mut scene = Scene::new();
    for sequence in 1..=2_000 {
        scene.start(sequence, "/\n");
        scene.read(sequence, 1);
        scene.exec(sequence, 1, "id");
        scene.end(sequence);
    }
    assert_eq!(scene.correlator.counters().incidents, 2_000);
    assert!(scene.reports().len() <= 4096);
}
