//! What a worker is told.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{ConnRange, ListenKey, ListenerId, ToWorker};

/// Something that happened, or that the program wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WorkerInput {
    /// Time has passed. Always safe to say.
    Wake,
    /// The primary said this.
    Message {
        /// What.
        msg: ToWorker,
        /// Every handle that came with it, admitted to custody, a shared listener's too. Fewer
        /// than the message speaks of stand for its first ones.
        handles: ConnRange,
    },
    /// The oldest [`Send`](crate::WorkerOutput::Send) that this was not yet said of is entirely
    /// in the kernel.
    Sent,
    /// The channel has ended: end of file, or EPIPE or ECONNRESET on a send. Say `Sent` first for
    /// what had got into the kernel before.
    ChannelClosed,
    /// The program wants to listen. Answer: `Granted` or `Refused`.
    Listen {
        /// The embedder's number of this ask, which the answer names.
        ask: u32,
        /// Where. The machine fills the index in.
        key: Box<ListenKey>,
        /// For listen(2); 0 means the default.
        backlog: u32,
        /// Opaque; the first worker's value goes to all.
        data: Vec<u8>,
    },
    /// The program wants a connection now. With nothing there this does nothing, and is not
    /// remembered: a program that stops waiting loses nothing.
    Take {
        /// From this listener only.
        listener: Option<ListenerId>,
    },
    /// The program can't have the connection that is next: another worker may.
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
    /// How many connections the program has open.
    Load {
        /// As many.
        open: u32,
    },
}
