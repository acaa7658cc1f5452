//! Guarantee 9: early failures are restarted ever later, and then no more; all others at once;
//! never more than twice the wanted number of processes.

use roundel_core::{Time, Verdict};
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
