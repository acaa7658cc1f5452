//! What the primary wants the embedder to do.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::state::ReloadFailure;
use crate::{
    Address, Attach, Codec, ConnId, Errno, ExitClass, ExitStatus, ListenKey, ListenerId, Seq,
    Signal, Slot, SockName, SpawnError, Time, ToWorker, Violation, WorkerId,
};

/// Something to do, in the order in which it was polled, without waiting.
///
/// Ignore an output for a worker or listener that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Output {
    /// Start a worker process with a channel: see
    /// [what it is started with](crate::docs::starting_workers). Answer: `Spawned` or `SpawnFailed`.
    Spawn {
        /// Its id.
        worker: WorkerId,
        /// Its slot.
        slot: Slot,
        /// Its generation, from 1; a reload begins a new one.
        generation: u32,
    },
    /// Send a signal to the worker's process; with [`Signal::Kill`], to its whole process group.
    Kill {
        /// The worker.
        worker: WorkerId,
        /// What.
        signal: Signal,
    },
    /// Shut down the receiving side of our end of the channel (shutdown(2), SHUT_RD), read what is
    /// there to its end, then report `ChannelClosed`. Nothing else closes a channel before its end
    /// of file.
    ShutdownRead {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker's channel and process have ended: drop what belongs to it.
    Forget {
        /// The worker.
        worker: WorkerId,
    },
    /// Bind and listen, but do not accept yet. Answer: `Bound`.
    Bind {
        /// The name of the new listener.
        listener: ListenerId,
        /// Where and what.
        key: Box<ListenKey>,
        /// For listen(2); 0 means the default.
        backlog: u32,
    },
    /// Accept until nothing is left, if [`Primary::is_emptied`](crate::Primary::is_emptied) says
    /// so, close the listener, then report `Unbound`. If something is lacking for that, or while
    /// the primary [is full](crate::Primary::is_full), this may take any time: `Close` ends it.
    Unbind {
        /// Which one.
        listener: ListenerId,
    },
    /// Begin or continue to accept, and report `Incoming` for each connection.
    ResumeAccept {
        /// Which one.
        listener: ListenerId,
    },
    /// Stop accepting.
    PauseAccept {
        /// Which one.
        listener: ListenerId,
    },
    /// Send a message, behind everything that was sent to this worker before: see
    /// [what a send that fails means](crate::docs::embedding#when-a-send-fails).
    Send {
        /// The worker.
        worker: WorkerId,
        /// What.
        msg: ToWorker,
        /// The handle that travels on its first byte.
        attach: Option<Attach>,
    },
    /// The connection has ended for the primary: take it out of custody and close this copy.
    /// Exactly one of these ends each connection.
    Release {
        /// Which one.
        conn: ConnId,
        /// Why.
        end: ConnEnd,
    },
    /// Count the client connections that these leaving workers have open: sockets among the
    /// descriptors of the worker's process group whose local address is that of a listener. It may
    /// take some time. Answer: `Connections` for each of them; none is asked for again within a
    /// second.
    CountConnections {
        /// The workers.
        workers: Vec<WorkerId>,
    },
    /// For the log.
    Event(Event),
    /// The last output: everything has ended.
    Stopped(Verdict),
    /// Close a listener at once, whatever waits in its queue, then report `Unbound`: nobody is left
    /// to serve it. If the listener is being emptied for `Unbind`, stop that, and report `Unbound`
    /// once.
    Close {
        /// Which one.
        listener: ListenerId,
    },
}

/// How a connection ended for the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConnEnd {
    /// This worker has it now.
    AcceptedBy(WorkerId),
    /// No worker has it: closing it tells the client.
    Refused(Refusal),
}

/// Why no worker serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// Its listener had as many pending as it may.
    Overflow,
    /// Too many workers died while it was in flight at them.
    Attempts,
    /// Its listener was closed.
    Closed,
    /// The shutdown's deadline passed.
    Shutdown,
    /// Its worker died, and may or may not have served it ([`Input::InDoubt`]).
    ///
    /// [`Input::InDoubt`]: crate::Input::InDoubt
    Unknown,
}

