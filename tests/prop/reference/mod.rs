//! A reference that is told nothing of what the core decides, beside the core: any difference in
//! who gets what is a failure, and the shortest way to it is searched for.

mod model;

use proptest::prelude::*;
use proptest::strategy::Union;
use proptest::test_runner::{
    Config as Runs, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner,
};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use roundel_core::{
    Address, Attach, Codec, Config, ConnEnd, ConnId, ExitStatus, FromWorker, Input, ListenKey,
    ListenerId, Output, Overflow, Primary, Refusal, Respawn, Seq, SockName, Time, ToWorker,
    WorkerId,
};
use roundel_tests::faults::mutants::{Mutant, Shim};
use roundel_tests::sim::plan::key;

use model::{COOLDOWN, Fact, Reference, Step};

const WORKERS: usize = 4;

impl ReferenceStateMachine for Reference {
    type State = Reference;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Reference> {
        (1..4_usize, 1..6_usize, 2..4_u8)
            .prop_map(|(window, pending, attempts)| {
                Reference::new(window, pending, attempts, WORKERS)
            })
            .boxed()
    }

    fn transitions(state: &Reference) -> BoxedStrategy<Step> {
        let mut all: Vec<(u32, BoxedStrategy<Step>)> = vec![
            (8, (0..2_usize).prop_map(Step::Connect).boxed()),
            (2, (1..50_u64).prop_map(Step::Pass).boxed()),
        ];
        for (at, worker) in state.workers.iter().enumerate() {
            if !worker.has_joined {
                let listens =
                    prop_oneof![Just([true, true]), Just([true, false]), Just([false, true])];
                all.push((2, listens.prop_map(move |on| Step::Join(at, on)).boxed()));
            }
            let in_flight = worker.in_flight.len();
            if in_flight > 0 {
                let which = (0..in_flight, prop::bool::weighted(0.7));
                all.push((6, which.prop_map(move |(n, yes)| Step::Answer(at, n, yes)).boxed()));
            }
            all.push((1, (0..2_usize).prop_map(move |of| Step::StopListening(at, of)).boxed()));
            all.push((1, any::<bool>().prop_map(move |fails| Step::Leave(at, fails)).boxed()));
            all.push((1, Just(Step::Exit(at)).boxed()));
            all.push((2, Just(Step::Close(at)).boxed()));
        }
        let valid = state.clone();
        Union::new_weighted(all)
            .prop_filter("possible", move |step| Self::preconditions(&valid, step))
            .boxed()
    }

    fn preconditions(state: &Reference, step: &Step) -> bool {
        // When the last one has ended, so has the cluster.
        let stays = |at: usize| {
            state.workers.iter().enumerate().any(|(other, worker)| other != at && !worker.is_out)
        };
        match *step {
            Step::Join(at, _) => !state.workers[at].has_joined && !state.workers[at].is_out,
            Step::Connect(_) | Step::Pass(_) => true,
            Step::Answer(at, nth, _) => nth < state.workers[at].in_flight.len(),
            Step::StopListening(at, listener) => {
                state.workers[at].listens[listener] && !state.workers[at].is_closed
            }
            Step::Leave(at, _) => {
                let worker = &state.workers[at];
                worker.has_joined && !worker.is_out && stays(at)
            }
            Step::Exit(at) => !state.workers[at].has_exited && stays(at),
            Step::Close(at) => {
                let worker = &state.workers[at];
                worker.has_joined && !worker.is_closed && stays(at)
            }
        }
    }

    fn apply(mut state: Reference, step: &Step) -> Reference {
        state.step(*step);
        state
    }
}

/// The real primary.
struct Core {
    shim: Shim,
    /// What the reference is before the next step.
    reference: Reference,
    workers: Vec<WorkerId>,
    listeners: Vec<ListenerId>,
    /// The numbers of what each worker has in flight, the oldest first.
    in_flight: Vec<Vec<Seq>>,
    now: Time,
    conns: u64,
    seq: u64,
}

impl Core {
    fn new(reference: &Reference, mutant: Option<Mutant>) -> Core {
        let config = Config::builder()
            .workers(WORKERS as u32)
            .listeners(vec![key(80), key(81)])
            .window(reference.window as u32)
            .max_pending(reference.max_pending as u32)
            .overflow(Overflow::Refuse)
            .max_attempts(reference.max_attempts)
            .cooldown(Duration::from_millis(COOLDOWN.0))
            .cooldown_max(Duration::from_millis(COOLDOWN.1))
            // Nobody is killed or started while the reference is not told.
            .respawn(Respawn::Never)
            .ack_timeout(None)
            .ready_timeout(None)
            .drain_timeout(Duration::from_secs(1_000_000))
            .build()
            .unwrap();
        let mut core = Core {
            shim: Shim::new(Primary::new(config), mutant),
            reference: reference.clone(),
            workers: Vec::new(),
            listeners: Vec::new(),
            in_flight: vec![Vec::new(); WORKERS],
            now: Time::from_millis(1),
            conns: 0,
            seq: 0,
        };
        core.settle();
        core
    }

    fn input(&mut self, input: Input) {
        self.shim.handle_input(self.now, input).unwrap();
    }

    fn say(&mut self, worker: usize, msg: FromWorker) {
        self.input(Input::Message { worker: self.workers[worker], msg });
    }

    fn next_seq(&mut self) -> Seq {
        self.seq += 1;
        Seq::from_raw(self.seq).unwrap()
    }

