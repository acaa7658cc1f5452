use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use roundel_core::wire::{self, Decoder};
use roundel_core::{Codec, FromWorker, Granted, ListenerId, Seq, SockName, ToWorker};
use roundel_runtime::channel;

use super::*;

const MAX: u32 = 1 << 20;
const SOON: Duration = Duration::from_secs(10);

/// The other end of a worker's channel, by hand.
pub(crate) struct FakePrimary {
    fd: OwnedFd,
    decoder: Decoder<FromWorker>,
    greeted: bool,
}

impl FakePrimary {
    pub(crate) fn new() -> (FakePrimary, Worker) {
        // The first end does not block, as a worker's must not.
        let (worker, fd) = channel::pair().unwrap();
        let worker = Worker::over(Member::new(Some((worker, Codec::Native)))).unwrap();
        (FakePrimary { fd, decoder: Decoder::new(MAX), greeted: false }, worker)
    }

    pub(crate) fn send(&mut self, msg: &ToWorker, handles: &[&OwnedFd]) {
        let mut bytes = Vec::new();
        if !std::mem::replace(&mut self.greeted, true) {
            wire::encode_hello(&mut bytes);
        }
        wire::encode(msg, MAX, &mut bytes).unwrap();
        let handles: Vec<_> = handles.iter().map(|fd| fd.as_fd()).collect();
        assert_eq!(channel::send(self.fd.as_fd(), &bytes, &handles), Ok(bytes.len()));
    }

    /// Grants the first ask, before or after it was made.
    pub(crate) fn grant(&mut self) {
        let sockname = SockName::Ip("127.0.0.1:80".parse().unwrap());
        let listener = ListenerId::from_raw(1).unwrap();
        let granted = Granted { listener, sockname, shared: false, data: vec![] };
        self.send(&ToWorker::QueryReply { ack: seq(1), result: Ok(Box::new(granted)) }, &[]);
    }

    pub(crate) fn hand_over(&mut self, first: u64, handles: &[&OwnedFd]) {
        let listener = ListenerId::from_raw(1).unwrap();
        let count = u32::try_from(handles.len()).unwrap();
        self.send(&ToWorker::NewConn { first_seq: seq(first), listener, count }, handles);
    }

    /// Waits for the next message.
    pub(crate) fn hear(&mut self) -> FromWorker {
        let mut stream = std::os::unix::net::UnixStream::from(self.fd.try_clone().unwrap());
        stream.set_read_timeout(Some(SOON)).unwrap();
        loop {
            if let Some((msg, _)) = self.decoder.poll().unwrap() {
                return msg;
            }
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the channel has ended");
            self.decoder.feed(&buffer[..count]);
        }
    }
}

pub(crate) fn seq(n: u64) -> Seq {
    Seq::from_raw(n).unwrap()
}

/// A client and the server's end of its connection, which does not block, as the primary's do.
pub(crate) fn connection() -> (TcpStream, OwnedFd) {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let (ours, _) = door.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (client, ours.into())
}

/// Does something on a thread of its own that must come to an end soon.
pub(crate) fn soon<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(act()));
    wait.recv_timeout(SOON).expect("it hangs")
}

/// A worker that listens, and says nothing more by itself.
fn serving() -> (FakePrimary, Worker, Listener) {
    let (mut primary, mut worker) = FakePrimary::new();
    let granting = thread::spawn(move || {
        while !matches!(primary.hear(), FromWorker::Query { .. }) {}
        primary.grant();
        while !matches!(primary.hear(), FromWorker::Listening { .. }) {}
        primary
    });
    let web = worker.listen("127.0.0.1:8080").unwrap();
    (granting.join().unwrap(), worker, web)
}

#[test]
fn accept_waits_and_ends_with_the_drain() {
    let (mut primary, mut worker, web) = serving();
    let served = thread::spawn(move || {
        let mut count = 0;
        while let Some(mut connection) = worker.accept(&web).unwrap() {
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
    let (primary, mut worker, web) = serving();
    let ended = thread::spawn(move || worker.accept(&web).unwrap().is_none());
    drop(primary);
    assert!(soon(|| ended.join().unwrap()));
}

#[test]
fn a_panic_on_another_thread_with_the_channel_full_ends_the_waiting() {
    let (primary, mut worker, web) = serving();
    worker.suicide_on_panic();
    let channel = worker.shared.with(|member| member.channel_fd().unwrap().clone());
    while channel::send(channel.as_fd(), &[b'#'; 4096], &[]).is_ok() {}
    while channel::send(channel.as_fd(), b"#", &[]).is_ok() {}
    let (waits, is_waiting) = mpsc::channel();
    let ended = thread::spawn(move || {
        waits.send(()).unwrap();
        (worker.accept(&web).unwrap().is_none(), worker)
    });
    is_waiting.recv().unwrap();
    assert!(thread::spawn(|| panic!("a test's panic")).join().is_err());
    let (is_over, worker) = soon(|| ended.join().unwrap());
    assert!(is_over && worker.is_failing() && worker.wants_write());
    // The end of the process tells what did not fit.
    drop(primary);
    assert_eq!(soon(|| worker.finish()), ExitCode::from(101));
}

#[test]
fn the_end_waits_for_the_replacement() {
    let (mut primary, mut worker, _web) = serving();
    worker.suicide();
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
    assert!(worker.try_accept(&web).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
    let (_client, ours) = connection();
    primary.hand_over(1, &[&ours, &ours]);
    poll.poll(&mut events, Some(SOON)).unwrap();
    assert!(events.iter().all(|event| event.token() == Token(7)) && !events.is_empty());
    assert!(worker.try_accept(&web).is_ok());
    assert!(worker.decline(&web) && !worker.decline(&web));
    assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(1), accepted: true });
    assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(2), accepted: false });
    poll.registry().deregister(&mut worker).unwrap();
}

#[test]
fn outside_a_cluster_it_serves_by_itself() {
    let mut worker = Worker::over(Member::new(None)).unwrap();
    let web = worker.listen("127.0.0.1:0").unwrap();
    let SockName::Ip(address) = *web.sockname() else { panic!("no IP address") };
    let client = thread::spawn(move || {
        let mut answer = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
        answer
    });
    let mut connection = worker.accept(&web).unwrap().unwrap();
    assert!(connection.peer_addr().is_ok());
    connection.write_all(b"alone").unwrap();
    drop(connection);
    assert_eq!(soon(|| client.join().unwrap()), "alone");
    assert!(worker.listen("nonsense").is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput));
    worker.close(web);
    assert!(TcpStream::connect(address).is_err(), "it was closed");
    assert_eq!(worker.finish(), ExitCode::SUCCESS);
}
