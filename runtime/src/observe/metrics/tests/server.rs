//! The server, with clients over unix sockets: what one has written is there for the other at once.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use roundel_core::{Address, Time};

use super::super::exchange::{Answer, MAX_HEAD};
use super::super::server::{ACCEPTS_PER_TURN, Left, MAX_CLIENTS, MetricsServer};
use crate::unix::socket::is_readable;

/// A server in an event loop of its own.
struct Loop {
    server: MetricsServer,
    path: PathBuf,
    clients: Vec<u32>,
    now: Time,
    page: Vec<u8>,
}

impl Loop {
    fn new() -> Loop {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("roundel-metrics-{pid}-{count}"));
        let server = MetricsServer::bind(&Address::Unix(path.to_str().unwrap().into())).unwrap();
        let now = Time::default() + Duration::from_secs(1);
        Loop { server, path, clients: Vec::new(), now, page: b"the page".into() }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// A turn: those that there are, then new ones, as in the driver.
    fn turn(&mut self) {
        let now = self.now;
        let late = self.server.expire(now);
        self.clients.retain(|it| !late.contains(it));
        for client in self.clients.clone() {
            while self.server.on_ready(client, now).is_some() {
                let body = self.page.clone().into();
                let answer = Answer { status: "200 OK", kind: "text/plain", body };
                self.server.answer(client, answer, now);
            }
        }
        if is_readable(self.server.fd().as_fd()) {
            let accepted = self.server.accept(now);
            self.clients.retain(|it| !accepted.gone.contains(it));
            self.clients.extend(accepted.come);
        }
        self.clients.retain(|it| self.server.wants_write(*it).is_some());
    }

    /// So many turns that everything that has arrived is answered.
    fn settle(&mut self) {
        (0..3).for_each(|_| self.turn());
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

/// What has come, and whether the end of file has.
fn received(mut stream: &UnixStream) -> (String, bool) {
    let (mut text, mut chunk) = (Vec::new(), [0; 64 * 1024]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (String::from_utf8(text).unwrap(), true),
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return (String::from_utf8(text).unwrap(), false);
            }
            Err(_) => return (String::from_utf8(text).unwrap(), true),
        }
    }
}

fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ").map(|(at, found)| &text[at + found.len()..][..3]).collect()
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_request_may_come_in_pieces() {
    let mut served = Loop::new();
    let mut client = served.connect();
    for byte in GET {
        served.settle();
        assert_eq!(received(&client), (String::new(), false));
        client.write_all(&[*byte]).unwrap();
    }
    served.settle();
    let (text, ended) = received(&client);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\n";
    assert_eq!((text, ended), (format!("{head}the page"), false));
    // The connection can be used again.
    client.write_all(GET).unwrap();
    served.settle();
    assert!(received(&client).0.ends_with("the page"));
}

#[test]
fn requests_may_come_at_once() {
    let mut served = Loop::new();
    let mut client = served.connect();
    let four = [GET, b"HEAD /metrics HTTP/1.1\r\n\r\n", GET, b"GET /metrics HTTP/1.0\r\n\r\n", GET];
    client.write_all(&four.concat()).unwrap();
    served.settle();
    let (text, ended) = received(&client);
    assert_eq!(statuses(&text), ["200"; 4], "{text}");
    assert_eq!(text.matches("the page").count(), 3, "{text}");
    assert_eq!(text.matches("Content-Length: 8\r\n").count(), 4, "{text}");
    assert_eq!(text.matches("Connection: close\r\n").count(), 1, "{text}");
    assert!(ended);
}

#[test]
fn a_client_that_sends_no_more_is_answered() {
    let mut served = Loop::new();
    let mut client = served.connect();
    client.write_all(GET).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    served.settle();
    let (text, ended) = received(&client);
    assert!(text.ends_with("the page") && ended, "{text}");
    assert!(served.clients.is_empty());
}

#[test]
fn garbage_is_answered_and_ends_the_connection() {
    let mut served = Loop::new();
    let mut client = served.connect();
    client.write_all(b"\x16\x03\x01\x02\x00").unwrap();
    client.write_all(GET).unwrap();
    served.settle();
    let (text, ended) = received(&client);
    assert_eq!((statuses(&text).as_slice(), ended), (["400"].as_slice(), true));
    // It is listened to for a second, so that the answer is not lost, and then closed.
    assert_eq!(served.clients.len(), 1);
    served.later(1);
    served.turn();
    assert!(served.clients.is_empty());
}

#[test]
fn a_long_head_is_refused_and_not_stored() {
    let mut served = Loop::new();
    let mut client = served.connect();
    let field = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD * 4));
    client.write_all(field.as_bytes()).unwrap();
    served.settle();
    let (text, ended) = received(&client);
    assert_eq!((statuses(&text).as_slice(), ended), (["431"].as_slice(), true));
    // What it goes on to send is ignored, but not for ever.
    let mut sent = 0;
    while let Ok(count) = client.write(&[b'x'; 1024]) {
        sent += count;
        served.turn();
        assert!(sent < 1024 * 1024);
    }
    assert!(served.clients.is_empty());
    // One byte less than the limit is a request.
    let mut client = served.connect();
    let rest = MAX_HEAD - GET.len() - "X: \r\n".len();
    let head = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(rest));
    assert_eq!(head.len(), MAX_HEAD);
    client.write_all(head.as_bytes()).unwrap();
    served.settle();
    assert_eq!(statuses(&received(&client).0), ["200"]);
}

