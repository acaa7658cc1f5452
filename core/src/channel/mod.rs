//! The two ends of a channel, apart from the socket: bytes that were read become events and
//! messages, and messages become bytes and handles to send. Nothing here reads, sends or waits, and
//! nothing decides what a message means to a machine.

mod event;
mod outbox;
mod primary_channel;
mod worker_channel;

pub use event::ChannelEvent;
pub use outbox::{Outbox, Transmit};
pub use primary_channel::PrimaryChannel;
pub use worker_channel::WorkerChannel;
