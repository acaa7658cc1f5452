//! Each invariant is noticed when it does not hold.

use super::super::conns::{MAX_UNTAKEN, Unsent};
use super::super::{Phase, listeners::Listener};
use super::*;

/// What is broken after this change to a worker with two connections that wait, and one whose
/// acceptance is not sent.
fn broken(act: impl FnOnce(&mut Worker)) -> &'static str {
    let mut worker = serving();
    let mut custody = Custody::new();
    tell(&mut worker, new_conn(1, 1, 3), custody.admit_all([(), (), ()]));
    say(&mut worker, In::Take { listener: None });
    assert_eq!(worker.check(), Ok(()));
    act(&mut worker);
    worker.check().err().map_or("nothing", |broken| broken.0)
}

fn record(worker: &mut Worker) -> &mut Listener {
    worker.listeners.first_mut().unwrap()
}

#[test]
fn of_connections() {
    let twice = |worker: &mut Worker| record(worker).untaken[0].conn = conn(3);
    assert_eq!(broken(twice), "a connection is in two places");
    let minted = |worker: &mut Worker| worker.last_conn = 2;
    assert_eq!(broken(minted), "a connection is held that was never given in");
    assert_eq!(broken(|worker| worker.untaken = 3), "the count of untaken is wrong");
    let order = |worker: &mut Worker| record(worker).untaken.swap(0, 1);
    assert_eq!(broken(order), "a queue is not in the order of arrival");
    let many = |worker: &mut Worker| {
        let first = record(worker).untaken[0];
        worker.untaken = MAX_UNTAKEN + 1;
        worker.last_conn = u64::from(MAX_UNTAKEN) + 2;
        record(worker).untaken = (2..=u64::from(MAX_UNTAKEN) + 2)
            .map(|n| {
                let mut entry = first;
                entry.conn = conn(n);
                entry
            })
            .collect();
    };
    assert_eq!(broken(many), "too many wait");
}

#[test]
fn of_the_way_out() {
    let keeps = |worker: &mut Worker| worker.phase = Phase::Leaving;
    assert_eq!(broken(keeps), "a worker that leaves keeps what it can't take");
    assert_eq!(broken(|worker| worker.phase = Phase::Draining), "nothing");
    let waits = |worker: &mut Worker| {
        record(worker).untaken.clear();
        worker.untaken = 0;
        worker.phase = Phase::Gone;
    };
    assert_eq!(broken(waits), "a worker that has left keeps unsent messages or asks", "to send");
    let asks = |worker: &mut Worker| {
        say(worker, In::Listen { ask: 8, key: key(), backlog: 0, data: vec![] });
        waits(worker);
        worker.unsent.clear();
    };
    assert_eq!(broken(asks), "a worker that has left keeps unsent messages or asks", "to answer");
}

#[test]
fn of_what_is_sent() {
    assert_eq!(broken(|worker| worker.polled = 2), "more was polled than is unsent");
    let sent = |worker: &mut Worker| worker.unsent.push_back(Unsent::Plain);
    assert_eq!(broken(sent), "nothing");
}
