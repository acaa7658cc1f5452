//! The primary's signals, as a descriptor to read from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::libc;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A signal that the primary acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGHUP sent by a process. The kernel sends it when the terminal is gone.
    Hangup,
    /// SIGCHLD: a child has ended.
    Child,
    /// SIGUSR1.
    ReopenLogs,
    /// SIGUSR2.
    Upgrade,
    /// SIGTTIN sent by a process. A terminal sends it to a background process that reads.
    MoreWorkers,
    /// SIGTTOU sent by a process. A terminal sends it to a background process that writes.
    FewerWorkers,
    /// SIGXCPU.
    CpuTime,
    /// Any other signal that would end the primary if it were not taken over.
    Other,
}

/// Signals left as they are: those that can't be blocked, those that stop and continue, those that
/// report a fault in this process or ask for a core dump of it, those without effect, and SIGPIPE,
/// which Rust ignores.
const LEFT_ALONE: [i32; 14] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGCONT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
    libc::SIGPIPE,
    libc::SIGWINCH,
    libc::SIGURG,
];

/// All signals that a primary takes over: none of them ends the primary by its default action.
fn taken_up() -> SigSet {
    let all = 1..=libc::SIGRTMAX();
    crate::unix::sys::signal_set(all.filter(|number| !LEFT_ALONE.contains(number)))
}

/// The meaning of a signal; `code` shows the sender (sigaction(2), `si_code`).
fn meaning(number: i32, code: i32) -> Signal {
    // SI_USER, SI_QUEUE, SI_TKILL; the kernel's own codes are above 0.
    let from_process = code <= 0;
    match number {
        libc::SIGTERM => Signal::Terminate,
        libc::SIGINT => Signal::Interrupt,
        libc::SIGQUIT => Signal::Quit,
        libc::SIGHUP if from_process => Signal::Hangup,
        libc::SIGCHLD => Signal::Child,
        libc::SIGUSR1 => Signal::ReopenLogs,
        libc::SIGUSR2 => Signal::Upgrade,
        libc::SIGTTIN if from_process => Signal::MoreWorkers,
        libc::SIGTTOU if from_process => Signal::FewerWorkers,
        libc::SIGXCPU => Signal::CpuTime,
        _ => Signal::Other,
    }
}

/// The earlier signal mask of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Mask(SigSet);

impl Mask {
    /// Restores the mask. Signals that arrived meanwhile take effect now.
    pub fn restore(&self) {
        let _ = self.0.thread_set_mask();
    }
}

/// Blocks every signal that a primary takes over, for this thread and those that it starts. A
/// primary must do this first, before other threads exist: until then, a signal has its default
/// action.
///
/// # Errors
/// As pthread_sigmask(3), which has none for this.
pub fn block() -> io::Result<Mask> {
    crate::unix::sys::default_child_signal();
    let before = SigSet::thread_get_mask()?;
    taken_up().thread_block()?;
    Ok(Mask(before))
}

/// A signalfd(2).
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// [Blocks](block) the signals and opens a descriptor for them.
    ///
    /// # Errors
    /// As signalfd(2).
    pub fn open() -> io::Result<Signals> {
        block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals(SignalFd::with_flags(&taken_up(), flags)?))
    }

    /// A descriptor to watch.
    ///
    /// # Errors
    /// If descriptors run out.
    pub fn fd(&self) -> io::Result<Arc<OwnedFd>> {
        Ok(Arc::new(self.0.as_fd().try_clone_to_owned()?))
    }

    /// The next pending signal.
    pub fn read(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        Some(meaning(i32::try_from(info.ssi_signo).ok()?, info.ssi_code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_does_not_ask_for_workers() {
        for (number, wanted) in
            [(libc::SIGTTIN, Signal::MoreWorkers), (libc::SIGTTOU, Signal::FewerWorkers)]
        {
            for code in [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL] {
                assert_eq!(meaning(number, code), wanted);
            }
            assert_eq!(meaning(number, libc::SI_KERNEL), Signal::Other);
        }
        // Ctrl-C and Ctrl-\ come from the terminal too, and are meant for the primary.
        assert_eq!(meaning(libc::SIGINT, libc::SI_KERNEL), Signal::Interrupt);
        assert_eq!(meaning(libc::SIGQUIT, libc::SI_KERNEL), Signal::Quit);
    }
}
