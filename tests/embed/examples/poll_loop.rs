//! A whole primary in one file: the core, driven by a loop around poll(2).
//!
//! `cargo run --example poll_loop -- 127.0.0.1:8080 PROGRAM [ARGS...]` keeps two workers that run
//! PROGRAM, any of Roundel's native workers. SIGTERM and SIGINT drain; a second one ends at once.
//!
//! What the shipped primary has besides: budgets for each turn, handoffs that travel together,
//! retries when descriptors run out, a control socket and an event log.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use roundel_core::wire::{self, Decoder};
use roundel_core::{
    Attach, Codec, Command, Config, Custody, FromWorker, Input, ListenKey, ListenerId, Output,
    Primary, Signal, SpawnError, Time, ToWorker, Verdict, Violation, WorkerId,
};
use roundel_runtime::address;
use roundel_runtime::unix::limits::OpenFiles;
use roundel_runtime::unix::process::{self, ChannelVariables, Program};
use roundel_runtime::unix::signals::{Signal as Heard, Signals};
use roundel_runtime::unix::socket::{self, Inherited};
use roundel_runtime::unix::{channel, clock};

const MAX_FRAME: u32 = 1 << 20;

/// A primary with its sockets and processes.
struct Embedder {
    core: Primary,
    now: Time,
    custody: Custody<OwnedFd>,
    /// Listeners, and whether they are accepted from.
    sockets: BTreeMap<ListenerId, (OwnedFd, bool)>,
    channels: BTreeMap<WorkerId, WorkerChannel>,
    pids: BTreeMap<WorkerId, i32>,
    program: Program,
    files: OpenFiles,
    signals: Signals,
    verdict: Option<Verdict>,
}

/// A worker's channel.
struct WorkerChannel {
    fd: OwnedFd,
    decoder: Option<Decoder<FromWorker>>,
    /// What is to be sent, and how much of the first one was.
    unsent: VecDeque<(ToWorker, Option<Attach>)>,
    encoded: Vec<u8>,
    sent: usize,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let at = args.next().and_then(|at| at.into_string().ok()).ok_or("no address")?;
    let program = Program {
        path: args.next().ok_or("no program")?,
        args: args.collect(),
        ..Program::default()
    };
    let key = ListenKey::stream(address::parse(&at)?);
    let mut embedder = Embedder {
        core: Primary::new(Config::builder().workers(2).listeners(vec![key]).build()?),
        now: clock::now(),
        custody: Custody::new(),
        sockets: BTreeMap::new(),
        channels: BTreeMap::new(),
        pids: BTreeMap::new(),
        program,
        signals: Signals::open()?,
        files: OpenFiles::raise()?,
        verdict: None,
    };
    embedder.carry_out();
    while embedder.verdict.is_none() {
        embedder.wait()?;
        embedder.turn();
    }
    Ok(ExitCode::from(u8::from(embedder.verdict != Some(Verdict::Stopped))))
}

