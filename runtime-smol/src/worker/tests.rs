use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::{Context, Waker};
use std::thread;

use roundel_core::{FromWorker, SockName, ToWorker};
use roundel_test_support::{FakePrimary, SOON, connection, seq, soon};
use smol::LocalExecutor;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream::StreamExt;

use super::*;
use crate::Connection;

mod orders;

/// Waits, but not forever.
fn block_on<T>(what: impl Future<Output = T>) -> T {
    async_io::block_on(future::or(what, async {
        Timer::after(SOON).await;
        panic!("it hangs");
    }))
}

/// The result, if it is there at once.
fn try_now<T>(what: impl Future<Output = T>) -> Option<T> {
    match pin!(what).poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(done) => Some(done),
        std::task::Poll::Pending => None,
    }
}

/// A worker that listens, and sends nothing more by itself.
fn serving() -> (FakePrimary, Worker, Listener) {
    let (mut primary, driver) = FakePrimary::new();
    let worker = Worker::over(driver).unwrap();
    let granting = thread::spawn(move || {
        primary.grant_first();
        primary
    });
    let web = block_on(worker.listen("127.0.0.1:8080")).unwrap();
    (granting.join().unwrap(), worker, web)
}

fn accepted(n: u64) -> FromWorker {
    FromWorker::Ack { ack: seq(n), accepted: true }
}

fn declined(n: u64) -> FromWorker {
    FromWorker::Ack { ack: seq(n), accepted: false }
}

#[test]
fn accept_waits_and_ends_with_the_drain() {
    let (mut primary, worker, web) = serving();
    let served = thread::spawn(move || {
        let count = block_on(async {
            let mut count = 0;
            while let Some(mut connection) = web.accept().await.unwrap() {
                connection.write_all(b"hello").await.unwrap();
                count += 1;
            }
            count
        });
        (count, worker)
    });
    for n in 1..=3 {
        let (mut client, ours) = connection();
        primary.hand_over(n, &[&ours]);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        assert_eq!(primary.hear(), accepted(n));
    }
    primary.send(&ToWorker::Drain { deadline_ms: 1_000 }, &[]);
    let (count, worker) = soon(|| served.join().unwrap());
    assert_eq!(count, 3);
    assert!(matches!(worker.standing(), Standing::Draining { deadline: Some(_) }));
}

#[test]
fn accept_ends_with_the_primary() {
    let (primary, worker, web) = serving();
    let ended = thread::spawn(move || {
        let is_over = block_on(web.accept()).unwrap().is_none();
        (is_over, block_on(worker.leaving()).unwrap(), worker.is_in_cluster())
    });
    drop(primary);
    assert_eq!(soon(|| ended.join().unwrap()), (true, Standing::Alone, false));
}

/// The address of a client, as its connection shows it.
fn name(client: &TcpStream) -> SockName {
    SockName::Ip(client.local_addr().unwrap())
}

#[test]
fn a_dropped_accept_loses_nothing() {
    let (mut primary, _worker, web) = serving();
    for n in 1..=50 {
        let (client, ours) = connection();
        assert!(try_now(web.accept()).is_none(), "this one waits, and is dropped");
        primary.hand_over(n, &[&ours]);
        // Each of these is dropped after it was polled once.
        let taken = block_on(async {
            loop {
                let accept = async { Some(web.accept().await) };
                if let Some(taken) = future::or(accept, async { None }).await {
                    break taken.unwrap().unwrap();
                }
                future::yield_now().await;
            }
        });
        assert_eq!(taken.peer_addr().unwrap(), name(&client));
        assert_eq!(primary.hear(), accepted(n));
    }
}

#[test]
fn a_dropped_accept_acknowledges_nothing() {
    let (mut primary, _worker, web) = serving();
    let (_client, ours) = connection();
    let mut waits = Box::pin(web.accept());
    assert!(try_now(waits.as_mut()).is_none());
    primary.hand_over(1, &[&ours]);
    drop(waits);
    assert!(block_on(web.decline()).unwrap());
    assert_eq!(primary.hear(), declined(1));
}

#[test]
fn a_dropped_listen_gives_back_what_it_was_granted() {
    let (mut primary, driver) = FakePrimary::new();
    let worker = Worker::over(driver).unwrap();
    assert!(try_now(worker.listen("127.0.0.1:8080")).is_none());
    while !matches!(primary.hear(), FromWorker::Query { .. }) {}
    primary.grant();
    primary.send(&ToWorker::Drain { deadline_ms: 1_000 }, &[]);
    block_on(worker.leaving()).unwrap();
    let is_close = |msg: &FromWorker| matches!(msg, FromWorker::Close { .. });
    assert!(std::iter::repeat_with(|| primary.hear()).take(3).any(|msg| is_close(&msg)));
}

