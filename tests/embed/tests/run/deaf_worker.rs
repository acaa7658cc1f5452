//! A worker that can't be sent anything, and a primary that does not burn a processor over it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use roundel_core::{Address, FromWorker, ListenKey, Seq, ToWorker, wire};
use roundel_tests::programs::observe::{alone, cpu_time};

use crate::cluster::{Cluster, channel_of_this_worker, connect, role};

const MAX_FRAME: u32 = 1 << 20;

#[test]
#[ignore = "a worker of other tests"]
fn deaf_worker() {
    let Some(mut channel) = channel_of_this_worker() else { return };
    let mut bytes = Vec::new();
    wire::encode_hello(&mut bytes);
    let key = Box::new(ListenKey::stream(Address::Nth(0)));
    let seq = Seq::from_raw(1).unwrap();
    let query = FromWorker::Query { seq, key, backlog: 0, data: Vec::new() };
    for msg in [FromWorker::Online, query] {
        wire::encode(&msg, MAX_FRAME, &mut bytes).unwrap();
    }
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
    let mut bytes = Vec::new();
    wire::encode(&FromWorker::Listening { listener }, MAX_FRAME, &mut bytes).unwrap();
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

#[test]
fn a_send_that_fails_is_not_tried_over_and_over() {
    let _alone = alone();
    let (mut cluster, addr) = Cluster::poll_loop(&role("deaf_worker::deaf_worker"));
    let _clients = [(); 3].map(|()| connect(addr));
    let used = cpu_of_a_second(cluster.pid());
    assert!(used < NEXT_TO_NOTHING, "{used:?} of a second");
    cluster.signal(Signal::SIGTERM);
    cluster.expect("Stopping");
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.end(), Some(0));
}
