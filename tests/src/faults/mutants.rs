//! Deliberate faults between the core and the simulation: each must be caught by the property that
//! it is meant for, or that property proves nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use roundel_core::{
    Attach, Codec, Config, ConnEnd, ConnId, Deadline, Errno, Event, FromWorker, Input, ListenerId,
    Misuse, Output, Primary, SpawnError, Time, ToWorker, WorkerId,
};

use super::reloads::{self, Reloads};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Every third connection is never released.
    SwallowRelease,
    /// Some connections are released twice.
    RepeatRelease,
    /// The core does not hear of some accepted connections until their worker has died.
    HideAck,
    /// A connection that a worker acknowledged is handed to another one as well.
    HandOutAgain,
    /// An exit is taken for the end of the channel: answers in it are not read.
    RedispatchAtExit,
    /// The last one that came back is handed out as if it had not been tried so often.
    ForgetAttempts,
    /// One worker never gets anything: its connections go to its neighbour.
    SkipWorker,
    /// A free worker is not used: its accepted answers are told late.
    DelayAck,
    /// Workers that do not answer are left alone.
    SpareStuck,
    /// Listeners are closed when a worker dies.
    CloseWithWorker,
    /// The core hears that a listener is closed before it is.
    HurryUnbound,
    /// Respawn delays do not take place: the core is told that time has passed.
    HurryRespawn,
    /// Connections that leaving workers have open are not seen.
    HideConnections,
    /// A shutdown has no deadline.
    EndlessStop,
    /// The deadline given out is always now.
    StaleDeadline,
    /// Every output comes with many events.
    Chatter,
    /// A misuse is let through as something else.
    MisuseActs,
    /// What is polled in one go comes in another order.
    Reorder,
    /// The worker's codec gives the handles of one message out in another order.
    SwapHandles,
    /// The read side of channels is never shut down.
    NoShutdownRead,
    /// Nobody hears that a Node worker holds answers back.
    DropDoubt,
    /// An answer that was given before counts for another connection.
    CountAckAgain,
    /// Connections of a worker that died count as accepted.
    LoseRedispatch,
    /// Another worker is ended for what one sent.
    BlameNeighbour,
    /// A worker that speaks one protocol is given the window of the other.
    WrongWindow,
    /// What is read back has no timers.
    LoseTimer,
    /// The embedder does not hear of connections at one listener.
    ForgetListener,
    /// Want of resources at a start is taken for the program's failure.
    BlameProgram,
    /// A new worker counts as soon as it is ready.
    NoHold,
    /// A new worker counts before it listens.
    CountUnready,
    /// All slots are replaced together.
    WholeAtOnce,
    /// A reload leaves nobody ready.
    TakeTooMany,
    /// The workers of old generations are left alone.
    KeepGenerations,
    /// An old worker is ended although the reload failed.
    EndOld,
    /// The new workers of a reload that failed live on.
    SpareNew,
    /// A new worker is handed connections before it counts.
    HandToNew,
    /// A worker that dies is followed by one of the new generation.
    FollowByNew,
    /// A reload begins while another one is under way.
    StartTwice,
    /// A reload is forgotten if it would have to wait.
    ForgetReload,
    /// A reload does not end with the shutdown.
    OutliveStop,
    /// What is not ready lives on in a shutdown.
    SpareUnready,
    /// Leaves a slot empty at a stop, whose old worker was ended first.
    LeaveEmpty,
    /// A reload leaves slots out that were given up.
    SkipGivenUp,
    /// A reload starts workers where none are wanted any more.
    ReviveEnded,
    /// Another number of workers does not wait for a reload.
    ScaleAtOnce,
    /// Nobody hears how many workers the operator wants.
    ForgetScale,
    /// Two workers are replaced at a time.
    RecycleTwo,
    /// No worker is replaced for what it has served, nor for its age.
    ForgetRecycling,
    /// Replaces a worker at once again whose new one has failed.
    RecycleAgain,
    /// Connections are handed out during a pause.
    IgnorePause,
    /// Nobody is asked for a sign of life.
    NoHeartbeat,
    /// A slot that was given up is not tried again.
    NoRetry,
    /// A shutdown has no delay.
    HurryStop,
}

impl Mutant {
    /// The configuration that the core is told.
    pub fn told(mutant: Option<Mutant>, config: Config) -> Config {
        match mutant {
            Some(mutant) => reloads::told(mutant, config),
            None => config,
        }
    }
}

/// The core, or the core with a fault.
pub struct Shim {
    /// The real one.
    pub core: Primary,
    mutant: Option<Mutant>,
    out: VecDeque<Output>,
    count: u64,
    /// Connections in flight, as handed off.
    in_flight: BTreeMap<(WorkerId, u64), (ConnId, ListenerId)>,
    hidden: Vec<(WorkerId, FromWorker)>,
    workers: Vec<WorkerId>,
    /// Listeners whose close the core was told of too early.
    hurried: Vec<ListenerId>,
    reloads: Reloads,
    now: Time,
}

