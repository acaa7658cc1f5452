//! Each invariant is noticed when it does not hold.

use super::*;
use crate::Slot;
use crate::timers::Due;
use crate::transitions::Life;

/// Two workers with two connections in flight each, and two that are pending.
fn busy() -> Hand {
    let mut hand = Hand::serving(Config::builder().workers(2).window(2));
    (1..=6).for_each(|conn| drop(hand.incoming(conn)));
    assert_eq!((hand.core.in_flight(), hand.core.pending()), (4, 2));
    hand
}

/// What is broken after this change.
fn broken(act: impl FnOnce(&mut Hand)) -> &'static str {
    let mut hand = busy();
    assert_eq!(hand.core.check(), Ok(()));
    act(&mut hand);
    hand.core.check().err().map_or("nothing", |broken| broken.0)
}

fn queue(hand: &mut Hand) -> &mut VecDeque<state::Pending> {
    &mut hand.core.listeners.get_mut(listener(1)).unwrap().pending
}

#[test]
fn of_connections() {
    let twice = |hand: &mut Hand| queue(hand)[0].conn = conn_id(1);
    assert_eq!(broken(twice), "a connection is in two places");
    let minted = |hand: &mut Hand| hand.core.last_conn = 5;
    assert_eq!(broken(minted), "a connection is held that was never given in");
    assert_eq!(broken(|hand| hand.core.in_flight = 3), "the count in flight is wrong");
    assert_eq!(broken(|hand| hand.core.pending = 3), "the count of pending is wrong");
    let order = |hand: &mut Hand| queue(hand).swap(0, 1);
    assert_eq!(broken(order), "a queue is not in the order of the ids");
}

#[test]
fn of_workers() {
    let minted = |hand: &mut Hand| hand.core.next_worker = worker(2);
    assert_eq!(broken(minted), "a worker id was never minted");
    let dead = |hand: &mut Hand| hand.worker(1).life = Life::Dead;
    assert_eq!(broken(dead), "a dead worker is kept");
    let narrow = |hand: &mut Hand| hand.worker(1).window = 1;
    assert_eq!(broken(narrow), "a worker has more than its window");
    let order = |hand: &mut Hand| {
        hand.worker(1).in_flight.iter_mut().for_each(|entry| entry.seq = Seq::FIRST);
    };
    assert_eq!(broken(order), "a worker's numbers are not in order");
    let number = |hand: &mut Hand| hand.worker(1).next_seq = Seq::from_raw(2).unwrap();
    assert_eq!(broken(number), "a number in flight was never given out");
    let closed = |hand: &mut Hand| hand.worker(1).channel = Channel::Closed;
    assert_eq!(broken(closed), "a worker without a channel holds something");
    // Either of them is enough.
    let shares = |hand: &mut Hand| {
        let in_flight = core::mem::take(&mut hand.worker(1).in_flight);
        hand.core.in_flight -= in_flight.len() as u32;
        hand.worker(1).channel = Channel::Closed;
    };
    assert_eq!(broken(shares), "a worker without a channel holds something");
    let ended = |hand: &mut Hand| {
        shares(hand);
        hand.worker(1).shares.clear();
        hand.worker(1).process = Process::Exited;
    };
    assert_eq!(broken(ended), "a worker that has ended is kept");
    let stays = |hand: &mut Hand| hand.worker(1).process = Process::Exited;
    assert_eq!(broken(stays), "a worker that is gone is not leaving");
}

#[test]
fn of_timers() {
    let unarmed = |hand: &mut Hand| hand.worker(1).ack_armed = false;
    assert_eq!(broken(unarmed), "an ack timer is set against the record");
    let unset = |hand: &mut Hand| {
        hand.worker(1).ack_armed = false;
        hand.core.timers.clear(Due::Ack(worker(1)));
    };
    assert_eq!(broken(unset), "connections are in flight without an ack timer");
    let frame = |hand: &mut Hand| hand.core.timers.set(Due::Frame(worker(1)), Time::ZERO);
    assert_eq!(broken(frame), "a frame timer is set against the record");
}

#[test]
fn of_the_order_of_service() {
    let credit = |hand: &mut Hand| hand.worker(1).window = 3;
    assert_eq!(broken(credit), "a worker is at a wrong place in the ready queue");
    let idle = |hand: &mut Hand| {
        hand.worker(1).window = 3;
        let index = hand.core.workers.position(worker(1)).unwrap();
        hand.core.ready_queue.enter(index, 2);
    };
    assert_eq!(broken(idle), "a connection waits although a worker is eligible");
    let turns = |hand: &mut Hand| hand.core.backlog.push_back(listener(1));
    assert_eq!(broken(turns), "a listener has two turns");
    let turn = |hand: &mut Hand| hand.core.backlog.clear();
    assert_eq!(broken(turn), "a listener's turn is missing or needless");
    let nobody = |hand: &mut Hand| hand.core.ready_queue.enter(2, 0);
    assert_eq!(broken(nobody), "the ready queue has no worker at an index");
}

