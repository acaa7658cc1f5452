//! Guarantee 3: what a worker acknowledged is nobody else's. An answer to nothing changes nothing
//! but a counter, and too many of them end the worker.

use roundel_core::{Event, ExitClass, FromWorker, Input, Output, Primary, Seq, Time, Violation};
use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::{Mix, Op};

use crate::support::{catches, for_all, holds, quiet};

#[test]
fn an_acknowledged_connection_stays_where_it_is() {
    holds(&[Property::NoDouble], Mix { stops: false, ..Mix::ALL }, 200);
}

#[test]
fn a_hidden_answer_is_noticed() {
    catches(Property::NoDouble, Mutant::HideAck, Mix::ALL);
}

#[test]
fn a_second_handoff_is_noticed() {
    catches(Property::NoDouble, Mutant::HandOutAgain, Mix::CALM);
}

#[test]
fn redispatch_before_the_end_of_the_channel_is_noticed() {
    catches(Property::NoDouble, Mutant::RedispatchAtExit, Mix::ALL);
}

/// The state as text, with everything in it but the two counters of strays.
fn without_counters(primary: &Primary) -> serde_json::Value {
    let mut state = serde_json::to_value(primary).unwrap();
    state["totals"]["stray"] = 0.into();
    for entry in state["workers"]["entries"].as_array_mut().unwrap() {
        if let Some(worker) = entry.get_mut(1) {
            worker["strays"] = 0.into();
            worker["mid_frame"] = false.into();
        }
    }
    state["timers"].as_array_mut().unwrap().retain(|timer| timer[1].get("Frame").is_none());
    state
}

#[test]
fn an_answer_to_nothing_changes_only_a_counter() {
    // Workers that have said too much already would be ended by what is said here.
    for_all(Mix { hostile: false, ..quiet() }, 80, |plan| {
        let sim = Sim::after(plan, Time::from_millis(5), None);
        for worker in sim.core.core.workers() {
            let mut primary = sim.core.core.clone();
            let before = without_counters(&primary);
            // A number that no handoff has had, and ones of answers long past.
            for raw in [1_000_000, 999_999] {
                let msg = FromWorker::Ack { ack: Seq::from_raw(raw).unwrap(), accepted: true };
                primary.handle_input(sim.now, Input::Message { worker: worker.id, msg }).unwrap();
            }
            assert_eq!(primary.poll_output(), None);
            assert_eq!(before, without_counters(&primary));
            assert_eq!(primary.totals().stray, sim.core.core.totals().stray + 2);
        }
    });
}

#[test]
fn too_many_answers_to_nothing_end_the_worker() {
    let plan = crate::support::small_plan(1, vec![Op::Round, Op::Round]);
    let sim = Sim::after(&plan, Time::from_millis(5), None);
    let mut primary = sim.core.core.clone();
    let worker = primary.workers().next().unwrap().id;
    let max = primary.config().max_stray_acks();
    for count in 1..=max + 1 {
        let msg = FromWorker::Ack { ack: Seq::from_raw(77).unwrap(), accepted: false };
        primary.handle_input(sim.now, Input::Message { worker, msg }).unwrap();
        let killing =
            std::iter::from_fn(|| primary.poll_output()).find_map(|output| match output {
                Output::Event(Event::Killing { class, violation, .. }) => Some((class, violation)),
                _ => None,
            });
        let wanted = (ExitClass::Violations, Some(Violation::StrayMessages));
        assert_eq!(killing, (count > max).then_some(wanted));
    }
}
