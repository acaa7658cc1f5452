//! Shared by tests that start and reap processes.

use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Held by a test as long as it runs: reaping takes every child of the process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a child to end, and leaves it to be reaped.
pub(crate) fn wait_for_end(pid: i32) {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        tell.send(waitid(Id::Pid(Pid::from_raw(pid)), flags).map(drop))
    });
    assert_eq!(told.recv_timeout(LONG).expect("it does not end"), Ok(()));
}
