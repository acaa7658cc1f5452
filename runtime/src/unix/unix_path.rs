//! The path of a unix socket, taken in such a way that two live sockets never both believe to own
//! it.
//!
//! bind(2) never replaces a file, so a path that a dead process left behind must be removed first.
//! Two things can go wrong. A socket that is bound and does not listen yet looks like a stale one.
//! And if two processes find the same stale socket, both can remove the file at the path; the
//! second one then removes the live socket of the first. So a process that takes a path holds a
//! lock on a file beside it from before the bind until the socket listens.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open as open_path};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, chown};

/// How often the lock is tried again because its last owner has just removed its file.
const TRIES: u32 = 16;

/// The owner and the mode that the file of a socket gets; `None` leaves it as the kernel makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileOptions {
    /// Exactly this mode, whatever the umask is.
    pub(crate) mode: Option<Mode>,
    pub(crate) owner: Option<Uid>,
    pub(crate) group: Option<Gid>,
}

impl FileOptions {
    /// Sets them, if the file is still that of this socket. Links are not followed, since others
    /// may be able to write to the directory.
    pub(crate) fn set(&self, bound: &BoundPath) -> Result<(), Errno> {
        if *self == FileOptions::default() {
            return Ok(());
        }
        let (file, _) = bound.open()?;
        // By its number: a path could lead to another file by now, and a descriptor of this kind
        // can't be given to fchmod(2).
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        chown(path.as_str(), self.owner, self.group)?;
        if let Some(mode) = self.mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode.bits()))
                .map_err(|error| errno(&error))?;
        }
        Ok(())
    }
}

#[cfg(feature = "primary")]
impl FileOptions {
    /// Whether this process may set them for a file that is there, as it has been made with the
    /// options of before.
    ///
    /// # Errors
    /// EPERM if only another user may, EADDRINUSE if the file is not that of this socket.
    pub(crate) fn may_set(&self, before: &FileOptions, bound: &BoundPath) -> Result<(), Errno> {
        let (_, found) = bound.open()?;
        let euid = nix::unistd::geteuid();
        let owns = Uid::from_raw(found.st_uid) == euid;
        let gives_away = self.owner != before.owner || self.group != before.group;
        match euid.is_root() || owns && !gives_away {
            true => Ok(()),
            false => Err(Errno::EPERM),
        }
    }

    /// The first option of these that is not given any more.
    pub(crate) fn dropped(&self, before: &FileOptions) -> Option<&'static str> {
        match () {
            () if before.mode.is_some() && self.mode.is_none() => Some("mode"),
            () if before.owner.is_some() && self.owner.is_none() => Some("owner"),
            () if before.group.is_some() && self.group.is_none() => Some("group"),
            () => None,
        }
    }
}

/// How to take a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// A stream socket listens once the path is taken.
    pub(crate) kind: SockType,
    /// For listen(2).
    pub(crate) backlog: Backlog,
    /// The mode of the file from its creation, less the umask; `None` for the mode that bind(2)
    /// gives.
    pub(crate) mode: Option<Mode>,
    /// What the file gets before the socket listens.
    pub(crate) file: FileOptions,
    /// Whether a stale socket is removed. Only for paths of the operator: workers may not take over
    /// the paths that they ask for.
    pub(crate) replace_stale: bool,
}

/// Why a path was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// A socket has the path or is about to; or a stale socket has it and must not be removed.
    InUse,
    /// The file there is not a socket; it is left alone.
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

