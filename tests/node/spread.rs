//! How many connections each worker gets.

use std::io::{Read, Write};

use crate::client::*;
use crate::harness::*;

#[test]
fn four_hundred_requests_spread_exactly() {
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.workers(4).start();
    let (pids, addr) = (cluster.ready(4), cluster.addr(0));
    let answers: Vec<Answer> = (0..400).map(|_| get(addr, "/")).collect();
    assert_even(&spread(&answers), &pids, 100);
    cluster.stop();
}

/// Each server has a port of its own, though both ask for any, and all have equally many in all.
#[test]
fn two_servers_on_ports_of_the_systems_choice_spread_exactly() {
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.workers(4).variable("SERVERS", "2").start();
    let (pids, addrs) = (cluster.ready(4), [cluster.addr(0), cluster.addr(1)]);
    assert_ne!(addrs[0], addrs[1]);
    cluster.report(8);
    let answers: Vec<Answer> = (0..400).map(|n| get(addrs[n % 2], "/")).collect();
    assert_even(&spread(&answers), &pids, 100);
    cluster.stop();
}

#[test]
fn over_a_unix_socket_too() {
    let Some(setup) = fixture("http.js") else { return };
    let socket = setup.dir.join("socket");
    let cluster = setup.workers(4).variable("PORT", &socket).start();
    let answers: Vec<Answer> = (0..200).map(|_| get_unix(&socket, "/")).collect();
    assert_even(&spread(&answers), &cluster.ready(4), 50);
    assert_eq!(cluster.bound(0), format!("unix:{}", socket.display()));
    cluster.stop();
    assert!(!socket.exists(), "the socket's file is left");
}

#[test]
fn an_echo_server_that_speaks_after_the_client() {
    let Some(setup) = fixture("echo.js") else { return };
    let cluster = setup.workers(3).start();
    let addr = cluster.addr(0);
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..60 {
        let mut stream = connect(addr).unwrap();
        let line = format!("number {n}");
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (echo, pid) = text.rsplit_once(' ').unwrap();
        assert_eq!(echo, line);
        *counts.entry(pid.parse().unwrap()).or_insert(0) += 1;
    }
    assert_even(&counts, &cluster.ready(3), 20);
    cluster.stop();
}
