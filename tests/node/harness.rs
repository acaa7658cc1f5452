//! A primary with Node workers, and what its event log says.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
pub(crate) use roundel_tests::programs::observe::*;
use roundel_tests::programs::optional;
use roundel_tests::programs::optional::full_matrix;
pub(crate) use roundel_tests::programs::optional::skip;
use serde_json::Value;

/// In the environment of everything that a primary under test starts.
const MARK: &str = "ROUNDEL_NODE_TEST";

/// The number of the descriptor that a primary inherits: see [`Setup::inherit`].
pub(crate) const INHERITED: i32 = 9;

/// Which primary runs the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Roundel,
    RoundelSmol,
    Node,
}

/// As the variable `UNDER` says.
pub(crate) fn under() -> Under {
    match std::env::var("UNDER").as_deref() {
        Ok("node") => Under::Node,
        Ok("roundel") | Err(_) => Under::Roundel,
        Ok("roundel-smol") => Under::RoundelSmol,
        Ok(other) => panic!("UNDER is {other}, not roundel, roundel-smol or node"),
    }
}

/// True, with a word about it, under Node's own primary, which does not do what is tested.
pub(crate) fn beyond_node(why: &str) -> bool {
    let skip = under() == Under::Node;
    if skip {
        println!("skipped under Node's own primary: {why}");
    }
    skip
}

/// The Node binary that the tests use, if there is one.
pub(crate) fn node() -> Option<PathBuf> {
    let found = optional::node();
    if found.is_none() {
        skip("no node");
    }
    found
}

/// The binaries of the versions that packages are tried on: what `NODE` says, or Node 20 and the
/// newest from the cache. `None` where that is not there.
pub(crate) fn versions() -> Vec<Option<PathBuf>> {
    if std::env::var_os("NODE").is_some() {
        return vec![node()];
    }
    [20, 26].map(version).into()
}

/// The binary of a main version in the cache.
pub(crate) fn version(main: u32) -> Option<PathBuf> {
    cached(&format!("versions/node_modules/node-{main}/bin/node"))
}

/// The same for scenarios that take long: the newest alone, unless the full matrix is asked for.
pub(crate) fn main_versions() -> Vec<Option<PathBuf>> {
    let mut all = versions();
    if !full_matrix() {
        all.drain(..all.len() - 1);
    }
    all
}

/// A path in what `tests/node/cache/fetch` has fetched, if it has.
pub(crate) fn cached(path: &str) -> Option<PathBuf> {
    let path = target_dir().join("../node-cache").join(path);
    if path.exists() {
        return Some(path);
    }
    skip("run tests/node/cache/fetch first");
    None
}

pub(crate) fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node/fixtures").join(name)
}

/// Two workers that run a fixture, unless told otherwise. `None` where there is no Node.
pub(crate) fn fixture(name: &str) -> Option<Setup> {
    let node = node()?;
    Some(Setup {
        node,
        under: under(),
        workers: 2,
        options: Vec::new(),
        program: vec![fixture_path(name).into()],
        variables: Vec::new(),
        inherited: None,
        within: None,
        dir: scratch("roundel-node"),
    })
}

/// A primary that is yet to be started.
pub(crate) struct Setup {
    pub(crate) node: PathBuf,
    under: Under,
    workers: usize,
    options: Vec<OsString>,
    program: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    inherited: Option<OwnedFd>,
    within: Option<PathBuf>,
    /// For the files of the cluster; gone with it.
    pub(crate) dir: PathBuf,
}

impl Setup {
    pub(crate) fn workers(mut self, count: usize) -> Setup {
        self.workers = count;
        self
    }

    /// This primary, whatever the variable says.
    pub(crate) fn under(mut self, under: Under) -> Setup {
        self.under = under;
        self
    }

    /// Options for `roundel run`. Node's own primary has none.
    pub(crate) fn options(mut self, options: &[&str]) -> Setup {
        self.options.extend(options.iter().map(OsString::from));
        self
    }

