//! What workers print: their pipes are read, and whole lines go to the log and to clients that
//! follow them. However slowly those take lines, the pipes are read on, so no worker waits.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::read;
use roundel_core::{Slot, Time, WorkerId};

use super::{Change, PrimaryDriver, Source};
use crate::observe::control::{ClientId, ControlServer};
use crate::observe::output::{Format, Origin, OutputLog, Splitter, Stream, time_of_day};
use crate::unix::process::Pipes;

/// How much of a pipe is read in a turn, so that a worker that prints without pause holds up
/// neither connections nor other workers. Short lines cost most, so both are bounded.
const BYTES_PER_TURN: usize = 64 * 1024;
const LINES_PER_TURN: usize = 512;

/// Bytes read at once: between two reads the bounds are checked. Empty lines are a byte each.
const CHUNK: usize = 1024;

/// Bytes of lines that are handed on together.
const BATCH: usize = 32 * 1024;

/// How long the pipes of a worker that is gone are read on, if helpers of it still hold them. Those
/// in its process group have a second to end.
const HELPERS: Duration = Duration::from_secs(2);

/// How much is read of a pipe before it is closed: the largest pipe that a program may make has
/// 1 MiB (fcntl(2), F_SETPIPE_SZ).
const LAST_BYTES: usize = 1024 * 1024;

/// How long clients that follow the output may take to read the rest when the primary ends.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// The workers' pipes, and where their lines go.
#[derive(Debug)]
pub(super) struct Output {
    log: OutputLog,
    pipes: BTreeMap<(WorkerId, Stream), Pipe>,
    /// Workers that are gone and whose pipes others hold open, with the time to close these.
    left: VecDeque<(Time, WorkerId)>,
}

#[derive(Debug)]
struct Pipe {
    fd: Arc<OwnedFd>,
    splitter: Splitter,
    from: Origin,
}

/// How far a pipe was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    /// Nothing more is there now.
    Wait,
    /// A bound was reached.
    More,
    /// Nobody can write to it any more.
    Ended,
}

impl Output {
    pub(super) fn new(log: OutputLog) -> Output {
        Output { log, pipes: BTreeMap::new(), left: VecDeque::new() }
    }

    pub(super) fn reopen(&self) {
        self.log.reopen();
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.left.front().map(|(at, _)| *at)
    }

    fn streams_of(&self, worker: WorkerId) -> Vec<Stream> {
        let of_worker = (worker, Stream::Stdout)..=(worker, Stream::Stderr);
        self.pipes.range(of_worker).map(|((_, stream), _)| *stream).collect()
    }
}

impl PrimaryDriver {
    /// Begins to read what a new worker prints.
    pub(super) fn add_output(&mut self, worker: WorkerId, slot: Slot, pid: i32, pipes: Pipes) {
        for (stream, fd) in [(Stream::Stdout, pipes.stdout), (Stream::Stderr, pipes.stderr)] {
            let Some(output) = &mut self.output else { return };
            let fd = Arc::new(fd);
            let from = Origin { slot: slot.0, worker: worker.get(), pid, stream };
            let pipe = Pipe { fd: fd.clone(), splitter: Splitter::default(), from };
            output.pipes.insert((worker, stream), pipe);
            self.watch(Source::Output(worker, stream), fd);
        }
    }

    pub(super) fn on_output(&mut self, worker: WorkerId, stream: Stream) {
        match self.read_output(worker, stream, BYTES_PER_TURN, LINES_PER_TURN) {
            ReadState::Wait => {}
            ReadState::More => drop(self.ready.insert(Source::Output(worker, stream))),
            ReadState::Ended => self.close_output(worker, stream),
        }
    }

