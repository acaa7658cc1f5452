//! Process groups of workers: a group ends with its leader.
//!
//! A worker may be a shell or a tool that starts the program, and a program may have helpers. When
//! the leader has ended, for whatever reason, the rest of its group gets SIGTERM, and SIGKILL a
//! second later. Processes that have started a session of their own are no longer in the group.
//!
//! Since Linux 6.9 a group can be signalled by a descriptor that names its leader, even after the
//! leader was reaped (pidfd_send_signal(2)). On older kernels, or if descriptors run out, the
//! leader is left unreaped for that second, so that its number can't be another process's.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use roundel_core::{ExitStatus, Time};

use crate::unix::{process, sys};

/// How long after SIGTERM the rest of a group gets SIGKILL.
const GRACE: Duration = Duration::from_secs(1);

/// How soon a group is first checked for being empty; the interval doubles.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// How the kernel is told which group is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By descriptors, if the kernel supports them; otherwise by unreaped leaders.
    Best,
    /// By unreaped leaders.
    Unreaped,
}

/// The groups of the live workers, and those that are ending.
#[derive(Debug)]
pub struct Groups {
    by_descriptor: bool,
    /// By the leader's process id; with its descriptor, if it has one.
    living: BTreeMap<i32, Option<OwnedFd>>,
    ending: BTreeMap<i32, Ending>,
}

/// A group whose leader has ended.
#[derive(Debug)]
struct Ending {
    leader: Option<OwnedFd>,
    kill_at: Time,
    look_at: Time,
    next_look: Duration,
}

impl Groups {
    /// No groups yet.
    pub fn new(naming: Naming) -> Groups {
        let by_descriptor = naming == Naming::Best && sys::can_signal_groups();
        Groups { by_descriptor, living: BTreeMap::new(), ending: BTreeMap::new() }
    }

    /// Adds a child that was just started as the leader of a group and is not reaped yet.
    pub fn begin(&mut self, leader: i32) {
        let fd = if self.by_descriptor { sys::open_process(leader).ok() } else { None };
        self.living.insert(leader, fd);
    }

    /// Returns the children that have ended, including the orphans that process 1 gets. The rest of
    /// the groups that they led gets SIGTERM. Does not wait.
    pub fn reap(&mut self, now: Time) -> Vec<(i32, ExitStatus)> {
        let named = self.living.values().all(Option::is_some);
        let held = self.ending.values().any(|group| group.leader.is_none());
        let ended: Vec<(i32, ExitStatus)> =
            if named && !held { process::reap().collect() } else { self.reap_singly() };
        for (pid, _) in &ended {
            if let Some(leader) = self.living.remove(pid) {
                self.end(*pid, leader, now);
            }
        }
        ended
    }

    /// Like [`reap`](Groups::reap), but leaves leaders without a descriptor unreaped.
    fn reap_singly(&mut self) -> Vec<(i32, ExitStatus)> {
        let mut ended = Vec::new();
        for (&pid, leader) in &self.living {
            if let Some((_, status)) = look_at(Id::Pid(Pid::from_raw(pid))) {
                if leader.is_some() {
                    release(pid);
                }
                ended.push((pid, status));
            }
        }
        // An unreaped leader may hide other ended children; they are reaped once it is gone.
        while let Some((pid, status)) = look_at(Id::All) {
            if self.living.contains_key(&pid) || self.ending.contains_key(&pid) {
                break;
            }
            release(pid);
            ended.push((pid, status));
        }
        ended
    }

    fn end(&mut self, pid: i32, leader: Option<OwnedFd>, now: Time) {
        let group = Ending {
            leader,
            kill_at: now + GRACE,
            look_at: now + FIRST_LOOK,
            next_look: FIRST_LOOK * 2,
        };
        if group.signal(pid, Some(Signal::SIGTERM)) {
            self.ending.insert(pid, group);
        } else if group.leader.is_none() {
            release(pid);
        }
    }

