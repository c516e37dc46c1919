//! Whatever comes in whatever order, with whatever times: no panic, and the bounds hold.

use std::time::Duration;

use clew_correlator::{Deed, Input};
use clew_protocol::kernel::{Access, Decision, KernelEvent, LostClass, Strength};
use clew_protocol::{IncidentId, Moment};
use uuid::Uuid;

use crate::scene::{Opened, Scene, WRITTEN, lineage};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }

    fn time(&mut self, now: u64) -> u64 {
        match self.roll(12) {
            0 => 0,
            1 => u64::MAX,
            2 => now.saturating_sub(self.roll(200_000_000_000)),
            3 => now.saturating_add(self.roll(200_000_000_000)),
            _ => now,
        }
    }
}

#[test]
fn any_order_of_events() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let mut scene = Scene::new();
        for _ in 0..400 {
            step(&mut dice, &mut scene);
        }
        // The clock may stand at its end.
        scene.put(Input::Tick(Moment(u64::MAX)));
        assert!(scene.correlator.remembered() < 400);
        assert!(scene.correlator.written_files() <= 4);
    }
}

fn step(dice: &mut Dice, scene: &mut Scene) {
    scene.now += dice.roll(3_000_000_000);
    let at = dice.time(scene.now);
    let sequence = match dice.roll(20) {
        0 => 0,
        1 => u64::MAX,
        _ => dice.roll(24),
    };
    let tid = dice.roll(3) as u32;
    match dice.roll(14) {
        0 | 1 => scene.start(sequence, "/run?touch /tmp/marker\n"),
        2 | 3 => scene.read_at(at, sequence, tid, dice.roll(2) == 0),
        4 => scene.end_at(at, sequence),
        5 => scene.more_input(sequence, "touch /tmp/another\n"),
        6 => scene.answered(sequence),
        7 => scene.in_flight(sequence, &[1, 2, u64::MAX], dice.roll(4) == 0),
        8 => {
            let strength = [Strength::Reader, Strength::Thread, Strength::Process];
            let strength = strength[dice.roll(3) as usize];
            let decision = [Decision::Allowed, Decision::Observed, Decision::Killed];
            let decision = decision[dice.roll(3) as usize];
            let lineage = lineage(sequence, tid, strength);
            scene.exec_at(at, lineage, "touch /tmp/marker", decision);
        }
        9 => scene.connect_with(sequence, tid, 80, Decision::Denied),
        10 => odd(dice, scene, at),
        11 => open(dice, scene, at, sequence),
        12 => scene.run_file(501 + tid, sequence, tid, dice.roll(4)),
        _ => scene.put(Input::Tick(Moment(at))),
    }
}

fn open(dice: &mut Dice, scene: &mut Scene, at: u64, sequence: u64) {
    let strength = [Strength::Reader, Strength::Thread, Strength::Process];
    let decision = [Decision::Allowed, Decision::Observed, Decision::Denied];
    let lineage = lineage(
        sequence,
        dice.roll(3) as u32,
        strength[dice.roll(3) as usize],
    );
    let file = Opened {
        pid: [WRITTEN.pid, 501, 502][dice.roll(3) as usize],
        inode: dice.roll(4),
        access: [Access::Read, Access::Write][dice.roll(2) as usize],
        decision: decision[dice.roll(3) as usize],
        ..WRITTEN
    };
    scene.open_at(at, lineage, &file);
}

fn odd(dice: &mut Dice, scene: &mut Scene, at: u64) {
    let total = dice.time(1);
    let class = [LostClass::Bound, LostClass::File][dice.roll(2) as usize];
    scene.put(match dice.roll(2) {
        0 => Input::Kernel(KernelEvent::Lost { class, total }),
        _ => Input::Acted {
            incident: IncidentId(Uuid::from_u128(1)),
            deed: [
                Deed::Spared,
                Deed::Banned {
                    span: Duration::from_secs(60),
                },
            ][dice.roll(2) as usize],
            at: Moment(at),
        },
    });
}
