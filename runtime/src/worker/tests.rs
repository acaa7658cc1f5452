use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use roundel_core::wire::{self, Decoder};
use roundel_core::{
    Address, Codec, FromWorker, Granted, ListenKey, ListenerId, Seq, SockName, ToWorker,
};

use super::*;
use crate::address;
use crate::unix::channel;

mod load;

const MAX: u32 = wire::MAX_FRAME_DEFAULT;

fn seq(n: u64) -> Seq {
    Seq::from_raw(n).unwrap()
}

fn listener() -> ListenerId {
    ListenerId::from_raw(1).unwrap()
}

/// The other end of a driver's channel, driven by hand.
struct Primary {
    fd: OwnedFd,
    decoder: Decoder<FromWorker>,
    greeted: bool,
}

impl Primary {
    fn send(&mut self, msg: &ToWorker, handles: &[&OwnedFd]) {
        let mut bytes = Vec::new();
        if !std::mem::replace(&mut self.greeted, true) {
            wire::encode_hello(&mut bytes);
        }
        wire::encode(msg, MAX, &mut bytes).unwrap();
        let handles: Vec<_> = handles.iter().map(|fd| fd.as_fd()).collect();
        assert_eq!(channel::send(self.fd.as_fd(), &bytes, &handles), Ok(bytes.len()));
    }

    fn hand_over(&mut self, first: u64, count: u32, handles: &[&OwnedFd]) {
        let msg = ToWorker::NewConn { first_seq: seq(first), listener: listener(), count };
        self.send(&msg, handles);
    }

    /// Every message that has come, and whether the channel has ended. How many connections are open
    /// is told whenever a timer says so, so most tests skip that.
    fn hear(&mut self) -> (Vec<FromWorker>, bool) {
        let (mut heard, ended) = self.hear_all();
        heard.retain(|msg| !matches!(msg, FromWorker::Load { .. }));
        (heard, ended)
    }

    /// The numbers of open connections that were told.
    fn hear_loads(&mut self) -> Vec<u32> {
        let open = |msg| if let FromWorker::Load { open } = msg { Some(open) } else { None };
        self.hear_all().0.into_iter().filter_map(open).collect()
    }

