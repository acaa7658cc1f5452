//! Which messages of a program are skipped.

/// Why a message of a program was skipped. Skipping does no harm: programs may say what they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Skipped {
    /// Its line is longer than [`Config::max_line`](crate::Config::max_line).
    TooLong,
    /// Its arrays and objects are nested deeper than [`MAX_NESTING`](super::MAX_NESTING).
    NestedTooDeep,
    /// Its line is not UTF-8.
    NotUtf8,
    /// Its line is not JSON.
    NotJson,
}

impl Skipped {
    /// As the event log writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Skipped::TooLong => "too_long",
            Skipped::NestedTooDeep => "nested_too_deep",
            Skipped::NotUtf8 => "not_utf8",
            Skipped::NotJson => "not_json",
        }
    }
}
