//! What the tests share.

pub mod core_path;
pub mod program;
