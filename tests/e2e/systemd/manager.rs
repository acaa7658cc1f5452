//! A service manager, played by the test: it passes sockets, hears what the primary says, and
//! keeps what it is given.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use roundel_runtime::unix::channel::recv_handles;

use crate::harness::*;
use crate::pair::Pair;

pub(crate) struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: RefCell<Vec<String>>,
    stored: RefCell<BTreeMap<String, OwnedFd>>,
}

impl Manager {
    pub(crate) fn new() -> Manager {
        let path = temp_dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        // Also a primary that has become another user may write to it.
        let dir = path.parent().unwrap();
        for path in [dir, &path] {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        Manager { socket, path, heard: RefCell::default(), stored: RefCell::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what was said, and does what it asks for.
    fn listen(&self) {
        let mut buffer = [0; 8192];
        loop {
            let mut fds = Vec::new();
            let Ok(got) = recv_handles(self.socket.as_fd(), &mut buffer, &mut fds) else { return };
            let text = String::from_utf8(buffer[..got.len].to_vec()).unwrap();
            let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
            if let Some(name) = of("FDNAME=") {
                assert!(!name.contains(':') && name.len() <= 255 && name.is_ascii(), "{name}");
                match of("FDSTOREREMOVE=") {
                    Some(_) => drop(self.stored.borrow_mut().remove(name)),
                    None => {
                        assert_eq!((of("FDSTORE="), fds.len()), (Some("1"), 1), "{text}");
                        self.stored.borrow_mut().extend(fds.pop().map(|fd| (name.to_owned(), fd)));
                    }
                }
            }
            self.heard.borrow_mut().push(text);
        }
    }

    /// Everything that was said so far.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.listen();
        self.heard.borrow().clone()
    }

    /// Waits until this was said, as a line of a message or its beginning, and returns the message.
    pub(crate) fn hears(&self, words: &str) -> String {
        wait_for(words, || {
            let said = |text: &String| text.lines().any(|line| line.starts_with(words));
            self.heard().into_iter().find(said)
        })
    }

    /// Forgets what was said.
    pub(crate) fn forget(&self) {
        self.listen();
        self.heard.borrow_mut().clear();
    }

    /// The names of what is kept.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.listen();
        self.stored.borrow().keys().cloned().collect()
    }

    /// What is kept, as it would be passed to the next process; it stays in the store.
    pub(crate) fn hand_back(&self) -> Vec<(String, OwnedFd)> {
        self.listen();
        let stored = self.stored.borrow();
        stored.iter().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap())).collect()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path.parent().unwrap());
    }
}

/// A command that passes at most two sockets to what is appended to it, and has its output in the
/// file `log`.
pub(crate) fn passing(dir: &Path, sockets: Vec<(&str, OwnedFd)>) -> Command {
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    let moves = ["", "3<&0", "3<&0 4<&1"][sockets.len()];
    let script = format!(
        "exec {moves}; exec 0</dev/null >>{:?} 2>&1; export LISTEN_PID=$$; exec \"$@\"",
        dir.join("log")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash"]);
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut fds = sockets.into_iter().map(|(_, fd)| fd);
    if let Some(fd) = fds.next() {
        command.stdin(fd);
    }
    if let Some(fd) = fds.next() {
        command.stdout(fd);
    }
    mark(&mut command, dir);
    command
}

/// A primary of demo workers that gets these sockets.
pub(crate) fn start(
    on: Pair,
    manager: Option<&Manager>,
    sockets: Vec<(&str, OwnedFd)>,
    binds: &[&str],
    options: &[&str],
) -> Cluster {
    let dir = temp_dir();
    let mut command = passing(&dir, sockets);
    command.arg(on.binary()).args(["demo", "-w", "2"]).args(options);
    for bind in binds {
        command.args(["-b", bind]);
    }
    command.arg("--control").arg(dir.join("control")).arg("--events").arg(dir.join("events"));
    if let Some(manager) = manager {
        command.env("NOTIFY_SOCKET", manager.path());
    }
    Cluster::adopt_all(command.spawn().unwrap(), dir, binds.len())
}
