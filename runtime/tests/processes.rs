//! Workers as processes: how they start, how they end, what is left of them.
//!
//! Reaping takes every child of the process, so these tests run one after the other.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal as Raw, raise};
use roundel_core::{Address, Errno, ExitStatus, ListenKey, Slot, Transport, WorkerId};
use roundel_runtime::unix::channel;
use roundel_runtime::unix::limits::{self, OpenFiles};
use roundel_runtime::unix::outputs::Outputs;
use roundel_runtime::unix::process::{self, Program, SpawnError, Spawned};
use roundel_runtime::unix::signals::{Signal, Signals};
use roundel_runtime::unix::socket::{self, Inherited};

use support::{alone, wait_for_end};

/// Set if a test runs in a process of its own.
const INNER: &str = "ROUNDEL_TEST_INNER";

/// Runs a test of this file in a new process, which bash prepares (dash can't ignore SIGCHLD); true
/// in that process.
fn is_inner(test: &str, prepare: &str, env: &[(&str, String)]) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let output = Command::new("bash")
        .args(["-c", &format!("{prepare}\nexec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INNER, "1")
        .envs(env.iter().cloned())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    false
}

fn spawn(program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Spawned, SpawnError> {
    let program = Program {
        path: program.into(),
        args: args.iter().map(Into::into).collect(),
        env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        ..Program::default()
    };
    process::spawn(
        &program,
        WorkerId::from_raw(7).unwrap(),
        Slot(3),
        process::ChannelVariables::Either,
        &OpenFiles::raise().unwrap(),
        Outputs::Inherited,
        &process::PassedOn::default(),
    )
}

/// The scheduling policy in a line of proc_pid_stat(5): 0 is SCHED_OTHER, 3 SCHED_BATCH.
fn scheduling(stat: &str) -> String {
    let behind_the_name = stat.rsplit_once(") ").unwrap().1;
    // The 41st field; the first two are up to the name's end.
    behind_the_name.split_whitespace().nth(38).unwrap().to_owned()
}

/// Starts a script. It is for bash, because other shells know no descriptors above 9.
fn script(text: &str) -> Spawned {
    spawn("bash", &["-c", text], &[]).unwrap()
}

fn reaped() -> Vec<(i32, ExitStatus)> {
    process::reap().collect()
}

/// Waits until there is something to read, end of file included.
fn wait_readable(fd: impl AsFd) {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)), Ok(1));
}

/// Reads a line from a channel.
fn read_line(worker: &Spawned) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        wait_readable(&worker.channel);
        let mut byte = [0];
        assert_eq!(channel::recv(worker.channel.as_fd(), &mut byte).unwrap(), 1);
        line.extend(byte);
    }
    String::from_utf8(line).unwrap().trim().to_owned()
}

/// The ignored signals in a `/proc/PID/status`, as bits.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("roundel-process-{}-{name}", std::process::id()))
}

#[test]
fn a_worker_starts_clean() {
    let _alone = alone();
    // As after nohup and worse: signals ignored, a low limit, a stray descriptor.
    let prepare = "trap '' USR2 HUP CHLD; ulimit -S -n 200; exec 7</dev/null";
    if !is_inner("a_worker_starts_clean", prepare, &[("KEPT", "kept".into())]) {
        return;
    }
    // Otherwise the checks below show nothing.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for signal in [Raw::SIGUSR2, Raw::SIGHUP, Raw::SIGCHLD] {
        assert_ne!(ignored(&status) & 1 << (signal as u32 - 1), 0, "{signal} is not ignored");
    }
    let _inherited = Inherited::snapshot();
    let _signals = Signals::open().unwrap();
    process::schedule_in_batches().unwrap();
    assert_eq!(scheduling(&fs::read_to_string("/proc/thread-self/stat").unwrap()), "3");
    let files = OpenFiles::raise().unwrap();
    assert_eq!(files.found(), 200);
    assert!(files.soft() > 200, "this test needs a hard limit above 200");
    let path = scratch("clean");
    let text = "exec >\"$OUT\"; ls /proc/$$/fd; echo; readlink /proc/$$/fd/0; pwd; env
        exec cat /proc/self/status /proc/self/limits /proc/self/stat";
    let program = Program {
        path: "sh".into(),
        args: vec!["-c".into(), text.into()],
        env: vec![("OUT".into(), path.clone().into())],
        ..Program::default()
    };
    let worker = process::spawn(
        &program,
        WorkerId::from_raw(7).unwrap(),
        Slot(3),
        process::ChannelVariables::Either,
        &files,
        Outputs::Inherited,
        &process::PassedOn::default(),
    )
    .unwrap();
    wait_for_end(worker.pid);
    // It can be reaped, although SIGCHLD was ignored when this process began.
    assert_eq!(reaped(), [(worker.pid, ExitStatus::Code(0))]);
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();

    let mut lines = text.lines();
    let fds: BTreeSet<i32> = lines.by_ref().map_while(|line| line.parse().ok()).collect();
    assert_eq!(lines.next(), Some("/dev/null"));
    assert_eq!(lines.next(), std::env::current_dir().unwrap().to_str());
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("no {name} in {text}")).trim()
    };
    let number: i32 = value("ROUNDEL_CHANNEL_FD=").parse().unwrap();
    assert_eq!(fds, BTreeSet::from([0, 1, 2, number]));
    assert_eq!(value("ROUNDEL_WORKER_ID="), "7");
    assert_eq!(value("ROUNDEL_SLOT="), "3");
    assert!(!text.contains("NODE_APP_INSTANCE="), "node-config would read other files");
    assert_eq!(value("KEPT="), "kept");
    assert_eq!(u64::from_str_radix(value("SigBlk:"), 16), Ok(0));
    // The C library keeps 32 and 33 for itself: it refuses them to signal(2), and its
    // posix_spawn(3) may have started this process with both ignored.
    assert_eq!(ignored(&text) & !(0b11 << 31), 0);
    assert_eq!(value("Max open files").split_whitespace().next(), Some("200"));
    assert_eq!(scheduling(text.lines().last().unwrap()), "0", "workers run as usual");
    let stat = text.lines().last().unwrap().rsplit_once(") ").unwrap().1;
    assert_eq!(stat.split(' ').nth(2), Some(&*worker.pid.to_string()), "its own process group");
}

