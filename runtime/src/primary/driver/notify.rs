//! What the service manager is told: that the primary is ready, reloads or stops, how many workers
//! are ready, that it lives, and which listeners it should keep.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use roundel_core::{Event, Life, Slot, Time};

use super::PrimaryDriver;
use crate::unix::clock;
use crate::unix::notify::{self, NotifySocket};

/// The shortest time between two status lines.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How soon a message is sent again that could not be sent; doubles each time.
const RETRY: Duration = Duration::from_millis(100);

/// Where that time stops growing.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How many messages may wait. Each listener has one or two, and a manager that reads nothing is
/// no reason to keep more.
const MAX_UNSENT: usize = 4_096;

/// What the primary needs after the deadline of a stop: what workers left behind has a second to
/// end, and so has the event log.
const AFTER_DEADLINE: Duration = Duration::from_secs(5);

/// A message that must arrive, and the listener that travels with it. A listener that was closed
/// meanwhile takes its message along.
type Unsent = (String, Option<Weak<OwnedFd>>);

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct Manager {
    socket: NotifySocket,
    unsent: VecDeque<Unsent>,
    retry: Duration,
    retry_at: Option<Time>,
    watchdog: Option<Duration>,
    alive_at: Time,
    /// The slots from which no ready worker is expected: given up, ended, or with a worker that
    /// runs and has not asked to listen.
    unready: BTreeSet<Slot>,
    ready_said: bool,
    /// A reload was announced, and its end was not.
    reloading: bool,
    stopping_said: bool,
    /// Something changed that the status line or readiness may depend on.
    changed: bool,
    status: String,
    status_at: Time,
}

impl Manager {
    /// The service manager that the environment names.
    pub(super) fn of_process(now: Time) -> Option<Manager> {
        Some(Manager {
            socket: NotifySocket::of_process()?,
            unsent: VecDeque::new(),
            retry: RETRY,
            retry_at: None,
            watchdog: notify::watchdog_interval(),
            alive_at: now,
            unready: BTreeSet::new(),
            ready_said: false,
            reloading: false,
            stopping_said: false,
            changed: false,
            status: String::new(),
            status_at: now,
        })
    }

    /// When something must be sent at the latest.
    pub(super) fn deadline(&self) -> Option<Time> {
        let alive = self.watchdog.map(|_| self.alive_at);
        let status = self.changed.then_some(self.status_at);
        [alive, status, self.retry_at].into_iter().flatten().min()
    }

    pub(super) fn say(&mut self, words: String, fd: Option<&Arc<OwnedFd>>) {
        if self.unsent.len() < MAX_UNSENT {
            self.unsent.push_back((words, fd.map(Arc::downgrade)));
        }
    }

    /// Sends what waits, in order.
    fn flush(&mut self, now: Time) {
        if self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.retry_at = None;
        while let Some((words, fd)) = self.unsent.front() {
            let fd = match fd {
                None => None,
                Some(fd) => match fd.upgrade() {
                    Some(fd) => Some(fd),
                    None => {
                        self.unsent.pop_front();
                        continue;
                    }
                },
            };
            let sent = match &fd {
                None => self.socket.send(words, &[]),
                Some(fd) => self.socket.send(words, &[fd.as_fd()]),
            };
            // A listener that can't be sent must not hold up the words behind it.
            let hopeless =
                |error: &io::Error| fd.is_some() && error.kind() != io::ErrorKind::WouldBlock;
            if sent.is_err_and(|error| !hopeless(&error)) {
                self.retry_at = Some(now + self.retry);
                self.retry = self.retry.saturating_mul(2).min(RETRY_MAX);
                return;
            }
            self.retry = RETRY;
            self.unsent.pop_front();
        }
    }

    /// Gives a sign of life if one is due.
    fn live(&mut self, now: Time) {
        let Some(interval) = self.watchdog else { return };
        if self.alive_at > now {
            return;
        }
        let sent = self.socket.send("WATCHDOG=1", &[]);
        self.alive_at = now + if sent.is_ok() { interval } else { interval.min(RETRY) };
    }
}

impl PrimaryDriver {
    /// Notes an event that changes what the service manager is told.
    pub(super) fn note_for_manager(&mut self, event: &Event) {
        let Some(manager) = &mut self.manager else { return };
        let slot_of = |worker| self.core.worker(worker).map(|worker| worker.slot);
        match event {
            Event::GivenUp { slot, .. } | Event::Ended { slot } => {
                manager.unready.insert(*slot);
            }
            Event::NotListening { worker } | Event::Silent { worker } => {
                manager.unready.extend(slot_of(*worker));
            }
            Event::Spawned { slot, .. } => {
                manager.unready.remove(slot);
            }
            Event::Ready { .. }
            | Event::Failing { .. }
            | Event::Leaving { .. }
            | Event::Settling { .. }
            | Event::Killing { .. }
            | Event::Exited { .. }
            | Event::Stopping { .. } => {}
            _ => return,
        }
        manager.changed = true;
    }

    /// A reload was asked for and begins now.
    pub(super) fn reload_begins(&mut self) {
        let says = |manager: &&mut Manager| manager.ready_said && !manager.stopping_said;
        if let Some(manager) = self.manager.as_mut().filter(says) {
            manager.reloading = true;
            // Not the time of the turn, which may have begun before the service manager asked.
            manager.say(notify::reloading(clock::now()), None);
        }
    }

