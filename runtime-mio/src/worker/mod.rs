//! The worker's side for mio programs.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod inner;
mod listener;
#[cfg(test)]
mod tests;
mod watches;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use roundel_core::{Address, ListenKey};
use roundel_runtime::address;
use roundel_runtime::worker::{Standing, WorkerDriver, explain_nth};

use crate::Connection;
use inner::Inner;
pub use listener::Listener;

/// How long the primary may take to answer a [`Worker::listen`].
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long [`Worker::finish`] waits for the primary.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often [`Worker::all_closed`] counts.
const COUNT_INTERVAL: Duration = Duration::from_millis(50);

/// A process that serves connections: as a worker of a cluster, or by itself outside one.
///
/// ```no_run
/// use std::io::Write;
///
/// fn main() -> std::io::Result<std::process::ExitCode> {
///     let worker = roundel_mio::Worker::join()?;
///     let web = worker.listen("127.0.0.1:8080")?;
///     while let Some(mut connection) = web.accept()? {
///         // A client that has left is no reason to stop.
///         let _ = connection.write_all(b"hello\n");
///     }
///     Ok(worker.finish())
/// }
/// ```
///
/// [`accept`](Listener::accept) waits, on any number of threads. An event loop registers the
/// worker, which is a mio [`Source`]. When its token is ready it calls
/// [`try_accept_any`](Worker::try_accept_any) until that would block, and checks
/// [`standing`](Worker::standing):
///
/// ```no_run
/// use mio::{Events, Interest, Poll, Token};
/// use roundel_mio::{Standing, Worker};
///
/// const WORKER: Token = Token(0);
///
/// fn main() -> std::io::Result<()> {
///     let mut worker = Worker::join()?;
///     let listeners = [worker.listen("127.0.0.1:8080")?, worker.listen("127.0.0.1:8081")?];
///     let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
///     poll.registry().register(&mut worker, WORKER, Interest::READABLE)?;
///     while worker.standing() == Standing::Serving {
///         poll.poll(&mut events, None)?;
///         if events.iter().any(|event| event.token() == WORKER) {
///             while let Ok((nth, connection)) = worker.try_accept_any(&listeners) {
///                 println!("{:?} at listener {nth}", connection.peer_addr());
///             }
///         }
///         // Events of connections, with other tokens, are served here.
///     }
///     Ok(())
/// }
/// ```
///
/// No order of calls loses a wake. The token is ready while something waits for which the program
/// has not been woken since it came, or while something is left after a call that took one. It does
/// not matter what was called in between, or which call has read the channel. The token is also
/// ready when the [`standing`](Worker::standing) changes. If a process accepts by itself, outside a
/// cluster or under the policy `shared`, accept from each listener until it would block, as with
/// any source of mio.
///
/// A connection is acknowledged to the primary when the program takes it. If the worker dies,
/// connections not taken go to another worker.
///
/// A native primary is told how many connections are open, within 50 ms of a change, as long as
/// some thread waits for the worker or its token is registered. `status` shows the number. A program
/// that serves on the thread that accepts tells it only when it accepts again.
///
/// `roundel_smol` has the same API for async programs. Calls that wait are `async` there; calls
/// that begin with `try_` never wait in either crate:
///
/// | | here | `roundel_smol` |
/// |---|---|---|
/// | the next connection | `listener.accept()` | `listener.accept().await`, `listener.incoming()` |
/// | give it to another worker | `listener.decline()` | `listener.decline().await` |
/// | only if it is there | `listener.try_accept()`, `try_decline()` | the same |
/// | of several listeners | a thread each, or `worker.try_accept_any(&listeners)` | a task each, or a race of `accept`s |
/// | until it must leave | `worker.leaving()`, or `standing()` when the token is ready | `worker.leaving().await` |
/// | until all clients have left | `worker.all_closed()` | `worker.all_closed().await` |
/// | the end | `worker.finish()` | `worker.finish().await` |
#[derive(Debug)]
pub struct Worker {
    inner: Arc<Inner>,
    /// The event loop in which the program has registered the worker.
    watch: Option<u64>,
}

