//! What is different with Node workers: answers that they may hold back, how they are led out, and
//! when they are ready.

use std::time::Duration;

use roundel_core::{
    Address, Attach, Codec, Command, Config, ConfigBuilder, ConnEnd, Custody, Event, ExitClass,
    ExitStatus, FromWorker, Input, Life, ListenKey, ListenerId, Output, Primary, Refusal, Seq,
    Signal, SockName, Time, ToWorker, WorkerId,
};

/// A primary of Node workers, with what it said since it was last asked.
struct Cluster {
    core: Primary,
    now: Time,
    custody: Custody<()>,
    said: Vec<Output>,
}

const LISTENER: u64 = 1;

impl Cluster {
    fn new(config: ConfigBuilder) -> Self {
        let listener = ListenKey::stream(Address::Any { port: 80 });
        let config = config.listeners(vec![listener]).build().unwrap();
        let (core, now) = (Primary::new(config), Time::from_millis(1));
        let mut cluster = Cluster { core, now, custody: Custody::new(), said: Vec::new() };
        let sockname = SockName::Ip("[::]:80".parse().unwrap());
        cluster.say(Input::Bound { listener: listener_id(), result: Ok(sockname) });
        cluster
    }

    fn say(&mut self, input: Input) {
        self.core.handle_input(self.now, input).unwrap();
        while let Some(output) = self.core.poll_output() {
            if let Output::Spawn { worker, .. } = output {
                self.core.handle_input(self.now, Input::Spawned { worker, pid: 1 }).unwrap();
            }
            self.said.push(output);
        }
        assert_eq!(self.core.check(), Ok(()));
    }

    fn hear(&mut self, id: u64, msg: FromWorker) {
        self.say(Input::Message { worker: worker(id), msg });
    }

    fn online(&mut self, id: u64) {
        self.say(Input::Hello { worker: worker(id), codec: Codec::Node });
        self.hear(id, FromWorker::Online);
    }

    fn listen(&mut self, id: u64) {
        let key = Box::new(ListenKey::stream(Address::Any { port: 80 }));
        self.hear(id, FromWorker::Query { seq: seq(1), key, backlog: 0, data: Vec::new() });
        self.hear(id, FromWorker::Listening { listener: listener_id() });
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
        self.say(Input::Wake);
    }

    fn arrive(&mut self) {
        let conn = self.custody.admit(());
        self.say(Input::Incoming { listener: listener_id(), conn });
    }

    fn life(&self, id: u64) -> Life {
        let mut workers = self.core.workers();
        workers.find(|status| status.id == worker(id)).map_or(Life::Dead, |status| status.life)
    }

    /// Signals sent since the last time.
    fn signals(&mut self) -> Vec<Signal> {
        let said = std::mem::take(&mut self.said);
        let signal = |output| match output {
            Output::Kill { signal, .. } => Some(signal),
            _ => None,
        };
        said.into_iter().filter_map(signal).collect()
    }

    fn events_and_signals(&mut self) -> Vec<&'static str> {
        let said = std::mem::take(&mut self.said);
        let name = |output| match output {
            Output::Event(event) => Some(event.name()),
            Output::Kill { signal, .. } => Some(signal.name()),
            _ => None,
        };
        said.into_iter().filter_map(name).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        let said = std::mem::take(&mut self.said);
        let event = |output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        };
        said.into_iter().filter_map(event).collect()
    }
}

fn worker(n: u64) -> WorkerId {
    WorkerId::from_raw(n).unwrap()
}

fn seq(n: u64) -> Seq {
    Seq::from_raw(n).unwrap()
}

fn listener_id() -> ListenerId {
    ListenerId::from_raw(LISTENER).unwrap()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

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
    cluster.say(Input::Doubtful { worker: worker(1), seq: seq(1) });
    cluster.say(Input::Doubtful { worker: worker(1), seq: seq(2) });
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

/// What the primary is told of the connections of a worker.
fn count(cluster: &mut Cluster, id: u64, open: Option<u32>) {
    cluster.say(Input::Connections { worker: worker(id), open });
}

#[test]
fn who_leaves_with_connections_is_terminated_just_before_its_deadline() {
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
fn who_leaves_in_a_hurry_is_terminated_at_three_quarters() {
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
fn who_lingers_without_connections_is_terminated_once() {
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
fn who_never_had_a_connection_follows_the_deadline_alone() {
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
fn who_was_handed_something_settles_before_it_is_told() {
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

#[test]
fn who_leaves_by_itself_is_replaced_at_once() {
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
fn who_disconnects_without_a_word_is_replaced_and_has_its_time() {
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

/// Such as a program that closes what it inherits.
#[test]
fn who_closes_its_channel_and_was_never_ready_is_ended_at_the_first_timer() {
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
    // Who never says so is killed in time, as one that never listens.
    let mut cluster = Cluster::new(Config::builder().wait_ready(true));
    cluster.online(1);
    cluster.listen(1);
    cluster.said.clear();
    cluster.wait(secs(30));
    assert_eq!(cluster.signals(), [Signal::Kill]);
}

#[test]
fn who_does_not_ask_to_listen_is_reported_once_and_left_alone() {
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
