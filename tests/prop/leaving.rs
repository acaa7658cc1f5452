//! How Node workers are led out: what they are told and when, when they are signalled, and who
//! takes their place.

use std::time::Duration;

use roundel_core::{
    Command, Config, Event, ExitClass, FromWorker, Input, Life, Output, Signal, ToWorker,
};

use crate::cluster::{Cluster, count, listener_id, secs, seq, worker};

#[test]
fn a_leaving_worker_with_connections_is_terminated_just_before_its_deadline() {
    let mut cluster = Cluster::new(Config::builder().drain_timeout(secs(10)));
    cluster.online(1);
    cluster.listen(1);
    cluster.said.clear();
    cluster.hear(1, FromWorker::ExitedAfterDisconnect { seq: seq(2) });
    for open in [None, Some(1), Some(3), None, Some(0), Some(1), Some(0)] {
        cluster.wait(secs(1));
        count(&mut cluster, 1, open);
    }
    cluster.wait(Duration::from_millis(999));
    assert_eq!(cluster.signals(), []);
    cluster.wait(Duration::from_millis(1));
    assert_eq!(cluster.signals(), [Signal::Term]);
    cluster.wait(secs(2));
    assert_eq!(cluster.signals(), [Signal::Kill]);
}

/// A short deadline leaves less time for that.
#[test]
fn a_worker_with_a_short_deadline_is_terminated_at_three_quarters() {
    let mut cluster = Cluster::new(Config::builder().drain_timeout(secs(4)));
    cluster.online(1);
    cluster.listen(1);
    cluster.hear(1, FromWorker::ExitedAfterDisconnect { seq: seq(2) });
    cluster.said.clear();
    cluster.wait(Duration::from_millis(2_999));
    assert_eq!(cluster.signals(), []);
    cluster.wait(Duration::from_millis(1));
    assert_eq!(cluster.signals(), [Signal::Term]);
}

#[test]
fn a_lingering_worker_without_connections_is_terminated_once() {
    let mut cluster = Cluster::new(Config::builder().linger(Some(secs(2))));
    cluster.online(1);
    cluster.listen(1);
    cluster.arrive();
    cluster.hear(1, FromWorker::Ack { ack: seq(1), accepted: true });
    cluster.hear(1, FromWorker::ExitedAfterDisconnect { seq: seq(2) });
    cluster.say(Input::ChannelClosed { worker: worker(1) });
    cluster.said.clear();
    cluster.wait(secs(1));
    let counted = Output::CountConnections { workers: vec![worker(1)] };
    assert!(cluster.said.contains(&counted), "{:?}", cluster.said);
    for open in [Some(1), Some(0), Some(0)] {
        count(&mut cluster, 1, open);
        cluster.wait(secs(1));
    }
    assert_eq!(cluster.signals(), []);
    count(&mut cluster, 1, Some(0));
    assert_eq!(cluster.events_and_signals(), ["signalled", "TERM"]);
    // Once, and it is not counted any more.
    count(&mut cluster, 1, Some(0));
    cluster.wait(secs(24));
    assert!(cluster.signals().is_empty());
    cluster.wait(secs(5));
    assert_eq!(cluster.signals(), [Signal::Kill]);
}

/// It may have a queue to flush.
#[test]
fn a_worker_that_never_had_a_connection_follows_the_deadline_alone() {
    let mut cluster = Cluster::new(Config::builder().drain_timeout(secs(20)));
    cluster.online(1);
    cluster.listen(1);
    cluster.say(Input::Command(Command::Stop));
    cluster.say(Input::Unbound { listener: listener_id() });
    for _ in 0..17 {
        cluster.wait(secs(1));
        count(&mut cluster, 1, Some(0));
    }
    assert_eq!(cluster.signals(), []);
    cluster.wait(secs(1));
    assert_eq!(cluster.signals(), [Signal::Term]);
}

/// Node 26 closes what has sent nothing yet when it is told to disconnect.
#[test]
fn a_worker_with_a_recent_handoff_settles_before_it_is_told() {
    let told = |cluster: &mut Cluster| {
        let said = std::mem::take(&mut cluster.said);
        let drain = |it: &Output| matches!(it, Output::Send { msg: ToWorker::Drain { .. }, .. });
        said.iter().any(drain)
    };
    let config = Config::builder().drain_settle(secs(1)).drain_timeout(secs(20));
    let mut cluster = Cluster::new(config);
    cluster.online(1);
    cluster.listen(1);
    cluster.arrive();
    cluster.wait(secs(5));
    cluster.hear(1, FromWorker::Ack { ack: seq(1), accepted: true });
    cluster.wait(Duration::from_millis(300));
    cluster.said.clear();
    cluster.say(Input::Command(Command::Stop));
    cluster.say(Input::Unbound { listener: listener_id() });
    let within = Duration::from_millis(700);
    assert!(cluster.said.contains(&Output::Event(Event::Settling { worker: worker(1), within })));
    cluster.wait(Duration::from_millis(699));
    assert!(!told(&mut cluster));
    cluster.wait(Duration::from_millis(1));
    assert!(told(&mut cluster));
}

