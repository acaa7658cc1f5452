//! Placeholder crate docs.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod id;
mod msg;
mod time;

pub use id::{ConnId, ListenerId, Seq, Slot, WorkerId};
pub use msg::{
    Address, Errno, FromWorker, Granted, ListenKey, SockName, ToWorker, Transport,
};
pub use time::Time;
