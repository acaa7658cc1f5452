//! A program does not sleep beside a connection, in whatever order it calls its worker.

use roundel_core::Codec;
use roundel_test_support::{Dealer, Dice};

use super::*;

const WORKER: Token = Token(7);

/// A program with an event loop that makes its calls in any order.
struct Program {
    dice: Dice,
    dealer: Dealer,
    worker: Worker,
    poll: Poll,
    events: Events,
    open: Vec<Listener>,
    /// The standing at its last check.
    standing: Standing,
    is_drained: bool,
    is_dismissed: bool,
}

impl Program {
    fn start(seed: u64, codec: Codec, listeners: usize) -> Program {
        let (dealer, driver) = Dealer::new(codec);
        let mut program = Program {
            dice: Dice::new(seed),
            dealer,
            worker: Worker::over(driver).unwrap(),
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(8),
            open: Vec::new(),
            standing: Standing::Serving,
            is_drained: false,
            is_dismissed: false,
        };
        // Before it is registered, in between, or after.
        let registered_after = program.dice.roll(listeners + 1);
        for n in 0..=listeners {
            if n == registered_after {
                let registry = program.poll.registry();
                registry.register(&mut program.worker, WORKER, Interest::READABLE).unwrap();
            }
            if n < listeners {
                program.listen();
            }
        }
        program
    }

    /// A program at rest, under a primary that need not be told how many connections are open: that
    /// would wake it too.
    fn at_rest(listeners: usize) -> Program {
        let mut program = Program::start(1, Codec::Node, listeners);
        while program.worker.try_accept_any(&program.open).is_ok() {}
        program.dealer.hear();
        while program.is_woken() {}
        program
    }

    /// Gets a listener granted, and perhaps connections handed over meanwhile.
    fn listen(&mut self) {
        let Program { dice, dealer, worker, .. } = self;
        let port = 10_000 + dice.roll(50_000);
        let listener = thread::scope(|scope| {
            scope.spawn(|| {
                let listeners = dealer.listeners.len();
                for _ in 0..if listeners == 0 { 0 } else { dice.roll(3) } {
                    dealer.deal(dice.roll(listeners));
                }
                dealer.grant();
            });
            worker.listen(&format!("127.0.0.1:{port}")).unwrap()
        });
        self.open.push(listener);
    }

    /// An action of the primary.
    fn meanwhile(&mut self) {
        let listeners = self.dealer.listeners.len();
        match self.dice.roll(16) {
            0..8 if listeners > 0 && self.dealer.in_flight() < 12 => {
                for _ in 0..=self.dice.roll(3) {
                    let nth = self.dice.roll(listeners);
                    self.dealer.deal(nth);
                }
            }
            8..12 => self.dealer.hear(),
            12 => self.dealer.clog(),
            13..16 => self.dealer.unclog(),
            _ => {}
        }
    }

    fn accept(&mut self, nth: usize) {
        match self.open[nth].try_accept() {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            Ok(connection) => drop(connection),
        }
    }

    fn look(&mut self) {
        (self.standing, self.is_drained) = (self.worker.standing(), self.worker.is_drained());
    }

    /// Makes any call at all.
    fn call(&mut self) {
        let (worker, open, dice) = (&mut self.worker, &mut self.open, &mut self.dice);
        match dice.roll(32) {
            0..8 => worker.turn(),
            8..14 if !open.is_empty() => {
                let nth = dice.roll(open.len());
                self.accept(nth);
            }
            14..18 => drop(worker.try_accept_any(open)),
            18..20 => drop(worker.try_accept_any(&open[..open.len() / 2])),
            20..23 if !open.is_empty() => {
                open[dice.roll(open.len())].try_decline();
            }
            23 => self.look(),
            25 => self.poll.registry().reregister(worker, WORKER, Interest::READABLE).unwrap(),
            26 if open.len() > 1 => drop(open.swap_remove(dice.roll(open.len()))),
            27 if open.len() < 4 && !self.is_dismissed => self.listen(),
            _ => {}
        }
    }

    fn is_woken(&mut self) -> bool {
        self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        self.events.iter().any(|event| event.token() == WORKER)
    }

