//! Lines on their way to a descriptor that may be slow: a queue bounded in bytes, and a thread that
//! writes. The caller never waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::stat::fstat;

/// A buffer that grew beyond this in a burst is shrunk again.
const KEPT: usize = 64 * 1024;

/// Bytes written at once; small enough that a flush sees that even a slow reader makes progress.
const CHUNK: usize = 64 * 1024;

/// How long to pause when poll(2) reports a descriptor writable and the write still fails.
const NAP: Duration = Duration::from_millis(5);

/// How often a flush checks whether the writer makes progress.
const GLANCE: Duration = Duration::from_millis(10);

/// What the writing thread does with the lines.
pub(crate) trait Sink: Send + 'static {
    /// Writes whole lines, for as long as it takes. The sink itself counts the lines that it can't
    /// write.
    fn put(&mut self, lines: &[u8], progress: &Progress);

    /// Reports that `count` lines found no room in the queue, after the lines put last.
    fn dropped(&mut self, count: u64, progress: &Progress);

    /// Opens the output anew.
    fn reopen(&mut self, progress: &Progress);
}

/// Shows a waiting flush that something was written.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    fn made(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The sending end of a queue. When the last one is dropped, the thread writes what is left and
/// ends.
#[derive(Debug)]
pub(crate) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the writer: there is something to do.
    news: Condvar,
    /// Wakes a waiting flush: everything was written.
    idle: Condvar,
    progress: Progress,
    /// How many bytes may wait.
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that came when the queue was full. Until the writer takes this count, every further
    /// line is dropped too: so there is one gap in one place, and the order is kept.
    dropped: u64,
    /// Before which of the waiting bytes the output must be opened anew.
    reopen_at: Option<usize>,
    /// The writer has taken lines and not written them all.
    is_writing: bool,
    /// The writer waits to be woken.
    is_asleep: bool,
    /// A flush waits until everything is written.
    is_awaited: bool,
    is_closed: bool,
}

impl State {
    /// True if the writer has something to take: lines, a gap to report, or an output to open.
    fn is_due(&self) -> bool {
        !self.waiting.is_empty() || self.dropped > 0 || self.reopen_at.is_some()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent after each step, so a poisoned lock does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the writer if it sleeps. Each notification is a system call, so a writer that is busy
    /// or already woken is left alone. The lock is released first; otherwise the writer would wait
    /// for it.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let is_asleep = std::mem::take(&mut state.is_asleep);
        drop(state);
        if is_asleep {
            self.news.notify_one();
        }
    }
}

impl Lines {
    /// Starts a writer, for which up to `capacity` bytes may wait.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub(crate) fn start(name: &str, capacity: usize, sink: impl Sink) -> io::Result<Lines> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            news: Condvar::new(),
            idle: Condvar::new(),
            progress: Progress::default(),
            capacity,
        });
        let writer = shared.clone();
        let run = move || {
            // Signals belong to the thread that reads them. Without this, a signal outside the
            // primary's own set could interrupt the writer. It also keeps a terminal from stopping
            // this thread.
            let _ = SigSet::all().thread_block();
            write_all_of(&writer, sink);
        };
        thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Lines { shared })
    }

    /// Queues lines, each with its line end: all of them, or none. Lines that are not queued are
    /// counted as dropped and reported later.
    pub(crate) fn push<T: AsRef<[u8]>>(&self, parts: &[T]) {
        let len: usize = parts.iter().map(|part| part.as_ref().len()).sum();
        let mut state = self.shared.state();
        if state.dropped > 0 || state.waiting.len() + len > self.shared.capacity {
            state.dropped += parts.iter().map(|part| count_lines(part.as_ref())).sum::<u64>();
            // The writer sleeps if these lines alone were too long for an empty queue.
            self.shared.wake(state);
            return;
        }
        for part in parts {
            state.waiting.extend_from_slice(part.as_ref());
        }
        self.shared.wake(state);
    }

    /// Opens the output anew once everything queued so far is written.
    pub(crate) fn reopen(&self) {
        let mut state = self.shared.state();
        let end = state.waiting.len();
        state.reopen_at.get_or_insert(end);
        self.shared.wake(state);
    }

    /// Waits until everything is written, and the output opened anew if [`reopen`](Lines::reopen)
    /// asked for that. Gives up when nothing was written for as long as `patience`, and after
    /// `limit` in any case. True if everything is done.
    pub(crate) fn flush(&self, patience: Duration, limit: Duration) -> bool {
        let begun = Instant::now();
        let mut last = (self.shared.progress.0.load(Ordering::Relaxed), begun);
        let mut state = self.shared.state();
        while state.is_due() || state.is_writing {
            let (now, made) = (Instant::now(), self.shared.progress.0.load(Ordering::Relaxed));
            if made != last.0 {
                last = (made, now);
            }
            if now.duration_since(last.1) >= patience || now.duration_since(begun) >= limit {
                return false;
            }
            state.is_awaited = true;
            let waited = self.shared.idle.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_closed = true;
        self.shared.wake(state);
    }
}

