//! What a worker's machine wants the embedder to do.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{ConnId, Errno, FromWorker, ListenerId, SockName, Time};

/// Something to do, in the order in which it was polled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WorkerOutput {
    /// Send this to the primary, behind everything before it, and report
    /// [`Sent`](crate::WorkerInput::Sent) when its last byte is in the kernel.
    Send(FromWorker),
    /// The connection is the program's. Its acknowledgement is in the kernel.
    Deliver {
        /// Which one.
        conn: ConnId,
        /// Where it came from.
        listener: ListenerId,
    },
    /// Close this handle and leave the connection behind it as it is, unread, unwritten and not
    /// shut down: another worker may get it.
    Discard {
        /// Which one.
        conn: ConnId,
    },
    /// The program listens.
    Granted {
        /// The number of the ask.
        ask: u32,
        /// The name of the listener.
        listener: ListenerId,
        /// Where it listens.
        sockname: SockName,
        /// A listening socket to accept from; without one, connections come by `Deliver`.
        handle: Option<ConnId>,
        /// The data of the first worker's query.
        data: Vec<u8>,
    },
    /// The program can't listen there.
    Refused {
        /// The number of the ask.
        ask: u32,
        /// Why.
        errno: Errno,
    },
    /// The primary wants this worker to leave. What has arrived may still be taken; nothing new
    /// will come.
    Draining {
        /// A worker that lives after this is killed.
        deadline: Option<Time>,
    },
    /// The primary knows of the suicide: the replacement was started.
    SuicideAcked,
    /// Send what is queued, then close the channel: the primary knows that this worker leaves.
    CloseChannel,
    /// The channel has ended. Nothing will come any more; finish what there is, and exit.
    PrimaryGone,
}
