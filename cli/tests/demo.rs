//! The demo worker of each binary as a process, under a primary that the test plays.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use roundel_core::{Errno, FromWorker, ToWorker};
use roundel_test_support::{FakePrimary, SOON, connection, seq};

/// Runs each scenario with both binaries.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod mio {
            $(#[test]
            fn $name() {
                super::$name(env!("CARGO_BIN_EXE_roundel"));
            })+
        }

        mod smol {
            $(#[test]
            fn $name() {
                super::$name(env!("CARGO_BIN_EXE_roundel-smol"));
            })+
        }
    };
}

on_both! {
    requests_on_one_connection,
    requests_byte_by_byte_and_in_heaps,
    bodies_are_skipped,
    invalid_requests_are_refused_and_closed,
    a_sleeper_holds_nobody_up,
    a_client_that_does_not_read_costs_nothing,
    a_crash_is_answered_and_tells_the_primary,
    clients_that_stay_after_their_last_answer_are_let_go,
    with_no_room_to_acknowledge_in_it_serves_when_there_is_some,
    a_drain_finishes_what_was_begun,
    a_drain_without_clients_ends_at_once,
    clients_that_stay_silent_do_not_hold_a_drain_up,
    a_drain_before_all_listeners_are_there_is_no_failure,
    without_its_primary_it_finishes_and_ends,
}

/// A demo worker that listens.
struct Demo {
    /// `None` once a test has ended it.
    primary: Option<FakePrimary>,
    worker: Child,
    handed: u64,
}

impl Demo {
    fn start(binary: &str) -> Demo {
        Demo::with_listeners(binary, 1)
    }

    /// The first of its listeners is granted.
    fn with_listeners(binary: &str, listeners: u32) -> Demo {
        let (mut primary, end) = FakePrimary::of_process();
        // So no other process started meanwhile inherits it.
        let script = r#"exec "$0" "$@" 5<&0 </dev/null"#;
        let mut command = Command::new("sh");
        let count = listeners.to_string();
        command.args(["-c", script, binary, "demo-worker", &count]).stdin(Stdio::from(end));
        let worker = command.env("ROUNDEL_CHANNEL_FD", "5").spawn().unwrap();
        primary.grant_first();
        if listeners == 1 {
            assert_eq!(primary.hear(), FromWorker::Ready);
        }
        Demo { primary: Some(primary), worker, handed: 0 }
    }

    fn primary(&mut self) -> &mut FakePrimary {
        self.primary.as_mut().unwrap()
    }

    /// A client whose connection the worker has taken.
    fn browser(&mut self) -> Browser {
        let (client, ours) = connection();
        let ack = self.hand_over(ours);
        assert_eq!(self.primary().hear(), ack);
        Browser::on(client)
    }

    /// Hands a connection over; returns the worker's answer.
    fn hand_over(&mut self, ours: OwnedFd) -> FromWorker {
        self.handed += 1;
        let number = self.handed;
        self.primary().hand_over(number, &[&ours]);
        FromWorker::Ack { ack: seq(number), accepted: true }
    }

    fn hello(&self) -> Answer {
        let body = format!("worker 0 pid {}\n", self.worker.id());
        Answer { status: 200, keeps: true, body }
    }

    /// Waits for the worker's end; returns its exit code.
    fn ends(mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.worker.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < SOON, "it does not end");
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

struct Browser(BufReader<TcpStream>);

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    keeps: bool,
    body: String,
}

impl Browser {
    fn on(stream: TcpStream) -> Browser {
        stream.set_read_timeout(Some(SOON)).unwrap();
        Browser(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn answer_to(&mut self, head_only: bool) -> Answer {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_default().parse().unwrap();
        let (mut length, mut keeps) = (0, true);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", value)) => length = value.parse().unwrap(),
                Some(("Connection", value)) => keeps = value == "keep-alive",
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; if head_only { 0 } else { length }];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, keeps, body: String::from_utf8(body).unwrap() }
    }

    fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    fn is_at_end(&mut self) -> bool {
        self.0.read(&mut [0]).unwrap() == 0
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn requests_on_one_connection(binary: &str) {
    let mut demo = Demo::start(binary);
    let mut browser = demo.browser();
    for _ in 0..3 {
        browser.send(get("/"));
        assert_eq!(browser.answer(), demo.hello());
    }
    browser.send("HEAD / HTTP/1.1\r\n\r\n");
    assert_eq!(browser.answer_to(true).status, 200);
    browser.send(get("/spin"));
    assert_eq!(browser.answer(), demo.hello());
    for (request, status) in [(get("/nothing"), 404), (get("/sleep?ms=x"), 404)] {
        browser.send(request);
        assert_eq!(browser.answer().status, status);
    }
    browser.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(browser.answer(), demo.hello());
    browser.send("GET / HTTP/1.0\r\n\r\n");
    assert!(!browser.answer().keeps && browser.is_at_end());
}

fn requests_byte_by_byte_and_in_heaps(binary: &str) {
    let mut demo = Demo::start(binary);
    let mut browser = demo.browser();
    for byte in get("/").bytes() {
        browser.send([byte]);
    }
    assert_eq!(browser.answer(), demo.hello());
    // Several times the read-ahead, all of it there before the worker reads.
    let heap = get("/").repeat(10_000);
    let mut writer = browser.0.get_ref().try_clone().unwrap();
    let written = thread::spawn(move || writer.write_all(heap.as_bytes()));
    for n in 0..10_000 {
        assert_eq!(browser.answer(), demo.hello(), "number {n}");
    }
    written.join().unwrap().unwrap();
}

fn bodies_are_skipped(binary: &str) {
    let mut demo = Demo::start(binary);
    let mut browser = demo.browser();
    for length in [0, 1, 5_000, 100_000, 1 << 20] {
        let mut request = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        request.extend(std::iter::repeat_n('x', length));
        request.push_str(&get("/"));
        browser.send(request);
        assert_eq!(
            (browser.answer(), browser.answer()),
            (demo.hello(), demo.hello()),
            "{length} bytes"
        );
    }
}

fn invalid_requests_are_refused_and_closed(binary: &str) {
    let mut demo = Demo::start(binary);
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let endless = "x".repeat(100_000);
    for (bytes, status) in [
        ("rubbish\r\n\r\n", 400),
        ("\x16\x03\x01\x02", 400),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (long.as_str(), 431),
        (endless.as_str(), 431),
    ] {
        let mut browser = demo.browser();
        browser.send(bytes);
        let answer = browser.answer();
        assert_eq!((answer.status, answer.keeps), (status, false));
        assert!(browser.is_at_end());
        for _ in 0..100 {
            // A connection closed too early answers with a reset, which may overtake the answer.
            browser.send("still talking");
        }
    }
}

fn a_sleeper_holds_nobody_up(binary: &str) {
    let mut demo = Demo::start(binary);
    let mut sleeper = demo.browser();
    sleeper.send(get("/sleep?ms=60000"));
    let mut other = demo.browser();
    other.send(get("/"));
    assert_eq!(other.answer(), demo.hello());
    other.send(get("/sleep?ms=1"));
    assert_eq!(other.answer(), demo.hello());
}

fn a_client_that_does_not_read_costs_nothing(binary: &str) {
    let mut demo = Demo::start(binary);
    let mut deaf = demo.browser();
    deaf.0.get_ref().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let heap = get("/").repeat(1_000);
    let mut sent = 0;
    while deaf.0.get_mut().write_all(heap.as_bytes()).is_ok() {
        sent += heap.len();
        // Far more than what the kernel keeps for both.
        assert!(sent < 100 << 20, "all of it is read");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", demo.worker.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim_end_matches("kB").trim().parse().unwrap();
    assert!(resident < 32 << 10, "{resident} KiB");
    let mut other = demo.browser();
    other.send(get("/"));
    assert_eq!(other.answer(), demo.hello());
}

fn a_crash_is_answered_and_tells_the_primary(binary: &str) {
    let mut demo = Demo::start(binary);
    let mut idle = demo.browser();
    idle.send(get("/"));
    assert!(idle.answer().keeps);
    let mut failing = demo.browser();
    failing.send(get("/crash"));
    let answer = failing.answer();
    assert_eq!((answer.status, answer.keeps), (200, false));
    let said = demo.primary().hear();
    let FromWorker::Suicide { seq } = said else { panic!("{said:?}") };
    assert!(idle.is_at_end() && failing.is_at_end());
    demo.primary().send(&ToWorker::Ack { ack: seq }, &[]);
    assert_eq!(demo.ends(), Some(101));
}

/// The clients get their last answer, see the end of the stream, and leave their own side open.
fn clients_that_stay_after_their_last_answer_are_let_go(binary: &str) {
    let mut demo = Demo::start(binary);
    let mut browsers: Vec<Browser> = (0..40).map(|_| demo.browser()).collect();
    for browser in &mut browsers {
        browser.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(!browser.answer().keeps);
        assert_eq!(browser.0.read(&mut [0]).unwrap(), 0);
    }
    let begun = Instant::now();
    for browser in &mut browsers {
        // Writes fail only once the other end has closed both directions.
        while browser.0.get_mut().write_all(b"x").is_ok() {
            assert!(begun.elapsed() < SOON, "a client is kept");
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

fn with_no_room_to_acknowledge_in_it_serves_when_there_is_some(binary: &str) {
    let mut demo = Demo::start(binary);
    for _ in 0..2 {
        let clog = demo.primary().clog();
        let (mut client, ours) = connection();
        let ack = demo.hand_over(ours);
        client.write_all(get("/").as_bytes()).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let early = client.read(&mut [0]).map_err(|e| e.kind());
        assert_eq!(early, Err(io::ErrorKind::WouldBlock), "it is not this worker's yet");
        client.set_read_timeout(Some(SOON)).unwrap();
        demo.primary().clear(clog);
        assert_eq!(demo.primary().hear(), ack);
        assert_eq!(Browser::on(client).answer(), demo.hello());
    }
}

fn a_drain_finishes_what_was_begun(binary: &str) {
    let mut demo = Demo::start(binary);
    let (mut idle, mut silent) = (demo.browser(), demo.browser());
    for browser in [&mut idle, &mut silent] {
        browser.send(get("/"));
        assert!(browser.answer().keeps);
    }
    let mut busy = demo.browser();
    busy.send(get("/sleep?ms=300"));
    let mut fresh = demo.browser();
    // A connection that arrived, but was perhaps not taken yet.
    let (late, ours) = connection();
    let ack = demo.hand_over(ours);
    demo.primary().send(&ToWorker::Drain { deadline_ms: 10_000 }, &[]);
    assert_eq!(demo.primary().hear(), ack);
    let mut late = Browser::on(late);
    for browser in [&mut idle, &mut fresh, &mut late] {
        browser.send(get("/"));
        let answer = browser.answer();
        assert_eq!((answer.status, answer.keeps), (200, false), "its request was on its way");
    }
    assert!(silent.is_at_end(), "it had its answer");
    let answer = busy.answer();
    assert_eq!((answer.status, answer.keeps), (200, false));
    drop((idle, silent, busy, fresh, late));
    assert_eq!(demo.ends(), Some(0));
}

fn a_drain_without_clients_ends_at_once(binary: &str) {
    let mut demo = Demo::start(binary);
    demo.primary().send(&ToWorker::Drain { deadline_ms: 60_000 }, &[]);
    assert_eq!(demo.ends(), Some(0));
}

fn clients_that_stay_silent_do_not_hold_a_drain_up(binary: &str) {
    let mut demo = Demo::start(binary);
    let _silent = demo.browser();
    let mut lazy = demo.browser();
    lazy.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(lazy.answer().status, 200);
    demo.primary().send(&ToWorker::Drain { deadline_ms: 10_000 }, &[]);
    assert_eq!(demo.ends(), Some(0));
}

fn a_drain_before_all_listeners_are_there_is_no_failure(binary: &str) {
    let mut demo = Demo::with_listeners(binary, 2);
    let said = demo.primary().hear();
    let FromWorker::Query { seq: ask, .. } = said else { panic!("{said:?}") };
    demo.primary().send(&ToWorker::Drain { deadline_ms: 60_000 }, &[]);
    demo.primary().send(&ToWorker::QueryReply { ack: ask, result: Err(Errno::ECANCELED) }, &[]);
    assert_eq!(demo.ends(), Some(0));
}

fn without_its_primary_it_finishes_and_ends(binary: &str) {
    let mut demo = Demo::start(binary);
    let mut busy = demo.browser();
    busy.send(get("/sleep?ms=200"));
    drop(demo.primary.take());
    assert_eq!(busy.answer().status, 200);
    drop(busy);
    assert_eq!(demo.ends(), Some(0));
}
