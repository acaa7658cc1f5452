//! One client of the demo worker: reads requests, acts, writes answers.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::http::{self, Parsed, Request, Route, Status};
use crate::worker::{Connection, worker_id};

/// How long a client may take for its next request, or for the rest of one.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client that has not sent anything may take for its first request, once the worker
/// is on its way out: the request may be under way.
const GRACE: Duration = Duration::from_secs(1);
/// How long a client that was answered for the last time may take to close.
const LINGER: Duration = Duration::from_secs(2);
/// Turns of reading and answering before others are served.
const MAX_TURNS: usize = 4;
/// Reads in a row.
const MAX_READS: usize = 64;
/// Answers that may wait for a client that does not read, in bytes.
const MAX_UNSENT: usize = 64 * 1024;
/// The work of `/spin`.
const SPINS: u64 = 10_000_000;

/// The worker that answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    worker: u64,
    pid: u32,
}

impl Identity {
    /// This process.
    pub(super) fn own() -> Identity {
        Identity { worker: worker_id().unwrap_or(0), pid: std::process::id() }
    }
}

/// A client of the demo worker. Whoever has it watches its descriptor for readiness to read, and to
/// write while [`wants_write`](Client::wants_write), and keeps its
/// [`deadline`](Client::deadline).
#[derive(Debug)]
pub(super) struct Client {
    connection: Connection,
    /// What was read and not used yet.
    input: Vec<u8>,
    /// What of a body is still to be thrown away.
    body_left: u64,
    output: Vec<u8>,
    state: State,
    /// It has sent nothing yet.
    fresh: bool,
    /// It has closed its side.
    has_ended: bool,
    /// When the client is closed, or a sleep ends.
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// Answers this request at the deadline.
    Sleeping {
        keep_alive: bool,
        head_only: bool,
    },
    /// Does this once everything is sent.
    Ending(Ending),
    /// Everything is sent; waits for the client to close, as closing first could cut the answer
    /// off (RFC 9112, 9.6).
    Lingering,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Close,
    Crash,
    Exit(i32),
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// Nothing more is there now.
    Empty,
    /// More may be there.
    More,
    /// The client has closed its side.
    End,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait until it is ready or its deadline has passed.
    Stay,
    /// More is there to be read: come back to it after the others.
    Again,
    /// It is over.
    Close,
}

impl Client {
    /// A client that has just come.
    pub(super) fn new(connection: Connection, now: Instant) -> Self {
        Client {
            connection,
            input: Vec::new(),
            body_left: 0,
            output: Vec::new(),
            state: State::Reading,
            fresh: true,
            has_ended: false,
            deadline: now + IDLE,
        }
    }

