//! Worker processes: start, signal, reap.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use roundel_core::environment::{
    CHANNEL_VAR, NODE_CHANNEL_VAR, NODE_FORMAT_VAR, NODE_WORKER_VAR, SLOT_VAR, VARIABLES,
    WORKER_VAR,
};
use roundel_core::{Address, ExitStatus, ListenKey, Slot, WorkerId};

use crate::unix::channel;
use crate::unix::limits::OpenFiles;
use crate::unix::notify;
use crate::unix::outputs::Outputs;
use crate::unix::passed::{LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID};
use crate::unix::sys;

/// What a service manager tells the primary alone: sd_notify(3), sd_watchdog_enabled(3),
/// sd_listen_fds(3). In a worker it would be wrong.
const MANAGER_VARIABLES: [&str; 8] = [
    notify::SOCKET_VAR,
    notify::WATCHDOG_VAR,
    notify::WATCHDOG_PID_VAR,
    "FDSTORE",
    LISTEN_FDS,
    LISTEN_FDNAMES,
    LISTEN_PID,
    "LISTEN_PIDFDID",
];

/// The environment variables that tell a worker about its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelVariables {
    /// This crate's own variables.
    Native,
    /// Those of Node's `cluster`.
    Node,
    /// Those of Node's `child_process`, for programs that do not use cluster.
    NodeChild,
    /// All of them: the worker chooses.
    Either,
}

impl ChannelVariables {
    fn of(self, channel: i32, worker: WorkerId, slot: Slot) -> Vec<(&'static str, String)> {
        let (channel, worker) = (channel.to_string(), worker.get().to_string());
        let mut all = Vec::new();
        if matches!(self, ChannelVariables::Native | ChannelVariables::Either) {
            all.push((CHANNEL_VAR, channel.clone()));
            all.push((WORKER_VAR, worker.clone()));
            all.push((SLOT_VAR, slot.to_string()));
        }
        if matches!(
            self,
            ChannelVariables::Node | ChannelVariables::NodeChild | ChannelVariables::Either
        ) {
            all.push((NODE_CHANNEL_VAR, channel));
            all.push((NODE_FORMAT_VAR, "json".into()));
        }
        if matches!(self, ChannelVariables::Node | ChannelVariables::Either) {
            all.push((NODE_WORKER_VAR, worker));
        }
        all
    }
}

/// What the workers run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// A path, or a name to look up in `PATH`.
    pub path: OsString,
    /// The program's own name (`argv[0]`), if it is not the path.
    pub argv0: Option<OsString>,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to the environment of the primary.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, if it is not the primary's.
    pub cwd: Option<PathBuf>,
}

/// Differences between slots: changes a program for the worker in a slot.
#[derive(Default)]
pub struct PerSlot(Option<Box<Change>>);

type Change = dyn Fn(&mut Program, Slot) + Send;

impl PerSlot {
    /// Makes this change before each start.
    pub fn new(change: impl Fn(&mut Program, Slot) + Send + 'static) -> PerSlot {
        PerSlot(Some(Box::new(change)))
    }

    /// The program for a worker in this slot.
    pub(crate) fn program<'a>(&self, program: &'a Program, slot: Slot) -> Cow<'a, Program> {
        let mut program = Cow::Borrowed(program);
        if let Some(change) = &self.0 {
            change(program.to_mut(), slot);
        }
        program
    }
}

impl fmt::Debug for PerSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerSlot").field(&self.0.is_some()).finish()
    }
}

/// The listeners that programs without a channel get: sd_listen_fds(3).
#[derive(Clone, Debug, Default)]
pub struct PassedOn {
    /// The listeners, in the order of their numbers.
    pub listeners: Vec<Arc<OwnedFd>>,
    /// Their names, separated by colons.
    pub names: String,
}

/// The primary's ends of a worker's pipes; reading from them does not wait.
#[derive(Debug)]
pub struct Pipes {
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A started worker.
#[derive(Debug)]
#[non_exhaustive]
pub struct Spawned {
    /// Its process id.
    pub pid: i32,
    /// The primary's end of its channel.
    pub channel: OwnedFd,
    /// Its output, if it goes to pipes.
    pub pipes: Option<Pipes>,
}

/// Why a worker could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// The program does not exist, or its interpreter does not.
    NotFound,
    /// Executing it fails every time, with this error number of execve(2).
    NotExecutable(i32),
    /// An error number of fork(2), execve(2), socketpair(2) or pipe(2).
    Other(i32),
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        match Errno::from_raw(errno) {
            Errno::ENOENT => SpawnError::NotFound,
            Errno::EACCES
            | Errno::EISDIR
            | Errno::ELIBBAD
            | Errno::ELOOP
            | Errno::ENAMETOOLONG
            | Errno::ENOEXEC
            | Errno::ENOTDIR => SpawnError::NotExecutable(errno),
            _ => SpawnError::Other(errno),
        }
    }
}

