//! A worker on tokio that serves HTTP with hyper: the runtime's worker half, which never waits,
//! and an `AsyncFd` that does.
//!
//! `roundel run -b 127.0.0.1:8080 target/debug/examples/tokio_worker`
//!
//! When it leaves, whether the primary or a SIGTERM says so, every connection that it has taken
//! still gets the answer to its next request, and is told with it that this was the last one. Only
//! one on which nothing comes for [`PATIENCE`] is closed unasked. Hyper's graceful shutdown alone
//! closes connections that are idle at once, those that have yet to send their first request among
//! them, and the client loses a request that is on its way.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use roundel_core::{Address, ListenKey};

use roundel_runtime::worker::{Hold, Listener, Shared, Standing, WorkerDriver, worker_id};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

/// How long a connection that says nothing is kept when the worker leaves; at most half of the time
/// that the primary gives.
const PATIENCE: Duration = Duration::from_secs(5);

#[expect(deprecated, reason = "it is for descriptors that may be closed meanwhile: not this one")]
fn watch(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    AsyncFd::with_interest(fd, interest)
}

/// A worker of a cluster.
struct Worker {
    shared: Arc<Shared>,
    channel: AsyncFd<Arc<OwnedFd>>,
    /// Becomes ready when a thread panics. Ready for ever then, but only its rise is awaited.
    panic_fd: AsyncFd<Arc<OwnedFd>>,
    /// Becomes ready when the primary must be told how many connections are open.
    load_fd: AsyncFd<Arc<OwnedFd>>,
    /// A task has read something that others may wait for.
    news: Notify,
}

impl Worker {
    fn join() -> io::Result<Worker> {
        let driver = WorkerDriver::join()?;
        let channel = driver.channel_fd().ok_or(io::ErrorKind::NotConnected)?;
        let channel = watch(Arc::clone(channel), Interest::READABLE | Interest::WRITABLE)?;
        let load_fd = driver.load_fd().ok_or(io::ErrorKind::NotConnected)?;
        let load_fd = watch(Arc::clone(load_fd), Interest::READABLE)?;
        let shared = Shared::new(driver)?;
        shared.replace_on_panic();
        let panic_fd = watch(Arc::clone(shared.panic_fd()), Interest::READABLE)?;
        Ok(Worker { shared, channel, panic_fd, load_fd, news: Notify::new() })
    }

    /// Does something with the driver, and tells all who wait if that was news to them: whichever
    /// task reads the channel reads for all of them.
    fn with<R>(&self, act: impl FnOnce(&mut WorkerDriver) -> R) -> R {
        let (result, is_news) = self.shared.with(|driver| {
            let before = driver.news();
            let result = act(driver);
            (result, driver.news() != before)
        });
        if is_news {
            self.news.notify_waiters();
        }
        result
    }

    /// Looks until there is something. Can be dropped at any time.
    async fn wait_for<R>(
        &self,
        mut look: impl FnMut(&mut WorkerDriver) -> Option<R>,
    ) -> io::Result<R> {
        loop {
            // Waits from here on: what comes between the look and the wait is not missed.
            let mut told = pin!(self.news.notified());
            told.as_mut().enable();
            if let Some(found) = self.with(&mut look) {
                return Ok(found);
            }
            // A channel that has ended is ready for ever: tokio never clears that.
            let (is_open, wants_write) =
                self.with(|driver| (driver.channel_fd().is_some(), driver.wants_write()));
            let mut interest = Interest::READABLE;
            if wants_write {
                interest |= Interest::WRITABLE;
            }
            tokio::select! {
                ready = self.channel.ready(interest), if is_open => {
                    let mut ready = ready?;
                    // Reads and writes until it would block.
                    self.with(WorkerDriver::turn);
                    ready.clear_ready();
                }
                rung = self.panic_fd.readable() => rung?.clear_ready(),
                due = self.load_fd.readable() => {
                    self.with(WorkerDriver::turn);
                    due?.clear_ready();
                }
                () = told => {}
            }
        }
    }