#[test]
fn a_dropped_listener_gives_back_what_it_has() {
    let (mut primary, worker, web) = serving();
    let (_client, ours) = connection();
    primary.hand_over(1, &[&ours, &ours]);
    drop(block_on(web.accept()).unwrap().unwrap());
    assert_eq!(primary.hear(), accepted(1));
    drop(web);
    let mut heard = [primary.hear(), primary.hear()];
    heard.sort_by_key(|msg| matches!(msg, FromWorker::Close { .. }));
    assert_eq!(heard[0], declined(2));
    assert!(matches!(heard[1], FromWorker::Close { .. }));
    drop(worker);
}

/// If one task reads the channel, the others find what they wait for.
#[test]
fn many_tasks_may_wait() {
    let (mut primary, worker, web) = serving();
    let executor = LocalExecutor::new();
    let one = executor.spawn(web.accept());
    let two = executor.spawn(web.accept());
    let leaving = executor.spawn(worker.leaving());
    let (client, ours) = connection();
    let (_other_client, other) = connection();
    block_on(executor.run(async {
        while executor.try_tick() {}
        primary.hand_over(1, &[&ours, &other]);
        let (one, two) = future::zip(one, two).await;
        let names = [one, two].map(|it| it.unwrap().unwrap().peer_addr().unwrap());
        assert!(names.contains(&name(&client)));
        let late = executor.spawn(web.accept());
        while executor.try_tick() {}
        primary.send(&ToWorker::Drain { deadline_ms: 1_000 }, &[]);
        assert!(late.await.unwrap().is_none());
        assert!(matches!(leaving.await.unwrap(), Standing::Draining { .. }));
    }));
}

/// Compiles only for what a task of any executor may be.
fn spawnable<F: Future + Send + 'static>(future: F) -> F {
    future
}

/// One task reads, without waiting, what the other one waits for.
#[test]
fn the_reader_wakes_the_other_waiters() {
    let (mut primary, worker, web) = serving();
    let (waits, is_waiting) = std::sync::mpsc::channel();
    let waiting = thread::spawn(move || {
        let leaving = spawnable(worker.leaving());
        block_on(async {
            let mut leaving = pin!(leaving);
            assert!(future::poll_once(leaving.as_mut()).await.is_none());
            waits.send(()).unwrap();
            leaving.await.unwrap()
        })
    });
    is_waiting.recv().unwrap();
    primary.send(&ToWorker::Drain { deadline_ms: 1_000 }, &[]);
    assert!(web.try_accept().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
    assert!(matches!(soon(|| waiting.join().unwrap()), Standing::Draining { .. }));
}

#[test]
fn connections_come_as_a_stream_and_turn_into_what_is_wanted() {
    let (mut primary, _worker, web) = serving();
    let (mut first, tcp) = connection();
    let (mut second, unix) = UnixStream::pair().unwrap();
    let unix = OwnedFd::from(unix);
    let (third, plain) = connection();
    primary.hand_over(1, &[&tcp, &unix, &plain]);
    drop((tcp, unix, plain));
    primary.send(&ToWorker::Drain { deadline_ms: 10_000 }, &[]);
    let all: Vec<Connection> = block_on(web.incoming().try_collect()).unwrap();
    let [tcp, unix, plain] = all.try_into().unwrap();
    block_on(async {
        let mut tcp = tcp.into_tcp_stream().unwrap();
        tcp.write_all(b"tcp").await.unwrap();
        let mut unix = unix.into_unix_stream().unwrap();
        unix.write_all(b"unix").await.unwrap();
        assert_eq!(plain.peer_addr().unwrap(), name(&third));
        assert!(plain.into_unix_stream().is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput));
    });
    let mut said = String::new();
    first.read_to_string(&mut said).unwrap();
    second.read_to_string(&mut said).unwrap();
    assert_eq!(said, "tcpunix");
}

#[test]
fn a_connection_waits_for_its_client() {
    let (mut client, ours) = connection();
    let (mut primary, _worker, web) = serving();
    primary.hand_over(1, &[&ours]);
    let mut taken = block_on(web.accept()).unwrap().unwrap();
    let echo = thread::spawn(move || {
        block_on(async {
            let mut all = Vec::new();
            taken.read_to_end(&mut all).await.unwrap();
            // More than the kernel takes at once.
            taken.write_all(&all.repeat(1_000_000)).await.unwrap();
            taken.close().await.unwrap();
        });
    });
    for byte in b"hello" {
        client.write_all(&[*byte]).unwrap();
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"hello".repeat(1_000_000));
    echo.join().unwrap();
}

