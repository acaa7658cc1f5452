//! The commands' side of the control socket. It waits, but never forever unless it is asked to.

use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::path::{self, Directory, dial};
use super::{Failed, Progress, Request};
use crate::text;

/// How long the first line of a request that takes its time may take. The primary sends it at once.
const FIRST_LINE: Duration = Duration::from_secs(10);

/// How long a primary may be silent after that. It sends a line every 5 s.
const SILENCE: Duration = Duration::from_secs(30);

/// The longest answer in bytes: a status of 10,000 workers is about 3 MB.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// The control socket to use: `path` if one is given, else that of the only primary that runs under
/// this user.
///
/// # Errors
/// One line that says that no primary is running, or lists those that are.
pub fn find(path: Option<&Path>) -> Result<PathBuf, String> {
    match path {
        Some(path) => Ok(path.to_owned()),
        None => find_in(&path::all_directories()),
    }
}

pub(super) fn find_in(directories: &[Directory]) -> Result<PathBuf, String> {
    // Anybody with write access to a directory can put a socket there that no primary made.
    let (trusted, refused): (Vec<_>, Vec<_>) = directories
        .iter()
        .map(|it| (it, it.look()))
        .partition(|(it, look)| look.is_ok() || !it.path().exists());
    let listed = trusted.iter().filter_map(|(it, _)| std::fs::read_dir(it.path()).ok());
    let paths = listed.flatten().filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut live: Vec<PathBuf> = paths.filter(|path| is_ours(path) && is_live(path)).collect();
    live.sort();
    match live.as_slice() {
        [path] => Ok(path.clone()),
        [] => {
            let looked: Vec<PathBuf> = trusted.iter().map(|(it, _)| it.path().into()).collect();
            let refused = refused.into_iter().filter_map(|(_, look)| look.err());
            let notes: Vec<String> = std::iter::once(format!("looked in {}", list(&looked)))
                .filter(|_| !looked.is_empty())
                .chain(refused)
                .collect();
            Err(format!("no primary is running ({})", notes.join("; ")))
        }
        several => Err(format!("--control: several primaries are running: {}", list(several))),
    }
}

fn list(paths: &[PathBuf]) -> String {
    let quoted: Vec<String> = paths.iter().map(|path| format!("{path:?}")).collect();
    quoted.join(", ")
}

/// Only this user's sockets count.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("roundel-")
        && name.ends_with(".sock")
        && std::fs::symlink_metadata(path).is_ok_and(|metadata| {
            metadata.file_type().is_socket() && metadata.uid() == geteuid().as_raw()
        })
}

fn is_live(path: &Path) -> bool {
    matches!(dial(path), Ok(_) | Err(Errno::EAGAIN))
}

/// How long a backlog may stay full: other clients may all have come at once, to a primary that is
/// busy.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait before connecting again to a socket whose backlog is full.
const NAP: Duration = Duration::from_millis(10);

/// Connects, and naps while the backlog is full.
pub(super) fn dial_patiently(path: &Path, mut nap: impl FnMut()) -> Result<UnixStream, Errno> {
    let begun = Instant::now();
    loop {
        match dial(path) {
            Err(Errno::EAGAIN) if begun.elapsed() < BACKLOG_PATIENCE => nap(),
            outcome => return outcome,
        }
    }
}

/// A connection to a primary.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    stream: UnixStream,
    /// What was read beyond the last line.
    rest: Vec<u8>,
}

impl Connection {
    /// Connects to the control socket at `path`; waits up to 2 s for a place in its backlog.
    ///
    /// # Errors
    /// One line that names the path and the cause.
    pub fn open(path: &Path) -> Result<Self, String> {
        let stream = dial_patiently(path, || thread::sleep(NAP)).map_err(|error| match error {
            Errno::ENOENT | Errno::ECONNREFUSED => {
                format!("--control: {path:?}: no primary is running there")
            }
            Errno::EAGAIN => format!("--control: {path:?}: the primary does not answer"),
            error => format!("--control: {path:?}: {}", io::Error::from(error)),
        })?;
        let waiting = stream.set_nonblocking(false);
        waiting.map_err(|error| format!("--control: {path:?}: {error}"))?;
        Ok(Connection { path: path.to_owned(), stream, rest: Vec::new() })
    }

