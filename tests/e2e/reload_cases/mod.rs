//! The hardest cases for reloads, by the numbers that docs/testing.md has.

mod clients;
mod deaths;
mod failing;
mod programs;
mod switched;