    async fn listen(&self) -> io::Result<Listener> {
        let key = ListenKey::stream(Address::Nth(0));
        let ask = self.with(|driver| driver.ask(key, 0, Vec::new()));
        self.wait_for(|driver| driver.answer(ask)).await?
    }

    /// The next connection, which counts as open as long as the hold is kept; `None` once the
    /// worker is to leave and nothing more will come.
    async fn accept(&self, listener: &Listener) -> io::Result<Option<(TcpStream, Hold)>> {
        let taken = self.wait_for(|driver| match driver.accept(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                driver.is_drained().then_some(Ok(None))
            }
            taken => Some(taken.map(Some)),
        });
        let Some(mut connection) = taken.await?? else { return Ok(None) };
        let hold = connection.hold();
        let stream = connection.into_tcp_stream()?;
        stream.set_nonblocking(true)?;
        Ok(Some((TcpStream::from_std(stream)?, hold)))
    }

    /// Goes on with the channel until that is over: what is still handed over is declined there.
    async fn until(&self, over: impl Future<Output = ()>) -> io::Result<()> {
        tokio::select! {
            () = over => Ok(()),
            ended = self.wait_for(|_| None) => ended,
        }
    }

    /// How long a connection that says nothing is kept from here on.
    fn patience(&self) -> Duration {
        match self.with(|driver| driver.standing()) {
            Standing::Draining { deadline: Some(at) } => {
                PATIENCE.min(at.saturating_duration_since(Instant::now()) / 2)
            }
            _ => PATIENCE,
        }
    }

    /// The end: what is left to be said, and after a panic the start of the replacement.
    async fn finish(&self) -> ExitCode {
        let is_failing = self.shared.is_failing();
        let settled = self.wait_for(|driver| {
            let is_said = !is_failing || driver.is_suicide_settled();
            (is_said && !driver.wants_write()).then_some(())
        });
        let _ = tokio::time::timeout(Duration::from_secs(5), settled).await;
        if is_failing { ExitCode::from(101) } else { ExitCode::SUCCESS }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<ExitCode> {
    let worker = Worker::join()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = worker.listen().await?;
    // Each connection holds a receiver, and is told by it that the worker leaves.
    let (leaving, _) = watch::channel(None);
    loop {
        tokio::select! {
            taken = worker.accept(&listener) => match taken? {
                Some((stream, hold)) => {
                    let serving = serve(stream, leaving.subscribe());
                    tokio::spawn(async move {
                        serving.await;
                        drop(hold);
                    });
                }
                None => break,
            },
            _ = terminate.recv() => worker.with(WorkerDriver::leave),
        }
    }
    leaving.send_replace(Some(worker.patience()));
    worker.until(leaving.closed()).await?;
    Ok(worker.finish().await)
}

/// Answers requests until the client or the worker leaves.
async fn serve(stream: TcpStream, mut leaving: watch::Receiver<Option<Duration>>) {
    let told = leaving.clone();
    let hello = service_fn(move |_| std::future::ready(hello(told.borrow().is_some())));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), hello);
    let mut serving = pin!(serving);
    let silence = async {
        let patience = leaving.wait_for(Option::is_some).await.map_or(None, |it| *it);
        tokio::time::sleep(patience.unwrap_or(PATIENCE)).await;
    };
    tokio::select! {
        _ = serving.as_mut() => return,
        () = silence => serving.as_mut().graceful_shutdown(),
    }
    // A client that has left is no reason to stop.
    let _ = serving.await;
}

fn hello(is_last: bool) -> Result<Response<Full<Bytes>>, Infallible> {
    let words = format!("worker {} pid {}\n", worker_id().unwrap_or(0), std::process::id());
    let mut response = Response::new(Full::new(Bytes::from(words)));
    if is_last {
        // Hyper closes behind it.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}
