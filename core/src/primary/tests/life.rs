//! Deadlines and ends.

use super::*;
use crate::timers::Due;
use crate::{DecodeError, ExitClass, Signal, Timer};

const SECOND: Duration = Duration::from_secs(1);

fn kills(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Kill { .. })).count()
}

fn violation(hand: &mut Hand, nth: u64) -> Vec<Output> {
    let what = Violation::Decode(DecodeError::BadMessage);
    hand.tell(Input::Violation { worker: worker(nth), what })
}

/// The first workers are started before the machine knows any time.
#[test]
fn a_worker_is_as_old_as_its_process() {
    let mut primary = Primary::new(Config::builder().build().unwrap());
    let started = Time::ZERO + 100 * SECOND;
    primary.handle_input(started, Input::Spawned { worker: worker(1), pid: 100 }).unwrap();
    let ages: Vec<Time> = primary.workers().map(|it| it.spawned_at).collect();
    assert_eq!(ages, [started]);
}

#[test]
fn a_frame_that_has_begun_has_its_time() {
    let mut hand = Hand::serving(Config::builder().frame_timeout(10 * SECOND));
    hand.tell(Input::FrameBegun { worker: worker(1) });
    let due = hand.core.poll_timeout().unwrap();
    assert!(matches!(due.timer, Timer::Frame), "{due:?}");
    // More bytes of the frame give it no more time.
    hand.later(9 * SECOND);
    hand.tell(Input::FrameBegun { worker: worker(1) });
    assert_eq!(hand.core.poll_timeout(), Some(due));
    let mut whole = hand.core.clone();
    let msg = FromWorker::Load { open: 1 };
    whole.handle_input(hand.at, Input::Message { worker: worker(1), msg }).unwrap();
    assert_ne!(whole.poll_timeout(), Some(due));
    let outputs = hand.later(SECOND);
    let violation = Some(Violation::FrameTimeout);
    let class = ExitClass::Violations;
    let killing = Event::Killing { worker: worker(1), class, violation };
    assert!(outputs.contains(&Output::Event(killing)), "{outputs:?}");
}

#[test]
fn a_worker_is_killed_once() {
    let mut hand = Hand::serving(Config::builder().workers(2));
    assert_eq!(kills(&violation(&mut hand, 1)), 1);
    assert_eq!(violation(&mut hand, 1), []);
    let status = ExitStatus::Code(0);
    hand.tell(Input::Exited { worker: worker(2), status });
    assert_eq!(violation(&mut hand, 2), [], "its process has ended");
}

#[test]
fn a_silent_worker_is_reported_once() {
    let config = Config::builder().silent_after(5 * SECOND).ready_timeout(None);
    let mut hand = Hand::over(Primary::new(config.build().unwrap()), Time::ZERO);
    hand.tell(Input::Spawned { worker: worker(1), pid: 100 });
    assert_eq!(events(&hand.later(5 * SECOND)), ["silent"]);
    assert_eq!(events(&hand.later(100 * SECOND)), [""; 0]);
}

#[test]
fn a_worker_that_does_not_listen_is_reported_once() {
    let mut hand = Hand::bound_at(Config::builder().ready_timeout(Some(7 * SECOND)), &[]);
    assert_eq!(events(&hand.later(7 * SECOND)), ["not_listening"]);
    assert_eq!(events(&hand.later(100 * SECOND)), [""; 0]);
}

/// The primary could not read what workers sent meanwhile.
#[test]
fn a_late_wake_gives_all_their_time_anew() {
    for (late, killed) in [(SECOND, true), (SECOND + Duration::from_nanos(1), false)] {
        let mut hand = Hand::serving(Config::builder().ack_timeout(Some(60 * SECOND)));
        hand.incoming(1);
        let outputs = hand.later(60 * SECOND + late);
        assert_eq!(events(&outputs).contains(&"killing"), killed, "{late:?}");
        if !killed {
            assert!(events(&hand.later(60 * SECOND)).contains(&"killing"));
        }
    }
}

