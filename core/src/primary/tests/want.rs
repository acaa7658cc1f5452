//! What happens if descriptors, processes or memory are lacking.

use super::*;
use crate::{ExitStatus, Respawn};

const SECOND: Duration = Duration::from_secs(1);
const WANTS: [Errno; 4] = [Errno::EMFILE, Errno::ENFILE, Errno::EAGAIN, Errno::ENOMEM];

fn starting(config: ConfigBuilder) -> Hand {
    let mut hand = Hand::over(Primary::new(config.build().unwrap()), Time::ZERO);
    while hand.core.poll_output().is_some() {}
    hand
}

impl Hand {
    fn fails(&mut self, nth: u64, errno: Errno) -> Vec<Output> {
        let cause = SpawnError::Other(errno);
        self.tell(Input::SpawnFailed { worker: worker(nth), cause })
    }

    /// Waits until the next start is tried; returns how long that took.
    fn waits(&mut self) -> Duration {
        let due = self.core.poll_timeout().expect("a deadline").at;
        let span = due.since(self.at);
        assert_eq!(spawns(&self.later(span)), 1);
        span
    }
}

fn spawns(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Spawn { .. })).count()
}

fn closes(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Close { .. })).count()
}

#[test]
fn it_is_tried_again_for_ever_counts_for_nothing_and_is_told_once() {
    for respawn in [Respawn::Always, Respawn::OnFailure, Respawn::Never] {
        let mut hand = starting(Config::builder().respawn(respawn).restart_intensity(0));
        let mut spans = Vec::new();
        for (nth, errno) in (1..).zip(WANTS.into_iter().cycle().take(100)) {
            let told = events(&hand.fails(nth, errno));
            let news: &[&str] = if nth == 1 { &["spawn_failed"] } else { &[] };
            assert_eq!(told, news, "try {nth}");
            hand.core.check().unwrap();
            spans.push(hand.waits().as_millis());
        }
        assert_eq!(spans[..5], [100, 200, 400, 800, 1_000]);
        assert!(spans[5..].iter().all(|&span| span == 1_000));
        hand.online(worker(101)).unwrap();
        let one = hand.core.workers().next().unwrap();
        assert_eq!((one.restarts, one.last_exit), (0, None));
    }
}

/// The next time, the delay begins anew.
#[test]
fn a_start_that_succeeds_or_fails_otherwise_ends_the_want() {
    let mut hand = starting(Config::builder());
    hand.fails(1, Errno::EMFILE);
    assert_eq!(hand.waits(), SECOND / 10);
    hand.fails(2, Errno::EMFILE);
    assert_eq!(hand.waits(), SECOND / 5);
    hand.online(worker(3)).unwrap();
    hand.tell(Input::ChannelClosed { worker: worker(3) });
    let status = ExitStatus::Code(1);
    assert!(
        events(&hand.tell(Input::Exited { worker: worker(3), status }))
            .contains(&"respawn_delayed")
    );
    hand.waits();
    let told = events(&hand.fails(4, Errno::EMFILE));
    assert_eq!(told, ["spawn_failed"]);
    assert_eq!(hand.waits(), SECOND / 10);
    // ENOEXEC, which is a fault of the program: it was tried for the third time.
    assert_eq!(events(&hand.fails(5, Errno(8))), ["spawn_failed", "respawn_delayed"]);
    hand.waits();
    assert_eq!(events(&hand.fails(6, Errno::EAGAIN)), ["spawn_failed"]);
    assert_eq!(hand.waits(), SECOND / 10);
    hand.online(worker(7)).unwrap();
    assert_eq!(hand.core.workers().next().unwrap().restarts, 2, "tries are no restarts");
}

/// Also if the operator wants short delays, or longer ones.
#[test]
fn it_waits_as_the_operator_says_and_at_most_a_second() {
    let spans = |first: Duration, most: Duration| -> [u128; 3] {
        let config = Config::builder().respawn_delay(first).respawn_delay_max(most);
        let mut hand = starting(config);
        [1, 2, 3].map(|nth| {
            hand.fails(nth, Errno::ENOMEM);
            hand.waits().as_millis()
        })
    };
    assert_eq!(spans(SECOND / 100, SECOND / 50), [10, 20, 20]);
    assert_eq!(spans(SECOND * 3, SECOND * 9), [3_000, 3_000, 3_000]);
}