fn write_all_of(shared: &Shared, mut sink: impl Sink) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.state();
        state.is_writing = false;
        if !state.is_due() && std::mem::take(&mut state.is_awaited) {
            shared.idle.notify_all();
        }
        while !state.is_due() {
            if state.is_closed {
                return;
            }
            state.is_asleep = true;
            state = shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.is_asleep = false;
        }
        std::mem::swap(&mut batch, &mut state.waiting);
        let dropped = std::mem::take(&mut state.dropped);
        let reopen_at = state.reopen_at.take();
        state.is_writing = true;
        drop(state);
        let (before, after) = batch.split_at(reopen_at.unwrap_or(batch.len()));
        sink.put(before, &shared.progress);
        if reopen_at.is_some() {
            sink.reopen(&shared.progress);
            sink.put(after, &shared.progress);
        }
        if dropped > 0 {
            sink.dropped(dropped, &shared.progress);
        }
        batch.clear();
        batch.shrink_to(KEPT);
    }
}

/// How many lines end in these bytes.
pub(crate) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Writes everything; returns how many bytes were written, also with an error.
///
/// The output may be shared with workers, and any of them can make it non-blocking for all: Node
/// does that to pipes. This thread may wait.
pub(crate) fn write_all(
    output: BorrowedFd<'_>,
    bytes: &[u8],
    progress: &Progress,
) -> Result<usize, (usize, io::Error)> {
    let mut written = 0;
    let mut in_vain = false;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match nix::unistd::write(output, rest.get(..CHUNK).unwrap_or(rest)) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                written += count;
                in_vain = false;
                progress.made();
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                if in_vain {
                    thread::sleep(NAP);
                }
                let mut fds = [PollFd::new(output, PollFlags::POLLOUT)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) => in_vain = true,
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err((written, errno.into())),
                }
            }
            Err(errno) => return Err((written, errno.into())),
        }
    }
    Ok(written)
}

/// The lock that a thread holds while it writes to standard output or standard error. A line that
/// is longer than what a pipe takes whole is written in parts, and no other thread's line may come
/// between them. If both are the same file, both have the same lock; other files have none, since
/// one thread alone writes to them.
fn turn_at(output: BorrowedFd<'_>) -> Option<&'static Mutex<()>> {
    static STANDARD_ERROR: Mutex<()> = Mutex::new(());
    static STANDARD_OUTPUT: Mutex<()> = Mutex::new(());
    let file = |fd: BorrowedFd<'_>| fstat(fd).ok().map(|found| (found.st_dev, found.st_ino));
    let own = file(output)?;
    match () {
        () if Some(own) == file(io::stderr().as_fd()) => Some(&STANDARD_ERROR),
        () if Some(own) == file(io::stdout().as_fd()) => Some(&STANDARD_OUTPUT),
        () => None,
    }
}

/// Like [`write_all`], in pieces that a pipe takes whole (PIPE_BUF, pipe(7)) and that end with a
/// line, so that no other process's line comes between the parts of one. Other threads' lines to
/// the same output wait until a piece is written.
pub(crate) fn write_lines(
    output: BorrowedFd<'_>,
    bytes: &[u8],
    progress: &Progress,
) -> Result<usize, (usize, io::Error)> {
    let mut written = 0;
    let turn = turn_at(output);
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        let piece = rest.get(..first_lines(rest)).unwrap_or(rest);
        let _turn = turn.map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
        match write_all(output, piece, progress) {
            Ok(count) => written += count,
            Err((count, error)) => return Err((written + count, error)),
        }
    }
    Ok(written)
}

/// The length of the first lines that a pipe takes at once; at least one line.
fn first_lines(bytes: &[u8]) -> usize {
    let whole = bytes.get(..nix::libc::PIPE_BUF).unwrap_or(bytes);
    let is_end = |byte: &u8| *byte == b'\n';
    if whole.len() == bytes.len() {
        return bytes.len();
    }
    match whole.iter().rposition(is_end) {
        Some(end) => end + 1,
        None => bytes.iter().position(is_end).map_or(bytes.len(), |end| end + 1),
    }
}

#[cfg(test)]
mod tests;