    /// Reads until one of these bounds is reached or passed.
    fn read_output(
        &mut self,
        worker: WorkerId,
        stream: Stream,
        most_bytes: usize,
        most_lines: usize,
    ) -> ReadState {
        let Some(output) = &mut self.output else { return ReadState::Ended };
        let Some(pipe) = output.pipes.get_mut(&(worker, stream)) else { return ReadState::Ended };
        let mut batch = Batch::new(&output.log, self.control.as_mut(), pipe.from, self.now);
        let mut bytes = 0;
        let state = loop {
            if bytes >= most_bytes || batch.lines >= most_lines {
                break ReadState::More;
            }
            let room = self.read_buffer.len().min(CHUNK);
            match read(&pipe.fd, &mut self.read_buffer[..room]) {
                Ok(0) => break ReadState::Ended,
                Ok(count) => {
                    bytes += count;
                    let chunk = &self.read_buffer[..count];
                    pipe.splitter.feed(chunk, |line, cut| batch.add(line, cut));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break ReadState::Wait,
                Err(_) => break ReadState::Ended,
            }
        };
        let changed = batch.finish();
        self.rewatch_followers(changed);
        state
    }

    /// Closes a pipe, and hands on the line that was begun.
    fn close_output(&mut self, worker: WorkerId, stream: Stream) {
        let Some(output) = &mut self.output else { return };
        let Some(mut pipe) = output.pipes.remove(&(worker, stream)) else { return };
        self.changes.push_back(Change::Unwatch { source: Source::Output(worker, stream) });
        let mut batch = Batch::new(&output.log, self.control.as_mut(), pipe.from, self.now);
        pipe.splitter.finish(|line, cut| batch.add(line, cut));
        let changed = batch.finish();
        if output.streams_of(worker).is_empty() {
            output.left.retain(|(_, left)| *left != worker);
        }
        self.rewatch_followers(changed);
    }

    /// A worker is gone: what it printed is read to the end. If others hold its pipes open, these
    /// are read for a while, and not for more workers than there are slots.
    pub(super) fn forget_output(&mut self, worker: WorkerId) {
        let Some(output) = &mut self.output else { return };
        if output.streams_of(worker).is_empty() {
            return;
        }
        output.left.push_back((self.now + HELPERS, worker));
        if output.left.len() > self.core.config().workers() as usize
            && let Some((_, oldest)) = output.left.pop_front()
        {
            self.finish_worker(oldest);
        }
    }

    /// Closes the pipes that helpers of ended workers have held open for long enough.
    pub(super) fn expire_output(&mut self) {
        while let Some(output) = &mut self.output
            && output.deadline().is_some_and(|at| at <= self.now)
            && let Some((_, worker)) = output.left.pop_front()
        {
            self.finish_worker(worker);
        }
    }

    /// Reads what is in a worker's pipes, and closes them.
    fn finish_worker(&mut self, worker: WorkerId) {
        let streams = self.output.as_ref().map(|output| output.streams_of(worker));
        for stream in streams.unwrap_or_default() {
            self.read_output(worker, stream, LAST_BYTES, usize::MAX);
            self.close_output(worker, stream);
        }
    }

    /// The primary ends: hands on what workers have printed, and waits a moment for the log and
    /// the clients that follow it.
    pub(super) fn finish_output(&mut self) {
        let Some(output) = &self.output else { return };
        let workers: Vec<WorkerId> = output.pipes.keys().map(|(worker, _)| *worker).collect();
        workers.into_iter().for_each(|worker| self.finish_worker(worker));
        if let Some(control) = &mut self.control {
            control.end_following(LAST_MOMENT, self.now);
        }
        if let Some(output) = &self.output {
            output.log.flush();
        }
    }

    fn rewatch_followers(&mut self, changed: Vec<ClientId>) {
        for client in changed {
            self.rewatch_control(client, Some(false));
        }
    }
}

/// Lines of one pipe on their way.
struct Batch<'a> {
    log: &'a OutputLog,
    /// If a client follows the output.
    control: Option<&'a mut ControlServer>,
    /// Clients to be watched otherwise.
    changed: Vec<ClientId>,
    from: Origin,
    time: String,
    now: Time,
    for_log: Vec<u8>,
    /// Empty if the log is JSON too.
    for_clients: Vec<u8>,
    lines: usize,
}

impl<'a> Batch<'a> {
    fn new(
        log: &'a OutputLog,
        control: Option<&'a mut ControlServer>,
        from: Origin,
        now: Time,
    ) -> Batch<'a> {
        let control = control.filter(|control| control.is_followed());
        let (for_log, for_clients, changed) = (Vec::new(), Vec::new(), Vec::new());
        let time = time_of_day();
        Batch { log, control, changed, from, time, now, for_log, for_clients, lines: 0 }
    }

    fn add(&mut self, line: &[u8], cut: bool) {
        self.lines += 1;
        let format = self.log.format();
        format.write(&mut self.for_log, &self.time, self.from, line, cut);
        if self.control.is_some() && format != Format::Json {
            Format::Json.write(&mut self.for_clients, &self.time, self.from, line, cut);
        }
        if self.for_log.len().max(self.for_clients.len()) >= BATCH {
            self.hand_on();
        }
    }

    fn hand_on(&mut self) {
        if self.for_log.is_empty() {
            return;
        }
        self.log.push(self.from.stream, &self.for_log);
        if let Some(control) = &mut self.control {
            let lines = match self.log.format() {
                Format::Json => &self.for_log,
                Format::Raw | Format::Prefix => &self.for_clients,
            };
            self.changed.extend(control.publish(self.from.slot, lines, self.now));
        }
        self.for_log.clear();
        self.for_clients.clear();
    }

    /// Hands on what is left; returns the clients to be watched otherwise.
    fn finish(mut self) -> Vec<ClientId> {
        self.hand_on();
        self.changed
    }
}
