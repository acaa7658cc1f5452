//! Deliberate faults between the primary and the world: the search must find each of them.

use std::sync::Arc;

use roundel_core::{
    ConfigBuilder, ConnEnd, Event, FromWorker, Input, Output, ReloadFailure, Signal, ToWorker,
};

use super::bounds::Bounds;
use super::world::World;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An exit is taken for the end of the channel: the answers in it are not read.
    RedispatchAtExit,
    /// The primary does not hear of answers that are read after their worker's exit.
    HideLateAck,
    /// A refused connection is never released.
    KeepRefused,
    /// Every release comes twice.
    ReleaseTwice,
    /// What is for the next worker goes to another one.
    WrongTurn,
    /// No process is killed.
    SpareAll,
    /// A shutdown has no deadlines.
    EndlessStop,
    /// An answer to nothing is taken for the answer to what was handed off first.
    AckByOrder,
    /// A worker that cools down is not asked again.
    NeverCooled,
    /// A connection is refused after the first worker that died with it.
    GiveUpEarly,
    /// A worker that listens is not taken for ready.
    DeafToListening,
    /// A worker gets one connection more than its window.
    WideWindow,
    /// Nobody comes after the first workers, but in a shutdown.
    NoSuccessor,
    /// A slot gets one worker more than its budget.
    PatientBudget,
    /// The end is not told.
    NeverStopped,
    /// What is pending is not in a snapshot.
    ForgetfulSnapshot,
    /// The primary does not hear that a worker may have served what it has not answered.
    HideDoubt,
    /// Want of resources at a start is taken for the program's failure.
    BlameProgram,
    /// A listener that can't be emptied is not closed without that.
    EmptyForEver,
    /// A new worker takes its place as soon as it is ready.
    NoHold,
    /// All slots of a reload are replaced together.
    WholeAtOnce,
    /// An old worker is told to leave although the reload failed.
    EndOld,
    /// A reload does not end with the shutdown.
    OutliveStop,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Bug] = &[
        Bug::RedispatchAtExit,
        Bug::HideLateAck,
        Bug::KeepRefused,
        Bug::ReleaseTwice,
        Bug::WrongTurn,
        Bug::SpareAll,
        Bug::EndlessStop,
        Bug::AckByOrder,
        Bug::NeverCooled,
        Bug::GiveUpEarly,
        Bug::DeafToListening,
        Bug::WideWindow,
        Bug::NoSuccessor,
        Bug::PatientBudget,
        Bug::NeverStopped,
        Bug::ForgetfulSnapshot,
        Bug::HideDoubt,
        Bug::BlameProgram,
        Bug::EmptyForEver,
        Bug::NoHold,
        Bug::WholeAtOnce,
        Bug::EndOld,
        Bug::OutliveStop,
    ];

    /// The configuration that the primary is given instead of the right one.
    pub(super) fn configures(self, bounds: &Bounds) -> ConfigBuilder {
        let right = bounds.builder();
        match self {
            Bug::GiveUpEarly => right.max_attempts(1),
            Bug::WideWindow => right.window(bounds.window + 1),
            Bug::NoHold => right.ready_hold(std::time::Duration::ZERO),
            Bug::WholeAtOnce => right.reload_batch(10_000),
            Bug::PatientBudget => right.restart_intensity(2),
            _ => right,
        }
    }

    /// Acts on an input before the primary gets it. True if the primary is not to get it.
    pub(super) fn keeps(self, world: &mut World, input: &Input) -> bool {
        match (self, input) {
            (Bug::RedispatchAtExit, &Input::Exited { worker, .. }) => {
                let open = world.process_mut(worker).filter(|process| !process.ended);
                if let Some(process) = open {
                    process.up.clear();
                    process.child = false;
                    world.read_end(worker);
                }
                false
            }
            (Bug::HideLateAck, Input::Message { worker, msg: FromWorker::Ack { .. } }) => {
                world.process_mut(*worker).is_some_and(|process| process.reaped)
            }
            (Bug::EndlessStop, Input::Wake) => world.primary.stop_deadline().is_some(),
            (
                Bug::AckByOrder,
                &Input::Message { worker, msg: FromWorker::Ack { ack, accepted } },
            ) => {
                let member = world.reference.members.iter().find(|member| member.id == worker);
                let in_flight =
                    member.map(|member| member.in_flight.as_slice()).unwrap_or_default();
                let first = in_flight.first().map(|in_flight| in_flight.0);
                let strays = in_flight.iter().all(|in_flight| in_flight.0 != ack);
                if let Some(first) = first.filter(|_| strays) {
                    let msg = FromWorker::Ack { ack: first, accepted };
                    world.tell(Input::Message { worker, msg });
                }
                strays && first.is_some()
            }
            // The reference hears what the primary does not.
            (Bug::DeafToListening, Input::Message { msg: FromWorker::Listening { .. }, .. })
            | (Bug::HideDoubt, Input::InDoubt { .. }) => {
                let config = Arc::clone(&world.config);
                let reference = Arc::make_mut(&mut world.reference);
                reference.on_input(world.now, input, &config);
                true
            }
            (Bug::NeverCooled, Input::Wake) => {
                let timer = world.primary.poll_timeout().map(|deadline| deadline.timer);
                timer == Some(roundel_core::Timer::Cooldown)
            }
            _ => false,
        }
    }

    /// What the world gets instead of an output.
    pub(super) fn bends(self, world: &World, mut output: Output) -> Vec<Output> {
        match (self, &mut output) {
            (Bug::KeepRefused, Output::Release { end: ConnEnd::Refused(_), .. })
            | (Bug::SpareAll, Output::Kill { signal: Signal::Kill, .. })
            | (Bug::EmptyForEver, Output::Close { .. })
            | (Bug::NeverStopped, Output::Stopped(_)) => Vec::new(),
            (Bug::NoSuccessor, Output::Spawn { worker, .. })
                if worker.get() > u64::from(world.config.workers())
                    && world.primary.stop_deadline().is_none() =>
            {
                Vec::new()
            }
            (Bug::OutliveStop, Output::Event(Event::ReloadFailed { failure, .. }))
                if *failure == ReloadFailure::Stopped =>
            {
                Vec::new()
            }
            (Bug::EndOld, Output::Event(Event::ReloadFailed { .. })) => {
                let old = world.reference.members.iter().find(|it| it.ready && !it.held && !it.out);
                let within = std::time::Duration::ZERO;
                let told = old.map(|it| Event::Settling { worker: it.id, within });
                let told = told.map(Output::Event);
                [output].into_iter().chain(told).collect()
            }
            (Bug::ReleaseTwice, Output::Release { .. }) => vec![output.clone(), output],
            (Bug::WrongTurn, Output::Send { worker, msg: ToWorker::NewConn { .. }, .. }) => {
                let mut members = world.reference.members.iter();
                if let Some(other) = members.find(|member| member.id != *worker && member.ready) {
                    *worker = other.id;
                }
                vec![output]
            }
            _ => vec![output],
        }
    }
}
