//! The primary: one door in, one door out, one hand on the clock.

mod dispatch;
mod input;
mod inspect;
mod leaving;
mod life;
mod listeners;
mod messages;
mod output;
mod pressure;
mod shutdown;
mod slots;
mod stall;
mod state;
#[cfg(test)]
mod tests;
mod unheld;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use input::{Command, ExitStatus, Input, SpawnError, Violation};
#[cfg(feature = "inspect")]
pub use inspect::{Broken, Canonical, CanonicalView};
pub use inspect::{ListenerStatus, Totals, WorkerStatus};
pub use output::{Attach, ConnEnd, Event, ExitClass, Output, Refusal, Signal, Verdict};
pub use state::LastExit;

use crate::collections::inline_queue::InlineQueue;
use crate::collections::ready_queue::ReadyQueue;
use crate::collections::slab::Slab;
use crate::timers::Timers;
use crate::{Config, Deadline, FromWorker, ListenerId, Misuse, Slot, Time, WorkerId};
use shutdown::Stop;
use stall::Stall;
use state::{ListenerRecord, SlotRecord, SlotState, WorkerRecord};

/// The primary's protocol and scheduling, as a value.
///
/// Feed it what happened with [`handle_input`](Primary::handle_input), do what
/// [`poll_output`](Primary::poll_output) says in that order, and wake it at
/// [`poll_timeout`](Primary::poll_timeout). Any number of inputs may come before the outputs are
/// polled: they are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Primary {
    config: Config,
    now: Time,
    workers: Slab<WorkerId, WorkerRecord>,
    slots: Vec<SlotRecord>,
    listeners: Slab<ListenerId, ListenerRecord>,
    /// The operator's listeners, in the order of the configuration.
    operator: Vec<ListenerId>,
    /// Workers with credit, in the order of service.
    ready_queue: ReadyQueue,
    /// Open listeners with pending connections, by turn.
    backlog: VecDeque<ListenerId>,
    timers: Timers,
    outputs: InlineQueue<Output>,
    next_worker: WorkerId,
    next_listener: ListenerId,
    /// The number of the last connection given in.
    last_conn: u64,
    /// Connections pending.
    pending: u32,
    /// Connections in flight.
    in_flight: u32,
    /// How many connections may be held: each listener that workers asked for takes the descriptor
    /// of one.
    room: u32,
    /// Accepting stopped everywhere because too many are held.
    accept_paused: bool,
    /// Some worker has spoken the protocol: the program is there.
    ever_online: bool,
    stop: Option<Stop>,
    /// Listeners at which a connection waited at the last look although a worker was idle.
    stalls: BTreeMap<ListenerId, Stall>,
    totals: Totals,
}

impl Primary {
    /// A primary that has not begun: its first outputs bind the operator's listeners, or start
    /// the workers if there are none.
    pub fn new(config: Config) -> Self {
        let slot = SlotRecord {
            state: SlotState::Empty,
            restarts: 0,
            failures: VecDeque::new(),
            delay: config.respawn_delay,
            wanting: None,
            last_exit: None,
        };
        let mut primary = Primary {
            now: Time::ZERO,
            workers: Slab::new(),
            slots: alloc::vec![slot; config.workers as usize],
            listeners: Slab::new(),
            operator: Vec::new(),
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
            config,
        };
        primary.bind_operator();
        primary
    }

    /// Tells the machine what happened at `now`.
    ///
    /// # Errors
    /// [`Misuse`] if the embedder said what can't be; the state is then unchanged.
    #[inline(always)]
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other match names them all")]
    pub fn handle_input(&mut self, now: Time, input: Input) -> Result<(), Misuse> {
        // The two inputs of every connection's path stand apart, which keeps that path short.
        match input {
            Input::Incoming { listener, conn } => self.on_incoming(now, listener, conn)?,
            Input::Message { worker, msg: FromWorker::Ack { ack, accepted } } => {
                self.permit_worker(worker)?;
                self.advance_clock(now);
                self.on_ack(worker, ack, accepted);
            }
            other => self.handle_rare_input(now, other)?,
        }
        if self.stop.is_some() {
            self.advance_stop();
        }
        Ok(())
    }

