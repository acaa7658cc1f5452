//! What a primary can't do now, and workers that never stop: `poll_loop` neither burns a processor
//! over it nor forgets the others.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use roundel_core::{Address, FromWorker, ListenKey, Seq, ToWorker, wire};
use roundel_tests::programs::observe::{alone, cpu_time, eventually, open_fds};

use crate::cluster::{Cluster, channel_of_this_worker, connect, example, role};

const MAX_FRAME: u32 = 1 << 20;

/// Joins, and says that it listens; the channel.
fn join(before_it_listens: impl FnOnce(&UnixStream)) -> Option<UnixStream> {
    let mut channel = channel_of_this_worker()?;
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
    before_it_listens(&channel);
    let mut bytes = Vec::new();
    encode(&FromWorker::Listening { listener }, &mut bytes);
    channel.write_all(&bytes).unwrap();
    Some(channel)
}

fn encode(msg: &FromWorker, bytes: &mut Vec<u8>) {
    wire::encode(msg, MAX_FRAME, bytes).unwrap();
}

#[test]
#[ignore = "a worker of other tests"]
fn deaf_worker() {
    let channel = join(|channel| channel.shutdown(Shutdown::Read).unwrap());
    // It is for the primary to end this.
    while channel.is_some() {
        thread::park();
    }
}

#[test]
#[ignore = "a worker of another test"]
fn flooding_worker() {
    let Some(mut channel) = join(|_| {}) else { return };
    let mut bytes = Vec::new();
    for open in 0..10_000 {
        encode(&FromWorker::Load { open }, &mut bytes);
    }
    while channel.write_all(&bytes).is_ok() {}
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

#[test]
fn a_worker_that_never_stops_holds_up_no_end() {
    let _alone = alone();
    let (cluster, _) = Cluster::poll_loop(&role("odd_workers::flooding_worker"));
    end_at_once(cluster);
}
