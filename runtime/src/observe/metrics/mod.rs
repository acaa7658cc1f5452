//! What a primary counts, and the small HTTP server that shows it to Prometheus and to probes.
//!
//! [`Meter`] counts, [`Snapshot`] adds what is only known at the moment and writes the page, and
//! [`MetricsServer`] answers requests. Nothing here waits: the primary's event loop drives it. The
//! names of the metrics are a contract: `docs/metrics.md` has them all.

mod exchange;
mod histogram;
mod meter;
mod page;
mod request;
mod server;

#[cfg(test)]
mod tests;

pub(crate) use exchange::Answer;
pub(crate) use meter::Meter;
pub(crate) use page::{ListenerNow, ProcessNow, Snapshot};
pub(crate) use request::Question;
pub(crate) use server::{FDS, Left, MetricsServer};
