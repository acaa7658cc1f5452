//! Properties of the core, one file each, and the mutants that each must catch.

mod conservation;
mod support;