    fn do_step(&mut self, step: Step) {
        match step {
            Step::Join(at, listens) => {
                let worker = self.workers[at];
                self.input(Input::Hello { worker, codec: Codec::Native });
                self.say(at, FromWorker::Online);
                let on: Vec<usize> = (0..2).filter(|listener| listens[*listener]).collect();
                for listener in &on {
                    let seq = self.next_seq();
                    let key = Box::new(ListenKey::stream(Address::Nth(*listener as u32)));
                    self.say(at, FromWorker::Query { seq, key, backlog: 0, data: Vec::new() });
                }
                for listener in on {
                    self.say(at, FromWorker::Listening { listener: self.listeners[listener] });
                }
            }
            Step::Connect(at) => {
                self.conns += 1;
                let conn = ConnId::from_raw(self.conns).unwrap();
                self.input(Input::Incoming { listener: self.listeners[at], conn });
            }
            Step::Answer(at, nth, accepted) => {
                let ack = self.in_flight[at].remove(nth);
                self.say(at, FromWorker::Ack { ack, accepted });
            }
            Step::StopListening(at, listener) => {
                self.say(at, FromWorker::Close { listener: self.listeners[listener] });
            }
            Step::Leave(at, fails) => {
                let seq = self.next_seq();
                self.say(
                    at,
                    match fails {
                        true => FromWorker::Suicide { seq },
                        false => FromWorker::ExitedAfterDisconnect { seq },
                    },
                );
            }
            Step::Exit(at) => {
                let worker = self.workers[at];
                self.input(Input::Exited { worker, status: ExitStatus::Signal(9) });
            }
            Step::Close(at) => {
                self.in_flight[at].clear();
                self.input(Input::ChannelClosed { worker: self.workers[at] });
            }
            Step::Pass(span) => {
                self.now += Duration::from_millis(span);
                self.input(Input::Wake);
            }
        }
    }

    /// Does as the core says; what it decided about connections.
    fn settle(&mut self) -> Vec<Fact> {
        let mut facts = Vec::new();
        while let Some(output) = self.shim.poll_output() {
            match output {
                Output::Bind { listener, .. } => {
                    self.listeners.push(listener);
                    let sockname = SockName::Ip("127.0.0.1:80".parse().unwrap());
                    self.input(Input::Bound { listener, result: Ok(sockname) });
                }
                Output::Spawn { worker, .. } => {
                    self.workers.push(worker);
                    self.input(Input::Spawned { worker, pid: 1 });
                }
                Output::Send {
                    worker,
                    msg: ToWorker::NewConn { first_seq, listener, .. },
                    attach: Some(Attach::Conn(conn)),
                } => {
                    let worker = self.workers.iter().position(|id| *id == worker).unwrap();
                    let listener = self.listeners.iter().position(|id| *id == listener).unwrap();
                    self.in_flight[worker].push(first_seq);
                    facts.push(Fact::Handoff { conn: conn.get(), listener, worker });
                }
                Output::Release { conn, end } => {
                    let conn = conn.get();
                    facts.push(match end {
                        ConnEnd::AcceptedBy(worker) => {
                            let worker = self.workers.iter().position(|id| *id == worker).unwrap();
                            Fact::Accepted { conn, worker }
                        }
                        ConnEnd::Refused(Refusal::Overflow) => Fact::TooManyPending { conn },
                        ConnEnd::Refused(Refusal::Attempts) => Fact::TooManyDeaths { conn },
                        ConnEnd::Refused(other) => panic!("c{conn} was refused: {}", other.name()),
                    });
                }
                _ => {}
            }
        }
        facts
    }

    /// One step of both.
    fn compare(mut self, step: Step) -> Core {
        self.do_step(step);
        let facts = self.settle();
        let wanted = self.reference.step(step);
        assert_eq!(facts, wanted, "of {step:?}; on the left is what the core does");
        assert_eq!(self.shim.core.check(), Ok(()));
        self
    }
}

impl StateMachineTest for Core {
    type SystemUnderTest = Core;
    type Reference = Reference;

    fn init_test(reference: &Reference) -> Core {
        Core::new(reference, None)
    }

    fn apply(core: Core, _: &Reference, step: Step) -> Core {
        core.compare(step)
    }
}

proptest_state_machine::prop_state_machine! {
    #![proptest_config(Runs {
        failure_persistence: None,
        // Many steps are drawn again because they are not possible: 50 a run.
        max_local_rejects: u32::MAX,
        ..Runs::with_cases(600)
    })]

    #[test]
    fn the_core_does_as_the_reference_says(sequential 1..80 => Core);
}

/// A reference that agrees with everything would prove nothing.
#[test]
fn it_detects_wrong_assignments() {
    for mutant in [
        Mutant::SwallowRelease,
        Mutant::RepeatRelease,
        Mutant::HideAck,
        Mutant::HandOutAgain,
        Mutant::RedispatchAtExit,
        Mutant::SkipWorker,
        Mutant::DelayAck,
        Mutant::LoseRedispatch,
        Mutant::Reorder,
        Mutant::WrongWindow,
    ] {
        let runs =
            Runs { failure_persistence: None, max_shrink_iters: 0, ..Runs::with_cases(2_000) };
        let result = TestRunner::new_with_rng(
            runs,
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        )
        .run(&Reference::sequential_strategy(1..80), |(reference, steps, _)| {
            let mut core = Core::new(&reference, Some(mutant));
            for step in steps {
                core = catch_unwind(AssertUnwindSafe(|| core.compare(step)))
                    .map_err(|_| TestCaseError::fail("noticed"))?;
            }
            Ok(())
        });
        assert!(matches!(result, Err(TestError::Fail(..))), "{mutant:?} goes unnoticed");
    }
}
