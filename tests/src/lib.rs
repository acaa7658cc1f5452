//! What Roundel's tests share, in rooms: a simulated cluster around the real core ([`sim`]), a
//! search through every state of a small one ([`explore`]), naive references beside both
//! ([`models`]), deliberate faults that prove that the properties can fail ([`faults`]), and real
//! programs under test ([`programs`]), for long too ([`soak`]).

/// The programs that the README shows.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The programs of the page on workers.
#[cfg(doctest)]
#[doc = include_str!("../../docs/workers.md")]
pub struct WorkersPage;

pub mod core_path;
pub mod e2e_table;
pub mod explore;
pub mod faults;
pub mod models;
pub mod programs;
pub mod sim;
pub mod soak;
