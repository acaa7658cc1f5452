//! Deliberate faults between the primary and the world: the search must find each of them.

use roundel_core::{ConnEnd, FromWorker, Input, Output, Signal, ToWorker};

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
    ];

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
                let flying = member.map(|member| member.flying.as_slice()).unwrap_or_default();
                let first = flying.first().map(|flying| flying.0);
                let strays = flying.iter().all(|flying| flying.0 != ack);
                if let Some(first) = first.filter(|_| strays) {
                    let msg = FromWorker::Ack { ack: first, accepted };
                    world.tell(Input::Message { worker, msg });
                }
                strays && first.is_some()
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
            | (Bug::SpareAll, Output::Kill { signal: Signal::Kill, .. }) => Vec::new(),
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
