//! Reloads, recycling and heartbeats: what simulated runs found.

use super::reload::{SECOND, comes, config, drained, ends, failure, reload, spawns};
use super::*;
use crate::{ReloadFailure, Signal, Slot};

fn changed(config: ConfigBuilder) -> Input {
    Input::Reload { config: Some(Box::new(config.build().unwrap())) }
}

fn any(port: u16) -> ListenKey {
    stream(Address::Any { port })
}

/// Has a worker replaced, for its memory.
fn recycle(hand: &mut Hand, nth: u64) -> Vec<Output> {
    hand.tell(Input::Memory { worker: worker(nth), bytes: 101 });
    hand.tell(Input::Memory { worker: worker(nth), bytes: 101 })
}

fn with_memory(config: ConfigBuilder) -> ConfigBuilder {
    config.max_memory(core::num::NonZeroU64::new(100))
}

#[test]
fn a_recycled_worker_that_is_gone_has_its_own_slot() {
    let mut hand = Hand::serving(with_memory(config(2)).min_ready(Some(1)));
    assert_eq!(drained(&recycle(&mut hand, 2)), [worker(2)]);
    assert_eq!(spawns(&ends(&mut hand, 2, 0)), [(1, 1)]);
    comes(&mut hand, 3);
    let outputs = hand.later(SECOND);
    let event = Event::Recycled { worker: worker(2), slot: Slot(1) };
    assert!(outputs.contains(&Output::Event(event)));
}

#[test]
fn a_worker_that_dies_while_it_is_recycled_holds_nothing_up() {
    let mut hand = Hand::serving(with_memory(config(2)));
    assert_eq!(spawns(&recycle(&mut hand, 1)), [(0, 1)]);
    hand.incoming(1);
    hand.ack(1, 1, true);
    let outputs = ends(&mut hand, 1, 1);
    assert_eq!(spawns(&outputs), [(0, 1)], "its slot goes on by itself");
    assert!(events(&outputs).contains(&"recycled"));
    // The one that was to follow is not ready, so a reload need not wait for it either.
    assert!(events(&reload(&mut hand)).contains(&"reload_started"));
}

#[test]
fn a_new_worker_that_serves_nobody_takes_nobodys_place() {
    let mut hand = Hand::serving(config(1).ready_timeout(Some(3 * SECOND)));
    reload(&mut hand);
    hand.online(worker(2)).unwrap();
    hand.says(1, FromWorker::Close { listener: listener(1) });
    assert_eq!(failure(&hand.later(SECOND)), None);
    assert_eq!(failure(&hand.later(SECOND)), None);
    assert_eq!(failure(&hand.later(SECOND)), Some(ReloadFailure::TooFewReady));
}

#[test]
fn the_new_worker_of_an_empty_slot_must_listen_as_the_last_one_did() {
    let mut hand = Hand::serving(config(2));
    // Nobody is in the slot for a moment.
    assert!(events(&ends(&mut hand, 1, 1)).contains(&"respawn_delayed"));
    assert_eq!(spawns(&reload(&mut hand)), [(0, 2)]);
    hand.online(worker(3)).unwrap();
    assert!(!events(&hand.later(2 * SECOND)).contains(&"reload_progress"));
}

#[test]
fn the_operators_pings_are_no_heartbeats() {
    let mut hand = Hand::serving(config(1).heartbeat(Some(SECOND)));
    for _ in 0..3 {
        hand.tell(Input::Command(Command::Ping(worker(1))));
    }
    let kill = Output::Kill { worker: worker(1), signal: Signal::Kill };
    assert!(!hand.later(SECOND).contains(&kill));
    assert!(!hand.later(SECOND).contains(&kill));
    assert!(hand.later(SECOND).contains(&kill));
}

#[test]
fn a_changed_ack_timeout_holds_for_what_is_in_flight() {
    let own = |seconds| config(1).ack_timeout(Some(seconds * SECOND));
    let kill = Output::Kill { worker: worker(1), signal: Signal::Kill };
    let mut hand = Hand::serving(own(60));
    hand.incoming(1);
    hand.tell(changed(own(2).listeners(vec![any(80)])));
    assert!(hand.later(2 * SECOND).contains(&kill));
    // A reminder that was set for a longer timeout does not put off a shorter one.
    let mut hand = Hand::serving(own(2));
    hand.tell(changed(own(60).listeners(vec![any(80)])));
    hand.incoming(1);
    hand.ack(1, 1, true);
    hand.online(worker(2)).unwrap();
    assert!(failure(&ends(&mut hand, 2, 1)).is_some());
    hand.incoming(2);
    assert!(hand.later(2 * SECOND).contains(&kill));
}

/// A reload that drops a listener fails after its first slot.
fn half_reloaded() -> Hand {
    let mut hand = Hand::bound_at(
        config(2).listeners(vec![any(80), any(81)]),
        &[name("[::]:80"), name("[::]:81")],
    );
    for nth in [1, 2] {
        hand.listens(nth, &any(80));
    }
    assert_eq!(spawns(&hand.tell(changed(config(2).listeners(vec![any(80)])))), [(0, 2)]);
    comes(&mut hand, 3);
    assert_eq!(spawns(&hand.later(SECOND)), [(1, 2)]);
    assert!(failure(&ends(&mut hand, 4, 1)).is_some());
    hand
}

#[test]
fn a_reload_that_fails_half_way_leaves_its_configuration_for_the_next_one() {
    let mut hand = half_reloaded();
    assert_eq!(hand.core.config().listeners().len(), 1);
    // Those that are new from now on are of it; its other slots are not.
    let outputs = hand.tell(Input::Command(Command::Scale(3)));
    assert_eq!(spawns(&outputs), [(2, 2)]);
    hand.core.check().unwrap();
}

