//! Primaries under test, and clients of theirs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use roundel_tests::programs::observe::{PATIENCE, eventually, target_dir};

/// One of the examples of this package.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = target_dir().join("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let age = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    let is_built = age(&path).is_some_and(|made| Some(made) >= age(&source.with_extension("rs")));
    assert!(
        is_built,
        "{} is missing or stale: `cargo test -p roundel-embed -- NAME` builds it",
        path.display()
    );
    path
}

/// As an argument.
pub(crate) fn path_of(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

/// This executable, to be started as a worker: `name` is an ignored test, which plays its role.
pub(crate) fn role(name: &str) -> Vec<String> {
    let path = path_of(std::env::current_exe().unwrap());
    [path.as_str(), name, "--exact", "--ignored", "--nocapture"].map(String::from).into()
}

/// Has a command run by somebody whose limits count: whoever may set limits is exempt from some.
pub(crate) fn unprivileged(command: &mut Command) -> &mut Command {
    if geteuid().is_root() { command.uid(65_534).gid(65_534) } else { command }
}

/// A primary, and the lines that it says.
pub(crate) struct Cluster {
    primary: Child,
    lines: Receiver<String>,
}

impl Cluster {
    /// Starts a primary that says what happens.
    pub(crate) fn start(command: &mut Command) -> Cluster {
        let mut primary = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (says, lines) = channel();
        tell(primary.stderr.take().unwrap(), says.clone());
        tell(primary.stdout.take().unwrap(), says);
        Cluster { primary, lines }
    }

    /// `poll_loop` with workers of this command, once they are ready, and where it listens.
    pub(crate) fn poll_loop(worker: &[String]) -> (Cluster, SocketAddr) {
        Cluster::ready(Command::new(example("poll_loop")).arg("127.0.0.1:0").args(worker))
    }

    /// A `poll_loop`, once both workers are ready, and where it listens.
    pub(crate) fn ready(command: &mut Command) -> (Cluster, SocketAddr) {
        let cluster = Cluster::start(command);
        let addr = address_in(&cluster.expect("Bound"));
        for _ in 0..2 {
            cluster.expect("Ready");
        }
        (cluster, addr)
    }

    /// The shipped primary with two workers of this example, once they are ready, and where it
    /// listens. It tells workers to leave as soon as nothing is in flight.
    pub(crate) fn roundel(worker: &str) -> (Cluster, SocketAddr) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shipped-primary"));
        command.args(["run", "-w", "2", "-b", "127.0.0.1:0", "--control", "off", "--events", "-"]);
        let cluster = Cluster::start(command.args(["--drain-settle", "0"]).arg(example(worker)));
        let addr = address_in(&cluster.expect("\"bound\""));
        for _ in 0..2 {
            cluster.expect("\"ready\"");
        }
        (cluster, addr)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.primary.id() as i32
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for a line that has these words.
    pub(crate) fn expect(&self, words: &str) -> String {
        self.expect_all(&[words])
    }

    /// Waits for a line that has all of these words.
    pub(crate) fn expect_all(&self, words: &[&str]) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{words:?}"));
            if words.iter().all(|words| line.contains(words)) {
                return line;
            }
        }
    }

    /// Waits for its end; its exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        eventually("its end", || self.primary.try_wait().unwrap()).code()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its workers leave when it is gone.
        let _ = self.primary.kill();
        let _ = self.primary.wait();
    }
}

fn tell(output: impl Read + Send + 'static, says: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = says.send(line);
        }
    });
}

/// The address in a line.
pub(crate) fn address_in(line: &str) -> SocketAddr {
    let words = line.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    words.filter_map(|word| word.parse().ok()).next().expect(line)
}

/// A connection whose reads end.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks over a new connection that ends with the answer; the pid in it.
pub(crate) fn get(addr: SocketAddr) -> i32 {
    let mut stream = connect(addr);
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    pid_in(&answer)
}

/// The last number of an answer.
pub(crate) fn pid_in(answer: &str) -> i32 {
    answer.trim().rsplit(' ').next().unwrap().parse().expect(answer)
}

/// The channel of a worker that is played by this executable; `None` if it was not started as one.
pub(crate) fn channel_of_this_worker() -> Option<UnixStream> {
    let number: i32 =
        std::env::var(roundel_core::environment::CHANNEL_VAR).ok()?.parse().expect("a number");
    Some(adopt(number))
}

#[expect(unsafe_code, reason = "the channel is known by its number only")]
fn adopt(number: i32) -> UnixStream {
    // SAFETY: the primary left this descriptor open under this number for this process, which asks
    // for it once.
    unsafe { UnixStream::from_raw_fd(number) }
}
