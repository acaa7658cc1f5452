//! Clients that follow workers' output.

use std::io::{BufRead, BufReader};

use super::*;
use crate::observe::control::conversation::MAX_FOLLOWED;

/// A client that follows a slot.
fn follow(primary: &mut Primary, slot: Option<u32>) -> (UnixStream, ClientId) {
    let (mut stream, id) = primary.connect();
    let request = serde_json::to_string(&Request::Logs { slot }).unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    assert_eq!(primary.ready(id), Some(Request::Logs { slot }));
    primary.server.follow(id, slot, primary.now);
    assert_eq!(read_line(&mut stream), "{\"ok\":true,\"following\":true}\n");
    (stream, id)
}

#[test]
fn each_gets_what_it_wants_until_the_end() {
    let mut primary = Primary::new();
    let (mut asks, _) = primary.connect();
    assert!(!primary.server.is_followed());
    let (mut all, _) = follow(&mut primary, None);
    let (mut one, _) = follow(&mut primary, Some(1));
    assert!(primary.server.is_followed());
    for (slot, line) in [(0, "\"a\"\n"), (1, "\"b\"\n\"c\"\n"), (0, "\"d\"\n")] {
        assert_eq!(primary.server.publish(slot, line.as_bytes(), primary.now), []);
    }
    // One who follows waits for as long as it likes.
    let idle = primary.server.deadline().unwrap();
    assert_eq!(primary.server.expire(idle).len(), 1);
    assert_eq!(primary.server.deadline(), None);
    primary.server.end_following(LIMIT, primary.now);
    drop(primary);
    assert_eq!(read_all(&mut all), "\"a\"\n\"b\"\n\"c\"\n\"d\"\n{\"ended\":true}\n");
    assert_eq!(read_all(&mut one), "\"b\"\n\"c\"\n{\"ended\":true}\n");
    assert_eq!(error_of(&read_all(&mut asks)), "no request came within 60 s");
}

#[test]
fn one_who_does_not_read_misses_lines_and_is_told_how_many() {
    let mut primary = Primary::new();
    let (stream, id) = follow(&mut primary, None);
    let mut published = 0;
    let line = format!("\"{}\"\n", "x".repeat(1_000));
    let mut publish = |primary: &mut Primary, count: usize| {
        let mut changed = Vec::new();
        for _ in 0..count {
            changed.extend(primary.server.publish(0, line.as_bytes(), primary.now));
        }
        published += count;
        changed
    };
    // More than the socket and the queue hold.
    assert_eq!(publish(&mut primary, 5_000), [id], "to be watched for readiness to write");
    assert_eq!(primary.server.wants_write(id), Some(true));
    assert_eq!(primary.server.deadline(), None, "it is never too late");
    let (mut lines, mut missing) = (0, 0);
    let mut reader = BufReader::new(stream);
    while lines + missing < 5_000 {
        assert_eq!(primary.ready(id), None);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match serde_json::from_str::<crate::observe::output::Missing>(&line) {
            Ok(told) => missing += told.dropped as usize,
            Err(_) => lines += 1,
        }
    }
    assert!(lines * 1_000 >= MAX_FOLLOWED - 1_000, "{lines} and {missing}");
    assert!(missing > 1_000, "{lines} and {missing}");
    // From then on nothing is missing.
    publish(&mut primary, 10);
    for _ in 0..10 {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("\"x"));
    }
    assert_eq!(published, 5_010);
}

#[test]
fn one_that_is_gone_is_forgotten() {
    let mut primary = Primary::new();
    let (stream, id) = follow(&mut primary, None);
    hang_up(&stream);
    assert_eq!(primary.server.publish(0, b"\"a\"\n", primary.now), [id]);
    assert!(primary.is_gone(id) && !primary.server.is_followed());
    let (stream, id) = follow(&mut primary, None);
    hang_up(&stream);
    assert_eq!(primary.ready(id), None);
    assert!(primary.is_gone(id));
}

#[test]
fn those_that_follow_go_before_those_that_are_answered() {
    let mut primary = Primary::new();
    let (mut follower, id) = follow(&mut primary, None);
    let busy: Vec<_> = (1..MAX_CLIENTS)
        .map(|_| {
            let (mut stream, id) = primary.connect();
            stream.write_all(b"{").unwrap();
            assert_eq!(primary.ready(id), None);
            stream
        })
        .collect();
    let _last = primary.connect();
    assert_eq!(primary.server.take_evicted(), [id]);
    assert_eq!(error_of(&read_all(&mut follower)), "too many clients");
    assert_eq!(busy.len(), MAX_CLIENTS - 1);
}

/// What the client makes of it.
#[test]
fn the_client_tells_the_end_from_a_loss() {
    for ends in [true, false] {
        let mut primary = Primary::new();
        let path = primary.server.path().to_owned();
        let client = std::thread::spawn(move || {
            let mut lines = Connection::open(&path)?.follow(Some(3), LIMIT)?;
            let mut seen = Vec::new();
            loop {
                match lines.next_line()? {
                    Followed::Line(line) => seen.push(line.line.into_owned()),
                    Followed::Missing(missing) => seen.push(format!("{} missing", missing.dropped)),
                    Followed::Ended { .. } => return Ok::<_, String>(seen),
                    Followed::Failed(failed) => return Err(failed.error),
                }
            }
        });
        let wait = |fd: &std::os::fd::OwnedFd| {
            let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()), Ok(1));
        };
        wait(primary.server.fd());
        let id = primary.server.accept(primary.now).unwrap().unwrap();
        wait(primary.server.client_fd(id).unwrap());
        assert_eq!(primary.ready(id), Some(Request::Logs { slot: Some(3) }));
        primary.server.follow(id, Some(3), primary.now);
        let line = r#"{"time":"t","slot":3,"worker":1,"pid":2,"stream":"stdout","line":"hello"}"#;
        primary.server.publish(3, format!("{line}\n{{\"dropped\":7}}\n").as_bytes(), primary.now);
        if ends {
            primary.server.end_following(LIMIT, primary.now);
        }
        drop(primary);
        let outcome = client.join().unwrap();
        match ends {
            true => assert_eq!(outcome.unwrap(), ["hello", "7 missing"]),
            false => assert!(outcome.unwrap_err().ends_with("the primary closed the connection")),
        }
    }
}
