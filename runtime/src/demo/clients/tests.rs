use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;

/// Watches nothing, but knows what it is asked to watch: key and readiness to write, by descriptor.
#[derive(Default)]
struct Asked {
    watched: BTreeMap<i32, (u64, bool)>,
    renewed: usize,
    refuses: bool,
}

impl Asked {
    fn keys(&self) -> Vec<u64> {
        let mut keys: Vec<u64> = self.watched.values().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }
}

impl Watcher for Asked {
    fn add(&mut self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()> {
        if self.refuses {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.watched.insert(fd.as_raw_fd(), (key, writable));
        Ok(())
    }

    fn renew(&mut self, fd: BorrowedFd<'_>, key: u64, writable: bool) -> io::Result<()> {
        if self.refuses {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let known = self.watched.get_mut(&fd.as_raw_fd()).expect("it was added");
        assert_eq!(known.0, key);
        known.1 = writable;
        self.renewed += 1;
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.watched.remove(&fd.as_raw_fd()).expect("it was added");
        Ok(())
    }
}

fn clients() -> Clients<Asked> {
    Clients::new(Asked::default())
}

/// A client that sends this, then comes. What is sent over such a socket is there at once.
fn come(clients: &mut Clients<Asked>, request: &str) -> UnixStream {
    let (mut client, ours) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    ours.set_nonblocking(true).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    clients.admit(Connection::new(ours.into()));
    client
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn last() -> String {
    "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()
}

/// What is there to be read, and whether that is all there will be.
fn heard(client: &mut UnixStream) -> (String, bool) {
    let mut all = Vec::new();
    let over = client.read_to_end(&mut all).is_ok();
    (String::from_utf8(all).unwrap(), over)
}

fn is_answered(client: &mut UnixStream) -> bool {
    heard(client).0.starts_with("HTTP/1.1 200 ")
}

fn is_closed(client: &mut UnixStream) -> bool {
    heard(client) == (String::new(), true)
}

#[test]
fn who_sends_and_closes_at_once_is_forgotten_at_once() {
    let mut clients = clients();
    let mut client = come(&mut clients, "");
    client.write_all(last().as_bytes()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    clients.serve([1]);
    assert!(is_answered(&mut client));
    assert!(clients.is_empty() && clients.deadline().is_none());
}

/// No new event would tell of what is there already.
#[test]
fn who_has_sent_much_is_watched_anew() {
    let mut clients = clients();
    let mut client = come(&mut clients, "");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(200));
    client.write_all(long.repeat(600).as_bytes()).unwrap();
    let mut answers = 0;
    while answers < 600 {
        clients.serve([1]);
        answers += heard(&mut client).0.matches("HTTP/1.1 200 ").count();
        let (_, wants_write) = clients.watcher().watched.values().next().unwrap();
        assert!(!wants_write);
        assert!(answers == 600 || std::mem::take(&mut clients.watcher().renewed) == 1);
    }
    assert_eq!(clients.watcher().renewed, 0);
}

#[test]
fn who_is_answered_and_stays_is_watched_until_it_closes() {
    let mut clients = clients();
    let mut client = come(&mut clients, &get("/"));
    assert!(is_answered(&mut client));
    assert_eq!(clients.watcher().keys(), [1]);
    client.write_all(get("/").as_bytes()).unwrap();
    clients.serve([1]);
    assert!(is_answered(&mut client));
    assert!(!clients.has_shrunk());
    drop(client);
    clients.serve([1, 1]);
    assert!(clients.is_empty() && clients.deadline().is_none());
    assert_eq!((clients.has_shrunk(), clients.has_shrunk()), (true, false));
}

#[test]
fn who_has_only_to_close_is_watched_once_others_have_followed() {
    let mut clients = clients();
    let mut streams: Vec<UnixStream> =
        (0..MAX_LEAVERS).map(|_| come(&mut clients, &last())).collect();
    assert!(streams.iter_mut().all(is_answered));
    assert_eq!(clients.watcher().keys(), [0; 0]);
    // The first has closed, the second has not.
    drop(streams.remove(0));
    streams.push(come(&mut clients, &last()));
    assert!(clients.has_shrunk());
    assert_eq!(clients.watcher().keys(), [0; 0]);
    streams.push(come(&mut clients, &last()));
    assert_eq!(clients.watcher().keys(), [2]);
    // One that was watched all along is not any more, and another one in its place.
    let mut stays = come(&mut clients, &get("/"));
    assert_eq!(clients.watcher().keys(), [2, 19]);
    stays.write_all(last().as_bytes()).unwrap();
    clients.serve([19]);
    assert_eq!(clients.watcher().keys(), [2, 3]);
    // On the way out there is a wait for all of them.
    clients.leave();
    assert_eq!(clients.watcher().keys(), (2..=19).collect::<Vec<_>>());
    drop((streams, stays));
    clients.serve(2..=19);
    assert!(clients.is_empty() && clients.deadline().is_none());
}

#[test]
fn who_cannot_be_watched_is_closed() {
    let mut clients = clients();
    let mut first = come(&mut clients, &get("/"));
    assert!(is_answered(&mut first));
    clients.watcher().refuses = true;
    let mut second = come(&mut clients, "");
    assert!(is_closed(&mut second) && clients.has_shrunk());
    // To be watched for room to write.
    first.write_all(get("/").repeat(10_000).as_bytes()).unwrap_err();
    clients.serve([1]);
    assert!(clients.has_shrunk());
    assert!(clients.is_empty() && clients.deadline().is_none());
}

#[test]
fn who_does_not_read_is_watched_for_room() {
    let mut clients = clients();
    let mut client = come(&mut clients, &get("/"));
    let writable = |clients: &mut Clients<Asked>| {
        clients.watcher().watched.values().map(|(_, writable)| *writable).collect::<Vec<_>>()
    };
    assert_eq!(writable(&mut clients), [false]);
    while client.write_all(get("/").as_bytes()).is_ok() || !writable(&mut clients)[0] {
        clients.serve([1]);
    }
    while !heard(&mut client).0.is_empty() {
        clients.serve([1]);
    }
    assert_eq!(writable(&mut clients), [false]);
}

#[test]
fn a_panic_ends_the_stay_of_its_client_alone() {
    let mut clients = clients();
    let mut other = come(&mut clients, "");
    let mut client = come(&mut clients, &get("/crash"));
    let (answer, over) = heard(&mut client);
    assert!(answer.starts_with("HTTP/1.1 200 ") && over);
    let mut late = come(&mut clients, "");
    late.write_all(get("/crash").as_bytes()).unwrap();
    other.write_all(get("/").as_bytes()).unwrap();
    let mut keys = clients.watcher().keys();
    keys.reverse();
    clients.serve(keys);
    assert!(heard(&mut late).1 && is_answered(&mut other));
}

#[test]
fn a_sleeper_is_answered_at_its_deadline() {
    let mut clients = clients();
    let begun = Instant::now();
    let mut long = come(&mut clients, &get("/sleep?ms=50000"));
    let mut short = come(&mut clients, &get("/sleep?ms=1000"));
    let at = clients.deadline().unwrap();
    assert!(at >= begun + Duration::from_secs(1) && at < begun + Duration::from_secs(50));
    let mut none = come(&mut clients, &get("/sleep?ms=0"));
    assert!(clients.deadline().unwrap() < at);
    assert!(heard(&mut none).0.is_empty());
    clients.serve([]);
    assert!(is_answered(&mut none));
    assert_eq!(clients.deadline(), Some(at));
    assert!(heard(&mut short).0.is_empty() && heard(&mut long).0.is_empty());
}

#[test]
fn on_the_way_out_who_was_answered_is_closed_and_who_has_just_come_has_a_moment() {
    let mut clients = clients();
    let mut answered = come(&mut clients, &get("/"));
    let mut sleeping = come(&mut clients, &get("/sleep?ms=0"));
    let mut fresh = come(&mut clients, "");
    assert!(is_answered(&mut answered));
    clients.leave();
    assert!(clients.has_shrunk());
    let moment = Instant::now() + Duration::from_secs(5);
    assert!(is_closed(&mut answered));
    let late = come(&mut clients, "");
    // The last answer, and what follows it is not kept up.
    clients.serve([]);
    let (answer, over) = heard(&mut sleeping);
    assert!(answer.contains("Connection: close") && over);
    assert!(!heard(&mut fresh).1);
    let deadlines: Vec<Instant> = clients.deadlines.iter().map(|(at, _)| *at).collect();
    assert_eq!(deadlines.len(), 3);
    assert!(deadlines.iter().all(|at| *at < moment), "{deadlines:?}");
    fresh.write_all(get("/").as_bytes()).unwrap();
    clients.serve([3]);
    assert!(heard(&mut fresh).0.contains("Connection: close"));
    drop((late, fresh, sleeping));
    clients.serve([2, 3, 4]);
    assert!(clients.is_empty() && clients.deadline().is_none());
}
