//! The demo worker around a mio `Poll`. Tasks run between its events; async-io watches only what a
//! client that was not quick needs: the next bytes, or a timer.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{self, Context, Poll::Ready, Wake, ready};

use mio::{Events, Interest, Poll, Token, Waker};
use roundel_mio::{Connection, Listener, Standing, Worker};
use smol::{Async, Timer, channel::bounded, prelude::*};

use super::{PAUSE, Tasks, client::serve};

/// Serves the first `count` listeners of the operator until the worker must leave and no client is
/// left.
///
/// # Errors
/// As in the worker API, or epoll(7).
pub fn run(count: u32) -> io::Result<ExitCode> {
    let (mut worker, tasks) = (Worker::join()?, Tasks::new());
    worker.replace_on_panic();
    let web: io::Result<Vec<Listener>> = (0..count).map(|nth| worker.listen_nth(nth)).collect();
    let web = match web {
        // It must leave already.
        Err(_) if worker.standing() != Standing::Serving => Vec::new(),
        web => web?,
    };
    worker.ready();
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    poll.registry().register(&mut worker, Token(0), Interest::READABLE)?;
    let waker = Arc::new(PollWaker(Waker::new(poll.registry(), Token(1))?)).into();
    let mut cx = Context::from_waker(&waker);
    // Nothing is sent over this channel: closing it is the signal.
    let (stays, leaves) = bounded(1);
    let mut pause = None;
    loop {
        let accepted = match pause {
            Some(_) => Err(ErrorKind::WouldBlock.into()),
            None => worker.try_accept_any(&web),
        };
        // The call may have changed the standing.
        if worker.standing() != Standing::Serving {
            stays.close();
        }
        let is_new = match accepted {
            Ok((_, connection)) => {
                let stream = Stream { watch: None, connection: Arc::new(connection) };
                tasks.spawn(serve(stream, leaves.clone())).detach();
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                pause = Some(Timer::after(PAUSE));
                false
            }
        };
        // The clients come first: those that connect meanwhile may go to another worker.
        let is_busy = (0..64).all(|_| tasks.try_tick());
        if is_new || is_busy {
            continue;
        }
        if worker.is_drained() && tasks.is_empty() {
            return Ok(worker.finish());
        }
        if pause.as_mut().is_some_and(|pause| pause.poll(&mut cx).is_ready()) {
            pause = None;
            continue;
        }
        // While this tick waits for a task, the waker ends the poll.
        let mut tick = pin!(tasks.tick());
        if tick.as_mut().poll(&mut cx).is_pending()
            && let Err(error) = poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
    }
}

/// Ends the poll's wait when a task can go on.
struct PollWaker(Waker);

impl Wake for PollWaker {
    fn wake(self: Arc<Self>) {
        let _ = self.0.wake();
    }
}

/// A connection that is watched from its first wait on: most are answered without one.
struct Stream {
    watch: Option<Async<Arc<Connection>>>,
    connection: Arc<Connection>,
}

impl Stream {
    fn watch(&mut self) -> io::Result<&Async<Arc<Connection>>> {
        match &mut self.watch {
            Some(watch) => Ok(watch),
            empty => Ok(empty.insert(Async::new_nonblocking(Arc::clone(&self.connection))?)),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> task::Poll<io::Result<usize>> {
        loop {
            match (&*self.connection).read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.watch()?.poll_readable(cx))?;
                }
                result => return Ready(result),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        loop {
            match (&*self.connection).write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.watch()?.poll_writable(cx))?;
                }
                result => return Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> task::Poll<io::Result<()>> {
        Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> task::Poll<io::Result<()>> {
        Ready(Ok(()))
    }
}
