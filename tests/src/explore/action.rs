//! What can happen next.

use std::fmt;

/// One step of a run. Workers are named by their id, connections at a worker by their place among
/// those that it has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The listener is bound, or can't be.
    Bind(bool),
    /// Everything that had come was accepted, and the listener is closed.
    Unbind,
    /// A connection is accepted by the primary.
    Arrive,
    /// The process is started.
    Spawn(u8),
    /// The process can't be started.
    SpawnFails(u8),
    /// Nothing is to be had to start the process.
    SpawnStarves(u8),
    /// The worker says who it is and asks to listen.
    Introduce(u8),
    /// The worker reads the answer to that and listens.
    Listen(u8),
    /// The worker takes the nth connection that it was sent.
    Accept(u8, u8),
    /// The worker declines the nth connection that it was sent.
    Decline(u8, u8),
    /// The worker takes its first connection and holds its answer back, as a Node program may.
    Doubt(u8),
    /// The worker announces that it is failing.
    Suicide(u8),
    /// The worker announces that it leaves.
    Leave(u8),
    /// The worker writes what is no message.
    Garbage(u8),
    /// A worker that is leaving has done everything and exits.
    Exit(u8),
    /// The process is killed by a signal that the primary did not send.
    Crash(u8),
    /// The same, and a process that it started keeps the channel open.
    CrashLeavingChild(u8),
    /// SIGSTOP.
    Suspend(u8),
    /// SIGCONT.
    Continue(u8),
    /// The process hangs in the kernel: it does nothing, and no signal ends it.
    Hang(u8),
    /// The worker closes its end of the channel and lives on.
    CloseChannel(u8),
    /// The last handoff in the channel could not be sent, and never will be.
    HandoffFails(u8),
    /// The primary reads one message.
    Read(u8),
    /// The primary reads the end of the channel.
    ReadEnd(u8),
    /// The primary learns that the process has ended.
    Reap(u8),
    /// The operator wants a shutdown.
    Stop,
    /// The operator wants it at once.
    StopNow,
    /// The operator wants new workers.
    Reload,
    /// Time passes until the next deadline, and the primary is woken.
    Tick,
    /// The same, but the machine sleeps until long after the deadline.
    Oversleep,
}

impl Action {
    /// Whether it is one of the run's troubles.
    pub fn is_trouble(self) -> bool {
        matches!(
            self,
            Action::Bind(false)
                | Action::SpawnFails(_)
                | Action::SpawnStarves(_)
                | Action::Decline(..)
                | Action::Doubt(_)
                | Action::Suicide(_)
                | Action::Leave(_)
                | Action::Garbage(_)
                | Action::Crash(_)
                | Action::CrashLeavingChild(_)
                | Action::Suspend(_)
                | Action::Hang(_)
                | Action::CloseChannel(_)
                | Action::HandoffFails(_)
                | Action::Oversleep
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::Bind(true) => f.write_str("the listener is bound"),
            Action::Bind(false) => f.write_str("the listener can't be bound"),
            Action::Unbind => f.write_str("the listener is closed"),
            Action::Arrive => f.write_str("a connection arrives"),
            Action::Spawn(w) => write!(f, "w{w} is started"),
            Action::SpawnFails(w) => write!(f, "w{w} can't be started"),
            Action::SpawnStarves(w) => write!(f, "nothing is to be had to start w{w}"),
            Action::Introduce(w) => write!(f, "w{w} says hello and asks to listen"),
            Action::Listen(w) => write!(f, "w{w} listens"),
            Action::Accept(w, nth) => write!(f, "w{w} accepts its unanswered connection {nth}"),
            Action::Decline(w, nth) => write!(f, "w{w} declines its unanswered connection {nth}"),
            Action::Doubt(w) => write!(f, "w{w} takes a connection and does not say so"),
            Action::Suicide(w) => write!(f, "w{w} says that it is failing"),
            Action::Leave(w) => write!(f, "w{w} says that it leaves"),
            Action::Garbage(w) => write!(f, "w{w} writes what is no message"),
            Action::Exit(w) => write!(f, "w{w} has done everything and exits"),
            Action::Crash(w) => write!(f, "w{w} crashes"),
            Action::CrashLeavingChild(w) => write!(f, "w{w} crashes, a child keeps its channel"),
            Action::Suspend(w) => write!(f, "w{w} is suspended"),
            Action::Continue(w) => write!(f, "w{w} goes on"),
            Action::Hang(w) => write!(f, "w{w} hangs in the kernel"),
            Action::CloseChannel(w) => write!(f, "w{w} closes its channel and lives on"),
            Action::HandoffFails(w) => write!(f, "the last handoff to w{w} can't be sent"),
            Action::Read(w) => write!(f, "the primary reads a message of w{w}"),
            Action::ReadEnd(w) => write!(f, "the primary reads the end of w{w}'s channel"),
            Action::Reap(w) => write!(f, "the primary learns that w{w} has ended"),
            Action::Stop => f.write_str("the operator stops the cluster"),
            Action::StopNow => f.write_str("the operator stops the cluster at once"),
            Action::Reload => f.write_str("the operator reloads the cluster"),
            Action::Tick => f.write_str("time passes until the next deadline"),
            Action::Oversleep => f.write_str("the machine sleeps past the next deadline"),
        }
    }
}
