//! The worker's side, shared by the worker APIs of both adapters. Nothing here waits.

mod channel_io;
mod connection;
mod driver;
mod environment;
mod listener;
mod load;
mod news;
mod reminder;
mod shared;
#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use driver::WorkerDriver;
pub use environment::{command, is_worker, slot, worker_id};
pub use listener::{Listener, explain_nth};
pub use load::Hold;
pub use news::{News, Standing};
pub use reminder::Reminder;
pub use shared::Shared;