    /// The primary's process id; `None` if it is not visible from here.
    pub fn pid(&self) -> Option<i32> {
        path::peer(&self.stream).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
    }

    /// Sends a request, and waits up to `patience` for the answer: one JSON object, without its
    /// line break.
    ///
    /// # Errors
    /// One line that says why there is no answer, or why the primary refused.
    pub fn ask(&mut self, request: &Request, patience: Duration) -> Result<String, String> {
        let deadline = Instant::now() + patience;
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let sent = self.stream.set_write_timeout(Some(patience));
        let sent = sent.and_then(|()| self.stream.write_all(&line));
        // A primary that turned this client away has closed, but its reason may still be readable.
        let answer = self.read_line(deadline);
        let line = match (answer, sent) {
            (Ok(line), _) => line,
            (Err(error), Ok(())) | (Err(_), Err(error)) => return Err(self.explain(&error)),
        };
        self.refused(line)
    }

    /// Sends a request that takes its time, and tells how far it is, whenever that has changed,
    /// until the answer comes: one JSON object, without its line break. Waits up to 10 s for the
    /// first line of the primary, and up to 30 s for each further one.
    ///
    /// # Errors
    /// As [`ask`](Connection::ask). The primary may carry the request out nevertheless.
    pub fn ask_and_wait(
        &mut self,
        request: &Request,
        tell: impl FnMut(Progress),
    ) -> Result<String, String> {
        self.ask_within(request, FIRST_LINE, SILENCE, tell)
    }

    pub(super) fn ask_within(
        &mut self,
        request: &Request,
        first: Duration,
        silence: Duration,
        mut tell: impl FnMut(Progress),
    ) -> Result<String, String> {
        let mut line = self.ask(request, first)?;
        let mut told = None;
        while let Ok(progress) = serde_json::from_str(&line) {
            if told.replace(progress) != Some(progress) {
                tell(progress);
            }
            let next = self.read_line(Instant::now() + silence);
            line = self.refused(next.map_err(|error| self.explain(&error))?)?;
        }
        Ok(line)
    }

    /// The line, unless it is a refusal.
    fn refused(&self, line: String) -> Result<String, String> {
        match serde_json::from_str::<Failed>(&line) {
            Ok(failed) if !failed.ok => Err(in_words(&failed)),
            _ => Ok(line),
        }
    }

    /// Waits up to `patience` for the end of file; true once it came.
    pub fn wait_for_end(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut chunk = [0; 512];
        loop {
            match self.read_some(&mut chunk, deadline) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return false,
                Err(_) => return true,
            }
        }
    }

    fn read_line(&mut self, deadline: Instant) -> io::Result<String> {
        let mut line = std::mem::take(&mut self.rest);
        let mut chunk = [0; 64 * 1024];
        let mut scanned = 0;
        loop {
            let fresh = line.get(scanned..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                self.rest = line.split_off(scanned + end + 1);
                line.pop();
                let text = String::from_utf8(line);
                return text.map_err(|_| io::ErrorKind::InvalidData.into());
            }
            scanned = line.len();
            let count = self.read_some(&mut chunk, deadline)?;
            line.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.len() as u64 > MAX_ANSWER {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Reads once, within the time left until the deadline.
    fn read_some(&mut self, chunk: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    pub(super) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    pub(super) fn explain(&self, error: &io::Error) -> String {
        let cause = match error.kind() {
            _ if is_timeout(error) => "the primary does not answer".to_owned(),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "the primary closed the connection".to_owned(),
            io::ErrorKind::InvalidData => "the answer did not come from a primary".to_owned(),
            _ => error.to_string(),
        };
        format!("--control: {:?}: {cause}", self.path)
    }
}

/// A refusal, which may have several lines. None of them steers a terminal.
pub(super) fn in_words(failed: &Failed) -> String {
    let lines: Vec<String> = failed.error.lines().map(text::printable).collect();
    format!("the primary says: {}", lines.join("\n"))
}

/// An expired read timeout gives either of the two (socket(7), `SO_RCVTIMEO`).
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
