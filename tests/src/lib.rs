//! What Roundel's tests share: a simulated cluster around the real core, a naive reference model
//! beside it, the mutants that prove that the properties can fail, and the programs under test.

pub mod core_path;
pub mod coverage;
pub mod explore;
pub mod fault;
pub mod fault_table;
pub mod life_model;
pub mod model;
pub mod mutants;
pub mod ops;
pub mod optional;
pub mod plan;
pub mod process;
pub mod program;
pub mod sim;
pub mod simulate;
pub mod spread;
pub mod table;
pub mod test_worker;
pub mod token;
pub mod variants;