#[test]
fn a_late_wake_gives_more_time_to_become_ready() {
    let key = stream(Address::Any { port: 1 });
    let mut hand = Hand::bound_at(Config::builder().ready_timeout(Some(7 * SECOND)), &[]);
    hand.ask(1, &key);
    hand.bound(1, &name("[::]:1"));
    assert_eq!(events(&hand.later(9 * SECOND)), [""; 0]);
    assert!(events(&hand.later(7 * SECOND)).contains(&"killing"));
}

#[test]
fn the_time_to_become_ready_runs_from_the_first_good_answer() {
    let keys = [1, 2].map(|port| stream(Address::Any { port }));
    let config = Config::builder().ready_timeout(Some(7 * SECOND));
    let mut hand = Hand::bound_at(config, &[]);
    hand.ask(1, &keys[0]);
    assert_eq!(events(&hand.later(8 * SECOND)), [""; 0], "it has no answer yet");
    hand.bound(1, &name("[::]:1"));
    hand.later(5 * SECOND);
    hand.ask(1, &keys[1]);
    hand.bound(2, &name("[::]:2"));
    assert_eq!(events(&hand.later(2 * SECOND)), ["killing"]);
    // A ready worker may ask for more.
    let mut hand = Hand::serving(Config::builder().ready_timeout(Some(7 * SECOND)));
    hand.ask(1, &keys[0]);
    hand.bound(2, &name("[::]:1"));
    assert!(!hand.core.timers.is_set(Due::Ready(worker(1))));
}

/// A program that consumes a queue, and whose metrics port others have, is not a service that
/// failed to start.
#[test]
fn an_error_that_was_answered_kills_nobody() {
    let keys = [1, 2].map(|port| stream(Address::Any { port }));
    let config = || Config::builder().ready_timeout(Some(7 * SECOND)).workers(1);
    let refused = Input::Bound { listener: listener(1), result: Err(Errno::EADDRINUSE) };
    let mut hand = Hand::bound_at(config(), &[]);
    hand.ask(1, &keys[0]);
    hand.tell(refused.clone());
    assert_eq!(events(&hand.later(100 * SECOND)), [""; 0]);
    let long = stream(Address::Unix("x".repeat(200)));
    assert_eq!(hand.ask(1, &long), Some(Err(Errno::EINVAL)));
    assert_eq!(events(&hand.later(100 * SECOND)), [""; 0]);

    // One of two was granted: the worker must listen on that one.
    let mut hand = Hand::bound_at(config(), &[]);
    hand.ask(1, &keys[0]);
    hand.ask(1, &keys[1]);
    hand.tell(refused);
    hand.later(6 * SECOND);
    hand.bound(2, &name("[::]:2"));
    assert_eq!(events(&hand.later(6 * SECOND)), [""; 0]);
    assert_eq!(events(&hand.later(SECOND)), ["killing"]);
}

#[test]
fn a_listener_that_was_given_back_need_not_be_listened_on() {
    let keys = [1, 2].map(|port| stream(Address::Any { port }));
    let mut hand = Hand::bound_at(Config::builder().ready_timeout(Some(7 * SECOND)), &[]);
    hand.ask(1, &keys[0]);
    hand.bound(1, &name("[::]:1"));
    hand.later(5 * SECOND);
    hand.ask(1, &keys[1]);
    hand.bound(2, &name("[::]:2"));
    hand.later(SECOND);
    hand.says(1, FromWorker::Close { listener: listener(1) });
    assert!(!events(&hand.later(6 * SECOND)).contains(&"killing"), "the other one is younger");
    hand.says(1, FromWorker::Close { listener: listener(2) });
    assert!(!events(&hand.later(100 * SECOND)).contains(&"killing"));
}