    #[inline(never)]
    fn handle_rare_input(&mut self, now: Time, input: Input) -> Result<(), Misuse> {
        self.permit(&input)?;
        self.advance_clock(now);
        match input {
            Input::Wake => self.on_wake(),
            Input::Message { worker, msg } => self.on_message(worker, msg),
            Input::Spawned { worker, pid } => self.on_spawned(worker, pid),
            Input::SpawnFailed { worker, cause } => self.on_spawn_failed(worker, cause),
            Input::Hello { worker, codec } => self.on_hello(worker, codec),
            Input::FrameBegun { worker } => self.on_frame_begun(worker),
            Input::Violation { worker, what } => self.on_violation(worker, what),
            Input::ChannelClosed { worker } => self.on_channel_closed(worker),
            Input::Exited { worker, status } => self.on_exited(worker, status),
            Input::Bound { listener, result } => self.on_bound(listener, result),
            Input::Unbound { listener } => self.on_unbound(listener),
            Input::HandoffFailed { worker, seq, errno } => {
                self.on_handoff_failed(worker, seq, errno);
            }
            Input::InDoubt { worker, seq } => self.on_doubtful(worker, seq),
            Input::Stray { worker } => self.stray(worker),
            Input::Queue { listener, waiting } => self.on_queue(listener, waiting),
            Input::Connections { worker, open } => self.on_connections(worker, open),
            Input::Command(command) => self.on_command(command),
            // See `handle_input`.
            Input::Incoming { .. } => {}
        }
        self.fit_room();
        Ok(())
    }

    /// A clock that goes back is read as one that stands still.
    fn advance_clock(&mut self, now: Time) {
        self.now = self.now.max(now);
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

    /// When the machine next wants [`Input::Wake`]; now and then earlier than it would need to be.
    /// After a `Wake` this is `None` or later than the `Wake`'s time.
    #[must_use]
    #[inline]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.timers.first().map(|(at, due)| Deadline { at, timer: due.timer() })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Refuses what can't be, before anything has changed.
    fn permit(&self, input: &Input) -> Result<(), Misuse> {
        match input {
            // `Incoming` looks for itself, to look its listener up only once.
            Input::Wake | Input::Incoming { .. } | Input::Queue { .. } => Ok(()),
            Input::Bound { listener, .. } => match self.listeners.get(*listener) {
                Some(ListenerRecord { state: state::ListenerState::Binding, .. }) => Ok(()),
                _ => Err(Misuse::NotBinding(*listener)),
            },
            Input::Unbound { listener } => match self.listeners.get(*listener) {
                Some(ListenerRecord { state: state::ListenerState::Closing, .. }) => Ok(()),
                _ => Err(Misuse::NotUnbinding(*listener)),
            },
            Input::Spawned { worker, .. } | Input::SpawnFailed { worker, .. } => {
                match self.workers.get(*worker) {
                    // A worker that has spoken runs: a failed start would lose what is in flight
                    // there.
                    Some(WorkerRecord { pid: None, exit: None, codec: None, .. }) => Ok(()),
                    _ => Err(Misuse::NotStarting(*worker)),
                }
            }
            Input::Hello { worker, .. }
            | Input::Message { worker, .. }
            | Input::FrameBegun { worker }
            | Input::Violation { worker, .. }
            | Input::ChannelClosed { worker }
            | Input::Exited { worker, .. }
            | Input::HandoffFailed { worker, .. }
            | Input::InDoubt { worker, .. }
            | Input::Stray { worker }
            | Input::Connections { worker, .. }
            | Input::Command(Command::Ping(worker)) => self.permit_worker(*worker),
            Input::Command(Command::Stop | Command::StopNow) => Ok(()),
        }
    }

    fn permit_worker(&self, worker: WorkerId) -> Result<(), Misuse> {
        if worker < self.next_worker { Ok(()) } else { Err(Misuse::UnknownWorker(worker)) }
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
