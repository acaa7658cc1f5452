//! Conversations with clients.

use super::*;

#[test]
fn a_request_and_its_answer_and_the_next_one() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    assert_eq!(primary.ready(id), None);
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &json!({"a": 1}));
    assert_eq!(read_line(&mut stream), "{\"a\":1}\n");
    stream.write_all(b" {\"command\": \"stop\", \"later\": 1} \r\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Stop));
    primary.reply(id, &Stopping::YES);
    assert_eq!(read_line(&mut stream), "{\"ok\":true,\"stopping\":true}\n");
    assert_eq!(primary.server.wants_write(id), Some(false));
    assert_eq!(primary.server.deadline(), None);
    hang_up(&stream);
    assert_eq!(primary.ready(id), None);
    assert!(primary.is_gone(id) && primary.server.client_fd(id).is_none());
}

#[test]
fn requests_come_out_one_by_one() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    let lines = b"{\"command\":\"status\"}\n{\"command\":\"stop\"}\n{\"comm";
    stream.write_all(lines).unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    assert_eq!(primary.ready(id), None, "not before the answer");
    primary.reply(id, &1);
    assert_eq!(primary.ready(id), Some(Request::Stop));
    primary.reply(id, &2);
    assert_eq!(primary.ready(id), None);
    assert_eq!(primary.server.deadline(), Some(primary.now + Duration::from_secs(10)));
    stream.write_all(b"and\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    assert_eq!(primary.server.deadline(), None);
}

#[test]
fn a_client_that_shut_down_writing_is_still_answered() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &true);
    assert_eq!(primary.ready(id), None);
    assert!(primary.is_gone(id));
    assert_eq!(read_all(&mut stream), "true\n");
}

#[test]
fn the_end_of_file_ends_the_last_line() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    stream.write_all(b"{\"command\":\"status\"}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &true);
    assert_eq!(read_all(&mut stream), "true\n");
    let (mut stream, id) = primary.connect();
    stream.write_all(b"{\"command\":\"stop\"").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(primary.ready(id), None);
    assert!(error_of(&read_all(&mut stream)).starts_with("not a request: "));
}

#[test]
fn garbage_is_answered_and_closed() {
    let garbage: [&[u8]; 8] = [
        b"\n",
        b"status\n",
        b"\xff\xfe\x00\n",
        b"{}\n",
        b"{\"command\":\"dance\"}\n",
        b"{\"command\":7}\n",
        b"[\"status\"]\n",
        b"{\"command\":\"status\"} more\n",
    ];
    let mut primary = Primary::new();
    for bytes in garbage {
        let (mut stream, id) = primary.connect();
        stream.write_all(bytes).unwrap();
        assert_eq!(primary.ready(id), None, "{bytes:?}");
        assert!(primary.is_gone(id), "{bytes:?}");
        let text = read_all(&mut stream);
        assert!(error_of(&text).starts_with("not a request: "), "{text}");
    }
    let nested = [vec![b'['; 60_000], vec![b'\n']].concat();
    let (mut stream, id) = primary.connect();
    stream.write_all(&nested).unwrap();
    assert_eq!(primary.ready(id), None);
    assert!(error_of(&read_all(&mut stream)).starts_with("not a request: "));
}

#[test]
fn a_request_has_a_longest_length() {
    let padded = |len: usize| {
        let request = b"{\"command\":\"status\"}".to_vec();
        [request, vec![b' '; len - 21], vec![b'\n']].concat()
    };
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    stream.write_all(&padded(MAX_REQUEST)).unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    let (mut stream, id) = primary.connect();
    stream.write_all(&padded(MAX_REQUEST + 1)).unwrap();
    assert_eq!(primary.ready(id), None);
    assert!(primary.is_gone(id));
    assert_eq!(error_of(&read_all(&mut stream)), "a request is longer than 64 KiB");
}

#[test]
fn a_begun_request_must_end_in_time() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    let (_idle, idle) = primary.connect();
    let idle_until = primary.server.deadline().unwrap();
    assert_eq!(idle_until, primary.now + IDLE);
    assert_eq!(primary.ready(id), None);
    let deadline = primary.now + Duration::from_secs(10);
    // Continuing the request does not move the deadline.
    for byte in b"{\"command\":" {
        stream.write_all(&[*byte]).unwrap();
        assert_eq!(primary.ready(id), None);
        assert_eq!(primary.server.deadline(), Some(deadline));
        primary.now += Duration::from_millis(100);
    }
    assert_eq!(primary.server.expire(Time::from_nanos(deadline.as_nanos() - 1)), []);
    assert_eq!(primary.server.expire(deadline), [id]);
    assert!(primary.is_gone(id) && !primary.is_gone(idle));
    assert_eq!(error_of(&read_all(&mut stream)), "the request was not complete within 10 s");
    assert_eq!(primary.server.deadline(), Some(idle_until));
}