impl Shim {
    /// Puts a fault around a core; `None` leaves it as it is.
    pub fn new(core: Primary, mutant: Option<Mutant>) -> Self {
        Shim {
            core,
            mutant,
            out: VecDeque::new(),
            count: 0,
            in_flight: BTreeMap::new(),
            hidden: Vec::new(),
            workers: Vec::new(),
            hurried: Vec::new(),
            reloads: Reloads::default(),
            now: Time::ZERO,
        }
    }

    /// Goes on with another core, such as one that was written down and read back.
    pub fn replace(&mut self, core: Primary) {
        self.core = core;
    }

    /// As the core's.
    ///
    /// # Errors
    /// As the core's.
    pub fn handle_input(&mut self, now: Time, input: Input) -> Result<(), Misuse> {
        let Some(mutant) = self.mutant else { return self.core.handle_input(now, input) };
        self.now = self.now.max(now);
        let told = self.reloads.input(mutant, &mut self.core, &mut self.out, input);
        let Some(input) = told else { return Ok(()) };
        match (mutant, &input) {
            (
                Mutant::HideAck | Mutant::DelayAck,
                Input::Message { worker, msg: msg @ FromWorker::Ack { accepted: true, .. } },
            ) => {
                self.count += 1;
                if self.count.is_multiple_of(3) {
                    self.hidden.push((*worker, msg.clone()));
                    return Ok(());
                }
            }
            (Mutant::DelayAck, Input::Wake) => {
                for (worker, msg) in std::mem::take(&mut self.hidden) {
                    self.core.handle_input(now, Input::Message { worker, msg })?;
                }
            }
            (Mutant::EndlessStop, Input::Wake) if self.core.stop_deadline().is_some() => {
                return Ok(());
            }
            (Mutant::HideAck, Input::ChannelClosed { worker }) => {
                self.hidden.retain(|(other, _)| other != worker);
            }
            (Mutant::RedispatchAtExit, Input::Exited { worker, .. }) => {
                self.core.handle_input(now, Input::ChannelClosed { worker: *worker })?;
            }
            (
                Mutant::HandOutAgain,
                Input::Message { worker, msg: FromWorker::Ack { ack, accepted: true } },
            ) => self.hand_out_again(*worker, ack.get()),
            (Mutant::CloseWithWorker, Input::Exited { .. }) => {
                let first = self.core.listeners().next().map(|listener| listener.id);
                self.out.extend(first.map(|listener| Output::Unbind { listener }));
            }
            (Mutant::HurryUnbound, Input::Unbound { listener })
                if self.hurried.contains(listener) =>
            {
                return Ok(());
            }
            (Mutant::HurryRespawn, Input::Exited { .. } | Input::SpawnFailed { .. }) => {
                self.core.handle_input(now, input)?;
                let soon = now + Duration::from_millis(900);
                return self.core.handle_input(soon, Input::Wake);
            }
            (Mutant::BlameProgram, Input::SpawnFailed { worker, cause })
                if cause.is_want_of_resources() =>
            {
                let cause = SpawnError::Other(Errno(8));
                return self.core.handle_input(now, Input::SpawnFailed { worker: *worker, cause });
            }
            (Mutant::HideConnections, Input::Connections { worker, .. }) => {
                let worker = *worker;
                return self.core.handle_input(now, Input::Connections { worker, open: Some(0) });
            }
            (Mutant::DropDoubt, Input::InDoubt { .. }) => return Ok(()),
            (Mutant::BlameNeighbour, Input::Violation { worker, what }) => {
                let other = self.workers.iter().copied().find(|other| other != worker);
                let (worker, what) = (other.unwrap_or(*worker), what.clone());
                return self.core.handle_input(now, Input::Violation { worker, what });
            }
            (Mutant::WrongWindow, Input::Hello { worker, codec }) => {
                let codec = match codec {
                    Codec::Native => Codec::Node,
                    _ => Codec::Native,
                };
                return self.core.handle_input(now, Input::Hello { worker: *worker, codec });
            }
            (
                Mutant::CountAckAgain,
                Input::Message { worker, msg: FromWorker::Ack { ack, accepted } },
            ) => {
                let known = self.in_flight.remove(&(*worker, ack.get())).is_some();
                let mut others = self.in_flight.range((*worker, 0)..=(*worker, u64::MAX));
                if let (false, Some((&key, _))) = (known, others.next()) {
                    self.in_flight.remove(&key);
                    let ack = roundel_core::Seq::from_raw(key.1).unwrap_or(*ack);
                    let msg = FromWorker::Ack { ack, accepted: *accepted };
                    return self.core.handle_input(now, Input::Message { worker: *worker, msg });
                }
            }
            (
                Mutant::LoseRedispatch,
                Input::Message { worker, msg: FromWorker::Ack { ack, .. } },
            ) => drop(self.in_flight.remove(&(*worker, ack.get()))),
            (Mutant::LoseRedispatch, Input::ChannelClosed { worker }) => {
                let lost = self.in_flight.range((*worker, 0)..=(*worker, u64::MAX));
                for raw in lost.map(|(key, _)| key.1).collect::<Vec<u64>>() {
                    let Some(ack) = roundel_core::Seq::from_raw(raw) else { continue };
                    let msg = FromWorker::Ack { ack, accepted: true };
                    self.core.handle_input(now, Input::Message { worker: *worker, msg })?;
                }
            }
            (Mutant::MisuseActs, _) => {
                let result = self.core.handle_input(now, input);
                if result.is_err() {
                    self.core.handle_input(now + Duration::from_nanos(1), Input::Wake)?;
                }
                return result;
            }
            _ => {}
        }
        self.core.handle_input(now, input)
    }

