//! Lines on standard error.

use std::io::{self, Write};

/// Prints a line on standard error, in one write(2): the primary and its workers share it.
pub(crate) fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
