//! A worker's program, whichever protocol it speaks, and the channel that it has.

use roundel_core::{FromWorker, ListenKey, Seq, Time, WorkerInput};

use super::native::Native;
use super::node::Node;
use super::pipe::Pipe;
use super::socket::{Handle, Socket};

/// Both directions of a channel.
#[derive(Debug)]
pub struct Channel {
    /// From the primary to the worker.
    pub down: Pipe<Handle>,
    /// From the worker to the primary.
    pub up: Pipe<Handle>,
}

impl Channel {
    /// A channel that holds so many bytes on the way to the worker and back.
    pub fn new(down: usize, up: usize) -> Channel {
        Channel { down: Pipe::new(down), up: Pipe::new(up) }
    }

    /// The worker's end is closed, by its last holder.
    pub fn worker_closes(&mut self) {
        if !self.up.is_ended() {
            if self.down.abandon() {
                self.up.reset();
            }
            self.up.end();
        }
    }
}

/// How a worker reads.
pub struct Reading<'a> {
    /// So many bytes at most in all.
    pub budget: usize,
    /// How many in one read.
    pub size: &'a mut dyn FnMut() -> usize,
    /// For so many handles it has descriptors.
    pub room: usize,
    /// A deliberate fault: handles of one read change places.
    pub swap: bool,
}

/// What a program saw that a simulation wants to know of.
#[derive(Debug, Default)]
pub struct Saw {
    /// Something that can't be.
    pub wrong: Option<String>,
    /// Handles that did not fit.
    pub lost_handles: u64,
    /// Messages with fewer handles than connections.
    pub short_batches: u64,
    /// Reads with several messages.
    pub merged_reads: u64,
    /// Messages that were half written when the pipe was full.
    pub short_writes: u64,
    /// Ends of a channel with an acceptance not written.
    pub unsent_at_end: u64,
    /// Acceptances that had to wait for an answer to a handle.
    pub held_back: u64,
}

/// A program.
#[derive(Debug)]
pub enum Program {
    /// Ours.
    Native(Box<Native>),
    /// Node's.
    Node(Box<Node>),
}

impl Program {
    /// Reads what is there.
    pub fn read(&mut self, now: Time, channel: &mut Channel, reading: &mut Reading<'_>) {
        match self {
            Program::Native(native) => native.read(now, channel, reading),
            Program::Node(node) => node.read(channel, reading),
        }
    }

    /// Sends what waits.
    pub fn flush(&mut self, now: Time, channel: &mut Channel) {
        if let Program::Native(native) = self {
            native.input(now, WorkerInput::Wake, channel);
        }
    }

    /// Takes a connection that waits, or declines it. A Node program takes what comes when it
    /// reads: it says here whether it wants more.
    pub fn answer(&mut self, now: Time, nth: usize, accepted: bool, channel: &mut Channel) {
        match self {
            Program::Native(native) => native.take(now, nth, accepted, channel),
            Program::Node(node) => node.set_full(!accepted),
        }
    }

    /// Takes everything that waits.
    pub fn take_all(&mut self, now: Time, channel: &mut Channel) {
        match self {
            Program::Native(native) => {
                let mut before = usize::MAX;
                while native.untaken() < before {
                    before = native.untaken();
                    native.take(now, 0, true, channel);
                }
            }
            Program::Node(node) => node.set_full(false),
        }
    }

    /// Asks to listen.
    pub fn ask(&mut self, now: Time, key: &ListenKey, channel: &mut Channel) {
        match self {
            Program::Native(native) => native.ask(now, key, channel),
            Program::Node(node) => node.ask(key, channel),
        }
    }

    /// What of these it neither has nor has asked for.
    pub fn lacks(&self, keys: &[ListenKey]) -> Option<ListenKey> {
        match self {
            Program::Native(native) => native.lacks(keys),
            Program::Node(node) => node.lacks(keys),
        }
    }

    /// Closes the nth listener.
    pub fn close(&mut self, now: Time, nth: usize, channel: &mut Channel) {
        match self {
            Program::Native(native) => native.close(now, nth, channel),
            Program::Node(node) => node.close(nth, channel),
        }
    }

