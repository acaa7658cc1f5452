//! Placeholder crate docs.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod custody;
mod error;
mod id;
mod inbox;
mod journal;
mod lean;
mod lists;
mod msg;
mod primary;
mod ring;
mod table;
mod time;
mod timers;
mod transitions;
pub mod wire;
mod worker;

pub use config::{
    ACCEPTS_PER_TURN, BYTES_PER_TURN, Config, ConfigBuilder, ConfigError, MESSAGES_PER_TURN,
    Overflow, Policy, Respawn,
};
pub use custody::{ConnRange, Custody, Leftover};
pub use error::Misuse;
pub use id::{ConnId, ListenerId, Seq, Slot, WorkerId};
pub use inbox::{Inbox, Received};
pub use journal::Journal;
pub use msg::{Address, Errno, FromWorker, Granted, ListenKey, SockName, ToWorker, Transport};
pub use primary::{
    Attach, Broken, Canonical, Command, ConnEnd, Event, ExitClass, ExitStatus, Input, LastExit,
    ListenerStatus, Output, Primary, Refusal, Signal, SpawnError, Totals, Verdict, Violation,
    WorkerStatus,
};
pub use time::Time;
pub use timers::{Deadline, Timer};
pub use transitions::{Life, life_diagram};
pub use wire::{Codec, DecodeError};
pub use worker::{Worker, WorkerInput, WorkerOutput};