    /// When [`turn`](Groups::turn) next has something to do.
    pub fn deadline(&self) -> Option<Time> {
        self.ending.values().map(|group| group.look_at.min(group.kill_at)).min()
    }

    /// Kills the groups whose grace has passed, and every group at `latest`. True if a group is
    /// gone.
    pub fn turn(&mut self, now: Time, latest: Option<Time>) -> bool {
        let over = latest.is_some_and(|at| at <= now);
        let before = self.ending.len();
        self.ending.retain(|&pid, group| {
            let kill = over || group.kill_at <= now;
            let stays = if kill {
                group.signal(pid, Some(Signal::SIGKILL));
                // When the processes die is up to the kernel.
                false
            } else if group.look_at <= now {
                group.look_at = now + group.next_look;
                group.next_look *= 2;
                group.signal(pid, None)
            } else {
                true
            };
            if !stays && group.leader.is_none() {
                release(pid);
            }
            stays
        });
        self.ending.len() < before
    }

    /// True if nothing is left of any group whose leader has ended.
    pub fn have_ended(&self) -> bool {
        self.ending.is_empty()
    }
}

impl Ending {
    /// Signals the processes in the group; false if there are none.
    fn signal(&self, pid: i32, signal: Option<Signal>) -> bool {
        let Some(leader) = &self.leader else {
            // The unreaped leader is in the group, so the kernel always finds a process.
            let _ = killpg(Pid::from_raw(pid), signal);
            return has_others(pid);
        };
        sys::signal_group(leader.as_fd(), signal) != Err(Errno::ESRCH)
    }
}

/// A child that has ended, if there is one; it stays unreaped.
fn look_at(id: Id) -> Option<(i32, ExitStatus)> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(id, flags).ok()? {
        WaitStatus::Exited(pid, code) => Some((pid.as_raw(), ExitStatus::Code(code))),
        WaitStatus::Signaled(pid, signal, _) => {
            Some((pid.as_raw(), ExitStatus::Signal(signal as i32)))
        }
        _ => None,
    }
}

fn release(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// True if a group has running processes besides its leader.
fn has_others(leader: i32) -> bool {
    let groups = members(&[leader]);
    groups.get(&leader).is_some_and(|group| group.iter().any(|pid| *pid != leader))
}

/// The processes of these groups that have not ended (proc_pid_stat(5)), if they are visible.
pub(crate) fn members(leaders: &[i32]) -> BTreeMap<i32, Vec<i32>> {
    let mut groups: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return groups };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(group) = group_of(pid).filter(|group| leaders.contains(group)) {
            groups.entry(group).or_default().push(pid);
        }
    }
    groups
}

/// The group of a process, if the process has not ended.
fn group_of(pid: i32) -> Option<i32> {
    let stat = Stat::of(pid)?;
    if stat.is_dead { None } else { Some(stat.group) }
}

/// True if a process has ended, or has begun to: from then on, others can't see its descriptors.
pub(crate) fn is_ending(pid: i32) -> bool {
    match Stat::of(pid) {
        Some(stat) => stat.is_dead || stat.is_exiting,
        // With `hidepid` the process may exist but not be visible.
        None => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
    }
}

/// `PF_EXITING` of the kernel's linux/sched.h, among the flags in proc_pid_stat(5).
const EXITING: u32 = 4;

/// The fields of proc_pid_stat(5) that are used here.
struct Stat {
    /// The process has ended and is not reaped.
    is_dead: bool,
    is_exiting: bool,
    group: i32,
}

impl Stat {
    fn of(pid: i32) -> Option<Stat> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name: state, parent, group, session, terminal, its group, flags.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').take(7).collect();
        let [state, _, group, _, _, _, flags] = fields[..] else { return None };
        Some(Stat {
            is_dead: matches!(state, "Z" | "X"),
            is_exiting: flags.parse::<u32>().ok()? & EXITING != 0,
            group: group.parse().ok()?,
        })
    }
}
