//! Fuzz targets as plain functions, so that stable type-checks them and replays their corpus
//! (`cargo test -p roundel-fuzz`). Each takes any bytes and panics if a promise is broken.
//!
//! To fuzz for a minute, with nightly and cargo-fuzz, from the root of the workspace:
//!
//! ```sh
//! CARGO_PROFILE_RELEASE_LTO=off \
//!     cargo +nightly fuzz run --features libfuzzer native_decoder -- -max_total_time=60 -malloc_limit_mb=1
//! ```
//!
//! New targets go into [`TARGETS`], `fuzz_targets/` and `Cargo.toml`; seeds into [`seeds`], from
//! where `cargo run -p roundel-fuzz --example write_seeds` puts them into `corpus/`.

mod mangled;
mod native;
mod node;
mod primary;
mod records;
mod script;
pub mod seeds;
mod worker;

pub use mangled::mangled_channels;
pub use native::{MAX_FRAME, native_decoder, native_inbox};
pub use node::{MAX_LINE, node_primary_side, node_worker_side};
pub use primary::primary_inputs;
pub use records::{journal, snapshot};
pub use worker::worker_inputs;

/// A fuzz target: any bytes in, a panic if a promise is broken.
pub type Target = fn(&[u8]);

/// All targets, under the names of their corpus folders.
pub const TARGETS: &[(&str, Target)] = &[
    ("native_decoder", native_decoder),
    ("native_inbox", native_inbox),
    ("node_primary_side", node_primary_side),
    ("node_worker_side", node_worker_side),
    ("primary_inputs", primary_inputs),
    ("worker_inputs", worker_inputs),
    ("mangled_channels", mangled_channels),
    ("journal", journal),
    ("snapshot", snapshot),
];
