//! Random orders of events with a known culprit: nobody else is ever named.

use crate::scene::Scene;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }
}

/// An event loop: one thread reads everything, continuations run in any order, and the program
/// that starts carries the mark of the request read last, not of the one it belongs to.
#[test]
fn an_event_loop_never_blames_the_wrong_request() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut scene = Scene::new();
        if dice.roll(2) == 0 {
            scene.teach_blocking(100_000, 2100);
        }
        let mut open: Vec<u64> = Vec::new();
        let mut last = 0;
        for sequence in 1..40 {
            scene.start(sequence, &format!("/job/{}\nMozilla/5.0\n", dice.roll(3)));
            // The kernel notices only what it can: here, that not a byte was answered.
            scene.read_when(sequence, 1, !open.is_empty() && dice.roll(2) == 0);
            open.push(sequence);
            last = sequence;
            while open.len() > 1 + dice.roll(4) as usize {
                let done = open.swap_remove(dice.roll(open.len() as u64) as usize);
                scene.end(done);
            }
        }
        let culprit = open[dice.roll(open.len() as u64) as usize];
        scene.exec(last, 1, "curl http://198.51.100.1/x");
        scene.now += 110_000_000;
        scene.tick();
        for named in scene.condemned() {
            assert_eq!(named, culprit, "seed {seed}");
        }
    }
}

/// A blocking server: a thread reads, works, answers, and reads the next.
#[test]
fn a_blocking_server_is_named_right_once_learned() {
    let mut named_at_all = 0;
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let mut scene = Scene::new();
        scene.teach_blocking(100_000, 2100);
        let mut busy = [0_u64; 8];
        for sequence in 1..200 {
            let thread = dice.roll(8) as usize;
            if busy[thread] != 0 {
                scene.end(busy[thread]);
            }
            scene.start(sequence, "/same\n");
            scene.read(sequence, thread as u32 + 10);
            busy[thread] = sequence;
        }
        let thread = dice.roll(8) as usize;
        let culprit = busy[thread];
        if culprit == 0 {
            continue;
        }
        scene.exec(culprit, thread as u32 + 10, "id");
        assert_eq!(scene.condemned(), [culprit], "seed {seed}");
        named_at_all += 1;
    }
    assert!(named_at_all > 50);
}
