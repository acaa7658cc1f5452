//! What every Roundel adapter shares: sockets, channels with SCM_RIGHTS, processes, and the drivers
//! of both machines. Nothing here waits; an adapter brings the event loop.
//!
//! None of these features is on by default: the worker's side is always there.
//!
//! | feature | adds |
//! |---|---|
//! | `node` | workers under a Node primary; compiles serde_json |
//! | `observe` | [`observe`]: console, event log, control socket and its client, status; compiles serde_json |
//! | `primary` | [`primary`], the driver of a primary for workers of either codec, and its journal; turns on `observe` |
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod address;
#[cfg(feature = "primary")]
pub mod exit;
#[cfg(feature = "observe")]
pub mod observe;
#[cfg(feature = "primary")]
pub mod primary;
pub mod text;
pub mod unix;
pub mod worker;