    fn hear_all(&mut self) -> (Vec<FromWorker>, bool) {
        let (mut heard, mut ended) = (Vec::new(), false);
        let mut buffer = [0; 4096];
        loop {
            while let Some((msg, _)) = self.decoder.poll().unwrap() {
                heard.push(msg);
            }
            match channel::recv(self.fd.as_fd(), &mut buffer) {
                Ok(0) => ended = true,
                Ok(count) => {
                    self.decoder.feed(&buffer[..count]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                Err(error) => panic!("{error}"),
            }
            return (heard, ended);
        }
    }
}

fn cluster() -> (Primary, WorkerDriver) {
    let (mut primary, driver) = cluster_unheard();
    assert_eq!(primary.hear(), (vec![FromWorker::Online], false));
    (primary, driver)
}

fn cluster_unheard() -> (Primary, WorkerDriver) {
    let (ours, theirs) = channel::pair().unwrap();
    channel::set_nonblocking(&theirs).unwrap();
    let driver = WorkerDriver::new(Some((theirs, Codec::Native)));
    (Primary { fd: ours, decoder: Decoder::new(MAX), greeted: false }, driver)
}

fn grant(shared: bool) -> ToWorker {
    let sockname = SockName::Ip("127.0.0.1:80".parse().unwrap());
    let granted = Granted { listener: listener(), sockname, shared, data: vec![5] };
    ToWorker::QueryReply { ack: seq(1), result: Ok(Box::new(granted)) }
}

/// A driver that listens.
fn serving() -> (Primary, WorkerDriver, Listener) {
    let (mut primary, mut driver) = cluster();
    let web = listen(&mut primary, &mut driver);
    (primary, driver, web)
}

fn listen(primary: &mut Primary, driver: &mut WorkerDriver) -> Listener {
    let ask = driver.ask(ListenKey::stream(Address::Nth(0)), 0, vec![]);
    assert!(driver.answer(ask).is_none());
    primary.send(&grant(false), &[]);
    driver.turn();
    let web = driver.answer(ask).unwrap().unwrap();
    assert_eq!(web.data(), [5]);
    assert_eq!(primary.hear().0.last(), Some(&FromWorker::Listening { listener: listener() }));
    web
}

/// Primaries one version and two versions newer, as their hello has it.
#[test]
fn a_primary_may_be_one_version_newer() {
    for (ahead, serves) in [(1, true), (2, false)] {
        let (primary, mut driver) = cluster();
        let ask = driver.ask(ListenKey::stream(Address::Nth(0)), 0, vec![]);
        let mut bytes = Vec::new();
        wire::encode_hello(&mut bytes);
        bytes[5] += ahead;
        wire::encode(&grant(false), MAX, &mut bytes).unwrap();
        channel::send(primary.fd.as_fd(), &bytes, &[]).unwrap();
        driver.turn();
        assert_eq!(driver.answer(ask).unwrap().is_ok(), serves);
    }
}

/// The connection that can be taken now.
fn take(driver: &mut WorkerDriver, web: &Listener) -> Option<Connection> {
    match driver.accept(web) {
        Ok(connection) => Some(connection),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// A client and the server's end of its connection.
fn connection() -> (TcpStream, OwnedFd) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (client, socket.accept().unwrap().0.into())
}

fn ack(n: u64, accepted: bool) -> FromWorker {
    FromWorker::Ack { ack: seq(n), accepted }
}

/// Fills a channel with meaningless bytes; returns how many.
fn clog(driver: &WorkerDriver) -> usize {
    let fd = driver.channel_fd().unwrap().clone();
    setsockopt(&fd, sockopt::SndBuf, &4608).unwrap();
    let mut count = 0;
    while channel::send(fd.as_fd(), b"#", &[]).is_ok() {
        count += 1;
    }
    count
}

fn unclog(primary: &Primary, mut count: usize) {
    let mut buffer = [0; 4096];
    while count > 0 {
        let size = count.min(buffer.len());
        count -= channel::recv(primary.fd.as_fd(), &mut buffer[..size]).unwrap();
    }
}

#[test]
fn a_connection_is_acknowledged_when_it_is_taken() {
    let (mut primary, mut driver, web) = serving();
    let (mut client, ours) = connection();
    primary.hand_over(1, 1, &[&ours]);
    driver.turn();
    assert_eq!(primary.hear(), (vec![], false), "it arrived, but nobody took it");
    let mut connection = take(&mut driver, &web).unwrap();
    assert_eq!(primary.hear(), (vec![ack(1, true)], false));
    assert!(take(&mut driver, &web).is_none());
    client.write_all(b"hello").unwrap();
    let mut buffer = [0; 5];
    connection.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    let SockName::Ip(peer) = connection.peer_addr().unwrap() else { panic!("not IP") };
    assert_eq!(peer, client.local_addr().unwrap());
    connection.write_all(b"bye").unwrap();
    drop(connection);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye", "the end is seen although the primary holds its copy: {ours:?}");
}

#[test]
fn an_answer_held_back_by_a_full_channel_holds_the_connection_back() {
    let (mut primary, mut driver, web) = serving();
    let (_client, ours) = connection();
    primary.hand_over(1, 2, &[&ours, &ours]);
    let clogged = clog(&driver);
    for _ in 0..3 {
        assert!(take(&mut driver, &web).is_none());
    }
    assert!(driver.wants_write());
    unclog(&primary, clogged);
    assert!(take(&mut driver, &web).is_some());
    assert!(!driver.wants_write());
    assert_eq!(primary.hear(), (vec![ack(1, true)], false), "one is taken for all the asking");
    assert!(take(&mut driver, &web).is_some());
}

#[test]
fn unacknowledged_connections_are_closed_unread() {
    let (mut primary, mut driver, web) = serving();
    let (mut client, ours) = connection();
    client.write_all(b"unread").unwrap();
    primary.hand_over(1, 1, &[&ours]);
    driver.turn();
    drop(primary);
    assert!(take(&mut driver, &web).is_none());
    assert_eq!((driver.standing(), driver.is_in_cluster()), (Standing::Alone, false));
    // Another worker could serve it now.
    let mut stream = TcpStream::from(ours);
    let mut buffer = [0; 6];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"unread");
    stream.write_all(b"served").unwrap();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"served");
}

#[test]
fn missing_handles_are_declined() {
    let (mut primary, mut driver, web) = serving();
    let (_client, ours) = connection();
    primary.hand_over(1, 2, &[&ours]);
    assert!(take(&mut driver, &web).is_some());
    assert!(take(&mut driver, &web).is_none());
    assert_eq!(primary.hear(), (vec![ack(2, false), ack(1, true)], false));
    primary.hand_over(3, 1, &[&ours]);
    driver.turn();
    driver.decline(&web);
    assert_eq!(primary.hear(), (vec![ack(3, false)], false));
}

#[test]
fn a_primary_that_talks_nonsense_is_left() {
    let (primary, mut driver, _web) = serving();
    channel::send(primary.fd.as_fd(), &[0xFF; 64], &[]).unwrap();
    driver.turn();
    assert_eq!((driver.standing(), driver.is_in_cluster()), (Standing::Alone, false));
}

#[test]
fn a_leaving_worker_closes_the_channel_after_the_reply() {
    let (mut primary, mut driver, _web) = serving();
    let (_client, ours) = connection();
    primary.hand_over(1, 1, &[&ours]);
    driver.turn();
    driver.leave();
    assert_eq!(driver.standing(), Standing::Leaving);
    let leave_notice = FromWorker::ExitedAfterDisconnect { seq: seq(2) };
    assert_eq!(primary.hear(), (vec![leave_notice, ack(1, false)], false));
    primary.send(&ToWorker::Ack { ack: seq(2) }, &[]);
    let still_held = driver.channel_fd().unwrap().clone();
    driver.turn();
    assert_eq!(primary.hear(), (vec![], true), "{still_held:?} does not delay the end");
    assert_eq!(driver.standing(), Standing::Alone);
}

#[test]
fn a_drained_member_takes_what_arrived() {
    let (mut primary, mut driver, web) = serving();
    let (_client, ours) = connection();
    primary.hand_over(1, 1, &[&ours]);
    primary.send(&ToWorker::Drain { deadline_ms: 1_000 }, &[]);
    assert!(take(&mut driver, &web).is_some());
    assert!(take(&mut driver, &web).is_none());
    assert!(matches!(driver.standing(), Standing::Draining { deadline: Some(_) }));
}

/// Waits until a message comes.
fn hear_soon(primary: &mut Primary) -> Vec<FromWorker> {
    let mut fds = [nix::poll::PollFd::new(primary.fd.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, 10_000_u16).unwrap();
    primary.hear().0
}

#[test]
fn a_panic_on_another_thread_says_suicide() {
    let (mut primary, driver, _web) = serving();
    let shared = Shared::new(driver).unwrap();
    shared.replace_on_panic();
    assert!(thread::spawn(|| panic!("a test's panic")).join().is_err());
    assert_eq!(primary.hear().0, [FromWorker::Suicide { seq: seq(2) }]);
    assert!(shared.with(|driver| !driver.is_suicide_settled()));
    primary.send(&ToWorker::Ack { ack: seq(2) }, &[]);
    let acked = shared.with(|driver| {
        driver.turn();
        driver.is_suicide_settled()
    });
    assert!(acked);
}

#[test]
fn a_panic_with_the_channel_full_is_said_when_there_is_room() {
    let (mut primary, driver, _web) = serving();
    let clogged = clog(&driver);
    let shared = Shared::new(driver).unwrap();
    let other = shared.clone();
    thread::spawn(move || other.fail()).join().unwrap();
    assert!(shared.with(|driver| driver.wants_write()));
    let panic_fd = nix::poll::PollFd::new(shared.panic_fd().as_fd(), nix::poll::PollFlags::POLLIN);
    assert_eq!(
        nix::poll::poll(&mut [panic_fd], 0_u8),
        Ok(1),
        "the loop is woken to watch for room"
    );
    unclog(&primary, clogged);
    shared.with(WorkerDriver::turn);
    assert_eq!(primary.hear().0, [FromWorker::Suicide { seq: seq(2) }]);
}

#[test]
fn a_panic_while_the_member_is_in_use_is_said_by_its_user() {
    let (mut primary, driver, _web) = serving();
    let shared = Shared::new(driver).unwrap();
    let other = shared.clone();
    shared.with(|_| thread::spawn(move || other.fail()).join().unwrap());
    assert_eq!(hear_soon(&mut primary), [FromWorker::Suicide { seq: seq(2) }]);
}

#[test]
fn a_panic_of_the_member_s_user_is_said_all_the_same() {
    let (mut primary, driver, _web) = serving();
    let shared = Shared::new(driver).unwrap();
    let other = shared.clone();
    let user = thread::spawn(move || {
        other.with(|_| {
            other.fail();
            panic!("a test's panic");
        })
    });
    assert!(user.join().is_err());
    assert_eq!(hear_soon(&mut primary), [FromWorker::Suicide { seq: seq(2) }]);
    assert_eq!(shared.with(|driver| driver.standing()), Standing::Leaving);
}

#[test]
fn a_number_that_is_no_channel_is_told_and_left_alone() {
    let (reader, mut writer) = io::pipe().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    for number in [-1, 1, 1 << 20, reader.as_raw_fd(), tcp.as_raw_fd(), datagram.as_raw_fd()] {
        assert!(environment::adopt(number).is_err(), "{number}");
    }
    writer.write_all(b"x").unwrap();
    assert_eq!((&reader).read(&mut [0; 2]).unwrap(), 1);
    datagram.set_nonblocking(true).unwrap();
    assert!(tcp.local_addr().is_ok());
    let (channel, _other) = UnixStream::pair().unwrap();
    let number = std::os::fd::IntoRawFd::into_raw_fd(channel);
    assert_eq!(environment::adopt(number).unwrap().as_raw_fd(), number);
}

fn listen_alone(driver: &mut WorkerDriver, at: &str) -> Listener {
    let ask = driver.ask(ListenKey::stream(address::parse(at).unwrap()), 0, vec![]);
    driver.answer(ask).unwrap().unwrap()
}

#[test]
fn outside_a_cluster_it_listens_by_itself() {
    let mut driver = WorkerDriver::new(None);
    let path = std::env::temp_dir().join(format!("roundel-alone-{}", std::process::id()));
    let local = listen_alone(&mut driver, &format!("unix:{}", path.display()));
    let any = listen_alone(&mut driver, ":0");
    let (mut client, port) = (UnixStream::connect(&path).unwrap(), any.sockname().port().unwrap());
    let _tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(take(&mut driver, &local).unwrap().into_tcp_stream().is_err(), "it is a unix one");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    take(&mut driver, &any).unwrap().into_tcp_stream().unwrap();
    let nth = driver.ask(ListenKey::stream(Address::Nth(0)), 0, vec![]);
    assert!(driver.answer(nth).unwrap().is_err());
    driver.close(any);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it was closed");
    drop(driver);
    assert!(!path.exists());
}

#[test]
fn a_shared_listener_is_given_up_too() {
    let (mut primary, mut driver) = cluster();
    let ask = driver.ask(ListenKey::stream(Address::Nth(0)), 0, vec![]);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    primary.send(&grant(true), &[&socket.into()]);
    driver.turn();
    let web = driver.answer(ask).unwrap().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    assert!(take(&mut driver, &web).is_some());
    primary.hear();
    driver.close(web);
    assert_eq!(primary.hear().0, [FromWorker::Close { listener: listener() }]);
    assert!(TcpStream::connect(address).is_err(), "nobody holds it");
}

#[test]
fn helpers_do_not_take_themselves_for_workers() {
    let command = command("true");
    let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).collect();
    assert_eq!(removed.len(), roundel_core::environment::VARIABLES.len());
    assert!(removed.iter().any(|(name, _)| *name == roundel_core::environment::CHANNEL_VAR));
}
