//! Scenarios with unmodified Node programs as workers.
//!
//! They run under `roundel`; with `UNDER=roundel-smol` in the environment under that, with
//! `UNDER=node` under Node's own primary, which shows that a scenario asks for nothing that Node
//! does not do, or that Node loses what it tests. `NODE=PATH` chooses the Node binary,
//! `ROUNDEL=PATH` another build of the primary.

mod assist;
mod churn;
mod client;
mod closing;
mod fork_model;
mod full;
mod harness;
mod hostile;
mod kills;
mod leaving;
mod listening;
mod messages;
mod packages;
mod ports;
mod reloading;
mod rust_worker;
mod speaking;
mod spread;
mod stopping;
mod tls;
mod wrappers;
