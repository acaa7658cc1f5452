//! Shared by the tests of the control socket.

mod client;
mod follow;
mod path;
mod server;

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use roundel_core::Time;
use serde_json::json;

use super::client::{dial_patiently, find_in};
use super::conversation::{IDLE, MAX_REQUEST};
use super::path::{Directory, claim, claim_default};
use super::server::{MAX_CLIENTS, MAX_UNSENT};
use super::*;

/// The longest wait of a test.
const LIMIT: Duration = Duration::from_secs(10);

/// The directory of one test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "roundel-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn socket(&self, id: &str) -> PathBuf {
        self.0.join(format!("roundel-{id}.sock"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server with the event loop that a primary has around it.
struct Primary {
    server: ControlServer,
    now: Time,
    _dir: Dir,
}

impl Primary {
    fn new() -> Self {
        let dir = Dir::new();
        let server = ControlServer::bind(Some(&dir.socket("1"))).unwrap();
        Primary { server, now: Time::from_millis(5), _dir: dir }
    }

    /// A client, and its id at the primary.
    fn connect(&mut self) -> (UnixStream, ClientId) {
        let stream = self.dial();
        let id = self.server.accept(self.now).unwrap().unwrap();
        assert_eq!(
            self.server.accept(self.now).unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock
        );
        (stream, id)
    }

    fn dial(&self) -> UnixStream {
        let stream = UnixStream::connect(self.server.path()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn ready(&mut self, id: ClientId) -> Option<Request> {
        self.server.on_ready(id, self.now)
    }

    fn reply(&mut self, id: ClientId, answer: &impl Serialize) {
        self.server.reply(id, answer, self.now);
    }

    fn is_gone(&self, id: ClientId) -> bool {
        self.server.wants_write(id).is_none()
    }
}

/// Like closing, but at once: a process that another test forks has a copy of every descriptor
/// until it execs.
fn hang_up(socket: &impl AsRawFd) {
    let both = nix::sys::socket::Shutdown::Both;
    nix::sys::socket::shutdown(socket.as_raw_fd(), both).unwrap();
}

/// Reads everything until the end of file.
fn read_all(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            // The server closed with unread bytes of ours; what it wrote came before.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(text).unwrap()
}

/// Reads up to a line break.
fn read_line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn error_of(text: &str) -> String {
    let failed: Failed = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
    assert!(!failed.ok);
    failed.error
}