#[test]
fn a_killed_worker_is_not_drained() {
    let mut hand = Hand::serving(Config::builder().workers(2));
    violation(&mut hand, 1);
    hand.tell(Input::Command(Command::Stop));
    hand.tell(Input::Unbound { listener: listener(1) });
    assert!(hand.core.timers.is_set(Due::Drain(worker(2))));
    assert!(!hand.core.timers.is_set(Due::Drain(worker(1))));
    assert!(hand.worker(1).intent.is_killed());
}

#[test]
fn the_first_word_is_online() {
    let early = |passes: bool, msg: FromWorker| {
        let config = Config::builder().pass_listeners(passes).build().unwrap();
        let mut hand = Hand::over(Primary::new(config), Time::ZERO);
        hand.tell(Input::Spawned { worker: worker(1), pid: 100 });
        hand.tell(Input::Hello { worker: worker(1), codec: Codec::Node });
        kills(&hand.says(1, msg))
    };
    let suicide = || FromWorker::Suicide { seq: Seq::FIRST };
    assert_eq!(early(false, FromWorker::Ready), 1);
    assert_eq!(early(false, suicide()), 1);
    // A program without cluster has no such message.
    assert_eq!(early(true, FromWorker::Ready), 0);
    assert_eq!(early(true, suicide()), 0);
    assert_eq!(early(true, FromWorker::Close { listener: listener(1) }), 1);
}

#[test]
fn only_workers_that_can_answer_are_pinged() {
    let ping = |hand: &mut Hand| {
        let outputs = hand.tell(Input::Command(Command::Ping(worker(1))));
        let is_it =
            |output: &Output| matches!(output, Output::Send { msg: ToWorker::Ping { .. }, .. });
        outputs.iter().any(is_it)
    };
    let mut hand = Hand::serving(Config::builder());
    assert!(ping(&mut hand));
    hand.worker(1).kind = Some(state::WorkerKind::NodeCluster);
    assert!(!ping(&mut hand), "Node knows no such message");
    let mut hand = Hand::serving(Config::builder());
    hand.tell(Input::ChannelClosed { worker: worker(1) });
    assert!(!ping(&mut hand));
    let mut hand = Hand::serving(Config::builder());
    hand.tell(Input::Exited { worker: worker(1), status: ExitStatus::Code(0) });
    assert!(!ping(&mut hand));
}

#[test]
fn a_program_that_never_ran_ends_everything() {
    let errno = Errno(13);
    for (cause, verdict) in [
        (SpawnError::NotFound, Some(Verdict::ProgramMissing)),
        (SpawnError::NotExecutable(errno), Some(Verdict::NotExecutable { errno })),
        (SpawnError::Other(errno), None),
    ] {
        let fails = |workers| {
            let config = Config::builder().workers(workers);
            let mut hand = Hand::over(Primary::new(config.build().unwrap()), Time::ZERO);
            if workers > 1 {
                hand.online(worker(1)).unwrap();
            }
            let worker = worker(workers.into());
            let outputs = hand.tell(Input::SpawnFailed { worker, cause });
            let stops = outputs.iter().any(|output| matches!(output, Output::Stopped(_)));
            (outputs, stops)
        };
        let (outputs, stops) = fails(1);
        assert_eq!(stops, verdict.is_some(), "{cause:?}");
        assert!(verdict.is_none_or(|verdict| outputs.contains(&Output::Stopped(verdict))));
        assert!(!fails(2).1, "the other one runs");
    }
}