#[test]
fn a_dropped_listener_ends_with_the_last_slot_that_has_it() {
    let mut hand = half_reloaded();
    let unbind = Output::Unbind { listener: listener(2) };
    // The slot that was not replaced has it.
    assert!(!hand.outputs().contains(&unbind));
    let mut outputs = hand.tell(Input::Command(Command::Scale(1)));
    outputs.extend(hand.outputs());
    assert!(outputs.contains(&unbind), "{outputs:?}");
    hand.core.check().unwrap();
}

#[test]
fn the_last_number_of_workers_stands() {
    let mut hand = Hand::serving(config(1));
    let number = |workers| changed(config(workers).listeners(vec![any(80)]));
    hand.tell(number(3));
    hand.tell(number(2));
    comes(&mut hand, 2);
    hand.later(SECOND);
    comes(&mut hand, 3);
    let outputs = hand.later(SECOND);
    assert!(outputs.contains(&Output::Event(Event::Scaled { from: 1, to: 2 })), "{outputs:?}");
    // The operator's own number is later than that of the reload under way.
    hand.tell(number(3));
    hand.tell(Input::Command(Command::Scale(2)));
    let new = |hand: &Hand| hand.core.slots.iter().find_map(|slot| slot.successor);
    while let Some(id) = new(&hand) {
        comes(&mut hand, id.get());
        hand.later(SECOND);
    }
    assert_eq!((hand.core.wanted(), hand.core.scaling_to()), (2, None));
}

#[test]
fn a_slot_that_is_tried_again_waits_as_at_first() {
    let only = config(2).restart_intensity(1).retry_delay(Some(3 * SECOND));
    let mut hand = Hand::serving(only.retry_delay_max(3 * SECOND));
    let delay = |outputs: &[Output]| {
        outputs.iter().find_map(|output| {
            let Output::Event(Event::RespawnDelayed { delay, .. }) = output else { return None };
            Some(*delay)
        })
    };
    let first = delay(&ends(&mut hand, 1, 1));
    assert!(first.is_some());
    assert_eq!(spawns(&hand.later(SECOND)), [(0, 1)]);
    assert!(events(&ends(&mut hand, 3, 1)).contains(&"given_up"));
    assert_eq!(spawns(&hand.later(3 * SECOND)), [(0, 1)]);
    assert_eq!(delay(&ends(&mut hand, 4, 1)), first);
}

#[test]
fn a_worker_that_failed_early_and_lives_on_is_not_replaced_beyond_the_budget() {
    let own = config(1).listeners(vec![any(80)]).pass_listeners(true).restart_intensity(0);
    let mut hand = Hand::over(Primary::new(own.build().unwrap()), Time::ZERO);
    hand.bound(1, &name("[::]:80"));
    hand.tell(Input::Spawned { worker: worker(1), pid: 7 });
    hand.tell(Input::Hello { worker: worker(1), codec: Codec::Node });
    hand.says(1, FromWorker::Online);
    hand.says(1, FromWorker::Listening { listener: listener(1) });
    assert!(spawns(&hand.says(1, FromWorker::Suicide { seq: Seq::FIRST })).is_empty());
    hand.tell(Input::ChannelClosed { worker: worker(1) });
    // It can't serve any more, and still has no successor.
    assert!(spawns(&hand.later(SECOND)).is_empty());
    let outputs = hand.tell(Input::Exited { worker: worker(1), status: ExitStatus::Code(1) });
    assert!(events(&outputs).contains(&"given_up"));
}

#[test]
fn the_primary_ends_if_only_slots_that_were_given_up_are_left() {
    let mut hand = Hand::serving(config(2).restart_intensity(0));
    assert!(events(&ends(&mut hand, 1, 1)).contains(&"given_up"));
    hand.later(60 * SECOND / 2);
    let outputs = hand.tell(Input::Command(Command::Scale(1)));
    assert!(events(&outputs).contains(&"stopping"));
}

#[test]
fn a_new_worker_that_never_counts_proves_nothing_of_its_slot() {
    let own = config(1).ready_timeout(None).restart_period(2 * SECOND).restart_intensity(9);
    let mut hand = Hand::serving(own);
    // The first one fails early, so the next one would wait longer.
    ends(&mut hand, 1, 1);
    hand.later(SECOND);
    comes(&mut hand, 2);
    hand.listens_anew(2, &stream(ip("10.0.0.1:81")), "10.0.0.1:81");
    let delay = hand.core.slots[0].delay;
    // The new one lacks a listener, and is ready for a long time.
    reload(&mut hand);
    comes(&mut hand, 3);
    hand.later(SECOND * 3 / 2);
    hand.worker(3).ready_at = Some(Time::ZERO);
    ends(&mut hand, 3, 1);
    assert_eq!(hand.core.slots[0].delay, delay);
}

#[test]
fn a_new_worker_that_waited_for_long_is_recycled_in_time() {
    let mut hand = Hand::serving(config(1).ready_timeout(None).max_age(Some(3 * SECOND)));
    hand.listens_anew(1, &stream(ip("10.0.0.1:81")), "10.0.0.1:81");
    reload(&mut hand);
    comes(&mut hand, 2);
    (0..4).for_each(|_| drop(hand.later(SECOND)));
    hand.says(1, FromWorker::Close { listener: listener(2) });
    assert!(events(&hand.later(SECOND)).contains(&"reload_done"));
    ends(&mut hand, 1, 0);
    (0..2).for_each(|_| drop(hand.later(SECOND)));
    assert!(events(&hand.later(SECOND)).contains(&"recycling"));
}
