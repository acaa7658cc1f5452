//! One HTTP client. Nothing here waits.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, sendmsg, shutdown};
use roundel_core::Time;

use super::request::{Question, Refused, Request, parse};

/// The longest head of a request in bytes.
pub(super) const MAX_HEAD: usize = 8 * 1024;
/// How long a request may take to arrive once it has begun, and its answer to be read.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may stay without a request. Scrapers use one connection again and again.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client is listened to after its last answer: if a socket is closed while bytes for it
/// arrive, the other end may lose the answer (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How much is read meanwhile.
const MAX_LINGER: usize = 64 * 1024;
/// Bytes read at once.
const CHUNK: usize = 2 * 1024;

/// An answer, apart from its head.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) kind: &'static str,
    /// Shared by all clients that ask at the same time.
    pub(crate) body: Arc<[u8]>,
}

impl Answer {
    /// A line of text.
    pub(crate) fn line(status: &'static str, words: &str) -> Answer {
        let body = format!("{words}\n").into_bytes().into();
        Answer { status, kind: "text/plain; charset=utf-8", body }
    }

    /// A page of metrics.
    pub(crate) fn page(body: Arc<[u8]>) -> Answer {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Answer { status: "200 OK", kind, body }
    }
}

impl From<Refused> for Answer {
    fn from(why: Refused) -> Answer {
        match why {
            Refused::Malformed => Answer::line("400 Bad Request", "this is not an HTTP request"),
            Refused::UnknownPath => {
                Answer::line("404 Not Found", "there are /metrics, /healthz and /readyz")
            }
            Refused::OtherMethod => {
                Answer::line("405 Method Not Allowed", "the methods are GET and HEAD")
            }
            Refused::TooSlow => {
                Answer::line("408 Request Timeout", "the request was not complete within 10 s")
            }
            Refused::TooLong => {
                Answer::line("431 Request Header Fields Too Large", "the limit is 8 KiB")
            }
        }
    }
}

/// What an exchange is at. The order is that in which clients are evicted when room is needed; of
/// those at the same point, the one whose time is over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It is told nothing more; so many bytes of it were ignored.
    Lingering(usize),
    /// It has not begun a request.
    Idle,
    Reading,
    /// The driver looks for the answer.
    Asking,
    Answering,
}

/// What a step led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ask(Question),
    Wait,
    Over,
}

#[derive(Debug)]
pub(super) struct Exchange {
    fd: Arc<OwnedFd>,
    phase: Phase,
    /// When the phase is over.
    deadline: Time,
    input: Vec<u8>,
    /// The client sends nothing more.
    has_ended: bool,
    /// The request that is being answered.
    head_only: bool,
    is_last: bool,
    head: Vec<u8>,
    body: Arc<[u8]>,
    sent: usize,
}

impl Exchange {
    pub(super) fn new(fd: OwnedFd, now: Time) -> Exchange {
        Exchange {
            fd: Arc::new(fd),
            phase: Phase::Idle,
            deadline: now + IDLE,
            input: Vec::new(),
            has_ended: false,
            head_only: false,
            is_last: false,
            head: Vec::new(),
            body: Arc::new([]),
            sent: 0,
        }
    }

    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    /// Those with the least are evicted first.
    pub(super) fn worth(&self) -> (Phase, Time) {
        let phase = match self.phase {
            Phase::Lingering(_) => Phase::Lingering(0),
            other => other,
        };
        (phase, self.deadline)
    }

    pub(super) fn wants_write(&self) -> bool {
        self.phase == Phase::Answering
    }

