//! The worker's side for mio programs.

use std::io;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(test)]
pub(crate) mod tests;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use roundel_core::{Address, ListenKey};
use roundel_runtime::address;
use roundel_runtime::worker::{Connection, Listener, Shared, Standing, WorkerDriver};

mod watch;
use watch::Watch;

/// How long the primary may take to answer a [`Worker::listen`].
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long [`Worker::finish`] waits for the primary to confirm a suicide.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// A process that serves connections: as a worker of a cluster, or, where there is no cluster, by
/// itself.
///
/// ```no_run
/// use std::io::Write;
///
/// fn main() -> std::io::Result<()> {
///     let mut worker = roundel_mio::Worker::join()?;
///     let web = worker.listen("127.0.0.1:8080")?;
///     while let Some(mut connection) = worker.accept(&web)? {
///         connection.write_all(b"hello\n")?;
///     }
///     Ok(())
/// }
/// ```
///
/// [`accept`](Worker::accept) waits, for programs that do one thing at a time. An event loop
/// registers the worker, which is a mio [`Source`]. When its token is ready it calls
/// [`try_accept_any`](Worker::try_accept_any), or [`try_accept`](Worker::try_accept) for each
/// listener, and looks at [`standing`](Worker::standing):
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
///                 println!("{:?} at listener {nth}", connection.peer_addr()?);
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
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    poll: Poll,
    events: Events,
    /// Listeners that this process accepts from itself.
    own: Vec<Listener>,
    watches_write: bool,
    /// The event loop of the program, if it has registered this.
    watch: Option<Watch>,
}

impl Worker {
    /// Joins the cluster that started this process, or stands alone. Do it early: helpers started
    /// before inherit the channel.
    ///
    /// # Errors
    /// If the environment names a channel that is none, or for want of descriptors; `Unsupported`
    /// under a primary of Node, without the feature `node`.
    pub fn join() -> io::Result<Worker> {
        Worker::over(WorkerDriver::join()?)
    }

