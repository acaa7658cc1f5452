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
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// A process that serves connections: as a worker of a cluster, or, where there is no cluster, by
/// itself.
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
/// [`accept`](Listener::accept) waits, on as many threads as there are. An event loop registers the
/// worker, which is a mio [`Source`]. When its token is ready it calls
/// [`try_accept_any`](Worker::try_accept_any) until that would block, and looks at
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
/// No order of calls loses a wake: while something waits that the program was not woken for since
/// it came, or something is left after a call that took one, the token is ready, whatever was
/// called in between, and whichever call has read the channel. It is ready as well when the
/// [`standing`](Worker::standing) changes. Where a process accepts by itself, outside a cluster or
/// under the policy `shared`, each listener is asked until it would block, as with any source of
/// mio.
///
/// A connection is acknowledged to the primary when the program takes it. What it has not taken
/// goes to another worker if this one dies.
///
/// `roundel_smol` has the same API for async programs. What waits there is `async`; what begins with
/// `try_` never waits, here and there:
///
/// | | here | `roundel_smol` |
/// |---|---|---|
/// | the next connection | `listener.accept()` | `listener.accept().await`, `listener.incoming()` |
/// | give it to another worker | `listener.decline()` | `listener.decline().await` |
/// | only if it is there | `listener.try_accept()`, `try_decline()` | the same |
/// | of several listeners | a thread each, or `worker.try_accept_any(&listeners)` | a task each, or a race of `accept`s |
/// | until it is to leave | `worker.leaving()`, or `standing()` when the token is ready | `worker.leaving().await` |
/// | the end | `worker.finish()` | `worker.finish().await` |
#[derive(Debug)]
pub struct Worker {
    inner: Arc<Inner>,
    /// Where the program has registered it.
    watch: Option<u64>,
}

impl Worker {
    /// Joins the cluster that started this process, or stands alone. Do it early: helpers started
    /// before inherit the channel.
    ///
    /// # Errors
    /// If the environment names a channel that is none, or for want of descriptors.
    pub fn join() -> io::Result<Worker> {
        Worker::over(WorkerDriver::join()?)
    }

    pub(crate) fn over(driver: WorkerDriver) -> io::Result<Worker> {
        Ok(Worker { inner: Inner::new(driver)?, watch: None })
    }

    /// Whether a primary started this process, and is there still.
    pub fn is_in_cluster(&self) -> bool {
        self.inner.shared.with(|driver| driver.is_in_cluster())
    }

    /// Has a panic on any thread tell the primary to start a replacement at once; the program may
    /// go on to finish what it has. Without this, a panic that ends the process is told by its
    /// end.
    pub fn replace_on_panic(&self) {
        self.inner.shared.replace_on_panic();
    }

    /// Listens through the primary, on an address as the command line writes it:
    /// `127.0.0.1:8080`, `[::]:80`, `*:80`, `unix:/run/web.sock`. All workers that ask for the
    /// same share one listener. Waits for the primary's answer.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is none, `TimedOut` if there is no answer within 30 s;
    /// otherwise what bind(2) said to the primary, such as `AddrInUse`.
    pub fn listen(&self, at: &str) -> io::Result<Listener> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, format!("{at}: {why}"));
        self.listen_key(ListenKey::stream(address::parse(at).map_err(invalid)?))
    }

    /// Listens on the operator's nth `--bind`, counted from 0.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, or no cluster.
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

    /// Takes the next connection of whichever of these listeners has one, in turns; tells which one
    /// it came from, by its place in the list. An event loop calls it until it would block. Reads
    /// and writes of the connection do not wait.
    ///
    /// A client that has been accepted may not have sent its request yet: see
    /// [`Listener::accept`].
    ///
    /// # Errors
    /// As [`try_accept`](Listener::try_accept).
    pub fn try_accept_any(&self, listeners: &[Listener]) -> io::Result<(usize, Connection)> {
        let listeners = listeners.iter().map(|listener| &listener.listener);
        let (nth, connection) = self.inner.act(|driver| driver.accept_any(listeners))?;
        Ok((nth, Connection::new(connection)))
    }

    /// Waits until the worker is to leave, and says why: for a thread beside those that
    /// [`accept`](Listener::accept). They may still take what has arrived, and a client that has
    /// been accepted may not have sent its request yet: a server library whose graceful shutdown
    /// closes connections that have sent nothing loses that request. So leave in this order: stop
    /// accepting, wait for what is open, then [`finish`](Worker::finish).
    ///
    /// # Errors
    /// If epoll(7) fails, or for want of descriptors if more threads wait than ever before.
    pub fn leaving(&self) -> io::Result<Standing> {
        let standing = self.inner.wait_for(None, |driver| {
            driver.turn();
            Some(driver.standing()).filter(|standing| *standing != Standing::Serving)
        })?;
        Ok(standing.unwrap_or(Standing::Leaving))
    }

    /// Whether the worker is to go on, as far as it was told. Event loops look each time that the
    /// worker's token was ready. What [`leaving`](Worker::leaving) says of the order applies to
    /// them too.
    pub fn standing(&self) -> Standing {
        self.inner.shared.with(|driver| driver.standing())
    }

    /// Whether the worker is to leave, and no more connections will come.
    pub fn is_drained(&self) -> bool {
        self.inner.shared.with(|driver| driver.is_drained())
    }

    /// Whether a panic has happened since [`replace_on_panic`](Worker::replace_on_panic).
    pub fn is_failing(&self) -> bool {
        self.inner.shared.is_failing()
    }

    /// Tells the primary that this worker fails: see
    /// [`replace_on_panic`](Worker::replace_on_panic).
    pub fn request_replacement(&self) {
        self.inner.act(WorkerDriver::request_replacement);
    }

    /// Leaves of its own will: no more connections come, and the end of the program will be no
    /// crash.
    pub fn leave(&self) {
        self.inner.act(WorkerDriver::leave);
    }

    /// Reads and writes what is possible now: for an event loop that wants no connection when the
    /// worker's token is ready. What it wants later it finds then.
    pub fn turn(&self) {
        self.inner.act(WorkerDriver::turn);
    }

    /// The end of a worker: sends what is left to be said, and waits until the primary has
    /// confirmed what it must know of first: after a panic or
    /// [`request_replacement`](Worker::request_replacement) that the replacement was started, under
    /// a primary of Node also a leave. At most 5 s in all. It does not wait for connections: finish
    /// those before. The exit code is 101 after a panic, else 0.
    pub fn finish(self) -> ExitCode {
        let shared = &self.inner.shared;
        let deadline = Some(Instant::now() + FAREWELL_TIMEOUT);
        // There is nobody left to tell of a failure.
        let _ = self.inner.wait_for(deadline, |driver| {
            driver.turn();
            driver.is_settled(shared.is_failing()).then_some(())
        });
        if shared.is_failing() { ExitCode::from(101) } else { ExitCode::SUCCESS }
    }
}

/// The worker is ready to read when its [`standing`](Worker::standing) has changed, or a
/// connection may be there to take. It can be registered once at a time.
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
