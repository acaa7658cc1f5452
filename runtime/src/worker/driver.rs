//! A worker's machine with its channel and its sockets.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use roundel_core::{
    Codec, Custody, ListenKey, ListenerId, SockName, Time, Worker, WorkerInput, WorkerOutput,
};

use super::channel_io::ChannelIo;
use super::listener::{From, Listener};
use super::load::Load;
use super::news::{News, Standing};
use super::{Connection, environment};
use crate::unix::transmit::Flush;
use crate::unix::{clock, socket};

/// A process that listens: as a worker of a cluster, or by itself outside one.
#[derive(Debug)]
pub struct WorkerDriver {
    core: Worker,
    channel: Option<ChannelIo>,
    custody: Custody<OwnedFd>,
    /// Acknowledged connections that the program has not taken yet.
    delivered: VecDeque<(ListenerId, Connection)>,
    /// Answers to `ask`s.
    answers: BTreeMap<u32, io::Result<Listener>>,
    next_ask: u32,
    /// The primary wants the worker to leave, perhaps by a deadline.
    draining: Option<Option<Instant>>,
    leaving: bool,
    suicide_confirmed: bool,
    /// The channel closes when everything is sent.
    closing: bool,
    /// Listeners that were granted and are not closed.
    open: Vec<ListenerId>,
    /// See [`News`].
    came: u64,
    given: u64,
    /// The channel had no room for everything that waited to be sent.
    was_full: bool,
    /// The place in the list of listeners at which [`accept_any`](WorkerDriver::accept_any) begins.
    next: usize,
    /// Outside a cluster: paths to remove at the end.
    bound: Vec<socket::Bound>,
    load: Arc<Load>,
    /// How many open connections the primary was last told of.
    told: Option<u32>,
}

impl WorkerDriver {
    /// Joins the cluster that the environment names, or runs alone.
    ///
    /// # Errors
    /// If the environment names something that is not a channel.
    pub fn join() -> io::Result<WorkerDriver> {
        Ok(WorkerDriver::new(environment::take_channel()?))
    }

    /// A driver on this channel. Without a channel it runs alone; the same on a Node channel if the
    /// feature `node` is off.
    pub fn new(channel: Option<(OwnedFd, Codec)>) -> WorkerDriver {
        let channel = channel.and_then(|(fd, codec)| ChannelIo::new(fd, codec));
        // Node's primary has no use for the number of open connections.
        let load = Load::new(channel.as_ref().is_some_and(|channel| !channel.is_node()));
        let mut driver = WorkerDriver {
            core: Worker::new(),
            channel,
            custody: Custody::new(),
            delivered: VecDeque::new(),
            answers: BTreeMap::new(),
            next_ask: 0,
            draining: None,
            leaving: false,
            suicide_confirmed: false,
            closing: false,
            open: Vec::new(),
            came: 0,
            given: 0,
            was_full: false,
            next: 0,
            bound: Vec::new(),
            load,
            told: None,
        };
        driver.carry_out();
        driver
    }

    /// Whether there is a primary.
    pub fn is_in_cluster(&self) -> bool {
        self.channel.is_some()
    }

    /// The channel: watch it for readiness to read, and to write while
    /// [`wants_write`](WorkerDriver::wants_write) is true.
    pub fn channel_fd(&self) -> Option<&Arc<OwnedFd>> {
        self.channel.as_ref().map(ChannelIo::fd)
    }

    /// Becomes ready to read when a [`turn`](WorkerDriver::turn) is due that tells the primary how
    /// many connections are open: watch it like the channel. `None` if nobody is told. No change of
    /// the number costs more than a timer set once in 50 ms, on whatever thread it happens.
    pub fn load_fd(&self) -> Option<&Arc<OwnedFd>> {
        self.load.fd()
    }

    /// How many connections the program has taken and not closed yet: see [`Hold`](super::Hold).
    /// Those count too that are acknowledged and could not be taken yet.
    pub fn open_connections(&self) -> u32 {
        self.load.open()
    }

    /// True if no connection is open, and the primary was told so or can't be told now.
    pub fn is_all_closed(&self) -> bool {
        self.load.open() == 0 && (self.channel.is_none() || !self.load.is_pending())
    }

    /// True while something waits for readiness to write.
    pub fn wants_write(&self) -> bool {
        self.channel.as_ref().is_some_and(ChannelIo::has_unsent)
    }

    /// The driver's progress. If several callers wait for different things, a call that changes
    /// this value has brought something that others may wait for.
    pub fn news(&self) -> News {
        News {
            came: self.came,
            standing: self.standing(),
            is_drained: self.is_drained(),
            awaits_ack: self.awaits_ack(),
        }
    }