    /// Sends what waits, then reads up to the next request. While an answer waits to be sent,
    /// nothing is read: so at most one request and one answer are stored for a client.
    pub(super) fn advance(&mut self, now: Time) -> Step {
        if self.phase == Phase::Answering {
            match self.flush(now) {
                Step::Wait if self.phase != Phase::Answering => {}
                step => return step,
            }
        }
        loop {
            match self.phase {
                Phase::Asking | Phase::Answering => return Step::Wait,
                Phase::Lingering(ignored) if ignored >= MAX_LINGER => return Step::Over,
                Phase::Lingering(_) => {}
                Phase::Idle | Phase::Reading => match parse(&self.input) {
                    Ok(Some((request, length))) => return self.begin(request, length, now),
                    Ok(None) if self.input.len() >= MAX_HEAD => {
                        return self.fail(Refused::TooLong, now);
                    }
                    Ok(None) => {}
                    Err(why) => return self.fail(why, now),
                },
            }
            if self.has_ended {
                return Step::Over;
            }
            match self.read() {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Step::Wait,
                Err(_) => return Step::Over,
            }
            if self.phase == Phase::Idle && !self.input.is_empty() {
                self.enter(Phase::Reading, now + PATIENCE);
            }
        }
    }

    /// Answers the question that [`advance`](Exchange::advance) returned.
    pub(super) fn answer(&mut self, answer: Answer, now: Time) -> Step {
        let Answer { status, kind, body } = answer;
        let mut head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n",
            body.len()
        );
        if status.starts_with("405") {
            head += "Allow: GET, HEAD\r\n";
        }
        if self.is_last {
            head += "Connection: close\r\n";
        }
        head += "\r\n";
        self.head = head.into_bytes();
        self.body = if self.head_only { Arc::new([]) } else { body };
        self.sent = 0;
        self.enter(Phase::Answering, now + PATIENCE);
        self.flush(now)
    }

    /// The deadline has passed: tells the client so if it waits for an answer.
    pub(super) fn expire(&mut self, now: Time) {
        if self.phase == Phase::Reading {
            self.fail(Refused::TooSlow, now);
        }
    }

    fn enter(&mut self, phase: Phase, deadline: Time) {
        (self.phase, self.deadline) = (phase, deadline);
    }

    fn begin(&mut self, request: Request, length: usize, now: Time) -> Step {
        self.input.drain(..length);
        (self.head_only, self.is_last) = (request.head_only, request.is_last);
        self.enter(Phase::Asking, now + PATIENCE);
        Step::Ask(request.question)
    }

    /// Where the next request would begin is not known, so this is the last answer.
    fn fail(&mut self, why: Refused, now: Time) -> Step {
        (self.head_only, self.is_last) = (false, true);
        self.answer(why.into(), now)
    }

    fn flush(&mut self, now: Time) -> Step {
        while self.sent < self.head.len() + self.body.len() {
            let of_body = self.sent.saturating_sub(self.head.len());
            let parts = [
                IoSlice::new(self.head.get(self.sent..).unwrap_or_default()),
                IoSlice::new(self.body.get(of_body..).unwrap_or_default()),
            ];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.fd.as_raw_fd(), &parts, &[], flags, None) {
                Ok(count) => self.sent += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Step::Wait,
                Err(_) => return Step::Over,
            }
        }
        self.head = Vec::new();
        self.body = Arc::new([]);
        self.sent = 0;
        if self.is_last {
            if shutdown(self.fd.as_raw_fd(), Shutdown::Write).is_err() {
                return Step::Over;
            }
            self.input = Vec::new();
            self.enter(Phase::Lingering(0), now + LINGER);
        } else if self.input.is_empty() {
            self.enter(Phase::Idle, now + IDLE);
        } else {
            self.enter(Phase::Reading, now + PATIENCE);
        }
        Step::Wait
    }

    fn read(&mut self) -> Result<(), Errno> {
        let mut chunk = [0; CHUNK];
        let room = match self.phase {
            Phase::Lingering(_) => CHUNK,
            _ => CHUNK.min(MAX_HEAD.saturating_sub(self.input.len())),
        };
        let chunk = chunk.get_mut(..room).unwrap_or_default();
        let count = recv(self.fd.as_raw_fd(), chunk, MsgFlags::MSG_DONTWAIT)?;
        self.has_ended = count == 0;
        match &mut self.phase {
            Phase::Lingering(ignored) => *ignored += count,
            _ => self.input.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
        Ok(())
    }
}
