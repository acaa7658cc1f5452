//! Roundel on smol: the primary's event loop on async-io.

mod alarm;
mod connection;
pub mod demo;
pub mod reactor;
mod watch;
mod worker;

pub use connection::Connection;
pub use roundel_runtime::exit::Exit;
pub use roundel_runtime::worker::{Standing, command, slot, worker_id};
pub use worker::{Incoming, Listener, Worker};