    pub(crate) fn over(driver: WorkerDriver) -> io::Result<Worker> {
        let poll = Poll::new()?;
        if let Some(fd) = driver.channel_fd() {
            let raw = fd.as_raw_fd();
            poll.registry().register(&mut SourceFd(&raw), Token(0), Interest::READABLE)?;
        }
        let shared = Shared::new(driver)?;
        let panic_fd = shared.panic_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&panic_fd), Token(0), Interest::READABLE)?;
        Ok(Worker {
            shared,
            poll,
            events: Events::with_capacity(16),
            own: Vec::new(),
            watches_write: false,
            watch: None,
        })
    }

    /// Whether a primary started this process.
    pub fn is_in_cluster(&self) -> bool {
        self.shared.with(|driver| driver.is_in_cluster())
    }

    /// Has a panic on any thread tell the primary to start a replacement at once; the program may
    /// go on to finish what it has. Without this, a panic that ends the process is told by its
    /// end.
    pub fn replace_on_panic(&self) {
        self.shared.replace_on_panic();
    }

    /// Listens through the primary, on an address as the command line writes it:
    /// `127.0.0.1:8080`, `[::]:80`, `*:80`, `unix:/run/web.sock`. All workers that ask for the
    /// same share one listener. Waits for the primary's answer.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is none, `TimedOut` if there is no answer within 30 s;
    /// otherwise what bind(2) said to the primary, such as `AddrInUse`.
    pub fn listen(&mut self, at: &str) -> io::Result<Listener> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, format!("{at}: {why}"));
        self.listen_key(ListenKey::stream(address::parse(at).map_err(invalid)?))
    }

    /// Listens on the operator's nth `--bind`, counted from 0.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, or no cluster.
    pub fn listen_nth(&mut self, nth: u32) -> io::Result<Listener> {
        self.listen_key(ListenKey::stream(Address::Nth(nth)))
    }

    /// Listens on any key. See [`listen`](Worker::listen).
    ///
    /// # Errors
    /// As `listen`.
    pub fn listen_key(&mut self, key: ListenKey) -> io::Result<Listener> {
        let listener = self.ask(key);
        self.update();
        listener
    }

    fn ask(&mut self, key: ListenKey) -> io::Result<Listener> {
        let ask = self.shared.with(|driver| driver.ask(key, 0, Vec::new()));
        let end = Instant::now() + LISTEN_TIMEOUT;
        loop {
            if let Some(answer) = self.shared.with(|driver| driver.answer(ask)) {
                let listener = answer?;
                if let Some(fd) = listener.own_fd() {
                    let raw = fd.as_raw_fd();
                    let registry = self.poll.registry();
                    registry.register(&mut SourceFd(&raw), Token(1), Interest::READABLE)?;
                    self.watch.as_ref().map_or(Ok(()), |watch| watch.add(raw))?;
                    self.own.push(listener.clone());
                }
                return Ok(listener);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.wait(Some(left))?;
            self.shared.with(WorkerDriver::turn);
        }
    }

    /// Waits for the next connection of a listener. `None` once the worker is to leave and nothing
    /// more will come: finish what there is, then end the program.
    ///
    /// # Errors
    /// As accept(2), for listeners of one's own.
    pub fn accept(&mut self, listener: &Listener) -> io::Result<Option<Connection>> {
        let taken = self.accept_any(std::slice::from_ref(listener))?;
        Ok(taken.map(|(_, connection)| connection))
    }

    /// Waits for the next connection of any of these listeners; tells which one it came from, by
    /// its place in the list. As [`accept`](Worker::accept) otherwise.
    ///
    /// # Errors
    /// As `accept`.
    pub fn accept_any(
        &mut self,
        listeners: &[Listener],
    ) -> io::Result<Option<(usize, Connection)>> {
        loop {
            match self.try_accept_any(listeners) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(Some),
            }
            if self.shared.with(|driver| driver.is_dry()) {
                return Ok(None);
            }
            self.wait(None)?;
        }
    }

    /// The next connection of a listener. Reads the channel if nothing waits there.
    ///
    /// # Errors
    /// `WouldBlock` if none is there now. As accept(2), for listeners of one's own.
    pub fn try_accept(&mut self, listener: &Listener) -> io::Result<Connection> {
        self.act(|driver| driver.accept(listener))
    }

    /// The next connection of whichever of these listeners has one, in turns; tells which one it
    /// came from, by its place in the list. An event loop calls it until it would block.
    ///
    /// # Errors
    /// As [`try_accept`](Worker::try_accept).
    pub fn try_accept_any(&mut self, listeners: &[Listener]) -> io::Result<(usize, Connection)> {
        self.act(|driver| driver.accept_any(listeners))
    }

    /// Gives the oldest connection that waits at a listener back: another worker gets it, and this
    /// one gets the next one a little later. False if none waits.
    pub fn decline(&mut self, listener: &Listener) -> bool {
        self.act(|driver| {
            let declined = driver.decline(listener);
            if declined && driver.waiting() > 0 {
                return true;
            }
            driver.turn();
            declined || driver.decline(listener)
        })
    }

    /// Wants no more connections of a listener.
    pub fn close(&mut self, listener: Listener) {
        if let Some(fd) = listener.own_fd() {
            let raw = fd.as_raw_fd();
            // Closed, it would be forgotten as well; but an older copy may live somewhere.
            let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
            if let Some(watch) = &self.watch {
                watch.remove(raw);
            }
            self.own.retain(|own| own.own_fd().is_none_or(|own| own.as_raw_fd() != raw));
        }
        self.act(|driver| driver.close(listener));
    }

    /// Whether the worker is to go on. Event loops look each time that the worker's token was
    /// ready.
    pub fn standing(&self) -> Standing {
        self.shared.with(|driver| driver.standing())
    }

    /// Whether the worker is leaving and no more connections will come.
    pub fn is_dry(&self) -> bool {
        self.shared.with(|driver| driver.is_dry())
    }

    /// Whether a panic has happened since [`replace_on_panic`](Worker::replace_on_panic).
    pub fn is_failing(&self) -> bool {
        self.shared.is_failing()
    }

    /// Tells the primary that this worker fails: see
    /// [`replace_on_panic`](Worker::replace_on_panic).
    pub fn request_replacement(&mut self) {
        self.act(WorkerDriver::request_replacement);
    }

    /// Leaves of its own will: no more connections come, and the end of the program will be no
    /// crash.
    pub fn leave(&mut self) {
        self.act(WorkerDriver::leave);
    }

    /// Reads and writes what is possible now: for an event loop that wants no connection when the
    /// worker's token is ready. What it wants later it finds then.
    ///
    /// # Errors
    /// None so far.
    pub fn turn(&mut self) -> io::Result<()> {
        self.act(WorkerDriver::turn);
        Ok(())
    }

    /// Whether the channel is full, so that something that was said waits. A registered worker is
    /// watched for room by itself. Rare.
    pub fn wants_write(&self) -> bool {
        self.shared.with(|driver| driver.wants_write())
    }

    /// The end of a worker: sends what is left to be said and, after a suicide, waits for the
    /// primary to confirm it, so that the replacement was started first; at most 5 s in all. The
    /// exit code is 101 after a panic, else 0.
    pub fn finish(mut self) -> ExitCode {
        let end = Instant::now() + FAREWELL_TIMEOUT;
        let failing = self.is_failing();
        loop {
            let settled = self.shared.with(|driver| driver.is_settled(failing));
            let left = end.saturating_duration_since(Instant::now());
            if settled || left.is_zero() || self.wait(Some(left)).is_err() {
                break;
            }
            self.shared.with(WorkerDriver::turn);
        }
        if failing { ExitCode::from(101) } else { ExitCode::SUCCESS }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.watch_write()?;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    fn watch_write(&mut self) -> io::Result<()> {
        let (fd, wants_write) =
            self.shared.with(|driver| (driver.channel_fd().cloned(), driver.wants_write()));
        if let Some(fd) = fd
            && wants_write != self.watches_write
        {
            let interest = if wants_write {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let raw = fd.as_raw_fd();
            self.poll.registry().reregister(&mut SourceFd(&raw), Token(0), interest)?;
            self.watches_write = wants_write;
        }
        Ok(())
    }

    /// Does something with the driver, and has the program's event loop know what is left.
    fn act<R>(&mut self, act: impl FnOnce(&mut WorkerDriver) -> R) -> R {
        let watch = &mut self.watch;
        self.shared.with(|driver| {
            let result = act(driver);
            if let Some(watch) = watch {
                watch.update(driver);
            }
            result
        })
    }

    fn update(&mut self) {
        self.act(|_| ());
    }

    fn each_source(
        &self,
        mut act: impl FnMut(&mut SourceFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let own = self.own.iter().filter_map(|listener| listener.own_fd().cloned());
        let panic_fd = Arc::clone(self.shared.panic_fd());
        for fd in own.chain([panic_fd]) {
            let raw = fd.as_raw_fd();
            act(&mut SourceFd(&raw))?;
        }
        Ok(())
    }
}

/// The channel, what tells of connections that wait and of panics on other threads, and, where this
/// process accepts by itself, its listeners, all under one token.
impl Source for Worker {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.each_source(|source| source.register(registry, token, interests))?;
        self.watch =
            Some(self.shared.with(|driver| Watch::new(driver, registry, token, interests))?);
        self.update();
        Ok(())
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.each_source(|source| source.reregister(registry, token, interests))?;
        let watch = &mut self.watch;
        self.shared.with(|driver| match watch {
            Some(watch) => watch.renew(driver, registry, token, interests),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        let watch = self.watch.take().ok_or(io::ErrorKind::NotFound)?;
        self.shared.with(|driver| watch.end(driver, registry))?;
        self.each_source(|source| source.deregister(registry))
    }
}