    /// Says that it fails.
    pub fn request_replacement(&mut self, now: Time, channel: &mut Channel) {
        match self {
            Program::Native(native) => native.input(now, WorkerInput::RequestReplacement, channel),
            Program::Node(node) => node.send(channel, "{\"act\":\"suicide\"}\n".into()),
        }
    }

    /// Leaves of its own will.
    pub fn leave(&mut self, now: Time, channel: &mut Channel) {
        match self {
            Program::Native(native) => {
                native.set_leaving();
                native.input(now, WorkerInput::Leave, channel);
            }
            Program::Node(node) => node.leave(channel),
        }
    }

    /// Answers a number that it was not given.
    pub fn stray(&mut self, raw: u64, accepted: bool, channel: &mut Channel) {
        match self {
            Program::Native(native) => {
                if let Some(ack) = Seq::from_raw(raw) {
                    native.say_raw(&FromWorker::Ack { ack, accepted }, channel);
                }
            }
            Program::Node(node) => node.send(channel, node_ack(raw * 2, accepted)),
        }
    }

    /// Answers the last number again.
    pub fn repeat(&mut self, accepted: bool, channel: &mut Channel) {
        match self {
            Program::Native(native) => {
                if let Some(ack) = native.answered() {
                    native.say_raw(&FromWorker::Ack { ack, accepted }, channel);
                }
            }
            Program::Node(node) => {
                if let Some(ack) = node.answered() {
                    node.send(channel, node_ack(ack, accepted));
                }
            }
        }
    }

    /// Says something that leads to nothing much: its load, or a word of the program's own.
    pub fn chat(&mut self, now: Time, open: u32, channel: &mut Channel) {
        match self {
            Program::Native(native) => native.input(now, WorkerInput::Load { open }, channel),
            Program::Node(node) => match open % 8 {
                0 | 2 | 4 => node.send(channel, "\"ready\"\n".into()),
                3 => node.report(channel, r#""act":"lag","data":20"#),
                5 => node.report(channel, r#""act":"stopSignal","data":"SIGTERM""#),
                6 => node.report(channel, r#""act":"load","data":3"#),
                7 => node.report(channel, r#""act":"stopSignal","data":null"#),
                _ => node.send(channel, "{\"cmd\":\"hi\"}\n".into()),
            },
        }
    }

    /// Says something of no consequence behind the machine's back.
    pub fn babble(&mut self, open: u32, channel: &mut Channel) {
        match self {
            Program::Native(native) => native.say_raw(&FromWorker::Load { open }, channel),
            Program::Node(node) => node.send(channel, "\"flood\"\n".into()),
        }
    }

    /// Asks for a listener and does not wait for the answer.
    pub fn ask_in_vain(&mut self, nth: u32, key: &ListenKey, channel: &mut Channel) {
        match self {
            Program::Native(native) => {
                let Some(seq) = Seq::from_raw(1_000_000 + u64::from(nth)) else { return };
                let (key, data) = (Box::new(key.clone()), Vec::new());
                native.say_raw(&FromWorker::Query { seq, key, backlog: 0, data }, channel);
            }
            Program::Node(node) => node.ask(key, channel),
        }
    }

    /// What the program was given since the last call.
    pub fn take_delivered(&mut self) -> Vec<Socket> {
        match self {
            Program::Native(native) => native.take_delivered(),
            Program::Node(node) => node.take_delivered(),
        }
    }

    /// Whether it is on its way out.
    pub fn is_leaving(&self) -> bool {
        match self {
            Program::Native(native) => native.is_leaving(),
            Program::Node(node) => node.is_leaving(),
        }
    }

    /// Whether it may exit.
    pub fn is_done(&self) -> bool {
        match self {
            Program::Native(native) => native.is_done(),
            Program::Node(node) => node.is_done(),
        }
    }

    /// What it saw, for counting; reset by the call.
    pub fn take_saw(&mut self) -> Saw {
        std::mem::take(match self {
            Program::Native(native) => &mut native.saw,
            Program::Node(node) => &mut node.saw,
        })
    }
}

fn node_ack(ack: u64, accepted: bool) -> String {
    format!("{{\"cmd\":\"NODE_CLUSTER\",\"ack\":{ack},\"accepted\":{accepted},\"seq\":77}}\n")
}
