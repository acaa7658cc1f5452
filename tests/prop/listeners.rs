//! Guarantee 7: listeners outlive workers; those that workers asked for go a while after the last
//! holder, not while anybody may come back for them, and at once if they are in the way.

use roundel_core::Time;
use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::{Mix, Op};

use crate::support::{catches, holds, small_plan};

#[test]
fn listeners_live_as_long_as_they_are_wanted() {
    holds(&[Property::Listeners], Mix::ALL, 200);
}

#[test]
fn a_listener_that_goes_with_its_worker_is_noticed() {
    catches(Property::Listeners, Mutant::CloseWithWorker, Mix::ALL);
}

#[test]
fn one_that_is_bound_before_the_other_is_closed_is_noticed() {
    catches(Property::Listeners, Mutant::HurryUnbound, Mix::ALL);
}

#[test]
fn the_first_worker_back_serves_what_came_meanwhile() {
    let mut ops = vec![Op::Round, Op::Round, Op::Exit(0, 1), Op::Exit(1, 1), Op::Pull(0)];
    ops.extend([Op::Pull(1), Op::Connect(0, 5), Op::Accept(0, 5)]);
    let mut sim = Sim::after(&small_plan(2, ops), Time::from_millis(5), None);
    assert_eq!(sim.core.core.pending(), 5);
    sim.recover();
    assert_eq!(sim.core.core.totals().accepted, 5);
    assert_eq!(sim.core.core.totals().refused, 0);
}