    /// What the program does when it is woken: it asks each listener once, and checks its standing,
    /// sooner or later; and makes any other calls.
    fn wake(&mut self, is_quiet: bool) {
        let mut asks = self.open.len() + 1;
        let first = self.dice.roll(asks);
        while asks > 0 {
            if self.dice.roll(2) == 0 {
                asks -= 1;
                // A listener closed meanwhile need not be asked.
                match (first + asks) % (self.open.len() + 1) {
                    0 => self.look(),
                    nth => self.accept(nth - 1),
                }
            } else {
                self.call();
            }
            if !is_quiet && self.dice.roll(2) == 0 {
                self.meanwhile();
            }
        }
        for _ in 0..self.dice.roll(3) {
            self.call();
        }
    }

    /// Lets the program come to rest; then nothing is left.
    fn settle(&mut self, seed: u64) {
        self.dealer.unclog();
        let wakes_at_most = 100 + 10 * self.dealer.in_flight();
        let mut wakes = 0;
        while self.is_woken() {
            self.wake(true);
            wakes += 1;
            assert!(wakes < wakes_at_most, "seed {seed}: it is woken for nothing");
        }
        self.dealer.hear();
        let left = self.dealer.in_flight();
        assert_eq!(left, 0, "seed {seed}: it sleeps beside connections");
    }
}

/// Listeners that are closed and opened, calls in any order, a channel that is full at times.
fn any_order(codec: Codec) {
    for seed in 1..=150 {
        let listeners = 1 + seed as usize % 3;
        let mut program = Program::start(seed, codec, listeners);
        // Connections that came before it was registered.
        program.settle(seed);
        for _ in 0..4 {
            for _ in 0..30 {
                program.meanwhile();
                if program.is_woken() {
                    program.wake(false);
                }
            }
            program.settle(seed);
        }
        program.dealer.dismiss();
        program.is_dismissed = true;
        program.settle(seed);
        assert_ne!(program.standing, Standing::Serving, "seed {seed}: it does not know of its end");
        program.settle(seed);
        assert!(program.is_drained, "seed {seed}: it waits for more");
    }
}

#[test]
fn no_order_of_calls_loses_a_wake() {
    any_order(Codec::Native);
}

#[test]
fn nor_under_a_primary_of_node() {
    any_order(Codec::Node);
}

/// A listener that the program does not ask now, for example because it is busy.
#[test]
fn a_listener_that_is_not_asked_wakes_once_for_each_connection() {
    let mut program = Program::at_rest(2);
    for _ in 0..20 {
        program.dealer.deal(1);
        let mut wakes = 0;
        while program.is_woken() {
            program.accept(0);
            wakes += 1;
            assert!(wakes <= 2, "it spins");
        }
        assert!(wakes > 0);
    }
    // All of them are there when it asks.
    for _ in 0..20 {
        drop(program.open[1].try_accept().unwrap());
    }
    assert!(!program.is_woken());
}

#[test]
fn a_program_that_only_declines_need_not_do_anything_else() {
    let mut program = Program::at_rest(2);
    for n in 0..40 {
        for more in 0..=n % 4 {
            program.dealer.deal((n + more) % 2);
        }
        while program.is_woken() {
            for listener in &program.open {
                listener.try_decline();
            }
        }
        program.dealer.hear();
        assert_eq!(program.dealer.in_flight(), 0);
    }
}

/// The loop as documented is not woken for connections that it has taken.
#[test]
fn taken_connections_cause_no_wake() {
    for asks_each in [false, true] {
        let mut program = Program::at_rest(2);
        for n in 0..20 {
            program.dealer.deal(n % 2);
            program.dealer.deal(n % 3 % 2);
            assert!(program.is_woken());
            if asks_each {
                program.worker.turn();
                for listener in &program.open {
                    while listener.try_accept().is_ok() {}
                }
            } else {
                while program.worker.try_accept_any(&program.open).is_ok() {}
            }
            program.dealer.hear();
            assert_eq!(program.dealer.in_flight(), 0);
            assert!(!program.is_woken(), "for nothing");
        }
    }
}

/// If two listeners always have a connection, neither is forgotten.
#[test]
fn all_have_their_turn() {
    let mut program = Program::at_rest(3);
    for n in 0..90 {
        program.dealer.deal(n / 30);
    }
    let taken: Vec<usize> =
        (0..9).map(|_| program.worker.try_accept_any(&program.open).unwrap().0).collect();
    assert!(taken.windows(2).all(|two| (two[0] + 1) % 3 == two[1]), "{taken:?}");
    assert_eq!(program.worker.try_accept_any(&program.open[1..2]).unwrap().0, 0);
}
