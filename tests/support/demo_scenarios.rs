//! The demo worker over real sockets: by itself, and under a primary played by hand. The including
//! module says how to start one: `demo` and `under_primary`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use roundel_core::{FromWorker, ToWorker};

use super::fake_primary::{FakePrimary, SOON, connection, seq, soon};
use super::{demo, under_primary};

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

    fn to(address: SocketAddr) -> Browser {
        Browser::on(TcpStream::connect(address).unwrap())
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

fn hello() -> Answer {
    let body = format!("worker 0 pid {}\n", std::process::id());
    Answer { status: 200, keeps: true, body }
}

#[test]
fn requests_on_one_connection() {
    let mut browser = Browser::to(demo());
    for _ in 0..3 {
        browser.send(get("/"));
        assert_eq!(browser.answer(), hello());
    }
    browser.send("HEAD / HTTP/1.1\r\n\r\n");
    assert_eq!(browser.answer_to(true).status, 200);
    browser.send(get("/spin"));
    assert_eq!(browser.answer(), hello());
    for (request, status) in
        [(get("/nothing"), 404), ("PUT / HTTP/1.1\r\n\r\n".into(), 405), (get("/sleep?ms=x"), 400)]
    {
        browser.send(request);
        assert_eq!(browser.answer().status, status);
    }
    browser.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(browser.answer(), hello());
    browser.send("GET / HTTP/1.0\r\n\r\n");
    assert!(!browser.answer().keeps && browser.is_at_end());
}

#[test]
fn requests_byte_by_byte_and_in_heaps() {
    let address = demo();
    let mut browser = Browser::to(address);
    for byte in get("/").bytes() {
        browser.send([byte]);
    }
    assert_eq!(browser.answer(), hello());
    // Several times what is read ahead, all of it there before the worker looks.
    let heap = get("/").repeat(10_000);
    let mut writer = browser.0.get_ref().try_clone().unwrap();
    let written = thread::spawn(move || writer.write_all(heap.as_bytes()));
    for n in 0..10_000 {
        assert_eq!(browser.answer(), hello(), "number {n}");
    }
    written.join().unwrap().unwrap();
}

#[test]
fn bodies_are_skipped() {
    let mut browser = Browser::to(demo());
    for length in [0, 1, 5_000, 100_000, 1 << 20] {
        let mut request = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        request.extend(std::iter::repeat_n('x', length));
        request.push_str(&get("/"));
        browser.send(request);
        assert_eq!((browser.answer(), browser.answer()), (hello(), hello()), "{length} bytes");
    }
}

#[test]
fn what_is_no_request_is_refused_and_closed() {
    let address = demo();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let endless = "x".repeat(100_000);
    for (bytes, status) in [
        ("rubbish\r\n\r\n", 400),
        ("\x16\x03\x01\x02", 400),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        ("POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
        (long.as_str(), 431),
        (endless.as_str(), 431),
    ] {
        let mut browser = Browser::to(address);
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

#[test]
fn a_sleeper_holds_nobody_up() {
    let address = demo();
    let mut sleeper = Browser::to(address);
    sleeper.send(get("/sleep?ms=60000"));
    let mut other = Browser::to(address);
    other.send(get("/"));
    assert_eq!(other.answer(), hello());
    other.send(get("/sleep?ms=1"));
    assert_eq!(other.answer(), hello());
}

/// They are answered for the last time, see the end of what comes, and leave their own side open.
#[test]
fn clients_that_stay_after_their_last_answer_are_let_go() {
    let address = demo();
    let mut browsers: Vec<Browser> = (0..40).map(|_| Browser::to(address)).collect();
    for browser in &mut browsers {
        browser.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(!browser.answer().keeps);
        assert_eq!(browser.0.read(&mut [0]).unwrap(), 0);
    }
    let begun = Instant::now();
    for browser in &mut browsers {
        // Only somebody who has closed both sides refuses what comes.
        while browser.0.get_mut().write_all(b"x").is_ok() {
            assert!(begun.elapsed() < SOON, "a client is kept");
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

fn hand_over(primary: &mut FakePrimary, n: u64) -> Browser {
    let (client, ours) = connection();
    primary.hand_over(n, &[&ours]);
    assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(n), accepted: true });
    Browser::on(client)
}

#[test]
fn with_no_room_to_acknowledge_in_it_serves_when_there_is_some() {
    let (mut primary, _demo) = under_primary();
    for n in [1, 2] {
        let clog = primary.clog();
        let (mut client, ours) = connection();
        primary.hand_over(n, &[&ours]);
        client.write_all(get("/").as_bytes()).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let early = client.read(&mut [0]).map_err(|e| e.kind());
        assert_eq!(early, Err(io::ErrorKind::WouldBlock), "it is not this worker's yet");
        client.set_read_timeout(Some(SOON)).unwrap();
        primary.clear(clog);
        assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(n), accepted: true });
        assert_eq!(Browser::on(client).answer(), hello());
    }
}

#[test]
fn a_drain_finishes_what_was_begun() {
    let (mut primary, demo) = under_primary();
    let mut idle = hand_over(&mut primary, 1);
    idle.send(get("/"));
    assert!(idle.answer().keeps);
    let mut busy = hand_over(&mut primary, 2);
    busy.send(get("/sleep?ms=300"));
    let mut fresh = hand_over(&mut primary, 3);
    // One that arrived, but was perhaps not taken yet.
    let (late, ours) = connection();
    primary.hand_over(4, &[&ours]);
    primary.send(&ToWorker::Drain { deadline_ms: 10_000 }, &[]);
    assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(4), accepted: true });
    let mut late = Browser::on(late);
    assert!(idle.is_at_end(), "it had its answer");
    for browser in [&mut fresh, &mut late] {
        browser.send(get("/"));
        let answer = browser.answer();
        assert_eq!((answer.status, answer.keeps), (200, false), "its request was on its way");
    }
    let answer = busy.answer();
    assert_eq!((answer.status, answer.keeps), (200, false));
    drop((idle, busy, fresh, late));
    assert_eq!(soon(|| demo.join().unwrap()).unwrap(), ExitCode::SUCCESS);
}

#[test]
fn clients_that_stay_silent_do_not_hold_a_drain_up() {
    let (mut primary, demo) = under_primary();
    let _silent = hand_over(&mut primary, 1);
    let mut lazy = hand_over(&mut primary, 2);
    lazy.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(lazy.answer().status, 200);
    primary.send(&ToWorker::Drain { deadline_ms: 10_000 }, &[]);
    assert_eq!(soon(|| demo.join().unwrap()).unwrap(), ExitCode::SUCCESS);
}

#[test]
fn without_its_primary_it_finishes_and_ends() {
    let (mut primary, demo) = under_primary();
    let mut busy = hand_over(&mut primary, 1);
    busy.send(get("/sleep?ms=200"));
    drop(primary);
    assert_eq!(busy.answer().status, 200);
    drop(busy);
    assert_eq!(soon(|| demo.join().unwrap()).unwrap(), ExitCode::SUCCESS);
}