#[test]
fn a_slow_reader_holds_up_nobody_and_is_closed_in_time() {
    let mut served = Loop::new();
    served.page = vec![b'#'; 4 * 1024 * 1024];
    let (mut slow, mut slower) = (served.connect(), served.connect());
    for client in [&mut slow, &mut slower] {
        client.write_all(GET).unwrap();
        // Not read before the first is through.
        client.write_all(GET).unwrap();
    }
    served.settle();
    assert_eq!(served.clients.len(), 2);
    for client in &served.clients {
        assert_eq!(served.server.wants_write(*client), Some(true));
    }
    served.page = b"the page".into();
    let mut other = served.connect();
    other.write_all(GET).unwrap();
    served.settle();
    assert!(received(&other).0.ends_with("the page"));
    let mut text = String::new();
    while !text.ends_with("the page") {
        text += &received(&slow).0;
        served.turn();
    }
    assert_eq!(text.matches('#').count(), 4 * 1024 * 1024);
    // Reading some of it now and then does not make the time longer.
    served.later(9);
    let mut some = vec![0; 512 * 1024];
    assert!(slower.read(&mut some).unwrap() > 0);
    served.turn();
    served.later(1);
    served.turn();
    assert_eq!(served.clients.len(), 2);
    assert!(received(&slower).1);
}

#[test]
fn who_takes_too_long_is_told() {
    let mut served = Loop::new();
    let (idle, mut begun) = (served.connect(), served.connect());
    begun.write_all(b"GET /metr").unwrap();
    served.settle();
    served.later(9);
    begun.write_all(b"ics").unwrap();
    served.settle();
    assert_eq!(received(&begun), (String::new(), false));
    served.later(1);
    assert!(served.server.deadline() <= Some(served.now));
    served.turn();
    let (text, ended) = received(&begun);
    assert_eq!((statuses(&text).as_slice(), ended), (["408"].as_slice(), true));
    assert_eq!(received(&idle), (String::new(), false));
    served.later(50);
    served.turn();
    assert_eq!(received(&idle), (String::new(), true));
    assert_eq!((served.clients.len(), served.server.deadline()), (0, None));
}

#[test]
fn a_newcomer_is_always_heard() {
    let mut served = Loop::new();
    served.page = vec![b'#'; 4 * 1024 * 1024];
    // One that reads slowly, one with half a request, and more than enough without any.
    let mut slow = served.connect();
    slow.write_all(GET).unwrap();
    served.settle();
    let mut begun = served.connect();
    begun.write_all(b"GET /metr").unwrap();
    served.settle();
    served.page = b"the page".into();
    let idle: Vec<UnixStream> = (0..100).map(|_| served.connect()).collect();
    let mut newcomer = served.connect();
    newcomer.write_all(GET).unwrap();
    (0..=100 / ACCEPTS_PER_TURN).for_each(|_| served.settle());
    assert!(received(&newcomer).0.ends_with("the page"));
    assert_eq!(served.clients.len(), MAX_CLIENTS);
    begun.write_all(b"ics HTTP/1.1\r\n\r\n").unwrap();
    served.settle();
    assert!(received(&begun).0.ends_with("the page"));
    let mut text = String::new();
    while text.matches('#').count() < 4 * 1024 * 1024 {
        text += &received(&slow).0;
        served.turn();
    }
    // Those that have waited for longest had to go.
    let ended: Vec<bool> = idle.iter().map(|it| received(it).1).collect();
    assert!(ended.is_sorted_by(|one, other| one >= other), "{ended:?}");
    assert_eq!(ended.iter().filter(|it| !**it).count(), MAX_CLIENTS - 3);
}

#[test]
fn a_turn_accepts_a_few() {
    let mut served = Loop::new();
    let clients: Vec<UnixStream> = (0..ACCEPTS_PER_TURN + 1).map(|_| served.connect()).collect();
    let first = served.server.accept(served.now);
    assert_eq!((first.come.len(), first.left), (ACCEPTS_PER_TURN, Left::Perhaps));
    let second = served.server.accept(served.now);
    assert_eq!((second.come.len(), second.left), (1, Left::None));
    assert_eq!(clients.len(), 5);
}

#[test]
fn a_flood_of_floods_leaves_room_for_those_just_accepted() {
    let mut served = Loop::new();
    for _ in 0..10 {
        let mut clients: Vec<UnixStream> = (0..MAX_CLIENTS).map(|_| served.connect()).collect();
        clients.iter_mut().for_each(|it| it.write_all(GET).unwrap());
        (0..MAX_CLIENTS / ACCEPTS_PER_TURN + 1).for_each(|_| served.turn());
        for client in &clients {
            assert!(received(client).0.ends_with("the page"));
        }
    }
}

#[test]
fn the_path_of_the_socket_goes_with_the_server() {
    let served = Loop::new();
    assert!(served.path.exists());
    let address = Address::Unix(served.path.to_str().unwrap().into());
    assert_eq!(MetricsServer::bind(&address).unwrap_err(), roundel_core::Errno::EADDRINUSE);
    let path = served.path.clone();
    drop(served.server);
    assert!(!path.exists());
}
