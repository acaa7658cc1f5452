//! How many connections wait, and what happens at the limits.

use super::*;
use crate::Overflow;

fn accepts(hand: &Hand) -> bool {
    hand.core.listeners().all(|listener| listener.accepting)
}

#[test]
fn a_full_queue_stops_accepting_until_it_is_half_empty() {
    let mut hand = Hand::serving(Config::builder().max_pending(4));
    for conn in 1..=4 {
        hand.incoming(conn);
        assert!(accepts(&hand), "{conn}");
    }
    assert_eq!(events(&hand.incoming(5)), ["accept_paused"]);
    assert_eq!(events(&hand.incoming(6)), [""; 0], "what was accepted before waits too");
    assert_eq!((hand.core.in_flight(), hand.core.pending()), (1, 5));
    for (ack, left) in [(1, 4), (2, 3)] {
        assert_eq!(events(&hand.ack(1, ack, true)), [""; 0]);
        assert_eq!(hand.core.pending(), left);
    }
    assert_eq!(events(&hand.ack(1, 3, true)), ["accept_resumed"]);
    assert_eq!(events(&hand.ack(1, 4, true)), [""; 0]);
}

#[test]
fn a_full_queue_refuses_with_overflow_refuse() {
    let mut hand = Hand::serving(Config::builder().max_pending(1).overflow(Overflow::Refuse));
    hand.incoming(1);
    hand.incoming(2);
    let end = ConnEnd::Refused(Refusal::Overflow);
    assert_eq!(hand.incoming(3), [Output::Release { conn: conn_id(3), end }]);
    assert!(accepts(&hand));
    assert_eq!(hand.core.totals().refused, 1);
}

#[test]
fn many_that_are_held_stop_accepting_everywhere_until_an_eighth_is_free() {
    let mut hand = Hand::serving(Config::builder().max_held(16).window(2));
    for conn in 1..=15 {
        hand.incoming(conn);
        assert!(accepts(&hand), "{conn}");
    }
    assert_eq!(events(&hand.incoming(16)), ["accept_paused"]);
    hand.incoming(17);
    for ack in 1..=2 {
        assert_eq!(events(&hand.ack(1, ack, true)), [""; 0]);
    }
    assert_eq!(events(&hand.ack(1, 3, true)), ["accept_resumed"]);
    assert_eq!(hand.core.pending() + hand.core.in_flight(), 14);
}

#[test]
fn connections_that_arrive_while_the_listener_closes_are_served() {
    let mut hand = Hand::serving(Config::builder());
    hand.incoming(1);
    let stop = hand.tell(Input::Command(Command::Stop));
    assert!(stop.contains(&Output::Unbind { listener: listener(1) }));
    assert_eq!(hand.incoming(2), []);
    hand.tell(Input::Unbound { listener: listener(1) });
    assert_eq!(handed(&hand.ack(1, 1, true)), 1);
    let accepted = hand.ack(1, 2, true);
    let end = ConnEnd::AcceptedBy(worker(1));
    assert_eq!(accepted[0], Output::Release { conn: conn_id(2), end });
}

#[test]
fn declines_are_counted() {
    let mut hand = Hand::serving(Config::builder());
    hand.incoming(1);
    for declines in 1..=2 {
        hand.ack(1, declines, false);
        assert_eq!(hand.core.totals().declined, declines);
        assert_eq!(hand.core.worker(worker(1)).unwrap().declined, declines);
        let again = hand.later(hand.core.config().cooldown_max());
        assert_eq!(handed(&again), 1, "nobody else is there");
    }
}

/// Delays that double don't overflow, and no deadline passes the end of time.
#[test]
fn spans_may_be_as_long_as_there_are() {
    let config = Config::builder()
        .listeners(vec![stream(Address::Any { port: 80 })])
        .cooldown(Duration::MAX)
        .cooldown_max(Duration::MAX)
        .respawn_delay(Duration::MAX)
        .respawn_delay_max(Duration::MAX)
        .drain_timeout(Duration::MAX);
    let mut hand = Hand::new(config.clone().build().unwrap()).unwrap();
    let [first] = hand.ready(1).unwrap()[..] else { panic!() };
    hand.arrive(hand.listeners()[0]).unwrap();
    let [handoff] = hand.handoffs()[..] else { panic!() };
    hand.answer(handoff, false).unwrap();
    assert_eq!(hand.handoffs(), [], "it cools down for ever");
    hand.die(first).unwrap();
    hand.pass(Duration::from_secs(1)).unwrap();
    assert_eq!(hand.ready(1).unwrap(), [], "its slot waits for ever");
    // Nor if resources for a start are lacking.
    let mut hand = Hand::new(config.build().unwrap()).unwrap();
    let cause = SpawnError::Other(Errno::EAGAIN);
    hand.input(Input::SpawnFailed { worker: worker(1), cause }).unwrap();
    hand.pass(Duration::from_secs(1)).unwrap();
    assert_eq!(hand.primary().poll_timeout().map(|it| it.at), Some(Time::from_nanos(u64::MAX)));
}