impl Embedder {
    /// Waits until something is ready, or until the machine's deadline.
    fn wait(&self) -> Result<(), Box<dyn Error>> {
        let signals = self.signals.fd()?;
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let accepting = self.sockets.values().filter(|(_, accepts)| *accepts);
        fds.extend(accepting.map(|(fd, _)| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        for channel in self.channels.values() {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, !channel.unsent.is_empty());
            fds.push(PollFd::new(channel.fd.as_fd(), flags));
        }
        let left = self.core.poll_timeout().map(|deadline| deadline.at.since(clock::now()));
        // Rounded up: too early, it would be for nothing.
        let left = left.map(|left| PollTimeout::try_from(left.as_millis() + 1));
        let timeout = left.map_or(PollTimeout::NONE, |left| left.unwrap_or(PollTimeout::MAX));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers first, then everything else, then the clock. All channels are read under one time,
    /// so that no deadline is judged before an answer that was there.
    fn turn(&mut self) {
        self.now = clock::now();
        let mut inputs = Vec::new();
        self.channels.retain(|worker, channel| channel.read(*worker, &mut inputs));
        while let Some(signal) = self.signals.read() {
            match signal {
                Heard::Child => {
                    for (pid, status) in process::reap() {
                        let known = self.pids.iter().find(|(_, known)| **known == pid);
                        inputs.extend(known.map(|(&worker, _)| Input::Exited { worker, status }));
                        self.pids.retain(|_, known| *known != pid);
                    }
                }
                Heard::Terminate | Heard::Interrupt => {
                    let again = self.core.stop_deadline().is_some();
                    let command = if again { Command::StopNow } else { Command::Stop };
                    inputs.push(Input::Command(command));
                }
                _ => {}
            }
        }
        for input in inputs {
            self.tell(input);
        }
        self.carry_out();
        for listener in self.sockets.keys().copied().collect::<Vec<_>>() {
            self.accept(listener);
        }
        self.tell(Input::Wake);
        self.carry_out();
    }

    fn tell(&mut self, input: Input) {
        self.core.handle_input(self.now, input).expect("an embedder that says only what is so");
    }

    /// Accepts until it would block, or until the machine wants no more.
    fn accept(&mut self, listener: ListenerId) {
        while let Some((socket, true)) = self.sockets.get(&listener)
            && let Ok(Some(fd)) = socket::accept(socket.as_fd())
        {
            let conn = self.custody.admit(fd);
            self.tell(Input::Incoming { listener, conn });
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.execute(output);
        }
        let (custody, sockets) = (&self.custody, &self.sockets);
        for channel in self.channels.values_mut() {
            channel.flush(|attach| match attach {
                Attach::Conn(conn) => custody.get(conn).map(AsFd::as_fd),
                Attach::Listener(listener) => sockets.get(&listener).map(|socket| socket.0.as_fd()),
            });
        }
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::Send { worker, msg, attach } => {
                let channel = self.channels.entry(worker);
                channel.and_modify(|channel| channel.unsent.push_back((msg, attach)));
            }
            Output::Release { conn, .. } => drop(self.custody.release(conn)),
            Output::Spawn { worker, slot, .. } => {
                match process::spawn(
                    &self.program,
                    worker,
                    slot,
                    ChannelVariables::Native,
                    &self.files,
                ) {
                    Ok(spawned) => {
                        let (unsent, encoded) = (VecDeque::new(), Vec::new());
                        let fd = spawned.channel;
                        self.channels.insert(
                            worker,
                            WorkerChannel { fd, decoder: None, unsent, encoded, sent: 0 },
                        );
                        self.pids.insert(worker, spawned.pid);
                        self.tell(Input::Spawned { worker, pid: spawned.pid });
                    }
                    Err(error) => {
                        let cause = match error {
                            process::SpawnError::NotFound => SpawnError::NotFound,
                            process::SpawnError::Other(errno) => {
                                SpawnError::Other(roundel_core::Errno(errno))
                            }
                            _ => SpawnError::Other(roundel_core::Errno(0)),
                        };
                        self.tell(Input::SpawnFailed { worker, cause });
                    }
                }
            }
            Output::Kill { worker, signal } => {
                if let Some(&pid) = self.pids.get(&worker) {
                    match signal {
                        Signal::Kill => process::kill_group(pid),
                        other => process::signal(pid, other),
                    }
                }
            }
            Output::ShutdownRead { worker } => {
                let _ = self
                    .channels
                    .get(&worker)
                    .map(|channel| channel::shutdown_read(channel.fd.as_fd()));
            }
            Output::Forget { worker } => drop(self.channels.remove(&worker)),
            Output::Bind { listener, key, backlog } => {
                let bound = socket::bind(&key, backlog, &Inherited::default());
                let result = bound.map(|(fd, bound)| {
                    self.sockets.insert(listener, (fd, false));
                    bound.sockname
                });
                self.tell(Input::Bound { listener, result });
            }
            Output::ResumeAccept { listener } => self.set_accepts(listener, true),
            Output::PauseAccept { listener } => self.set_accepts(listener, false),
            Output::Unbind { listener } => {
                self.set_accepts(listener, true);
                self.accept(listener);
                self.sockets.remove(&listener);
                self.tell(Input::Unbound { listener });
            }
            Output::Close { listener } if self.sockets.remove(&listener).is_some() => {
                self.tell(Input::Unbound { listener });
            }
            Output::Event(event) => eprintln!("{event:?}"),
            Output::Stopped(verdict) => self.verdict = Some(verdict),
            _ => {}
        }
    }

    fn set_accepts(&mut self, listener: ListenerId, accepts: bool) {
        self.sockets.entry(listener).and_modify(|socket| socket.1 = accepts);
    }
}

impl WorkerChannel {
    /// Reads until it would block. False at the end of the channel.
    fn read(&mut self, worker: WorkerId, inputs: &mut Vec<Input>) -> bool {
        let mut buffer = [0; 4096];
        loop {
            let count = match channel::recv(self.fd.as_fd(), &mut buffer) {
                Ok(count @ 1..) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                // The other end died with something unread: end of file comes next (unix(7)).
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => continue,
                Ok(0) | Err(_) => {
                    inputs.push(Input::ChannelClosed { worker });
                    return false;
                }
            };
            if self.decoder.is_none() && Codec::detect(buffer[0]) == Some(Codec::Native) {
                inputs.push(Input::Hello { worker, codec: Codec::Native });
                let mut hello = Vec::new();
                wire::encode_hello(&mut hello);
                // Nothing was sent before, so there is room.
                let _ = channel::send(self.fd.as_fd(), &hello, &[]);
            }
            let decoder = self.decoder.get_or_insert_with(|| Decoder::new(MAX_FRAME));
            decoder.feed(&buffer[..count]);
            loop {
                match decoder.poll() {
                    Ok(Some((msg, _))) => inputs.push(Input::Message { worker, msg }),
                    Ok(None) => break,
                    Err(e) => {
                        inputs.push(Input::Violation { worker, what: Violation::Decode(e) });
                        break;
                    }
                }
            }
            inputs.extend(decoder.is_mid_frame().then_some(Input::FrameBegun { worker }));
        }
    }

    /// Sends until it would block; a handle goes with the first byte of its message. What cannot
    /// be sent to a worker that is gone stays, until the end of its channel is read.
    fn flush<'a>(&mut self, fd_of: impl Fn(Attach) -> Option<BorrowedFd<'a>>) {
        // The worker speaks first.
        while self.decoder.is_some()
            && let Some((msg, attach)) = self.unsent.front()
        {
            if self.encoded.is_empty() {
                wire::encode(msg, MAX_FRAME, &mut self.encoded).expect("it is not too long");
            }
            let handle = attach.filter(|_| self.sent == 0).and_then(&fd_of);
            match channel::send(self.fd.as_fd(), &self.encoded[self.sent..], handle.as_slice()) {
                Ok(count) => self.sent += count,
                Err(_) => return,
            }
            if self.sent == self.encoded.len() {
                self.unsent.pop_front();
                self.encoded.clear();
                self.sent = 0;
            }
        }
    }
}
