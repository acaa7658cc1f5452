//! Where the control socket is, and when a primary may take that path.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockType};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::unix::unix_path::{self, BoundPath, FileOptions, NotTaken, Wish};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// Why the control socket could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControlError {
    /// Another process listens at this path.
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The file at this path is not a socket; it is left alone.
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
    /// The default place has no usable directory; why, as text.
    NoDirectory(String),
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
                write!(f, "{path:?} belongs to a running primary")
            }
            ControlError::NotASocket { path } => {
                write!(f, "{path:?} exists and is not a socket")
            }
            ControlError::Io { path, error } => write!(f, "{path:?}: {error}"),
            ControlError::NoDirectory(why) => f.write_str(why),
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

/// The path of this primary's socket, until it is dropped. Drop it before the socket.
#[derive(Debug)]
pub(super) struct Place(BoundPath);

impl Place {
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Place {
    /// Removes the path, unless another process has taken it since.
    fn drop(&mut self) {
        self.0.unlink();
    }
}

/// A directory in which control sockets are by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    /// A directory that is the user's own already, such as `$XDG_RUNTIME_DIR`.
    Given(PathBuf),
    /// A directory that the first primary of this user makes; its parent may be shared by all
    /// users.
    Ours(PathBuf),
}

impl Directory {
    pub(super) fn path(&self) -> &Path {
        let (Directory::Given(path) | Directory::Ours(path)) = self;
        path
    }

    /// Checks that only this user can put anything there; a directory that can't be trusted is not
    /// used.
    ///
    /// # Errors
    /// Why the directory is not used, as text.
    pub(super) fn look(&self) -> Result<(), String> {
        let path = self.path();
        let found = fs::symlink_metadata(path).map_err(|error| format!("{path:?}: {error}"))?;
        // A directory that is only for control sockets must not even be readable by others.
        let (open, words) = match self {
            Directory::Given(_) => (0o022, "other users can write to it"),
            Directory::Ours(_) => (0o077, "other users can access it"),
        };
        match () {
            () if !found.is_dir() => Err(format!("{path:?} is not a directory")),
            () if found.uid() != geteuid().as_raw() => {
                Err(format!("{path:?} belongs to another user"))
            }
            () if found.mode() & open != 0 => Err(format!("{path:?}: {words}")),
            () => Ok(()),
        }
    }

    /// Makes the directory, if it is one that a primary makes.
    fn make(&self) -> io::Result<()> {
        match self {
            Directory::Given(_) => Ok(()),
            Directory::Ours(path) => match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                outcome => outcome,
            },
        }
    }
}

/// The directories where control sockets are by default, the preferred one first.
pub(super) fn directories() -> Vec<Directory> {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    // A relative path would mean another place for each process.
    let temporary = absolute("TMPDIR").unwrap_or_else(|| "/tmp".into());
    let ours = temporary.join(format!("roundel-{}", geteuid()));
    absolute("XDG_RUNTIME_DIR")
        .map(Directory::Given)
        .into_iter()
        .chain([Directory::Ours(ours)])
        .collect()
}

/// The directories in which a primary of this user may be that was started in another environment,
/// for example by a service manager.
pub(super) fn all_directories() -> Vec<Directory> {
    let mut directories = directories();
    let uid = geteuid();
    let elsewhere = [
        Directory::Given(format!("/run/user/{uid}").into()),
        Directory::Ours(format!("/tmp/roundel-{uid}").into()),
    ];
    for directory in elsewhere {
        if directory.path().exists() && !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// Listens at the default place, in the first usable directory. An environment that still names
/// another user's `XDG_RUNTIME_DIR` must not keep the primary from starting.
pub(super) fn claim_default(directories: &[Directory]) -> Result<(OwnedFd, Place), ControlError> {
    let name = format!("roundel-{}.sock", std::process::id());
    let mut outcome = Err(ControlError::NoDirectory("there is no default directory for it".into()));
    for directory in directories {
        let made = directory.make();
        outcome = match (directory.look(), made) {
            (Ok(()), _) => claim(&directory.path().join(&name)),
            (Err(_), Err(error)) => Err(ControlError::io(directory.path(), error)),
            (Err(why), Ok(())) => Err(ControlError::NoDirectory(why)),
        };
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Listens at a path. A socket at which no process listens any more is replaced.
pub(super) fn claim(path: &Path) -> Result<(OwnedFd, Place), ControlError> {
    let backlog = Backlog::new(BACKLOG).map_err(|error| ControlError::io(path, error))?;
    let mode = Some(Mode::S_IRUSR | Mode::S_IWUSR);
    let wish = Wish {
        kind: SockType::Stream,
        backlog,
        mode,
        file: FileOptions::default(),
        replace_stale: true,
    };
    match unix_path::take(path, &wish) {
        Ok((fd, bound)) => Ok((fd, Place(bound))),
        Err(NotTaken::InUse) => Err(ControlError::InUse { path: path.to_owned() }),
        Err(NotTaken::NotASocket) => Err(ControlError::NotASocket { path: path.to_owned() }),
        Err(NotTaken::Os(errno)) => Err(ControlError::io(path, errno)),
    }
}

/// Connects without waiting. The stream is non-blocking.
pub(super) fn dial(path: &Path) -> Result<UnixStream, Errno> {
    Ok(UnixStream::from(unix_path::dial(path, SockType::Stream)?))
}

/// The user and process at the other end of a stream, as of its connect or listen (unix(7)).
pub(super) fn peer(stream: &impl AsFd) -> Result<nix::sys::socket::UnixCredentials, Errno> {
    nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)
}
