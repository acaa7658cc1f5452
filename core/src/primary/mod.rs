//! The primary, driven by `handle_input`, `poll_output` and `poll_timeout`.

mod dispatch;
mod generations;
mod heartbeat;
mod input;
mod inspect;
mod invariants;
mod leaving;
mod life;
mod listeners;
mod messages;
mod output;
mod pressure;
mod recycle;
mod reload;
mod scale;
mod shutdown;
mod slots;
mod stall;
mod state;
#[cfg(test)]
mod tests;
mod unheld;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use input::{Command, ExitStatus, Input, SpawnError, Violation};
#[cfg(feature = "inspect")]
pub use inspect::{Broken, Canonical, CanonicalView};
pub use inspect::{ListenerStatus, SlotStage, SlotStatus, Totals, WorkerStatus};
pub use output::{ConnEnd, Event, Output, Refusal, Verdict};
pub use state::{FixedField, LastExit, ReloadFailure, ReloadRecord};

use crate::collections::inline_queue::InlineQueue;
use crate::collections::ready_queue::ReadyQueue;
use crate::collections::slab::Slab;
use crate::timers::Timers;
use crate::transitions::Process;
use crate::{Config, Deadline, FromWorker, ListenerId, Misuse, Slot, Time, WorkerId};
use shutdown::Stop;
use stall::Stall;
use state::{ListenerRecord, ListenerState, NextReload, Reload, SlotRecord, WorkerRecord};

/// The generation of the first workers.
const FIRST_GENERATION: u32 = 1;

/// The primary's protocol and scheduling, as a value.
///
/// Feed it what happened with [`handle_input`](Primary::handle_input), do what
/// [`poll_output`](Primary::poll_output) returns, in that order, and wake it at
/// [`poll_timeout`](Primary::poll_timeout). Any number of inputs may come before the outputs are
/// polled: the outputs are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Primary {
    config: Config,
    now: Time,
    workers: Slab<WorkerId, WorkerRecord>,
    slots: Vec<SlotRecord>,
    listeners: Slab<ListenerId, ListenerRecord>,
    /// The operator's listeners for the workers of each generation, in the order of the
    /// configuration.
    operator: BTreeMap<u32, Vec<ListenerId>>,
    /// Workers with credit, in the order of service.
    ready_queue: ReadyQueue,
    /// Open listeners with pending connections, by turn.
    backlog: VecDeque<ListenerId>,
    timers: Timers,
    outputs: InlineQueue<Output>,
    next_worker: WorkerId,
    next_listener: ListenerId,
    /// The number of the last connection reported.
    last_conn: u64,
    /// Connections pending.
    pending: u32,
    /// Connections in flight.
    in_flight: u32,
    /// How many connections may be held: each listener that workers asked for takes up the
    /// descriptor of one.
    room: u32,
    /// Accepting stopped everywhere because too many are held.
    accept_paused: bool,
    /// Some worker has spoken the protocol: the program is there.
    ever_online: bool,
    stop: Option<Stop>,
    /// Listeners at which a connection waited at the last look although a worker was idle.
    stalls: BTreeMap<ListenerId, Stall>,
    totals: Totals,
    /// How many slots are to have a worker.
    wanted: u32,
    /// The generation whose configuration holds: that of the last reload that has replaced anything.
    generation: u32,
    /// The highest generation of all.
    last_generation: u32,
    /// Every slot has had time for its first worker.
    started: bool,
    reload: Option<Box<Reload>>,
    next_reload: Option<NextReload>,
    /// How many workers are wanted once no reload is under way.
    scale_to: Option<u32>,
    /// Workers that are to be replaced, one after the other.
    recycle: VecDeque<WorkerId>,
    /// The last reloads, the latest one last.
    reloads: VecDeque<ReloadRecord>,
    /// The operator paused the cluster.
    paused: bool,
}

impl Primary {
    /// A primary that has not begun: its first outputs bind the operator's listeners, or start
    /// the workers if there are none.
    pub fn new(config: Config) -> Self {
        let slot = SlotRecord::new(&config, FIRST_GENERATION);
        let mut primary = Primary {
            now: Time::ZERO,
            workers: Slab::new(),
            slots: alloc::vec![slot; config.workers as usize],
            listeners: Slab::new(),
            operator: BTreeMap::new(),
            ready_queue: ReadyQueue::default(),
            backlog: VecDeque::new(),
            timers: Timers::default(),
            outputs: InlineQueue::default(),
            next_worker: WorkerId::FIRST,
            next_listener: ListenerId::FIRST,
            last_conn: 0,
            pending: 0,
            in_flight: 0,
            room: config.max_held,
            accept_paused: false,
            ever_online: false,
            stop: None,
            stalls: BTreeMap::new(),
            totals: Totals::default(),
            wanted: config.workers,
            generation: FIRST_GENERATION,
            last_generation: FIRST_GENERATION,
            started: false,
            reload: None,
            next_reload: None,
            scale_to: None,
            recycle: VecDeque::new(),
            reloads: VecDeque::new(),
            paused: false,
            config,
        };
        primary.bind_operator();
        primary
    }

