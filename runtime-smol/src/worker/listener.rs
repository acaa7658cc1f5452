//! A listener of a worker, and its connections.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::stream::Stream;
use roundel_core::SockName;
use roundel_runtime::worker::{self, Standing, WorkerDriver};

use super::inner::Inner;
use super::waiters::Waiter;
use crate::Connection;
use crate::watch::Watched;

/// A listener of a worker. When it is dropped, no more of its connections are taken, and those not
/// taken yet go to other workers.
#[derive(Debug)]
pub struct Listener {
    inner: Arc<Inner>,
    listener: worker::Listener,
    /// The listening socket, if this process accepts by itself.
    own: Option<Watched>,
}

impl Listener {
    pub(super) fn new(inner: &Arc<Inner>, listener: worker::Listener) -> io::Result<Listener> {
        let own = listener.own_fd().map(|fd| inner.watch(fd)).transpose()?;
        Ok(Listener { inner: Arc::clone(inner), listener, own })
    }

    /// The address of the listener, with the port that the kernel chose if the program left it
    /// open.
    pub fn sockname(&self) -> &SockName {
        self.listener.sockname()
    }

    /// Waits for the next connection, and takes it. `None` once the worker must leave and nothing
    /// more will come: finish what is open, then end the program.
    ///
    /// A client that has been accepted may not have sent its request yet, and a server library
    /// whose graceful shutdown closes connections that have sent nothing loses that request. So
    /// leave in this order: stop accepting, wait for what is open, then
    /// [`finish`](crate::Worker::finish).
    ///
    /// It can be dropped at any time: a connection is taken at the moment at which it is returned.
    ///
    /// # Errors
    /// As accept(2), if this process accepts by itself: descriptors or memory ran out. It is no
    /// error if a client has left.
    pub async fn accept(&self) -> io::Result<Option<Connection>> {
        let who = self.inner.waiter();
        poll_fn(|cx| self.poll_accept(&who, cx)).await
    }

    /// The connections, one after the other. Ends when the worker must leave and nothing more will
    /// come: see [`accept`](Listener::accept).
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self, who: self.inner.waiter() }
    }

    /// Takes the next connection if it is there. Its request may not have come yet: see
    /// [`accept`](Listener::accept).
    ///
    /// # Errors
    /// `WouldBlock` if none is there now. Otherwise as accept(2), if this process accepts by
    /// itself.
    pub fn try_accept(&self) -> io::Result<Connection> {
        self.inner.with(None, |driver| driver.accept(&self.listener)).map(Connection::new)
    }

    /// Waits for the next connection, and gives it back: another worker gets it, and this one gets
    /// the next one a little later. False once the worker must leave and nothing more will come. If
    /// this process accepts by itself, nothing can be given back, so the call waits for that.
    ///
    /// # Errors
    /// If epoll(7) fails.
    pub async fn decline(&self) -> io::Result<bool> {
        let who = self.inner.waiter();
        poll_fn(|cx| self.poll_decline(&who, cx)).await
    }

    /// Gives back the oldest connection that waits here. False if none waits now.
    pub fn try_decline(&self) -> bool {
        self.inner.with(None, |driver| {
            let declined = driver.decline(&self.listener);
            if declined && driver.waiting() > 0 {
                return true;
            }
            driver.turn();
            declined || driver.decline(&self.listener)
        })
    }

    fn poll_decline(&self, who: &Waiter, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.inner.poll(who, cx, |driver| {
            if driver.decline(&self.listener) {
                return Some(true);
            }
            driver.is_drained().then_some(false)
        })
    }

    fn poll_accept(
        &self,
        who: &Waiter,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Connection>>> {
        let mut accepts = false;
        let polled = self.inner.poll(who, cx, |driver| {
            let taken = self.take(driver);
            accepts = driver.standing() == Standing::Serving;
            taken
        });
        if let Poll::Ready(result) = polled {
            return Poll::Ready(result.and_then(|taken| taken));
        }
        // A leaving worker accepts no more; other workers do.
        if accepts && let Some(own) = &self.own {
            own.arm(true, false)?;
        }
        Poll::Pending
    }

    fn take(&self, driver: &mut WorkerDriver) -> Option<io::Result<Option<Connection>>> {
        match driver.take(&self.listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                driver.is_drained().then_some(Ok(None))
            }
            taken => Some(taken.map(|connection| Some(Connection::new(connection)))),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.inner.with(None, |driver| driver.close(self.listener.clone()));
    }
}

/// The connections of a listener: see [`Listener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a Listener,
    who: Waiter,
}

impl Stream for Incoming<'_> {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.listener.poll_accept(&self.who, cx).map(Result::transpose)
    }
}
