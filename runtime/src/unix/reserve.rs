//! Descriptors held in reserve, to be released when others need them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Descriptors in reserve. Each is an open file of its own, so that releasing one also helps when
/// the limit of the whole system is reached.
#[derive(Debug)]
pub(crate) struct Reserve {
    held: Vec<OwnedFd>,
    size: usize,
}

impl Reserve {
    /// Opens `size` descriptors.
    ///
    /// # Errors
    /// If that many are not available.
    pub(crate) fn take(size: usize) -> io::Result<Reserve> {
        let mut reserve = Reserve { held: Vec::with_capacity(size), size };
        reserve.fill()?;
        Ok(reserve)
    }

    /// Calls a function that may need descriptors; the reserve is released meanwhile.
    pub(crate) fn lend<T>(&mut self, act: impl FnOnce() -> T) -> T {
        self.held.clear();
        let done = act();
        self.refill();
        done
    }

    /// Opens the missing descriptors again, as far as they are available by now.
    pub(crate) fn refill(&mut self) {
        // The next call tries again what is still missing.
        let _ = self.fill();
    }

    fn fill(&mut self) -> io::Result<()> {
        while self.held.len() < self.size {
            self.held.push(File::open("/dev/null")?.into());
        }
        Ok(())
    }
}