#[test]
fn a_shutdown_waits_for_a_possible_worker_until_none_is_left() {
    let mut hand = Hand::serving(Config::builder());
    for input in [
        Input::ChannelClosed { worker: worker(1) },
        Input::Exited { worker: worker(1), status: ExitStatus::Signal(9) },
    ] {
        hand.tell(input);
    }
    hand.incoming(1);
    hand.later(SECOND / 10);
    hand.tell(Input::Command(Command::Stop));
    hand.fails(2, Errno::EMFILE);
    hand.waits();
    hand.fails(3, Errno::EMFILE);
    hand.waits();
    // At half the time the workers are told to leave, and no more are started.
    assert_eq!(closes(&hand.later(15 * SECOND)), 1);
    assert_eq!(spawns(&hand.fails(4, Errno::EMFILE)), 0);
    let outputs = hand.tell(Input::Unbound { listener: listener(1) });
    assert!(matches!(outputs.last(), Some(Output::Stopped(Verdict::Stopped))), "{outputs:?}");
    hand.core.check().unwrap();
}

#[test]
fn a_start_that_starves_after_the_end_was_wanted_is_not_tried_again() {
    let mut hand = starting(Config::builder());
    hand.tell(Input::Command(Command::StopNow));
    let outputs = hand.fails(1, Errno::EMFILE);
    assert!(matches!(outputs.last(), Some(Output::Stopped(_))), "{outputs:?}");
    assert_eq!(hand.core.poll_timeout(), None);
}

/// One listener is being emptied, one is still being bound, and one has not begun to be bound.
#[test]
fn at_the_deadline_listeners_are_closed_as_they_are() {
    let mut hand = Hand::serving(Config::builder());
    hand.ask(1, &stream(ip("127.0.0.1:81")));
    hand.incoming(1);
    let outputs = hand.tell(Input::Command(Command::Stop));
    let unbinds = outputs.iter().filter(|output| matches!(output, Output::Unbind { .. })).count();
    assert_eq!((unbinds, closes(&outputs)), (1, 0));
    // No answer has come that it was emptied.
    let outputs = hand.tell(Input::Command(Command::StopNow));
    assert_eq!(closes(&outputs), 1);
    // The same by the clock.
    let outputs = hand.bound(2, &name("127.0.0.1:81"));
    assert_eq!(closes(&outputs), 1, "{outputs:?}");
    for nth in [1, 2] {
        hand.tell(Input::Unbound { listener: listener(nth) });
    }
    hand.tell(Input::ChannelClosed { worker: worker(1) });
    let outputs = hand.tell(Input::Exited { worker: worker(1), status: ExitStatus::Signal(9) });
    assert!(matches!(outputs.last(), Some(Output::Stopped(_))), "{outputs:?}");
    let mut at_once = Hand::serving(Config::builder());
    let outputs = at_once.tell(Input::Command(Command::StopNow));
    assert_eq!(closes(&outputs), 1);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Unbind { .. })));
}

#[test]
fn listeners_that_workers_asked_for_take_the_place_of_connections() {
    let mut hand = Hand::serving(Config::builder().max_held(4).window(8));
    assert!(!hand.core.is_full());
    hand.incoming(1);
    hand.incoming(2);
    assert!(!hand.core.is_full());
    for nth in [2, 3] {
        hand.ask(1, &stream(ip(&alloc::format!("127.0.0.1:{nth}"))));
        hand.core.check().unwrap();
    }
    // Four descriptors, of which two are listeners'.
    assert!(hand.core.is_full());
    hand.tell(Input::Bound { listener: listener(2), result: Err(Errno::EADDRINUSE) });
    assert!(!hand.core.is_full());
    hand.ask(1, &stream(ip("127.0.0.1:2")));
    assert!(hand.core.is_full());
    hand.ack(1, 1, true);
    assert!(!hand.core.is_full());
    // However many listeners there are, one connection may be held.
    for nth in 4..20 {
        hand.ask(1, &stream(ip(&alloc::format!("127.0.0.1:{nth}"))));
    }
    assert!(hand.core.is_full());
    hand.ack(1, 2, true);
    assert!(!hand.core.is_full());
    hand.core.check().unwrap();
}