/// Starts a worker: stdin null, stdout and stderr as `outputs` says, empty signal mask, default signal
/// actions, working directory and environment kept, a process group of its own (if it writes to a
/// terminal also a session), the soft limit on open files and the scheduling policy that the
/// primary was started with. Listeners are passed as sd_listen_fds(3) has it; a worker that gets
/// some gets SIGTERM if the calling thread ends before it.
///
/// # Errors
/// [`SpawnError`].
pub fn spawn(
    program: &Program,
    worker: WorkerId,
    slot: Slot,
    variables: ChannelVariables,
    files: &OpenFiles,
    outputs: Outputs,
    passed: &PassedOn,
) -> Result<Spawned, SpawnError> {
    let (ours, mut theirs) = channel::pair()?;
    // Nothing that the child needs may have a number that a listener gets.
    let count = RawFd::try_from(passed.listeners.len()).unwrap_or(RawFd::MAX);
    let least = sys::FIRST_LISTENER.saturating_add(count);
    if theirs.as_raw_fd() < least {
        theirs = sys::duplicate_from(theirs.as_raw_fd(), least)?;
    }
    let number = theirs.as_raw_fd();
    let listeners = passed.listeners.iter();
    let listeners: io::Result<Vec<OwnedFd>> =
        listeners.map(|fd| sys::duplicate_from(fd.as_raw_fd(), least)).collect();
    let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    // The primary may itself be a worker of another primary; its workers must not inherit that.
    for name in VARIABLES.iter().chain(&MANAGER_VARIABLES) {
        environment.remove(OsStr::new(name));
    }
    environment.extend(program.env.iter().cloned());
    let own = variables.of(number, worker, slot);
    environment.extend(own.into_iter().map(|(name, value)| (name.into(), value.into())));
    let pid_variable = (count > 0).then_some(LISTEN_PID);
    if let Some(name) = pid_variable {
        environment.remove(OsStr::new(name));
        environment.insert(LISTEN_FDS.into(), count.to_string().into());
        environment.insert(LISTEN_FDNAMES.into(), passed.names.clone().into());
    }
    let environ = sys::Environ::new(environment, pid_variable)?;
    let mut command = Command::new(&program.path);
    command.args(&program.args).stdin(Stdio::null());
    let pipes = match outputs {
        Outputs::Inherited => None,
        Outputs::Piped => {
            let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
            command.stdout(out).stderr(err);
            Some(Pipes { stdout, stderr })
        }
    };
    let own_session = pipes.is_none() && prints_to_a_terminal();
    if !own_session {
        command.process_group(0);
    }
    let soft_files = files.found();
    let child =
        sys::Child { channel: number, soft_files, own_session, environ, listeners: listeners? };
    sys::prepare_child(&mut command, child);
    if let Some(name) = &program.argv0 {
        command.arg0(name);
    }
    if let Some(dir) = &program.cwd {
        command.current_dir(dir);
    }
    // All children are reaped together, so std's handle is dropped.
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(|_| SpawnError::Other(0))?;
    Ok(Spawned { pid, channel: ours, pipes })
}

/// A pipe, close-on-exec: the end to read from, which never waits, and the one to write to.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer))
}

/// True if only the primary may keep an inherited descriptor: one that it listens on (`--bind
/// fd:N`, and those that systemd has passed to it), or its channel to a primary of which it is a
/// worker.
pub(crate) fn is_kept(number: RawFd, listeners: &[ListenKey]) -> bool {
    let of = |name: &str| std::env::var(name).ok()?.parse::<RawFd>().ok();
    let is_bound = listeners.iter().any(|key| key.address == Address::Fd(number));
    let is_channel = [CHANNEL_VAR, NODE_CHANNEL_VAR].iter().any(|name| of(name) == Some(number));
    // sd_listen_fds(3): from 3 on, if they are meant for this process.
    let ours = of("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id());
    let count = of("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
    is_bound || is_channel || (3..3_i32.saturating_add(count)).contains(&number)
}

/// True if workers write to a terminal. They are not in its foreground job, and after `stty tostop`
/// the terminal stops every other process that writes (SIGTTOU): but only in its own session, so
/// workers get a session of their own. Ignoring or blocking SIGTTOU would not help with Node, which
/// sets all signal actions and the signal mask anew; and behind a pipe programs would print without
/// colours.
fn prints_to_a_terminal() -> bool {
    io::stdout().is_terminal() || io::stderr().is_terminal()
}

/// The children that have ended, including the orphans that process 1 gets. Does not wait.
pub fn reap() -> impl Iterator<Item = (i32, ExitStatus)> {
    std::iter::from_fn(|| {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    return Some((pid.as_raw(), ExitStatus::Code(code)));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    return Some((pid.as_raw(), ExitStatus::Signal(signal as i32)));
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
                // Not the end of a process, or interrupted: check again.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    })
}

/// Kills a worker's process group with SIGKILL. It is no error if the group has ended.
pub fn kill_group(pid: i32) {
    let pid = Pid::from_raw(pid);
    // The worker may have left its group.
    let _ = killpg(pid, Signal::SIGKILL);
    let _ = kill(pid, Signal::SIGKILL);
}

/// If the processors are busy, makes this thread wait for its turn instead of running as soon as
/// something is ready. A primary sleeps most of the time, so the kernel would otherwise let it
/// preempt a worker for every single answer; this way it finds several at a time. If a processor is
/// free, nothing changes; nothing changes for the workers either. A policy chosen by the operator
/// is kept.
///
/// # Errors
/// As sched_setscheduler(2), if a sandbox forbids it.
pub fn schedule_in_batches() -> io::Result<()> {
    sys::schedule_in_batches()
}

/// Sends a signal to a worker's process. It is no error if the process has ended.
pub fn signal(pid: i32, signal: roundel_core::Signal) {
    use roundel_core::Signal as Wanted;
    let signal = match signal {
        Wanted::Interrupt => Signal::SIGINT,
        Wanted::Hangup => Signal::SIGHUP,
        Wanted::User2 => Signal::SIGUSR2,
        Wanted::Kill => Signal::SIGKILL,
        _ => Signal::SIGTERM,
    };
    let _ = kill(Pid::from_raw(pid), signal);
}
