//! What a primary can't do now: `poll_loop` burns no processor over it, and does it later.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use roundel_core::{Address, FromWorker, ListenKey, Seq, ToWorker, wire};
use roundel_tests::programs::observe::{alone, cpu_time, eventually, open_fds};

use crate::cluster::{Cluster, channel_of_this_worker, connect, example, role, unprivileged};
use crate::kernel::send;

const MAX_FRAME: u32 = wire::MAX_FRAME_DEFAULT;

fn encode(msg: &FromWorker, bytes: &mut Vec<u8>) {
    wire::encode(msg, MAX_FRAME, bytes).unwrap();
}

/// Joins, stops to read, says that it listens, and never answers anything.
#[test]
#[ignore = "a worker of other tests"]
fn deaf_worker() {
    let Some(mut channel) = channel_of_this_worker() else { return };
    let mut bytes = Vec::new();
    wire::encode_hello(&mut bytes);
    let key = Box::new(ListenKey::stream(Address::Nth(0)));
    let seq = Seq::from_raw(1).unwrap();
    encode(&FromWorker::Online, &mut bytes);
    encode(&FromWorker::Query { seq, key, backlog: 0, data: Vec::new() }, &mut bytes);
    channel.write_all(&bytes).unwrap();
    let mut decoder = wire::Decoder::<ToWorker>::new(MAX_FRAME);
    let listener = loop {
        let mut buffer = [0; 4096];
        let count = channel.read(&mut buffer).unwrap();
        decoder.feed(&buffer[..count]);
        if let Some((ToWorker::QueryReply { result, .. }, _)) = decoder.poll().unwrap() {
            break result.unwrap().listener;
        }
    };
    channel.shutdown(Shutdown::Read).unwrap();
    bytes.clear();
    encode(&FromWorker::Listening { listener }, &mut bytes);
    channel.write_all(&bytes).unwrap();
    // It is for the primary to end this.
    loop {
        thread::park();
    }
}

/// How much processor time a process uses in a second.
fn cpu_of_a_second(pid: i32) -> Duration {
    let (begin, before) = (Instant::now(), cpu_time(pid));
    thread::sleep(Duration::from_secs(1));
    (cpu_time(pid) - before).mul_f64(1.0 / begin.elapsed().as_secs_f64())
}

/// A loop that spins uses the whole second, or on a busy machine what it can get of it.
const NEXT_TO_NOTHING: Duration = Duration::from_millis(50);

fn assert_idle(cluster: &Cluster) {
    let used = cpu_of_a_second(cluster.pid());
    assert!(used < NEXT_TO_NOTHING, "{used:?} of a second");
}

/// Stops a primary whose workers will not leave.
fn end_at_once(mut cluster: Cluster) {
    cluster.signal(Signal::SIGTERM);
    cluster.expect("Stopping");
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.end(), Some(0));
}

#[test]
fn a_send_that_fails_is_not_tried_over_and_over() {
    let _alone = alone();
    let (cluster, addr) = Cluster::poll_loop(&role("odd_workers::deaf_worker"));
    let _clients = [(); 3].map(|()| connect(addr));
    assert_idle(&cluster);
    end_at_once(cluster);
}

#[test]
fn an_accept_that_fails_is_not_tried_over_and_over() {
    let _alone = alone();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24 && exec \"$@\"", "sh"]);
    command.arg(example("poll_loop")).arg("127.0.0.1:0").args(role("odd_workers::deaf_worker"));
    let (cluster, addr) = Cluster::ready(&mut command);
    let _clients = [(); 40].map(|()| connect(addr));
    eventually("the limit", || (open_fds(cluster.pid()) >= 24).then_some(()));
    assert_idle(&cluster);
    end_at_once(cluster);
}

/// As many as `poll_loop` may have under way in the test below, and some.
const TOO_MANY: usize = 64;

#[test]
#[ignore = "plays a role in another test"]
fn holder_of_many() {
    if std::env::var_os(HOLDS).is_none() {
        return;
    }
    let (ours, _theirs) = UnixStream::pair().unwrap();
    for _ in 0..TOO_MANY {
        send(&ours, b"x", &[ours.as_raw_fd()]).unwrap();
    }
    println!("held");
    // Until the test closes its end.
    let _ = io::stdin().read(&mut [0]);
}

/// In the environment of that role.
const HOLDS: &str = "ROUNDEL_EMBED_HOLDS";

#[test]
fn too_many_descriptors_under_way_are_waited_for_and_not_spun_on() {
    let _alone = alone();
    let role = role("odd_workers::holder_of_many");
    let mut holder = Command::new(&role[0]);
    holder.args(&role[1..]).env(HOLDS, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = unprivileged(&mut holder).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("held")));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 32 && exec \"$@\"", "sh"]);
    command.arg(example("poll_loop")).arg("127.0.0.1:0").arg(example("poll_worker"));
    let (mut cluster, addr) = Cluster::ready(unprivileged(&mut command));
    let mut client = connect(addr);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_idle(&cluster);
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    drop(holder.stdin.take());
    lines.for_each(drop);
    holder.wait().unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("pid"), "{answer}");
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.end(), Some(0));
}
