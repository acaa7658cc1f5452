//! A worker's process and its channel, as small as they can be.

use std::time::Duration;

use roundel_core::{ConnId, ExitStatus, Seq, WorkerId};

/// What the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It was asked for and does not run yet.
    Starting,
    /// It runs, and does what it has to sooner or later.
    Running,
    /// It does nothing until it is continued.
    Suspended,
    /// It does nothing for ever, and no signal ends it.
    Hanging,
    /// It has ended.
    Dead,
}

/// What a worker has written and the primary has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Up {
    /// Its codec, `online`, and a query for the listener.
    Introduction,
    /// Its server is up.
    Listening,
    /// An answer.
    Ack(Seq, bool),
    /// It has taken what has this number, and holds its answer back.
    Doubt(Seq),
    /// It is failing.
    Suicide,
    /// It leaves.
    Leave,
    /// No message.
    Garbage,
}

/// What the primary has sent and the worker has not acted upon.
///
/// That a worker reads a message is no step of its own: nobody can see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Down {
    /// It may listen.
    Granted,
    /// A connection.
    Conn(Seq, ConnId),
}

/// A process and its channel.
#[derive(Clone, Debug)]
pub struct Process {
    /// The worker.
    pub id: WorkerId,
    /// Its place.
    pub slot: u32,
    /// What the process does.
    pub state: State,
    /// It was killed before it ran.
    pub condemned: bool,
    /// It has said who it is.
    pub introduced: bool,
    /// It has said, or was told, that it is to leave: it exits when it has nothing to do.
    pub leaving: bool,
    /// It said that it is failing.
    pub suicided: bool,
    /// The primary has killed it.
    pub killed: bool,
    /// From the worker.
    pub up: Vec<Up>,
    /// To the worker.
    pub down: Vec<Down>,
    /// What it has taken without an answer, as a Node program may.
    pub doubted: Option<Seq>,
    /// It closed its end of the channel.
    pub shut: bool,
    /// A child of it keeps its end of the channel open.
    pub child: bool,
    /// The primary has shut down its receiving side.
    pub read_shut: bool,
    /// The primary was told that the channel has ended.
    pub ended: bool,
    /// How the process ended.
    pub exit: Option<ExitStatus>,
    /// The primary was told so.
    pub reaped: bool,
    /// How many numbers the primary has used towards it.
    pub sent: u64,
}

impl Process {
    /// A process that was asked for.
    pub fn new(id: WorkerId, slot: u32) -> Self {
        Process {
            id,
            slot,
            state: State::Starting,
            condemned: false,
            introduced: false,
            leaving: false,
            suicided: false,
            killed: false,
            up: Vec::new(),
            down: Vec::new(),
            doubted: None,
            shut: false,
            child: false,
            read_shut: false,
            ended: false,
            exit: None,
            reaped: false,
            sent: 0,
        }
    }

    /// Whether it runs, as opposed to being suspended, hanging, or not there.
    pub fn runs(&self) -> bool {
        self.state == State::Running
    }

    /// Whether the process is there in any way.
    pub fn lives(&self) -> bool {
        !matches!(self.state, State::Dead | State::Starting)
    }

    /// Whether a running process has something to do: it does it before much time passes.
    pub fn is_busy(&self) -> bool {
        let idle = self.shut || (self.introduced && self.down.is_empty() && !self.leaving);
        self.runs() && !idle
    }

    /// Whether the primary finds the end of the channel behind what is in it.
    pub fn has_end(&self) -> bool {
        let open = (self.lives() && !self.shut) || self.child;
        self.state != State::Starting && (!open || self.read_shut)
    }

    /// Whether the primary has something to read from it.
    pub fn is_readable(&self) -> bool {
        !self.ended && (!self.up.is_empty() || self.has_end())
    }

    /// Whether the process has ended and the primary does not know.
    pub fn is_reapable(&self) -> bool {
        self.state == State::Dead && !self.reaped
    }

    /// Writes to the channel; false if that fails as it would with EPIPE.
    pub fn write(&mut self, up: Up) -> bool {
        let works = self.runs() && !self.shut && !self.read_shut;
        if works {
            self.up.push(up);
        }
        works
    }

    /// Ends the process. What it has written stays readable, what it was sent is gone.
    pub fn die(&mut self, status: ExitStatus) {
        self.state = State::Dead;
        self.exit = Some(status);
        self.down.clear();
        self.doubted = None;
    }

    /// The nth connection that it has not answered, as a place in `down`.
    pub fn unanswered(&self, nth: u8) -> Option<(usize, Seq, ConnId)> {
        let conns = self.down.iter().enumerate().filter_map(|(at, down)| match down {
            Down::Conn(seq, conn) => Some((at, *seq, *conn)),
            Down::Granted => None,
        });
        conns.into_iter().nth(nth.into())
    }
}

/// How long the machine sleeps past a deadline when it oversleeps: more than what counts as late.
pub const NAP: Duration = Duration::from_secs(2);