impl Worker {
    /// Joins the cluster that started this process, or runs alone. Do it early: helpers started
    /// before inherit the channel.
    ///
    /// # Errors
    /// If the environment names something that is not a channel, or if descriptors run out.
    pub fn join() -> io::Result<Worker> {
        Worker::over(WorkerDriver::join()?)
    }

    pub(crate) fn over(driver: WorkerDriver) -> io::Result<Worker> {
        Ok(Worker { inner: Inner::new(driver)?, watch: None })
    }

    /// True if a primary started this process and is still there.
    pub fn is_in_cluster(&self) -> bool {
        self.inner.shared.with(|driver| driver.is_in_cluster())
    }

    /// Makes a panic on any thread tell the primary to start a replacement at once; the program may
    /// go on to finish open work. Without this, the primary learns of a fatal panic only by the end
    /// of the process.
    pub fn replace_on_panic(&self) {
        self.inner.shared.replace_on_panic();
    }

    /// Listens through the primary, on an address as the command line writes it: `127.0.0.1:8080`,
    /// `[::]:80`, `*:80`, `unix:/run/web.sock`. All workers that ask for the same address share one
    /// listener. Waits for the primary's answer.
    ///
    /// # Errors
    /// `InvalidInput` if the address can't be parsed, `TimedOut` if there is no answer within 30 s;
    /// otherwise the primary's error from bind(2), such as `AddrInUse`.
    pub fn listen(&self, at: &str) -> io::Result<Listener> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, format!("{at}: {why}"));
        self.listen_key(ListenKey::stream(address::parse(at).map_err(invalid)?))
    }

    /// Listens on the operator's nth `--bind`, counted from 0.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such `--bind`, or no cluster.
    pub fn listen_nth(&self, nth: u32) -> io::Result<Listener> {
        let key = ListenKey::stream(Address::Nth(nth));
        self.listen_key(key).map_err(|error| explain_nth(nth, error))
    }

    /// Listens on any key. See [`listen`](Worker::listen).
    ///
    /// # Errors
    /// As `listen`.
    pub fn listen_key(&self, key: ListenKey) -> io::Result<Listener> {
        let deadline = Some(Instant::now() + LISTEN_TIMEOUT);
        let ask = self.inner.act(|driver| driver.ask(key, 0, Vec::new()));
        let answer = self.inner.wait_for(deadline, |driver| {
            driver.answer(ask).or_else(|| {
                driver.turn();
                driver.answer(ask)
            })
        })?;
        Listener::new(&self.inner, answer.ok_or(io::ErrorKind::TimedOut)??)
    }

    /// Takes the next connection from any of these listeners, in turns; also returns the place in
    /// the list of the listener that it came from. An event loop calls this until it would block.
    /// Reads and writes of the connection do not wait.
    ///
    /// A client that has been accepted may not have sent its request yet: see [`Listener::accept`].
    ///
    /// # Errors
    /// As [`try_accept`](Listener::try_accept).
    pub fn try_accept_any(&self, listeners: &[Listener]) -> io::Result<(usize, Connection)> {
        let listeners = listeners.iter().map(|listener| &listener.listener);
        let (nth, connection) = self.inner.act(|driver| driver.accept_any(listeners))?;
        Ok((nth, Connection::new(connection)))
    }

    /// Waits until the worker must leave, and returns why: for a thread beside those that
    /// [`accept`](Listener::accept). They may still take what has arrived, and a client that has
    /// been accepted may not have sent its request yet: a server library whose graceful shutdown
    /// closes connections that have sent nothing loses that request. So leave in this order: stop
    /// accepting, wait for what is open, then [`finish`](Worker::finish).
    ///
    /// # Errors
    /// If epoll(7) fails, or if descriptors ran out because more threads wait than ever before.
    pub fn leaving(&self) -> io::Result<Standing> {
        let standing = self.inner.wait_for(None, |driver| {
            driver.turn();
            Some(driver.standing()).filter(|standing| *standing != Standing::Serving)
        })?;
        Ok(standing.unwrap_or(Standing::Leaving))
    }

    /// Waits until the program has closed every connection that it took, for the time between the
    /// end of [`accept`](Listener::accept) and [`finish`](Worker::finish). Meanwhile the primary is
    /// told how many are left, which a program that waits in another way does not do. It returns
    /// when that is told too, about 50 ms after the last one was closed.
    ///
    /// What the program has turned into something else counts as closed: see
    /// [`Connection::hold`].
    ///
    /// # Errors
    /// If epoll(7) fails, or if descriptors ran out because more threads wait than ever before.
    pub fn all_closed(&self) -> io::Result<()> {
        loop {
            // Without a primary that is told, nothing wakes this call.
            let soon = Some(Instant::now() + COUNT_INTERVAL);
            let closed = self.inner.wait_for(soon, |driver| {
                driver.turn();
                driver.is_all_closed().then_some(())
            })?;
            if closed.is_some() {
                return Ok(());
            }
        }
    }

    /// Says that the program is ready. It is needed only under a primary with `--wait-ready`: there
    /// connections come only to workers that listen and have said so. A second time changes nothing.
    pub fn ready(&self) {
        self.inner.act(WorkerDriver::ready);
    }

    /// How many connections the program has taken and not closed yet. What it has turned into
    /// something else counts as closed: see [`Connection::hold`].
    pub fn open_connections(&self) -> u32 {
        self.inner.shared.with(|driver| driver.open_connections())
    }

    /// Whether the worker goes on serving, as far as it knows. An event loop checks this each time
    /// the worker's token was ready. The order described at [`leaving`](Worker::leaving) applies to
    /// it too.
    pub fn standing(&self) -> Standing {
        self.inner.shared.with(|driver| driver.standing())
    }

    /// True if the worker must leave, and no more connections will come.
    pub fn is_drained(&self) -> bool {
        self.inner.shared.with(|driver| driver.is_drained())
    }

    /// True if a panic has happened since [`replace_on_panic`](Worker::replace_on_panic).
    pub fn is_failing(&self) -> bool {
        self.inner.shared.is_failing()
    }

    /// Tells the primary that this worker fails: see
    /// [`replace_on_panic`](Worker::replace_on_panic).
    pub fn request_replacement(&self) {
        self.inner.act(WorkerDriver::request_replacement);
    }

    /// Leaves of its own accord: no more connections come, and the end of the program does not
    /// count as a crash.
    pub fn leave(&self) {
        self.inner.act(WorkerDriver::leave);
    }

    /// Reads and writes what is possible now: for an event loop that wants no connection when the
    /// worker's token is ready. The connections stay there until it wants them.
    pub fn turn(&self) {
        self.inner.act(WorkerDriver::turn);
    }

    /// Ends a worker: sends what is left to send, and waits until the primary has confirmed what it
    /// must know first: after a panic or [`request_replacement`](Worker::request_replacement), that
    /// the replacement was started; under a Node primary also a leave. It waits at most 5 s in all.
    /// It does not wait for connections: finish those before. The exit code is 101 after a panic,
    /// else 0.
    pub fn finish(self) -> ExitCode {
        let shared = &self.inner.shared;
        let deadline = Some(Instant::now() + LAST_REPORT_TIMEOUT);
        // The program is ending, so there is nothing to do about an error.
        let _ = self.inner.wait_for(deadline, |driver| {
            driver.turn();
            driver.is_settled(shared.is_failing()).then_some(())
        });
        if shared.is_failing() { ExitCode::from(101) } else { ExitCode::SUCCESS }
    }
}

/// The worker is ready to read when its [`standing`](Worker::standing) has changed, when a
/// connection may be there to take, or when the primary must be told how many are open: any call
/// that takes a connection does that, and [`turn`](Worker::turn). It can be registered in one event
/// loop at a time.
impl Source for Worker {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        if self.watch.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.watch = Some(self.inner.add(registry, token, interests)?);
        Ok(())
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        let number = self.watch.ok_or(io::ErrorKind::NotFound)?;
        self.inner.renew(number, registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        let _ = registry;
        self.inner.remove(self.watch.take().ok_or(io::ErrorKind::NotFound)?)
    }
}