    fn hand_out_again(&mut self, worker: WorkerId, ack: u64) {
        self.count += 1;
        let Some(&(conn, listener)) = self.in_flight.get(&(worker, ack)) else { return };
        let other = self.workers.iter().copied().find(|&other| other != worker);
        if let (Some(other), Some(first_seq)) = (other, roundel_core::Seq::from_raw(ack + 1_000))
            && self.count.is_multiple_of(3)
        {
            let msg = ToWorker::NewConn { first_seq, listener, count: 1 };
            self.out.push_back(Output::Send {
                worker: other,
                msg,
                attach: Some(Attach::Conn(conn)),
            });
        }
    }

    /// As the core's.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        let Some(mutant) = self.mutant else { return self.core.poll_output() };
        let output = self.core.poll_output()?;
        self.watch(&output);
        let told = self.reloads.output(mutant, &mut self.out, output);
        let Some(mut output) = told else { return self.poll_output() };
        if mutant == Mutant::CountUnready
            && let Some(input) = reloads::hurried(&output)
        {
            let _ = self.core.handle_input(self.now, input);
        }
        match (mutant, &mut output) {
            (Mutant::SwallowRelease, Output::Release { .. }) => {
                self.count += 1;
                if self.count.is_multiple_of(3) {
                    return self.poll_output();
                }
            }
            (Mutant::HurryUnbound, Output::Unbind { listener })
                if self.core.stop_deadline().is_none() =>
            {
                self.hurried.push(*listener);
                let unbound = Input::Unbound { listener: *listener };
                let _ = self.core.handle_input(self.now, unbound);
            }
            (Mutant::RepeatRelease, Output::Release { .. }) => self.out.push_back(output.clone()),
            (
                Mutant::SkipWorker,
                Output::Send { worker, msg: ToWorker::NewConn { .. }, attach: Some(_) },
            ) => {
                let other = self.workers.iter().copied().find(|other| other != worker);
                if worker.get() == 1
                    && let Some(other) = other
                {
                    *worker = other;
                }
            }
            (
                Mutant::ForgetAttempts,
                Output::Release { conn, end: ConnEnd::Refused(roundel_core::Refusal::Attempts) },
            ) => {
                // It goes out once more instead of being refused.
                let Some(&worker) = self.workers.last() else { return Some(output) };
                let listener = self.core.listeners().next().map(|listener| listener.id)?;
                let first_seq = roundel_core::Seq::from_raw(100_000)?;
                let msg = ToWorker::NewConn { first_seq, listener, count: 1 };
                let attach = Some(Attach::Conn(*conn));
                return Some(Output::Send { worker, msg, attach });
            }
            (
                Mutant::SpareStuck,
                Output::Event(Event::Killing {
                    class: roundel_core::ExitClass::Unresponsive, ..
                }),
            ) => {
                // The kill that follows as well.
                let _ = self.core.poll_output();
                return self.poll_output();
            }
            (Mutant::Chatter, Output::Send { worker, .. }) => {
                let event = Output::Event(Event::Silent { worker: *worker });
                self.out.extend(std::iter::repeat_n(event, 40));
            }
            (Mutant::Reorder, _) if self.out.is_empty() => {
                self.out.push_back(output);
                while let Some(next) = self.core.poll_output() {
                    self.out.push_front(next);
                }
                return self.out.pop_front();
            }
            _ => {}
        }
        Some(output)
    }

    fn watch(&mut self, output: &Output) {
        match output {
            Output::Spawn { worker, .. } => self.workers.push(*worker),
            Output::Forget { worker } => self.workers.retain(|other| other != worker),
            Output::Send {
                worker,
                msg: ToWorker::NewConn { first_seq, listener, .. },
                attach: Some(Attach::Conn(conn)),
            } => {
                self.in_flight.insert((*worker, first_seq.get()), (*conn, *listener));
            }
            _ => {}
        }
    }

    /// As the core's.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let deadline = self.core.poll_timeout();
        match self.mutant {
            Some(Mutant::StaleDeadline) => deadline.map(|d| Deadline { at: self.now, ..d }),
            _ => deadline,
        }
    }
}
