//! Workers that are killed while they have connections.

use nix::sys::signal::Signal;

use crate::client::*;
use crate::harness::*;

#[test]
fn a_stopped_worker_that_is_killed_loses_nothing() {
    if beyond_node("the connection that it had is never answered") {
        return;
    }
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.workers(3).start();
    let (stopped, addr) = (cluster.ready(3)[0], cluster.addr(0));
    signal(stopped, Signal::SIGSTOP);
    let streams: Vec<_> = (0..60).map(|_| send(addr, "/").unwrap()).collect();
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