    /// Another Node than the default.
    pub(crate) fn on(mut self, node: PathBuf) -> Setup {
        self.node = node;
        self
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Setup {
        self.program.push(arg.into());
        self
    }

    /// Another program than the fixture.
    pub(crate) fn program(mut self, program: &[&str]) -> Setup {
        self.program = program.iter().map(OsString::from).collect();
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl Into<OsString>) -> Setup {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Starts the primary in a directory.
    pub(crate) fn within(mut self, dir: impl Into<PathBuf>) -> Setup {
        self.within = Some(dir.into());
        self
    }

    /// Has the primary inherit a descriptor, as [`INHERITED`].
    pub(crate) fn inherit(mut self, fd: impl Into<OwnedFd>) -> Setup {
        self.inherited = Some(fd.into());
        self
    }

    /// The command that starts the primary.
    fn command(&self) -> Command {
        let events = self.dir.join("events");
        let mut command = Command::new("sh");
        // A shell moves the inherited descriptor from standard input to its place.
        let script = format!("exec {INHERITED}<&0 </dev/null; exec \"$0\" \"$@\"");
        command.args(["-c", if self.inherited.is_some() { &script } else { "exec \"$0\" \"$@\"" }]);
        match &self.inherited {
            Some(fd) => command.stdin(fd.try_clone().unwrap()),
            None => command.stdin(Stdio::null()),
        };
        match self.under {
            Under::Roundel | Under::RoundelSmol => {
                let binary = || match self.under {
                    Under::RoundelSmol => binary("roundel-smol"),
                    _ => binary("roundel"),
                };
                command.arg(std::env::var_os("ROUNDEL").map_or_else(binary, Into::into));
                command.args(["run", "-w", &self.workers.to_string(), "--control"]);
                command.arg(self.dir.join("control")).arg("--events").arg(events);
                command.args(&self.options);
            }
            Under::Node => {
                command.arg(&self.node);
                command.env("WORKERS", self.workers.to_string()).env("EVENTS", events);
                command.arg(fixture_path("primary.js"));
            }
        }
        command.args(&self.program);
        let bin = self.dir.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let link = bin.join("node");
        if !link.exists() {
            std::os::unix::fs::symlink(&self.node, link).unwrap();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = [bin].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(dirs).unwrap());
        command.env("REPORTS", self.dir.join("reports"));
        command.env(MARK, &self.dir).env_remove("WEB_CONCURRENCY");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.within {
            command.current_dir(dir);
        }
        let log = File::create(self.dir.join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Starts the primary and waits until all its workers serve.
    pub(crate) fn start(self) -> Cluster {
        let workers = self.workers;
        let cluster = self.start_without_waiting();
        cluster.ready(workers);
        cluster
    }

    pub(crate) fn start_without_waiting(self) -> Cluster {
        let child = self.command().spawn().unwrap();
        Cluster { child, dir: self.dir, log: Mutex::default() }
    }
}

/// The event log as far as it was read.
#[derive(Default)]
struct EventLog {
    offset: u64,
    begun_line: String,
    events: Vec<Value>,
}

impl EventLog {
    fn read_on(&mut self, path: &Path) {
        let Ok(mut file) = File::open(path) else { return };
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let mut bytes = Vec::new();
        self.offset += file.read_to_end(&mut bytes).unwrap() as u64;
        self.begun_line.push_str(std::str::from_utf8(&bytes).unwrap());
        let whole = self.begun_line.rfind('\n').map_or(0, |end| end + 1);
        for line in self.begun_line.drain(..whole).collect::<String>().lines() {
            self.events.push(serde_json::from_str(line).unwrap());
        }
    }
}

/// A primary under test, with everything that it started.
pub(crate) struct Cluster {
    child: Child,
    pub(crate) dir: PathBuf,
    log: Mutex<EventLog>,
}

impl Cluster {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What primary and workers printed.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Looks at the event log so far.
    pub(crate) fn with_events<T>(&self, look: impl FnOnce(&[Value]) -> T) -> T {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.read_on(&self.dir.join("events"));
        look(&log.events)
    }

    /// The events of this name so far.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        self.with_events(|events| {
            events.iter().filter(|event| event["event"] == name).cloned().collect()
        })
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.with_events(|events| events.iter().filter(|event| event["event"] == name).count())
    }

    /// Waits for an event of this name that fits.
    pub(crate) fn event(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(name, || {
            self.with_events(|events| {
                events.iter().find(|event| event["event"] == name && fits(event)).cloned()
            })
        })
    }

    /// Waits for the end of a process.
    pub(crate) fn exit_of(&self, pid: i32) -> Value {
        self.event("exited", |event| event["pid"] == pid)
    }

    /// The pids of the workers that serve now, in the order in which they came.
    pub(crate) fn serving(&self) -> Vec<i32> {
        self.with_events(|events| {
            let of = |event: &Value| event["pid"].as_i64().map(|pid| pid as i32);
            let named = |name: &'static str| events.iter().filter(move |it| it["event"] == name);
            let ended: Vec<i32> = named("exited").filter_map(of).collect();
            named("ready").filter_map(of).filter(|pid| !ended.contains(pid)).collect()
        })
    }

    /// Waits until this many workers serve; their pids.
    pub(crate) fn ready(&self, count: usize) -> Vec<i32> {
        eventually("ready workers", || Some(self.serving()).filter(|pids| pids.len() >= count))
    }

    /// Waits for the nth listener; its address.
    pub(crate) fn bound(&self, nth: usize) -> String {
        let event = eventually("the listener", || self.events("bound").into_iter().nth(nth));
        event["address"].as_str().unwrap().to_owned()
    }

    /// Waits for the nth listener; where a client reaches it.
    pub(crate) fn addr(&self, nth: usize) -> SocketAddr {
        reachable(&self.bound(nth))
    }

    /// What the workers reported so far, in the order in which they did.
    pub(crate) fn reports(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join("reports")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for so many reports.
    pub(crate) fn report(&self, count: usize) -> Vec<Value> {
        eventually("the reports", || Some(self.reports()).filter(|it| it.len() >= count))
    }

    /// Waits until the primary has as many descriptors open as it had before.
    pub(crate) fn expect_descriptors(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while open_fds(self.pid()) != count {
            if Instant::now() > deadline {
                let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().flatten();
                let open: Vec<_> = entries.map(|it| fs::read_link(it.path())).collect();
                panic!("{count} descriptors before, {} after: {open:?}", open.len());
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The processes of this cluster that run: primary, workers, and what they started.
    pub(crate) fn processes(&self) -> Vec<i32> {
        with_variable(MARK, &self.dir)
    }

    /// Waits for the end of the primary; its exit code, or its signal below zero.
    pub(crate) fn wait(&mut self) -> i32 {
        let child = &mut self.child;
        let status = eventually("the end of the primary", || child.try_wait().unwrap());
        status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
    }

    /// Asks the primary to end, and fails unless it does, with all that it started.
    pub(crate) fn stop(mut self) {
        signal(self.pid(), Signal::SIGTERM);
        assert_eq!(self.wait(), 0, "{}", self.output());
        eventually("the end of all processes", || self.processes().is_empty().then_some(()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- output of primary and workers\n{}", self.output());
            self.with_events(|events| {
                let from = events.len().saturating_sub(40);
                events[from..].iter().for_each(|event| eprintln!("{event}"));
            });
        } else {
            assert_eq!(self.count("stalled"), 0, "a connection stalled");
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Where a client reaches a listener with this address.
pub(crate) fn reachable(address: &str) -> SocketAddr {
    let mut addr: SocketAddr = address.parse().unwrap();
    if addr.ip().is_unspecified() {
        addr.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    addr
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}