    /// Ends a turn: tells the service manager what has changed.
    pub(super) fn tell_manager(&mut self) {
        let (now, stop) = (self.now, self.core.stop_deadline());
        let reloads = self.reloads();
        let Some(manager) = &mut self.manager else { return };
        manager.live(now);
        // A manager that hears of a stop within a reload kills the service (systemd 259).
        if manager.reloading && (!reloads || stop.is_some()) {
            manager.reloading = false;
            manager.say("READY=1".into(), None);
        }
        let due = manager.status_at <= now || !manager.ready_said || stop.is_some();
        if (manager.changed || !manager.ready_said) && due {
            let ready = self.core.workers().filter(|worker| worker.life == Life::Ready);
            let ready: BTreeSet<Slot> = ready.map(|worker| worker.slot).collect();
            let settled = ready.union(&manager.unready).count();
            let wanted = self.core.config().workers() as usize;
            let is_ready = settled >= wanted && !reloads && stop.is_none();
            if is_ready && !manager.ready_said {
                manager.ready_said = true;
                manager.say("READY=1".into(), None);
            }
            if let Some(deadline) = stop
                && !manager.stopping_said
            {
                manager.stopping_said = true;
                let left = deadline.since(now) + AFTER_DEADLINE;
                let words = format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", left.as_micros());
                manager.say(words, None);
            }
            let status = match stop {
                None => status(ready.len(), wanted, manager.unready.difference(&ready).count()),
                Some(_) => format!("Stopping; {} workers left", self.workers_by_pid.len()),
            };
            if manager.status_at <= now {
                manager.changed = false;
                manager.status_at = now + STATUS_EVERY;
                if manager.status != status {
                    manager.say(format!("STATUS={status}"), None);
                    manager.status = status;
                }
            }
        }
        manager.flush(now);
    }
}

/// The status line.
fn status(ready: usize, wanted: usize, unready: usize) -> String {
    let mut line = format!("{ready} of {wanted} workers ready");
    if unready > 0 {
        // A String takes all that is written.
        let _ = write!(line, ", {unready} given up or not listening");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn manager(name: &str, watchdog: Option<Duration>) -> (Manager, UnixDatagram) {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("roundel-manager-{}-{name}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let theirs = UnixDatagram::bind_addr(&address).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let manager = Manager {
            socket: NotifySocket::named(std::ffi::OsStr::new(&format!("@{name}"))).unwrap(),
            unsent: VecDeque::new(),
            retry: RETRY,
            retry_at: None,
            watchdog,
            alive_at: Time::ZERO,
            unready: BTreeSet::new(),
            ready_said: false,
            reloading: false,
            stopping_said: false,
            changed: false,
            status: String::new(),
            status_at: Time::ZERO,
        };
        (manager, theirs)
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| {
            let len = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
        })
        .collect()
    }

    #[test]
    fn the_watchdog_is_served_in_time_and_after_a_failure_soon_again() {
        let (mut manager, theirs) = manager("watchdog", Some(10 * SECOND));
        assert_eq!(manager.deadline(), Some(Time::ZERO));
        manager.live(Time::ZERO);
        assert_eq!(received(&theirs), ["WATCHDOG=1"]);
        manager.live(Time::ZERO + 9 * SECOND);
        assert!(received(&theirs).is_empty());
        let at = Time::ZERO + 10 * SECOND;
        assert_eq!(manager.deadline(), Some(at));
        while manager.socket.send("STATUS=", &[]).is_ok() {}
        manager.live(at);
        assert_eq!(manager.deadline(), Some(at + RETRY));
        received(&theirs);
        manager.live(at + RETRY);
        assert_eq!(received(&theirs), ["WATCHDOG=1"]);
    }

    #[test]
    fn what_could_not_be_sent_is_sent_later_in_order() {
        let (mut manager, theirs) = manager("later", None);
        while manager.socket.send("STATUS=", &[]).is_ok() {}
        let (kept, closed) = (fd(), fd());
        manager.say("READY=1".into(), None);
        manager.say("FDSTORE=1\nFDNAME=closed".into(), Some(&closed));
        manager.say("FDSTORE=1\nFDNAME=kept".into(), Some(&kept));
        manager.flush(Time::ZERO);
        assert_eq!(manager.deadline(), Some(Time::ZERO + RETRY));
        drop(closed);
        received(&theirs);
        manager.flush(Time::ZERO);
        assert!(received(&theirs).is_empty(), "not before the retry is due");
        manager.flush(Time::ZERO + RETRY);
        assert_eq!(received(&theirs), ["READY=1", "FDSTORE=1\nFDNAME=kept"]);
        assert_eq!(manager.deadline(), None);
    }

    fn fd() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn a_dead_socket_is_tried_less_and_less_often() {
        let (mut manager, theirs) = manager("dead", None);
        drop(theirs);
        manager.say("READY=1".into(), None);
        let mut now = Time::ZERO;
        let mut waits = Vec::new();
        for _ in 0..9 {
            manager.flush(now);
            let at = manager.deadline().unwrap();
            waits.push(at.since(now).as_millis());
            now = at;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        for _ in 0..2 * MAX_UNSENT {
            manager.say("READY=1".into(), None);
        }
        assert_eq!(manager.unsent.len(), MAX_UNSENT);
    }

    #[test]
    fn the_status_is_one_line() {
        assert_eq!(status(3, 4, 0), "3 of 4 workers ready");
        assert_eq!(status(3, 4, 1), "3 of 4 workers ready, 1 given up or not listening");
    }
}