#[test]
fn settling_takes_a_quarter_of_a_stop_at_most_and_its_deadline_holds() {
    let config = Config::builder().drain_settle(secs(60)).drain_timeout(secs(4));
    let mut cluster = Cluster::new(config);
    cluster.online(1);
    cluster.listen(1);
    cluster.arrive();
    cluster.hear(1, FromWorker::Ack { ack: seq(1), accepted: true });
    cluster.said.clear();
    cluster.say(Input::Command(Command::Stop));
    cluster.say(Input::Unbound { listener: listener_id() });
    let within = secs(1);
    assert!(cluster.said.contains(&Output::Event(Event::Settling { worker: worker(1), within })));
    cluster.say(Input::Command(Command::StopNow));
    assert_eq!(cluster.signals(), [Signal::Kill], "a second signal is the end at once");
}

#[test]
fn a_stop_signal_comes_instead_of_the_message() {
    use roundel_core::StopSignal;
    let stop = |stop_signal| {
        let mut cluster = Cluster::new(Config::builder().stop_signal(Some(stop_signal)));
        cluster.online(1);
        cluster.listen(1);
        cluster.said.clear();
        cluster.say(Input::Command(Command::Stop));
        cluster.say(Input::Unbound { listener: listener_id() });
        let said = cluster.said.clone();
        let sent = |it: &Output| match it {
            Output::Send { msg, .. } => Some(msg.clone()),
            _ => None,
        };
        let (sent, now) = (said.iter().filter_map(sent).collect::<Vec<_>>(), cluster.signals());
        cluster.wait(secs(28));
        (sent, now, cluster.signals())
    };
    let int = StopSignal::Signal(Signal::Interrupt);
    assert_eq!(stop(int), (vec![], vec![Signal::Interrupt], vec![Signal::Term]));
    let term = StopSignal::Signal(Signal::Term);
    assert_eq!(stop(term), (vec![], vec![Signal::Term], vec![]), "it is not told twice");
    assert_eq!(stop(StopSignal::Message), (vec![ToWorker::Shutdown], vec![], vec![Signal::Term]));
}

/// As with `--node-assist`: only Node's cluster workers are told so, and what the operator chose goes
/// first; what comes after the word to leave is too late.
#[test]
fn a_worker_that_handles_a_signal_is_told_by_it() {
    use roundel_core::StopSignal;
    let stop = |chosen: Option<StopSignal>, says: &[Option<Signal>], late: Option<Signal>| {
        let mut cluster = Cluster::new(Config::builder().stop_signal(chosen).linger(Some(secs(2))));
        cluster.online(1);
        cluster.listen(1);
        for signal in says {
            cluster.hear(1, FromWorker::StopSignal { signal: *signal });
        }
        cluster.said.clear();
        cluster.say(Input::Command(Command::Stop));
        cluster.say(Input::Unbound { listener: listener_id() });
        cluster.hear(1, FromWorker::StopSignal { signal: late });
        let drain = |it: &&Output| matches!(it, Output::Send { msg: ToWorker::Drain { .. }, .. });
        let drains = cluster.said.iter().filter(drain).count();
        let mut signals = vec![cluster.signals()];
        for open in [1, 0, 0, 0, 0] {
            cluster.wait(secs(1));
            count(&mut cluster, 1, Some(open));
        }
        signals.push(cluster.signals());
        (drains, signals)
    };
    let (term, int) = (Some(Signal::Term), Some(Signal::Interrupt));
    assert_eq!(stop(None, &[term], None), (0, vec![vec![Signal::Term], vec![]]));
    assert_eq!(stop(None, &[term, int], None), (0, vec![vec![Signal::Interrupt], vec![]]));
    let chosen = Some(StopSignal::Signal(Signal::User2));
    assert_eq!(stop(chosen, &[term], None), (0, vec![vec![Signal::User2], vec![]]));
    for says in [&[][..], &[term, None], &[Some(Signal::Kill)], &[Some(Signal::Hangup)]] {
        // It is signalled for having no client any more, as if it had said nothing.
        assert_eq!(stop(None, says, term), (1, vec![vec![], vec![Signal::Term]]), "{says:?}");
    }
}

