//! Worker processes: start, signal, reap.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use roundel_core::environment::{
    CHANNEL_VAR, NODE_CHANNEL_VAR, NODE_FORMAT_VAR, NODE_WORKER_VAR, SLOT_VAR, VARIABLES,
    WORKER_VAR,
};
use roundel_core::{Address, ExitStatus, ListenKey, Slot, WorkerId};

use crate::unix::channel;
use crate::unix::limits::OpenFiles;

/// By which variables a worker is told of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelVariables {
    /// This crate's own.
    Native,
    /// Those of Node's `cluster`.
    Node,
    /// Those of Node's `child_process`, for programs without cluster.
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
    /// A path, or a name that is looked for in `PATH`.
    pub path: OsString,
    /// What the program sees as its own name (`argv[0]`), if that is not the path.
    pub argv0: Option<OsString>,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to the environment that the primary was started with.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs, if not in the primary's working directory.
    pub cwd: Option<PathBuf>,
}

/// What differs from slot to slot: changes a program for the worker in a slot.
#[derive(Default)]
pub struct PerSlot(Option<Box<Change>>);

type Change = dyn Fn(&mut Program, Slot);

impl PerSlot {
    /// Makes this change before each start.
    pub fn new(change: impl Fn(&mut Program, Slot) + 'static) -> PerSlot {
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

/// A started worker.
#[derive(Debug)]
#[non_exhaustive]
pub struct Spawned {
    /// Its process.
    pub pid: i32,
    /// The primary's end of its channel.
    pub channel: OwnedFd,
}

/// Why a worker could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no such program, or no interpreter for it.
    NotFound,
    /// It can't be executed, whenever it is tried: this error number of execve(2).
    NotExecutable(i32),
    /// An error number of fork(2), execve(2) or socketpair(2).
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

/// Starts a worker: stdin null, stdout and stderr inherited, empty signal mask, default signal
/// actions, working directory and environment kept, a process group of its own (if it writes to a
/// terminal also a session), the soft limit on open files and the scheduling policy as the primary
/// found them.
///
/// # Errors
/// [`SpawnError`].
pub fn spawn(
    program: &Program,
    worker: WorkerId,
    slot: Slot,
    variables: ChannelVariables,
    files: &OpenFiles,
) -> Result<Spawned, SpawnError> {
    let (ours, theirs) = channel::pair()?;
    let number = theirs.as_raw_fd();
    let mut command = Command::new(&program.path);
    // The primary may be a worker of something itself; its workers are not.
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
        .args(&program.args)
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .envs(variables.of(number, worker, slot))
        .stdin(Stdio::null());
    let own_session = prints_to_a_terminal();
    if !own_session {
        command.process_group(0);
    }
    crate::unix::sys::prepare_child(&mut command, number, files.found(), own_session);
    if let Some(name) = &program.argv0 {
        command.arg0(name);
    }
    if let Some(dir) = &program.cwd {
        command.current_dir(dir);
    }
    // Reaping is done for all children together, so std's handle is let go.
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(|_| SpawnError::Other(0))?;
    Ok(Spawned { pid, channel: ours })
}

/// Whether an inherited descriptor is the primary's alone: what it listens on (`--bind fd:N`, and
/// what systemd has passed to it), and its channel to a primary that it is a worker of itself.
pub(crate) fn is_kept(number: RawFd, listeners: &[ListenKey]) -> bool {
    let of = |name: &str| std::env::var(name).ok()?.parse::<RawFd>().ok();
    let is_bound = listeners.iter().any(|key| key.address == Address::Fd(number));
    let is_channel = [CHANNEL_VAR, NODE_CHANNEL_VAR].iter().any(|name| of(name) == Some(number));
    // sd_listen_fds(3): from 3 on, if they are meant for this process.
    let ours = of("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id());
    let count = of("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
    is_bound || is_channel || (3..3_i32.saturating_add(count)).contains(&number)
}

/// Whether workers write to a terminal. They are no foreground job there, and after `stty tostop`
/// the terminal stops everybody else who writes (SIGTTOU): but only in its own session, so workers
/// get one of their own. Node sets all signal actions and the signal mask anew, so having SIGTTOU
/// ignored or blocked would not reach it; and behind a pipe programs would print without colours.
fn prints_to_a_terminal() -> bool {
    io::stdout().is_terminal() || io::stderr().is_terminal()
}

/// The children that have ended, strangers included, which process 1 gets. Does not wait.
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
                // Not an end, or interrupted: look again.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    })
}

/// Kills a worker's process group with SIGKILL. One that has ended is no error.
pub fn kill_group(pid: i32) {
    let pid = Pid::from_raw(pid);
    // The worker may have left its group.
    let _ = killpg(pid, Signal::SIGKILL);
    let _ = kill(pid, Signal::SIGKILL);
}

/// Has this thread run when it is its turn instead of at once whenever something is ready, if the
/// processors are busy. A primary mostly sleeps, so the kernel would else let it interrupt a worker
/// for every single answer; this way it finds several at a time. On processors that are free
/// nothing changes, nor for the workers. A policy that somebody chose stays.
///
/// # Errors
/// As sched_setscheduler(2), where a sandbox forbids it.
pub fn schedule_in_batches() -> io::Result<()> {
    crate::unix::sys::schedule_in_batches()
}

/// Sends a worker's process a signal. One that has ended is no error.
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
