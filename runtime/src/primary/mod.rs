//! The primary's driver: it owns the machine, the sockets and the processes, passes the machine its
//! inputs and carries out its outputs. An adapter's event loop drives it in turns.
//!
//! Nothing here decides about scheduling, acknowledgements or the life of workers: the core does.

pub mod bind;
pub mod channel_io;
pub mod driver;
mod host;
mod own;
pub mod setup;

pub use own::{EventLoop, Primary, is_primary};
