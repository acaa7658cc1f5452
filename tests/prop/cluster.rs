//! A primary of Node workers that a test leads by hand, in a time of its own.

use std::time::Duration;

use roundel_core::{
    Address, Codec, ConfigBuilder, Custody, Event, FromWorker, Input, Life, ListenKey, ListenerId,
    Output, Primary, Seq, Signal, SockName, Time, WorkerId,
};

/// A primary of Node workers, with what it said since it was last asked.
pub(crate) struct Cluster {
    pub(crate) core: Primary,
    now: Time,
    custody: Custody<()>,
    pub(crate) said: Vec<Output>,
}

const LISTENER: u64 = 1;

impl Cluster {
    pub(crate) fn new(config: ConfigBuilder) -> Self {
        let listener = ListenKey::stream(Address::Any { port: 80 });
        let config = config.listeners(vec![listener]).build().unwrap();
        let (core, now) = (Primary::new(config), Time::from_millis(1));
        let mut cluster = Cluster { core, now, custody: Custody::new(), said: Vec::new() };
        let sockname = SockName::Ip("[::]:80".parse().unwrap());
        cluster.say(Input::Bound { listener: listener_id(), result: Ok(sockname) });
        cluster
    }

    pub(crate) fn say(&mut self, input: Input) {
        self.core.handle_input(self.now, input).unwrap();
        while let Some(output) = self.core.poll_output() {
            if let Output::Spawn { worker, .. } = output {
                self.core.handle_input(self.now, Input::Spawned { worker, pid: 1 }).unwrap();
            }
            self.said.push(output);
        }
        assert_eq!(self.core.check(), Ok(()));
    }

    pub(crate) fn hear(&mut self, id: u64, msg: FromWorker) {
        self.say(Input::Message { worker: worker(id), msg });
    }

    pub(crate) fn online(&mut self, id: u64) {
        self.say(Input::Hello { worker: worker(id), codec: Codec::Node });
        self.hear(id, FromWorker::Online);
    }

    pub(crate) fn listen(&mut self, id: u64) {
        let key = Box::new(ListenKey::stream(Address::Any { port: 80 }));
        self.hear(id, FromWorker::Query { seq: seq(1), key, backlog: 0, data: Vec::new() });
        self.hear(id, FromWorker::Listening { listener: listener_id() });
    }

    pub(crate) fn wait(&mut self, span: Duration) {
        self.now += span;
        self.say(Input::Wake);
    }

    pub(crate) fn arrive(&mut self) {
        let conn = self.custody.admit(());
        self.say(Input::Incoming { listener: listener_id(), conn });
    }

    pub(crate) fn life(&self, id: u64) -> Life {
        let mut workers = self.core.workers();
        workers.find(|status| status.id == worker(id)).map_or(Life::Dead, |status| status.life)
    }

    /// Signals sent since the last time.
    pub(crate) fn signals(&mut self) -> Vec<Signal> {
        let said = std::mem::take(&mut self.said);
        let signal = |output| match output {
            Output::Kill { signal, .. } => Some(signal),
            _ => None,
        };
        said.into_iter().filter_map(signal).collect()
    }

    pub(crate) fn events_and_signals(&mut self) -> Vec<&'static str> {
        let said = std::mem::take(&mut self.said);
        let name = |output| match output {
            Output::Event(event) => Some(event.name()),
            Output::Kill { signal, .. } => Some(signal.name()),
            _ => None,
        };
        said.into_iter().filter_map(name).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        let said = std::mem::take(&mut self.said);
        let event = |output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        };
        said.into_iter().filter_map(event).collect()
    }
}

/// What the primary is told of the connections of a worker.
pub(crate) fn count(cluster: &mut Cluster, id: u64, open: Option<u32>) {
    cluster.say(Input::Connections { worker: worker(id), open });
}

pub(crate) fn worker(n: u64) -> WorkerId {
    WorkerId::from_raw(n).unwrap()
}

pub(crate) fn seq(n: u64) -> Seq {
    Seq::from_raw(n).unwrap()
}

pub(crate) fn listener_id() -> ListenerId {
    ListenerId::from_raw(LISTENER).unwrap()
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
