//! What clients have open through reloads.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use roundel_tests::programs::optional::full_matrix;

use crate::cells::{as_process_one, on_all};
use crate::harness::*;
use crate::pair::{Adapter, Pair};
use crate::reload::{
    all_answered, command, expect_log_is_right, only_generation, patiently, reload,
};

on_all! {
    case_01_clients_that_connect_and_wait_are_answered_through_reloads,
    case_09_open_websockets_and_few_descriptors_outlast_many_reloads,
    case_17_websockets_and_keep_alive_do_not_block_recycling,
}

as_process_one! {
    case_01_clients_that_connect_and_wait_are_answered_through_reloads,
}

fn case_01_clients_that_connect_and_wait_are_answered_through_reloads(on: Pair) {
    let cluster = on.demo(&["-w", "2", "--ready-hold", "100ms"]);
    cluster.ready(2);
    let base = cluster.total("open_fds");
    let mut patient = Vec::new();
    let outcomes = under_load(cluster.addr, 4, || {
        patient = patiently(cluster.addr, || {
            (0..3).for_each(|_| reload(on, &cluster));
            cluster.signal(Signal::SIGHUP);
            wait_for("the fourth", || {
                (cluster.events_named("reload_done").len() == 4).then_some(())
            });
        });
    });
    all_answered(&outcomes);
    all_answered(&patient);
    only_generation(&cluster, 5, 2);
    let status = cluster.status();
    let reloads = status["reloads"].as_array().unwrap();
    assert_eq!(reloads.len(), 4);
    assert!(
        reloads.iter().all(|it| it["result"] == "done" && it["cause"].is_null()),
        "{reloads:?}"
    );
    assert_eq!(status["primary"]["generation"], 5);
    assert_eq!(cluster.total("refused_total"), 0);
    wait_for("descriptors back to base", || (cluster.total("open_fds") == base).then_some(()));
    cluster.expect_no_zombies();
    expect_log_is_right(&cluster, Duration::from_millis(100));
    cluster.stop();
}

/// A connection that stays open: a websocket where there is one, else a long request.
fn websocket(on: Pair, cluster: &Cluster) -> TcpStream {
    let mut stream = TcpStream::connect(cluster.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    if on.worker != Adapter::Node {
        write!(stream, "GET /sleep?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        return stream;
    }
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket";
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Whether the server has not closed a connection over which nothing comes.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn case_09_open_websockets_and_few_descriptors_outlast_many_reloads(on: Pair) {
    let _turn = alone();
    let reloads = if full_matrix() { 100 } else { 8 };
    let mut start = Command::new("sh");
    start.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\""]).arg(on.binary());
    let cluster = on.start_demo(start, &["-w", "2", "--ready-hold", "0", "--drain-timeout", "4s"]);
    cluster.ready(2);
    reload(on, &cluster);
    only_generation(&cluster, 2, 2);
    let base = cluster.total("open_fds");
    let (mut held, mut outlived) = (Vec::new(), 0);
    let outcomes = under_load(cluster.addr, 1, || {
        for _ in 0..reloads {
            // Those whose workers have ended come again.
            held.retain(is_open);
            held.extend((held.len()..20).map(|_| websocket(on, &cluster)));
            let (code, _, said) = command(on, &cluster, &["reload"]);
            assert_eq!(code, 0, "{said}{}", cluster.log());
            outlived += held.iter().filter(|it| is_open(it)).count();
        }
    });
    all_answered(&outcomes);
    assert!(outlived > 0, "each ended with the reload that followed");
    // At most `--max-generations` live on with theirs.
    wait_for("few generations", || {
        let status = cluster.status();
        let workers = status["workers"].as_array()?;
        let generations = workers.iter().filter_map(|it| it["generation"].as_u64());
        (generations.collect::<std::collections::BTreeSet<_>>().len() <= 4).then_some(())
    });
    drop(held);
    only_generation(&cluster, reloads + 2, 2);
    wait_for("descriptors back to base", || (cluster.total("open_fds") <= base).then_some(()));
    assert_eq!(cluster.total("refused_total"), 0);
    expect_log_is_right(&cluster, Duration::ZERO);
    cluster.expect_no_zombies();
    cluster.stop();
}

fn case_17_websockets_and_keep_alive_do_not_block_recycling(on: Pair) {
    let options = ["-w", "1", "--max-requests", "5", "--ready-hold", "0"];
    let cluster = on.demo(&options);
    let first = cluster.ready(1);
    let held = websocket(on, &cluster);
    let mut kept = TcpStream::connect(cluster.addr).unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(kept.read(&mut [0; 1024]).unwrap() > 0);
    let outcomes = under_load(cluster.addr, 1, || {
        wait_for("four replacements", || {
            (cluster.events_named("recycled").len() >= 4).then_some(())
        });
    });
    all_answered(&outcomes);
    assert!(is_open(&held), "it is cut off only by the deadline");
    assert!(cluster.pids("ready").iter().all(|pid| !first.contains(pid)));
    assert_eq!(cluster.events_named("recycle_failed").len(), 0);
}
