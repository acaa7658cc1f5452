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

fn crowd() -> Crowd<Asked> {
    Crowd::new(Asked::default())
}

/// A client that sends this, then comes. What is sent over such a socket is there at once.
fn come(crowd: &mut Crowd<Asked>, request: &str) -> UnixStream {
    let (mut client, ours) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    ours.set_nonblocking(true).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    crowd.admit(Connection::new(ours.into()));
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
    let mut crowd = crowd();
    let mut client = come(&mut crowd, "");
    client.write_all(last().as_bytes()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    crowd.serve([1]);
    assert!(is_answered(&mut client));
    assert!(crowd.is_empty() && crowd.deadline().is_none());
}

/// No new event would tell of what is there already.
#[test]
fn who_has_sent_much_is_watched_anew() {
    let mut crowd = crowd();
    let mut client = come(&mut crowd, "");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(200));
    client.write_all(long.repeat(600).as_bytes()).unwrap();
    let mut answers = 0;
    while answers < 600 {
        crowd.serve([1]);
        answers += heard(&mut client).0.matches("HTTP/1.1 200 ").count();
        let (_, wants_write) = crowd.watcher().watched.values().next().unwrap();
        assert!(!wants_write);
        assert!(answers == 600 || std::mem::take(&mut crowd.watcher().renewed) == 1);
    }
    assert_eq!(crowd.watcher().renewed, 0);
}

#[test]
fn who_is_answered_and_stays_is_watched_until_it_closes() {
    let mut crowd = crowd();
    let mut client = come(&mut crowd, &get("/"));
    assert!(is_answered(&mut client));
    assert_eq!(crowd.watcher().keys(), [1]);
    client.write_all(get("/").as_bytes()).unwrap();
    crowd.serve([1]);
    assert!(is_answered(&mut client));
    assert!(!crowd.has_shrunk());
    drop(client);
    crowd.serve([1, 1]);
    assert!(crowd.is_empty() && crowd.deadline().is_none());
    assert_eq!((crowd.has_shrunk(), crowd.has_shrunk()), (true, false));
}

#[test]
fn who_has_only_to_close_is_watched_once_others_have_followed() {
    let mut crowd = crowd();
    let mut clients: Vec<UnixStream> =
        (0..MAX_LEAVERS).map(|_| come(&mut crowd, &last())).collect();
    assert!(clients.iter_mut().all(is_answered));
    assert_eq!(crowd.watcher().keys(), [0; 0]);
    // The first has closed, the second has not.
    drop(clients.remove(0));
    clients.push(come(&mut crowd, &last()));
    assert!(crowd.has_shrunk());
    assert_eq!(crowd.watcher().keys(), [0; 0]);
    clients.push(come(&mut crowd, &last()));
    assert_eq!(crowd.watcher().keys(), [2]);
    // One that was watched all along is not any more, and another one in its place.
    let mut stays = come(&mut crowd, &get("/"));
    assert_eq!(crowd.watcher().keys(), [2, 19]);
    stays.write_all(last().as_bytes()).unwrap();
    crowd.serve([19]);
    assert_eq!(crowd.watcher().keys(), [2, 3]);
    // On the way out there is a wait for all of them.
    crowd.leave();
    assert_eq!(crowd.watcher().keys(), (2..=19).collect::<Vec<_>>());
    drop((clients, stays));
    crowd.serve(2..=19);
    assert!(crowd.is_empty() && crowd.deadline().is_none());
}

#[test]
fn who_cannot_be_watched_is_closed() {
    let mut crowd = crowd();
    let mut first = come(&mut crowd, &get("/"));
    assert!(is_answered(&mut first));
    crowd.watcher().refuses = true;
    let mut second = come(&mut crowd, "");
    assert!(is_closed(&mut second) && crowd.has_shrunk());
    // To be watched for room to write.
    first.write_all(get("/").repeat(10_000).as_bytes()).unwrap_err();
    crowd.serve([1]);
    assert!(crowd.has_shrunk());
    assert!(crowd.is_empty() && crowd.deadline().is_none());
}

#[test]
fn who_does_not_read_is_watched_for_room() {
    let mut crowd = crowd();
    let mut client = come(&mut crowd, &get("/"));
    let writable = |crowd: &mut Crowd<Asked>| {
        crowd.watcher().watched.values().map(|(_, writable)| *writable).collect::<Vec<_>>()
    };
    assert_eq!(writable(&mut crowd), [false]);
    while client.write_all(get("/").as_bytes()).is_ok() || !writable(&mut crowd)[0] {
        crowd.serve([1]);
    }
    while !heard(&mut client).0.is_empty() {
        crowd.serve([1]);
    }
    assert_eq!(writable(&mut crowd), [false]);
}

#[test]
fn a_panic_ends_the_stay_of_its_client_alone() {
    let mut crowd = crowd();
    let mut other = come(&mut crowd, "");
    let mut client = come(&mut crowd, &get("/crash"));
    let (answer, over) = heard(&mut client);
    assert!(answer.starts_with("HTTP/1.1 200 ") && over);
    let mut late = come(&mut crowd, "");
    late.write_all(get("/crash").as_bytes()).unwrap();
    other.write_all(get("/").as_bytes()).unwrap();
    let mut keys = crowd.watcher().keys();
    keys.reverse();
    crowd.serve(keys);
    assert!(heard(&mut late).1 && is_answered(&mut other));
}

#[test]
fn a_sleeper_is_answered_at_its_deadline() {
    let mut crowd = crowd();
    let begun = Instant::now();
    let mut long = come(&mut crowd, &get("/sleep?ms=50000"));
    let mut short = come(&mut crowd, &get("/sleep?ms=1000"));
    let at = crowd.deadline().unwrap();
    assert!(at >= begun + Duration::from_secs(1) && at < begun + Duration::from_secs(50));
    let mut none = come(&mut crowd, &get("/sleep?ms=0"));
    assert!(crowd.deadline().unwrap() < at);
    assert!(heard(&mut none).0.is_empty());
    crowd.serve([]);
    assert!(is_answered(&mut none));
    assert_eq!(crowd.deadline(), Some(at));
    assert!(heard(&mut short).0.is_empty() && heard(&mut long).0.is_empty());
}

#[test]
fn on_the_way_out_who_was_answered_is_closed_and_who_has_just_come_has_a_moment() {
    let mut crowd = crowd();
    let mut answered = come(&mut crowd, &get("/"));
    let mut sleeping = come(&mut crowd, &get("/sleep?ms=0"));
    let mut fresh = come(&mut crowd, "");
    assert!(is_answered(&mut answered));
    crowd.leave();
    assert!(crowd.has_shrunk());
    let moment = Instant::now() + Duration::from_secs(5);
    assert!(is_closed(&mut answered));
    let late = come(&mut crowd, "");
    // The last answer, and what follows it is not kept up.
    crowd.serve([]);
    let (answer, over) = heard(&mut sleeping);
    assert!(answer.contains("Connection: close") && over);
    assert!(!heard(&mut fresh).1);
    let deadlines: Vec<Instant> = crowd.deadlines.iter().map(|(at, _)| *at).collect();
    assert_eq!(deadlines.len(), 3);
    assert!(deadlines.iter().all(|at| *at < moment), "{deadlines:?}");
    fresh.write_all(get("/").as_bytes()).unwrap();
    crowd.serve([3]);
    assert!(heard(&mut fresh).0.contains("Connection: close"));
    drop((late, fresh, sleeping));
    crowd.serve([2, 3, 4]);
    assert!(crowd.is_empty() && crowd.deadline().is_none());
}