impl Refusal {
    /// As the event log writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::Overflow => "overflow",
            Refusal::Attempts => "attempts",
            Refusal::Closed => "closed",
            Refusal::Shutdown => "shutdown",
            Refusal::Unknown => "unknown",
        }
    }
}

/// Why the primary ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Verdict {
    /// It was asked to, or no worker will be started again.
    Stopped,
    /// Every slot was given up.
    CrashLoop,
    /// An operator's listener could not be bound.
    CannotBind {
        /// Where.
        address: Address,
        /// Why.
        errno: Errno,
    },
    /// The program to run does not exist.
    ProgramMissing,
    /// The program to run can't be executed.
    NotExecutable {
        /// Why.
        errno: Errno,
    },
}

/// Something worth logging. [`Output::Send`] and [`Output::Release`] show what happens to single
/// connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what their types say")]
pub enum Event {
    /// A worker's process runs.
    Spawned { worker: WorkerId, slot: Slot, generation: u32, pid: i32 },
    /// A worker's process could not be started. If resources are lacking, this is reported once,
    /// until a start in that slot succeeds or fails for another reason.
    SpawnFailed { worker: WorkerId, slot: Slot, cause: SpawnError },
    /// A worker speaks the protocol.
    Online { worker: WorkerId, codec: Codec },
    /// A worker serves.
    Ready { worker: WorkerId },
    /// A worker has sent nothing for a long time.
    Silent { worker: WorkerId },
    /// A worker is online, and has not asked to listen within the ready timeout. That is right for
    /// a program that serves no connections.
    NotListening { worker: WorkerId },
    /// A worker is failing and was, or will be, replaced.
    Failing { worker: WorkerId },
    /// A worker announced that it leaves.
    Leaving { worker: WorkerId },
    /// A worker must leave: it gets nothing more, and is told to leave within this time.
    Settling { worker: WorkerId, within: Duration },
    /// A worker was sent a signal, so that it ends.
    Signalled { worker: WorkerId, signal: Signal },
    /// A worker was told to leave.
    Draining { worker: WorkerId, within: Duration },
    /// A worker answered a ping.
    Pong { worker: WorkerId, seq: Seq },
    /// A worker is being killed; `class` is how its end will be classed, and `violation` gives
    /// details.
    Killing { worker: WorkerId, class: ExitClass, violation: Option<Violation> },
    /// A worker's channel ended with this many connections in flight.
    ChannelClosed { worker: WorkerId, in_flight: u32 },
    /// A worker's process ended.
    Exited { worker: WorkerId, slot: Slot, status: ExitStatus, class: ExitClass },
    /// A connection goes back to its queue because its worker died.
    Redispatched { conn: ConnId, worker: WorkerId, attempts: u8 },
    /// A connection goes back to its queue because the worker declined it.
    Declined { conn: ConnId, worker: WorkerId },
    /// A connection goes back to its queue because it could not be sent.
    HandoffFailed { conn: ConnId, worker: WorkerId, errno: Errno },
    /// A slot waits before its next worker is started.
    RespawnDelayed { slot: Slot, delay: Duration },
    /// A slot failed too often.
    GivenUp { slot: Slot, failures: u32 },
    /// A slot's worker ended and is not replaced.
    Ended { slot: Slot },
    /// A listener is bound.
    Bound { listener: ListenerId, sockname: SockName },
    /// A listener could not be bound.
    BindFailed { address: Address, errno: Errno },
    /// A listener is closed.
    Unbound { listener: ListenerId },
    /// Accepting stopped at a listener.
    AcceptPaused { listener: ListenerId },
    /// Accepting goes on at a listener.
    AcceptResumed { listener: ListenerId },
    /// The shutdown began.
    Stopping { deadline: Time },
    /// A connection has waited at a listener for [`STALLED_AFTER`](crate::STALLED_AFTER) although
    /// this worker is idle. `pending` connections are pending; if none is, the connection waits in
    /// the kernel's queue. There is a fault in the driver or in this crate.
    Stalled { listener: ListenerId, worker: WorkerId, pending: u32 },
    /// A worker asked for an address of which the operator's `bind` is only a part. Reported once
    /// for each listener of the operator.
    BindTooNarrow { worker: WorkerId, address: Address, bind: Address },
    /// All workers are ready, and none has asked for this listener of the operator. Reported once.
    BindUnused { listener: ListenerId, address: Address },
    /// A reload began: so many slots get workers of this generation.
    ReloadStarted { generation: u32, slots: u32 },
    /// So many slots of a reload were replaced.
    ReloadProgress { generation: u32, done: u32, slots: u32 },
    /// A reload is done: all old workers were told to leave.
    ReloadDone { generation: u32 },
    /// A reload failed, or never began.
    ReloadFailed { generation: u32, failure: ReloadFailure },
    /// A worker is being replaced.
    Recycling { worker: WorkerId, slot: Slot },
    /// A worker is replaced.
    Recycled { worker: WorkerId, slot: Slot },
    /// A worker could not be replaced, and goes on.
    RecycleFailed { worker: WorkerId, slot: Slot, failure: ReloadFailure },
    /// Another number of workers is kept from now on.
    Scaled { from: u32, to: u32 },
    /// The operator paused the cluster.
    Paused,
    /// The operator ended the pause.
    Resumed,
    /// A slot that was given up is tried again.
    Retrying { slot: Slot },
}

