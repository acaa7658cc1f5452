//! The primary as a service of systemd: what it is passed, says, keeps there, and passes on.

mod manager;
mod notify;
mod passed;
mod python;
mod store;
mod units;
mod users;
