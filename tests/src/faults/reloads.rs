//! Deliberate faults around reloads, recycling and what an operator wants of a running cluster.

use std::collections::{BTreeSet, VecDeque};

use roundel_core::{
    Attach, Command, Config, ConfigBuilder, Event, FromWorker, Input, Output, Primary,
    ReloadFailure, Signal, ToWorker, WorkerId,
};

use super::mutants::Mutant;

/// What a fault must know of a reload under way.
#[derive(Default)]
pub(super) struct Reloads {
    /// The generation that it makes.
    active: Option<u32>,
    /// Its workers, and those that are ready.
    news: BTreeSet<WorkerId>,
    ready: BTreeSet<WorkerId>,
    workers: Vec<WorkerId>,
    /// What follows from a failure is kept from the new workers.
    spares: bool,
    /// The shutdown begins in this step.
    stops: bool,
}

/// The configuration that the core is told.
pub(super) fn told(mutant: Mutant, config: Config) -> Config {
    let builder = ConfigBuilder::from(config.clone());
    let builder = match mutant {
        Mutant::NoHold => builder.ready_hold(std::time::Duration::ZERO),
        Mutant::WholeAtOnce => builder.reload_batch(10_000),
        Mutant::TakeTooMany => builder.min_ready(Some(0)),
        Mutant::KeepGenerations => builder.max_generations(1_000),
        Mutant::ForgetRecycling => builder.max_requests(None).max_age(None),
        Mutant::NoHeartbeat => builder.heartbeat(None),
        Mutant::NoRetry => builder.retry_delay(None),
        Mutant::HurryStop => builder.shutdown_delay(std::time::Duration::ZERO),
        _ => return config,
    };
    builder.build().unwrap_or(config)
}

impl Reloads {
    /// What the core is told instead; `None` if it hears nothing.
    pub(super) fn input(
        &mut self,
        mutant: Mutant,
        core: &mut Primary,
        out: &mut VecDeque<Output>,
        input: Input,
    ) -> Option<Input> {
        (self.spares, self.stops) = (false, false);
        match (mutant, input) {
            (Mutant::ForgetReload, Input::Reload { .. }) if self.active.is_some() => None,
            (Mutant::ForgetScale, Input::Command(Command::Scale(_)))
            | (Mutant::IgnorePause, Input::Command(Command::Pause)) => None,
            (Mutant::StartTwice, input @ Input::Reload { .. }) if self.active.is_some() => {
                let event = Event::ReloadStarted { generation: core.next_generation(), slots: 1 };
                out.push_back(Output::Event(event));
                Some(input)
            }
            (Mutant::ScaleAtOnce, Input::Command(Command::Scale(to))) if self.active.is_some() => {
                out.push_back(Output::Event(Event::Scaled { from: core.wanted(), to }));
                None
            }
            (Mutant::SkipGivenUp, input @ Input::Reload { .. }) => {
                swap_states(core, "GivenUp", "Ended");
                Some(input)
            }
            (Mutant::ReviveEnded, input @ Input::Reload { .. }) => {
                swap_states(core, "Ended", "GivenUp");
                Some(input)
            }
            (_, Input::Reload { config: Some(config) }) => {
                Some(Input::Reload { config: Some(Box::new(told(mutant, *config))) })
            }
            (_, input) => Some(input),
        }
    }

    /// What becomes of an output; `None` if it is swallowed.
    pub(super) fn output(
        &mut self,
        mutant: Mutant,
        out: &mut VecDeque<Output>,
        mut output: Output,
    ) -> Option<Output> {
        self.watch(&output);
        match (mutant, &mut output) {
            (Mutant::FollowByNew, Output::Spawn { generation, .. }) => {
                *generation = self.active.unwrap_or(*generation);
            }
            (
                Mutant::HandToNew,
                Output::Send {
                    worker,
                    msg: ToWorker::NewConn { .. },
                    attach: Some(Attach::Conn(_)),
                },
            ) => *worker = self.news.last().copied().unwrap_or(*worker),
            (Mutant::EndOld, Output::Event(Event::ReloadFailed { .. })) => {
                let old = self.workers.iter().find(|id| self.ready.contains(id)).copied();
                let within = std::time::Duration::ZERO;
                let event = old.map(|worker| Output::Event(Event::Settling { worker, within }));
                out.extend(event);
            }
            (Mutant::RecycleTwo, Output::Event(event @ Event::Recycling { .. })) => {
                out.push_back(Output::Event(event.clone()));
            }
            (Mutant::RecycleAgain, Output::Event(Event::RecycleFailed { worker, slot, .. })) => {
                let (worker, slot) = (*worker, *slot);
                out.push_back(Output::Event(Event::Recycling { worker, slot }));
            }
            (Mutant::OutliveStop, Output::Event(Event::ReloadFailed { failure, .. }))
                if *failure == ReloadFailure::Stopped =>
            {
                return None;
            }
            (
                Mutant::SpareNew,
                Output::Event(
                    Event::Settling { worker, .. }
                    | Event::Draining { worker, .. }
                    | Event::Signalled { worker, .. },
                )
                | Output::Kill { worker, .. }
                | Output::Send { worker, msg: ToWorker::Drain { .. }, .. },
            ) if self.spares && self.news.contains(worker) => return None,
            (Mutant::LeaveEmpty, Output::Spawn { .. }) if self.stops => return None,
            (
                Mutant::SpareUnready,
                Output::Event(Event::Killing { worker, .. })
                | Output::Kill { worker, signal: Signal::Kill },
            ) if self.stops && self.news.contains(worker) => return None,
            _ => {}
        }
        Some(output)
    }

    fn watch(&mut self, output: &Output) {
        match output {
            Output::Spawn { worker, generation, .. } => {
                self.workers.push(*worker);
                if self.active == Some(*generation) {
                    self.news.insert(*worker);
                }
            }
            Output::Forget { worker } => {
                self.workers.retain(|it| it != worker);
                self.news.remove(worker);
            }
            Output::Event(event) => match event {
                Event::ReloadStarted { generation, .. } => self.active = Some(*generation),
                Event::ReloadProgress { .. } => self.news.clear(),
                Event::ReloadDone { .. } => self.active = None,
                Event::ReloadFailed { generation, .. } if self.active == Some(*generation) => {
                    (self.active, self.spares) = (None, true);
                }
                Event::Stopping { .. } => self.stops = true,
                Event::Ready { worker } => drop(self.ready.insert(*worker)),
                Event::Exited { worker, .. } | Event::Settling { worker, .. } => {
                    self.ready.remove(worker);
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// What a granted worker will say, before it does.
pub(super) fn hurried(output: &Output) -> Option<Input> {
    let Output::Send { worker, msg: ToWorker::QueryReply { result: Ok(granted), .. }, .. } = output
    else {
        return None;
    };
    let msg = FromWorker::Listening { listener: granted.listener };
    Some(Input::Message { worker: *worker, msg })
}

/// Changes slots behind the machine's back.
fn swap_states(core: &mut Primary, from: &str, to: &str) {
    let Ok(mut state) = serde_json::to_value(&*core) else { return };
    for slot in state["slots"].as_array_mut().into_iter().flatten() {
        if slot["state"] == from {
            slot["state"] = to.into();
        }
    }
    if let Ok(changed) = serde_json::from_value(state) {
        *core = changed;
    }
}
