//! Many descriptors that async-io watches as one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Async;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::driver;

/// How many events one check takes.
const EVENTS: usize = 256;
/// How long [`Set::wait`] waits by itself, in milliseconds. Longer than the kernel's tick, because
/// a timer that is the next to expire must be set in hardware for each wait.
const MOMENT: u8 = 100;
/// The key of the timer.
const ALARM: u64 = u64::MAX;

/// A set of descriptors, each with a key, watched for edges. async-io forgets a descriptor each
/// time it was ready, and registering it again costs a system call, so async-io watches only the
/// whole set. The same goes for timers: async-io sets its own timer anew for each wait.
#[derive(Debug)]
pub(crate) struct Set {
    epoll: Arc<Instance>,
    alarm: TimerFd,
    set_for: Option<Instant>,
    events: Box<[EpollEvent]>,
    /// How many of `events` a wait has filled, for the next check to pass on.
    found: usize,
}

#[derive(Debug)]
struct Instance(Epoll);

impl AsFd for Instance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl Set {
    /// An empty set.
    ///
    /// # Errors
    /// If descriptors run out, or a thread can't be started.
    pub(crate) fn new() -> io::Result<Set> {
        driver::start()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let alarm = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        epoll.add(&alarm, event(ALARM, false))?;
        let epoll = Arc::new(Instance(epoll));
        let events = vec![EpollEvent::empty(); EVENTS].into_boxed_slice();
        Ok(Set { epoll, alarm, set_for: None, events, found: 0 })
    }

    /// Adds a descriptor. If it is ready now, that is its first edge.
    pub(crate) fn add(&self, fd: impl AsFd, key: u64, writable: bool) -> io::Result<()> {
        Ok(self.epoll().add(fd, event(key, writable))?)
    }

    /// Watches a descriptor anew: if it is ready now, that is a new edge.
    pub(crate) fn renew(&self, fd: impl AsFd, key: u64, writable: bool) -> io::Result<()> {
        Ok(self.epoll().modify(fd, &mut event(key, writable))?)
    }

    /// Removes a descriptor. Closing it is enough if no other copy of it is open.
    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll().delete(fd)?)
    }

    /// Waits until there may be something to check.
    ///
    /// Usually something comes soon, and waiting for that directly takes one system call. A wait of
    /// async-io takes seven, and its own thread takes over the wait from a thread that is busy for
    /// more than 50 us, and then has to wake this one. So async-io waits only after nothing has
    /// come for a moment, and knows of the set only during that wait: a set inside another one
    /// costs at each event.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        match self.epoll.0.wait(&mut self.events, MOMENT) {
            Ok(0) => {
                let watched = Async::new_nonblocking(Arc::clone(&self.epoll))?;
                async_io::block_on(watched.readable())
            }
            Ok(found) => {
                self.found = found;
                Ok(())
            }
            Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Becomes ready at a deadline, if nothing else makes it ready before. The timer is set again
    /// only for an earlier deadline, so it may fire too early, but never too late.
    pub(crate) fn be_ready_by(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let Some(at) = deadline.filter(|at| self.set_for.is_none_or(|before| *at < before)) else {
            return Ok(());
        };
        // A time of zero would turn the timer off (timerfd_settime(2)).
        let after = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let after = Expiration::OneShot(TimeSpec::from_duration(after));
        self.alarm.set(after, TimerSetTimeFlags::empty())?;
        self.set_for = Some(at);
        Ok(())
    }

    /// Passes on the keys that have become ready since the last check.
    pub(crate) fn look(&mut self, mut name: impl FnMut(u64)) -> io::Result<()> {
        loop {
            let count = match std::mem::take(&mut self.found) {
                0 => match self.epoll.0.wait(&mut self.events, EpollTimeout::ZERO) {
                    Err(Errno::EINTR) => continue,
                    other => other?,
                },
                found => found,
            };
            for event in self.events.iter().take(count) {
                match event.data() {
                    ALARM => self.set_for = None,
                    key => name(key),
                }
            }
            if count < EVENTS {
                return Ok(());
            }
        }
    }

    fn epoll(&self) -> &Epoll {
        &self.epoll.0
    }
}

