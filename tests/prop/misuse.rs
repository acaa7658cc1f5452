//! What an embedder says wrongly is refused, and changes nothing.

use roundel_core::{
    Codec, Command, Config, ConnId, Errno, ExitStatus, FromWorker, Input, ListenerId, Misuse,
    Output, Primary, Seq, SockName, SpawnError, Time, Violation, WorkerId,
};
use roundel_tests::faults::mutants::{Mutant, Shim};
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::Mix;
use std::net::SocketAddr;

use crate::support::{fails, for_all};

/// Everything that could be said about anything, by ids that are and ids that are not.
fn anything(primary: &Primary) -> Vec<Input> {
    let far = 1_000_000;
    let workers = (1..6).chain([far]).filter_map(WorkerId::from_raw);
    let known = primary.workers().map(|worker| worker.id);
    let mut inputs = Vec::new();
    for worker in workers.chain(known) {
        let seq = Seq::from_raw(far).unwrap();
        inputs.extend([
            Input::Spawned { worker, pid: 9 },
            Input::SpawnFailed { worker, cause: SpawnError::Other(Errno(11)) },
            Input::Hello { worker, codec: Codec::Native },
            Input::Hello { worker, codec: Codec::Node },
            Input::Message { worker, msg: FromWorker::Ack { ack: seq, accepted: true } },
            Input::FrameBegun { worker },
            Input::Violation { worker, what: Violation::UnknownCodec },
            Input::ChannelClosed { worker },
            Input::Exited { worker, status: ExitStatus::Code(0) },
            Input::HandoffFailed { worker, seq, errno: Errno(1) },
            Input::Command(Command::Ping(worker)),
        ]);
    }
    for listener in (1..5).chain([far]).filter_map(ListenerId::from_raw) {
        let sockname = SockName::Ip(SocketAddr::from(([127, 0, 0, 1], 9)));
        inputs.push(Input::Bound { listener, result: Ok(sockname) });
        inputs.push(Input::Bound { listener, result: Err(Errno(98)) });
        inputs.push(Input::Unbound { listener });
        for conn in [1, 2, far].into_iter().filter_map(ConnId::from_raw) {
            inputs.push(Input::Incoming { listener, conn });
        }
    }
    inputs
}

/// Says everything to a copy of the core at the end of a run.
fn probe(sim: &Sim, mutant: Option<Mutant>) {
    let primary = &sim.core.core;
    let mut refused = 0;
    for input in anything(primary) {
        let mut shim = Shim::new(primary.clone(), mutant);
        let later = sim.now + std::time::Duration::from_secs(9);
        if shim.handle_input(later, input.clone()).is_err() {
            refused += 1;
            assert!(shim.core == *primary, "{input:?} was refused and changed the state");
        } else {
            // What is no misuse keeps every invariant, whatever it is.
            assert_eq!(shim.core.check(), Ok(()), "after {input:?}");
        }
    }
    assert!(refused > 10, "hardly anything was misuse");
}

#[test]
fn a_misuse_changes_nothing() {
    for_all(Mix::ALL, 120, |plan| {
        probe(&Sim::after(plan, Time::from_millis(5), None), None);
    });
}

#[test]
fn a_misuse_that_acts_is_noticed() {
    fails(Mix::ALL, 120, |plan| {
        probe(&Sim::after(plan, Time::from_millis(5), None), Some(Mutant::MisuseActs));
    });
}

/// Ids are minted one by one: the one behind the last is nobody's.
#[test]
fn the_next_worker_is_not_known_yet() {
    let mut primary = Primary::new(Config::builder().workers(2).build().unwrap());
    let minted: Vec<WorkerId> = std::iter::from_fn(|| primary.poll_output())
        .filter_map(|output| match output {
            Output::Spawn { worker, .. } => Some(worker),
            _ => None,
        })
        .collect();
    let next = WorkerId::from_raw(minted.last().unwrap().get() + 1).unwrap();
    assert_eq!(minted.len(), 2);
    for (worker, known) in minted.into_iter().map(|id| (id, true)).chain([(next, false)]) {
        let exited = Input::Exited { worker, status: ExitStatus::Code(0) };
        let result = primary.clone().handle_input(Time::from_millis(5), exited);
        assert_eq!(result, if known { Ok(()) } else { Err(Misuse::UnknownWorker(worker)) });
    }
}
