//! The primary's signals as something to read from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal as Raw};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A signal that the primary listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGHUP.
    Hangup,
    /// SIGCHLD: some child has ended.
    Child,
    /// SIGUSR1.
    ReopenLogs,
    /// SIGTTIN.
    MoreWorkers,
    /// SIGTTOU.
    FewerWorkers,
}

const SIGNALS: [(Raw, Signal); 7] = [
    (Raw::SIGTERM, Signal::Terminate),
    (Raw::SIGINT, Signal::Interrupt),
    (Raw::SIGHUP, Signal::Hangup),
    (Raw::SIGCHLD, Signal::Child),
    (Raw::SIGUSR1, Signal::ReopenLogs),
    (Raw::SIGTTIN, Signal::MoreWorkers),
    (Raw::SIGTTOU, Signal::FewerWorkers),
];

/// A signalfd(2).
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals for this thread and those that it starts, and opens a descriptor on
    /// them. Call it before other threads exist.
    ///
    /// # Errors
    /// As signalfd(2).
    pub fn block() -> io::Result<Signals> {
        crate::sys::default_child_signal();
        let mut set = SigSet::empty();
        for (raw, _) in SIGNALS {
            set.add(raw);
        }
        set.thread_block()?;
        Ok(Signals(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// A descriptor to watch.
    ///
    /// # Errors
    /// For want of descriptors.
    pub fn fd(&self) -> io::Result<Arc<OwnedFd>> {
        Ok(Arc::new(self.0.as_fd().try_clone_to_owned()?))
    }

    /// The next signal that is there.
    pub fn read(&self) -> Option<Signal> {
        loop {
            let info = self.0.read_signal().ok()??;
            let number = i32::try_from(info.ssi_signo).ok()?;
            if let Some((_, signal)) = SIGNALS.iter().find(|(raw, _)| *raw as i32 == number) {
                return Some(*signal);
            }
        }
    }
}