    /// The worker is on its way out: who has sent nothing yet has not much time left.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.fresh {
            self.deadline = self.deadline.min(now + GRACE);
        }
    }

    /// Its connection, to be watched.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Goes on as far as possible. May panic or end the process, if the client asked for that.
    pub(super) fn advance(&mut self, who: Identity, leaving: bool, now: Instant) -> Next {
        let mut turns = 0;
        let filled = loop {
            let Ok(filled) = self.fill() else { return Next::Close };
            self.use_input(who, leaving, now);
            match self.send() {
                Ok(true) => {}
                Ok(false) => return Next::Stay,
                Err(_) => return Next::Close,
            }
            // What held the reading up may be gone now; no event will tell.
            let more = filled == Filled::More || self.has_request();
            if self.state != State::Reading || !more {
                break filled;
            }
            turns += 1;
            if turns == MAX_TURNS {
                return Next::Again;
            }
        };
        match self.state {
            State::Ending(ending) => {
                let _ = self.connection.shutdown(Shutdown::Write);
                match ending {
                    Ending::Close => {}
                    Ending::Crash => panic!("a client asked for /crash"),
                    Ending::Exit(code) => std::process::exit(code),
                }
                self.state = State::Lingering;
                self.deadline = now + LINGER;
                self.linger(filled)
            }
            State::Lingering => self.linger(filled),
            State::Reading if filled == Filled::End => Next::Close,
            State::Reading if leaving && self.is_done() => Next::Close,
            State::Reading | State::Sleeping { .. } => Next::Stay,
        }
    }

    /// Reads what a client that was answered for the last time still sends, and throws it away.
    fn linger(&mut self, filled: Filled) -> Next {
        let filled = if filled == Filled::End { Ok(filled) } else { self.fill() };
        match filled {
            Ok(Filled::Empty) => Next::Stay,
            Ok(Filled::More) => Next::Again,
            Ok(Filled::End) | Err(_) => Next::Close,
        }
    }

    /// The deadline has passed: a sleeper is answered, others have had their time.
    pub(super) fn on_deadline(&mut self, who: Identity, leaving: bool, now: Instant) -> Next {
        let State::Sleeping { keep_alive, head_only } = self.state else { return Next::Close };
        self.state = State::Reading;
        self.deadline = now + IDLE;
        self.answer(Status::Ok, &hello(who), keep_alive && !leaving, head_only);
        self.advance(who, leaving, now)
    }

    /// Whether it was answered, and nothing was begun since: a worker that leaves may close it.
    pub(super) fn is_done(&self) -> bool {
        !self.fresh
            && self.state == State::Reading
            && self.input.is_empty()
            && self.output.is_empty()
            && self.body_left == 0
    }

    /// Whether it was answered for the last time, and is only still to close: nobody waits for
    /// that.
    pub(super) fn is_lingering(&self) -> bool {
        self.state == State::Lingering
    }

    /// Whether readiness to write matters.
    pub(super) fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Pipelined requests wait in the kernel while there is enough to do.
    fn has_enough(&self) -> bool {
        self.input.len() > http::MAX_HEAD && self.state != State::Lingering
    }

    /// When [`on_deadline`](Client::on_deadline) is to be called.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    fn fill(&mut self) -> io::Result<Filled> {
        let mut buffer = [0; 4096];
        for _ in 0..MAX_READS {
            if self.has_enough() {
                return Ok(Filled::More);
            }
            match (&self.connection).read(&mut buffer) {
                Ok(0) => {
                    self.has_ended = true;
                    return Ok(Filled::End);
                }
                Ok(_) if self.state == State::Lingering => {}
                Ok(count) => {
                    self.fresh = false;
                    self.input.extend_from_slice(&buffer[..count]);
                    self.skip_body();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Filled::Empty);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Filled::More)
    }

    fn skip_body(&mut self) {
        let skipped = self.body_left.min(self.input.len() as u64);
        self.input.drain(..skipped as usize);
        self.body_left -= skipped;
    }

    fn has_request(&self) -> bool {
        self.body_left == 0 && !self.input.is_empty() && http::parse(&self.input) != Parsed::Partial
    }

    fn use_input(&mut self, who: Identity, leaving: bool, now: Instant) {
        while self.state == State::Reading
            && self.body_left == 0
            && !self.input.is_empty()
            && self.output.len() < MAX_UNSENT
        {
            match http::parse(&self.input) {
                Parsed::Partial => return,
                Parsed::Bad(status) => {
                    self.input.clear();
                    self.answer(status, &format!("{}\n", status.line()), false, false);
                }
                Parsed::Request(request) => {
                    self.input.drain(..request.head);
                    self.body_left = request.body;
                    self.skip_body();
                    self.deadline = now + IDLE;
                    self.act(&request, who, leaving, now);
                }
            }
        }
    }

    fn act(&mut self, request: &Request, who: Identity, leaving: bool, now: Instant) {
        let keep_alive = request.keep_alive && !leaving;
        let head_only = request.head_only;
        match request.route {
            Route::Hello => self.answer(Status::Ok, &hello(who), keep_alive, head_only),
            Route::Spin => {
                spin();
                self.answer(Status::Ok, &hello(who), keep_alive, head_only);
            }
            Route::Sleep(time) => {
                self.state = State::Sleeping { keep_alive: request.keep_alive, head_only };
                self.deadline = now + time;
            }
            Route::Crash => {
                self.answer(Status::Ok, &hello(who), false, head_only);
                self.state = State::Ending(Ending::Crash);
            }
            Route::Exit(code) => {
                self.answer(Status::Ok, &hello(who), false, head_only);
                self.state = State::Ending(Ending::Exit(code));
            }
            Route::Wrong(status) => {
                self.answer(status, &format!("{}\n", status.line()), keep_alive, head_only);
            }
        }
    }

    fn answer(&mut self, status: Status, body: &str, keep_alive: bool, head_only: bool) {
        http::answer(&mut self.output, status, body, keep_alive, head_only);
        if !keep_alive {
            self.state = State::Ending(Ending::Close);
        }
    }

    /// Sends what waits; true if nothing is left.
    fn send(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        let result = loop {
            if sent == self.output.len() {
                break Ok(true);
            }
            match (&self.connection).write(&self.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.output.drain(..sent);
        result
    }
}

fn hello(who: Identity) -> String {
    format!("worker {} pid {}\n", who.worker, who.pid)
}

/// Work that the compiler can't do in advance.
fn spin() {
    let mut state = std::hint::black_box(1_u64);
    for _ in 0..SPINS {
        state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}
