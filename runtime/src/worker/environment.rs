//! The worker's variables in the environment: see [`roundel_core::environment`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use roundel_core::Codec;
use roundel_core::environment::{
    CHANNEL_VAR, NODE_CHANNEL_VAR, NODE_FORMAT_VAR, NODE_WORKER_VAR, SLOT_VAR, VARIABLES,
    WORKER_VAR,
};

use crate::unix::channel::set_nonblocking;

/// True if this process was started as a worker.
pub fn is_worker() -> bool {
    channel_variable().is_some()
}

/// The variable that names the channel, and the codec used there. A Roundel primary may set Node's
/// variables too.
fn channel_variable() -> Option<(&'static str, Codec)> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    if is_set(CHANNEL_VAR) {
        Some((CHANNEL_VAR, Codec::Native))
    } else if is_set(NODE_CHANNEL_VAR) && is_set(NODE_WORKER_VAR) {
        Some((NODE_CHANNEL_VAR, Codec::Node))
    } else {
        None
    }
}

/// This worker's id; `None` outside a cluster.
pub fn worker_id() -> Option<u64> {
    let id = std::env::var(WORKER_VAR).or_else(|_| std::env::var(NODE_WORKER_VAR));
    id.ok()?.parse().ok()
}

/// This worker's slot; `None` outside a cluster.
pub fn slot() -> Option<u32> {
    std::env::var(SLOT_VAR).ok()?.parse().ok()
}

/// A command for a helper that is not a worker: it does not get the variables of the cluster. The
/// channel's descriptor is close-on-exec in any case.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
}

/// Takes over the channel: close-on-exec first, then non-blocking. `None` outside a cluster. The
/// variables stay, so that the program's own libraries can read them.
///
/// # Errors
/// `InvalidInput` if the variable names no open stream socket, or if a Node primary wants a format
/// other than JSON; `Unsupported` under a Node primary without the feature `node`; `AlreadyExists`
/// if the channel was taken before.
pub(super) fn take_channel() -> io::Result<Option<(OwnedFd, Codec)>> {
    static TAKEN: OnceLock<()> = OnceLock::new();
    let Some((name, codec)) = channel_variable() else { return Ok(None) };
    let value = std::env::var_os(name).unwrap_or_default();
    let invalid = |why: &str| {
        let words = format!("{name}={} {why}", value.to_string_lossy());
        io::Error::new(io::ErrorKind::InvalidInput, words)
    };
    let number = value.to_str().and_then(|text| text.parse::<i32>().ok());
    let number = number.ok_or_else(|| invalid("is not a descriptor number"))?;
    if codec == Codec::Node && cfg!(not(feature = "node")) {
        let words = "this program was built without roundel's feature `node`, but its primary is \
            Node";
        return Err(io::Error::new(io::ErrorKind::Unsupported, words));
    }
    if codec == Codec::Node
        && let Some(format) = std::env::var_os(NODE_FORMAT_VAR)
        && format != "json"
    {
        return Err(invalid("is a channel with a serialization other than 'json'"));
    }
    if TAKEN.set(()).is_err() {
        let words = "this process has joined its cluster already";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
    }
    let fd = adopt(number).map_err(invalid)?;
    leave_to_others();
    Ok(Some((fd, codec)))
}

/// A worker with a channel needs none of what a primary does for programs without one: it gives
/// back the listeners that were passed to it (sd_listen_fds(3)), which would else stay open, and
/// lives on when the primary ends, to finish what it has.
fn leave_to_others() {
    let of = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if of("LISTEN_PID") != Some(std::process::id()) {
        return;
    }
    let count = RawFd::try_from(of("LISTEN_FDS").unwrap_or(0)).unwrap_or(0);
    for number in (3_i32..).take(count.unsigned_abs() as usize) {
        // The program may have put something else there, which stays.
        if is_listener(number)
            && let Ok(fd) = crate::unix::sys::adopt(number)
        {
            drop(fd);
        }
    }
    let _ = nix::sys::prctl::set_pdeathsig(None);
}

fn is_listener(number: RawFd) -> bool {
    let copy = crate::unix::sys::duplicate(number);
    copy.is_ok_and(|fd| getsockopt(&fd, sockopt::AcceptConn) == Ok(true))
}

/// The channel with this number. Anything else with that number has another owner, and stays as it
/// is.
pub(super) fn adopt(number: RawFd) -> Result<OwnedFd, &'static str> {
    const NO_CHANNEL: &str = "is not a channel; start helper processes without this variable";
    if number <= 2 {
        return Err(NO_CHANNEL);
    }
    let own: SockaddrStorage = getsockname(number).map_err(|_| NO_CHANNEL)?;
    if own.family() != Some(AddressFamily::Unix) {
        return Err(NO_CHANNEL);
    }
    let fd = crate::unix::sys::adopt(number).map_err(|_| NO_CHANNEL)?;
    if getsockopt(&fd, sockopt::SockType) != Ok(SockType::Stream) {
        let _ = fd.into_raw_fd();
        return Err(NO_CHANNEL);
    }
    crate::unix::sys::close_on_exec(number);
    set_nonblocking(&fd).map_err(|_| NO_CHANNEL)?;
    Ok(fd)
}
