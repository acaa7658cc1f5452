//! The built-in worker of `demo`: a small HTTP server on the public worker API of each adapter.
//!
//! | path | |
//! |---|---|
//! | `/` | `worker ID pid PID` |
//! | `/spin` | burns CPU first |
//! | `/sleep?ms=N` | waits first, at most a minute; others are served meanwhile |
//! | `/crash` | answers, then panics: the replacement comes before the worker goes |
//! | `/exit?code=N` | answers, then exits at once |

mod client;
pub mod on_mio;
pub mod on_smol;

use std::time::Duration;

use smol::LocalExecutor;

type Tasks = LocalExecutor<'static>;

/// How long a worker that accepts by itself waits before it tries again after descriptors ran out.
const PAUSE: Duration = Duration::from_millis(100);
