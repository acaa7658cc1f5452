//! Descriptors that are held for nothing but to be let go when some are needed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Descriptors in reserve. They are open files of their own, so that they also stand for what the
/// whole system can have open.
#[derive(Debug)]
pub(crate) struct Reserve {
    held: Vec<OwnedFd>,
    size: usize,
}

impl Reserve {
    /// Takes so many descriptors.
    ///
    /// # Errors
    /// If there are not as many.
    pub(crate) fn take(size: usize) -> io::Result<Reserve> {
        let mut reserve = Reserve { held: Vec::with_capacity(size), size };
        reserve.fill()?;
        Ok(reserve)
    }

    /// Does something for which descriptors may be needed, with the reserve let go meanwhile.
    pub(crate) fn lend<T>(&mut self, act: impl FnOnce() -> T) -> T {
        self.held.clear();
        let done = act();
        self.refill();
        done
    }

    /// Takes again what could not be taken before, as far as that can be had by now.
    pub(crate) fn refill(&mut self) {
        // What is missing is asked for again later.
        let _ = self.fill();
    }

    fn fill(&mut self) -> io::Result<()> {
        while self.held.len() < self.size {
            self.held.push(File::open("/dev/null")?.into());
        }
        Ok(())
    }
}
