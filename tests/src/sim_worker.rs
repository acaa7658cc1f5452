//! A worker in a simulation: its end of the channel, and what it does when told to.

use std::collections::VecDeque;

use roundel_core::{
    ConnId, Errno, ExitStatus, FromWorker, ListenKey, ListenerId, Seq, Slot, ToWorker, WorkerId,
};

/// What a worker has written and the primary has not read.
#[derive(Clone, Debug)]
pub enum Up {
    /// The bytes that tell its codec.
    Hello,
    /// A message.
    Msg(FromWorker),
    /// Bytes that are no message.
    Garbage,
    /// A frame that does not end.
    Half,
}

/// A connection that reached a worker and is not answered.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its number.
    pub seq: Seq,
    /// Where it came from.
    pub listener: ListenerId,
    /// Which one.
    pub conn: ConnId,
}

/// A process and its end of the channel.
#[derive(Debug)]
pub struct SimWorker {
    /// Its id.
    pub id: WorkerId,
    /// Its slot.
    pub slot: Slot,
    /// Written, not yet read by the primary.
    pub up: VecDeque<Up>,
    /// Sent by the primary, not yet read by the worker.
    pub down: VecDeque<(ToWorker, Option<ConnId>)>,
    /// Arrived and unanswered.
    pub holds: Vec<Held>,
    /// Numbers that it has answered, for answering them again.
    pub answered: Vec<Seq>,
    /// What it may listen on.
    pub granted: Vec<(ListenerId, ListenKey)>,
    /// Its asks without an answer.
    pub asked: Vec<(Seq, ListenKey)>,
    /// The core was told that it runs.
    pub started: bool,
    /// It has said hello.
    pub introduced: bool,
    /// The process lives.
    pub alive: bool,
    /// Somebody, it or a grandchild, has the other end open.
    pub open: bool,
    /// The primary shut down its receiving side.
    pub fenced: bool,
    /// The core was told that the channel has ended.
    pub ended: bool,
    /// How it ended, until it is reaped.
    pub exit: Option<ExitStatus>,
    /// The core was told that the process has ended.
    pub reaped: bool,
    /// Kills do nothing: it hangs in the kernel.
    pub hangs: bool,
    /// It was killed while it hung: it never comes back.
    pub doomed: bool,
    /// A grandchild has the channel, too.
    pub grandchild: bool,
    /// It reads and answers nothing.
    pub stalls: bool,
    /// It was told to leave.
    pub leaving: bool,
    next_seq: u64,
}

impl SimWorker {
    /// A process that has just been started.
    pub fn new(id: WorkerId, slot: Slot) -> Self {
        SimWorker {
            id,
            slot,
            up: VecDeque::new(),
            down: VecDeque::new(),
            holds: Vec::new(),
            answered: Vec::new(),
            granted: Vec::new(),
            asked: Vec::new(),
            started: false,
            introduced: false,
            alive: false,
            open: false,
            fenced: false,
            ended: false,
            exit: None,
            reaped: false,
            hangs: false,
            doomed: false,
            grandchild: false,
            stalls: false,
            leaving: false,
            next_seq: 1,
        }
    }

    /// A number for a message that wants an answer.
    pub fn take_seq(&mut self) -> Seq {
        let seq = Seq::from_raw(self.next_seq).unwrap_or_else(|| unreachable!("counts from 1"));
        self.next_seq += 1;
        seq
    }

    /// Writes to the channel; false if that fails as it would with EPIPE.
    pub fn write(&mut self, up: Up) -> bool {
        let works = self.alive && self.open && !self.fenced;
        if works {
            self.up.push_back(up);
        }
        works
    }

    /// Says something.
    pub fn say(&mut self, msg: FromWorker) -> bool {
        self.write(Up::Msg(msg))
    }

    /// Asks to listen.
    pub fn ask(&mut self, key: &ListenKey) {
        let seq = self.take_seq();
        let key = key.clone();
        self.asked.push((seq, key.clone()));
        let key = Box::new(key);
        self.say(FromWorker::Query { seq, key, backlog: 0, data: Vec::new() });
    }

    /// Reads everything that the primary sent.
    pub fn read(&mut self) {
        if !self.alive {
            return;
        }
        while let Some((msg, conn)) = self.down.pop_front() {
            match msg {
                ToWorker::NewConn { first_seq, listener, .. } => {
                    if let Some(conn) = conn {
                        self.holds.push(Held { seq: first_seq, listener, conn });
                    }
                }
                ToWorker::QueryReply { ack, result } => {
                    let at = self.asked.iter().position(|asked| asked.0 == ack);
                    let Some((_, key)) = at.map(|at| self.asked.remove(at)) else { continue };
                    if let Ok(granted) = result {
                        self.granted.push((granted.listener, key));
                        self.say(FromWorker::Listening { listener: granted.listener });
                    }
                }
                ToWorker::Ping { seq } => {
                    self.say(FromWorker::Pong { ack: seq });
                }
                ToWorker::Drain { .. } | ToWorker::Disconnect => self.leaving = true,
                _ => {}
            }
        }
    }

    /// Ends the process. Its answers that are not read stay readable.
    pub fn die(&mut self, status: ExitStatus) {
        if self.alive {
            self.alive = false;
            self.exit = Some(status);
            self.open = self.grandchild;
            self.holds.clear();
            self.down.clear();
        }
    }

    /// An answer to nothing.
    pub fn stray(&mut self, raw: u64) {
        if let Some(ack) = Seq::from_raw(raw) {
            self.say(FromWorker::Ack { ack, accepted: raw.is_multiple_of(2) });
        }
    }
}

/// The errno of a failed bind in a simulation.
pub const BIND_ERRNO: Errno = Errno::EADDRINUSE;
