//! What processes use (proc(5)).

use std::fs;
use std::io;

use nix::unistd::{SysconfVar, sysconf};

/// Resident memory of a process in KiB.
///
/// # Errors
/// If `/proc` can't be read, or the process is gone.
pub(crate) fn rss_kb(pid: i32) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok(pages * system(SysconfVar::PAGE_SIZE, 4096) / 1024)
}

/// The CPU time of a process in milliseconds, its own and the kernel's for it.
///
/// # Errors
/// As [`rss_kb`].
pub(crate) fn cpu_ms(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may itself contain brackets and blanks. Field 3 follows it.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let ticks = ticks() + ticks();
    Ok(ticks * 1000 / system(SysconfVar::CLK_TCK, 100).max(1))
}

fn system(name: SysconfVar, otherwise: u64) -> u64 {
    let value = sysconf(name).ok().flatten();
    value.and_then(|value| u64::try_from(value).ok()).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let pid = std::process::id().cast_signed();
        assert!(rss_kb(pid).unwrap() > 100);
        let (before, begun) = (cpu_ms(pid).unwrap(), Instant::now());
        while cpu_ms(pid).unwrap() < before + 30 {
            assert!(begun.elapsed() < Duration::from_secs(10), "no time is counted");
        }
        assert!(rss_kb(-1).is_err() && cpu_ms(-1).is_err());
    }
}
