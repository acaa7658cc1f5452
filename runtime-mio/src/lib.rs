//! Roundel on mio: the primary's event loop, and the worker API for programs with blocking threads
//! or with mio.
//!
//! A program that runs as a worker and, with the feature `primary`, as its own primary:
//!
//! ```no_run
//! use std::io::Write;
//! use std::process::ExitCode;
//!
//! fn main() -> std::io::Result<ExitCode> {
//!     if roundel_mio::is_primary() {
//!         return Ok(roundel_mio::Primary::new()?.workers(4).run()?.into());
//!     }
//!     let worker = roundel_mio::Worker::join()?;
//!     let web = worker.listen("127.0.0.1:8080")?;
//!     while let Some(mut connection) = web.accept()? {
//!         // A client that has left is no reason to stop.
//!         let _ = connection.write_all(b"hello\n");
//!     }
//!     Ok(worker.finish())
//! }
//! ```
//!
//! None of these features is on by default: the worker API is always there.
//!
//! | feature | adds |
//! |---|---|
//! | `primary` | [`Primary`], [`is_primary`] and the [`reactor`]; compiles serde_json |
//! | `node` | workers under a Node primary; without it [`Worker::join`] fails there; compiles serde_json |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connection;
#[cfg(feature = "primary")]
pub mod reactor;
mod worker;

pub use connection::Connection;
pub use roundel_core::{Address, ConfigBuilder, ListenKey, SockName};
#[cfg(feature = "primary")]
pub use roundel_runtime::exit::Exit;
#[cfg(feature = "primary")]
pub use roundel_runtime::observe::output::Format as LogFormat;
#[cfg(feature = "primary")]
pub use roundel_runtime::primary::is_primary;
pub use roundel_runtime::worker::{Hold, Standing, command, slot, worker_id};
pub use worker::{Listener, Worker};

/// A primary whose workers run this same executable: see [`roundel_runtime::primary::Primary`].
#[cfg(feature = "primary")]
pub type Primary = roundel_runtime::primary::Primary<reactor::Reactor>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
