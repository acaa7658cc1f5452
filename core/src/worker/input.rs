//! The inputs of a worker's machine.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{ConnRange, ListenKey, ListenerId, ToWorker};

/// Something that happened, or that the program wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WorkerInput {
    /// Time has passed. Always safe to send.
    Wake,
    /// The primary sent a message.
    Message {
        /// The message.
        msg: ToWorker,
        /// Every handle that came with it, admitted to custody, also that of a shared listener. If
        /// there are fewer than the message announces, they are its first ones.
        handles: ConnRange,
    },
    /// The oldest [`Send`](crate::WorkerOutput::Send) that has not been confirmed by this input yet
    /// is entirely in the kernel.
    Sent,
    /// The channel has ended: end of file, or EPIPE or ECONNRESET on a send. Report `Sent` first
    /// for what had got into the kernel before.
    ChannelClosed,
    /// The program wants to listen. Answer: `Granted` or `Refused`.
    Listen {
        /// The embedder's number of this ask, which the answer names.
        ask: u32,
        /// Where. The machine fills the index in.
        key: Box<ListenKey>,
        /// For listen(2); 0 means the default.
        backlog: u32,
        /// Opaque; all workers get the first worker's value.
        data: Vec<u8>,
    },
    /// The program wants a connection now. If there is none, this does nothing, and is not
    /// remembered: a program that stops waiting loses nothing.
    Take {
        /// From this listener only.
        listener: Option<ListenerId>,
    },
    /// The program can't take the next connection: another worker may.
    Decline {
        /// Of this listener only.
        listener: Option<ListenerId>,
    },
    /// The program closed a listener.
    CloseListener {
        /// Which one.
        listener: ListenerId,
    },
    /// The program is failing: it finishes what it has, and wants to be replaced at once.
    RequestReplacement,
    /// The program leaves of its own will.
    Leave,
    /// The program is ready. Under
    /// [`Config::wait_ready`](crate::Config::wait_ready) the worker serves only from then on.
    Ready,
    /// How many connections the program has open.
    Load {
        /// The number of them.
        open: u32,
    },
}
