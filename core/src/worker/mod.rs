//! The worker's side, driven by `handle_input` and `poll_output` like the primary.

#[cfg(feature = "inspect")]
mod check;
mod conns;
mod input;
mod listeners;
mod output;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

pub use input::WorkerInput;
pub use output::WorkerOutput;

use crate::{ConnRange, Deadline, FromWorker, ListenerId, Misuse, Seq, Time, ToWorker};
use conns::Unsent;
use listeners::{Ask, Listener};

/// The worker's protocol as a value.
///
/// It answers each connection that the primary hands over exactly once, and gives one to the
/// program only after its acceptance is in the kernel (guarantee 3: no connection is served twice).
/// Connections that the program has not taken stay the primary's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Worker {
    now: Time,
    phase: Phase,
    suicide: Notice,
    leave: Notice,
    /// Asks without an answer yet.
    asks: Vec<Ask>,
    listeners: Vec<Listener>,
    /// Connections that wait at the listeners.
    untaken: u32,
    /// Every `Send` that is not known to be in the kernel, oldest first.
    unsent: VecDeque<Unsent>,
    /// How many of `unsent` were polled.
    polled: usize,
    outputs: VecDeque<WorkerOutput>,
    next_seq: Seq,
    /// The number of the last handle received.
    last_conn: u64,
    /// Messages that named nothing known.
    strays: u64,
}

/// How far a worker is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Phase {
    /// It takes what comes.
    Serving,
    /// The primary wants it to leave: it may take what has arrived.
    Draining,
    /// It leaves by itself: it takes nothing more.
    Leaving,
    /// The channel has ended.
    Gone,
}

/// A message that is sent once and that the primary confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Notice {
    Unsaid,
    Said(Seq),
    Confirmed,
}

impl Worker {
    /// A worker that has just started: its first output tells the primary so.
    pub fn new() -> Self {
        let mut worker = Worker {
            now: Time::ZERO,
            phase: Phase::Serving,
            suicide: Notice::Unsaid,
            leave: Notice::Unsaid,
            asks: Vec::new(),
            listeners: Vec::new(),
            untaken: 0,
            unsent: VecDeque::new(),
            polled: 0,
            outputs: VecDeque::new(),
            next_seq: Seq::FIRST,
            last_conn: 0,
            strays: 0,
        };
        worker.send(FromWorker::Online);
        worker
    }

    /// Tells the machine what happened at `now`.
    ///
    /// # Errors
    /// [`Misuse`] if the input is impossible; the state is then unchanged. Nothing that the primary
    /// sends is an error.
    pub fn handle_input(&mut self, now: Time, input: WorkerInput) -> Result<(), Misuse> {
        self.permit(&input)?;
        // A clock that goes back is read as one that stands still.
        self.now = self.now.max(now);
        match input {
            WorkerInput::Wake => {}
            WorkerInput::Message { msg, handles } => self.on_message(msg, handles),
            WorkerInput::Sent => self.on_sent(),
            WorkerInput::ChannelClosed => self.on_channel_closed(),
            WorkerInput::Listen { ask, key, backlog, data } => {
                self.on_listen(ask, key, backlog, data);
            }
            WorkerInput::Take { listener } => self.on_take(listener),
            WorkerInput::Decline { listener } => self.on_decline(listener),
            WorkerInput::CloseListener { listener } => self.on_close(listener),
            WorkerInput::RequestReplacement => self.on_suicide(),
            WorkerInput::Leave => self.on_leave(),
            WorkerInput::Ready => self.send(FromWorker::Ready),
            WorkerInput::Load { open } => self.send(FromWorker::Load { open }),
        }
        Ok(())
    }

