//! Reloads, by hand.

use super::*;
use crate::{ExitClass, Signal};
use crate::{ReloadFailure, Slot};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn config(workers: u32) -> ConfigBuilder {
    Config::builder().workers(workers).drain_settle(Duration::ZERO)
}

pub(super) fn reload(hand: &mut Hand) -> Vec<Output> {
    hand.tell(Input::Reload { config: None })
}

/// The workers that are to be started.
pub(super) fn spawns(outputs: &[Output]) -> Vec<(u32, u32)> {
    let spawn = |output: &Output| {
        let Output::Spawn { slot, generation, .. } = output else { return None };
        Some((slot.0, *generation))
    };
    outputs.iter().filter_map(spawn).collect()
}

/// The workers that are told to leave.
pub(super) fn drained(outputs: &[Output]) -> Vec<WorkerId> {
    let drain = |output: &Output| {
        let Output::Send { worker, msg: ToWorker::Drain { .. }, .. } = output else { return None };
        Some(*worker)
    };
    outputs.iter().filter_map(drain).collect()
}

pub(super) fn failure(outputs: &[Output]) -> Option<ReloadFailure> {
    outputs.iter().find_map(|output| {
        let Output::Event(Event::ReloadFailed { failure, .. }) = output else { return None };
        Some(failure.clone())
    })
}

/// Lets a worker come online and listen.
pub(super) fn comes(hand: &mut Hand, nth: u64) -> Vec<Output> {
    hand.online(worker(nth)).unwrap();
    hand.listens(nth, &stream(Address::Any { port: 80 }));
    hand.outputs()
}

pub(super) fn ends(hand: &mut Hand, nth: u64, code: i32) -> Vec<Output> {
    hand.outputs();
    hand.input(Input::ChannelClosed { worker: worker(nth) }).unwrap();
    hand.input(Input::Exited { worker: worker(nth), status: ExitStatus::Code(code) }).unwrap();
    hand.outputs()
}

#[test]
fn slots_are_replaced_one_after_the_other() {
    let mut hand = Hand::serving(config(2));
    let outputs = reload(&mut hand);
    assert_eq!(spawns(&outputs), [(0, 2)]);
    comes(&mut hand, 3);
    assert!(hand.later(SECOND / 2).is_empty(), "it is held for a second");
    let outputs = hand.later(SECOND / 2);
    assert_eq!(drained(&outputs), [worker(1)]);
    assert_eq!(spawns(&outputs), [(1, 2)], "the next batch begins at once");
    comes(&mut hand, 4);
    let outputs = hand.later(SECOND);
    assert_eq!(drained(&outputs), [worker(2)]);
    assert!(events(&outputs).contains(&"reload_done"));
    let record = hand.core.reloads().next().unwrap();
    assert_eq!((record.generation, &record.failure), (2, &None));
    assert!(record.ended.is_some());
    assert!(!hand.core.is_generation_needed(1) || hand.core.workers().any(|w| w.generation == 1));
}

#[test]
fn a_new_worker_gets_nothing_before_it_counts() {
    let mut hand = Hand::serving(config(1));
    reload(&mut hand);
    comes(&mut hand, 2);
    let handed_to = |outputs: &[Output]| {
        outputs.iter().find_map(|output| {
            let Output::Send { worker, msg: ToWorker::NewConn { .. }, .. } = output else {
                return None;
            };
            Some(*worker)
        })
    };
    assert_eq!(handed_to(&hand.incoming(1)), Some(worker(1)));
    assert_eq!(handed_to(&hand.incoming(2)), None, "the old one is at its window");
    let outputs = hand.later(SECOND);
    assert_eq!(handed_to(&outputs), Some(worker(2)), "what waited goes to it at once");
    hand.core.check().unwrap();
}

