//! One client's connection, as the primary sees it. Nothing here waits.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use roundel_core::Time;
use serde::Serialize;

use super::request::parse;
use super::{Failed, Followed, Following, Request};
use crate::observe::lines::count_lines;
use crate::observe::output::Missing;

/// The longest request in bytes, its line break included.
pub(super) const MAX_REQUEST: usize = 64 * 1024;
/// How long a request may take to arrive once it has begun, and how long an answer may make no
/// progress.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may stay without a request.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Bytes read at once.
const CHUNK: usize = 4 * 1024;
/// Bytes of workers' output that may wait for a client that follows it. The longest line has room.
pub(super) const MAX_FOLLOWED: usize = 512 * 1024;

/// What a client follows.
#[derive(Debug)]
struct Wish {
    /// The workers of this slot; of all slots if there is none.
    slot: Option<u32>,
    /// Lines that found no room. Until the client was told of them, further lines are dropped too:
    /// so there is one gap in one place.
    dropped: u64,
}

#[derive(Debug)]
pub(super) struct Conversation {
    fd: Arc<OwnedFd>,
    input: Vec<u8>,
    /// How many bytes of the input are known to have no line break.
    scanned: usize,
    output: Vec<u8>,
    sent: usize,
    /// A request was passed on, and its answer has not come.
    is_asking: bool,
    /// The client sends nothing more.
    has_ended: bool,
    /// Nothing more is read: the conversation is over when the output is sent.
    is_closing: bool,
    /// The client was told that the primary stops, and waits for the end of file.
    awaits_end: bool,
    /// The client follows workers' output.
    wish: Option<Wish>,
    /// When the current request must be complete, or the current answer make progress.
    deadline: Option<Time>,
    /// By when the next request must have begun.
    idle_until: Time,
}

/// The order in which clients are evicted when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// It has no request; the client without a request for longest goes first.
    Idle(Time),
    /// It follows workers' output.
    Follows,
    /// A request or an answer is in progress.
    Busy,
    /// It takes the end of file as the end of the primary.
    AwaitsEnd,
}

/// What a step led to.
#[derive(Debug)]
pub(super) enum Step {
    Request(Request),
    Wait,
    Over,
}

