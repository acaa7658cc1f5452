//! The event log: lines go to a thread of their own, so that a slow pipe or a full disk never
//! holds up the primary.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use roundel_core::Time;

use crate::clock;

/// Lines that may wait for the writer before further ones are dropped.
const CAPACITY: usize = 65_536;

/// About how many bytes are gathered for one write.
const BATCH: usize = 64 * 1024;

/// Where an event log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to. A FIFO must have a reader already.
    Path(PathBuf),
}

#[derive(Debug)]
enum Item {
    Line(String),
    Reopen,
}

/// An open event log.
#[derive(Debug)]
pub struct EventLog {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
    /// The queue was full when the file was to be opened anew.
    reopen_due: bool,
    /// Says that the writer has ended by being disconnected.
    ended: Receiver<Infallible>,
}

impl EventLog {
    /// Opens a log and starts its writer. The times of its own lines count from `started`.
    ///
    /// # Errors
    /// If the file can't be opened (ENXIO for a FIFO without a reader), or the thread not started.
    pub fn open(target: &Target, started: Time) -> io::Result<EventLog> {
        let output = open(target)?;
        let (queue, items) = sync_channel(CAPACITY);
        let (alive, ended) = sync_channel(0);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            target: target.clone(),
            output,
            started,
            dropped: dropped.clone(),
            broken: false,
            batch: Vec::new(),
        };
        let run = move || {
            // Signals are for the thread that reads them; without this, one of another set than
            // the primary's own could interrupt here.
            let _ = SigSet::all().thread_block();
            writer.run(&items);
            drop::<SyncSender<Infallible>>(alive);
        };
        thread::Builder::new().name("event-log".into()).spawn(run)?;
        Ok(EventLog { queue, dropped, reopen_due: false, ended })
    }

    /// Queues a line, without its line end. One that finds no place is dropped and counted; the
    /// log says so later.
    pub fn write(&mut self, line: String) {
        if self.reopen_due {
            self.reopen();
        }
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file anew, after a log rotation; what is queued goes to the old one.
    pub fn reopen(&mut self) {
        // Rotation asks once: if there is no place in the queue, the next line tries again.
        self.reopen_due = matches!(self.queue.try_send(Item::Reopen), Err(TrySendError::Full(_)));
    }

    /// Writes what is queued, for as long as `patience` allows.
    pub fn finish(self, patience: Duration) {
        // The writer reads what is queued, then that nobody is left to queue more.
        drop(self.queue);
        let _ = self.ended.recv_timeout(patience);
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
    let opened = OpenOptions::new().create(true).append(true).custom_flags(flags).open(path);
    opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

struct Writer {
    target: Target,
    output: File,
    started: Time,
    dropped: Arc<AtomicU64>,
    /// A write failed: nothing is written until the file was opened anew.
    broken: bool,
    batch: Vec<u8>,
}

impl Writer {
    fn run(mut self, items: &Receiver<Item>) {
        while let Ok(first) = items.recv() {
            let mut next = Some(first);
            // Whatever is queued by now goes in one write.
            while let Some(item) = next {
                match item {
                    Item::Line(line) => {
                        self.batch.extend_from_slice(line.as_bytes());
                        self.batch.push(b'\n');
                    }
                    Item::Reopen => self.reopen(),
                }
                next = if self.batch.len() < BATCH { items.try_recv().ok() } else { None };
            }
            self.put();
        }
        // A line may have been dropped just after the queue was emptied.
        self.put();
    }

    fn reopen(&mut self) {
        self.put();
        match open(&self.target) {
            Ok(output) => {
                self.output = output;
                self.broken = false;
            }
            Err(error) => complain("cannot open the event log anew", &error),
        }
    }

    /// Writes the batch, and how many lines were dropped since the last time. After a failure the
    /// log is silent until it is opened anew.
    fn put(&mut self) {
        let mut lost = 0;
        if self.broken {
            lost = count_lines(&self.batch);
        } else {
            let dropped = self.note_dropped();
            if let Err((written, error)) = write_all(&mut self.output, &self.batch) {
                complain("the event log stops here", &error);
                self.broken = true;
                // The note, if there is one, was the last line.
                lost = count_lines(self.batch.get(written..).unwrap_or_default())
                    .saturating_sub(u64::from(dropped > 0))
                    + dropped;
            }
        }
        self.dropped.fetch_add(lost, Ordering::Relaxed);
        self.batch.clear();
    }

    /// Adds a line to the batch, if lines were dropped since the last one; tells how many.
    fn note_dropped(&mut self) -> u64 {
        let count = self.dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let at = clock::now().since(self.started).as_millis();
            let line =
                format!("{{\"at_ms\":{at},\"event\":\"events_dropped\",\"count\":{count}}}\n");
            self.batch.extend_from_slice(line.as_bytes());
        }
        count
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Writes everything; tells how many bytes went, also before an error.
fn write_all(output: &mut File, bytes: &[u8]) -> Result<usize, (usize, io::Error)> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Standard output is shared with the workers, and any of them can make it
            // non-blocking for all: Node does that to pipes. This thread may wait.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
                if let Err(errno) = poll(&mut fds, PollTimeout::NONE)
                    && errno != nix::errno::Errno::EINTR
                {
                    return Err((written, errno.into()));
                }
            }
            Err(error) => return Err((written, error)),
        }
    }
    Ok(written)
}

fn complain(words: &str, error: &io::Error) {
    let _ = io::stderr().write_fmt(format_args!("roundel: {words}: {error}\n"));
}

#[cfg(test)]
mod tests;
