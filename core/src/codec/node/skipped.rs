//! What of a program's messages is passed over, and how a line that can't be read is told from
//! one of Node's own.

/// Why a message of a program was passed over. It does no harm: programs may say what they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Skipped {
    /// Its line is longer than [`Config::max_line`](crate::Config::max_line).
    TooLong,
    /// Its arrays and objects are nested deeper than [`MAX_NESTING`](super::MAX_NESTING).
    NestedTooDeep,
    /// Its line is no UTF-8.
    NotUtf8,
    /// Its line is no JSON.
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

/// What a line is by its first bytes, where the whole of it is not there or can't be read.
///
/// Node writes `cmd` first, and no space. A program that imitates such a line in another order is
/// taken for what it is: a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The cluster's own: it must be right.
    Cluster,
    /// A handle with a message, which is the program's: cluster messages with a handle are the
    /// primary's to send.
    Handle,
    /// The program's.
    Program,
}

impl Opening {
    pub(crate) fn of(line: &[u8]) -> Opening {
        match line.strip_prefix(b"{\"cmd\":\"NODE_") {
            Some(rest) if rest.starts_with(b"CLUSTER\"") => Opening::Cluster,
            Some(rest) if rest.starts_with(b"HANDLE\"") => Opening::Handle,
            _ => Opening::Program,
        }
    }
}