#[test]
fn a_worker_that_cannot_start_leaves_nothing() {
    let _alone = alone();
    let path = scratch("plain");
    fs::write(&path, "no program").unwrap();
    let before = limits::open_fds().unwrap();
    for _ in 0..3 {
        let missing = spawn("/nonexistent/program", &[], &[]);
        assert_eq!(missing.unwrap_err(), SpawnError::NotFound);
        let missing = spawn("no-program-has-this-name", &[], &[]);
        assert_eq!(missing.unwrap_err(), SpawnError::NotFound);
        let forbidden = spawn(path.to_str().unwrap(), &[], &[]);
        assert_eq!(forbidden.unwrap_err(), SpawnError::NotExecutable(libc::EACCES));
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(reaped(), []);
    assert_eq!(limits::open_fds().unwrap(), before);
}

#[test]
fn how_workers_end_is_told() {
    let _alone = alone();
    let before = limits::open_fds().unwrap();
    let exits = script("exit 3");
    let dies = script("kill -KILL $$");
    wait_for_end(exits.pid);
    wait_for_end(dies.pid);
    let mut ends = reaped();
    ends.sort_by_key(|(pid, _)| *pid != exits.pid);
    assert_eq!(ends, [(exits.pid, ExitStatus::Code(3)), (dies.pid, ExitStatus::Signal(9))]);
    assert_eq!(reaped(), []);
    drop((exits, dies));
    assert_eq!(limits::open_fds().unwrap(), before);
}

#[test]
fn strangers_are_reaped_too() {
    let _alone = alone();
    if !is_inner("strangers_are_reaped_too", "", &[]) {
        return;
    }
    // Orphans come here, as they do to process 1.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let text = "head -c1 <&$ROUNDEL_CHANNEL_FD >/dev/null &
        echo $! >&$ROUNDEL_CHANNEL_FD; exit 3";
    let worker = script(text);
    let orphan: i32 = read_line(&worker).parse().unwrap();
    wait_for_end(worker.pid);
    assert_eq!(reaped(), [(worker.pid, ExitStatus::Code(3))]);
    channel::send(worker.channel.as_fd(), b"x", &[]).unwrap();
    wait_for_end(orphan);
    assert_eq!(reaped(), [(orphan, ExitStatus::Code(0))]);
}

#[test]
fn a_killed_worker_takes_its_group_with_it() {
    let _alone = alone();
    let worker = script("sleep 60 >/dev/null 2>&1 & echo up >&$ROUNDEL_CHANNEL_FD; wait");
    assert_eq!(read_line(&worker), "up");
    process::kill_group(worker.pid);
    wait_for_end(worker.pid);
    // The helper held the channel too: end of file shows that it is gone.
    wait_readable(&worker.channel);
    assert_eq!(channel::recv(worker.channel.as_fd(), &mut [0; 8]).unwrap(), 0);
    assert!(reaped().contains(&(worker.pid, ExitStatus::Signal(9))));
    // Both are no error if no process is left.
    process::kill_group(worker.pid);
    process::signal(worker.pid, roundel_core::Signal::Term);
}

#[test]
fn acks_of_a_killed_worker_are_read_before_its_end() {
    let _alone = alone();
    let worker = script(
        "echo up >&$ROUNDEL_CHANNEL_FD; printf ack >&$ROUNDEL_CHANNEL_FD; exec sleep 60 >/dev/null 2>&1",
    );
    assert_eq!(read_line(&worker), "up");
    wait_readable(&worker.channel);
    let (cargo, peer) = channel::pair().unwrap();
    channel::send(worker.channel.as_fd(), b"unread", &[cargo.as_fd()]).unwrap();
    process::kill_group(worker.pid);
    wait_for_end(worker.pid);
    let mut buffer = [0; 64];
    let fd = worker.channel.as_fd();
    assert_eq!(channel::send(fd, b"more", &[]), Err(Errno(libc::EPIPE)));
    assert_eq!(channel::recv(fd, &mut buffer).unwrap(), 3);
    let error = channel::recv(fd, &mut buffer).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    assert_eq!(channel::recv(fd, &mut buffer).unwrap(), 0);
    // The part that it never took is still whole here.
    channel::send(cargo.as_fd(), b"alive", &[]).unwrap();
    assert_eq!(channel::recv(peer.as_fd(), &mut buffer).unwrap(), 5);
    assert_eq!(reaped(), [(worker.pid, ExitStatus::Signal(9))]);
}

#[test]
fn signals_are_read_even_where_they_were_ignored() {
    let _alone = alone();
    if !is_inner("signals_are_read_even_where_they_were_ignored", "trap '' TERM INT HUP", &[]) {
        return;
    }
    let signals = Signals::open().unwrap();
    assert_eq!(signals.read(), None);
    let all = [
        (Raw::SIGTERM, Signal::Terminate),
        (Raw::SIGINT, Signal::Interrupt),
        (Raw::SIGHUP, Signal::Hangup),
        (Raw::SIGCHLD, Signal::Child),
        (Raw::SIGUSR1, Signal::ReopenLogs),
        (Raw::SIGTTIN, Signal::MoreWorkers),
        (Raw::SIGTTOU, Signal::FewerWorkers),
    ];
    for (raw, signal) in all {
        raise(raw).unwrap();
        assert_eq!(signals.read(), Some(signal));
        assert_eq!(signals.read(), None);
    }
}

#[test]
fn only_what_was_inherited_can_be_listened_on() {
    const NAMES: [&str; 3] = ["LISTENING", "BOUND", "DATAGRAM"];
    let _alone = alone();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (plain, _peer) = channel::pair().unwrap();
    let mut env = Vec::new();
    if std::env::var_os(INNER).is_none() {
        for (name, fd) in NAMES.iter().zip([listening.as_fd(), plain.as_fd(), datagram.as_fd()]) {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            env.push((*name, fd.as_raw_fd().to_string()));
        }
        env.push(("ADDRESS", listening.local_addr().unwrap().to_string()));
    }
    if !is_inner("only_what_was_inherited_can_be_listened_on", "exec 7</dev/null", &env) {
        return;
    }
    let inherited = Inherited::snapshot();
    let bind = |fd: i32, transport: Transport| {
        let key = ListenKey { transport, ..ListenKey::stream(Address::Fd(fd)) };
        socket::bind(&key, 0, &inherited)
    };
    let [listening_fd, bound, datagram_fd] =
        NAMES.map(|name| std::env::var(name).unwrap().parse::<i32>().unwrap());

    let (first, _) = bind(listening_fd, Transport::Stream).unwrap();
    drop(bind(listening_fd, Transport::Stream).unwrap());
    let _client = TcpStream::connect(std::env::var("ADDRESS").unwrap()).unwrap();
    assert!(socket::accept(first.as_fd()).unwrap().is_some());
    assert!(socket::accept(first.as_fd()).unwrap().is_none(), "it does not block");
    assert!(bind(datagram_fd, Transport::Datagram).is_ok());

    let refused = |fd, transport| bind(fd, transport).unwrap_err();
    assert_eq!(refused(bound, Transport::Stream), Errno::EINVAL, "it does not listen");
    assert_eq!(refused(datagram_fd, Transport::Stream), Errno::EINVAL);
    assert_eq!(refused(listening_fd, Transport::Datagram), Errno::EINVAL);
    assert_eq!(refused(7, Transport::Stream), Errno::EBADF, "no socket");
    for fd in [-1, 0, 2, 999, listening.as_raw_fd()] {
        assert_eq!(refused(fd, Transport::Stream), Errno::EBADF, "{fd} was not inherited");
    }
    // No worker inherits any of them.
    for fd in [listening_fd, bound, datagram_fd, 7] {
        let test = format!("test ! -e /proc/$$/fd/{fd}");
        assert!(Command::new("sh").args(["-c", &test]).status().unwrap().success(), "{fd}");
    }
}
