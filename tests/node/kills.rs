//! Workers that are killed while they have connections.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::client::*;
use crate::harness::*;

#[test]
fn a_stopped_worker_that_is_killed_loses_nothing() {
    with_servers("1");
}

#[test]
fn nor_does_one_with_two_servers() {
    with_servers("2");
}

fn with_servers(count: &str) {
    if beyond_node("the connection that it had is never answered") {
        return;
    }
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.workers(3).variable("SERVERS", count).start();
    let stopped = cluster.ready(3)[0];
    let addrs: Vec<SocketAddr> = (0..count.parse().unwrap()).map(|nth| cluster.addr(nth)).collect();
    signal(stopped, Signal::SIGSTOP);
    let streams: Vec<_> =
        addrs.iter().cycle().take(60).map(|addr| send(*addr, "/").unwrap()).collect();
    // What the stopped worker has in flight is its window; all else is served meanwhile.
    eventually("the others to serve the rest", || {
        (cluster.count("accepted") >= 60 - 4).then_some(())
    });
    signal(stopped, Signal::SIGKILL);
    for stream in streams {
        assert_ne!(receive(stream).pid(), stopped);
    }
    let exited = cluster.exit_of(stopped);
    assert_eq!((&exited["class"], &exited["status"]["signal"]), (&"killed".into(), &9.into()));
    assert!(cluster.count("redispatched") > 0);
    cluster.stop();
}
