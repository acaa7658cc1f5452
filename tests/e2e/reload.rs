//! Reloads: what their scenarios share, and programs that can't run twice. The hard cases are in
//! `reload_cases`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use roundel_tests::soak::readiness;
use serde_json::Value;

use crate::addresses::Addresses;
use crate::cells::on_all;
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    an_exclusive_program_ends_before_its_successor_starts,
    a_kept_connection_is_answered_once_more_and_then_closed: not Node "Node closes idle connections",
}

/// The exit code of a command to this primary, and what it printed on both outputs.
pub(crate) fn command(on: Pair, cluster: &Cluster, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(on.binary());
    command.args(words).arg("--control").arg(cluster.dir.join("control")).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(crate) fn reload(on: Pair, cluster: &Cluster) {
    let (code, _, said) = command(on, cluster, &["reload"]);
    assert_eq!(code, 0, "{said}{}", cluster.log());
}

/// Waits until only workers of this generation live.
pub(crate) fn only_generation(cluster: &Cluster, generation: u64, count: usize) -> Vec<i32> {
    wait_for("the old ones' end", || {
        let status = cluster.status();
        let workers = status["workers"].as_array().unwrap();
        let is_new = |worker: &Value| worker["generation"] == generation;
        let pid = |worker: &Value| i32::try_from(worker["pid"].as_i64().unwrap()).unwrap();
        (workers.len() == count && workers.iter().all(is_new))
            .then(|| workers.iter().map(pid).collect())
    })
}

/// Clients that connect, wait before they speak, and are answered.
pub(crate) fn patiently(addresses: Addresses, act: impl FnOnce()) -> Vec<Outcome> {
    thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let client = scope.spawn(move || {
            let mut outcomes = Vec::new();
            // Its pace, and the wait that is tested.
            let pause = Duration::from_millis(200);
            loop {
                let mut open: Vec<TcpStream> =
                    addresses.all().map(|addr| TcpStream::connect(addr).unwrap()).collect();
                let over = is_done.recv_timeout(pause).is_ok();
                for stream in &mut open {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                    stream.write_all(request).unwrap();
                }
                outcomes.extend(open.into_iter().map(receive));
                if over {
                    return outcomes;
                }
            }
        });
        act();
        done.send(()).unwrap();
        client.join().unwrap()
    })
}

/// Fails unless the event log shows what guarantees 2 and 8 say of reloads, with this
/// `--ready-hold`.
pub(crate) fn expect_log_is_right(cluster: &Cluster, hold: Duration) {
    // The log comes a little behind what it tells.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let events = cluster.events();
        let faults = readiness::faults(&events, hold);
        let open = readiness::unanswered(&events);
        if faults.is_empty() && open.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{faults:#?}, nobody accepted {open:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

pub(crate) fn all_answered(outcomes: &[Outcome]) {
    let lost: Vec<&Outcome> = outcomes.iter().filter(|it| !matches!(it, Outcome::Ok(_))).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), outcomes.len());
    assert!(!outcomes.is_empty());
}

fn an_exclusive_program_ends_before_its_successor_starts(on: Pair) {
    let dir = temp_dir();
    let lock = dir.join("lock").to_str().unwrap().to_owned();
    let words = ["flock", "--nonblock", "--no-fork", &lock].map(str::to_owned);
    let program: Vec<String> = words.into_iter().chain(on.demo_worker()).collect();
    let options = ["-w", "1", "--ready-hold", "100ms", "--ready-timeout", "5s"];
    let cluster = on.run(&options, &program);
    let old = cluster.ready(1);
    let (code, _, said) = command(on, &cluster, &["reload"]);
    assert!(code == 1 && said.contains("code 1"), "two can't run at once: {said}");
    assert_eq!(cluster.pids("ready"), old);
    cluster.stop();
    let cluster = on.run(&[&options[..], &["--min-ready", "0"]].concat(), &program);
    let old = cluster.ready(1);
    // Nobody is refused meanwhile: those who come wait for the new one.
    let outcomes = under_load(cluster.addr, 2, || reload(on, &cluster));
    all_answered(&outcomes);
    assert_ne!(only_generation(&cluster, 2, 1), old);
    cluster.stop();
}

fn a_kept_connection_is_answered_once_more_and_then_closed(on: Pair) {
    let cluster = on.demo(&["-w", "1", "--ready-hold", "0", "--drain-settle", "0"]);
    cluster.ready(1);
    let mut kept = TcpStream::connect(cluster.addr).unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = |stream: &mut TcpStream| stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    ask(&mut kept).unwrap();
    let mut answer = [0; 1024];
    assert!(kept.read(&mut answer).unwrap() > 0);
    reload(on, &cluster);
    wait_for("the old one's leave", || cluster.events_named("draining").pop());
    // Not in the moment in which it is told, but soon.
    thread::sleep(Duration::from_millis(100));
    ask(&mut kept).unwrap();
    let outcome = receive(kept);
    assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    cluster.stop();
}