    /// How many connections can be taken now, over all listeners.
    pub fn waiting(&self) -> usize {
        let untaken = if self.wants_write() { 0 } else { self.core.untaken() };
        self.delivered.len() + untaken
    }

    /// How many connections and answers wait to be taken.
    pub(super) fn unread(&self) -> usize {
        self.waiting() + self.answers.len()
    }

    /// How many connections the program has taken or declined.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Whether the worker goes on serving.
    pub fn standing(&self) -> Standing {
        match (self.draining, self.leaving) {
            (Some(_), _) if self.core.is_alone() => Standing::Alone,
            (Some(deadline), _) => Standing::Draining { deadline },
            (None, true) => Standing::Leaving,
            (None, false) => Standing::Serving,
        }
    }

    /// True if the worker is leaving and will not get another connection.
    pub fn is_drained(&self) -> bool {
        self.standing() != Standing::Serving
            && self.core.untaken() == 0
            && self.delivered.is_empty()
            && !self.core.awaits_delivery()
            && !self.awaits_leave_reply()
    }

    /// True while a Node primary has not confirmed that this worker leaves. Until then it may still
    /// send connections, and it would lose those that are not answered.
    fn awaits_leave_reply(&self) -> bool {
        self.channel.as_ref().is_some_and(ChannelIo::is_node) && self.core.awaits_leave_ack()
    }

    /// True while the primary has not confirmed a `suicide` that was sent.
    fn awaits_suicide_ack(&self) -> bool {
        self.channel.is_some() && self.core.awaits_suicide_ack()
    }

    /// True while a confirmation from the primary is missing for which
    /// [`is_settled`](WorkerDriver::is_settled) may wait.
    fn awaits_ack(&self) -> bool {
        self.awaits_suicide_ack() || self.awaits_leave_reply()
    }

    /// True if the primary has confirmed a `suicide`, or if there is no primary.
    pub fn is_suicide_settled(&self) -> bool {
        self.suicide_confirmed || self.channel.is_none()
    }

    /// True if the worker can end now without leaving anything unsent or unconfirmed: everything is
    /// sent, and the primary has confirmed the `suicide` (which is on its way if the worker is
    /// `failing`), or the leave that it must know of.
    pub fn is_settled(&self, failing: bool) -> bool {
        let said = !failing || self.is_suicide_settled();
        said && !self.awaits_ack() && !self.wants_write()
    }

    /// Asks to listen; [`answer`](WorkerDriver::answer) returns the result. Outside a cluster it
    /// binds at once.
    pub fn ask(&mut self, key: ListenKey, backlog: u32, data: Vec<u8>) -> u32 {
        let ask = self.next_ask;
        self.next_ask = ask.wrapping_add(1);
        if self.channel.is_some() || self.standing() != Standing::Serving {
            let key = Box::new(key);
            self.input(WorkerInput::Listen { ask, key, backlog, data });
            self.carry_out();
        } else {
            let answer = Listener::bind(&key, backlog, data, &mut self.bound);
            self.answers.insert(ask, answer);
        }
        ask
    }

    /// The answer to an ask, once it has come.
    pub fn answer(&mut self, ask: u32) -> Option<io::Result<Listener>> {
        self.answers.remove(&ask)
    }

    /// Reads and writes what is possible now. Call it when the channel is ready.
    pub fn turn(&mut self) {
        self.read();
        self.carry_out();
    }

    /// Like [`turn`](WorkerDriver::turn), but reads at most once: for a caller that is told again
    /// if more is there, as with level-triggered readiness (epoll(7)). That saves the read that
    /// finds nothing.
    pub fn turn_once(&mut self) {
        self.read_once();
        self.carry_out();
    }

    /// The next connection of a listener. Acknowledges it, so from here on it is this worker's.
    ///
    /// When it returns, either this call has read the channel to its end, or something is left that
    /// [`waiting`](WorkerDriver::waiting) counts.
    ///
    /// # Errors
    /// `WouldBlock` if none is there now. Otherwise as accept(2), for this process's own listeners.
    pub fn accept(&mut self, listener: &Listener) -> io::Result<Connection> {
        self.accept_any(std::iter::once(listener)).map(|(_, connection)| connection)
    }

