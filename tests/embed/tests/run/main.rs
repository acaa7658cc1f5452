//! The examples run together, with the shipped primary, and with the shipped workers.

mod cluster;

mod http;
mod kernel;
mod odd_workers;
mod poll_loop;
mod tokio_worker;
