//! Descriptors that name themselves when they are ready.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use async_io::Async;

/// What is ready of all that is watched, and who waits for it.
#[derive(Debug)]
pub(crate) struct Ready<K> {
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    named: Vec<K>,
    waiting: Option<Waker>,
}

impl<K> Ready<K> {
    pub(crate) fn new() -> Arc<Ready<K>> {
        Arc::new(Ready { state: Mutex::new(State { named: Vec::new(), waiting: None }) })
    }

    /// Whether something is ready. If not, the task is woken when something is.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.named.is_empty() {
            return Poll::Ready(());
        }
        match &mut state.waiting {
            Some(waiting) => waiting.clone_from(cx.waker()),
            None => state.waiting = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Moves all that is ready to the end of `into`. The same thing may be there more than once.
    pub(crate) fn take(&self, into: &mut Vec<K>) {
        into.append(&mut self.lock().named);
    }

    fn name(&self, key: K) {
        let waiting = {
            let mut state = self.lock();
            state.named.push(key);
            state.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waker that names a key: all that awaits readiness with it says who is ready.
pub(crate) fn namer<K>(key: K, ready: &Arc<Ready<K>>) -> Waker
where
    K: Copy + Send + Sync + 'static,
{
    Waker::from(Arc::new(Namer { key, ready: Arc::clone(ready) }))
}

struct Namer<K> {
    key: K,
    ready: Arc<Ready<K>>,
}

impl<K: Copy + Send + Sync + 'static> Wake for Namer<K> {
    fn wake(self: Arc<Self>) {
        self.ready.name(self.key);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.name(self.key);
    }
}

/// A descriptor that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    io: Async<Arc<OwnedFd>>,
    waker: Waker,
}

impl Watched {
    /// Registers a descriptor that does not block. Nothing is awaited yet.
    pub(crate) fn new(fd: Arc<OwnedFd>, waker: Waker) -> io::Result<Watched> {
        Ok(Watched { io: Async::new_nonblocking(fd)?, waker })
    }

    /// Has the waker woken once when it is ready for one of these; soon, if it is now.
    pub(crate) fn arm(&self, read: bool, write: bool) -> io::Result<()> {
        let mut cx = Context::from_waker(&self.waker);
        // Ready is what was told before; the next call then awaits what is new.
        while read && let Poll::Ready(ready) = self.io.poll_readable(&mut cx) {
            ready?;
        }
        while write && let Poll::Ready(ready) = self.io.poll_writable(&mut cx) {
            ready?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn named(ready: &Ready<u8>) -> Vec<u8> {
        async_io::block_on(poll_fn(|cx| ready.poll(cx)));
        let mut named = Vec::new();
        ready.take(&mut named);
        named
    }

    fn watched(key: u8, ready: &Arc<Ready<u8>>) -> (UnixStream, UnixStream, Watched) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let fd = Arc::new(OwnedFd::from(near.try_clone().unwrap()));
        (near, far, Watched::new(fd, namer(key, ready)).unwrap())
    }

    #[test]
    fn all_that_is_ready_is_named() {
        let ready = Ready::new();
        let (_near, mut far, one) = watched(1, &ready);
        let (_near, mut other, two) = watched(2, &ready);
        one.arm(true, false).unwrap();
        two.arm(true, false).unwrap();
        far.write_all(b"x").unwrap();
        other.write_all(b"x").unwrap();
        let mut both = named(&ready);
        while both.len() < 2 {
            both.extend(named(&ready));
        }
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    }

    #[test]
    fn it_is_named_once_for_each_time_it_is_armed() {
        let ready = Ready::new();
        let (mut near, mut far, watched) = watched(1, &ready);
        watched.arm(true, false).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(named(&ready), [1]);
        // It is ready still, and says so again when asked.
        watched.arm(true, false).unwrap();
        assert_eq!(named(&ready), [1]);
        near.read_exact(&mut [0]).unwrap();
        watched.arm(true, true).unwrap();
        assert_eq!(named(&ready), [1], "for writing");
        far.write_all(b"x").unwrap();
        assert_eq!(named(&ready), [1], "for reading, which was awaited all along");
    }

    #[test]
    fn the_end_of_the_other_side_is_named() {
        let ready = Ready::new();
        let (_near, far, watched) = watched(1, &ready);
        watched.arm(true, false).unwrap();
        drop(far);
        assert_eq!(named(&ready), [1]);
    }
}
