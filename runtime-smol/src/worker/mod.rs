//! The worker's side for async programs.

use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

mod inner;
mod listener;
#[cfg(test)]
mod tests;
mod waiters;

use async_io::Timer;
use futures_lite::future;
use roundel_core::{Address, ListenKey};
use roundel_runtime::address;
use roundel_runtime::worker::{Standing, WorkerDriver, explain_nth};

use inner::Inner;
pub use listener::{Incoming, Listener};

/// How long the primary may take to answer a [`Worker::listen`].
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long [`Worker::finish`] waits for the primary.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often [`Worker::all_closed`] counts.
const COUNT_INTERVAL: Duration = Duration::from_millis(50);

/// A process that serves connections: as a worker of a cluster, or by itself outside one.
///
/// ```no_run
/// use smol::io::AsyncWriteExt;
///
/// fn main() -> std::io::Result<std::process::ExitCode> {
///     let worker = roundel_smol::Worker::join()?;
///     smol::block_on(async {
///         let web = worker.listen("127.0.0.1:8080").await?;
///         while let Some(mut connection) = web.accept().await? {
///             // A client that has left is no reason to stop.
///             let _ = connection.write_all(b"hello\n").await;
///         }
///         Ok(worker.finish().await)
///     })
/// }
/// ```
///
/// Any executor will do. A program that serves each connection in a task waits for these tasks
/// before it calls [`finish`](Worker::finish). The channel to the primary is read and written while
/// some task waits: for a [`listen`](Worker::listen), an [`accept`](Listener::accept), for
/// [`leaving`](Worker::leaving) or [`all_closed`](Worker::all_closed). Meanwhile a native primary is
/// told how many connections are open, within 50 ms of a change; `status` shows the number.
///
/// A connection is acknowledged to the primary when the program takes it. If the worker dies,
/// connections not taken go to another worker.
///
/// `roundel_mio` has the same API for programs with mio or threads. Calls that are `async` here
/// block there; calls that begin with `try_` never wait in either crate.
#[derive(Debug)]
pub struct Worker {
    inner: Arc<Inner>,
}

impl Worker {
    /// Joins the cluster that started this process, or runs alone. Do it early: helpers started
    /// before inherit the channel.
    ///
    /// # Errors
    /// If the environment names something that is not a channel, or if there are no descriptors
    /// left, or no thread for async-io; `Unsupported` under a Node primary without the feature
    /// `node`.
    pub fn join() -> io::Result<Worker> {
        Worker::over(WorkerDriver::join()?)
    }

    pub(crate) fn over(driver: WorkerDriver) -> io::Result<Worker> {
        Ok(Worker { inner: Inner::new(driver)? })
    }

    /// True if a primary started this process and is still there.
    pub fn is_in_cluster(&self) -> bool {
        self.inner.with(None, |driver| driver.is_in_cluster())
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
    pub async fn listen(&self, at: &str) -> io::Result<Listener> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, format!("{at}: {why}"));
        self.listen_key(ListenKey::stream(address::parse(at).map_err(invalid)?)).await
    }

    /// Listens on the operator's nth `--bind`, counted from 0.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such `--bind`, or no cluster.
    pub async fn listen_nth(&self, nth: u32) -> io::Result<Listener> {
        let key = ListenKey::stream(Address::Nth(nth));
        self.listen_key(key).await.map_err(|error| explain_nth(nth, error))
    }

    /// Listens on any key. See [`listen`](Worker::listen).
    ///
    /// # Errors
    /// As `listen`.
    pub async fn listen_key(&self, key: ListenKey) -> io::Result<Listener> {
        let late = async {
            Timer::after(LISTEN_TIMEOUT).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let granted = future::or(self.inner.ask(key), late).await?;
        Listener::new(&self.inner, granted)
    }

    /// Waits until the worker must leave, and returns why. Programs that keep connections open
    /// finish those then.
    ///
    /// [`accept`](Listener::accept) may still return what has arrived, and a client that has been
    /// accepted may not have sent its request yet: a server library whose graceful shutdown closes
    /// connections that have sent nothing loses that request. So leave in this order: stop
    /// accepting, wait for what is open, then [`finish`](Worker::finish).
    ///
    /// # Errors
    /// If epoll(7) fails.
    pub fn leaving(&self) -> impl Future<Output = io::Result<Standing>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        let is_leaving = |standing: &Standing| *standing != Standing::Serving;
        async move { inner.wait_for(|driver| Some(driver.standing()).filter(is_leaving)).await }
    }

    /// Waits until the program has closed every connection that it took, for the time between the
    /// end of [`accept`](Listener::accept) and [`finish`](Worker::finish). Meanwhile the primary is
    /// told how many are left, which a program that waits in another way does not do. It returns
    /// when that is told too, about 50 ms after the last one was closed.
    ///
    /// What the program has turned into something else counts as closed: see
    /// [`Connection::hold`](crate::Connection::hold).
    ///
    /// # Errors
    /// If epoll(7) fails.
    pub fn all_closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            while !inner.with(None, |driver| driver.is_all_closed()) {
                // Without a primary that is told, nothing wakes the other one.
                let soon = async {
                    Timer::after(COUNT_INTERVAL).await;
                    Ok(())
                };
                let closed = inner.wait_for(|driver| driver.is_all_closed().then_some(()));
                future::or(closed, soon).await?;
            }
            Ok(())
        }
    }

    /// Says that the program is ready. It is needed only under a primary with `--wait-ready`: there
    /// connections come only to workers that listen and have said so. A second time changes nothing.
    pub fn ready(&self) {
        self.inner.with(None, |driver| driver.ready());
    }

    /// How many connections the program has taken and not closed yet. What it has turned into
    /// something else counts as closed: see [`Connection::hold`](crate::Connection::hold).
    pub fn open_connections(&self) -> u32 {
        self.inner.with(None, |driver| driver.open_connections())
    }

    /// Whether the worker goes on serving, as far as it knows.
    pub fn standing(&self) -> Standing {
        self.inner.with(None, |driver| driver.standing())
    }

    /// True if a panic has happened since [`replace_on_panic`](Worker::replace_on_panic).
    pub fn is_failing(&self) -> bool {
        self.inner.shared.is_failing()
    }

    /// Tells the primary that this worker fails: see
    /// [`replace_on_panic`](Worker::replace_on_panic).
    pub fn request_replacement(&self) {
        self.inner.with(None, |driver| driver.request_replacement());
    }

    /// Leaves of its own accord: no more connections come, and the end of the program does not
    /// count as a crash.
    pub fn leave(&self) {
        self.inner.with(None, |driver| driver.leave());
    }

    /// Ends a worker: sends what is left to send, and waits until the primary has confirmed what it
    /// must know first: after a panic or [`request_replacement`](Worker::request_replacement), that
    /// the replacement was started; under a Node primary also a leave. It waits at most 5 s in all.
    /// It does not wait for connections: finish those before. The exit code is 101 after a panic,
    /// else 0.
    pub async fn finish(self) -> ExitCode {
        let shared = &self.inner.shared;
        let settled =
            self.inner.wait_for(|driver| driver.is_settled(shared.is_failing()).then_some(()));
        let late = async {
            Timer::after(LAST_REPORT_TIMEOUT).await;
            Ok(())
        };
        // The program is ending, so there is nothing to do about an error.
        let _ = future::or(settled, late).await;
        if shared.is_failing() { ExitCode::from(101) } else { ExitCode::SUCCESS }
    }
}