#[test]
fn a_new_worker_that_ends_fails_the_reload() {
    let mut hand = Hand::serving(config(2));
    reload(&mut hand);
    hand.online(worker(3)).unwrap();
    let outputs = ends(&mut hand, 3, 7);
    let status = Some(ExitStatus::Code(7));
    let (slot, class) = (Slot(0), ExitClass::Crashed);
    assert_eq!(failure(&outputs), Some(ReloadFailure::Ended { slot, status, class }));
    assert!(drained(&outputs).is_empty() && spawns(&outputs).is_empty());
    // It never was the slot's worker.
    assert!(hand.core.workers().all(|worker| worker.last_exit.is_none()));
    // The old ones serve, and the next reload is not hindered.
    assert_eq!(handed(&hand.incoming(1)), 1);
    assert_eq!(spawns(&reload(&mut hand)), [(0, 3)]);
}

#[test]
fn a_new_worker_that_ends_within_its_hold_fails_the_reload() {
    let mut hand = Hand::serving(config(1));
    reload(&mut hand);
    comes(&mut hand, 2);
    hand.later(SECOND / 2);
    let outputs = ends(&mut hand, 2, 1);
    assert!(matches!(failure(&outputs), Some(ReloadFailure::Ended { .. })));
    assert!(hand.later(SECOND).is_empty());
}

#[test]
fn a_slow_new_worker_fails_the_reload_at_the_ready_timeout() {
    let mut hand = Hand::serving(config(1).ready_timeout(Some(5 * SECOND)));
    reload(&mut hand);
    hand.online(worker(2)).unwrap();
    let outputs = hand.later(5 * SECOND);
    let missing = Some(Address::Any { port: 80 });
    let slot = Slot(0);
    match failure(&outputs) {
        Some(ReloadFailure::NotReady { slot: at, missing: Some(_) }) => assert_eq!(at, slot),
        other => panic!("{other:?}, not {missing:?}"),
    }
    assert_eq!(drained(&outputs), [worker(2)], "the new one is ended");
}

#[test]
fn a_batch_counts_as_a_whole_or_not_at_all() {
    let mut hand = Hand::serving(config(3).reload_batch(2));
    assert_eq!(spawns(&reload(&mut hand)), [(0, 2), (1, 2)]);
    comes(&mut hand, 4);
    assert!(hand.later(2 * SECOND).is_empty(), "the other one is not ready");
    hand.online(worker(5)).unwrap();
    let outputs = ends(&mut hand, 5, 1);
    assert!(failure(&outputs).is_some());
    assert_eq!(drained(&outputs), [worker(4)], "its batch fails with it");
    let old = hand.core.workers().filter(|w| w.generation == 1 && w.life == Life::Ready);
    assert_eq!(old.count(), 3);
}

#[test]
fn a_death_during_a_reload_is_followed_by_the_generation_of_its_slot() {
    let mut hand = Hand::serving(config(2));
    reload(&mut hand);
    comes(&mut hand, 3);
    hand.incoming(1);
    hand.ack(1, 1, true);
    hand.incoming(2);
    hand.ack(2, 1, true);
    hand.later(2 * SECOND);
    comes(&mut hand, 4);
    // Slot 0 has passed, slot 1 has not.
    hand.incoming(3);
    hand.ack(3, 1, true);
    assert_eq!(spawns(&ends(&mut hand, 3, 1)), [(0, 2)]);
    assert_eq!(spawns(&ends(&mut hand, 2, 1)), [(1, 1)]);
}

#[test]
fn a_listener_that_the_new_worker_lacks_keeps_the_old_one() {
    let mut hand = Hand::serving(config(1).ready_timeout(Some(3 * SECOND)));
    hand.listens_anew(1, &stream(ip("10.0.0.1:81")), "10.0.0.1:81");
    reload(&mut hand);
    comes(&mut hand, 2);
    let outputs = hand.later(3 * SECOND);
    let missing = Some(ip("10.0.0.1:81"));
    assert_eq!(failure(&outputs), Some(ReloadFailure::NotReady { slot: Slot(0), missing }));
}

