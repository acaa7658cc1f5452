//! A descriptor that always wakes the same waker when it is ready.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_io::Async;

use crate::driver;

/// A watched descriptor.
#[derive(Debug)]
pub(crate) struct Watched {
    io: Async<Arc<OwnedFd>>,
    waker: Waker,
}

impl Watched {
    /// Registers a non-blocking descriptor. It wakes nothing yet.
    pub(crate) fn new(fd: Arc<OwnedFd>, waker: Waker) -> io::Result<Watched> {
        driver::start()?;
        Ok(Watched { io: Async::new_nonblocking(fd)?, waker })
    }

    /// Wakes the waker once when the descriptor is ready for one of these; soon, if it is ready
    /// now.
    pub(crate) fn arm(&self, read: bool, write: bool) -> io::Result<()> {
        let mut cx = Context::from_waker(&self.waker);
        // `Ready` reports earlier readiness; the next call then waits for the next one.
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
    use std::sync::Mutex;
    use std::task::Wake;

    use super::*;

    /// How often the waker was woken, and the task that waits for that.
    #[derive(Default)]
    struct Count(Mutex<(usize, Option<Waker>)>);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            if let Some(waiting) = state.1.take() {
                waiting.wake();
            }
        }
    }

    impl Count {
        /// Waits until the waker was woken.
        fn take(&self) -> usize {
            async_io::block_on(poll_fn(|cx| {
                let mut state = self.0.lock().unwrap();
                if state.0 > 0 {
                    return Poll::Ready(std::mem::take(&mut state.0));
                }
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }))
        }
    }

    fn watched() -> (UnixStream, UnixStream, Watched, Arc<Count>) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let fd = Arc::new(OwnedFd::from(near.try_clone().unwrap()));
        let count = Arc::new(Count::default());
        (near, far, Watched::new(fd, Waker::from(Arc::clone(&count))).unwrap(), count)
    }

    #[test]
    fn it_wakes_once_for_each_time_it_is_armed() {
        let (mut near, mut far, watched, count) = watched();
        watched.arm(true, false).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(count.take(), 1);
        // It is still ready, and wakes again when armed again.
        watched.arm(true, false).unwrap();
        assert_eq!(count.take(), 1);
        near.read_exact(&mut [0]).unwrap();
        watched.arm(true, true).unwrap();
        assert_eq!(count.take(), 1, "for writing");
        far.write_all(b"x").unwrap();
        assert_eq!(count.take(), 1, "for reading, which was awaited all along");
    }

    #[test]
    fn the_end_of_the_other_side_wakes() {
        let (_near, far, watched, count) = watched();
        watched.arm(true, false).unwrap();
        drop(far);
        assert_eq!(count.take(), 1);
    }
}
