//! The worker's side, as both adapters' worker APIs share it: never waits.

mod connection;
mod environment;
mod member;
mod shared;
mod speech;
#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use environment::{command, is_worker, slot, worker_id};
pub use member::{Listener, Member, Standing};
pub use shared::Shared;