impl Conversation {
    pub(super) fn new(fd: OwnedFd, now: Time) -> Self {
        Conversation {
            fd: Arc::new(fd),
            input: Vec::new(),
            scanned: 0,
            output: Vec::new(),
            sent: 0,
            is_asking: false,
            has_ended: false,
            is_closing: false,
            awaits_end: false,
            wish: None,
            deadline: None,
            idle_until: now + IDLE,
        }
    }

    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let may_stay = self.awaits_end || self.wish.is_some() || self.is_asking;
        self.deadline.or((!may_stay).then_some(self.idle_until))
    }

    pub(super) fn worth(&self) -> Worth {
        match () {
            () if self.awaits_end => Worth::AwaitsEnd,
            () if self.wish.is_some() => Worth::Follows,
            () if self.deadline.is_some() || self.is_asking => Worth::Busy,
            () => Worth::Idle(self.idle_until),
        }
    }

    /// Bytes of answers not yet sent.
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// While an answer waits to be sent, nothing is read: so at most one request and one answer are
    /// stored for a client.
    pub(super) fn wants_write(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Sends what waits, then reads up to the next request.
    pub(super) fn advance(&mut self, now: Time) -> Step {
        match self.flush(now) {
            Step::Wait if !self.wants_write() => {}
            step => return step,
        }
        if self.is_asking {
            return self.read_ahead(now);
        }
        loop {
            if let Some(line) = self.take_line() {
                self.deadline = None;
                return match parse(&line) {
                    Ok(request) => {
                        self.is_asking = true;
                        self.awaits_end |= request == Request::Stop;
                        Step::Request(request)
                    }
                    Err(cause) => self.fail(&format!("not a request: {cause}"), now),
                };
            }
            if self.input.len() >= MAX_REQUEST {
                return self.fail("a request is longer than 64 KiB", now);
            }
            if self.has_ended {
                // The end of file ends the last line too. A request can't be cut off unnoticed: its
                // closing brace would be missing.
                if self.input.trim_ascii().is_empty() {
                    return Step::Over;
                }
                self.input.push(b'\n');
                continue;
            }
            match self.read() {
                Ok(()) => {}
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if self.input.is_empty() {
                        self.deadline = None;
                    } else {
                        self.deadline.get_or_insert(now + PATIENCE);
                    }
                    return Step::Wait;
                }
                Err(_) => return Step::Over,
            }
        }
    }

    /// Reads while the answer takes its time: so a client that has gone is noticed.
    fn read_ahead(&mut self, now: Time) -> Step {
        while !self.has_ended {
            if self.input.len() >= MAX_REQUEST {
                return self.fail("more than 64 KiB came before the answer", now);
            }
            match self.read() {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => return Step::Over,
            }
        }
        Step::Wait
    }

    /// Whether the client sends nothing more, and waits for its answer: then it must not be watched
    /// for readiness to read, which is there all the time.
    pub(super) fn is_half_closed(&self) -> bool {
        self.has_ended && self.is_asking
    }

    /// Tells the client how far its request is, unless it has not read what was told before.
    pub(super) fn progress(&mut self, progress: &impl Serialize, now: Time) -> Step {
        if self.wants_write() {
            return Step::Wait;
        }
        self.output.extend(line_of(progress));
        self.flush(now)
    }

    /// Answers the request that was passed on.
    pub(super) fn answer(&mut self, answer: &impl Serialize, now: Time) -> Step {
        self.is_closing |= self.is_half_closed();
        self.is_asking = false;
        self.idle_until = now + IDLE;
        self.output.extend(line_of(answer));
        self.flush(now)
    }

    /// Sends the client an error, and ends the conversation.
    pub(super) fn fail(&mut self, why: &str, now: Time) -> Step {
        self.is_closing = true;
        self.answer(&Failed::because(why), now)
    }

    /// Tells the client that its deadline has passed, if that can be sent now.
    pub(super) fn expire(&mut self, now: Time) {
        if !self.wants_write() {
            let is_begun = self.deadline.is_some();
            let why = if is_begun {
                "the request was not complete within 10 s"
            } else {
                "no request came within 60 s"
            };
            self.fail(why, now);
        }
    }

    /// From now on, the client gets what workers of this slot print, or all workers.
    pub(super) fn follow(&mut self, slot: Option<u32>, now: Time) -> Step {
        self.wish = Some(Wish { slot, dropped: 0 });
        self.answer(&Following::YES, now)
    }

    pub(super) fn is_following(&self) -> bool {
        self.wish.is_some()
    }

    /// Queues lines that a worker of this slot printed, if the client follows it: all of them, or
    /// none. The client is told how many had no room.
    pub(super) fn publish(&mut self, slot: u32, lines: &[u8]) {
        let unsent = self.unsent();
        let Some(wish) = &mut self.wish else { return };
        if wish.slot.is_some_and(|wanted| wanted != slot) {
            return;
        }
        if wish.dropped > 0 || unsent + lines.len() > MAX_FOLLOWED {
            wish.dropped += count_lines(lines);
            return;
        }
        self.output.drain(..self.sent);
        self.sent = 0;
        self.output.extend_from_slice(lines);
    }

    /// Queues the last line for a client that follows workers' output.
    pub(super) fn publish_end(&mut self) {
        let missing = self.take_missing();
        self.output.extend(missing.unwrap_or_default());
        self.output.extend(line_of(&Followed::Ended { ended: true }));
    }

    /// The line that tells of dropped ones, if there are any.
    fn take_missing(&mut self) -> Option<Vec<u8>> {
        let dropped = std::mem::take(&mut self.wish.as_mut()?.dropped);
        (dropped > 0).then(|| line_of(&Missing { dropped }))
    }

    pub(super) fn flush(&mut self, now: Time) -> Step {
        loop {
            while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                match send(self.fd.as_raw_fd(), rest, flags) {
                    Ok(count) => {
                        self.sent += count;
                        self.deadline = self.patience(now);
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => {
                        self.deadline = self.deadline.or(self.patience(now));
                        return Step::Wait;
                    }
                    Err(_) => return Step::Over,
                }
            }
            if self.sent > 0 {
                self.output = Vec::new();
                self.sent = 0;
                self.deadline = None;
            }
            match self.take_missing() {
                Some(line) => self.output = line,
                None => break,
            }
        }
        if self.is_closing { Step::Over } else { Step::Wait }
    }

    /// By when an answer must make progress. One who follows workers' output may stop reading, as
    /// a terminal does; lines that have no room meanwhile are dropped.
    fn patience(&self, now: Time) -> Option<Time> {
        self.wish.is_none().then_some(now + PATIENCE)
    }

    fn read(&mut self) -> Result<(), Errno> {
        let mut chunk = [0; CHUNK];
        let room = CHUNK.min(MAX_REQUEST.saturating_sub(self.input.len()));
        let chunk = chunk.get_mut(..room).unwrap_or_default();
        let count = recv(self.fd.as_raw_fd(), chunk, MsgFlags::MSG_DONTWAIT)?;
        self.has_ended = count == 0;
        self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(())
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let fresh = self.input.get(self.scanned..)?;
        let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.input.len();
            return None;
        };
        let line = self.input.drain(..=self.scanned + at).collect();
        self.scanned = 0;
        Some(line)
    }
}

/// A line of JSON. Answers are plain data, which serde can always write.
fn line_of(answer: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    line
}