fn event(key: u64, writable: bool) -> EpollEvent {
    let read = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    EpollEvent::new(if writable { read | EpollFlags::EPOLLOUT } else { read }, key)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn wait(set: &mut Set) -> Vec<u64> {
        set.wait().unwrap();
        looked(set)
    }

    fn looked(set: &mut Set) -> Vec<u64> {
        let mut keys = Vec::new();
        set.look(|key| keys.push(key)).unwrap();
        keys
    }

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    #[test]
    fn each_is_named_once_for_each_edge() {
        let mut set = Set::new().unwrap();
        let ((mut near, mut far), (other, mut remote)) = (pair(), pair());
        set.add(&near, 1, false).unwrap();
        set.add(&other, 2, false).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(wait(&mut set), [1]);
        assert_eq!(looked(&mut set), [0; 0], "ready still, but no edge");
        remote.write_all(b"x").unwrap();
        far.write_all(b"x").unwrap();
        let mut both = wait(&mut set);
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        near.read_exact(&mut [0]).unwrap();
        set.renew(&near, 1, false).unwrap();
        assert_eq!(looked(&mut set), [1], "there is more to read");
        set.renew(&near, 1, true).unwrap();
        near.read_exact(&mut [0]).unwrap();
        assert_eq!(wait(&mut set), [1], "for writing");
        set.remove(&near).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(looked(&mut set), [0; 0]);
    }

    #[test]
    fn more_than_one_look_takes() {
        let mut set = Set::new().unwrap();
        let pairs: Vec<_> = std::iter::repeat_with(pair).take(EVENTS + 10).collect();
        for (key, (near, far)) in (0..).zip(&pairs) {
            set.add(near, key, false).unwrap();
            (&*far).write_all(b"x").unwrap();
        }
        let mut all = wait(&mut set);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..pairs.len() as u64));
    }

    #[test]
    fn it_is_ready_by_the_earliest_deadline() {
        let mut set = Set::new().unwrap();
        let begun = Instant::now();
        let (late, early) = (Duration::from_secs(60), Duration::from_millis(20));
        for deadline in [Some(begun + late), Some(begun + early), None, Some(begun + late)] {
            set.be_ready_by(deadline).unwrap();
        }
        assert_eq!(wait(&mut set), [0; 0]);
        let took = begun.elapsed();
        assert!(took >= early && took < late / 2, "{took:?}");
        // A deadline that has passed already.
        set.be_ready_by(Some(begun)).unwrap();
        assert_eq!(wait(&mut set), [0; 0]);
    }

    /// Covers the direct wait and the wait through async-io, whatever comes in between.
    #[test]
    fn a_wait_ends_when_something_comes_soon_late_or_at_a_deadline() {
        let mut set = Set::new().unwrap();
        let (mut near, mut far) = pair();
        set.add(&near, 1, false).unwrap();
        far.write_all(b"x").unwrap();
        set.wait().unwrap();
        assert_eq!(set.found, 1, "without async-io");
        assert_eq!(looked(&mut set), [1]);
        assert_eq!(looked(&mut set), [0; 0], "it is named once");
        near.read_exact(&mut [0]).unwrap();
        // Longer than the set waits by itself, several times.
        let late = Duration::from_millis(u64::from(MOMENT) * 3 / 2);
        let (ask, asked) = mpsc::channel::<()>();
        let writer = thread::spawn(move || {
            while asked.recv().is_ok() {
                thread::sleep(late);
                far.write_all(b"x").unwrap();
            }
        });
        for _ in 0..3 {
            let begun = Instant::now();
            ask.send(()).unwrap();
            set.wait().unwrap();
            assert!(begun.elapsed() >= late);
            assert_eq!(looked(&mut set), [1]);
            near.read_exact(&mut [0]).unwrap();
        }
        drop(ask);
        writer.join().unwrap();
        assert_eq!(looked(&mut set), [1], "its end");
        for span in [late / 8, late] {
            let begun = Instant::now();
            set.be_ready_by(Some(begun + span)).unwrap();
            set.wait().unwrap();
            assert!(begun.elapsed() >= span);
            assert_eq!(looked(&mut set), [0; 0]);
        }
    }

    #[test]
    fn the_end_of_the_other_side_is_named() {
        let mut set = Set::new().unwrap();
        let (near, far) = pair();
        set.add(&near, 1, false).unwrap();
        drop(far);
        assert_eq!(wait(&mut set), [1]);
    }
}
