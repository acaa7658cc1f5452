//! Looking at processes and files from outside: bounded waits, `/proc`, temporary directories.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use nix::unistd::Pid;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Tests that load the machine, or measure time, take turns.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks every few milliseconds until there is an answer.
///
/// # Panics
/// If there is none within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Some(answer) => return answer,
            None => assert!(Instant::now() < deadline, "waited in vain for {what}"),
        }
        thread::park_timeout(Duration::from_millis(3));
    }
}

/// A new directory under the temporary directory, for the caller to remove.
///
/// # Panics
/// If it can't be made.
pub fn scratch(prefix: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("{prefix}-{}-{next}", std::process::id()));
    fs::create_dir_all(&path).expect("a temporary directory");
    path
}

/// An address that nobody listens on: an IP address of the loopback network that only this call
/// gives out, so that nobody takes the port before it is used.
///
/// # Panics
/// If there is none.
pub fn unused_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [.., high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // Tests of several processes may run at a time.
    let process = 64 + (std::process::id() % 128) as u8;
    let ip = Ipv4Addr::new(127, process, high, low);
    TcpListener::bind((ip, 0))
        .and_then(|it| it.local_addr())
        .expect("a port of the kernel's choice")
}

/// Where cargo puts the binaries of the profile that the test was built with.
///
/// # Panics
/// If the test that asks is not where cargo puts it.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    test.parent().and_then(Path::parent).expect("the target directory").to_owned()
}

/// One of the binaries of the crate `cli`.
///
/// # Panics
/// As [`built`].
pub fn binary(name: &str) -> PathBuf {
    built(name, &["runtime-mio", "runtime-smol", "cli"])
}

/// Something that cargo has built from these crates, beside the test that asks.
///
/// # Panics
/// If it is missing, or older than a source file: a run of one package's tests does not build it.
pub fn built(name: &str, crates: &[&str]) -> PathBuf {
    let path = target_dir().join(name);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = ["core", "runtime"].iter().chain(crates).map(|it| workspace.join(it).join("src"));
    let newest = sources.filter_map(|it| newest(&it)).max();
    let made = fs::metadata(&path).and_then(|it| it.modified()).ok();
    assert!(
        made.is_some() && made >= newest,
        "{} is missing or stale: run `cargo test --workspace`",
        path.display()
    );
    path
}

/// When the newest source file under a directory was written. Unit tests don't count.
fn newest(path: &Path) -> Option<std::time::SystemTime> {
    if path.file_stem()? == "tests" {
        return None;
    }
    if !path.is_dir() {
        return fs::metadata(path).ok()?.modified().ok();
    }
    fs::read_dir(path).ok()?.flatten().filter_map(|entry| newest(&entry.path())).max()
}

/// The CPU time that all threads of a process have used, to the nanosecond
/// (clock_getcpuclockid(3)); zero if it is gone.
pub fn cpu_time(pid: i32) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid));
    clock.and_then(ClockId::now).map_or(Duration::ZERO, Duration::from)
}

/// Whether a process runs. A zombie does not.
pub fn is_alive(pid: i32) -> bool {
    stat_fields(pid).first().is_some_and(|state| state != "Z")
}

/// How many descriptors a process has open.
pub fn open_fds(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// What a process's memory takes that is resident, in KiB.
pub fn rss_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The fields of `stat` after the name, from the state on.
fn stat_fields(pid: i32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

/// The processes that have this variable with this value in their environment.
pub fn with_variable(name: &str, value: &Path) -> Vec<i32> {
    let wanted = format!("{name}={}", value.display());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        is_alive(*pid) && variables.split(|byte| *byte == 0).any(|it| it == wanted.as_bytes())
    })
    .collect()
}
