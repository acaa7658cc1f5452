//! What the tests of all worker APIs share: primaries played by hand. Everything here panics where
//! a test would fail.

mod dealer;
mod fake_primary;

pub use dealer::{Dealer, Dice};
pub use fake_primary::{FakePrimary, SOON, connection, seq, soon};
