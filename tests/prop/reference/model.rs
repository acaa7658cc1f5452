//! The worker that each connection goes to, decided from DESIGN's rules alone and as plainly as
//! possible.

use std::cmp::min;

/// One thing that happens. Workers and listeners by their places; times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A worker becomes ready and listens on the first, the second or both listeners.
    Join(usize, [bool; 2]),
    Connect(usize),
    /// A worker accepts or declines one of what it has in flight, counted from the oldest.
    Answer(usize, usize, bool),
    StopListening(usize, usize),
    /// A worker says that it leaves, or that it fails.
    Leave(usize, bool),
    /// Its process ends; what it wrote before is yet to be read.
    Exit(usize),
    /// Its channel is read to the end.
    Close(usize),
    Pass(u64),
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Handoff { conn: u64, listener: usize, worker: usize },
    Accepted { conn: u64, worker: usize },
    TooManyPending { conn: u64 },
    TooManyDeaths { conn: u64 },
}

/// The span of a first cool-down, and the longest.
pub(super) const COOLDOWN: (u64, u64) = (5, 40);

/// A connection, and how many workers have died of it or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conn(pub(super) u64, u8);

#[derive(Clone, Debug, Default)]
pub(super) struct Worker {
    pub(super) has_joined: bool,
    /// It leaves, or its process has ended: it gets nothing more.
    pub(super) is_out: bool,
    pub(super) has_exited: bool,
    pub(super) is_closed: bool,
    pub(super) listens: [bool; 2],
    pub(super) in_flight: Vec<(Conn, usize)>,
    /// Since when it has as many in flight as it has.
    since: u64,
    cool: [Cool; 2],
}

/// After a decline: until when nothing comes, then one at a time, until one is accepted.
#[derive(Clone, Copy, Debug, Default)]
struct Cool {
    span: u64,
    until: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) window: usize,
    pub(super) max_pending: usize,
    pub(super) max_attempts: u8,
    pub(super) workers: Vec<Worker>,
    /// What waits at each listener.
    queues: [Vec<Conn>; 2],
    /// Listeners where something waits; the one that was served longest ago is first.
    turns: Vec<usize>,
    now: u64,
    conns: u64,
    stamp: u64,
    facts: Vec<Fact>,
}

impl Reference {
    pub(super) fn new(window: usize, max_pending: usize, max_attempts: u8, workers: usize) -> Self {
        Reference {
            window,
            max_pending,
            max_attempts,
            workers: vec![Worker::default(); workers],
            queues: [Vec::new(), Vec::new()],
            turns: Vec::new(),
            now: 0,
            conns: 0,
            stamp: 0,
            facts: Vec::new(),
        }
    }

    /// What a step leads to, in its order.
    pub(super) fn step(&mut self, step: Step) -> Vec<Fact> {
        match step {
            Step::Join(worker, listens) => {
                self.workers[worker].has_joined = true;
                self.count_changes(worker);
                for listener in (0..2).filter(|listener| listens[*listener]) {
                    self.workers[worker].listens[listener] = true;
                    self.hand_out();
                }
            }
            Step::Connect(listener) => {
                self.conns += 1;
                let conn = Conn(self.conns, 0);
                self.wait(listener, conn);
                self.hand_out();
                if self.queues[listener].len() > self.max_pending {
                    self.queues[listener].retain(|other| *other != conn);
                    self.facts.push(Fact::TooManyPending { conn: conn.0 });
                }
            }
            Step::Answer(worker, nth, accepts) => self.answer(worker, nth, accepts),
            Step::StopListening(worker, listener) => {
                self.workers[worker].listens[listener] = false;
            }
            Step::Leave(worker, _) => self.workers[worker].is_out = true,
            Step::Exit(worker) => {
                self.workers[worker].is_out = true;
                self.workers[worker].has_exited = true;
            }
            Step::Close(worker) => self.close(worker),
            Step::Pass(span) => {
                self.now += span;
                self.warm_up();
            }
        }
        std::mem::take(&mut self.facts)
    }

    fn answer(&mut self, worker: usize, nth: usize, accepts: bool) {
        let (conn, listener) = self.workers[worker].in_flight.remove(nth);
        self.count_changes(worker);
        let now = self.now;
        let cool = &mut self.workers[worker].cool[listener];
        if accepts {
            *cool = Cool::default();
            self.facts.push(Fact::Accepted { conn: conn.0, worker });
        } else {
            cool.span = if cool.span == 0 { COOLDOWN.0 } else { min(cool.span * 2, COOLDOWN.1) };
            cool.until = Some(now + cool.span);
            self.wait(listener, conn);
        }
        self.hand_out();
    }

    fn close(&mut self, worker: usize) {
        self.workers[worker].is_out = true;
        self.workers[worker].is_closed = true;
        for (Conn(conn, deaths), listener) in std::mem::take(&mut self.workers[worker].in_flight) {
            if deaths + 1 >= self.max_attempts {
                self.facts.push(Fact::TooManyDeaths { conn });
            } else {
                self.wait(listener, Conn(conn, deaths + 1));
            }
        }
        self.hand_out();
    }

    /// Cool-downs end one by one, and each is made use of.
    fn warm_up(&mut self) {
        let mut ended: Vec<(u64, usize, usize)> = Vec::new();
        for (at, worker) in self.workers.iter().enumerate() {
            for listener in 0..2 {
                let until = worker.cool[listener].until.filter(|until| *until <= self.now);
                ended.extend(until.map(|until| (until, at, listener)));
            }
        }
        ended.sort_unstable();
        for (_, worker, listener) in ended {
            self.workers[worker].cool[listener].until = None;
            self.hand_out();
        }
    }

    /// Older connections stand before younger ones, wherever they come back from.
    fn wait(&mut self, listener: usize, conn: Conn) {
        self.queues[listener].push(conn);
        self.queues[listener].sort_unstable();
        if !self.turns.contains(&listener) {
            self.turns.push(listener);
        }
    }

    /// As long as there is a listener where something waits and a worker that may have it: the
    /// listener that was served longest ago, and of the workers with the fewest in flight the one
    /// that has had so few for longest.
    fn hand_out(&mut self) {
        self.turns.retain(|listener| !self.queues[*listener].is_empty());
        let next = self.turns.iter().copied().find_map(|listener| {
            let may = (0..self.workers.len()).filter(|worker| self.may_have(*worker, listener));
            let best = may.min_by_key(|at| {
                let worker = &self.workers[*at];
                (worker.in_flight.len(), worker.since)
            });
            best.map(|worker| (listener, worker))
        });
        let Some((listener, worker)) = next else { return };
        let conn = self.queues[listener].remove(0);
        self.turns.retain(|other| *other != listener);
        self.turns.push(listener);
        self.workers[worker].in_flight.push((conn, listener));
        self.count_changes(worker);
        self.facts.push(Fact::Handoff { conn: conn.0, listener, worker });
        self.hand_out();
    }

    fn may_have(&self, worker: usize, listener: usize) -> bool {
        let worker = &self.workers[worker];
        let cool = worker.cool[listener];
        let is_tried = worker.in_flight.iter().any(|(_, of)| *of == listener);
        let is_warm = cool.span == 0 || (cool.until.is_none() && !is_tried);
        let has_room = worker.in_flight.len() < self.window;
        worker.has_joined && !worker.is_out && worker.listens[listener] && is_warm && has_room
    }

    fn count_changes(&mut self, worker: usize) {
        self.stamp += 1;
        self.workers[worker].since = self.stamp;
    }
}
