//! Where a worker's standard output and standard error go.

/// Where a worker's standard output and standard error go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// To the primary's own.
    Inherited,
    /// To two pipes, which the primary reads.
    Piped,
}
