//! A whole primary, from `roundel-core` and the system's calls alone: a loop around poll(2). What a
//! send on a worker's channel can come to is in `poll_loop/channel.rs`.
//!
//! `cargo run --example poll_loop -- 127.0.0.1:8080 PROGRAM [ARGS...]` keeps two workers that run
//! PROGRAM, any of Roundel's native workers. SIGTERM and SIGINT drain; a second one ends at once.
//!
//! What the shipped primary has besides: workers of Node, unix sockets, UDP, handoffs that travel
//! together, descriptors held in reserve, a control socket and an event log.

#[path = "poll_loop/channel.rs"]
mod channel;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use channel::{ChannelSocket, Sending};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal as Sent, kill, killpg};
use nix::sys::socket::{Backlog, listen};
use nix::unistd::Pid;
use roundel_core::{
    ACCEPTS_PER_TURN, Address, Command, Config, Custody, ExitStatus, Input, ListenKey, ListenerId,
    Output, Primary, Signal, Slot, SockName, SpawnError, Time, Transport, Verdict, WorkerId,
    environment,
};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

/// How soon something is tried again of which no readiness tells when it can succeed: a send for
/// which too many descriptors are under way, an accept for which there is no descriptor.
const RETRY: Duration = Duration::from_millis(100);

/// A primary with its sockets and processes.
struct Embedder {
    core: Primary,
    epoch: Instant,
    now: Time,
    custody: Custody<TcpStream>,
    /// Listeners, and whether they are accepted from.
    listeners: BTreeMap<ListenerId, (TcpListener, bool)>,
    channels: BTreeMap<WorkerId, ChannelSocket>,
    children: BTreeMap<WorkerId, Child>,
    program: OsString,
    args: Vec<OsString>,
    /// A byte for each SIGTERM, SIGINT or SIGCHLD.
    signals: [UnixStream; 2],
    /// Nothing can be accepted, or sent with a handle, for want of resources: until then.
    retry_at: Option<Time>,
    verdict: Option<Verdict>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let at = args.next().and_then(|at| at.into_string().ok()).ok_or("no address")?;
    let key = ListenKey::stream(Address::Ip(at.parse()?));
    let mut embedder = Embedder {
        core: Primary::new(Config::builder().workers(2).listeners(vec![key]).build()?),
        epoch: Instant::now(),
        now: Time::ZERO,
        custody: Custody::new(),
        listeners: BTreeMap::new(),
        channels: BTreeMap::new(),
        children: BTreeMap::new(),
        program: args.next().ok_or("no program")?,
        args: args.collect(),
        signals: [on_signals(&[SIGTERM, SIGINT])?, on_signals(&[SIGCHLD])?],
        retry_at: None,
        verdict: None,
    };
    embedder.carry_out();
    while embedder.verdict.is_none() {
        embedder.wait()?;
        embedder.turn();
    }
    Ok(ExitCode::from(u8::from(embedder.verdict != Some(Verdict::Stopped))))
}

/// A stream that gets a byte whenever one of these signals comes. The signals are caught, not
/// blocked: a worker starts with the mask of its parent, but with the default action for what its
/// parent caught (execve(2)).
fn on_signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    for &signal in signals {
        signal_hook::low_level::pipe::register(signal, theirs.try_clone()?)?;
    }
    Ok(ours)
}

