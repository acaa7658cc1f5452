//! A primary that runs for long, and what it must be like at the end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::programs::observe::{open_fds, rss_kib, scratch, unused_address, with_variable};

/// In the environment of everything that the primary starts.
const MARK: &str = "ROUNDEL_SOAK_DIR";

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the primary holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its open descriptors.
    pub fds: usize,
    /// Its resident memory in KiB.
    pub rss_kib: u64,
}

/// A running primary; killed with everything that it started when dropped.
pub struct Primary {
    child: Child,
    binary: PathBuf,
    dir: PathBuf,
    /// Where its clients connect.
    pub addr: SocketAddr,
}

impl Primary {
    /// `BINARY run OPTIONS PROGRAM` on an address that nobody else uses, which the program finds in
    /// the variables HOST and PORT. Returns when so many workers serve.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        binary: &PathBuf,
        options: &[OsString],
        program: &[OsString],
        workers: usize,
    ) -> Result<Primary> {
        let (dir, addr) = (scratch("roundel-soak"), unused_address());
        let mut command = Command::new(binary);
        command.args(["run", "-w", &workers.to_string(), "-b", &addr.to_string()]);
        command.arg("--control").arg(dir.join("control")).arg("--events").arg(dir.join("events"));
        command.args(options).args(program);
        command.env("HOST", addr.ip().to_string()).env("PORT", addr.port().to_string());
        command.env(MARK, &dir).env_remove("WEB_CONCURRENCY");
        let log = File::create(dir.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        let primary = Primary { child, binary: binary.clone(), dir, addr };
        primary.wait_for("the workers", || Some(()).filter(|()| primary.ready() == workers))?;
        Ok(primary)
    }

    /// A directory for files of this primary; removed with it.
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn wait_for<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask() {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                return Err(Error::other(format!("waited in vain for {what}")));
            }
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// A command to this primary: whether it succeeded, and what it printed on both outputs.
    ///
    /// # Errors
    /// If it can't be run.
    pub fn command(&self, words: &[&str]) -> Result<(bool, String, String)> {
        let mut command = Command::new(&self.binary);
        command.args(words).arg("--control").arg(self.dir.join("control")).stdin(Stdio::null());
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }

    /// What `status --json` says; null if it says nothing.
    pub fn status(&self) -> Value {
        let said = self.command(&["status", "--json"]).ok();
        said.and_then(|(_, said, _)| serde_json::from_str(&said).ok()).unwrap_or_default()
    }

    /// The workers that live.
    pub fn workers(&self) -> Vec<Value> {
        self.status()["workers"].as_array().cloned().unwrap_or_default()
    }

    fn ready(&self) -> usize {
        self.workers().iter().filter(|it| it["state"] == "ready").count()
    }

    /// Waits until so many workers live, all of the newest generation; what the primary then holds.
    ///
    /// # Errors
    /// If old workers stay.
    pub fn settle(&self, workers: usize) -> Result<Held> {
        self.wait_for("one generation", || {
            let status = self.status();
            let newest = &status["primary"]["generation"];
            let all = status["workers"].as_array()?;
            let is_new = |it: &Value| it["generation"] == *newest && it["state"] == "ready";
            (all.len() == workers && all.iter().all(is_new)).then_some(())
        })?;
        // Until it has let go of what the last clients had, and of the last `status`.
        let (mut fds, mut since) = (usize::MAX, Instant::now());
        let pid = self.pid();
        let fds = self.wait_for("descriptors that stay as they are", || {
            let now = open_fds(pid);
            if now != std::mem::replace(&mut fds, now) {
                since = Instant::now();
            }
            (since.elapsed() > Duration::from_millis(500)).then_some(now)
        })?;
        Ok(Held { fds, rss_kib: rss_kib(pid) })
    }

    /// The event log so far.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.dir.join("events"))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// What primary and workers have printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn processes(&self) -> Vec<i32> {
        with_variable(MARK, &self.dir)
    }

    /// Everything that is there and should not be: processes apart from the primary and its
    /// workers, and children that nobody has waited for.
    pub fn left_over(&self) -> Vec<String> {
        let workers = self.workers();
        let is_known = |pid: &i32| {
            *pid == self.pid() || workers.iter().any(|it| it["pid"].as_i64() == Some((*pid).into()))
        };
        let others = self.processes().into_iter().filter(|pid| !is_known(pid));
        let mut found: Vec<String> = others.map(|pid| format!("process {pid} is left")).collect();
        let parent = self.pid().to_string();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let stats = entries.filter_map(|it| fs::read_to_string(it.path().join("stat")).ok());
        // The fields behind the name: state, parent (proc(5)).
        let is_zombie = |stat: &String| {
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(&parent)
        };
        found.extend(stats.filter(is_zombie).map(|stat| format!("a zombie: {stat}")));
        found
    }

    /// Asks the primary to end. Everything that is wrong about how it did.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&mut self) -> Result<Vec<String>> {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                return Err(Error::other("the primary does not end"));
            }
            thread::park_timeout(Duration::from_millis(20));
        };
        let mut wrong = Vec::new();
        if !status.success() {
            let (code, signal) = (status.code(), status.signal());
            wrong.push(format!("the primary ended with {code:?}, signal {signal:?}"));
        }
        let gone = self.wait_for("all processes", || self.processes().is_empty().then_some(()));
        wrong.extend(gone.err().map(|_| format!("left at the end: {:?}", self.processes())));
        Ok(wrong)
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