    /// Like [`accept`](WorkerDriver::accept), from any of these listeners, in turns; returns the
    /// listener's place in the list too.
    ///
    /// # Errors
    /// As `accept`.
    pub fn accept_any<'a>(
        &mut self,
        listeners: impl ExactSizeIterator<Item = &'a Listener> + Clone,
    ) -> io::Result<(usize, Connection)> {
        let taken = self.take_any(listeners.clone());
        let is_empty = taken.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        if is_empty || self.waiting() == 0 {
            // A turn also writes: the codec's own answers to a Node primary must go out first.
            // Otherwise they would count as an answer to a connection that could not be sent.
            self.turn();
        }
        if is_empty { self.take_any(listeners) } else { taken }
    }

    fn take_any<'a>(
        &mut self,
        listeners: impl ExactSizeIterator<Item = &'a Listener> + Clone,
    ) -> io::Result<(usize, Connection)> {
        let mut failed = io::ErrorKind::WouldBlock.into();
        let count = listeners.len();
        let first = self.next.checked_rem(count).unwrap_or(0);
        for (at, listener) in listeners.enumerate().cycle().skip(first).take(count) {
            match self.take(listener) {
                Ok(connection) => {
                    self.next = at + 1;
                    return Ok((at, connection));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Like [`accept`](WorkerDriver::accept), but only from what was read before: for callers that
    /// know that there is nothing to read.
    ///
    /// # Errors
    /// As `accept`.
    pub fn take(&mut self, listener: &Listener) -> io::Result<Connection> {
        let id = match &listener.from {
            From::Own(..) if self.standing() != Standing::Serving => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            From::Own(fd, _) => {
                return match socket::accept(fd.as_fd()) {
                    Ok(Some(fd)) => Ok(Connection::new(fd, self.load.hold())),
                    Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(errno) => Err(io::Error::from_raw_os_error(errno)),
                };
            }
            From::Handed(id) => *id,
        };
        let mut found = self.take_delivered(id);
        if found.is_none() {
            found = self.take_untaken(id);
            // A connection returned by this call is not news for other callers.
            self.came -= u64::from(found.is_some());
        }
        self.given += u64::from(found.is_some());
        found.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Takes a connection that was not acknowledged when this was called.
    fn take_untaken(&mut self, listener: ListenerId) -> Option<Connection> {
        // Behind an answer that could not be sent yet, another one would wait as well.
        if self.wants_write() {
            self.carry_out();
            let delivered = self.take_delivered(listener);
            if delivered.is_some() || self.wants_write() {
                return delivered;
            }
        }
        self.input(WorkerInput::Take { listener: Some(listener) });
        self.carry_out();
        self.take_delivered(listener)
    }

    /// Gives the oldest connection that waits at a listener back, so that another worker gets it.
    /// False if none waits.
    pub fn decline(&mut self, listener: &Listener) -> bool {
        let From::Handed(id) = listener.from else { return false };
        let waits = self.core.untaken_at(id) > 0;
        self.input(WorkerInput::Decline { listener: Some(id) });
        self.carry_out();
        self.given += u64::from(waits);
        waits
    }

    /// Takes no more connections of a listener. Those that wait there go to other workers; those
    /// that were acknowledged already, and could not be taken yet, are closed.
    pub fn close(&mut self, listener: Listener) {
        if let From::Handed(id) | From::Own(_, Some(id)) = listener.from {
            self.open.retain(|open| *open != id);
            self.delivered.retain(|(at, _)| *at != id);
            self.input(WorkerInput::CloseListener { listener: id });
            self.carry_out();
        }
    }

    /// Tells the primary that the program is ready: with `--wait-ready` connections come only then.
    pub fn ready(&mut self) {
        if self.channel.is_some() {
            self.input(WorkerInput::Ready);
            self.carry_out();
        }
    }

    /// Tells the primary that this worker fails: its replacement starts, and no more connections
    /// come. Does not wait: what does not fit into the channel is sent when the channel is ready to
    /// write.
    pub fn request_replacement(&mut self) {
        self.leaving = true;
        if self.channel.is_some() {
            self.input(WorkerInput::RequestReplacement);
            self.carry_out();
        }
    }

    /// Tells the primary that this worker leaves of its own accord. The channel is closed when the
    /// primary has confirmed it.
    pub fn leave(&mut self) {
        self.leaving = true;
        if self.channel.is_some() {
            self.input(WorkerInput::Leave);
            self.carry_out();
        }
    }

    /// Takes over a shared listener. One from Node may not listen yet: there, the workers call
    /// listen(2).
    fn adopt_shared(
        &self,
        fd: OwnedFd,
        listener: ListenerId,
        told: SockName,
        data: Vec<u8>,
    ) -> io::Result<Listener> {
        let mut sockname = told;
        if self.channel.as_ref().is_some_and(ChannelIo::is_node) {
            sockname = socket::take_over(&fd)?;
        }
        let from = From::Own(Arc::new(fd), Some(listener));
        Ok(Listener { from, sockname, data })
    }

    fn take_delivered(&mut self, listener: ListenerId) -> Option<Connection> {
        let at = self.delivered.iter().position(|(id, _)| *id == listener)?;
        self.delivered.remove(at).map(|(_, connection)| connection)
    }

    fn read(&mut self) {
        while self.read_once() {}
    }

    /// False if there was nothing to read, or there never will be.
    fn read_once(&mut self) -> bool {
        let Some(channel) = &mut self.channel else { return false };
        match channel.receive() {
            Ok(true) => {
                self.decode();
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(false) | Err(_) => {
                self.channel_closed();
                false
            }
        }
    }

    fn decode(&mut self) {
        while let Some(channel) = &mut self.channel {
            let (msg, handles) = match channel.poll(&mut self.custody) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                // If the primary's messages can't be decoded, the worker has no primary any more.
                Err(_) => return self.channel_closed(),
            };
            self.came += 1;
            self.input(WorkerInput::Message { msg, handles });
        }
    }

    fn channel_closed(&mut self) {
        if self.channel.take().is_some() {
            self.came += 1;
            self.input(WorkerInput::ChannelClosed);
        }
    }

    fn input(&mut self, input: WorkerInput) {
        let result = self.core.handle_input(clock::now(), input);
        debug_assert!(result.is_ok(), "misuse: {result:?}");
    }

    /// Carries out all outputs, and sends what waits to be sent. A connection is delivered only
    /// after its acknowledgement has been written to the kernel.
    fn carry_out(&mut self) {
        loop {
            self.tell_load();
            while let Some(output) = self.core.poll_output() {
                self.execute(output);
            }
            let more = self.flush();
            // With a Node primary, sending some messages makes the codec produce an answer itself.
            if self.channel.as_ref().is_some_and(ChannelIo::is_node) {
                self.decode();
            }
            if !more && !self.core.has_output() {
                break;
            }
        }
        let is_full = self.wants_write();
        // Connections that waited for room in the channel can be taken now.
        self.came += u64::from(self.was_full && !is_full);
        self.was_full = is_full;
    }

    /// Tells the primary how many connections are open, at most once in 50 ms: once at the start,
    /// and then after changes.
    fn tell_load(&mut self) {
        // Behind what waits to be sent, the number would be old when it is read.
        if !self.load.is_due() || self.channel.as_ref().is_none_or(ChannelIo::has_unsent) {
            return;
        }
        let open = self.load.take();
        if self.told.replace(open) != Some(open) {
            self.input(WorkerInput::Load { open });
        }
    }

    /// Sends; true if that changed something.
    fn flush(&mut self) -> bool {
        let Some(channel) = &mut self.channel else { return false };
        let (sent, flush) = channel.flush();
        let all_said = self.closing && !channel.has_unsent();
        for _ in 0..sent {
            self.input(WorkerInput::Sent);
        }
        let closed = matches!(flush, Flush::Closed) || all_said;
        if closed {
            self.channel_closed();
        }
        sent > 0 || closed
    }

    fn execute(&mut self, output: WorkerOutput) {
        match output {
            WorkerOutput::Send(msg) => {
                if let Some(channel) = &mut self.channel {
                    channel.push(msg);
                }
            }
            WorkerOutput::Deliver { conn, listener } => {
                let fd = self.custody.release(conn);
                let connection = fd.map(|fd| Connection::new(fd, self.load.hold()));
                // If the program has closed the listener meanwhile, the connection would never be
                // taken.
                if let Some(connection) = connection
                    && self.open.contains(&listener)
                {
                    self.delivered.push_back((listener, connection));
                    self.came += 1;
                }
            }
            // A plain close: no shutdown, because another worker may have the same connection.
            WorkerOutput::Discard { conn } => drop(self.custody.release(conn)),
            WorkerOutput::Granted { ask, listener, sockname, handle, data } => {
                self.open.push(listener);
                let answer = match handle.and_then(|handle| self.custody.release(handle)) {
                    Some(fd) => self.adopt_shared(fd, listener, sockname, data),
                    None => Ok(Listener { from: From::Handed(listener), sockname, data }),
                };
                self.answers.insert(ask, answer);
            }
            WorkerOutput::Refused { ask, errno } => {
                let error = io::Error::from_raw_os_error(errno.0);
                self.answers.insert(ask, Err(error));
            }
            WorkerOutput::Draining { deadline } => {
                // Both are the same clock with different epochs.
                let instant = |at: Time| Instant::now() + at.since(clock::now());
                self.draining = Some(deadline.map(instant));
            }
            WorkerOutput::SuicideAcked => self.suicide_confirmed = true,
            WorkerOutput::CloseChannel => self.closing = true,
            WorkerOutput::PrimaryGone => self.draining = Some(None),
            _ => {}
        }
    }
}

impl Drop for WorkerDriver {
    fn drop(&mut self) {
        for bound in &self.bound {
            bound.unlink();
        }
    }
}
