//! `--node-assist`: what workers do that load our module first, in programs that know nothing of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use roundel_tests::programs::optional::{NOT_ON_DIAGONAL, full_matrix};
use serde_json::{Value, json};

use crate::client::*;
use crate::harness::*;

const PATHS: [&str; 5] = ["/plain", "/set", "/object", "/list", "/both"];

/// A connection that is kept.
struct Kept(TcpStream);

impl Kept {
    fn open(addr: SocketAddr) -> Kept {
        Kept(connect(addr).unwrap())
    }

    /// Asks and reads the answer; its head, in small letters, and who answered.
    fn ask(&mut self, path: &str) -> Option<(String, i32)> {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        // The body is a line: one digit at least, and the line feed that ends it.
        while !text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.contains(['\n'])) {
            let mut bytes = [0; 1024];
            match self.0.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(count) => text.push_str(std::str::from_utf8(&bytes[..count]).unwrap()),
            }
        }
        let (head, body) = text.split_once("\r\n\r\n")?;
        let pid = body.lines().find_map(|line| line.parse::<i32>().ok().filter(|pid| *pid > 9));
        Some((head.to_lowercase(), pid?))
    }

    /// Asks until an answer says that the connection closes, and sees that it does. The first
    /// answers may come before the worker has read that it should leave.
    fn ask_to_the_end(&mut self, path: &str, workers: &[i32]) {
        eventually("the last answer", || {
            let (head, pid) = self.ask(path).unwrap_or_else(|| panic!("{path}: no answer"));
            assert!(workers.contains(&pid), "{path}: {head}");
            (!keeps(&head)).then_some(())
        });
        assert!(self.is_at_its_end());
    }

    fn is_at_its_end(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

fn keeps(head: &str) -> bool {
    let value = head.lines().find_map(|line| line.strip_prefix("connection:"));
    value.is_none_or(|value| value.trim() != "close")
}

fn on_each_version(test: impl Fn(Setup)) {
    if beyond_node("it has no such option") {
        return;
    }
    for version in main_versions() {
        let (Some(node), Some(setup)) = (version, fixture("keep-alive.js")) else { return };
        let options = ["--node-assist", "--drain-timeout", "20s", "--ready-hold", "100ms"];
        test(setup.on(node).options(&options));
    }
}

/// The row of a worker in `status`.
fn row(cluster: &Cluster, pid: i32) -> Value {
    let mut stream = UnixStream::connect(cluster.dir.join("control")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, r#"{{"command":"status"}}"#).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let status: Value = serde_json::from_str(&line).unwrap();
    let workers = status["workers"].as_array().unwrap();
    workers.iter().find(|row| row["pid"] == pid).cloned().unwrap_or_default()
}

/// With a reload while they are idle: each gets its next answer, which closes it.
#[test]
fn idle_connections_close_with_their_next_answer() {
    on_each_version(|setup| drop(idle_connections(setup, "draining")));
}

/// The program has its own way to end; it is asked by its own signal, and nothing differs.
#[test]
fn a_program_that_handles_a_signal_is_told_by_it() {
    let signals = ["SIGTERM", "SIGINT"];
    for signal in signals.into_iter().take(if full_matrix() { 2 } else { 1 }) {
        on_each_version(|setup| {
            let cluster = idle_connections(setup.variable("HANDLES", signal), "signalled");
            let name = signal.strip_prefix("SIG").unwrap();
            let signals = cluster.events("signalled");
            assert!(signals.iter().all(|event| event["signal"] == name), "{signals:?}");
            assert_eq!(signals.len(), 2);
            let handled = cluster.reports().iter().filter(|it| it["handles"] == signal).count();
            assert_eq!(handled, 2);
        });
    }
}

/// Two workers are told to leave while each client has an idle connection, which then asks again
/// and again for a connection of its own.
fn idle_connections(setup: Setup, told: &str) -> Cluster {
    let cluster = setup.start();
    let addr = cluster.addr(0);
    let old = cluster.ready(2);
    if told == "signalled" {
        // They say so a moment after they are ready.
        let says = |pid: &i32| row(&cluster, *pid)["stop_signal"].is_string();
        eventually("what they handle", || old.iter().all(says).then_some(()));
    }
    let mut kept: Vec<_> = PATHS.iter().map(|path| (Kept::open(addr), *path)).collect();
    for (kept, path) in &mut kept {
        let (head, pid) = kept.ask(path).unwrap();
        assert!(keeps(&head) && old.contains(&pid), "{head}");
    }
    // One that has connected and not spoken yet.
    let mut patient = Kept::open(addr);
    eventually("its arrival", || (cluster.count("accepted") == 6).then_some(()));
    signal(cluster.pid(), Signal::SIGHUP);
    eventually("the leave of the old ones", || (cluster.count(told) == 2).then_some(()));
    for (kept, path) in &mut kept {
        kept.ask_to_the_end(path, &old);
    }
    patient.ask_to_the_end("/plain", &old);
    let (head, pid) = Kept::open(addr).ask("/plain").unwrap();
    assert!(keeps(&head) && !old.contains(&pid), "{head}");
    // They end by themselves.
    for pid in old {
        let exited = cluster.exit_of(pid);
        assert_eq!(exited["status"], json!({"code": 0}), "{exited}");
    }
    assert_eq!(cluster.count("killing"), 0);
    cluster
}

/// Its handlers are no wish to be told by a signal: they end the process at once.
#[test]
fn handlers_of_signal_exit_do_not_count() {
    if !full_matrix() {
        return println!("skipped: {NOT_ON_DIAGONAL}");
    }
    on_each_version(|setup| {
        drop(idle_connections(setup.variable("SIGNAL_EXIT", "1"), "draining"));
    });
}

#[test]
fn the_program_and_its_helpers_see_nothing_of_it() {
    for options in [None, Some("--no-deprecation")] {
        on_each_version(|setup| {
            let setup = match options {
                Some(options) => setup.variable("NODE_OPTIONS", options),
                None => setup,
            };
            let cluster = setup.variable("HELPER", "1").start();
            for seen in cluster.report(2) {
                assert_eq!((&seen["own"], &seen["inner"]), (&json!(options), &json!(options)));
                assert_eq!(seen["emit"], "emit", "a helper has the function of Node");
            }
            cluster.stop();
        });
    }
}

#[test]
fn open_connections_and_lag_are_told() {
    on_each_version(|setup| {
        let cluster = setup.workers(1).start();
        let (addr, pid) = (cluster.addr(0), cluster.ready(1)[0]);
        let mut kept: Vec<_> = (0..3).map(|_| Kept::open(addr)).collect();
        eventually("all", || (row(&cluster, pid)["open"] == 3).then_some(()));
        assert!(kept.iter_mut().all(|kept| kept.ask("/plain").is_some()));
        drop(kept);
        eventually("none", || (row(&cluster, pid)["open"] == 0).then_some(()));
        let mut busy = Kept::open(addr);
        eventually("its lag", || {
            busy.ask("/busy").unwrap();
            (row(&cluster, pid)["lag_ms"].as_u64()? >= 50).then_some(())
        });
        drop(busy);
        cluster.stop();
    });
}

/// Node ends a connection with its server once `end` was called, whatever is still to be written.
#[test]
fn a_large_answer_arrives_whole_however_slowly_it_is_read() {
    on_each_version(|setup| {
        let cluster = setup.workers(1).start();
        let mut slow = Kept::open(cluster.addr(0));
        slow.0.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut bytes = vec![0; 1 << 16];
        let mut total = slow.0.read(&mut bytes).unwrap();
        let head = bytes[..total].windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let whole = head + 60_000_000;
        signal(cluster.pid(), Signal::SIGHUP);
        eventually("its leave", || (cluster.count("draining") == 1).then_some(()));
        // Its end of the channel closes with its servers, if nothing keeps them.
        let (head, _) = Kept::open(cluster.addr(0)).ask("/plain").unwrap();
        assert!(keeps(&head), "the new one serves");
        while total < whole
            && let Ok(count @ 1..) = slow.0.read(&mut bytes)
        {
            total += count;
        }
        assert_eq!(total, whole);
        drop(slow);
        cluster.stop();
    });
}

/// Why there is such an option: Node itself cuts the connections.
#[test]
fn without_it_node_closes_idle_connections_at_once() {
    if beyond_node("it is about workers") {
        return;
    }
    let nodes: Vec<PathBuf> = versions().into_iter().flatten().collect();
    for node in nodes {
        let Some(setup) = fixture("keep-alive.js") else { return };
        let cluster = setup.on(node).start();
        let mut kept = Kept::open(cluster.addr(0));
        assert!(kept.ask("/plain").is_some());
        signal(cluster.pid(), Signal::SIGHUP);
        assert!(kept.is_at_its_end());
        cluster.stop();
    }
}
