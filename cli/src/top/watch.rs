//! Asks the primary once a second, on a thread of its own: one that hangs holds up nothing else.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use roundel_runtime::observe::control::{Connection, Request};
use roundel_runtime::observe::status::Status;

use super::state;
use crate::client::is_running;

/// How often the primary is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take before it is asked for again, over a new connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the primary let know.
#[derive(Debug)]
pub(super) enum Seen {
    Sample(Instant, Box<Status>),
    /// It has not answered, for this reason.
    Trouble(String),
    /// It has ended.
    Gone(String),
}

/// Asks until the primary is gone.
///
/// # Errors
/// If nobody listens to `tell` any more.
pub(super) fn watch<E>(
    mut connection: Connection,
    path: &Path,
    mut tell: impl FnMut(Seen) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        let begun = Instant::now();
        let answer = connection.ask(&Request::Status, PATIENCE);
        match answer.and_then(|line| state::read(&line)) {
            Ok(sample) => tell(Seen::Sample(Instant::now(), Box::new(sample)))?,
            Err(why) => match Connection::open(path) {
                // It may be another primary now.
                Ok(anew) => {
                    connection = anew;
                    tell(Seen::Trouble(why))?;
                }
                Err(closed) => match connection.pid() {
                    // It closes the socket shortly before it ends; or it takes no connection.
                    Some(pid) if is_running(pid) => tell(Seen::Trouble(closed))?,
                    Some(pid) => return tell(Seen::Gone(format!("the primary {pid} has ended"))),
                    None => return tell(Seen::Gone(closed)),
                },
            },
        }
        thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
    }
}
