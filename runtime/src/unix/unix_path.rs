//! The path of a unix socket: taken so that never two sockets that live believe to have it.
//!
//! bind(2) never replaces a file, so somebody has to remove what a dead process left behind. Two
//! things can go wrong there: a socket that is bound and does not listen yet looks as one that
//! nobody listens on, and two processes that find the same stale socket can both remove what is at
//! the path, the second one the live socket of the first. So whoever takes a path holds a lock on
//! a file beside it from before the bind until the socket listens.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

/// How often the lock is tried anew because its last owner has just removed its file.
const TRIES: u32 = 16;

/// How a path is to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// A stream socket listens once the path is taken.
    pub(crate) kind: SockType,
    /// For listen(2).
    pub(crate) backlog: Backlog,
    /// The mode of the file from its birth, less the umask; `None` for what bind(2) makes.
    pub(crate) mode: Option<Mode>,
    /// Whether a socket that nobody has any more is removed. For paths of the operator only: those
    /// that workers ask for are not theirs to take.
    pub(crate) replace_stale: bool,
}

/// Why a path was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// A socket has it, or is about to; or one that nobody has, and it is not to be removed.
    InUse,
    /// Something that is no socket is there; it is left alone.
    NotASocket,
    /// A system call failed.
    Os(Errno),
}

impl From<NotTaken> for Errno {
    fn from(why: NotTaken) -> Errno {
        match why {
            NotTaken::InUse | NotTaken::NotASocket => Errno::EADDRINUSE,
            NotTaken::Os(errno) => errno,
        }
    }
}

impl From<Errno> for NotTaken {
    fn from(errno: Errno) -> NotTaken {
        NotTaken::Os(errno)
    }
}

/// A path that a socket of ours has, with what tells whether it still does.
///
/// While the socket is open, the number of its file is not given to another one. So remove the
/// path before the socket is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl BoundPath {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        Some(BoundPath { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the path, unless somebody else has taken it over.
    pub(crate) fn unlink(&self) {
        if BoundPath::of(&self.path).as_ref() == Some(self) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a new socket to a path and, if it is one for streams, has it listen. The socket is
/// non-blocking and close-on-exec. A path that a live socket has is never taken, whatever state
/// that one is in.
///
/// # Errors
/// [`NotTaken`]; then nothing has changed.
pub(crate) fn take(path: &Path, wish: &Wish) -> Result<(OwnedFd, BoundPath), NotTaken> {
    let address = UnixAddr::new(path)?;
    let fd = open(wish.kind)?;
    if let Some(mode) = wish.mode {
        // The file inherits the mode of the socket (less the umask), so it never exists with
        // another one; changing the umask instead would concern all threads.
        fchmod(&fd, mode)?;
    }
    let lock = match Lock::take(path) {
        // What is there matters more than that no lock can be made beside it.
        Err(NotTaken::Os(_)) if is_live(path, wish.kind) => return Err(NotTaken::InUse),
        outcome => outcome?,
    };
    match bind(fd.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) => {
            remove_stale(path, wish)?;
            bind(fd.as_raw_fd(), &address).map_err(|errno| match errno {
                Errno::EADDRINUSE => NotTaken::InUse,
                errno => NotTaken::Os(errno),
            })?;
        }
        outcome => outcome?,
    }
    let bound = BoundPath::of(path).ok_or(Errno::ENOENT)?;
    if wish.kind == SockType::Stream
        && let Err(errno) = listen(&fd, wish.backlog)
    {
        bound.unlink();
        return Err(errno.into());
    }
    drop(lock);
    Ok((fd, bound))
}