impl Embedder {
    fn clock(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    /// Waits until something is ready, or until something is due.
    fn wait(&self) -> Result<(), Errno> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds: Vec<_> = self.signals.iter().map(|it| readable(it.as_fd())).collect();
        // Readiness of what can't be accepted would be told over and over.
        let listeners = self.listeners.values().filter(|it| it.1 && self.retry_at.is_none());
        fds.extend(listeners.map(|(socket, _)| readable(socket.as_fd())));
        fds.extend(self.channels.values().map(|channel| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, channel.wants_read());
            flags.set(PollFlags::POLLOUT, channel.sending() == Sending::Full);
            PollFd::new(channel.as_fd(), flags)
        }));
        let due = self.core.poll_timeout().map(|deadline| deadline.at);
        let due = due.into_iter().chain(self.retry_at).min();
        let timeout = due.map_or(PollTimeout::NONE, |at| {
            // Rounded up: too early, it would be for nothing.
            let millis = at.since(self.clock()).as_nanos().div_ceil(1_000_000);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Answers first, then everything else, then the clock. `now` is taken after the wait and
    /// before the channels are read, so that no deadline is judged before an answer that was there.
    fn turn(&mut self) {
        self.now = self.clock();
        self.retry_at = self.retry_at.filter(|at| *at > self.now);
        let mut inputs = Vec::new();
        self.channels.retain(|worker, channel| channel.read(*worker, &mut inputs));
        for input in inputs {
            self.tell(input);
        }
        // The copies of what was accepted are closed before anything is accepted or started.
        self.carry_out();
        self.hear_signals();
        for listener in self.listeners.keys().copied().collect::<Vec<_>>() {
            self.accept(listener);
        }
        self.tell(Input::Wake);
        self.carry_out();
    }

    fn tell(&mut self, input: Input) {
        self.core.handle_input(self.now, input).expect("an embedder that says only what is so");
    }

    fn hear_signals(&mut self) {
        let [stop, child] = &mut self.signals;
        // A second stop ends at once.
        let stops = stop.read(&mut [0; 16]).unwrap_or(0);
        let mut inputs = vec![Input::Command(Command::Stop); stops];
        if child.read(&mut [0; 16]).is_ok() {
            self.children.retain(|&worker, child| {
                let Ok(Some(status)) = child.try_wait() else { return true };
                let Some(status) = ExitStatus::from_wait_status(status.into_raw()) else {
                    return true;
                };
                inputs.push(Input::Exited { worker, status });
                false
            });
        }
        for input in inputs {
            self.tell(input);
        }
    }

    /// Accepts until it would block, the machine wants no more, or others have their turn: true if
    /// more may wait.
    fn accept(&mut self, listener: ListenerId) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((socket, true)) = self.listeners.get(&listener) else { return false };
            match socket.accept() {
                Ok((stream, _)) => {
                    let conn = self.custody.admit(stream);
                    self.tell(Input::Incoming { listener, conn });
                    self.carry_out();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // That client has left already (accept(2)).
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.retry_later();
                    return false;
                }
            }
        }
        true
    }

    fn retry_later(&mut self) {
        self.retry_at.get_or_insert(self.now + RETRY);
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.execute(output);
        }
        let (custody, mut inputs) = (&self.custody, Vec::new());
        for (worker, channel) in &mut self.channels {
            channel.flush(*worker, &mut inputs, |conn| custody.get(conn));
        }
        for input in inputs {
            self.tell(input);
        }
        if self.channels.values().any(|channel| channel.sending() == Sending::Later) {
            self.retry_later();
        }
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::Send { worker, msg, attach } => {
                let _ = self.channels.get_mut(&worker).map(|it| it.push(msg, attach));
            }
            // The end of the primary's copy. The handoff may still wait to be sent: see `flush`.
            Output::Release { conn, .. } => drop(self.custody.release(conn)),
            Output::Spawn { worker, slot, .. } => match self.spawn(worker, slot) {
                Ok(pid) => self.tell(Input::Spawned { worker, pid }),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.tell(Input::SpawnFailed { worker, cause: SpawnError::NotFound });
                }
                Err(error) => {
                    let cause = SpawnError::Other(errno_of(&error));
                    self.tell(Input::SpawnFailed { worker, cause });
                }
            },
            Output::Kill { worker, signal } => self.kill(worker, signal),
            Output::ShutdownRead { worker } => {
                let _ = self.channels.get_mut(&worker).map(ChannelSocket::shutdown_read);
            }
            Output::Forget { worker } => drop(self.channels.remove(&worker)),
            Output::Bind { listener, key, backlog } => {
                let result = bind(&key, backlog).map(|(socket, name)| {
                    self.listeners.insert(listener, (socket, false));
                    name
                });
                let result = result.map_err(|error| errno_of(&error));
                self.tell(Input::Bound { listener, result });
            }
            Output::ResumeAccept { listener } => self.set_accepts(listener, true),
            Output::PauseAccept { listener } => self.set_accepts(listener, false),
            Output::Unbind { listener } => {
                self.set_accepts(listener, self.core.is_emptied(listener));
                while self.accept(listener) {}
                self.close(listener);
            }
            Output::Close { listener } => self.close(listener),
            Output::Event(event) => eprintln!("{event:?}"),
            Output::Stopped(verdict) => self.verdict = Some(verdict),
            // Left out: CountConnections, which may go without an answer.
            _ => {}
        }
    }

    fn set_accepts(&mut self, listener: ListenerId, accepts: bool) {
        self.listeners.entry(listener).and_modify(|it| it.1 = accepts);
    }

    fn close(&mut self, listener: ListenerId) {
        if self.listeners.remove(&listener).is_some() {
            self.tell(Input::Unbound { listener });
        }
    }

    /// Starts a worker, as the docs of the core say that it is to be started.
    fn spawn(&mut self, worker: WorkerId, slot: Slot) -> io::Result<i32> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = process::Command::new(&self.program);
        for name in environment::VARIABLES {
            command.env_remove(name);
        }
        command
            .args(&self.args)
            .env(environment::CHANNEL_VAR, theirs.as_raw_fd().to_string())
            .env(environment::WORKER_VAR, worker.get().to_string())
            .env(environment::SLOT_VAR, slot.to_string())
            .stdin(Stdio::null())
            .process_group(0);
        // Inherited by this child alone: nothing else starts processes here, on no other thread
        // either. Our end of it stays close-on-exec, and theirs is closed at the end of this.
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let child = command.spawn()?;
        let pid = child.id().cast_signed();
        self.children.insert(worker, child);
        self.channels.insert(worker, ChannelSocket::new(ours, self.core.config()));
        Ok(pid)
    }

    /// A child that was reaped is in `children` no more, so its number can't be another's.
    fn kill(&mut self, worker: WorkerId, signal: Signal) {
        let Some(child) = self.children.get(&worker) else { return };
        let pid = Pid::from_raw(child.id().cast_signed());
        // One that has ended meanwhile is no error.
        if signal == Signal::Kill {
            // Its helpers too; and the worker itself, which may have left its group.
            let _ = killpg(pid, Sent::SIGKILL);
            let _ = kill(pid, Sent::SIGKILL);
        } else {
            // What there is besides SIGTERM is for workers of Node.
            let _ = kill(pid, Sent::SIGTERM);
        }
    }
}

fn errno_of(error: &io::Error) -> roundel_core::Errno {
    roundel_core::Errno(error.raw_os_error().unwrap_or(Errno::EINVAL as i32))
}

fn bind(key: &ListenKey, backlog: u32) -> io::Result<(TcpListener, SockName)> {
    let addr = match key.address {
        Address::Ip(addr) => addr,
        Address::Any { port } => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        _ => return Err(Errno::EINVAL.into()),
    };
    if key.transport != Transport::Stream {
        return Err(Errno::EINVAL.into());
    }
    let socket = TcpListener::bind(addr)?;
    socket.set_nonblocking(true)?;
    if let Ok(backlog @ 1..) = i32::try_from(backlog) {
        listen(&socket, Backlog::new(backlog).unwrap_or(Backlog::MAXCONN))?;
    }
    let name = SockName::Ip(socket.local_addr()?);
    Ok((socket, name))
}
