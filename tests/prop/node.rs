//! What is different with Node workers: answers that they may hold back, and when they are ready;
//! and programs without cluster, which are given their listeners.

use roundel_core::{
    Attach, Command, Config, ConnEnd, Event, ExitStatus, FromWorker, Input, Life, Output, Refusal,
    Signal, ToWorker,
};

use crate::cluster::{Cluster, count, listener_id, secs, seq, worker};

#[test]
fn four_connections_are_on_their_way_to_a_node_worker() {
    let mut cluster = Cluster::new(Config::builder());
    cluster.online(1);
    cluster.listen(1);
    for _ in 0..5 {
        cluster.arrive();
    }
    let status = cluster.core.workers().next().unwrap();
    assert_eq!(status.in_flight, 4);
}

#[test]
fn a_doubtful_connection_of_a_dead_worker_is_nobody_elses() {
    let mut cluster = Cluster::new(Config::builder().workers(2));
    for id in [1, 2] {
        cluster.online(id);
    }
    cluster.listen(1);
    cluster.arrive();
    cluster.arrive();
    cluster.arrive();
    cluster.say(Input::InDoubt { worker: worker(1), seq: seq(1) });
    cluster.say(Input::InDoubt { worker: worker(1), seq: seq(2) });
    // An answer ends the doubt.
    cluster.hear(1, FromWorker::Ack { ack: seq(2), accepted: true });
    cluster.listen(2);
    cluster.said.clear();
    cluster.say(Input::ChannelClosed { worker: worker(1) });
    let ends: Vec<_> = cluster
        .said
        .iter()
        .filter_map(|output| match output {
            Output::Release { conn, end } => Some((conn.get(), *end)),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(1, ConnEnd::Refused(Refusal::Unknown))]);
    let handed_on: Vec<_> = cluster
        .said
        .iter()
        .filter_map(|output| match output {
            Output::Send { worker, attach: Some(Attach::Conn(conn)), .. } => {
                Some((worker.get(), conn.get()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(handed_on, [(2, 3)], "the one that had not arrived is another worker's");
}

#[test]
fn a_worker_that_is_to_say_so_is_not_ready_before() {
    for ready_first in [false, true] {
        let mut cluster = Cluster::new(Config::builder().wait_ready(true));
        cluster.online(1);
        if ready_first {
            cluster.hear(1, FromWorker::Ready);
        }
        assert_eq!(cluster.life(1), Life::Online);
        cluster.listen(1);
        if !ready_first {
            cluster.arrive();
            assert_eq!(cluster.life(1), Life::Online);
            cluster.hear(1, FromWorker::Ready);
        }
        assert_eq!(cluster.life(1), Life::Ready);
        let status = cluster.core.workers().next().unwrap();
        assert_eq!(status.in_flight, u32::from(!ready_first), "what waited is handed out");
    }
    // A worker that never says so is killed in time, as one that never listens.
    let mut cluster = Cluster::new(Config::builder().wait_ready(true));
    cluster.online(1);
    cluster.listen(1);
    cluster.said.clear();
    cluster.wait(secs(30));
    assert_eq!(cluster.signals(), [Signal::Kill]);
}

#[test]
fn a_worker_that_does_not_ask_to_listen_is_reported_once_and_left_alone() {
    let mut cluster = Cluster::new(Config::builder());
    cluster.online(1);
    cluster.said.clear();
    cluster.wait(secs(30));
    assert_eq!(cluster.events(), [Event::NotListening { worker: worker(1) }]);
    cluster.wait(secs(600));
    assert_eq!(cluster.events(), []);
    assert_eq!(cluster.life(1), Life::Online);
}

/// Nobody sees what such a program accepts, so it may have served before it fails; but not again
/// and again.
#[test]
fn a_program_that_accepts_for_itself_is_replaced_at_once_within_the_budget() {
    let mut cluster = Cluster::new(Config::builder().pass_listeners(true));
    let mut at_once = 0;
    for id in 1..=6 {
        cluster.hear(id, FromWorker::Online);
        cluster.hear(id, FromWorker::Listening { listener: listener_id() });
        cluster.said.clear();
        cluster.hear(id, FromWorker::Suicide { seq: seq(1) });
        at_once += cluster.said.iter().filter(|it| matches!(it, Output::Spawn { .. })).count();
        cluster.say(Input::ChannelClosed { worker: worker(id) });
        cluster.say(Input::Exited { worker: worker(id), status: ExitStatus::Code(1) });
    }
    assert_eq!(at_once, 5);
    let last = cluster.events();
    assert!(last.iter().any(|it| matches!(it, Event::GivenUp { .. })), "{last:?}");
}

#[test]
fn a_passed_listener_is_all_that_a_program_without_cluster_needs() {
    let mut cluster = Cluster::new(Config::builder().pass_listeners(true));
    let passed = |output: &Output| {
        let attached = Some(Attach::Listener(listener_id()));
        matches!(output, Output::Send { msg: ToWorker::PassListener { .. }, attach, .. } if *attach == attached)
    };
    assert!(cluster.said.iter().any(passed));
    cluster.hear(1, FromWorker::Online);
    cluster.hear(1, FromWorker::Listening { listener: listener_id() });
    assert_eq!(cluster.life(1), Life::Ready);
    cluster.wait(secs(5));
    cluster.said.clear();
    cluster.hear(1, FromWorker::Suicide { seq: seq(1) });
    assert!(cluster.said.iter().any(passed), "its replacement has the listener at once");
    assert_eq!(cluster.life(1), Life::Leaving);
    // It knows no message that would tell it to leave.
    cluster.hear(2, FromWorker::Online);
    cluster.said.clear();
    cluster.say(Input::Command(Command::Stop));
    cluster.say(Input::Unbound { listener: listener_id() });
    cluster.say(Input::Wake);
    assert!(
        cluster.said.contains(&Output::CountConnections { workers: vec![worker(1), worker(2)] })
    );
    // It gets the only word that it understands once that cuts nobody off.
    count(&mut cluster, 2, Some(1));
    count(&mut cluster, 2, None);
    assert_eq!(cluster.signals(), []);
    count(&mut cluster, 2, Some(0));
    assert_eq!(cluster.signals(), [Signal::Term]);
}

/// It runs before it reads, so what it says may come before it has taken its listener.
#[test]
fn a_program_without_cluster_may_speak_first() {
    let mut cluster = Cluster::new(Config::builder().pass_listeners(true).wait_ready(true));
    cluster.hear(1, FromWorker::Ready);
    assert_eq!((cluster.life(1), cluster.signals()), (Life::Starting, Vec::new()));
    cluster.hear(1, FromWorker::Online);
    cluster.hear(1, FromWorker::Listening { listener: listener_id() });
    assert_eq!(cluster.life(1), Life::Ready);
    let mut cluster = Cluster::new(Config::builder().pass_listeners(true));
    cluster.hear(1, FromWorker::Suicide { seq: seq(1) });
    assert_eq!((cluster.life(1), cluster.signals()), (Life::Leaving, Vec::new()));
}