impl Event {
    /// As the event log writes it: stable names in snake case.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::Spawned { .. } => "spawned",
            Event::SpawnFailed { .. } => "spawn_failed",
            Event::Online { .. } => "online",
            Event::Ready { .. } => "ready",
            Event::Silent { .. } => "silent",
            Event::NotListening { .. } => "not_listening",
            Event::Failing { .. } => "suicide",
            Event::Leaving { .. } => "leaving",
            Event::Settling { .. } => "settling",
            Event::Signalled { .. } => "signalled",
            Event::Draining { .. } => "draining",
            Event::Pong { .. } => "pong",
            Event::Killing { .. } => "killing",
            Event::ChannelClosed { .. } => "channel_closed",
            Event::Exited { .. } => "exited",
            Event::Redispatched { .. } => "redispatched",
            Event::Declined { .. } => "declined",
            Event::HandoffFailed { .. } => "handoff_failed",
            Event::RespawnDelayed { .. } => "respawn_delayed",
            Event::GivenUp { .. } => "given_up",
            Event::Ended { .. } => "ended",
            Event::Bound { .. } => "bound",
            Event::BindFailed { .. } => "bind_failed",
            Event::Unbound { .. } => "unbound",
            Event::AcceptPaused { .. } => "accept_paused",
            Event::AcceptResumed { .. } => "accept_resumed",
            Event::Stopping { .. } => "stopping",
            Event::Stalled { .. } => "stalled",
            Event::BindTooNarrow { .. } => "bind_too_narrow",
            Event::BindUnused { .. } => "bind_unused",
            Event::ReloadStarted { .. } => "reload_started",
            Event::ReloadProgress { .. } => "reload_progress",
            Event::ReloadDone { .. } => "reload_done",
            Event::ReloadFailed { .. } => "reload_failed",
            Event::Recycling { .. } => "recycling",
            Event::Recycled { .. } => "recycled",
            Event::RecycleFailed { .. } => "recycle_failed",
            Event::Scaled { .. } => "scaled",
            Event::Paused => "paused",
            Event::Resumed => "resumed",
            Event::Retrying { .. } => "retrying",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Stopped => f.write_str("stopped"),
            Verdict::CrashLoop => f.write_str("every worker slot failed too often"),
            Verdict::CannotBind { address, errno } => write!(f, "cannot bind {address}: {errno}"),
            Verdict::ProgramMissing => f.write_str("the program does not exist"),
            Verdict::NotExecutable { errno } => {
                write!(f, "the program cannot be executed: {errno}")
            }
        }
    }
}
