//! The examples run together, with the shipped primary, and with the shipped workers.

mod cluster;
mod deaf_worker;
mod http;
mod poll_loop;
mod tokio_worker;
