//! Real primaries, real clients, and bounded waits on what can be observed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
pub(crate) use roundel_tests::programs::observe::{
    PATIENCE, alone, cpu_time, eventually as wait_for, is_alive as is_running,
};
use roundel_tests::programs::observe::{scratch, with_variable};
use serde_json::Value;

use crate::addresses::Addresses;

/// A new directory for a test.
pub(crate) fn temp_dir() -> PathBuf {
    scratch("roundel-e2e")
}

/// In the environment of everything that a primary under test starts, helpers of workers included.
const MARK: &str = "ROUNDEL_E2E_DIR";

/// Has the processes that come of a command known by a directory: see [`Cluster::processes`].
pub(crate) fn mark(command: &mut Command, dir: &Path) {
    command.env(MARK, dir);
}

/// Ends a process, and all that is known by this directory.
fn end(child: &mut Child, dir: &Path) {
    if child.try_wait().is_ok_and(|ended| ended.is_none()) {
        let _ = child.kill();
        let _ = child.wait();
    }
    // Workers may be stopped, and helpers of dead ones live on.
    for pid in with_variable(MARK, dir) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn exit_code(child: &mut Child) -> i32 {
    let status = wait_for("its end", || child.try_wait().unwrap());
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

/// A process that a test looks after itself. It ends with the test, and its directory goes.
pub(crate) struct Started {
    pub(crate) child: Child,
    dir: PathBuf,
}

impl Started {
    pub(crate) fn new(mut command: Command, dir: PathBuf) -> Started {
        mark(&mut command, &dir);
        Started { child: command.spawn().unwrap(), dir }
    }

    /// Waits for its end; its exit code, or its signal below zero.
    pub(crate) fn wait(&mut self) -> i32 {
        exit_code(&mut self.child)
    }

    /// Asks it to end, and fails unless it does.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        assert_eq!(self.wait(), 0);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        end(&mut self.child, &self.dir);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A primary under test, with everything that it started.
pub(crate) struct Cluster {
    child: Child,
    /// The primary, if it is process 1 of a namespace: then the child has only started it.
    process_one: Option<i32>,
    pub(crate) dir: PathBuf,
    pub(crate) addr: Addresses,
}

impl Cluster {
    /// `COMMAND ARGS PROGRAM`, where the arguments say what to bind.
    pub(crate) fn start(mut command: Command, args: &[&str], program: &[String]) -> Cluster {
        let dir = temp_dir();
        command.args(args);
        command.arg("--control").arg(dir.join("control"));
        command.arg("--events").arg(dir.join("events")).args(program);
        let log = fs::File::create(dir.join("log")).unwrap();
        mark(&mut command, &dir);
        // Symbols take longer to print than the crash that is tested.
        command.env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let listeners = args.iter().filter(|arg| **arg == "-b").count().max(1);
        Cluster::adopt_all(command.spawn().unwrap(), dir, listeners)
    }

    pub(crate) fn adopt(child: Child, dir: PathBuf) -> Cluster {
        Cluster::adopt_all(child, dir, 1)
    }

    /// A primary that binds so many addresses; the first two are for clients.
    pub(crate) fn adopt_all(child: Child, dir: PathBuf, listeners: usize) -> Cluster {
        let nowhere = Addresses::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut cluster = Cluster { child, process_one: None, dir, addr: nowhere };
        let bound = wait_for("the listeners", || {
            let bound = cluster.events_named("bound");
            (bound.len() >= listeners).then_some(bound)
        });
        let mut addresses = bound.iter().map(|event| event["address"].as_str()?.parse().ok());
        let first = addresses.next().flatten().expect("an address");
        cluster.addr = Addresses::new(first, addresses.next().flatten());
        cluster
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process_one.unwrap_or(self.child.id() as i32)
    }

    /// From now on the primary is the only child of what the test has started.
    pub(crate) fn enter_namespace(&mut self) {
        let starter = self.child.id();
        let children = fs::read_to_string(format!("/proc/{starter}/task/{starter}/children"));
        self.process_one = Some(children.unwrap().trim().parse().expect("one child"));
    }

    /// The pid by which the test knows a process, from the one by which the primary knows it.
    fn pid_outside(&self, inside: i64) -> Option<i32> {
        if self.process_one.is_none() {
            return i32::try_from(inside).ok();
        }
        let is_it = |pid: &i32| pid_inside(*pid).is_some_and(|it| i64::from(it) == inside);
        self.processes().into_iter().filter(|pid| *pid != self.child.id() as i32).find(is_it)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Waits until the primary has said this, which another thread writes for it.
    pub(crate) fn said(&self, words: &str) {
        wait_for(words, || self.log().contains(words).then_some(()));
    }

    /// The event log so far; a line that is being written is left out.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join("events")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn events_named(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == name).collect()
    }

    pub(crate) fn ask(&self, line: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.dir.join("control")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        writeln!(stream, "{line}").ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).ok()?;
        serde_json::from_str(&answer).ok()
    }

    /// The state. The pids of workers are those by which the test knows them.
    pub(crate) fn status(&self) -> Value {
        let mut status = wait_for("the status", || self.ask(r#"{"command":"status"}"#));
        for worker in status["workers"].as_array_mut().into_iter().flatten() {
            worker["pid"] = worker["pid"].as_i64().and_then(|pid| self.pid_outside(pid)).into();
        }
        status
    }

    pub(crate) fn total(&self, name: &str) -> u64 {
        self.status()["primary"][name].as_u64().unwrap()
    }

    /// The pids of the workers in this state.
    pub(crate) fn pids(&self, state: &str) -> Vec<i32> {
        let status = self.status();
        let workers = status["workers"].as_array().unwrap();
        let found = workers.iter().filter(|worker| worker["state"] == state);
        found.filter_map(|worker| Some(worker["pid"].as_i64()? as i32)).collect()
    }

    /// Waits until so many workers serve, and names them.
    pub(crate) fn ready(&self, count: usize) -> Vec<i32> {
        wait_for("ready workers", || {
            let pids = self.pids("ready");
            (pids.len() >= count).then_some(pids)
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the end of the primary; its exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        exit_code(&mut self.child)
    }

    /// Everything of this cluster that runs: the primary, workers, and what they started.
    pub(crate) fn processes(&self) -> Vec<i32> {
        with_variable(MARK, &self.dir)
    }

    /// Fails if something of the cluster goes on running.
    pub(crate) fn expect_nothing_left(&self) {
        let begun = Instant::now();
        while !self.processes().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(2), "left: {:?}", self.processes());
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Waits until no ended worker is left to be waited for: one may have ended just now.
    pub(crate) fn expect_no_zombies(&self) {
        wait_for("no zombies", || (zombies(self.pid()) == 0).then_some(()));
    }

    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait(), 0, "{}", self.log());
    }

    pub(crate) fn get(&self, path: &str) -> Outcome {
        get(self.addr, path)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        end(&mut self.child, &self.dir);
        if thread::panicking() {
            eprintln!("--- log of the primary\n{}", self.log());
        } else {
            let events = fs::read_to_string(self.dir.join("events")).unwrap_or_default();
            assert!(!events.contains(r#""event":"stalled""#), "a connection stalled");
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// 200, and this body.
    Ok(String),
    /// Another status.
    Status(String),
    /// Closed without an answer.
    Empty,
    Refused,
    Failed(String),
}

impl Outcome {
    /// The pid in the demo's answer.
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Outcome::Ok(body) => body.trim().rsplit(' ').next().unwrap().parse().unwrap(),
            other => panic!("no answer but {other:?}"),
        }
    }
}

/// Opens a connection and sends a request.
pub(crate) fn send(addr: impl ToSocketAddrs, path: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // In one piece: the next one would wait for the acknowledgement of the first.
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// Reads the answer to a request.
pub(crate) fn receive(mut stream: TcpStream) -> Outcome {
    let mut answer = String::new();
    if let Err(error) = stream.read_to_string(&mut answer) {
        return Outcome::Failed(error.to_string());
    }
    match answer.split_once("\r\n\r\n") {
        None => Outcome::Empty,
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Outcome::Ok(body.into()),
        Some((head, _)) => Outcome::Status(head.lines().next().unwrap_or_default().into()),
    }
}

/// One connection, one request.
pub(crate) fn get(addr: impl ToSocketAddrs, path: &str) -> Outcome {
    match send(addr, path) {
        Ok(stream) => receive(stream),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Outcome::Refused,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// Clients that ask without pause until `act` is through; their outcomes.
pub(crate) fn under_load(
    addr: impl ToSocketAddrs + Copy + Send + Sync,
    clients: usize,
    act: impl FnOnce(),
) -> Vec<Outcome> {
    let over = AtomicBool::new(false);
    // Also when `act` panics: a failed test must not go on for ever.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        let client = || {
            let mut outcomes = Vec::new();
            while !over.load(Ordering::Relaxed) {
                outcomes.push(get(addr, "/"));
            }
            outcomes
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let end = End(&over);
        act();
        drop(end);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// The pid of a process in its own namespace (proc_pid_status(5), `NSpid`).
fn pid_inside(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// The name of a process, and its parent.
pub(crate) fn name_and_parent(pid: i32) -> Option<(String, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
    Some((name.to_owned(), fields.split(' ').nth(1)?.parse().ok()?))
}

/// Children of a process that nobody has waited for.
fn zombies(parent: i32) -> usize {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    stats
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
        })
        .count()
}