#[test]
fn min_ready_below_the_number_wanted_ends_an_old_worker_first() {
    let mut hand = Hand::serving(config(2).min_ready(Some(1)));
    let outputs = reload(&mut hand);
    assert_eq!((drained(&outputs), spawns(&outputs)), (vec![worker(1)], vec![]));
    let outputs = ends(&mut hand, 1, 0);
    assert_eq!(spawns(&outputs), [(0, 2)], "only now does the new one start");
    comes(&mut hand, 3);
    assert_eq!(drained(&hand.later(SECOND)), [worker(2)]);
}

#[test]
fn a_stop_ends_a_reload_and_kills_what_was_not_ready() {
    let mut hand = Hand::serving(config(1));
    reload(&mut hand);
    hand.online(worker(2)).unwrap();
    let outputs = hand.tell(Input::Command(Command::Stop));
    assert_eq!(failure(&outputs), Some(ReloadFailure::Stopped));
    let kill = Output::Kill { worker: worker(2), signal: Signal::Kill };
    assert!(outputs.contains(&kill));
}

/// Until a stop closes the listeners, it serves.
#[test]
fn a_stop_leaves_no_slot_empty_whose_worker_was_ended_first() {
    let begun = || {
        let mut hand = Hand::serving(config(1).min_ready(Some(0)).shutdown_delay(SECOND));
        assert_eq!(drained(&reload(&mut hand)), [worker(1)]);
        hand
    };
    // The old one is still leaving.
    let mut hand = begun();
    let outputs = hand.tell(Input::Command(Command::Stop));
    assert_eq!(spawns(&outputs), [(0, 1)], "of the generation that served");
    comes(&mut hand, 2);
    assert_eq!(handed(&hand.incoming(1)), 1);
    // The new one is not ready yet.
    let mut hand = begun();
    assert_eq!(spawns(&ends(&mut hand, 1, 0)), [(0, 2)]);
    assert!(spawns(&hand.tell(Input::Command(Command::Stop))).is_empty());
    comes(&mut hand, 2);
    assert_eq!(handed(&hand.incoming(1)), 1);
    hand.core.check().unwrap();
}

#[test]
fn a_reload_waits_for_generations_that_are_too_many() {
    let mut hand = Hand::serving(config(1).max_generations(2));
    reload(&mut hand);
    comes(&mut hand, 2);
    assert_eq!(drained(&hand.later(SECOND)), [worker(1)]);
    assert!(spawns(&reload(&mut hand)).is_empty(), "the first one lives");
    let outputs = hand.later(2 * SECOND);
    assert!(outputs.contains(&Output::Kill { worker: worker(1), signal: Signal::Kill }));
    assert_eq!(spawns(&outputs), [(0, 3)], "one that the kernel keeps does not hold it up");
    hand.core.check().unwrap();
}

#[test]
fn a_reload_under_way_is_not_forgotten_however_many_come() {
    let mut hand = Hand::serving(config(1));
    reload(&mut hand);
    let passes = Config::builder().pass_listeners(true).build().unwrap();
    for _ in 0..20 {
        reload(&mut hand);
        hand.tell(Input::Reload { config: Some(passes.clone().into()) });
    }
    let reloads: Vec<_> = hand.core.reloads().collect();
    assert_eq!(reloads.len(), 10);
    let lives: Vec<u32> =
        reloads.iter().filter(|it| it.ended.is_none()).map(|it| it.generation).collect();
    assert_eq!(lives, [2, 41], "one is under way, one waits");
}

#[test]
fn reloads_that_wait_become_one() {
    let mut hand = Hand::serving(config(1));
    reload(&mut hand);
    assert!(spawns(&reload(&mut hand)).is_empty());
    let outputs = reload(&mut hand);
    assert_eq!(failure(&outputs), Some(ReloadFailure::Superseded));
    comes(&mut hand, 2);
    let outputs = hand.later(SECOND);
    assert_eq!(spawns(&outputs), [(0, 4)]);
}

