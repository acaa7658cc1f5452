//! The journal of a live primary: the core's recorder, and a thread that writes its bytes, so that
//! no disk holds up serving. An error here ends the recording, never the primary.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::signal::SigSet;
use roundel_core::journal::{Ending, Recorder};
use roundel_core::{Config, Input, Misuse, Output, Primary, Time};

/// About how many bytes are gathered for one write.
const BATCH: usize = 32 * 1024;
/// How many batches may wait for the disk.
const QUEUE: usize = 1_024;
/// How many bytes may wait for the disk: a batch holds all that came in a turn, so it may be long.
const MAX_WAITING: usize = 32 * 1024 * 1024;
/// How long bytes may wait for more to fill a batch.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the end of a run waits for the disk.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The size limit of a journal if no other is given: about twenty million connections.
pub const DEFAULT_LIMIT: u64 = 1 << 30;

/// Where a journal goes, and its size limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The file; an existing one is replaced. A new one gets mode 0600.
    pub path: PathBuf,
    /// In bytes.
    pub limit: u64,
}

/// A journal that is being written.
#[derive(Debug)]
pub(crate) struct Journal {
    recorder: Recorder,
    queue: SyncSender<Vec<u8>>,
    /// Bytes that wait for the disk.
    waiting: Arc<AtomicUsize>,
    /// How the writer ended.
    ended: Receiver<io::Result<()>>,
    path: PathBuf,
    /// When the oldest bytes that wait for a full batch must be sent.
    due: Option<Time>,
    /// The end of the recording was reported.
    is_over: bool,
}

impl Journal {
    /// Opens a journal for a primary that is about to be made with this configuration.
    ///
    /// # Errors
    /// If the file can't be opened (ENXIO for a FIFO without a reader), if another primary writes
    /// it, or if the thread can't be started.
    pub(crate) fn open(target: &Target, config: &Config) -> io::Result<Journal> {
        let path = target.path.display();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let mut file = open(&target.path).map_err(named)?;
        let (queue, batches) = sync_channel::<Vec<u8>>(QUEUE);
        let (tell, ended) = sync_channel(1);
        let waiting = Arc::new(AtomicUsize::new(0));
        let written_off = waiting.clone();
        let write = move || {
            // Signals are for the thread that reads them.
            let _ = SigSet::all().thread_block();
            let written = batches.iter().try_for_each(|batch| {
                let outcome = file.write_all(&batch);
                written_off.fetch_sub(batch.len(), Ordering::Relaxed);
                outcome
            });
            // The order matters: a sender that finds the queue closed must be able to learn the
            // cause.
            let _ = tell.send(written);
            drop(batches);
        };
        thread::Builder::new().name("journal".into()).spawn(write)?;
        let recorder = Recorder::new(config, target.limit);
        let path = target.path.clone();
        Ok(Journal { recorder, queue, waiting, ended, path, due: None, is_over: false })
    }

    /// Calls [`Primary::handle_input`] and records it, unless the recording is over.
    ///
    /// # Errors
    /// Those of [`Primary::handle_input`].
    pub(crate) fn handle_input(
        &mut self,
        core: &mut Primary,
        now: Time,
        input: Input,
    ) -> Result<(), Misuse> {
        if self.is_over {
            return core.handle_input(now, input);
        }
        self.due.get_or_insert_with(|| now + PATIENCE);
        self.recorder.handle_input(core, now, input)
    }

    /// Calls [`Primary::poll_output`] and records it, unless the recording is over.
    pub(crate) fn poll_output(&mut self, core: &mut Primary) -> Option<Output> {
        if self.is_over { core.poll_output() } else { self.recorder.poll_output(core) }
    }

    /// When [`flush`](Journal::flush) must be called at the latest.
    pub(crate) const fn due(&self) -> Option<Time> {
        self.due
    }

    /// Hands the writer a batch if there is enough for one, or if the oldest bytes are due. Call it
    /// at the end of each turn.
    ///
    /// # Errors
    /// Why nothing more is recorded, as text; reported once.
    pub(crate) fn flush(&mut self, now: Time) -> Result<(), String> {
        if self.is_over {
            return Ok(());
        }
        let ended = self.recorder.ended();
        let is_due = self.due.is_some_and(|due| due <= now);
        if ended.is_none() && self.recorder.waiting() < BATCH && !is_due {
            return Ok(());
        }
        self.due = None;
        let cause = match (self.send(), ended) {
            (Ok(()), None) => return Ok(()),
            (Ok(()), Some(Ending::Limit)) => "it has reached its size limit".into(),
            (Ok(()), Some(_)) => "a message is too long to record".into(),
            (Err(TrySendError::Full(_)), _) => "the disk is too slow".into(),
            (Err(TrySendError::Disconnected(_)), _) => self.failure(),
        };
        self.is_over = true;
        Err(format!("the journal {} stops here: {cause}", self.path.display()))
    }

    /// Writes the end, or what is left of a recording that ended before.
    ///
    /// # Errors
    /// Why not all of it was written, as text, unless that was reported before.
    pub(crate) fn finish(mut self, core: &Primary) -> Result<(), String> {
        if self.is_over {
            drop(self.queue);
            let _ = self.ended.recv_timeout(FINAL_WRITE_TIMEOUT);
            return Ok(());
        }
        self.recorder.end(core);
        let sent = self.send();
        let cause = if let Err(TrySendError::Disconnected(_)) = sent {
            self.failure()
        } else {
            // The writer reads what is queued, and then finds that there is no sender any more.
            drop(self.queue);
            match self.ended.recv_timeout(FINAL_WRITE_TIMEOUT) {
                Ok(Ok(())) if sent.is_ok() => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                _ => "the disk is too slow".into(),
            }
        };
        Err(format!("the journal {} is cut off: {cause}", self.path.display()))
    }

    fn send(&mut self) -> Result<(), TrySendError<Vec<u8>>> {
        let batch = self.recorder.take();
        let len = batch.len();
        if self.waiting.load(Ordering::Relaxed).saturating_add(len) > MAX_WAITING {
            return Err(TrySendError::Full(batch));
        }
        // Count it before the writer can take it.
        self.waiting.fetch_add(len, Ordering::Relaxed);
        self.queue.try_send(batch)
    }

    fn failure(&self) -> String {
        match self.ended.try_recv() {
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(())) | Err(_) => "its writer thread has ended".into(),
        }
    }
}

/// Opens a file and replaces its content, unless another process still writes it: a primary that is
/// started twice must not spoil the journal of the first one.
fn open(path: &Path) -> io::Result<Box<dyn Write + Send>> {
    // A FIFO without a reader would hold up the start of the primary: open(2) then waits.
    let flags = OFlag::O_NONBLOCK.bits();
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(Box::new(file));
    }
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => {
            file.set_len(0)?;
            Ok(Box::new(Locked(file)))
        }
        Err((_, Errno::EAGAIN)) => Err(io::Error::other("is in use by a running primary")),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// A file locked against other writers.
struct Locked(Flock<File>);

impl Write for Locked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
