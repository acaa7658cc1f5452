//! The built-in worker of `demo`, a small HTTP server, apart from its event loop: what each adapter
//! drives.
//!
//! | path | |
//! |---|---|
//! | `/` | `worker ID pid PID` |
//! | `/spin` | burns CPU first |
//! | `/sleep?ms=N` | waits first, at most a minute; others are served meanwhile |
//! | `/crash` | answers, then panics: the replacement comes before the worker goes |
//! | `/exit?code=N` | answers, then exits at once |

mod client;
mod clients;
mod http;

use std::io::{self, Write};
use std::process::ExitCode;

pub use clients::{Clients, Watcher};

/// The end of a demo worker, and what there is to say about it.
pub fn end(result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "roundel demo worker: {error}");
        ExitCode::FAILURE
    })
}
