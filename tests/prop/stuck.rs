//! Guarantee 6: a stuck worker costs at most its window; it is ended at the ack timeout, not
//! before.

use roundel_core::{Event, Output, Time};
use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::{Mix, Op};

use crate::support::{catches, holds, small_plan};

#[test]
fn a_stuck_worker_costs_its_window() {
    holds(&[Property::Stuck], Mix { stops: false, ..Mix::ALL }, 200);
}

#[test]
fn a_stuck_worker_that_lives_on_is_noticed() {
    catches(Property::Stuck, Mutant::SpareStuck, Mix { stalls: true, ..Mix::CALM });
}

#[test]
fn others_go_on_beside_a_stuck_worker() {
    let mut ops = vec![Op::Round, Op::Round, Op::Stall(0, true)];
    for _ in 0..20 {
        ops.extend([Op::Connect(0, 2), Op::Accept(0, 2), Op::Round, Op::Round]);
    }
    let sim = Sim::after(&small_plan(2, ops), Time::from_millis(5), None);
    assert_eq!(sim.core.core.in_flight(), 1);
    assert_eq!(sim.core.core.totals().accepted, 39);
}

#[test]
fn a_declining_worker_is_retried_after_5_ms_doubling_to_250() {
    let mut ops = vec![Op::Round, Op::Round, Op::Connect(0, 1), Op::Accept(0, 1)];
    for _ in 0..9 {
        ops.extend([Op::Read(0), Op::Answer(0, 0, false), Op::Pull(0), Op::Pass(260)]);
    }
    let plan = small_plan(1, ops);
    let mut sim = Sim::new(&plan, Time::from_millis(5), None);
    let mut declined_at = None;
    let mut waits = Vec::new();
    for op in &plan.ops {
        let seen = sim.transcript.len();
        let (outputs, now) = (sim.outputs.len(), sim.now);
        sim.apply(op);
        let declined = |output: &Output| matches!(output, Output::Event(Event::Declined { .. }));
        if sim.outputs.iter().skip(outputs).any(declined) {
            declined_at = Some(now);
            continue;
        }
        // The wake that handed it out again is the first one after the decline.
        let woke = sim.transcript.iter().skip(seen).map(|(at, _)| *at).find(|at| *at > now);
        if let (Some(from), Some(at)) = (declined_at.take(), woke) {
            waits.push(at.since(from).as_millis());
        }
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 250, 250, 250]);
}
