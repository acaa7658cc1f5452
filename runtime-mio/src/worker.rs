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
use roundel_runtime::worker::{Connection, Listener, Member, Shared, Standing};

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
/// registers the worker, which is a mio [`Source`], and calls
/// [`try_accept`](Worker::try_accept) until it would block.
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
}

impl Worker {
    /// Joins the cluster that started this process, or stands alone. Do it early: helpers started
    /// before inherit the channel.
    ///
    /// # Errors
    /// If the environment names a channel that is none, or for want of descriptors.
    pub fn join() -> io::Result<Worker> {
        Worker::over(Member::join()?)
    }

    pub(crate) fn over(member: Member) -> io::Result<Worker> {
        let poll = Poll::new()?;
        if let Some(fd) = member.channel_fd() {
            let raw = fd.as_raw_fd();
            poll.registry().register(&mut SourceFd(&raw), Token(0), Interest::READABLE)?;
        }
        let shared = Shared::new(member)?;
        let bell = shared.bell().as_raw_fd();
        poll.registry().register(&mut SourceFd(&bell), Token(0), Interest::READABLE)?;
        Ok(Worker {
            shared,
            poll,
            events: Events::with_capacity(16),
            own: Vec::new(),
            watches_write: false,
        })
    }

    /// Whether a primary started this process.
    pub fn is_in_cluster(&self) -> bool {
        self.shared.with(|member| member.is_in_cluster())
    }

    /// Has a panic on any thread tell the primary to start a replacement at once; the program may
    /// go on to finish what it has. Without this, a panic that ends the process is told by its
    /// end.
    pub fn suicide_on_panic(&self) {
        self.shared.suicide_on_panic();
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
        let ask = self.shared.with(|member| member.ask(key, 0, Vec::new()));
        let end = Instant::now() + LISTEN_TIMEOUT;
        loop {
            if let Some(answer) = self.shared.with(|member| member.answer(ask)) {
                let listener = answer?;
                if let Some(fd) = listener.own_fd() {
                    let raw = fd.as_raw_fd();
                    let registry = self.poll.registry();
                    registry.register(&mut SourceFd(&raw), Token(1), Interest::READABLE)?;
                    self.own.push(listener.clone());
                }
                return Ok(listener);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.wait(Some(left))?;
            self.turn()?;
        }
    }

    /// Waits for the next connection of a listener. `None` once the worker is to leave and nothing
    /// more will come: finish what there is, then end the program.
    ///
    /// # Errors
    /// As accept(2), for listeners of one's own.
    pub fn accept(&mut self, listener: &Listener) -> io::Result<Option<Connection>> {
        loop {
            match self.try_accept(listener) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(Some),
            }
            if self.shared.with(|member| member.is_dry()) {
                return Ok(None);
            }
            self.wait(None)?;
            self.turn()?;
        }
    }

    /// The next connection of a listener.
    ///
    /// # Errors
    /// `WouldBlock` if none is there now. As accept(2), for listeners of one's own.
    pub fn try_accept(&mut self, listener: &Listener) -> io::Result<Connection> {
        self.shared.with(|member| member.accept(listener))
    }

    /// Gives the oldest connection that waits at a listener back: another worker gets it, and this
    /// one gets the next one a little later. False if none waits.
    pub fn decline(&mut self, listener: &Listener) -> bool {
        self.shared.with(|member| member.decline(listener))
    }

    /// Wants no more connections of a listener.
    pub fn close(&mut self, listener: Listener) {
        if let Some(fd) = listener.own_fd() {
            let raw = fd.as_raw_fd();
            // Closed, it would be forgotten as well; but an older copy may live somewhere.
            let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
            self.own.retain(|own| own.own_fd().is_none_or(|own| own.as_raw_fd() != raw));
        }
        self.shared.with(|member| member.close(listener));
    }

    /// Whether the worker is to go on. Event loops look after each [`turn`](Worker::turn).
    pub fn standing(&self) -> Standing {
        self.shared.with(|member| member.standing())
    }

    /// Whether the worker is leaving and no more connections will come.
    pub fn is_dry(&self) -> bool {
        self.shared.with(|member| member.is_dry())
    }

    /// Whether a panic has happened since [`suicide_on_panic`](Worker::suicide_on_panic).
    pub fn is_failing(&self) -> bool {
        self.shared.is_failing()
    }

    /// Tells the primary that this worker fails: see
    /// [`suicide_on_panic`](Worker::suicide_on_panic).
    pub fn suicide(&mut self) {
        self.shared.with(|member| member.suicide());
    }

    /// Leaves of its own will: no more connections come, and the end of the program will be no
    /// crash.
    pub fn leave(&mut self) {
        self.shared.with(|member| member.leave());
    }

    /// Reads and writes what is possible now. An event loop calls it when the worker's token is
    /// ready, then accepts until it would block.
    ///
    /// # Errors
    /// If epoll(7) fails.
    pub fn turn(&mut self) -> io::Result<()> {
        self.shared.with(|member| member.turn());
        Ok(())
    }

    /// Whether the channel is full, so that readiness to write matters: an event loop then
    /// reregisters the worker with [`Interest::WRITABLE`] too. Rare.
    pub fn wants_write(&self) -> bool {
        self.shared.with(|member| member.wants_write())
    }

    /// The end of a worker: sends what is left to be said and, after a suicide, waits for the
    /// primary to confirm it, so that the replacement was started first; at most 5 s in all. The
    /// exit code is 101 after a panic, else 0.
    pub fn finish(mut self) -> ExitCode {
        let end = Instant::now() + FAREWELL_TIMEOUT;
        let failing = self.is_failing();
        loop {
            let settled = self.shared.with(|member| {
                let said = !failing || member.is_suicide_settled();
                let heard = !member.awaits_suicide_ack() && !member.awaits_farewell();
                said && heard && !member.wants_write()
            });
            let left = end.saturating_duration_since(Instant::now());
            if settled || left.is_zero() || self.wait(Some(left)).is_err() {
                break;
            }
            if self.turn().is_err() {
                break;
            }
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
            self.shared.with(|member| (member.channel_fd().cloned(), member.wants_write()));
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

    fn each_source(
        &self,
        mut act: impl FnMut(&mut SourceFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let channel = self.shared.with(|member| member.channel_fd().cloned());
        let own = self.own.iter().filter_map(|listener| listener.own_fd().cloned());
        let bell = Arc::clone(self.shared.bell());
        for fd in channel.into_iter().chain(own).chain([bell]) {
            let raw = fd.as_raw_fd();
            act(&mut SourceFd(&raw))?;
        }
        Ok(())
    }
}

/// The channel, what tells of panics on other threads, and, where this process accepts by itself, its listeners, all under one token:
/// listen first, then register.
impl Source for Worker {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.each_source(|source| source.register(registry, token, interests))
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.each_source(|source| source.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.each_source(|source| source.deregister(registry))
    }
}
