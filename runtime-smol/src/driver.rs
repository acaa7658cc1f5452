//! The thread that async-io has for itself.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use async_io::Async;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::gettid;

/// Has async-io start its thread, and open the descriptors that it needs for itself, before there
/// are none left. It would do so when it is first used, and panic where it can't.
///
/// # Errors
/// If a thread can't be started, as a limit on processes forbids it.
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

/// Starts a thread that does nothing, and waits until it no longer counts: until the kernel has
/// released it, which is after it could be joined, the place that it takes is not free again.
fn try_thread() -> io::Result<()> {
    let number = thread::Builder::new().spawn(gettid)?.join();
    let Ok(number) = number else { return Ok(()) };
    let task = PathBuf::from(format!("/proc/self/task/{number}"));
    while task.exists() {
        thread::yield_now();
    }
    Ok(())
}
