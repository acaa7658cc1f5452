//! A listener of a worker, and its connections.

use std::io;
use std::sync::Arc;

use roundel_core::SockName;
use roundel_runtime::worker::{self, WorkerDriver};

use super::inner::Inner;
use crate::Connection;

/// A listener of a worker. When it is dropped, no more of its connections are taken, and those not
/// taken yet go to other workers.
///
/// Several threads may wait, at one listener or at several. A program with an event loop asks all
/// its listeners at once: see [`Worker::try_accept_any`](crate::Worker::try_accept_any).
#[derive(Debug)]
pub struct Listener {
    inner: Arc<Inner>,
    pub(super) listener: worker::Listener,
}

impl Listener {
    pub(super) fn new(inner: &Arc<Inner>, listener: worker::Listener) -> io::Result<Listener> {
        // Dropping it closes the listener again if it can't be watched.
        let listener = Listener { inner: Arc::clone(inner), listener };
        inner.open(&listener.listener)?;
        Ok(listener)
    }

    /// The address of the listener, with the port that the kernel chose if the program left it
    /// open.
    pub fn sockname(&self) -> &SockName {
        self.listener.sockname()
    }

    /// Waits for the next connection, and takes it; its reads and writes wait too. `None` once the
    /// worker must leave and nothing more will come: finish what is open, then end the program.
    ///
    /// A client that has been accepted may not have sent its request yet, and a server library
    /// whose graceful shutdown closes connections that have sent nothing loses that request. So
    /// leave in this order: stop accepting, wait for what is open, then
    /// [`finish`](crate::Worker::finish).
    ///
    /// A client that sends nothing holds up a program that serves one at a time: see
    /// [`set_timeout`](Connection::set_timeout).
    ///
    /// # Errors
    /// As accept(2), if this process accepts by itself: descriptors or memory ran out. It is no
    /// error if a client has left. The call also fails if descriptors run out because more threads
    /// wait than ever before.
    pub fn accept(&self) -> io::Result<Option<Connection>> {
        let taken = self.inner.wait_for(None, |driver| match driver.accept(&self.listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                driver.is_drained().then_some(Ok(None))
            }
            taken => Some(taken.map(Some)),
        })?;
        let Some(connection) = taken.transpose()?.flatten() else { return Ok(None) };
        connection.set_nonblocking(false)?;
        Ok(Some(Connection::new(connection)))
    }

    /// Takes the next connection if it is there; its reads and writes do not wait. Its request may
    /// not have come yet: see [`accept`](Listener::accept).
    ///
    /// # Errors
    /// `WouldBlock` if none is there now. Otherwise as accept(2), if this process accepts by
    /// itself.
    pub fn try_accept(&self) -> io::Result<Connection> {
        self.inner.act(|driver| driver.accept(&self.listener)).map(Connection::new)
    }

    /// Waits for the next connection, and gives it back: another worker gets it, and this one gets
    /// the next one a little later. False once the worker must leave and nothing more will come. If
    /// this process accepts by itself, nothing can be given back, so the call waits for that.
    ///
    /// # Errors
    /// If epoll(7) fails, or if descriptors ran out because more threads wait than ever before.
    pub fn decline(&self) -> io::Result<bool> {
        let declined = self.inner.wait_for(None, |driver| {
            let declined = try_decline(driver, &self.listener);
            (declined || driver.is_drained()).then_some(declined)
        })?;
        Ok(declined.unwrap_or(false))
    }

    /// Gives back the oldest connection that waits here. False if none waits now.
    pub fn try_decline(&self) -> bool {
        self.inner.act(|driver| try_decline(driver, &self.listener))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.inner.close(&self.listener);
    }
}

/// Reads the channel if no connection waits, or none is left.
fn try_decline(driver: &mut WorkerDriver, listener: &worker::Listener) -> bool {
    let declined = driver.decline(listener);
    if declined && driver.waiting() > 0 {
        return true;
    }
    driver.turn();
    declined || driver.decline(listener)
}
