//! The start of async-io's own thread.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use async_io::Async;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::gettid;

/// Makes async-io start its thread and open its descriptors before the limits are reached.
/// Otherwise it would do so at its first use, and panic if it can't.
///
/// # Errors
/// If a thread can't be started, for example because of a limit on processes.
pub(crate) fn start() -> io::Result<()> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        try_thread().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start a thread: {error}"))
        })?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        drop(Async::new_nonblocking(EventFd::from_flags(flags)?)?);
        *started = true;
    }
    Ok(())
}

/// Starts a thread that does nothing, and waits until it no longer counts against the limit: the
/// kernel releases it only some time after the join, and its place is free only then.
fn try_thread() -> io::Result<()> {
    let number = thread::Builder::new().spawn(gettid)?.join();
    let Ok(number) = number else { return Ok(()) };
    let task = PathBuf::from(format!("/proc/self/task/{number}"));
    while task.exists() {
        thread::yield_now();
    }
    Ok(())
}
