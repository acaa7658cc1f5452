//! The examples run together, with the shipped primary, and with the shipped workers.

mod cluster;
mod deaf_worker;
mod poll_loop;