#[test]
fn a_slow_reader_holds_up_nobody() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    let long = "x".repeat(4 << 20);
    stream.write_all(b"{\"command\":\"status\"}\n{\"command\":\"stop\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &long);
    assert_eq!(primary.server.wants_write(id), Some(true));
    assert_eq!(primary.ready(id), None, "no further request while an answer waits");
    let mut got = Vec::new();
    let mut chunk = [0; 64 * 1024];
    while got.last() != Some(&b'\n') {
        primary.now += Duration::from_secs(1);
        let count = stream.read(&mut chunk).unwrap();
        got.extend_from_slice(&chunk[..count]);
        if primary.server.wants_write(id) == Some(true) {
            assert_eq!(primary.server.expire(primary.now), [], "it does read");
            match primary.ready(id) {
                None => {}
                next => assert_eq!(next, Some(Request::Stop)),
            }
        }
    }
    assert_eq!(got.len(), long.len() + 3);
    assert_eq!(primary.server.wants_write(id), Some(false));
    // A client that reads nothing at all is closed.
    let (mut stream, id) = primary.connect();
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    primary.reply(id, &long);
    let deadline = primary.server.deadline().unwrap();
    assert_eq!(deadline, primary.now + Duration::from_secs(10));
    assert_eq!(primary.ready(id), None);
    assert_eq!(primary.server.expire(deadline), [id]);
    let text = read_all(&mut stream);
    assert!(text.len() < long.len() && text.trim_start_matches('"').chars().all(|c| c == 'x'));
}

#[test]
fn a_reader_that_leaves_is_forgotten() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(id), Some(Request::Status));
    hang_up(&stream);
    primary.reply(id, &"for nobody");
    assert!(primary.is_gone(id));
    primary.reply(id, &"again");
    primary.server.close(id);
    assert_eq!(primary.ready(id), None);
}

#[test]
fn closing_is_seen_whoever_holds_the_descriptor() {
    let mut primary = Primary::new();
    let (mut stream, id) = primary.connect();
    let _held = Arc::clone(primary.server.client_fd(id).unwrap());
    primary.server.close(id);
    assert_eq!(read_all(&mut stream), "");
}

#[test]
fn a_new_client_replaces_the_longest_idle_one() {
    let mut primary = Primary::new();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| primary.connect()).collect();
    // The first one waits for the end, the second has begun a request, the third has just finished
    // one.
    clients[0].0.write_all(b"{\"command\":\"stop\"}\n").unwrap();
    assert_eq!(primary.ready(clients[0].1), Some(Request::Stop));
    primary.reply(clients[0].1, &Stopping::YES);
    clients[1].0.write_all(b"{").unwrap();
    assert_eq!(primary.ready(clients[1].1), None);
    primary.now += Duration::from_secs(1);
    clients[2].0.write_all(b"{\"command\":\"status\"}\n").unwrap();
    assert_eq!(primary.ready(clients[2].1), Some(Request::Status));
    primary.reply(clients[2].1, &"all");
    let mut late = Vec::new();
    // A new client is accepted and served; the others are evicted in the order of their idleness.
    for gone in 3..MAX_CLIENTS + 40 {
        let (mut stream, id) = primary.connect();
        let evicted = primary.server.take_evicted();
        if let Some((stream, id)) = clients.get_mut(gone) {
            assert_eq!(evicted, [*id]);
            assert_eq!(error_of(&read_all(stream)), "too many clients");
        }
        stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
        assert_eq!(primary.ready(id), Some(Request::Status));
        primary.reply(id, &"all");
        assert_eq!(read_line(&mut stream), "\"all\"\n");
        late.push(stream);
    }
    assert!(!primary.is_gone(clients[0].1) && !primary.is_gone(clients[1].1));
    assert!(primary.is_gone(clients[2].1));
}

#[test]
fn idle_clients_are_closed_unless_they_wait_for_the_end() {
    let mut primary = Primary::new();
    let (mut idle, id) = primary.connect();
    let (mut waiting, waits) = primary.connect();
    waiting.write_all(b"{\"command\":\"stop\"}\n").unwrap();
    assert_eq!(primary.ready(waits), Some(Request::Stop));
    primary.reply(waits, &Stopping::YES);
    let due = primary.now + IDLE;
    assert_eq!(primary.server.deadline(), Some(due));
    assert_eq!(primary.server.expire(Time::from_nanos(due.as_nanos() - 1)), []);
    assert_eq!(primary.server.expire(due), [id]);
    assert_eq!(error_of(&read_all(&mut idle)), "no request came within 60 s");
    assert_eq!(primary.server.deadline(), None);
    assert!(!primary.is_gone(waits));
}

#[test]
fn answers_that_nobody_reads_take_bounded_memory() {
    let mut primary = Primary::new();
    let long = "x".repeat(4 << 20);
    let mut clients = Vec::new();
    for n in 0..20 {
        let (mut stream, id) = primary.connect();
        stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
        assert_eq!(primary.ready(id), Some(Request::Status));
        primary.now += Duration::from_millis(1);
        primary.reply(id, &long);
        assert!(!primary.is_gone(id));
        clients.push((stream, id));
        let kept = clients.iter().filter(|(_, id)| !primary.is_gone(*id)).count();
        assert!(kept <= n + 1 && kept * (4 << 20) <= MAX_UNSENT + (8 << 20), "{kept}");
    }
    // The first ones were evicted.
    assert!(primary.is_gone(clients[0].1) && !primary.server.take_evicted().is_empty());
}

#[test]
fn the_socket_is_readable_when_somebody_comes() {
    let primary = Primary::new();
    let is_ready = || {
        let mut fds = [PollFd::new(primary.server.fd().as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    assert!(!is_ready());
    let _stream = primary.dial();
    assert!(is_ready());
}
