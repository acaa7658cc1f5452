//! A worker on tokio answers everything that it has acknowledged, whenever it leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use roundel_tests::programs::observe::{alone, eventually};

use crate::cluster::Cluster;
use crate::http::Client;

/// Requests with and without an answer.
#[derive(Default, Debug)]
struct Count {
    answered: u32,
    lost: Vec<String>,
}

impl Count {
    fn add<T>(&mut self, answer: std::io::Result<T>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.answered += 1;
                Some(answer)
            }
            Err(error) => {
                self.lost.push(error.to_string());
                None
            }
        }
    }
}

fn all(threads: Vec<JoinHandle<Count>>) -> u32 {
    let counts: Vec<Count> = threads.into_iter().map(|it| it.join().unwrap()).collect();
    let lost: Vec<&String> = counts.iter().flat_map(|it| &it.lost).collect();
    let answered = counts.iter().map(|it| it.answered).sum();
    assert!(lost.is_empty(), "{} requests without an answer of {answered}: {lost:?}", lost.len());
    answered
}

#[test]
fn a_stop_leaves_no_request_without_an_answer() {
    let _alone = alone();
    let (mut cluster, addr) = Cluster::roundel("tokio_worker");
    let mut known: Vec<Client> = (0..16).map(|_| Client::new(addr)).collect();
    let pids: BTreeSet<i32> = known.iter_mut().map(|it| it.ask().unwrap().pid).collect();
    assert_eq!(pids.len(), 2);
    // In the primary's hands, or on the way there, when it stops.
    let silent: Vec<Client> = (0..16).map(|_| Client::new(addr)).collect();
    // These speak without a pause.
    let busy = known.split_off(8).into_iter().map(|mut client| {
        thread::spawn(move || {
            let mut count = Count::default();
            count.add(client.ask_until_closed());
            count
        })
    });
    let busy: Vec<JoinHandle<Count>> = busy.collect();
    cluster.signal(Signal::SIGTERM);
    for _ in 0..2 {
        cluster.expect("draining");
    }
    let mut count = Count::default();
    for mut client in known {
        count.add(client.ask_until_closed());
    }
    // Both workers know by now that they are to leave.
    for mut client in silent {
        count.add(client.ask());
    }
    let mut threads = busy;
    threads.push(thread::spawn(|| count));
    assert_eq!(all(threads), 32);
    assert_eq!(cluster.end(), Some(0));
}

#[test]
fn a_worker_that_leaves_under_load_leaves_no_request_without_an_answer() {
    let _alone = alone();
    let (cluster, addr) = Cluster::roundel("tokio_worker");
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let clients = (0..8_u32).map(|n| {
        let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
        thread::spawn(move || {
            let mut count = Count::default();
            let mut round = n;
            while !over.load(Ordering::Relaxed) {
                let mut client = Client::new(addr);
                // Most wait before they speak, and between two requests.
                for _ in 0..=round % 5 {
                    round += 1;
                    thread::sleep(Duration::from_millis(u64::from(round % 4)));
                    if count.add(client.ask()).is_none_or(|answer| answer.closes) {
                        break;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            count
        })
    });
    let clients: Vec<JoinHandle<Count>> = clients.collect();
    for _ in 0..6 {
        let enough = answered.load(Ordering::Relaxed) + 40;
        eventually("load", || (answered.load(Ordering::Relaxed) >= enough).then_some(()));
        let pid = Client::new(addr).ask().unwrap().pid;
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        let exited = cluster.expect_all(&["\"exited\"", &format!("\"pid\":{pid},")]);
        assert!(exited.contains("voluntary"), "{exited}");
    }
    over.store(true, Ordering::Relaxed);
    assert!(all(clients) > 240);
}
