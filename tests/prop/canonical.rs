//! The canonical view is equal for states that differ only by ids, times and counters, and
//! different for states that behave differently.

use roundel_core::{Canonical, Time};
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::{Mix, Op};

use crate::support::{fails, for_all, small_plan};

fn view(ops: Vec<Op>) -> Canonical {
    let sim = Sim::after(&small_plan(2, ops), Time::from_millis(5), None);
    sim.core.core.canonical()
}

#[test]
fn another_epoch_is_no_difference() {
    for_all(Mix::ALL, 120, |plan| {
        let early = Sim::after(plan, Time::from_millis(5), None);
        let late = Sim::after(plan, Time::from_millis(86_400_005), None);
        assert!(early.core.core.canonical() == late.core.core.canonical());
    });
}

#[test]
fn another_moment_is_noticed() {
    fails(Mix::ALL, 120, |plan| {
        let early = Sim::after(plan, Time::from_millis(5), None);
        let mut late = Sim::after(plan, Time::from_millis(5), None);
        late.apply(&Op::Pass(7));
        assert!(early.core.core.canonical() == late.core.core.canonical());
    });
}

/// Two workers, two connections served: the turn is where it was.
fn served(times: usize) -> Vec<Op> {
    let mut ops = vec![Op::Round, Op::Round];
    for _ in 0..times {
        ops.extend([Op::Connect(0, 2), Op::Accept(0, 2), Op::Round]);
    }
    ops
}

#[test]
fn ids_and_counters_are_no_difference() {
    assert_eq!(view(served(1)), view(served(4)));
}

#[test]
fn different_behaviour_gives_different_states() {
    let with = |more: &[Op]| {
        let mut ops = served(1);
        ops.extend_from_slice(more);
        view(ops)
    };
    let connect = |n| [Op::Connect(0, n), Op::Accept(0, n)];
    let views = [
        with(&[]),
        // One in flight; two; a turn moved on; one pending.
        with(&connect(1)),
        with(&connect(2)),
        with(&[Op::Connect(0, 1), Op::Accept(0, 1), Op::Round]),
        with(&connect(3)),
        // Declined, and so cooling; a moment later.
        with(&[
            Op::Connect(0, 1),
            Op::Accept(0, 1),
            Op::Read(0),
            Op::Answer(0, 0, false),
            Op::Pull(0),
        ]),
        // A worker that leaves, one that is gone, one that hangs on its channel.
        with(&[Op::Leave(0), Op::Pull(0)]),
        with(&[Op::Suicide(0), Op::Pull(0)]),
        with(&[Op::Exit(0, 1), Op::Reap]),
        with(&[Op::Exit(0, 1), Op::Pull(0)]),
        with(&[Op::CloseListener(0, 0), Op::Pull(0)]),
        with(&[Op::Half(0), Op::Pull(0)]),
        with(&[Op::Stop]),
    ];
    for (at, one) in views.iter().enumerate() {
        for (other_at, other) in views.iter().enumerate().skip(at + 1) {
            assert!(one != other, "states {at} and {other_at} look alike");
        }
    }
}
