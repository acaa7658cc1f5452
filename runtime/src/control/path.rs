//! Where the control socket is, and who may have that place.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Why there is no control socket.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControlError {
    /// Somebody listens at this path.
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket is at this path; it is left alone.
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl ControlError {
    fn io(path: &Path, error: impl Into<io::Error>) -> Self {
        ControlError::Io { path: path.to_owned(), error: error.into() }
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::InUse { path } => {
                write!(f, "--control: {path:?} belongs to a primary that is running")
            }
            ControlError::NotASocket { path } => {
                write!(f, "--control: {path:?} exists and is no socket")
            }
            ControlError::Io { path, error } => write!(f, "--control: {path:?}: {error}"),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ControlError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A path that holds our socket, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    inode: Inode,
}

/// Which file it is: device and number.
type Inode = (u64, u64);

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    /// A path that somebody else has taken since is theirs.
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The directories where control sockets are by default, the preferred one first.
pub(super) fn directories() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute());
    let mut directories: Vec<PathBuf> = runtime.into_iter().collect();
    let temporary = std::env::temp_dir();
    if !directories.contains(&temporary) {
        directories.push(temporary);
    }
    directories
}

/// Listens at the default place: in the first of the directories where that is possible, as an
/// environment that came with another user's `XDG_RUNTIME_DIR` must not keep the primary down.
pub(super) fn claim_default(directories: &[PathBuf]) -> Result<(OwnedFd, Place), ControlError> {
    let name = format!("roundel-{}.sock", std::process::id());
    let mut outcome = Err(ControlError::io(Path::new(&name), Errno::ENOENT));
    for directory in directories {
        outcome = claim(&directory.join(&name));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Listens at a path. A socket that nobody listens on is replaced.
pub(super) fn claim(path: &Path) -> Result<(OwnedFd, Place), ControlError> {
    match listen_at(path) {
        Ok(claimed) => return Ok(claimed),
        Err(Errno::EADDRINUSE) => {}
        Err(error) => return Err(ControlError::io(path, error)),
    }
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Err(ControlError::io(path, error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ControlError::NotASocket { path: path.to_owned() });
    }
    match dial(path) {
        Err(Errno::ECONNREFUSED) => {}
        // EAGAIN: its backlog is full, so somebody listens.
        Ok(_) | Err(Errno::EAGAIN) => return Err(ControlError::InUse { path: path.to_owned() }),
        Err(error) => return Err(ControlError::io(path, error)),
    }
    // Another primary may have done the same in between; then the path is a new file.
    if inode(path).is_ok_and(|inode| inode == (metadata.dev(), metadata.ino())) {
        std::fs::remove_file(path).map_err(|error| ControlError::io(path, error))?;
    }
    listen_at(path).map_err(|error| match error {
        Errno::EADDRINUSE => ControlError::InUse { path: path.to_owned() },
        error => ControlError::io(path, error),
    })
}

fn listen_at(path: &Path) -> Result<(OwnedFd, Place), Errno> {
    let address = UnixAddr::new(path)?;
    let fd = stream_socket()?;
    // The file inherits the mode of the socket (less the umask), so it never exists with another
    // one; changing the umask instead would concern all threads.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &address)?;
    let inode = inode(path).map_err(errno)?;
    let place = Place { path: path.to_owned(), inode };
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok((fd, place))
}

/// Connects without waiting; connecting to a unix socket is either possible at once or not at all.
/// The stream is non-blocking.
pub(super) fn dial(path: &Path) -> Result<UnixStream, Errno> {
    let address = UnixAddr::new(path)?;
    let fd = stream_socket()?;
    connect(fd.as_raw_fd(), &address)?;
    Ok(UnixStream::from(fd))
}

/// The user behind the other end of a stream, as of its connect or listen (unix(7)).
pub(super) fn peer(stream: &impl AsFd) -> Result<nix::sys::socket::UnixCredentials, Errno> {
    nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
