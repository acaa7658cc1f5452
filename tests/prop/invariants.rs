//! `Primary::check` holds after every input, and fails for states that can't be.

use roundel_core::{Primary, Time};
use roundel_tests::faults::fault::Property;
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::{Mix, Op};
use serde_json::{Value, json};

use crate::support::{holds, small_plan};

#[test]
fn the_invariants_hold() {
    holds(&[Property::Invariants], Mix::ALL, 250);
}

/// A state with something in every place.
fn state() -> Value {
    let ops = vec![Op::Round, Op::Round, Op::Connect(0, 4), Op::Accept(0, 4)];
    let sim = Sim::after(&small_plan(2, ops), Time::from_millis(5), None);
    serde_json::to_value(&sim.core.core).unwrap()
}

fn is_sound(state: Value) -> bool {
    serde_json::from_value::<Primary>(state).is_ok_and(|primary| primary.check().is_ok())
}

#[test]
fn damage_is_noticed() {
    assert!(is_sound(state()));
    type Damage = fn(&mut Value);
    let damages: [(&str, Damage); 10] = [
        ("pending", |s| s["pending"] = json!(9)),
        ("in_flight", |s| s["in_flight"] = json!(0)),
        ("last conn", |s| s["last_conn"] = json!(1)),
        ("next worker", |s| s["next_worker"] = json!(1)),
        ("next listener", |s| s["next_listener"] = json!(1)),
        ("backlog", |s| s["backlog"] = json!([])),
        ("timers", |s| s["timers"] = json!([])),
        ("accept_paused", |s| s["accept_paused"] = json!(true)),
        ("twice", |s| {
            let entries = s["workers"]["entries"].as_array_mut().unwrap();
            let first = entries[0].clone();
            entries.push(first);
        }),
        ("queue", |s| {
            let pending = &mut s["listeners"]["entries"][0][1]["pending"];
            pending.as_array_mut().unwrap().reverse();
        }),
    ];
    for (name, damage) in damages {
        let mut state = state();
        damage(&mut state);
        assert!(!is_sound(state), "{name}");
    }
}
