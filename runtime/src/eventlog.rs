//! The event log: lines go to a thread of their own, so that a slow pipe or a full disk never
//! holds up the primary.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that may wait for the writer before further ones are dropped.
const CAPACITY: usize = 65_536;

/// Where an event log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    Path(PathBuf),
}

enum Item {
    Line(String),
    Reopen,
    End(SyncSender<()>),
}

/// An open event log.
#[derive(Debug)]
pub struct EventLog {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Item")
    }
}

impl EventLog {
    /// Opens a log and starts its writer. Signals must be blocked already: the writer inherits
    /// that.
    ///
    /// # Errors
    /// If the file can't be opened, or the thread not started.
    pub fn open(target: &Target) -> io::Result<EventLog> {
        let output = open(target)?;
        let (queue, items) = sync_channel(CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer { target: target.clone(), output, dropped: dropped.clone() };
        thread::Builder::new().name("event-log".into()).spawn(move || writer.run(&items))?;
        Ok(EventLog { queue, dropped })
    }

    /// Queues a line, without its line end. One that finds no place is dropped and counted; the
    /// log says so later.
    pub fn write(&mut self, line: String) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file anew, after a log rotation.
    pub fn reopen(&mut self) {
        // If the queue is full, the next signal will do.
        let _ = self.queue.try_send(Item::Reopen);
    }

    /// Writes what is queued, for as long as `patience` allows.
    pub fn finish(self, patience: Duration) {
        let (done, ended) = sync_channel(1);
        if self.queue.try_send(Item::End(done)).is_ok() {
            let _ = ended.recv_timeout(patience);
        }
    }
}

fn open(target: &Target) -> io::Result<Box<dyn Write + Send>> {
    Ok(match target {
        Target::Stdout => Box::new(io::stdout()),
        Target::Path(path) => Box::new(open_file(path)?),
    })
}

fn open_file(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

struct Writer {
    target: Target,
    output: Box<dyn Write + Send>,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, items: &Receiver<Item>) {
        let mut batch = Vec::new();
        let mut broken = false;
        while let Ok(first) = items.recv() {
            let mut next = Some(first);
            let mut end = None;
            // Whatever is queued by now goes in one write.
            while let Some(item) = next {
                match item {
                    Item::Line(line) => {
                        batch.extend_from_slice(line.as_bytes());
                        batch.push(b'\n');
                    }
                    Item::Reopen => {
                        broken |= !self.put(&mut batch, broken);
                        match open(&self.target) {
                            Ok(output) => {
                                self.output = output;
                                broken = false;
                            }
                            Err(error) => complain(&error),
                        }
                    }
                    Item::End(done) => end = Some(done),
                }
                next = if batch.len() < 1 << 16 { items.try_recv().ok() } else { None };
            }
            self.note_dropped(&mut batch);
            broken |= !self.put(&mut batch, broken);
            if let Some(done) = end {
                let _ = done.send(());
            }
        }
    }

    fn note_dropped(&self, batch: &mut Vec<u8>) {
        let count = self.dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let line = format!("{{\"event\":\"events_dropped\",\"count\":{count}}}\n");
            batch.extend_from_slice(line.as_bytes());
        }
    }

    /// Writes a batch; false if that failed, after which the log is silent until it is reopened.
    fn put(&mut self, batch: &mut Vec<u8>, broken: bool) -> bool {
        let result = if broken {
            Ok(())
        } else {
            self.output.write_all(batch).and_then(|()| self.output.flush())
        };
        batch.clear();
        if let Err(error) = &result {
            complain(error);
        }
        result.is_ok()
    }
}

fn complain(error: &io::Error) {
    let words = format_args!("roundel: the event log stops here: {error}\n");
    let _ = io::stderr().write_fmt(words);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_order_and_the_file_can_be_moved_away() {
        let path = std::env::temp_dir().join(format!("roundel-log-{}", std::process::id()));
        let moved = path.with_extension("1");
        let mut log = EventLog::open(&Target::Path(path.clone())).unwrap();
        for n in 0..1_000 {
            log.write(format!("{n}"));
        }
        // The line after the move must go to a new file: the writer has to be through with the
        // old one, which a second log on the same queue order shows.
        log.reopen();
        log.write("last".into());
        log.finish(Duration::from_secs(10));
        let text = std::fs::read_to_string(&path).unwrap();
        let expected: Vec<String> =
            (0..1_000).map(|n| n.to_string()).chain(["last".into()]).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        std::fs::rename(&path, &moved).unwrap();
        let mut log = EventLog::open(&Target::Path(path.clone())).unwrap();
        log.write("new".into());
        log.finish(Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&moved).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        assert!(EventLog::open(&Target::Path("/nonexistent/dir/log".into())).is_err());
    }
}
