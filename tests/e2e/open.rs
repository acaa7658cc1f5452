//! How many connections workers have open, as the primary shows it.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::cells::on_all;
use crate::harness::*;
use crate::pair::Pair;
use crate::reload::command;

on_all! {
    open_connections_are_shown: not Node "only native workers tell it",
    an_old_generation_shows_what_it_holds: not Node "only native workers tell it",
}

/// Clients that have been answered, and keep their connections.
fn keep_alive(cluster: &Cluster, count: usize) -> Vec<TcpStream> {
    let client = |_| {
        let mut stream = TcpStream::connect(cluster.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        stream
    };
    (0..count).map(client).collect()
}

/// The numbers of the workers, in the order of their ids.
fn open(cluster: &Cluster) -> Vec<Option<u64>> {
    let status = cluster.status();
    let workers = status["workers"].as_array().unwrap();
    workers.iter().map(|worker| worker["open"].as_u64()).collect()
}

/// What the metrics say of all slots.
fn measured(cluster: &Cluster) -> u64 {
    let place = cluster.status()["primary"]["metrics"].as_str().unwrap().to_owned();
    let address = place.strip_prefix("http://").and_then(|it| it.strip_suffix("/metrics"));
    let Outcome::Ok(page) = get(address.unwrap(), "/metrics") else { panic!("no page") };
    let rows = page.lines().filter(|line| line.starts_with("roundel_connections_open{"));
    rows.map(|row| row.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn open_connections_are_shown(on: Pair) {
    let cluster = on.demo(&["-w", "2", "--metrics", "127.0.0.1:0"]);
    cluster.ready(2);
    let all = |wanted: [u64; 2]| {
        wait_for("the numbers", || (open(&cluster) == wanted.map(Some)).then_some(()));
    };
    all([0, 0]);
    let mut clients = keep_alive(&cluster, 6);
    let sum = || open(&cluster).into_iter().sum::<Option<u64>>();
    wait_for("all of them", || (sum() == Some(6)).then_some(()));
    assert_eq!(measured(&cluster), 6);
    clients.truncate(2);
    wait_for("the rest", || (sum() == Some(2)).then_some(()));
    drop(clients);
    all([0, 0]);
    assert_eq!(measured(&cluster), 0);
    cluster.stop();
}

/// Clients are in the middle of a request when the workers are replaced.
fn an_old_generation_shows_what_it_holds(on: Pair) {
    let cluster = on.demo(&["-w", "2", "--ready-hold", "0"]);
    cluster.ready(2);
    let begin = |_| {
        let mut stream = TcpStream::connect(cluster.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";
        stream.write_all(head).unwrap();
        stream
    };
    let mut clients: Vec<TcpStream> = (0..4).map(begin).collect();
    let sum = || open(&cluster).into_iter().sum::<Option<u64>>();
    wait_for("all of them", || (sum() == Some(4)).then_some(()));
    let (code, _, said) = command(on, &cluster, &["reload"]);
    assert_eq!(code, 0, "{said}");
    let generations = || cluster.status()["generations"].as_array().unwrap().clone();
    let holds = |old: &Value, count: usize| old["generation"] == 1 && old["open"] == count;
    let both = wait_for("both generations", || {
        let both = generations();
        (both.len() == 2 && both[0]["workers"]["draining"] == 2).then_some(both)
    });
    assert!(holds(&both[0], 4), "{both:?}");
    assert_eq!((&both[1]["generation"], &both[1]["workers"]["ready"]), (&2.into(), &2.into()));
    let shown = command(on, &cluster, &["status"]).1;
    let line = "generation 1 (old): 2 workers (2 draining), 4 connections open\n";
    assert!(shown.contains(line), "{shown}");
    // One of a worker that has another one left.
    let finish = |mut stream: TcpStream| {
        stream.write_all(b"body").unwrap();
        let outcome = receive(stream);
        assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    };
    finish(clients.remove(0));
    wait_for("one less", || holds(generations().first()?, 3).then_some(()));
    clients.into_iter().for_each(finish);
    wait_for("their end", || {
        let left = generations();
        (left.len() == 1 && left[0]["generation"] == 2).then_some(())
    });
    cluster.stop();
}
