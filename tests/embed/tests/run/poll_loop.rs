//! The primary around poll(2), with every kind of native worker.

use std::io::{Read, Write};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use roundel_mio::Worker;

use crate::cluster::{Cluster, example, get, path_of, role};

#[test]
#[ignore = "a worker of another test"]
fn mio_worker() {
    if roundel_mio::is_primary() {
        return;
    }
    let worker = Worker::join().unwrap();
    let listener = worker.listen_nth(0).unwrap();
    while let Some(mut connection) = listener.accept().unwrap() {
        let _ = connection.read(&mut [0; 1024]);
        let _ = writeln!(connection, "pid {}", std::process::id());
    }
    worker.finish();
}

/// Two workers whose answers end with their pids.
fn they_serve_in_turn_survive_a_kill_and_drain(worker: &[String]) {
    let (mut cluster, addr) = Cluster::poll_loop(worker);
    let first = get(addr);
    let second = get(addr);
    assert_ne!(first, second);
    // Two answers that the primary reads at once may change places.
    let firsts = (0..100).filter(|_| get(addr) == first).count();
    assert!((40..=60).contains(&firsts), "{firsts} of 100");
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    cluster.expect("Killed");
    cluster.expect("Ready");
    let third = get(addr).max(get(addr));
    assert!(third != first);
    cluster.signal(Signal::SIGTERM);
    for _ in 0..2 {
        let exited = cluster.expect("Exited");
        assert!(exited.contains("Voluntary"), "{exited}");
    }
    assert_eq!(cluster.end(), Some(0));
}

#[test]
fn with_workers_on_tokio() {
    they_serve_in_turn_survive_a_kill_and_drain(&[path_of(example("tokio_worker"))]);
}

#[test]
fn with_workers_on_poll() {
    they_serve_in_turn_survive_a_kill_and_drain(&[path_of(example("poll_worker"))]);
}

#[test]
fn with_workers_on_mio() {
    they_serve_in_turn_survive_a_kill_and_drain(&role("poll_loop::mio_worker"));
}

#[test]
fn the_shipped_primary_with_workers_on_poll() {
    let (mut cluster, addr) = Cluster::roundel("poll_worker");
    let first = get(addr);
    assert_ne!(get(addr), first);
    let firsts = (0..100).filter(|_| get(addr) == first).count();
    assert!((40..=60).contains(&firsts), "{firsts} of 100");
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    cluster.expect("\"killed\"");
    cluster.expect("\"ready\"");
    assert_ne!(get(addr), first);
    cluster.signal(Signal::SIGTERM);
    for _ in 0..2 {
        cluster.expect("\"voluntary\"");
    }
    assert_eq!(cluster.end(), Some(0));
}
