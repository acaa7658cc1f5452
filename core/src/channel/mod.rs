//! The two ends of a channel, apart from the socket: what is read becomes events and messages, what
//! is to be said becomes bytes and handles to send. Nothing here reads, sends or waits, and nothing
//! decides what a message means to a machine.

mod outbox;
mod primary_channel;
mod worker_channel;

pub use outbox::{Outbox, Transmit};
pub use primary_channel::PrimaryChannel;
pub use worker_channel::WorkerChannel;