/// The next read waits for readiness first: trying right after a read that took everything would be
/// in vain.
#[test]
fn after_a_short_read_the_next_one_waits_first() {
    let (mut primary, _worker, web) = serving();
    let (mut client, ours) = connection();
    primary.hand_over(1, &[&ours]);
    let mut served = block_on(web.accept()).unwrap().unwrap();
    client.write_all(b"abcd").unwrap();
    let mut buffer = [0; 3];
    assert_eq!(block_on(served.read(&mut buffer)).unwrap(), 3);
    assert_eq!(try_now(served.read(&mut buffer)).unwrap().unwrap(), 1, "not after a full one");
    client.write_all(b"ef").unwrap();
    drop(client);
    assert!(try_now(served.read(&mut buffer)).is_none());
    assert_eq!(block_on(served.read(&mut buffer)).unwrap(), 2, "what was there before it waited");
    assert_eq!(block_on(served.read(&mut buffer)).unwrap(), 0);
}

#[test]
fn a_panic_on_another_thread_with_the_channel_full_ends_the_waiting() {
    let (primary, worker, web) = serving();
    worker.replace_on_panic();
    primary.clog();
    let (waits, is_waiting) = std::sync::mpsc::channel();
    let ended = thread::spawn(move || {
        waits.send(()).unwrap();
        let is_over = block_on(web.accept()).unwrap().is_none();
        (is_over, web, worker)
    });
    is_waiting.recv().unwrap();
    assert!(thread::spawn(|| panic!("a test's panic")).join().is_err());
    let (is_over, _web, worker) = soon(|| ended.join().unwrap());
    assert!(is_over && worker.is_failing());
    // The end of the process reports what did not fit.
    drop(primary);
    assert_eq!(soon(|| block_on(worker.finish())), ExitCode::from(101));
}

#[test]
fn the_end_waits_for_the_replacement() {
    let (mut primary, worker, _web) = serving();
    worker.request_replacement();
    let mut finishing = Box::pin(worker.finish());
    assert!(try_now(finishing.as_mut()).is_none());
    assert_eq!(primary.hear(), FromWorker::Suicide { seq: seq(2) });
    primary.send(&ToWorker::Ack { ack: seq(2) }, &[]);
    assert_eq!(block_on(finishing), ExitCode::SUCCESS);
}

#[test]
fn it_leaves_of_its_own_will() {
    let (mut primary, worker, web) = serving();
    worker.leave();
    assert_eq!(block_on(worker.leaving()).unwrap(), Standing::Leaving);
    assert!(matches!(primary.hear(), FromWorker::ExitedAfterDisconnect { .. }));
    assert!(block_on(web.accept()).unwrap().is_none());
    assert_eq!(block_on(worker.finish()), ExitCode::SUCCESS);
}

#[test]
fn outside_a_cluster_it_serves_by_itself() {
    let worker = Worker::over(WorkerDriver::new(None)).unwrap();
    let web = block_on(worker.listen("127.0.0.1:0")).unwrap();
    let SockName::Ip(address) = *web.sockname() else { panic!("no IP address") };
    let client = thread::spawn(move || {
        let mut answer = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
        answer
    });
    let mut connection = block_on(web.accept()).unwrap().unwrap();
    block_on(connection.write_all(b"alone")).unwrap();
    drop(connection);
    assert_eq!(soon(|| client.join().unwrap()), "alone");
    let refused = block_on(worker.listen("nonsense"));
    assert!(refused.is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput));
    drop(web);
    assert!(TcpStream::connect(address).is_err(), "it was closed");
    assert_eq!(block_on(worker.finish()), ExitCode::SUCCESS);
}

#[test]
fn an_ask_for_a_bind_that_is_not_there_says_so() {
    let worker = Worker::join().unwrap();
    let error = block_on(worker.listen_nth(3)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("no --bind number 3"), "{error}");
}

#[test]
fn the_primary_is_told_what_is_open_while_a_task_waits() {
    let (mut primary, worker, web) = serving();
    let (_client, ours) = connection();
    primary.hand_over(1, &[&ours, &ours]);
    let take = || block_on(web.accept()).unwrap().unwrap();
    let (first, mut second) = (take(), take());
    let waits = thread::spawn(move || {
        let none = block_on(web.accept()).unwrap().is_none();
        block_on(worker.all_closed()).unwrap();
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