#[test]
fn a_reload_waits_until_the_first_workers_have_had_their_time() {
    let key = stream(Address::Any { port: 80 });
    let mut hand = Hand::bound_at(config(1).listeners(vec![key.clone()]), &[name("[::]:80")]);
    assert!(spawns(&reload(&mut hand)).is_empty());
    hand.listens(1, &key);
    assert!(hand.core.workers().any(|worker| worker.generation == 2));
}

#[test]
fn a_new_configuration_opens_its_listeners_first_and_closes_the_dropped_ones_last() {
    let (old, new) = (stream(Address::Any { port: 80 }), stream(Address::Any { port: 81 }));
    let mut hand = Hand::serving(config(1));
    let changed = |keys| Some(Box::new(config(1).listeners(keys).build().unwrap()));
    let outputs = hand.tell(Input::Reload { config: changed(vec![new.clone()]) });
    assert!(matches!(outputs.last(), Some(Output::Bind { .. })), "{outputs:?}");
    let outputs = hand.bound(2, &name("[::]:81"));
    assert_eq!(spawns(&outputs), [(0, 2)]);
    hand.online(worker(2)).unwrap();
    hand.listens(2, &new);
    let outputs = hand.later(SECOND);
    assert_eq!(drained(&outputs), [worker(1)]);
    assert!(outputs.contains(&Output::Unbind { listener: listener(1) }));
    // A failed bind leaves everything as it was.
    let outputs = hand.tell(Input::Reload { config: changed(vec![old, new]) });
    assert_eq!(spawns(&outputs), []);
    hand.input(Input::Unbound { listener: listener(1) }).unwrap();
    let outputs = hand.tell(Input::Bound { listener: listener(3), result: Err(Errno::EADDRINUSE) });
    assert!(matches!(failure(&outputs), Some(ReloadFailure::CannotBind { .. })));
    assert_eq!(hand.core.config().listeners().len(), 1);
    hand.core.check().unwrap();
}

#[test]
fn a_changed_policy_is_refused_by_name() {
    let mut hand = Hand::serving(config(1));
    let config = Some(Box::new(config(1).policy(crate::Policy::Shared).build().unwrap()));
    let outputs = hand.tell(Input::Reload { config });
    let failure = failure(&outputs).unwrap();
    assert_eq!(alloc::format!("{failure}"), "policy can't change while the primary runs");
    assert!(spawns(&outputs).is_empty());
}

#[test]
fn scaling_waits_for_a_reload_and_ends_the_highest_slots() {
    let mut hand = Hand::serving(config(2));
    reload(&mut hand);
    assert!(hand.tell(Input::Command(Command::Scale(1))).is_empty());
    comes(&mut hand, 3);
    hand.later(SECOND);
    comes(&mut hand, 4);
    let outputs = hand.later(SECOND);
    assert_eq!(drained(&outputs), [worker(2), worker(4)]);
    let outputs = hand.tell(Input::Command(Command::Scale(3)));
    assert_eq!(spawns(&outputs), [(1, 2), (2, 2)]);
    hand.core.check().unwrap();
}

#[test]
fn a_worker_is_recycled_after_its_requests() {
    let requests = core::num::NonZeroU64::new(2);
    let mut hand = Hand::serving(config(1).max_requests(requests));
    hand.incoming(1);
    assert!(spawns(&hand.ack(1, 1, true)).is_empty());
    hand.incoming(2);
    let outputs = hand.ack(1, 2, true);
    assert_eq!(spawns(&outputs), [(0, 1)], "of the same generation");
    comes(&mut hand, 2);
    let outputs = hand.later(SECOND);
    assert_eq!(drained(&outputs), [worker(1)]);
    assert!(events(&outputs).contains(&"recycled"));
}

