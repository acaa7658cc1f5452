//! The limit on open files, and how much of it and of memory is used.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};

use crate::unix::outputs::Outputs;

/// The limit on open files, raised as far as possible.
#[derive(Clone, Copy, Debug)]
pub struct OpenFiles {
    found: u64,
    soft: u64,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one (getrlimit(2)). Workers get the original limit.
    ///
    /// # Errors
    /// If the limit can't be read. If it can't be raised, it stays as it is.
    pub fn raise() -> io::Result<OpenFiles> {
        let (found, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
        Ok(OpenFiles { found, soft: if raised { hard } else { found } })
    }

    /// The original soft limit.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The soft limit now.
    pub fn soft(&self) -> u64 {
        self.soft
    }
}

/// How the limit on open files is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections, and listeners that workers ask for.
    pub(crate) held: u32,
    /// All listeners.
    pub(crate) listeners: u32,
    /// Clients of the control socket.
    pub(crate) clients: usize,
}

/// Descriptors for the primary itself: its own sockets and logs, and the reserve.
const OWN: u64 = 32;
/// The minimum for that: about as many are open, or in reserve.
const OWN_AT_LEAST: u64 = 24;
/// Descriptors for a worker: its channel, and that of its predecessor, which is leaving.
const WORKER: u64 = 8;
/// The minimum for that.
const WORKER_AT_LEAST: u64 = 4;
/// The same for a worker whose output is read: two pipes each for it and its predecessor, and two
/// that helpers of an ended one hold open.
const PIPES: u64 = 6;
/// Descriptors for the primary if it reads the workers' output: the log file, and in the reserve
/// the four ends of a new worker's pipes.
const READER: u64 = 5;
/// Clients of the control socket, if there is room.
const CLIENTS: u64 = 64;
/// The minimum for that.
const CLIENTS_AT_LEAST: u64 = 4;
/// Connections, if everything else is at its minimum.
const FEW: u64 = 8;

/// Divides a limit on open files, of which `open` are taken already, between `workers`, the
/// operator's listeners, control clients and connections. `outputs` tells whether each worker also
/// has pipes.
///
/// # Errors
/// The lowest limit that is high enough.
pub(crate) fn divide(
    limit: u64,
    open: u64,
    workers: u64,
    operator: u64,
    outputs: Outputs,
) -> Result<Shares, u64> {
    let clients = (limit / 16).clamp(CLIENTS_AT_LEAST, CLIENTS);
    let fixed = open + operator + pipes(workers, outputs);
    let room = limit.saturating_sub(fixed + OWN + WORKER * workers + clients);
    let least = fixed + OWN_AT_LEAST + WORKER_AT_LEAST * workers + CLIENTS_AT_LEAST;
    let tight = limit.saturating_sub(least).min(FEW);
    let (held, clients) = if room >= tight { (room, clients) } else { (tight, CLIENTS_AT_LEAST) };
    if held == 0 {
        return Err(least + 1);
    }
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    // The listeners that workers ask for must leave room for connections.
    let listeners = small(operator + (held / 2).max(1));
    Ok(Shares { held: small(held), listeners, clients: clients as usize })
}