#[test]
fn of_slots() {
    let waits = |hand: &mut Hand| hand.core.slots[0].state = SlotState::Waiting;
    assert_eq!(broken(waits), "a slot waits without a timer, or has one");
    let timer = |hand: &mut Hand| hand.core.timers.set(Due::Respawn(Slot(0)), Time::ZERO);
    assert_eq!(broken(timer), "a slot waits without a timer, or has one");
    let swapped = |hand: &mut Hand| hand.core.slots.swap(0, 1);
    assert_eq!(broken(swapped), "a worker is in another's slot");
}

#[test]
fn of_listeners() {
    let minted = |hand: &mut Hand| hand.core.next_listener = listener(1);
    assert_eq!(broken(minted), "a listener id was never minted");
    let record = |hand: &mut Hand| hand.core.listeners.get_mut(listener(1)).unwrap().clone();
    let change = |change: fn(&mut ListenerRecord)| {
        move |hand: &mut Hand| {
            let mut changed = record(hand);
            change(&mut changed);
            *hand.core.listeners.get_mut(listener(1)).unwrap() = changed;
        }
    };
    let closed = change(|record| record.state = state::ListenerState::Closing);
    assert_eq!(broken(closed), "a closed listener accepts");
    let shared = change(|record| record.shared = true);
    assert_eq!(broken(shared), "a shared listener is accepted from");
    assert_eq!(broken(|hand| hand.core.accept_paused = true), "accepting goes on under pressure");
    let stranger = change(|record| record.holders.extend([worker(9)]));
    assert_eq!(broken(stranger), "a holder does not share its listener");
    let nobody = change(|record| record.holders.clear());
    assert_eq!(broken(nobody), "a share is not held");
}

/// The same with a reload under way: the worker 3 is the new one of the first slot.
fn broken_reload(act: impl FnOnce(&mut Hand)) -> &'static str {
    broken(|hand| {
        hand.tell(Input::Reload { config: None });
        assert_eq!(hand.core.check(), Ok(()));
        act(hand);
    })
}

fn reload(hand: &mut Hand) -> &mut state::Reload {
    hand.core.reload.as_mut().unwrap()
}

#[test]
fn of_new_workers() {
    let serves = |hand: &mut Hand| hand.worker(3).serves = true;
    assert_eq!(broken_reload(serves), "a worker serves and should not, or does not and should");
    let holds = |hand: &mut Hand| {
        let in_flight = core::mem::take(&mut hand.worker(1).in_flight);
        hand.worker(3).in_flight = in_flight;
        hand.worker(3).window = 2;
        hand.worker(3).next_seq = hand.worker(1).next_seq;
    };
    assert_eq!(broken_reload(holds), "a new worker holds a connection");
    let lone = |hand: &mut Hand| hand.core.slots[0].successor = None;
    assert_eq!(broken_reload(lone), "a worker is held for no reload");
    let gone = |hand: &mut Hand| hand.core.slots[0].successor = Some(worker(9));
    assert_eq!(broken_reload(gone), "a new worker is gone");
    let other = |hand: &mut Hand| hand.worker(3).generation = 1;
    assert_eq!(broken_reload(other), "a new worker is not of its slot and generation");
    let batch = |hand: &mut Hand| reload(hand).batch.clear();
    assert_eq!(broken_reload(batch), "a slot has a new worker and is in no batch");
}

#[test]
fn of_reloads() {
    let twice = |hand: &mut Hand| reload(hand).slots.push_back(Slot(0));
    assert_eq!(broken_reload(twice), "a slot is replaced twice");
    let stop = |hand: &mut Hand| {
        let before = hand.core.reload.clone();
        hand.tell(Input::Command(Command::Stop));
        hand.core.reload = before;
    };
    assert_eq!(broken_reload(stop), "a reload outlives the beginning of a shutdown");
    let waits = |hand: &mut Hand| reload(hand).binding.extend([listener(1)]);
    assert_eq!(broken_reload(waits), "a reload waits for a listener that is there");
    let asked = |hand: &mut Hand| hand.core.last_generation = 1;
    assert_eq!(broken_reload(asked), "a generation was never asked for");
    let none = |hand: &mut Hand| drop(hand.core.operator.remove(&1));
    assert_eq!(broken_reload(none), "a generation has no listeners");
    let lost = |hand: &mut Hand| {
        hand.core.listeners.get_mut(listener(1)).unwrap().operator ^= true;
    };
    assert_eq!(broken_reload(lost), "a listener of the operator's is of no generation");
    let recycled = |hand: &mut Hand| hand.core.recycle.extend([worker(1), worker(1)]);
    assert_eq!(broken_reload(recycled), "a worker is recycled twice");
    let nobody = |hand: &mut Hand| hand.core.recycle.push_back(worker(99));
    assert_eq!(broken_reload(nobody), "nobody is recycled");
}

#[test]
fn of_numbers_and_pauses() {
    assert_eq!(broken(|hand| hand.core.wanted = 1), "there are more or fewer slots than wanted");
    let retry = |hand: &mut Hand| hand.core.timers.set(Due::Retry(Slot(0)), Time::ZERO);
    assert_eq!(broken(retry), "a slot is tried again that was not given up");
    let paused = |hand: &mut Hand| {
        hand.tell(Input::Command(Command::Pause));
        hand.core.listeners.get_mut(listener(1)).unwrap().accepting = true;
    };
    assert_eq!(broken(paused), "accepting goes on during a pause");
}
