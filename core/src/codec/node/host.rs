//! What the codec asks the machine that it runs on.

use alloc::string::String;

/// Questions that only the operating system can answer, asked when a worker wants to listen. The
/// answers become part of the core's inputs, so that the core itself asks nothing.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// The number of the network interface with this name (if_nametoindex(3)); 0 if there is none.
    pub interface_number: fn(&str) -> u32,
    /// The name of the network interface with this number (if_indextoname(3)).
    pub interface_name: fn(u32) -> Option<String>,
    /// An absolute path as seen from the working directory of the primary; `None` if there is no
    /// such path.
    pub relative_path: fn(&str) -> Option<String>,
}

impl Host {
    /// Knows no interfaces and no directory.
    pub const NONE: Host =
        Host { interface_number: |_| 0, interface_name: |_| None, relative_path: |_| None };
}
