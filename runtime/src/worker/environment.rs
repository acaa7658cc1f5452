//! What a worker finds in its environment.
//!
//! | variable | |
//! |---|---|
//! | `ROUNDEL_CHANNEL_FD` | the number of the channel's descriptor |
//! | `ROUNDEL_WORKER_ID` | the worker's id, counting from 1, never reused |
//! | `ROUNDEL_SLOT` | the worker's slot, counting from 0; a respawn has the same one |
//! | `NODE_APP_INSTANCE` | the slot again |

use std::ffi::OsStr;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use crate::channel::set_nonblocking;
use crate::process::{CHANNEL_VAR, SLOT_VAR, VARIABLES, WORKER_VAR};

/// Whether this process was started as a worker.
pub fn is_worker() -> bool {
    std::env::var_os(CHANNEL_VAR).is_some()
}

/// This worker's id; `None` outside a cluster.
pub fn worker_id() -> Option<u64> {
    std::env::var(WORKER_VAR).ok()?.parse().ok()
}

/// This worker's slot; `None` outside a cluster.
pub fn slot() -> Option<u32> {
    std::env::var(SLOT_VAR).ok()?.parse().ok()
}

/// A command that starts a helper which is no worker: without the variables of the cluster. The
/// channel's descriptor is close-on-exec in any case.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
}

/// Takes the channel over: close-on-exec first, then non-blocking. `None` outside a cluster. The
/// variables stay, so that the program's own libraries can read them.
///
/// # Errors
/// `InvalidInput` if the variable names no open stream socket, `AlreadyExists` if the channel was
/// taken before.
pub(super) fn take_channel() -> io::Result<Option<OwnedFd>> {
    static TAKEN: OnceLock<()> = OnceLock::new();
    let Some(value) = std::env::var_os(CHANNEL_VAR) else { return Ok(None) };
    let invalid = |why: &str| {
        let words = format!("{CHANNEL_VAR}={} {why}", value.to_string_lossy());
        io::Error::new(io::ErrorKind::InvalidInput, words)
    };
    let number = value.to_str().and_then(|text| text.parse::<i32>().ok());
    let number = number.ok_or_else(|| invalid("is no descriptor"))?;
    if TAKEN.set(()).is_err() {
        let words = "this process has joined its cluster already";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
    }
    adopt(number).map(Some).map_err(invalid)
}

/// The channel under this number. What else may be there is somebody's, and stays as it is.
pub(super) fn adopt(number: RawFd) -> Result<OwnedFd, &'static str> {
    const NO_CHANNEL: &str =
        "names no channel; helpers of a worker are to be started without the variable";
    if number <= 2 {
        return Err(NO_CHANNEL);
    }
    let own: SockaddrStorage = getsockname(number).map_err(|_| NO_CHANNEL)?;
    if own.family() != Some(AddressFamily::Unix) {
        return Err(NO_CHANNEL);
    }
    let fd = crate::sys::adopt(number).map_err(|_| NO_CHANNEL)?;
    if getsockopt(&fd, sockopt::SockType) != Ok(SockType::Stream) {
        let _ = fd.into_raw_fd();
        return Err(NO_CHANNEL);
    }
    crate::sys::close_on_exec(number);
    set_nonblocking(&fd).map_err(|_| NO_CHANNEL)?;
    Ok(fd)
}
