//! Several listeners, and kinds of them, under load.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cells::{on_all, on_both};
use crate::harness::*;
use crate::pair::{Adapter, Pair};

on_all! {
    clients_of_one_of_two_listeners_are_all_served: one listener "it has two by itself",
    clients_of_two_listeners_are_all_served: one listener "it has two by itself",
    in_a_storm_of_kills_each_loss_is_one_that_a_dead_worker_had_accepted:
        one listener "it has two by itself",
}

on_both! {
    "a demo worker of the primary's own kind serves whatever is bound",
    one listener "it has three by itself":
    kinds_of_listeners_are_all_served,
}

const CLIENTS: usize = 8;

/// Connections in all: a mio worker that lost wakes hung for ever after 350 to 9,500.
fn enough(on: Pair) -> usize {
    if on.worker == Adapter::Mio { 12_000 } else { 3_000 }
}

/// Each of the clients asks at one of these places, again and again; it may wait for no answer
/// longer than clients of a machine that is busy have to.
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
    let cluster = on.two().demo(&["-w", "2"]);
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

fn in_a_storm_of_kills_each_loss_is_one_that_a_dead_worker_had_accepted(on: Pair) {
    let _load = alone();
    let cluster = on.two().demo(&["-w", "4"]);
    let outcomes = under_load(cluster.addr, 16, || {
        for n in 0..24 {
            // Without a pause a connection would be in flight at five that die, and is refused
            // then.
            let served = cluster.total("accepted_total") + 100;
            wait_for("service", || (cluster.total("accepted_total") >= served).then_some(()));
            // One that has served: its death is no early failure.
            let victim = wait_for("a victim", || {
                let status = cluster.status();
                let workers = status["workers"].as_array()?;
                let has_served = |worker: &&Value| {
                    worker["state"] == "ready" && worker["accepted"].as_u64() > Some(0)
                };
                let fit: Vec<&Value> = workers.iter().filter(has_served).collect();
                fit.get(n % fit.len().max(1))?["pid"].as_i64()
            });
            kill(Pid::from_raw(victim as i32), Signal::SIGKILL).unwrap();
            wait_for("its end", || {
                cluster.events_named("exited").into_iter().find(|event| event["pid"] == victim)
            });
        }
        cluster.ready(4);
    });
    let mut answered: BTreeMap<u64, usize> = BTreeMap::new();
    let mut lost = 0;
    for outcome in &outcomes {
        match outcome {
            Outcome::Ok(_) => *answered.entry(outcome.pid() as u64).or_default() += 1,
            Outcome::Empty | Outcome::Failed(_) => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    let number = |event: &Value, field: &str| event[field].as_u64().unwrap();
    let by_worker = |name: &str| {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for event in cluster.events_named(name) {
            *counts.entry(number(&event, "worker")).or_default() += 1;
        }
        counts
    };
    // The log may be behind.
    wait_for("all to be told of", || {
        (cluster.events_named("accepted").len() == outcomes.len()).then_some(())
    });
    let (accepted, dead) = (by_worker("accepted"), by_worker("exited"));
    let mut owed = 0;
    for event in cluster.events_named("spawned") {
        let (worker, pid) = (number(&event, "worker"), number(&event, "pid"));
        let accepted = accepted.get(&worker).copied().unwrap_or(0);
        let answered = answered.get(&pid).copied().unwrap_or(0);
        assert!(accepted >= answered, "worker {worker} answered more than it accepted");
        let owes = accepted > answered;
        assert!(!owes || dead.contains_key(&worker), "worker {worker} lives, and owes answers");
        owed += accepted - answered;
    }
    assert_eq!(lost, owed, "lost, and what the dead had accepted and did not answer");
    assert_eq!(cluster.total("refused_total"), 0);
    assert_eq!(cluster.events_named("given_up").len(), 0);
    cluster.stop();
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
