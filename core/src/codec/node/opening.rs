//! How a line that can't be read is told from one of Node's own.

/// What a line is by its first bytes, where the whole of it is not there or can't be read.
///
/// Node writes `cmd` first, and no space. If a program imitates such a line in another order, the
/// line counts as the program's.
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