    /// Tells the machine what happened at `now`.
    ///
    /// # Errors
    /// [`Misuse`] if the input is impossible; the state is then unchanged.
    #[inline(always)]
    pub fn handle_input(&mut self, now: Time, input: Input) -> Result<(), Misuse> {
        match input {
            // This is the path of every connection, so it is short: apart from a shutdown, nothing
            // changes here that `settle` looks at.
            Input::Incoming { listener, conn } => {
                self.on_incoming(now, listener, conn)?;
                return self.settle_stop();
            }
            Input::Message { worker, msg: FromWorker::Ack { ack, accepted } } => {
                self.of_worker(now, worker)?.on_ack(worker, ack, accepted);
                return self.settle_stop();
            }
            // Once a turn. What each deadline brings about is settled there; without one nothing
            // has changed, however many workers there are to look at.
            Input::Wake => {
                self.at(now).on_wake();
                return Ok(());
            }
            Input::InDoubt { worker, seq } => {
                self.of_worker(now, worker)?.on_in_doubt(worker, seq);
                return Ok(());
            }
            Input::Message { worker, msg } => self.of_worker(now, worker)?.on_message(worker, msg),
            Input::Spawned { worker, pid } => {
                self.of_starting(now, worker)?.on_spawned(worker, pid);
            }
            Input::SpawnFailed { worker, cause } => {
                self.of_starting(now, worker)?.on_spawn_failed(worker, cause);
            }
            Input::Hello { worker, codec } => self.of_worker(now, worker)?.on_hello(worker, codec),
            Input::FrameBegun { worker } => self.of_worker(now, worker)?.on_frame_begun(worker),
            Input::Violation { worker, what } => {
                self.of_worker(now, worker)?.on_violation(worker, what);
            }
            Input::ChannelClosed { worker } => {
                self.of_worker(now, worker)?.on_channel_closed(worker);
            }
            Input::Exited { worker, status } => {
                self.of_worker(now, worker)?.on_exited(worker, status);
            }
            Input::HandoffFailed { worker, seq, errno } => {
                self.of_worker(now, worker)?.on_handoff_failed(worker, seq, errno);
            }
            Input::Stray { worker } => self.of_worker(now, worker)?.stray(worker),
            Input::Connections { worker, open } => {
                self.of_worker(now, worker)?.on_connections(worker, open);
            }
            Input::Bound { listener, result } => {
                self.of_listener(now, listener, ListenerState::Binding, Misuse::NotBinding)?
                    .on_bound(listener, result);
            }
            Input::Unbound { listener } => {
                self.of_listener(now, listener, ListenerState::Closing, Misuse::NotUnbinding)?
                    .on_unbound(listener);
            }
            Input::Queue { listener, waiting } => self.at(now).on_queue(listener, waiting),
            Input::Reload { config } => self.at(now).on_reload(config),
            Input::Memory { worker, bytes } => {
                self.of_worker(now, worker)?.on_memory(worker, bytes);
            }
            Input::Command(Command::Scale(workers)) => self.at(now).on_scale(workers),
            Input::Command(Command::Pause) => self.at(now).set_paused(true),
            Input::Command(Command::Resume) => self.at(now).set_paused(false),
            Input::Command(Command::Stop) => self.at(now).begin_stop(),
            Input::Command(Command::StopNow) => self.at(now).stop_now(Verdict::Stopped),
            Input::Command(Command::Ping(worker)) => self.of_worker(now, worker)?.ping(worker),
        }
        self.settle();
        Ok(())
    }

    /// Ends each input and each deadline: does what follows from the state alone, however it came
    /// about.
    #[inline(never)]
    fn settle(&mut self) {
        self.fill_awaiting_slots();
        self.advance_reload();
        self.fit_room();
        self.review_unheld();
        self.advance_stop();
    }

    /// Ends an input on the path of a connection.
    #[inline(always)]
    fn settle_stop(&mut self) -> Result<(), Misuse> {
        if self.stop.is_some() {
            self.advance_stop();
        }
        Ok(())
    }

    /// A clock that goes back is read as one that stands still.
    #[inline(always)]
    fn at(&mut self, now: Time) -> &mut Self {
        self.now = self.now.max(now);
        self
    }

    /// Refuses a worker that never existed. One that is gone by now is not a misuse: reports may be
    /// late.
    #[inline(always)]
    fn of_worker(&mut self, now: Time, worker: WorkerId) -> Result<&mut Self, Misuse> {
        if worker < self.next_worker {
            Ok(self.at(now))
        } else {
            Err(Misuse::UnknownWorker(worker))
        }
    }

    /// Refuses a worker that was started already. One that has spoken is running, so a failed start
    /// would lose what is in flight there.
    fn of_starting(&mut self, now: Time, worker: WorkerId) -> Result<&mut Self, Misuse> {
        match self.workers.get(worker) {
            Some(WorkerRecord { process: Process::Wanted, kind: None, .. }) => Ok(self.at(now)),
            _ => Err(Misuse::NotStarting(worker)),
        }
    }

    /// Refuses a listener that is not in this state.
    fn of_listener(
        &mut self,
        now: Time,
        listener: ListenerId,
        state: ListenerState,
        misuse: fn(ListenerId) -> Misuse,
    ) -> Result<&mut Self, Misuse> {
        match self.listeners.get(listener) {
            Some(record) if record.state == state => Ok(self.at(now)),
            _ => Err(misuse(listener)),
        }
    }

    /// The next thing to do; first in, first out.
    #[must_use]
    #[inline(always)]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether there is something to do.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// When the machine next wants [`Input::Wake`]; sometimes earlier than necessary. After a
    /// `Wake` this is `None` or later than the `Wake`'s time.
    #[must_use]
    #[inline]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.first().map(|(at, due)| Deadline { at, timer: due.timer() })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[inline(always)]
    fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn slot_mut(&mut self, slot: Slot) -> Option<&mut SlotRecord> {
        self.slots.get_mut(slot.0 as usize)
    }
}
