//! References: what the core should do, said as plainly as possible and from the outputs alone.
//! None of them looks into a [`Primary`](roundel_core::Primary).

pub mod life;
pub mod reload;
pub mod rotation;
