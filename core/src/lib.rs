//! Placeholder crate docs.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod custody;
mod id;
mod msg;
mod table;
mod time;

pub use config::{
    ACCEPTS_PER_TURN, BYTES_PER_TURN, Config, ConfigBuilder, ConfigError, MESSAGES_PER_TURN,
    Overflow, Policy, Respawn,
};
pub use custody::{ConnRange, Custody, Leftover};
pub use id::{ConnId, ListenerId, Seq, Slot, WorkerId};
pub use msg::{Address, Errno, FromWorker, Granted, ListenKey, SockName, ToWorker, Transport};
pub use time::Time;