/// A path of one of our sockets, with the identity of its file, which shows whether the path is
/// still ours.
///
/// While the socket is open, the number of its file is not given to another one. So remove the path
/// before the socket is closed.
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

    /// The same, if there is a socket at the path.
    pub(crate) fn of_socket(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        found.file_type().is_socket().then(|| BoundPath::of(path))?
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, without following links, and what it is; EADDRINUSE if it is another one.
    fn open(&self) -> Result<(OwnedFd, FileStat), Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = open_path(self.path(), flags, Mode::empty())?;
        let found = fstat(&file)?;
        match (found.st_dev, found.st_ino) == (self.device, self.inode) {
            true => Ok((file, found)),
            false => Err(Errno::EADDRINUSE),
        }
    }

    /// Removes the path, unless another process has taken it over.
    pub(crate) fn unlink(&self) {
        if BoundPath::of(&self.path).as_ref() == Some(self) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a new socket to a path and, if it is a stream socket, listens. The socket is non-blocking
/// and close-on-exec. A path of a live socket is never taken, whatever state that socket is in.
///
/// # Errors
/// [`NotTaken`]; then nothing has changed.
pub(crate) fn take(path: &Path, wish: &Wish) -> Result<(OwnedFd, BoundPath), NotTaken> {
    let address = UnixAddr::new(path)?;
    let fd = open(wish.kind)?;
    if let Some(mode) = wish.mode {
        // The file inherits the mode of the socket (less the umask), so it never exists with
        // another one. Changing the umask instead would affect all threads.
        fchmod(&fd, mode)?;
    }
    let lock = match Lock::take(path) {
        // A live socket at the path is the more useful error than the failed lock beside it.
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
    // A client can connect only once the socket listens.
    let listens = || match wish.kind {
        SockType::Stream => listen(&fd, wish.backlog),
        _ => Ok(()),
    };
    if let Err(errno) = wish.file.set(&bound).and_then(|()| listens()) {
        bound.unlink();
        return Err(errno.into());
    }
    drop(lock);
    Ok((fd, bound))
}

/// Connects without waiting: a connect to a unix socket either succeeds at once or fails.
///
/// # Errors
/// As connect(2): ECONNREFUSED if no socket listens, EAGAIN if the backlog of the listener is full.
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

/// Removes the socket of a process that has ended.
fn remove_stale(path: &Path, wish: &Wish) -> Result<(), NotTaken> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // It has disappeared meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(errno(&error).into()),
    };
    if !found.file_type().is_socket() {
        return Err(NotTaken::NotASocket);
    }
    match dial(path, wish.kind) {
        Err(Errno::ECONNREFUSED) if wish.replace_stale && !is_bound(path) => {}
        Err(Errno::ENOENT) => return Ok(()),
        // EPROTOTYPE: a socket of another type has the path.
        Ok(_) | Err(Errno::ECONNREFUSED | Errno::EAGAIN | Errno::EPROTOTYPE | Errno::EPERM) => {
            return Err(NotTaken::InUse);
        }
        Err(errno) => return Err(errno.into()),
    }
    // Programs that do not use the lock may have put another socket there.
    let same = BoundPath::of(path)
        .is_some_and(|now| (now.device, now.inode) == (found.dev(), found.ino()));
    if same {
        fs::remove_file(path).map_err(|error| NotTaken::Os(errno(&error)))?;
    }
    Ok(())
}

/// True if a socket that does not listen yet is bound to this path, as `/proc/net/unix` shows
/// (proc(5)): that of a program that does not use the lock.
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
    // Listening sockets have a flag set; a connection has the path of the socket that accepted it,
    // but another state.
    flags == b"00000000" && state == b"01" && names.contains(&name)
}

/// The lock held while a path is taken.
#[derive(Debug)]
struct Lock {
    /// `None` on a file system without locks: the path is then taken without one, as other programs
    /// do.
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
    /// Removes the file while the lock is held: a process that has it open then sees that it is
    /// gone.
    fn drop(&mut self) {
        if self.file.as_ref().is_none_or(|file| is_at(file, &self.path)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The lock file is beside the socket, with a name that no other program uses.
fn lock_path(socket: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(".");
    name.push(socket.file_name()?);
    name.push(".roundel-lock");
    Some(socket.with_file_name(name))
}

/// True if the path still leads to the file that was opened there.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests;
