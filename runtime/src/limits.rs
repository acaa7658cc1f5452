//! The limit on open files, and what of it and of memory is used.

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// The limit on open files, raised as far as it goes.
#[derive(Clone, Copy, Debug)]
pub struct OpenFiles {
    found: u64,
    soft: u64,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one (getrlimit(2)). Workers get what was found.
    ///
    /// # Errors
    /// If the limit can't be read; one that can't be raised stays.
    pub fn raise() -> io::Result<OpenFiles> {
        let (found, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
        Ok(OpenFiles { found, soft: if raised { hard } else { found } })
    }

    /// The soft limit as it was found.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The soft limit as it is now.
    pub fn soft(&self) -> u64 {
        self.soft
    }
}

/// How many descriptors this process has open (proc(5)).
///
/// # Errors
/// If `/proc` can't be read.
pub fn open_fds() -> io::Result<usize> {
    // The directory itself is open while it is read.
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// Resident memory of this process in KiB (proc(5), `statm`).
///
/// # Errors
/// If `/proc` can't be read.
pub fn rss_kb() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    Ok(pages * u64::try_from(page).unwrap_or(4096) / 1024)
}