#[test]
fn the_worker_that_has_been_leaving_longest_is_killed_to_make_room() {
    let key = stream(Address::Any { port: 80 });
    let suicide = || FromWorker::Suicide { seq: Seq::FIRST };
    let mut hand = Hand::serving(Config::builder().workers(3));
    for (failing, next) in [(1, 4), (2, 5), (3, 6)] {
        hand.later(2 * SECOND);
        assert_eq!(kills(&hand.says(failing, suicide())), 0);
        hand.online(worker(next)).unwrap();
        hand.listens(next, &key);
    }
    hand.later(2 * SECOND);
    for (failing, oldest) in [(4, 1), (5, 2)] {
        let outputs = hand.says(failing, suicide());
        let killed = Output::Kill { worker: worker(oldest), signal: Signal::Kill };
        assert!(kills(&outputs) == 1 && outputs.contains(&killed), "{outputs:?}");
    }
    // Each end makes room for one.
    for oldest in [1, 2] {
        let status = ExitStatus::Signal(9);
        let outputs = hand.tell(Input::Exited { worker: worker(oldest), status });
        let starts = |output: &&Output| matches!(output, Output::Spawn { .. });
        assert_eq!(outputs.iter().filter(starts).count(), 1, "{outputs:?}");
    }
}

#[test]
fn a_sign_of_life_that_nobody_asked_for_is_a_stray() {
    let mut hand = Hand::serving(Config::builder().max_stray_acks(2));
    let pong = |hand: &mut Hand, seq: Seq| {
        let outputs = hand.says(1, FromWorker::Pong { ack: seq });
        let is_pong = |output: &Output| matches!(output, Output::Event(Event::Pong { .. }));
        (outputs.iter().any(is_pong), kills(&outputs))
    };
    let asked = |hand: &mut Hand| {
        let outputs = hand.tell(Input::Command(Command::Ping(worker(1))));
        let seq = outputs.iter().find_map(|output| {
            let Output::Send { msg: ToWorker::Ping { seq }, .. } = output else { return None };
            Some(*seq)
        });
        seq.unwrap()
    };
    let (first, second) = (asked(&mut hand), asked(&mut hand));
    assert_eq!(pong(&mut hand, second), (true, 0));
    assert_eq!(pong(&mut hand, first), (true, 0));
    // Each is answered once.
    assert_eq!(pong(&mut hand, first), (false, 0));
    assert_eq!(pong(&mut hand, second.following(2).last().unwrap()), (false, 0));
    assert_eq!(hand.core.totals().stray, 2);
    assert_eq!(pong(&mut hand, first), (false, 1));
    // Only the latest unanswered pings are remembered.
    let mut hand = Hand::serving(Config::builder());
    let oldest = asked(&mut hand);
    let latest = (0..100).map(|_| asked(&mut hand)).last().unwrap();
    assert_eq!(pong(&mut hand, oldest), (false, 0));
    assert_eq!(pong(&mut hand, latest), (true, 0));
}

#[test]
fn queries_that_fail_are_forgiven_in_time() {
    // How many kills so many queries for an address cause.
    let ask = |hand: &mut Hand, address: Address, count: u64| -> usize {
        let query = |seq| FromWorker::Query {
            seq: Seq::from_raw(seq).unwrap(),
            key: Box::new(ListenKey::stream(address.clone())),
            backlog: 0,
            data: Vec::new(),
        };
        (1..=count).map(|seq| kills(&hand.says(1, query(seq)))).sum()
    };
    let fail = |hand: &mut Hand, count| ask(hand, Address::Nth(99), count);
    // Port after port, and then one that is free.
    let mut hand = Hand::serving(Config::builder().workers(2));
    assert_eq!(fail(&mut hand, 1_000), 0);
    assert_eq!(hand.core.totals().stray, 1_000);
    hand.at += SECOND;
    assert_eq!(fail(&mut hand, 10), 0);
    assert_eq!(fail(&mut hand, 1), 1);
    // Each second for hours.
    let mut hand = Hand::serving(Config::builder());
    for _ in 0..10_000 {
        hand.at += SECOND;
        assert_eq!(fail(&mut hand, 5), 0);
    }
    // A cluster that stops refuses all queries, which is no worker's fault.
    let mut hand = Hand::serving(Config::builder());
    hand.tell(Input::Command(Command::Stop));
    assert_eq!(ask(&mut hand, ip("127.0.0.1:81"), 5_000), 0);
}
