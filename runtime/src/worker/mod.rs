//! The worker's side, as both adapters' worker APIs share it: never waits.

mod connection;
mod environment;
mod listener;
mod member;
mod news;
mod shared;
mod speech;
#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use environment::{command, is_worker, slot, worker_id};
pub use listener::Listener;
pub use member::Member;
pub use news::{News, Reminder, Standing};
pub use shared::Shared;
