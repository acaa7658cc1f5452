//! Process groups: what is left of them when their leader has ended, and how the rest is ended.
//!
//! Reaping takes every child of the process, so these tests run one after the other.

mod support;

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal as Raw;
use nix::unistd::Pid;
use roundel_core::{ExitStatus, Time};
use roundel_runtime::unix::group::{Groups, Naming};

use support::{LONG, alone, wait_for_end};

/// The ends of `N` pipes: a process and its helpers hold the writers, and a reader sees the end of
/// file once no process holds its writer.
fn pipes<const N: usize>() -> ([std::io::PipeReader; N], Vec<std::io::PipeWriter>) {
    let pairs: Vec<_> = (0..N).map(|_| std::io::pipe().unwrap()).collect();
    let (readers, writers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    (readers.try_into().unwrap(), writers)
}

/// Starts a script in a group of its own, which has a pipe at each of the descriptors from 3 on.
fn group_with(text: &str, writers: Vec<std::io::PipeWriter>) -> i32 {
    use std::os::unix::process::CommandExt;
    let mut prepare = String::new();
    for (at, writer) in writers.iter().enumerate() {
        let path = format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd());
        prepare.push_str(&format!("exec {}>{path}\n", at + 3));
    }
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("{prepare}{text}")]).stdout(std::process::Stdio::null());
    bash.stderr(std::process::Stdio::null());
    let pid = bash.process_group(0).spawn().unwrap().id() as i32;
    // Its writers are open by now; otherwise ours would be the last ones.
    let ready = || fs::read_link(format!("/proc/{pid}/fd/{}", writers.len() + 3)).is_ok();
    let deadline = std::time::Instant::now() + LONG;
    while !ready() {
        assert!(std::time::Instant::now() < deadline, "{text} does not begin");
        std::thread::yield_now();
    }
    pid
}

/// Waits until the helpers of a shell run `sleep` and are no longer copies of the shell.
fn eventually_in_place(leader: i32) {
    let deadline = std::time::Instant::now() + LONG;
    let copies = || {
        let children = format!("/proc/{leader}/task/{leader}/children");
        let children = fs::read_to_string(children).unwrap();
        let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let names: Vec<String> = children.split_whitespace().map(name).collect();
        names.is_empty() || names.iter().any(|name| name != "sleep\n")
    };
    while copies() {
        assert!(std::time::Instant::now() < deadline, "the helpers do not begin");
        std::thread::yield_now();
    }
}

/// Kills every process that has the other end of a pipe.
fn end_holders_of(pipe: &std::io::PipeReader) {
    let own = fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd())).unwrap();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(fds) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|it| it == own));
        if holds && pid != std::process::id() as i32 {
            nix::sys::signal::kill(Pid::from_raw(pid), Raw::SIGKILL).unwrap();
        }
    }
}

#[test]
fn a_group_ends_with_its_leader() {
    let _alone = alone();
    for naming in [Naming::Best, Naming::Unreaped] {
        let now = Time::from_millis(5);
        let mut groups = Groups::new(naming);
        let ([mut meek, mut stubborn, away], writers) = pipes();
        // Each of the three keeps one of the pipes; then the leader is killed.
        let text = "(exec 4>&- 5>&-; exec sleep 1000) &
            (exec 3>&- 5>&-; trap '' TERM; exec sleep 1000) &
            (exec 3>&- 4>&-; exec setsid sleep 1000) &
            exec 3>&- 4>&- 5>&-; exec 6</dev/null; wait";
        let leader = group_with(text, writers);
        groups.begin(leader);
        eventually_in_place(leader);
        nix::sys::signal::kill(Pid::from_raw(leader), Raw::SIGKILL).unwrap();
        wait_for_end(leader);
        assert_eq!(groups.reap(now), [(leader, ExitStatus::Signal(9))]);
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut meek, &mut rest).unwrap();
        assert!(!groups.have_ended(), "one of them does not mind SIGTERM");
        let unreaped = fs::exists(format!("/proc/{leader}")).unwrap();
        assert_eq!(unreaped, naming == Naming::Unreaped, "its number may be another's");
        assert_eq!(groups.deadline().map(|at| at.since(now)), Some(Duration::from_millis(10)));
        let almost = now + Duration::from_millis(999);
        assert!(!groups.turn(almost, None));
        let one_second = now + Duration::from_secs(1);
        assert!(groups.turn(one_second, None));
        std::io::Read::read_to_end(&mut stubborn, &mut rest).unwrap();
        assert_eq!((groups.have_ended(), groups.deadline()), (true, None));
        assert!(!fs::exists(format!("/proc/{leader}")).unwrap());
        // The process with a session of its own lives.
        let mut fds = [PollFd::new(away.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0), "{naming:?}");
        end_holders_of(&away);
        assert_eq!(groups.reap(now), []);
    }
}

#[test]
fn a_group_without_others_has_ended_at_once() {
    let _alone = alone();
    for naming in [Naming::Best, Naming::Unreaped] {
        let mut groups = Groups::new(naming);
        let leader = group_with("exec 3</dev/null; exec sleep 1000", Vec::new());
        groups.begin(leader);
        assert_eq!(groups.reap(Time::ZERO), []);
        nix::sys::signal::kill(Pid::from_raw(leader), Raw::SIGKILL).unwrap();
        wait_for_end(leader);
        assert_eq!(groups.reap(Time::ZERO), [(leader, ExitStatus::Signal(9))]);
        assert!(groups.have_ended() && groups.deadline().is_none(), "{naming:?}");
        assert!(!fs::exists(format!("/proc/{leader}")).unwrap());
    }
}

/// At the deadline of a shutdown no process gets another second. An unreaped leader hides no child
/// for long.
#[test]
fn nothing_is_left_of_a_group_at_the_deadline() {
    let _alone = alone();
    for naming in [Naming::Best, Naming::Unreaped] {
        let mut groups = Groups::new(naming);
        let ([mut stubborn], writers) = pipes();
        let text = "(trap '' TERM; exec sleep 1000) & exec 3>&- 4</dev/null; wait";
        let leader = group_with(text, writers);
        groups.begin(leader);
        eventually_in_place(leader);
        nix::sys::signal::kill(Pid::from_raw(leader), Raw::SIGKILL).unwrap();
        wait_for_end(leader);
        let now = Time::from_millis(70);
        assert_eq!(groups.reap(now).len(), 1);
        let other = Command::new("true").spawn().unwrap().id() as i32;
        wait_for_end(other);
        assert!(groups.turn(now, Some(now)));
        assert_eq!(groups.reap(now), [(other, ExitStatus::Code(0))]);
        std::io::Read::read_to_end(&mut stubborn, &mut Vec::new()).unwrap();
        assert!(groups.have_ended());
    }
}
