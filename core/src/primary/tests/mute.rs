//! Programs that know no channel.

use super::*;
use crate::{ExitClass, Life, Policy, Signal};

const SECOND: Duration = Duration::from_secs(1);

/// A primary with a listener of the operator's and one worker that was just started.
fn hand(listen_fds: bool) -> Hand {
    let at = Address::Ip("127.0.0.1:80".parse().unwrap());
    let config = Config::builder()
        .policy(Policy::Shared)
        .listen_fds(listen_fds)
        .listeners(vec![ListenKey::stream(at)])
        .drain_timeout(10 * SECOND);
    let mut hand = Hand::over(Primary::new(config.build().unwrap()), Time::ZERO);
    let listener = ListenerId::from_raw(1).unwrap();
    let sockname = SockName::Ip("127.0.0.1:80".parse().unwrap());
    hand.tell(Input::Bound { listener, result: Ok(sockname) });
    hand.tell(Input::Spawned { worker: worker(1), pid: 100 });
    hand
}

fn life(hand: &Hand) -> Option<Life> {
    hand.core.worker(worker(1)).map(|worker| worker.life)
}

#[test]
fn a_worker_that_says_nothing_is_ready_after_a_second() {
    let mut silent = hand(true);
    assert_eq!(events(&silent.later(SECOND - Duration::from_nanos(1))), [""; 0]);
    assert_eq!(events(&silent.later(Duration::from_nanos(1))), ["ready"]);
    assert_eq!(events(&silent.later(100 * SECOND)), [""; 0], "not that its address is unused");
    silent.core.check().unwrap();
    let mut other = hand(false);
    assert_eq!(events(&other.later(SECOND)), [""; 0]);
    assert_eq!(life(&other), Some(Life::Starting));
}

#[test]
fn its_death_after_that_is_no_early_failure() {
    for (alive, early) in [(SECOND / 2, true), (3 * SECOND / 2, true), (2 * SECOND, false)] {
        let mut hand = hand(true);
        hand.later(alive.min(SECOND));
        hand.later(alive.saturating_sub(SECOND));
        let status = ExitStatus::Signal(9);
        let mut outputs = hand.tell(Input::ChannelClosed { worker: worker(1) });
        outputs.extend(hand.tell(Input::Exited { worker: worker(1), status }));
        let spawned = outputs.iter().any(|it| matches!(it, Output::Spawn { .. }));
        assert_eq!(events(&outputs).contains(&"respawn_delayed"), early, "{alive:?}");
        assert_eq!(spawned, !early, "{alive:?}");
        hand.core.check().unwrap();
    }
}

#[test]
fn it_may_close_the_channel_and_is_told_to_leave_by_a_signal() {
    for after in [SECOND / 2, 2 * SECOND] {
        let mut hand = hand(true);
        hand.later(after);
        hand.tell(Input::ChannelClosed { worker: worker(1) });
        hand.core.check().unwrap();
        hand.later(100 * SECOND);
        assert_eq!(life(&hand), Some(Life::Ready));
        let outputs = hand.tell(Input::Command(Command::Stop));
        let mut outputs =
            [outputs, hand.tell(Input::Unbound { listener: ListenerId::from_raw(1).unwrap() })]
                .concat();
        hand.core.check().unwrap();
        outputs.extend(hand.later(9 * SECOND));
        let kills = outputs.iter().filter(|it| matches!(it, Output::Kill { .. })).count();
        let term = Output::Kill { worker: worker(1), signal: Signal::Term };
        assert!(kills == 1 && outputs.contains(&term), "{outputs:?}");
        let status = ExitStatus::Code(0);
        let outputs = hand.tell(Input::Exited { worker: worker(1), status });
        assert!(outputs.contains(&Output::Stopped(Verdict::Stopped)), "{outputs:?}");
        let left =
            Event::Exited { worker: worker(1), slot: Slot(0), status, class: ExitClass::Voluntary };
        assert!(outputs.contains(&Output::Event(left)));
    }
}

#[test]
fn a_worker_that_speaks_late_was_only_slow() {
    let mut hand = hand(true);
    hand.later(2 * SECOND);
    hand.tell(Input::Hello { worker: worker(1), codec: Codec::Native });
    let outputs = hand.tell(Input::Message { worker: worker(1), msg: FromWorker::Online });
    assert_eq!(events(&outputs), ["online"]);
    hand.core.check().unwrap();
    // Only once.
    let outputs = hand.tell(Input::Message { worker: worker(1), msg: FromWorker::Online });
    assert!(events(&outputs).contains(&"killing"), "{outputs:?}");
}
