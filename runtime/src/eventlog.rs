//! The event log: lines go to a thread of their own, so that a slow pipe or a full disk never
//! holds up the primary.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use roundel_core::Time;

use crate::clock;
use crate::console::Console;
use crate::lines::{Lines, Progress, Sink, count_lines, write_all, write_lines};

/// Bytes that may wait for the writer before further lines are dropped.
const CAPACITY: usize = 8 * 1024 * 1024;

/// Where an event log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to; one that is made has mode 0600. A FIFO must have a reader already.
    Path(PathBuf),
}

/// An open event log.
#[derive(Debug)]
pub struct EventLog {
    lines: Lines,
}

impl EventLog {
    /// Opens a log and starts its writer, which says on the console if it can't go on. The times
    /// of its own lines count from `started`.
    ///
    /// # Errors
    /// If the file can't be opened (ENXIO for a FIFO without a reader), or the thread not started.
    pub fn open(target: &Target, started: Time, console: Console) -> io::Result<EventLog> {
        let output = open(target)?;
        let writer =
            Writer { target: target.clone(), output, started, console, lost: 0, broken: false };
        Ok(EventLog { lines: Lines::start("event-log", CAPACITY, writer)? })
    }

    /// Queues a line, without its line end. One that finds no place is dropped and counted; the
    /// log says so later.
    pub fn write(&mut self, line: &str) {
        self.lines.push(&[line, "\n"]);
    }

    /// Opens the file anew, after a log rotation; what is queued goes to the old one.
    pub fn reopen(&mut self) {
        self.lines.reopen();
    }

    /// Writes what is queued, for as long as `patience` allows.
    pub fn finish(self, patience: Duration) {
        self.lines.flush(patience, patience);
    }
}

fn open(target: &Target) -> io::Result<File> {
    match target {
        // Not through `io::stdout`, whose lock and buffer are shared with the program.
        Target::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        Target::Path(path) => open_file(path),
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    // A FIFO without a reader would hold up the start of the primary: open(2) then waits.
    let flags = OFlag::O_NONBLOCK.bits();
    let mut options = OpenOptions::new();
    let opened = options.create(true).append(true).mode(0o600).custom_flags(flags).open(path);
    opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

struct Writer {
    target: Target,
    output: File,
    started: Time,
    console: Console,
    /// Lines that were not written, and that this was not told of yet.
    lost: u64,
    /// A write failed: nothing is written until the file was opened anew.
    broken: bool,
}

impl Writer {
    /// Tells how many lines were dropped since the last time.
    fn note_lost(&mut self, progress: &Progress) {
        if self.lost == 0 || self.broken {
            return;
        }
        let (at, count) = (clock::now().since(self.started).as_millis(), self.lost);
        let line = format!("{{\"at_ms\":{at},\"event\":\"events_dropped\",\"count\":{count}}}\n");
        if self.write(line.as_bytes(), progress).is_ok() {
            self.lost = 0;
        }
    }

    /// After a failure the log is silent until it is opened anew.
    fn write(&mut self, lines: &[u8], progress: &Progress) -> Result<(), usize> {
        let written = match self.target {
            // Standard output is shared with the workers.
            Target::Stdout => write_lines(self.output.as_fd(), lines, progress),
            Target::Path(_) => write_all(self.output.as_fd(), lines, progress),
        };
        written.map(|_| ()).map_err(|(written, error)| {
            self.console.say(&format!("the event log stops here: {error}"));
            self.broken = true;
            written
        })
    }
}

impl Sink for Writer {
    fn put(&mut self, lines: &[u8], progress: &Progress) {
        let mut written = 0;
        if !self.broken {
            match self.write(lines, progress) {
                Ok(()) => return,
                Err(count) => written = count,
            }
        }
        self.lost += count_lines(lines.get(written..).unwrap_or_default());
    }

    fn dropped(&mut self, count: u64, progress: &Progress) {
        self.lost += count;
        self.note_lost(progress);
    }

    fn reopen(&mut self, progress: &Progress) {
        match open(&self.target) {
            Ok(output) => {
                self.output = output;
                self.broken = false;
                self.note_lost(progress);
            }
            Err(error) => {
                self.console.say(&format!("cannot open the event log anew: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
