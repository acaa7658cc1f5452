//! The stall detector.

use super::*;
use crate::STALLED_AFTER;
use crate::primary::state::Pending;

const HALF: Duration = Duration::from_millis(125);

impl Hand {
    fn look(&mut self, waiting: bool) -> Vec<Output> {
        self.tell(Input::Queue { listener: listener(1), waiting })
    }
}

fn stalled(pending: u32) -> Output {
    Output::Event(Event::Stalled { listener: listener(1), worker: worker(1), pending })
}

#[test]
fn a_queue_that_nobody_accepts_from_beside_an_idle_worker_is_told_once() {
    let mut hand = Hand::serving(Config::builder());
    assert_eq!(hand.look(true), []);
    hand.later(HALF);
    assert_eq!(hand.look(true), [], "it may have come a moment ago");
    hand.later(HALF);
    assert_eq!(hand.look(true), [stalled(0)]);
    hand.later(STALLED_AFTER);
    assert_eq!(hand.look(true), [], "once");
    assert_eq!(hand.core.totals().stalled, 1);
    assert_eq!(hand.core.suspects(), [listener(1)]);
    assert_eq!(hand.look(false), []);
    assert_eq!(hand.core.suspects(), []);
    hand.look(true);
    hand.later(STALLED_AFTER);
    assert_eq!(hand.look(true), [stalled(0)], "the next one is told again");
}

#[test]
fn busy_workers_and_listeners_that_nobody_is_to_accept_from_are_no_stall() {
    let mut hand = Hand::serving(Config::builder().window(2));
    hand.incoming(1);
    for _ in 0..4 {
        hand.later(STALLED_AFTER);
        assert_eq!(hand.look(true), [], "the worker has one in flight");
    }
    hand.ack(1, 1, true);
    hand.look(true);
    hand.later(STALLED_AFTER);
    hand.incoming(2);
    assert_eq!(hand.look(true), [], "it was busy when the time was over");
    hand.ack(1, 2, false);
    for _ in 0..2 {
        assert_eq!(hand.look(true), [], "it declines");
        hand.at += Duration::from_millis(1);
    }
    let mut paused = Hand::serving(Config::builder().max_held(1));
    paused.incoming(1);
    paused.says(1, FromWorker::Close { listener: listener(1) });
    paused.look(true);
    paused.later(STALLED_AFTER);
    assert_eq!(paused.look(true), [], "accepting is paused, and nobody shares it");
}

#[test]
fn shared_listeners_and_unknown_ones_are_nobody_s_business() {
    let mut hand = Hand::serving(Config::builder().policy(crate::Policy::Shared));
    for _ in 0..3 {
        hand.later(STALLED_AFTER);
        assert_eq!(hand.look(true), []);
        assert_eq!(hand.tell(Input::Queue { listener: listener(7), waiting: true }), []);
    }
}

/// Makes the core do what it never does: leave a connection pending beside an idle worker.
#[test]
fn a_pending_connection_beside_an_idle_worker_is_told() {
    let mut hand = Hand::serving(Config::builder());
    let enqueue = |hand: &mut Hand, conn| {
        let record = hand.core.listeners.get_mut(listener(1)).unwrap();
        record.enqueue(Pending { conn: conn_id(conn), attempts: 0 });
        hand.core.pending += 1;
    };
    enqueue(&mut hand, 2);
    assert_eq!(hand.core.suspects(), [listener(1)]);
    assert_eq!(hand.look(false), []);
    hand.later(HALF);
    // Another one is first now: the queue moves.
    enqueue(&mut hand, 1);
    assert_eq!(hand.look(false), []);
    hand.later(HALF);
    assert_eq!(hand.look(false), []);
    hand.later(HALF);
    assert_eq!(hand.look(false), [stalled(2)]);
}
