//! Guarantee 9: early failures are restarted ever later, and then no more; all others at once;
//! never more than twice the wanted number of processes.

use roundel_core::{Life, Time, Verdict};
use roundel_tests::fault::Property;
use roundel_tests::mutants::Mutant;
use roundel_tests::ops::{Mix, Op};
use roundel_tests::sim::Sim;

use crate::support::{catches, holds, small_plan};

#[test]
fn restarts_are_bounded() {
    holds(&[Property::Restarts], Mix { stops: false, ..Mix::ALL }, 250);
}

#[test]
fn a_respawn_without_its_delay_is_noticed() {
    catches(Property::Restarts, Mutant::HurryRespawn, Mix::ALL);
}

#[test]
fn a_program_that_ends_at_once_is_given_up() {
    let mut ops = vec![Op::Mute(true)];
    for _ in 0..8 {
        ops.extend([Op::Todo, Op::Exit(0, 1), Op::Pass(4_000)]);
    }
    let sim = Sim::after(&small_plan(1, ops), Time::from_millis(5), None);
    // Waits of 0.1 to 1.6 s do not reach over the ten seconds that the budget looks back, but the
    // passes of 4 s do: six failures never lie within ten seconds.
    assert_eq!(sim.stopped, None);
    let mut ops = vec![Op::Mute(true)];
    for delay in [100, 200, 400, 800, 1_600, 10] {
        ops.extend([Op::Todo, Op::Exit(0, 1), Op::Pass(delay)]);
    }
    let sim = Sim::after(&small_plan(1, ops), Time::from_millis(5), None);
    assert_eq!(sim.stopped, Some(Verdict::CrashLoop));
    assert!(sim.faults.is_empty(), "{:?}", sim.faults);
}

#[test]
fn a_slot_that_waits_for_its_respawn_counts_as_a_process() {
    let serve = [Op::Connect(0, 2), Op::Accept(0, 2), Op::Round];
    let mut ops = vec![Op::Round, Op::Round];
    ops.extend(serve);
    // Two replacements beside two that are failing: as many as there may be.
    ops.extend([Op::Suicide(0), Op::Suicide(1), Op::Pull(0), Op::Pull(1), Op::Round, Op::Round]);
    // The first replacement ends at once, and its slot waits; the other one works, and then fails.
    ops.extend([Op::Exit(2, 1), Op::Pull(2), Op::Reap]);
    ops.extend(serve);
    ops.extend([Op::Suicide(2), Op::Pull(2), Op::Round, Op::Pass(150), Op::Round]);
    let sim = Sim::after(&small_plan(2, ops), Time::from_millis(5), None);
    let many: Vec<_> = sim.broken(Property::Restarts);
    assert!(many.is_empty(), "{many:?}");
    // Everybody who is wanted comes in the end.
    assert_eq!(sim.core.core.workers().filter(|worker| worker.life == Life::Ready).count(), 2);
}
