//! Clients of the control socket and of the metrics that mean no good, or too much of it: each is
//! told so, and nobody who asks the workers waits for them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use crate::cells::on_both;
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "it is about the primary alone":
    no_request_waits_for_those_who_abuse_the_control_socket,
}

/// The longest that a request may take meanwhile. `tests/bench/abuse` has 50 ms instead, on a
/// machine that does nothing else.
fn longest_wait() -> Duration {
    let strict = std::env::var("ROUNDEL_LONGEST_WAIT_MS").ok();
    Duration::from_millis(strict.and_then(|it| it.parse().ok()).unwrap_or(2_000))
}

/// How many clients of the control socket come.
const CLIENTS: usize = 10_000;
/// How many of them stay.
const KEPT: usize = 200;

/// Asks each 5 ms until it is over; the longest time that an answer took, and how many there were.
fn ask_evenly(addr: impl std::net::ToSocketAddrs + Copy, over: &AtomicBool) -> (Duration, usize) {
    let (mut longest, mut count) = (Duration::ZERO, 0);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let outcome = get(addr, "/");
        let took = begun.elapsed();
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
        longest = longest.max(took);
        count += 1;
        thread::park_timeout(Duration::from_millis(5).saturating_sub(took));
    }
    (longest, count)
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What a client is told before the end of the connection, or of the first line.
fn told(stream: UnixStream) -> String {
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    line
}

/// Some ask, some send garbage, some begin a request, and some say nothing.
fn flood(socket: &Path) {
    let mut kept = std::collections::VecDeque::new();
    for number in 0..CLIENTS {
        let mut client = connect(socket);
        // The primary may have closed it already, to make room.
        let _ = match number % 4 {
            0 => client.write_all(b"{\"command\":\"status\"}\n"),
            1 => client.write_all(b"\x16\x03\x01 garbage\n"),
            2 => client.write_all(b"{\"comm"),
            _ => Ok(()),
        };
        kept.push_back(client);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
    // Of those who said nothing, the first had to go for the last.
    let silent = kept.into_iter().enumerate().filter(|(at, _)| (at + CLIENTS - KEPT) % 4 == 3);
    let (_, first) = silent.into_iter().next().unwrap();
    assert_eq!(told(first), "{\"ok\":false,\"error\":\"too many clients\"}\n");
}

/// Garbage, and a line that is too long.
fn send_garbage(socket: &Path) {
    for _ in 0..200 {
        let mut client = connect(socket);
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert!(told(client).contains("not a request: it is not JSON"));
    }
    for _ in 0..20 {
        let mut client = connect(socket);
        let _ = client.write_all(&[b'x'; 100_000]);
        assert!(told(client).contains("a request is longer than 64 KiB"));
    }
}

/// Asks as fast as it can, and reads nothing until all that fits is written.
fn read_slowly(socket: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let mut client = connect(socket);
        client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let questions = b"{\"command\":\"status\"}\n".repeat(1_000);
        while client.write_all(&questions).is_ok() && !over.load(Ordering::Relaxed) {}
    }
}

fn scrape(metrics: SocketAddr, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect(metrics) {
            let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(request).and_then(|()| stream.read_to_end(&mut Vec::new()));
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// Asks as another user; what it is told.
fn ask_as_another_user(cluster: &Cluster, binary: &Path) -> String {
    let socket = cluster.dir.join("control");
    // Somebody has loosened it.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary);
    let output = command.args(["status", "--control"]).arg(&socket).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    String::from_utf8(output.stderr).unwrap()
}

fn no_request_waits_for_those_who_abuse_the_control_socket(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&["-w", "2", "--metrics", "127.0.0.1:0"]);
    cluster.ready(2);
    let base = cluster.total("open_fds");
    let place = cluster.status()["primary"]["metrics"].as_str().unwrap().to_owned();
    let metrics = place.strip_prefix("http://").and_then(|it| it.strip_suffix("/metrics"));
    let metrics: SocketAddr = metrics.unwrap().parse().unwrap();
    let socket = cluster.dir.join("control");
    let binary = cluster.dir.join("copy");
    fs::copy(on.binary(), &binary).unwrap();
    let over = AtomicBool::new(false);
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (longest, count) = thread::scope(|scope| {
        let client = scope.spawn(|| ask_evenly(cluster.addr, &over));
        let end = End(&over);
        scope.spawn(|| scrape(metrics, &over));
        scope.spawn(|| read_slowly(&socket, &over));
        send_garbage(&socket);
        flood(&socket);
        if geteuid().is_root() {
            for _ in 0..10 {
                let said = ask_as_another_user(&cluster, &binary);
                assert!(said.contains("only root and the user of the primary may ask"), "{said}");
            }
        }
        drop(end);
        client.join().unwrap()
    });
    println!("LONGEST {longest:?} of {count} requests");
    assert!(longest <= longest_wait(), "a request took {longest:?}");
    // At most so many clients at a time, and nothing is left of them.
    let most = base + 64 + 8 + 8;
    assert!(cluster.total("open_fds") <= most, "{} > {most}", cluster.total("open_fds"));
    assert!(cluster.total("rss_kb") < 64 * 1024);
    assert!(fs::metadata(&socket).is_ok());
    cluster.stop();
}
