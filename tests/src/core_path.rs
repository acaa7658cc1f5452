//! The path of one connection through the core, for counting what it costs.

use std::hint::black_box;

use roundel_core::{
    Address, Codec, Config, Custody, FromWorker, Input, ListenKey, ListenerId, Output, Primary,
    Seq, SockName, Time, ToWorker, WorkerId,
};

/// A primary with workers that are ready, and connections that go through it one by one.
#[derive(Debug)]
pub struct CorePath {
    primary: Primary,
    custody: Custody<u32>,
    listener: ListenerId,
    now: Time,
    /// Handed off and not answered, in order.
    in_flight: std::collections::VecDeque<(WorkerId, Seq)>,
}

impl CorePath {
    /// So many ready workers with a window of 1, and so many connections that wait beyond what the
    /// workers have in flight; none of either if `pending` is 0.
    ///
    /// # Panics
    /// If the core does not do what it must.
    pub fn new(workers: u32, pending: u64) -> CorePath {
        let key = ListenKey::stream(Address::Any { port: 80 });
        let config = Config::builder().workers(workers).listeners(vec![key]).max_pending(1 << 24);
        let mut primary = Primary::new(config.build().expect("a valid configuration"));
        let now = Time::from_millis(1);
        let mut listener = None;
        let mut ids = Vec::new();
        while let Some(output) = primary.poll_output() {
            let input = match output {
                Output::Bind { listener: id, .. } => {
                    listener = Some(id);
                    let name = SockName::Unix("bench".into());
                    Input::Bound { listener: id, result: Ok(name) }
                }
                Output::Spawn { worker, .. } => {
                    ids.push(worker);
                    Input::Spawned { worker, pid: 1 }
                }
                _ => continue,
            };
            primary.handle_input(now, input).expect("a legal input");
        }
        let listener = listener.expect("a listener");
        let mut path =
            CorePath { primary, custody: Custody::new(), listener, now, in_flight: [].into() };
        for worker in ids {
            path.input(Input::Hello { worker, codec: Codec::Native });
            let query = FromWorker::Query {
                seq: Seq::from_raw(1).expect("not zero"),
                key: Box::new(ListenKey::stream(Address::Nth(0))),
                backlog: 0,
                data: Vec::new(),
            };
            for msg in [FromWorker::Online, query, FromWorker::Listening { listener }] {
                path.input(Input::Message { worker, msg });
            }
            while path.primary.poll_output().is_some() {}
        }
        if pending > 0 {
            for _ in 0..pending + u64::from(workers) {
                let conn = path.custody.admit(7);
                path.input(Input::Incoming { listener, conn });
                while let Some(output) = path.primary.poll_output() {
                    path.note(&output);
                }
            }
        }
        path
    }

    /// Takes so many connections through: custody admit, `Incoming`, the handoff output, the ack,
    /// the `Release` output, custody release, and a `poll_timeout` after each step.
    ///
    /// # Panics
    /// If the core does not do what it must.
    pub fn run(&mut self, connections: u64) {
        if self.in_flight.is_empty() {
            self.run_idle(connections)
        } else {
            self.run_busy(connections)
        }
    }

    /// Somebody is always idle: each connection is handed off when it comes.
    fn run_idle(&mut self, connections: u64) {
        for _ in 0..connections {
            let conn = self.custody.admit(7);
            self.input(Input::Incoming { listener: self.listener, conn });
            let Some(Output::Send { worker, msg: ToWorker::NewConn { first_seq, .. }, .. }) =
                self.primary.poll_output()
            else {
                panic!("no handoff");
            };
            black_box(self.primary.poll_timeout());
            self.now += std::time::Duration::from_nanos(100);
            let msg = FromWorker::Ack { ack: first_seq, accepted: true };
            self.input(Input::Message { worker, msg });
            let Some(Output::Release { conn, .. }) = self.primary.poll_output() else {
                panic!("no release");
            };
            black_box(self.custody.release(conn));
            black_box(self.primary.poll_timeout());
        }
    }

    /// Nobody is idle: each connection waits its turn, and each ack brings a handoff.
    fn run_busy(&mut self, connections: u64) {
        for _ in 0..connections {
            let conn = self.custody.admit(7);
            self.input(Input::Incoming { listener: self.listener, conn });
            black_box(self.primary.poll_timeout());
            self.now += std::time::Duration::from_nanos(100);
            let (worker, ack) = self.in_flight.pop_front().expect("something in flight");
            let msg = FromWorker::Ack { ack, accepted: true };
            self.input(Input::Message { worker, msg });
            while let Some(output) = self.primary.poll_output() {
                self.note(&output);
            }
            black_box(self.primary.poll_timeout());
        }
    }

    /// Wakes it so many times when nothing is due, as an embedder does once a turn.
    ///
    /// # Panics
    /// If the core does not do what it must.
    pub fn wake(&mut self, times: u64) {
        for _ in 0..times {
            self.input(Input::Wake);
            assert!(!self.primary.has_output(), "nothing is due");
        }
    }

    // An embedder that has a connection or an ack says so in a call of its own.
    #[inline(always)]
    fn input(&mut self, input: Input) {
        self.primary.handle_input(self.now, input).expect("a legal input");
    }

    fn note(&mut self, output: &Output) {
        match output {
            Output::Send { worker, msg: ToWorker::NewConn { first_seq, .. }, .. } => {
                self.in_flight.push_back((*worker, *first_seq));
            }
            Output::Release { conn, .. } => {
                black_box(self.custody.release(*conn));
            }
            _ => {}
        }
    }
}
