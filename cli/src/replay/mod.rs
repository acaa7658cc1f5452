//! Replays a recorded run: the command `replay`.

mod diagram;
mod summary;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use roundel_core::journal::{Ending, Replay, Step};
use roundel_runtime::exit::Exit;

use crate::stderr::say;
use summary::Summary;

/// How often progress is shown on a terminal.
const PROGRESS: Duration = Duration::from_secs(1);

/// Replays a journal, and prints a summary of it, or the whole of it as a diagram, to standard
/// output. A line on standard error says what is wrong with it, or that it was cut off.
///
/// [`Exit::Stopped`] if everything in the journal came out as recorded, even if it was cut off;
/// [`Exit::Usage`] if there is no such file; otherwise [`Exit::Failure`].
pub(crate) fn run(name: &str, path: &Path, as_diagram: bool) -> Exit {
    let say_of_it = |words: &str| say(&format!("{name}: {}: {words}", path.display()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            say_of_it(&error.to_string());
            return Exit::Usage;
        }
    };
    let show_progress = io::stderr().is_terminal();
    match replay(file, as_diagram, &mut BufWriter::new(io::stdout().lock()), show_progress) {
        Ok(Some(note)) => {
            say_of_it(&note);
            Exit::Stopped
        }
        Ok(None) => Exit::Stopped,
        // The reader has closed the pipe.
        Err(Fault::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Stopped,
        Err(Fault::Output(error)) => {
            say(&format!("{name}: standard output: {error}"));
            Exit::Failure
        }
        Err(Fault::Journal(cause)) => {
            say_of_it(&cause);
            Exit::Failure
        }
    }
}

/// Why a replay did not reach the end.
#[derive(Debug)]
enum Fault {
    /// The journal can't be read, is not a journal, or does not come out as recorded.
    Journal(String),
    /// The output can't be written.
    Output(io::Error),
}

/// Replays to the end of `from`, prints to `to`, and returns what is worth a note.
fn replay(
    mut from: impl Read,
    as_diagram: bool,
    to: &mut impl Write,
    show_progress: bool,
) -> Result<Option<String>, Fault> {
    let mut replay = Replay::new();
    let mut summary = Summary::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0u64;
    let mut last = None;
    let mut told = Instant::now();
    loop {
        let count = from.read(&mut buffer).map_err(|error| Fault::Journal(error.to_string()))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        length += count as u64;
        replay.feed(bytes);
        loop {
            match replay.step() {
                Ok(Some(step)) => {
                    if as_diagram {
                        diagram::show(&step, to).map_err(Fault::Output)?;
                    }
                    summary.count(&step);
                    if let Step::Entry { .. } = &step {
                        last = Some(step);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    if !as_diagram {
                        let shown = summary.difference(&error, last.as_ref(), to);
                        shown.map_err(Fault::Output)?;
                    }
                    to.flush().map_err(Fault::Output)?;
                    return Err(Fault::Journal(format!("{error}{}", summary.versions())));
                }
            }
        }
        if show_progress && told.elapsed() >= PROGRESS {
            told = Instant::now();
            let _ = write!(io::stderr(), "\rentry {} ", replay.entries());
        }
    }
    if show_progress {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    if replay.primary().is_none() {
        return Err(Fault::Journal(format!("is not a journal: it ends after {length} bytes")));
    }
    if !as_diagram {
        summary.print(&replay, to).map_err(Fault::Output)?;
    }
    to.flush().map_err(Fault::Output)?;
    let entries = replay.entries();
    Ok(match replay.ended() {
        Some(Ending::Complete) => None,
        Some(Ending::Limit) => {
            Some(format!("is complete up to its limit at entry {entries}; the run went on"))
        }
        Some(_) => Some(format!("ends at entry {entries}; the run went on")),
        None => {
            let place = if replay.is_mid_frame() { "inside the record" } else { "without an end" };
            Some(format!(
                "is cut off {place} after entry {entries}, at byte {length}: the primary was \
                 killed or could not write any more; up to there the outputs are as recorded"
            ))
        }
    })
}