fn pipes(workers: u64, outputs: Outputs) -> u64 {
    match outputs {
        Outputs::Inherited => 0,
        Outputs::Piped => READER + PIPES * workers,
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

/// The same from the size of the directory, which Linux 6.2 and later give: however many are open,
/// it takes one call and no descriptor.
///
/// # Errors
/// If `/proc` can't be read, or does not tell.
pub(crate) fn open_fds_at_once() -> io::Result<u64> {
    match fs::metadata("/proc/self/fd")?.len() {
        0 => Err(io::ErrorKind::Unsupported.into()),
        count => Ok(count),
    }
}

/// The CPU time that this process has used, in user mode and in the kernel (getrusage(2)).
///
/// # Errors
/// If the call fails.
pub(crate) fn cpu_time() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = usage.user_time() + usage.system_time();
    let micros = u64::try_from(used.num_microseconds()).unwrap_or(0);
    Ok(Duration::from_micros(micros))
}

/// Resident memory of this process in KiB.
///
/// # Errors
/// If `/proc` can't be read.
pub fn rss_kb() -> io::Result<u64> {
    Ok(Resident::open()?.bytes()? / 1024)
}

/// The file that tells the resident memory of this process (proc(5), `statm`). Once it is open,
/// reading it takes no descriptor.
#[derive(Debug)]
pub(crate) struct Resident(File);

impl Resident {
    /// Opens it.
    ///
    /// # Errors
    /// If `/proc` can't be read.
    pub(crate) fn open() -> io::Result<Resident> {
        File::open("/proc/self/statm").map(Resident)
    }

    /// Reads it.
    ///
    /// # Errors
    /// As read(2).
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        let mut text = [0; 256];
        let count = self.0.read_at(&mut text, 0)?;
        let text = str::from_utf8(text.get(..count).unwrap_or_default()).unwrap_or_default();
        let pages: u64 = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        Ok(pages * u64::try_from(page).unwrap_or(4096))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_into_the_limit() {
        for limit in [40, 53, 64, 100, 128, 256, 1_024, 4_096, 1 << 20] {
            for workers in [1, 2, 4, 16, 64, 1_000] {
                for operator in [0, 1, 60, 500] {
                    for (open, outputs) in [(0, Outputs::Inherited), (20, Outputs::Piped)] {
                        fits(limit, workers, operator, open, outputs);
                    }
                }
            }
        }
    }

    fn fits(limit: u64, workers: u64, operator: u64, open: u64, outputs: Outputs) {
        let case = (limit, workers, operator, open, outputs);
        let own = OWN_AT_LEAST + WORKER_AT_LEAST * workers + pipes(workers, outputs);
        let least = open + own + operator;
        match divide(limit, open, workers, operator, outputs) {
            Ok(shares) => {
                let clients = shares.clients as u64;
                let all = least + clients + u64::from(shares.held);
                assert!(all <= limit && shares.held > 0, "{case:?}: {shares:?}");
                assert!((CLIENTS_AT_LEAST..=CLIENTS).contains(&clients));
                assert!(u64::from(shares.listeners) > operator);
                let asked = u64::from(shares.listeners) - operator;
                assert!(asked <= u64::from(shares.held).div_ceil(2), "{case:?}");
            }
            Err(needed) => {
                assert!(needed > limit, "{case:?}");
                let shares = divide(needed, open, workers, operator, outputs);
                assert_eq!(shares.map(|s| s.held), Ok(1));
            }
        }
    }

    /// If there is room, the whole reserve of the design is kept free.
    #[test]
    fn the_reserve_counts_workers_listeners_and_control_clients() {
        let divide =
            |limit, workers, operator, outputs| divide(limit, 0, workers, operator, outputs);
        let shares = divide(4_096, 4, 10, Outputs::Inherited).unwrap();
        assert_eq!(shares.held, 4_096 - 32 - 8 * 4 - 10 - 64);
        assert_eq!(shares.clients, 64);
        let shares = divide(4_096, 4, 10, Outputs::Piped).unwrap();
        assert_eq!(shares.held, 4_096 - 32 - 5 - (8 + 6) * 4 - 10 - 64);
        let shares = divide(128, 1, 60, Outputs::Inherited).unwrap();
        assert_eq!((shares.held, shares.clients), (128 - 32 - 8 - 60 - 8, 8));
        assert_eq!(divide(64, 2, 60, Outputs::Inherited), Err(24 + 8 + 60 + 4 + 1));
        assert_eq!(divide(64, 2, 60, Outputs::Piped), Err(24 + 5 + (4 + 6) * 2 + 60 + 4 + 1));
    }
}