/// Alone such a program would end when its servers are closed; in a cluster the channel keeps it.
#[test]
fn a_signalled_worker_is_disconnected_when_it_has_no_client() {
    use roundel_core::StopSignal;
    let config = Config::builder().stop_signal(Some(StopSignal::Signal(Signal::Term)));
    let mut cluster = Cluster::new(config.linger(Some(secs(2))));
    cluster.online(1);
    cluster.listen(1);
    cluster.say(Input::Command(Command::Stop));
    cluster.say(Input::Unbound { listener: listener_id() });
    assert_eq!(cluster.signals(), [Signal::Term]);
    let told = |cluster: &mut Cluster| {
        let drain = |it: &&Output| matches!(it, Output::Send { msg: ToWorker::Drain { .. }, .. });
        std::mem::take(&mut cluster.said).iter().filter(drain).count()
    };
    let look = |cluster: &mut Cluster, open| {
        cluster.wait(secs(1));
        count(cluster, 1, Some(open));
        told(cluster)
    };
    // Its servers are open: it rules itself.
    assert_eq!((0..5).map(|_| look(&mut cluster, 0)).sum::<usize>(), 0);
    cluster.hear(1, FromWorker::Close { listener: listener_id() });
    let open = [1, 0, 1, 0, 0, 0, 0];
    assert_eq!(open.map(|open| look(&mut cluster, open)), [0, 0, 0, 0, 0, 1, 0]);
    cluster.wait(secs(15));
    assert_eq!(cluster.signals(), [], "it is not signalled twice");
}

#[test]
fn a_worker_that_leaves_by_itself_is_replaced_at_once() {
    let mut cluster = Cluster::new(Config::builder());
    cluster.online(1);
    cluster.listen(1);
    cluster.wait(secs(5));
    cluster.said.clear();
    cluster.hear(1, FromWorker::ExitedAfterDisconnect { seq: seq(2) });
    let spawned =
        |output: &Output| matches!(output, Output::Spawn { worker: id, .. } if *id == worker(2));
    assert!(cluster.said.iter().any(spawned));
    cluster.online(2);
    cluster.listen(2);
    // Where there are twice as many as wanted, nobody is killed to make room for more.
    cluster.wait(secs(5));
    cluster.said.clear();
    cluster.hear(2, FromWorker::ExitedAfterDisconnect { seq: seq(2) });
    let starts = |it: &Output| matches!(it, Output::Spawn { .. } | Output::Kill { .. });
    assert!(!cluster.said.iter().any(starts), "{:?}", cluster.said);
}

#[test]
fn a_worker_that_disconnects_silently_is_replaced_and_keeps_its_deadline() {
    let mut cluster = Cluster::new(Config::builder());
    cluster.online(1);
    cluster.listen(1);
    cluster.wait(secs(5));
    cluster.say(Input::ChannelClosed { worker: worker(1) });
    cluster.said.clear();
    cluster.wait(secs(1));
    let spawned =
        |output: &Output| matches!(output, Output::Spawn { worker: id, .. } if *id == worker(2));
    assert!(cluster.said.iter().any(spawned));
    cluster.said.clear();
    cluster.wait(secs(27));
    assert_eq!(cluster.signals(), []);
    assert_eq!(cluster.life(1), Life::Leaving);
    cluster.wait(secs(1));
    assert_eq!(cluster.signals(), [Signal::Term]);
    cluster.wait(secs(2));
    assert_eq!(cluster.signals(), [Signal::Kill]);
}

/// A program that closes what it inherits is such a worker.
#[test]
fn a_never_ready_worker_that_closes_its_channel_is_ended_at_the_first_timer() {
    let mut cluster = Cluster::new(Config::builder());
    cluster.say(Input::ChannelClosed { worker: worker(1) });
    cluster.said.clear();
    cluster.wait(Duration::from_millis(999));
    assert_eq!(cluster.signals(), []);
    cluster.wait(Duration::from_millis(1));
    let class = ExitClass::NeverReady;
    let killing = Event::Killing { worker: worker(1), class, violation: None };
    assert!(cluster.said.contains(&Output::Event(killing)));
    assert_eq!(cluster.signals(), [Signal::Kill]);
    // Nor does a stop wait for it.
    let mut cluster = Cluster::new(Config::builder());
    cluster.say(Input::ChannelClosed { worker: worker(1) });
    cluster.say(Input::Command(Command::Stop));
    cluster.say(Input::Unbound { listener: listener_id() });
    assert_eq!(cluster.signals(), []);
    cluster.wait(secs(1));
    assert_eq!(cluster.signals(), [Signal::Kill]);
}
