//! Properties of the core, one file each, and the mutants that each must catch.
//!
//! `PROPTEST_CASES` scales the number of runs. They are the same each time (`.cargo/config.toml`);
//! for others, and more of them:
//!
//! ```sh
//! PROPTEST_RNG_SEED=$RANDOM PROPTEST_CASES=20000 cargo test -p roundel-tests --test prop
//! ```

mod canonical;
mod cluster;
mod conservation;
mod fairness;
mod invariants;
mod leaving;
mod linear;
mod listeners;
mod misuse;
mod no_double;
mod no_loss;
mod node;
mod reference;
mod replay;
mod restarts;
mod shutdown;
mod stuck;
mod support;
mod timeouts;
mod work_conservation;
