//! The primary around poll(2), with every kind of native worker.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{Cluster, example, get, path_of};

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
    cluster.expect("Exited");
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
