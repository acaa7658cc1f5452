//! The examples run together: the core in a loop around poll(2), and workers on tokio.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(40);

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run all tests of this package", path.display());
    path
}

/// A primary, and the lines that it says.
struct Cluster {
    primary: Child,
    lines: Receiver<String>,
}

impl Cluster {
    fn start() -> Cluster {
        let mut primary = Command::new(example("poll_loop"))
            .arg("127.0.0.1:0")
            .arg(example("tokio_worker"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(primary.stderr.take().unwrap());
        let (says, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                let _ = says.send(line.unwrap());
            }
        });
        Cluster { primary, lines }
    }

    /// Waits for a line that has these words.
    fn expect(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect(words);
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its workers leave when it is gone.
        let _ = self.primary.kill();
        let _ = self.primary.wait();
    }
}

/// The pid in the answer.
fn get(addr: SocketAddr) -> i32 {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.trim().rsplit(' ').next().unwrap().parse().expect(&answer)
}

#[test]
fn they_serve_in_turn_survive_a_kill_and_drain() {
    let mut cluster = Cluster::start();
    let bound = cluster.expect("Bound");
    let addr = bound.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    let addr: SocketAddr = addr.filter_map(|word| word.parse().ok()).next().expect(&bound);
    for _ in 0..2 {
        cluster.expect("Ready");
    }
    let first = get(addr);
    let second = get(addr);
    assert_ne!(first, second);
    // Two answers that the primary reads at once may change places.
    let firsts = (0..100).filter(|_| get(addr) == first).count();
    assert!((40..=60).contains(&firsts), "{firsts} of 100");
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    cluster.expect("Exited");
    cluster.expect("Ready");
    let third = get(addr).max(get(addr));
    assert!(third != first);
    kill(Pid::from_raw(cluster.primary.id() as i32), Signal::SIGTERM).unwrap();
    for _ in 0..2 {
        let exited = cluster.expect("Exited");
        assert!(exited.contains("Voluntary"), "{exited}");
    }
    assert_eq!(cluster.primary.wait().unwrap().code(), Some(0));
}