/// Their connections may last for long.
#[test]
fn workers_that_linger_hold_up_recycling_only_when_they_are_many() {
    let mut hand = Hand::serving(config(1).max_requests(core::num::NonZeroU64::new(1)));
    for nth in 1..=3 {
        hand.incoming(nth);
        assert_eq!(spawns(&hand.ack(nth, 1, true)), [(0, 1)]);
        comes(&mut hand, nth + 1);
        assert_eq!(drained(&hand.later(SECOND)), [worker(nth)]);
    }
    hand.incoming(4);
    assert!(spawns(&hand.ack(4, 1, true)).is_empty(), "three linger");
    assert_eq!(spawns(&ends(&mut hand, 2, 0)), [(0, 1)]);
}

/// New code that fails is not started again with each connection.
#[test]
fn a_worker_whose_successor_failed_is_left_alone_for_a_minute() {
    let requests = core::num::NonZeroU64::new(1);
    let mut hand = Hand::serving(config(1).max_requests(requests));
    hand.incoming(1);
    assert_eq!(spawns(&hand.ack(1, 1, true)), [(0, 1)]);
    assert!(events(&ends(&mut hand, 2, 1)).contains(&"recycle_failed"));
    for seq in 2..5 {
        hand.incoming(seq);
        assert!(spawns(&hand.ack(1, seq, true)).is_empty());
    }
    assert!(spawns(&hand.later(59 * SECOND)).is_empty());
    assert_eq!(spawns(&hand.later(SECOND)), [(0, 1)]);
    hand.core.check().unwrap();
}

#[test]
fn neither_is_one_that_has_grown_and_gets_old_meanwhile() {
    let bytes = core::num::NonZeroU64::new(100);
    let mut hand = Hand::serving(config(1).max_memory(bytes).max_age(Some(9 * SECOND)));
    let large = Input::Memory { worker: worker(1), bytes: 101 };
    hand.tell(large.clone());
    assert_eq!(spawns(&hand.tell(large)), [(0, 1)]);
    assert!(events(&ends(&mut hand, 2, 1)).contains(&"recycle_failed"));
    assert!(spawns(&hand.later(59 * SECOND)).is_empty());
    assert_eq!(spawns(&hand.later(SECOND)), [(0, 1)]);
}

#[test]
fn two_samples_of_too_much_memory_recycle_a_worker() {
    let mut hand = Hand::serving(config(1).max_memory(core::num::NonZeroU64::new(100)));
    let mut sample = |bytes| hand.tell(Input::Memory { worker: worker(1), bytes });
    assert!(sample(101).is_empty());
    assert!(sample(100).is_empty());
    assert!(sample(101).is_empty());
    assert_eq!(spawns(&sample(101)), [(0, 1)]);
}

#[test]
fn a_worker_that_misses_two_heartbeats_is_killed() {
    let mut hand = Hand::serving(config(1).heartbeat(Some(SECOND)));
    hand.later(SECOND);
    hand.later(SECOND);
    let outputs = hand.later(SECOND);
    assert!(outputs.contains(&Output::Kill { worker: worker(1), signal: Signal::Kill }));
}

#[test]
fn nothing_is_handed_out_during_a_pause() {
    let mut hand = Hand::serving(config(1));
    let outputs = hand.tell(Input::Command(Command::Pause));
    assert!(outputs.contains(&Output::PauseAccept { listener: listener(1) }));
    assert_eq!(handed(&hand.incoming(1)), 0);
    hand.core.check().unwrap();
    let outputs = hand.tell(Input::Command(Command::Resume));
    assert_eq!(handed(&outputs), 1);
    assert!(outputs.contains(&Output::ResumeAccept { listener: listener(1) }));
}

#[test]
fn a_shutdown_serves_on_for_its_delay() {
    let mut hand = Hand::serving(config(1).shutdown_delay(5 * SECOND));
    let outputs = hand.tell(Input::Command(Command::Stop));
    assert_eq!(events(&outputs), ["stopping"]);
    assert_eq!(handed(&hand.incoming(1)), 1);
    hand.ack(1, 1, true);
    let outputs = hand.later(5 * SECOND);
    assert!(outputs.contains(&Output::Unbind { listener: listener(1) }));
}
