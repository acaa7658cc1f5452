//! The same inputs give the same outputs and the same state: from a journal, drained at each step
//! or at the end, at another time, or restored in the middle of a run.

use roundel_core::journal::{Ending, Recorder, Replay, Step};
use roundel_core::{Input, Output, Primary, Time};
use roundel_tests::faults::mutants::{Mutant, Shim};
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::Mix;
use roundel_tests::sim::plan::Plan;

use crate::support::{fails, for_all};

fn run(plan: &Plan) -> Sim {
    Sim::after(plan, Time::from_millis(5), None)
}

/// A journal of the run; without one input, as if the recorded machine had ignored it.
fn journal(sim: &Sim, ignored: Option<usize>) -> Vec<u8> {
    let config = sim.config.clone();
    let mut recorder = Recorder::new(&config, u64::MAX);
    let mut primary = Primary::new(config);
    for (at, (now, input)) in sim.transcript.iter().enumerate() {
        if Some(at) == ignored {
            // Recorded with a machine that is thrown away.
            let _ = recorder.handle_input(&mut primary.clone(), *now, input.clone());
        } else {
            let _ = recorder.handle_input(&mut primary, *now, input.clone());
        }
        while recorder.poll_output(&mut primary).is_some() {}
    }
    recorder.end(&primary);
    recorder.take()
}

fn replays(sim: &Sim, journal: &[u8]) {
    let mut replay = Replay::new();
    let mut all = Vec::new();
    for piece in journal.chunks(1_000) {
        replay.feed(piece);
        while let Some(step) = replay.step().unwrap() {
            if let Step::Begun { outputs, .. } | Step::Entry { outputs, .. } = step {
                all.extend(outputs);
            }
        }
    }
    assert_eq!(replay.ended(), Some(Ending::Complete));
    assert_eq!(all, sim.outputs);
    assert!(replay.primary() == Some(&sim.core.core));
}

#[test]
fn a_journal_replays() {
    for_all(Mix::ALL, 150, |plan| {
        let sim = run(plan);
        replays(&sim, &journal(&sim, None));
    });
}

#[test]
fn a_machine_that_does_otherwise_is_noticed() {
    fails(Mix::ALL, 150, |plan| {
        let sim = run(plan);
        let incoming = |(_, input): &(Time, Input)| matches!(input, Input::Incoming { .. });
        let ignored = sim.transcript.iter().position(incoming);
        replays(&sim, &journal(&sim, ignored));
    });
}

fn drained_at_the_end(sim: &Sim, mutant: Option<Mutant>) {
    let mut shim = Shim::new(Primary::new(sim.config.clone()), mutant);
    for (now, input) in &sim.transcript {
        // Misuse is misuse either way.
        let _ = shim.handle_input(*now, input.clone());
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| shim.poll_output()).collect();
    assert_eq!(outputs, sim.outputs);
    assert!(shim.core == sim.core.core);
}

#[test]
fn when_outputs_are_polled_does_not_matter() {
    for_all(Mix::ALL, 150, |plan| {
        let sim = run(plan);
        drained_at_the_end(&sim, None);
    });
}

#[test]
fn another_order_is_noticed() {
    fails(Mix::ALL, 150, |plan| {
        let sim = run(plan);
        drained_at_the_end(&sim, Some(Mutant::Reorder));
    });
}

/// Goes on after each eighth of the run with a state that was written and read.
fn restores(sim: &Sim, lose: bool) {
    let config = sim.config.clone();
    let mut primary = Primary::new(config);
    let mut outputs = Vec::new();
    let part = sim.transcript.len() / 8 + 1;
    for (at, (now, input)) in sim.transcript.iter().enumerate() {
        let _ = primary.handle_input(*now, input.clone());
        if at % part == part - 1 {
            let mut state = serde_json::to_value(&primary).unwrap();
            if lose {
                state["timers"] = serde_json::Value::Array(Vec::new());
            }
            let restored: Primary = serde_json::from_value(state).unwrap();
            assert!(restored == primary);
            assert_eq!(restored.check(), Ok(()));
            primary = restored;
        }
        outputs.extend(std::iter::from_fn(|| primary.poll_output()));
    }
    assert_eq!(outputs, sim.outputs);
    assert!(primary == sim.core.core);
}

#[test]
fn a_restored_state_goes_on_alike() {
    for_all(Mix::ALL, 150, |plan| {
        let sim = run(plan);
        restores(&sim, false);
    });
}

#[test]
fn a_snapshot_that_loses_something_is_noticed() {
    fails(Mix::ALL, 150, |plan| {
        let sim = run(plan);
        restores(&sim, true);
    });
}
