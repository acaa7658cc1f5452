use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use mio::{Events, Poll};
use roundel_core::{FromWorker, SockName, ToWorker};
use roundel_test_support::{FakePrimary, SOON, connection, seq, soon};

use super::*;

mod orders;
mod threads;

/// A worker that listens, and sends nothing more by itself.
fn serving() -> (FakePrimary, Worker, Listener) {
    let (mut primary, driver) = FakePrimary::new();
    let worker = Worker::over(driver).unwrap();
    let granting = thread::spawn(move || {
        primary.grant_first();
        primary
    });
    let web = worker.listen("127.0.0.1:8080").unwrap();
    (granting.join().unwrap(), worker, web)
}

#[test]
fn accept_waits_and_ends_with_the_drain() {
    let (mut primary, worker, web) = serving();
    let served = thread::spawn(move || {
        let mut count = 0;
        while let Some(mut connection) = web.accept().unwrap() {
            connection.write_all(b"hello").unwrap();
            count += 1;
        }
        (count, worker)
    });
    for n in 1..=3 {
        let (mut client, ours) = connection();
        primary.hand_over(n, &[&ours]);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(n), accepted: true });
    }
    primary.send(&ToWorker::Drain { deadline_ms: 1_000 }, &[]);
    let (count, worker) = soon(|| served.join().unwrap());
    assert_eq!(count, 3);
    assert!(matches!(worker.standing(), Standing::Draining { deadline: Some(_) }));
}

#[test]
fn accept_ends_with_the_primary() {
    let (primary, _worker, web) = serving();
    let ended = thread::spawn(move || web.accept().unwrap().is_none());
    drop(primary);
    assert!(soon(|| ended.join().unwrap()));
}

#[test]
fn a_panic_on_another_thread_with_the_channel_full_ends_the_waiting() {
    let (primary, worker, web) = serving();
    worker.replace_on_panic();
    primary.clog();
    let (waits, is_waiting) = mpsc::channel();
    let ended = thread::spawn(move || {
        waits.send(()).unwrap();
        (web.accept().unwrap().is_none(), web, worker)
    });
    is_waiting.recv().unwrap();
    assert!(thread::spawn(|| panic!("a test's panic")).join().is_err());
    let (is_over, _web, worker) = soon(|| ended.join().unwrap());
    assert!(is_over && worker.is_failing());
    // The end of the process reports what did not fit.
    drop(primary);
    assert_eq!(soon(|| worker.finish()), ExitCode::from(101));
}

#[test]
fn the_end_waits_for_the_replacement() {
    let (mut primary, worker, _web) = serving();
    worker.request_replacement();
    let confirmed = Arc::new(AtomicBool::new(false));
    let confirms = Arc::clone(&confirmed);
    let primary = thread::spawn(move || {
        assert_eq!(primary.hear(), FromWorker::Suicide { seq: seq(2) });
        confirms.store(true, Ordering::SeqCst);
        primary.send(&ToWorker::Ack { ack: seq(2) }, &[]);
        primary
    });
    assert_eq!(soon(|| worker.finish()), ExitCode::SUCCESS);
    assert!(confirmed.load(Ordering::SeqCst), "it did not wait");
    primary.join().unwrap();
}

#[test]
fn an_event_loop_is_told_of_connections() {
    let (mut primary, mut worker, web) = serving();
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(8);
    poll.registry().register(&mut worker, Token(7), Interest::READABLE).unwrap();
    assert!(web.try_accept().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
    let (_client, ours) = connection();
    primary.hand_over(1, &[&ours, &ours]);
    poll.poll(&mut events, Some(SOON)).unwrap();
    assert!(events.iter().all(|event| event.token() == Token(7)) && !events.is_empty());
    assert!(web.try_accept().is_ok());
    assert!(web.try_decline() && !web.try_decline());
    assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(1), accepted: true });
    assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(2), accepted: false });
    poll.registry().deregister(&mut worker).unwrap();
}

#[test]
fn outside_a_cluster_it_serves_by_itself() {
    let worker = Worker::over(WorkerDriver::new(None)).unwrap();
    let web = worker.listen("127.0.0.1:0").unwrap();
    let SockName::Ip(address) = *web.sockname() else { panic!("no IP address") };
    let client = thread::spawn(move || {
        let mut answer = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
        answer
    });
    let mut connection = web.accept().unwrap().unwrap();
    assert!(connection.peer_addr().is_ok());
    connection.write_all(b"alone").unwrap();
    drop(connection);
    assert_eq!(soon(|| client.join().unwrap()), "alone");
    assert!(worker.listen("nonsense").is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput));
    drop(web);
    assert!(TcpStream::connect(address).is_err(), "it was closed");
    assert_eq!(worker.finish(), ExitCode::SUCCESS);
}

#[test]
fn an_ask_for_a_bind_that_is_not_there_says_so() {
    let error = Worker::join().unwrap().listen_nth(3).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no --bind number 3"), "{error}");
}

#[test]
fn the_primary_is_told_what_is_open_while_a_thread_waits() {
    let (mut primary, worker, web) = serving();
    let (_client, ours) = connection();
    primary.hand_over(1, &[&ours, &ours]);
    let take = || web.accept().unwrap().unwrap();
    let (first, mut second) = (take(), take());
    let waits = thread::spawn(move || {
        let none = web.accept().unwrap().is_none();
        worker.all_closed().unwrap();
        (none, worker)
    });
    primary.hear_load(2);
    drop(first);
    primary.hear_load(1);
    primary.send(&ToWorker::Drain { deadline_ms: 60_000 }, &[]);
    let hold = second.hold();
    drop(OwnedFd::from(second));
    assert!(!waits.is_finished(), "the hold counts");
    drop(hold);
    primary.hear_load(0);
    let (none, worker) = soon(|| waits.join().unwrap());
    assert!(none && worker.open_connections() == 0);
}

/// The loop as documented, in which nothing else wakes it.
#[test]
fn an_event_loop_is_woken_to_tell_what_is_open() {
    let (mut primary, mut worker, web) = serving();
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
    poll.registry().register(&mut worker, Token(7), Interest::READABLE).unwrap();
    let (_client, ours) = connection();
    primary.hand_over(1, &[&ours]);
    let taken = web.accept().unwrap().unwrap();
    let looping = thread::spawn(move || {
        while worker.standing() == Standing::Serving {
            poll.poll(&mut events, None).unwrap();
            while web.try_accept().is_ok() {}
        }
    });
    primary.hear_load(1);
    thread::spawn(move || drop(taken)).join().unwrap();
    primary.hear_load(0);
    primary.send(&ToWorker::Drain { deadline_ms: 60_000 }, &[]);
    soon(|| looping.join().unwrap());
}
