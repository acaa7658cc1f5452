//! Several listeners, and kinds of them, under load.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::cells::{on_all, on_both};
use crate::harness::*;
use crate::pair::{Adapter, Pair};

on_all! {
    clients_of_one_of_two_listeners_are_all_served,
    clients_of_two_listeners_are_all_served,
}

on_both! {
    "a demo worker of the primary's own kind serves whatever is bound":
    kinds_of_listeners_are_all_served,
}

const CLIENTS: usize = 8;

/// Connections in all: a mio worker that lost wakes hung for ever after 350 to 9,500.
fn enough(on: Pair) -> usize {
    if on.worker == Adapter::Mio { 12_000 } else { 3_000 }
}

/// Each of the clients asks at one of these places, again and again; it may wait for no answer longer
/// than clients of a machine that is busy have to.
fn all_are_served<P: Sync>(count: usize, places: &[P], ask: impl Fn(&P) -> Outcome + Sync) {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (place, ask) = (&places[n % places.len()], &ask);
                let asks = move || {
                    for n in 0..count / CLIENTS {
                        let outcome = ask(place);
                        assert!(matches!(outcome, Outcome::Ok(_)), "number {n}: {outcome:?}");
                    }
                };
                scope.spawn(asks)
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

fn two_listeners(on: Pair, places: impl Fn(&Cluster) -> Vec<SocketAddr>) {
    let _load = alone();
    let cluster = on.with_two().demo(&["-w", "2"]);
    cluster.ready(2);
    all_are_served(enough(on), &places(&cluster), |place| get(place, "/"));
    assert_eq!(cluster.total("accepted_total"), enough(on) as u64);
    assert_eq!(cluster.total("redispatched_total"), 0);
    cluster.stop();
}

fn clients_of_one_of_two_listeners_are_all_served(on: Pair) {
    two_listeners(on, |cluster| cluster.addr.all().take(1).collect());
}

fn clients_of_two_listeners_are_all_served(on: Pair) {
    two_listeners(on, |cluster| cluster.addr.all().collect());
}

enum Place {
    Ip(SocketAddr),
    Unix(std::path::PathBuf),
}

fn kinds_of_listeners_are_all_served(on: Pair) {
    let _load = alone();
    let dir = temp_dir();
    let path = dir.join("socket");
    let unix = format!("unix:{}", path.display());
    let args = ["demo", "-w", "3", "-b", "127.0.0.1:0", "-b", "[::1]:0", "-b", &unix];
    let cluster = Cluster::start(Command::new(on.binary()), &args, &[]);
    cluster.ready(3);
    let mut places: Vec<Place> = cluster.addr.all().map(Place::Ip).collect();
    assert_eq!(places.len(), 2, "one of each family");
    places.push(Place::Unix(path));
    all_are_served(enough(on), &places, |place| match place {
        Place::Ip(addr) => get(addr, "/"),
        Place::Unix(path) => get_unix(path),
    });
    assert_eq!(cluster.total("redispatched_total"), 0);
    cluster.stop();
    std::fs::remove_dir_all(dir).unwrap();
}

fn get_unix(path: &Path) -> Outcome {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) if answer.starts_with("HTTP/1.1 200") => Outcome::Ok(answer),
        other => Outcome::Failed(format!("{other:?}: {answer}")),
    }
}
