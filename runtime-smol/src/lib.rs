//! Roundel on smol: the primary's event loop on async-io, and the worker API for async programs.
//!
//! A program that runs as a worker and, with the feature `primary`, as its own primary:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use smol::io::AsyncWriteExt;
//!
//! fn main() -> std::io::Result<ExitCode> {
//!     if roundel_smol::is_primary() {
//!         return Ok(roundel_smol::Primary::new()?.workers(4).run()?.into());
//!     }
//!     let worker = roundel_smol::Worker::join()?;
//!     smol::block_on(async {
//!         let web = worker.listen("127.0.0.1:8080").await?;
//!         while let Some(mut connection) = web.accept().await? {
//!             // A client that has left is no reason to stop.
//!             let _ = connection.write_all(b"hello\n").await;
//!         }
//!         Ok(worker.finish().await)
//!     })
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
mod driver;
#[cfg(feature = "primary")]
pub mod reactor;
#[cfg(feature = "primary")]
mod set;
mod watch;
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
pub use worker::{Incoming, Listener, Worker};

/// A primary whose workers run this same executable: see [`roundel_runtime::primary::Primary`].
#[cfg(feature = "primary")]
pub type Primary = roundel_runtime::primary::Primary<reactor::Reactor>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