/// Connects without waiting; connecting to a unix socket is either possible at once or not at all.
///
/// # Errors
/// As connect(2): ECONNREFUSED if nobody listens, EAGAIN if somebody does whose backlog is full.
pub(crate) fn dial(path: &Path, kind: SockType) -> Result<OwnedFd, Errno> {
    let address = UnixAddr::new(path)?;
    let fd = open(kind)?;
    connect(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

fn open(kind: SockType) -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

fn is_live(path: &Path, kind: SockType) -> bool {
    matches!(dial(path, kind), Ok(_) | Err(Errno::EAGAIN | Errno::EPROTOTYPE | Errno::EPERM))
}

/// Removes the socket of a process that is gone.
fn remove_stale(path: &Path, wish: &Wish) -> Result<(), NotTaken> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // It has gone by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(errno(&error).into()),
    };
    if !found.file_type().is_socket() {
        return Err(NotTaken::NotASocket);
    }
    match dial(path, wish.kind) {
        Err(Errno::ECONNREFUSED) if wish.replace_stale && !is_bound(path) => {}
        Err(Errno::ENOENT) => return Ok(()),
        // EPROTOTYPE: a socket of another type has it.
        Ok(_) | Err(Errno::ECONNREFUSED | Errno::EAGAIN | Errno::EPROTOTYPE | Errno::EPERM) => {
            return Err(NotTaken::InUse);
        }
        Err(errno) => return Err(errno.into()),
    }
    // Programs that know nothing of the lock may have put another one there.
    let same = BoundPath::of(path)
        .is_some_and(|now| (now.device, now.inode) == (found.dev(), found.ino()));
    if same {
        fs::remove_file(path).map_err(|error| NotTaken::Os(errno(&error)))?;
    }
    Ok(())
}

/// Whether a socket that does not listen yet is bound to this path, as proc(5) lists them
/// (`/proc/net/unix`): that of a program that knows nothing of the lock.
fn is_bound(path: &Path) -> bool {
    let Ok(table) = fs::read("/proc/net/unix") else { return false };
    let absolute = std::path::absolute(path).unwrap_or_default();
    let names = [path.as_os_str().as_bytes(), absolute.as_os_str().as_bytes()];
    table.split(|byte| *byte == b'\n').any(|line| is_bound_in(line, &names))
}

/// One line: `address: references protocol flags type state inode path`.
fn is_bound_in(line: &[u8], names: &[&[u8]]) -> bool {
    let mut rest = line;
    let mut fields = [&b""[..]; 7];
    for field in &mut fields {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        (*field, rest) = rest.split_at(end);
    }
    let [_, _, _, flags, _, state, _] = fields;
    let Some(name) = rest.strip_prefix(b" ") else { return false };
    // Listening is a flag of its own; a connection has the path of the socket that accepted it, and
    // another state.
    flags == b"00000000" && state == b"01" && names.contains(&name)
}

/// The lock of whoever is taking a path.
#[derive(Debug)]
struct Lock {
    /// `None` on a file system that has no locks: then it is as everywhere else.
    file: Option<Flock<File>>,
    path: PathBuf,
}

impl Lock {
    fn take(socket: &Path) -> Result<Lock, NotTaken> {
        let path = lock_path(socket).ok_or(Errno::EINVAL)?;
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits());
        for _ in 0..TRIES {
            let file = options.open(&path).map_err(|error| errno(&error))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) if is_at(&file, &path) => return Ok(Lock { file: Some(file), path }),
                Ok(_) | Err((_, Errno::EINTR)) => {}
                Err((_, Errno::EAGAIN)) => return Err(NotTaken::InUse),
                Err(_) => return Ok(Lock { file: None, path }),
            }
        }
        Err(NotTaken::InUse)
    }
}

impl Drop for Lock {
    /// The file goes while the lock is held: who has it open by then sees that it is gone.
    fn drop(&mut self) {
        if self.file.as_ref().is_none_or(|file| is_at(file, &self.path)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Beside the socket, with a name that no other program uses.
fn lock_path(socket: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(socket.file_name()?);
    name.push(".roundel-lock");
    Some(socket.with_file_name(name))
}

/// Whether a path still is the file that was opened there.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests;
