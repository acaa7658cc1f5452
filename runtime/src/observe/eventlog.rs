//! The event log: lines go to a thread of their own, so that a slow pipe or a full disk never
//! holds up the primary.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use roundel_core::Time;

use crate::observe::console::Console;
use crate::observe::lines::{Lines, Progress, Sink, count_lines, write_all, write_lines};
use crate::unix::clock;

/// Bytes that may wait for the writer before further lines are dropped.
const CAPACITY: usize = 8 * 1024 * 1024;

/// Where an event log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to; a new one gets mode 0600. A FIFO must have a reader already.
    Path(PathBuf),
}

/// An open event log.
#[derive(Debug)]
pub struct EventLog {
    lines: Lines,
}

impl EventLog {
    /// Opens a log and starts its writer, which prints a message on the console if it can't go on.
    /// The times of its own lines count from `started`.
    ///
    /// # Errors
    /// If the file can't be opened (ENXIO for a FIFO without a reader), or the thread can't be
    /// started.
    pub fn open(target: &Target, started: Time, console: Console) -> io::Result<EventLog> {
        let output = open(target)?;
        let mid_line = is_mid_line(&output);
        let (target, lost, broken) = (target.clone(), 0, false);
        let writer = Writer { target, output, mid_line, started, console, lost, broken };
        Ok(EventLog { lines: Lines::start("event-log", CAPACITY, writer)? })
    }

    /// Queues a line, without its line end. If the queue has no room, the line is dropped and
    /// counted; the log reports the count later.
    pub fn write(&mut self, line: &str) {
        self.lines.push(&[line, "\n"]);
    }

    /// Opens the file anew, after a log rotation; lines queued before go to the old one.
    pub fn reopen(&mut self) {
        self.lines.reopen();
    }

    /// Writes what is queued, and gives up after `patience`.
    pub fn finish(self, patience: Duration) {
        self.lines.flush(patience, patience);
    }
}

fn open(target: &Target) -> io::Result<File> {
    match target {
        // This avoids `io::stdout`, whose lock and buffer are shared with the program.
        Target::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        Target::Path(path) => open_file(path, 0o600),
    }
}

/// Opens a file to append to; a new one gets this mode.
pub(super) fn open_file(path: &Path, mode: u32) -> io::Result<File> {
    // A FIFO without a reader would hold up the start of the primary: open(2) then waits.
    let flags = OFlag::O_NONBLOCK.bits();
    let mut options = OpenOptions::new();
    let opened = options.create(true).append(true).mode(mode).custom_flags(flags).open(path);
    opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// True if the output ends in half a line, left by a full disk or a killed writer. Only files can
/// be checked: there is no way to know how a pipe's last line ended.
pub(super) fn is_mid_line(output: &File) -> bool {
    last_byte(output).is_some_and(|byte| byte != b'\n')
}

/// The last byte of a file, just before the place of the next write.
fn last_byte(mut output: &File) -> Option<u8> {
    let found = output.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let flags = OFlag::from_bits_retain(fcntl(output, FcntlArg::F_GETFL).ok()?);
    let appends = flags.contains(OFlag::O_APPEND);
    let end = if appends { found.len() } else { output.stream_position().ok()? };
    // The file is open for writing only, and its name may be another file's by now
    // (proc_pid_fd(5)).
    let reader = File::open(format!("/proc/self/fd/{}", output.as_raw_fd())).ok()?;
    let mut byte = [0];
    reader.read_exact_at(&mut byte, end.checked_sub(1)?).ok()?;
    Some(byte[0])
}

struct Writer {
    target: Target,
    output: File,
    /// The output ends in half a line, which needs a line end first.
    mid_line: bool,
    started: Time,
    console: Console,
    /// Lines that were not written and not yet reported as lost.
    lost: u64,
    /// A write failed: nothing is written until the file is opened anew.
    broken: bool,
}

impl Writer {
    /// Reports how many lines were dropped since the last report.
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
        let written = self.end_line(progress).and_then(|()| match self.target {
            // Standard output is shared with the workers.
            Target::Stdout => write_lines(self.output.as_fd(), lines, progress),
            Target::Path(_) => write_all(self.output.as_fd(), lines, progress),
        });
        written.map(|_| ()).map_err(|(written, error)| {
            self.console.say(&format!("the event log stops here: {error}"));
            self.broken = true;
            written
        })
    }

    /// Ends half a line that another writer left, or this log before it was opened anew.
    fn end_line(&mut self, progress: &Progress) -> Result<(), (usize, io::Error)> {
        if self.mid_line {
            write_all(self.output.as_fd(), b"\n", progress).map_err(|(_, error)| (0, error))?;
            self.mid_line = false;
        }
        Ok(())
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
                self.mid_line = is_mid_line(&output);
                self.output = output;
                self.broken = false;
                self.note_lost(progress);
            }
            Err(error) => {
                self.console.say(&format!("cannot reopen the event log: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
