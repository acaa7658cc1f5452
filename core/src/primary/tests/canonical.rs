//! Which states the canonical view tells apart, and which it does not.

use super::*;
use crate::Slot;
use crate::transitions::Life;

/// Three workers: all have one connection of two that they may have.
fn busy() -> Hand {
    let mut hand = Hand::serving(Config::builder().workers(3).window(2));
    (1..=3).for_each(|conn| drop(hand.incoming(conn)));
    hand
}

type Act = fn(&mut Hand);

/// Whether a state of three workers looks the same after a difference was made to it, both after
/// `before`.
fn looks_alike(before: Act, difference: Act) -> bool {
    let (mut one, mut other) = (busy(), busy());
    before(&mut one);
    before(&mut other);
    assert_eq!(one.core.canonical(), other.core.canonical());
    difference(&mut other);
    one.core.canonical() == other.core.canonical()
}

fn conn_of(hand: &mut Hand, nth: u64) -> &mut ConnId {
    &mut hand.worker(nth).in_flight.iter_mut().next().unwrap().conn
}

#[test]
fn which_connection_is_where() {
    let exchanged: Act = |hand| {
        *conn_of(hand, 1) = conn_id(2);
        *conn_of(hand, 2) = conn_id(1);
    };
    assert!(!looks_alike(|_| (), exchanged));
    // The number of a connection makes no difference.
    let later: Act = |hand| *conn_of(hand, 3) = conn_id(9);
    assert!(looks_alike(|_| (), later));
}

/// A listener that is gone differs from all that exist, also from the first and the last.
#[test]
fn connections_of_different_workers() {
    fn came_from(nth: u64) -> Canonical {
        let mut hand = busy();
        hand.ask(1, &stream(Address::Any { port: 81 }));
        hand.worker(1).in_flight.iter_mut().for_each(|entry| entry.listener = listener(nth));
        hand.core.canonical()
    }
    let all = [1, 2, 3].map(came_from);
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    assert!(came_from(4) == all[2], "gone is gone");
}

#[test]
fn the_next_listener_to_be_served() {
    // The last becomes the second: the first stays.
    let turned: Act = |hand| {
        let index = hand.core.workers.position(worker(2)).unwrap();
        hand.core.ready_queue.leave(index);
        hand.core.ready_queue.enter(index, 1);
    };
    assert!(!looks_alike(|_| (), turned));
}

#[test]
fn equal_workers_in_swapped_slots() {
    let exchanged: Act = |hand| {
        hand.worker(1).slot = Slot(1);
        hand.worker(2).slot = Slot(0);
        hand.core.slots.swap(0, 1);
    };
    let config = Config::builder().workers(2);
    let one = Hand::bound_at(config.clone(), &[]);
    let mut other = Hand::bound_at(config, &[]);
    exchanged(&mut other);
    assert_eq!(other.core.check(), Ok(()));
    assert!(one.core.canonical() != other.core.canonical(), "ties are broken by the id");
}

#[test]
fn state_left_over_from_an_ended_channel_or_process() {
    let read_shut: Act = |hand| hand.worker(1).channel = Channel::ReadShut;
    assert!(!looks_alike(|_| (), read_shut));
    let started: Act = |hand| hand.worker(1).process = Process::Wanted;
    assert!(!looks_alike(|_| (), started));
    // The intent was looked at when the process ended.
    let left: Act = |hand| hand.worker(1).intent = Intent::Leaves;
    assert!(!looks_alike(|_| (), left));
    assert!(looks_alike(|hand| hand.worker(1).process = Process::Exited, left));
}

/// The worker that has been leaving longest is the first whose end makes room.
#[test]
fn order_of_leaving() {
    let later: Act = |hand| hand.worker(1).leaving_since = Time::from_millis(20);
    let both_leave: Act = |hand| {
        for nth in [1, 2] {
            hand.worker(nth).life = Life::Leaving;
            hand.worker(nth).leaving_since = Time::from_millis(10 + nth);
        }
    };
    assert!(!looks_alike(both_leave, later));
    // By how much makes no difference.
    let earlier: Act = |hand| hand.worker(1).leaving_since = Time::from_millis(1);
    assert!(looks_alike(both_leave, earlier));
    // A worker that stays has no such time; one that has ended makes no room any more.
    let one_leaves: Act = |hand| {
        hand.worker(2).life = Life::Leaving;
        hand.worker(2).leaving_since = Time::from_millis(12);
        hand.worker(1).leaving_since = Time::from_millis(11);
    };
    assert!(looks_alike(one_leaves, later));
    let one_ended: Act = |hand| {
        hand.worker(2).life = Life::Leaving;
        hand.worker(2).leaving_since = Time::from_millis(12);
        hand.worker(1).life = Life::Leaving;
        hand.worker(1).process = Process::Exited;
        hand.worker(1).leaving_since = Time::from_millis(11);
    };
    assert!(looks_alike(one_ended, later));
}

#[test]
fn listener_state() {
    let listener_of = |hand: &mut Hand, change: fn(&mut ListenerRecord)| {
        change(hand.core.listeners.get_mut(listener(1)).unwrap());
    };
    let mut queue = busy();
    (4..=7).for_each(|conn| drop(queue.incoming(conn)));
    let changes: [fn(&mut ListenerRecord); 4] = [
        |record| record.accepting = false,
        |record| record.state = state::ListenerState::Closing,
        |record| record.data = None,
        |record| record.pending[0].attempts += 1,
    ];
    for change in changes {
        let mut changed = Hand::over(queue.core.clone(), queue.at);
        listener_of(&mut changed, change);
        assert!(queue.core.canonical() != changed.core.canonical());
    }
}

#[test]
fn the_failing_worker_a_slot_waits_for() {
    let one: Act = |hand| {
        (1..=3).for_each(|nth| hand.worker(nth).slot = Slot(0));
        hand.core.slots[0].state =
            SlotState::AwaitsProcessEnd { failing: worker(2), suicide: None };
    };
    let another: Act = |hand| {
        hand.core.slots[0].state =
            SlotState::AwaitsProcessEnd { failing: worker(3), suicide: None };
    };
    assert!(!looks_alike(one, another));
}