    /// The next thing to do; first in, first out.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<WorkerOutput> {
        let output = self.outputs.pop_front();
        if matches!(output, Some(WorkerOutput::Send(_))) && self.phase != Phase::Gone {
            self.polled += 1;
        }
        output
    }

    /// When the machine next wants [`WorkerInput::Wake`]: a worker waits for nothing but its
    /// primary and its program, so never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        None
    }

    /// How many connections have arrived and wait for the program to take them.
    pub fn untaken(&self) -> usize {
        self.untaken as usize
    }

    /// How many of them came from this listener.
    pub fn untaken_at(&self, listener: ListenerId) -> usize {
        self.listener(listener).map_or(0, |record| record.untaken.len())
    }

    /// Whether the channel has ended.
    pub fn is_alone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether a connection that the program took waits for its acceptance to get into the
    /// kernel.
    pub fn awaits_delivery(&self) -> bool {
        self.unsent.iter().any(|unsent| matches!(unsent, Unsent::Acceptance { .. }))
    }

    /// Whether a suicide was sent and the primary has not confirmed it.
    pub fn awaits_suicide_ack(&self) -> bool {
        matches!(self.suicide, Notice::Said(_)) && !self.is_alone()
    }

    /// Whether a leave was sent and the primary has not confirmed it.
    pub fn awaits_leave_ack(&self) -> bool {
        matches!(self.leave, Notice::Said(_)) && !self.is_alone()
    }

    /// Whether there is something to do.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// How many messages of the primary named nothing that this worker knows.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Refuses an impossible input before anything has changed.
    fn permit(&self, input: &WorkerInput) -> Result<(), Misuse> {
        match input {
            WorkerInput::Message { handles, .. } => {
                let mut rest = *handles;
                match rest.next() {
                    Some(first) if first.get() <= self.last_conn => {
                        Err(Misuse::ConnNotRising(first))
                    }
                    _ => Ok(()),
                }
            }
            WorkerInput::Sent if self.polled == 0 && !self.is_alone() => Err(Misuse::NothingSent),
            WorkerInput::Listen { ask, .. } if self.asks.iter().any(|a| a.ask == *ask) => {
                Err(Misuse::AskPending(*ask))
            }
            WorkerInput::Wake
            | WorkerInput::Sent
            | WorkerInput::ChannelClosed
            | WorkerInput::Listen { .. }
            | WorkerInput::Take { .. }
            | WorkerInput::Decline { .. }
            | WorkerInput::CloseListener { .. }
            | WorkerInput::RequestReplacement
            | WorkerInput::Leave
            | WorkerInput::Ready
            | WorkerInput::Load { .. } => Ok(()),
        }
    }

    fn on_message(&mut self, msg: ToWorker, handles: ConnRange) {
        self.last_conn = handles.last_raw().unwrap_or(self.last_conn);
        let mut handles = handles;
        match msg {
            ToWorker::NewConn { first_seq, listener, count } => {
                self.on_new_conn(first_seq, listener, count, &mut handles);
            }
            ToWorker::QueryReply { ack, result } => self.on_reply(ack, result, &mut handles),
            ToWorker::Ack { ack } => self.on_ack(ack),
            ToWorker::Disconnect => {
                self.on_drain(None);
                self.on_leave();
            }
            ToWorker::Drain { deadline_ms } => {
                self.on_drain(Some(self.now + Duration::from_millis(deadline_ms)));
            }
            ToWorker::Ping { seq } => self.send(FromWorker::Pong { ack: seq }),
            // These are not for workers that ask for their listeners.
            ToWorker::PassListener { .. } | ToWorker::Shutdown => self.strays += 1,
        }
        // Discard the handles that no message used.
        for conn in handles {
            self.emit(WorkerOutput::Discard { conn });
        }
    }

    fn on_ack(&mut self, ack: Seq) {
        if self.suicide == Notice::Said(ack) {
            self.suicide = Notice::Confirmed;
            self.emit(WorkerOutput::SuicideAcked);
        } else if self.leave == Notice::Said(ack) {
            // The channel is first in, first out: no connection comes after this.
            self.leave = Notice::Confirmed;
            self.emit(WorkerOutput::CloseChannel);
        } else {
            self.strays += 1;
        }
    }

    fn on_drain(&mut self, deadline: Option<Time>) {
        if self.phase == Phase::Gone {
            return;
        }
        self.phase = self.phase.max(Phase::Draining);
        self.emit(WorkerOutput::Draining { deadline });
    }

    fn on_suicide(&mut self) {
        if self.suicide == Notice::Unsaid && self.phase != Phase::Gone {
            let seq = self.take_seq();
            self.suicide = Notice::Said(seq);
            self.send(FromWorker::Suicide { seq });
            self.step_back();
        }
    }

    fn on_leave(&mut self) {
        if self.leave == Notice::Unsaid && self.phase != Phase::Gone {
            let seq = self.take_seq();
            self.leave = Notice::Said(seq);
            self.send(FromWorker::ExitedAfterDisconnect { seq });
            self.step_back();
        }
    }

    /// Takes nothing more.
    fn step_back(&mut self) {
        self.phase = self.phase.max(Phase::Leaving);
        self.decline_all();
    }

    fn on_channel_closed(&mut self) {
        if self.phase == Phase::Gone {
            return;
        }
        self.phase = Phase::Gone;
        self.drop_unsent();
        self.drop_untaken();
        self.refuse_asks();
        self.emit(WorkerOutput::PrimaryGone);
    }

    fn take_seq(&mut self) -> Seq {
        let seq = self.next_seq;
        self.next_seq = seq.next();
        seq
    }

    fn send(&mut self, msg: FromWorker) {
        self.send_for(msg, Unsent::Plain);
    }

    fn send_for(&mut self, msg: FromWorker, purpose: Unsent) {
        if self.phase != Phase::Gone {
            self.unsent.push_back(purpose);
            self.emit(WorkerOutput::Send(msg));
        }
    }

    fn emit(&mut self, output: WorkerOutput) {
        self.outputs.push_back(output);
    }
}

impl Default for Worker {
    fn default() -> Self {
        Worker::new()
    }
}
