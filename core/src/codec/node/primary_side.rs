//! The primary's end of a channel to a Node worker.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::encode::{self, SUICIDE, handoff_of};
use super::handle_kind::HandleKind;
use super::handles::{Full, Refused, Unacked};
use super::host::Host;
use super::lines::{Cut, Lines};
use super::meaning::{self, Meant, Said};
use super::parse::{self, Cluster};
use super::primary_event::PrimaryEvent;
use super::primary_meaning::PrimaryMeaning;
use super::query::{Query, Server};
use super::{HANDLE_ACK, HANDLE_NACK, MAX_UNACKED, write};
use crate::{
    Attach, DecodeError, Errno, FromWorker, Granted, ListenerId, Seq, ToWorker, Transport,
};

/// Lines from a Node worker, and lines to it.
///
/// [`feed`](PrimarySide::feed) it what was read, [`poll`](PrimarySide::poll) events until there are
/// none. [`note`](PrimarySide::note) each message when it is queued,
/// [`encode`](PrimarySide::encode) it when it is sent: encoding again gives the same line.
#[derive(Clone, Debug)]
pub struct PrimarySide<T> {
    host: Host,
    lines: Lines<T>,
    events: VecDeque<PrimaryEvent<T>>,
    /// Queries that were not answered yet.
    asked: Vec<(Seq, Server, Transport)>,
    granted: Vec<Grant>,
    unacked: Unacked<Cargo>,
    /// Connections that have arrived and were not answered, oldest first.
    arrived: VecDeque<Seq>,
    /// The worker sent a handle, and has since sent nothing that it would hold back until it has
    /// our answer.
    holds_back: bool,
    /// Messages that have no meaning here.
    ignored: u64,
}

#[derive(Clone, Debug)]
struct Grant {
    listener: ListenerId,
    server: Server,
    transport: Transport,
    real_port: Option<u16>,
    listening: bool,
}

/// What a handle on its way is for.
#[derive(Clone, Debug)]
enum Cargo {
    Handoff(Seq),
    Grant { ack: Seq, granted: Box<Granted> },
    Passed(ListenerId),
    User,
}

impl<T> PrimarySide<T> {
    /// A channel at its start, on a machine about which nothing is known.
    pub const fn new(max_line: u32) -> Self {
        PrimarySide {
            host: Host::NONE,
            lines: Lines::new(max_line as usize),
            events: VecDeque::new(),
            asked: Vec::new(),
            granted: Vec::new(),
            unacked: Unacked::new(),
            arrived: VecDeque::new(),
            holds_back: false,
            ignored: 0,
        }
    }

    /// The same on this machine.
    #[must_use]
    pub const fn on(mut self, host: Host) -> Self {
        self.host = host;
        self
    }

    /// Takes in what one read brought. Poll until nothing comes before feeding more.
    pub fn feed(&mut self, bytes: &[u8], handle: Option<T>) {
        self.lines.feed(bytes, handle);
    }

    /// The next event.
    ///
    /// # Errors
    /// [`DecodeError`], which every later call returns again.
    pub fn poll(&mut self) -> Result<Option<PrimaryEvent<T>>, DecodeError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(Cut { piece, handle }) = self.lines.poll()? else { return Ok(None) };
            let length = piece.length();
            let cluster = |msg: &Cluster<'_>| PrimaryMeaning::of(msg, &self.host);
            match meaning::read(&piece, handle.is_some(), cluster) {
                Ok(said) => self.hear(said, handle, length),
                Err(error) => return Err(self.lines.fail(error)),
            }
        }
    }

    /// Whether an unfinished line is there.
    pub fn is_mid_line(&self) -> bool {
        self.lines.is_mid_line()
    }

    /// How many internal messages had no meaning here.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Notes a message that is queued behind everything else.
    pub fn note(&mut self, msg: &ToWorker) {
        let noted = match msg {
            ToWorker::NewConn { first_seq, .. } => {
                self.unacked.sent_once(Cargo::Handoff(*first_seq))
            }
            ToWorker::QueryReply { ack, result } => self.note_reply(*ack, result),
            ToWorker::PassListener { listener } => self.unacked.sent(Cargo::Passed(*listener)),
            ToWorker::Ack { .. }
            | ToWorker::Disconnect
            | ToWorker::Drain { .. }
            | ToWorker::Ping { .. }
            | ToWorker::Shutdown => Ok(()),
        };
        if noted == Err(Full) {
            self.lines.fail(DecodeError::TooManyHandles);
        }
    }

    fn note_reply(&mut self, ack: Seq, result: &Result<Box<Granted>, Errno>) -> Result<(), Full> {
        let Some(at) = self.asked.iter().position(|(seq, ..)| *seq == ack) else { return Ok(()) };
        let (_, server, transport) = self.asked.swap_remove(at);
        let Ok(granted) = result else { return Ok(()) };
        let (listener, real_port) = (granted.listener, granted.sockname.port());
        self.granted.push(Grant { listener, server, transport, real_port, listening: false });
        match granted.shared {
            true => self.unacked.sent(Cargo::Grant { ack, granted: granted.clone() }),
            false => Ok(()),
        }
    }

    /// The mode that the path of a unix socket should have, if this answers a query that gives one.
    /// Call this before the answer is noted.
    pub fn wished_mode(&self, msg: &ToWorker) -> Option<u32> {
        let ToWorker::QueryReply { ack, result: Ok(_) } = msg else { return None };
        let (_, server, _) = self.asked.iter().find(|(seq, ..)| seq == ack)?;
        (server.mode != 0).then_some(server.mode)
    }

    /// A message of the primary's program as a line to queue behind everything else, with the
    /// handle, if there is one, on its first byte.
    ///
    /// # Errors
    /// [`DecodeError::BadMessage`] if `json` is not JSON, [`DecodeError::TooManyHandles`] if too
    /// many handles are not answered yet.
    pub fn user_line(
        &mut self,
        json: &str,
        handle: Option<HandleKind>,
    ) -> Result<Vec<u8>, DecodeError> {
        let line = write::user_line(json, handle)?;
        if handle.is_some() {
            self.unacked.sent_once(Cargo::User).map_err(|Full| DecodeError::TooManyHandles)?;
        }
        Ok(line)
    }

    /// Notes that a noted message can never be sent.
    pub fn unsent(&mut self, msg: &ToWorker) {
        if let ToWorker::NewConn { first_seq, .. } = msg {
            self.unacked.unsent(|cargo| matches!(cargo, Cargo::Handoff(seq) if seq == first_seq));
        }
    }

    /// Appends the line for a message; nothing for one that Node has no form for.
    pub fn encode(&self, msg: &ToWorker, bytes: &mut Vec<u8>) {
        encode::message(msg, |listener| self.transport_of(listener), &self.host, bytes);
    }

    fn hear(&mut self, said: Said<PrimaryMeaning>, handle: Option<T>, length: u64) {
        let (kind, meant) = match said {
            Said::Acked => return self.on_acked(),
            Said::Refused => return self.on_refused(),
            Said::Unladen => return self.on_handle(HANDLE_NACK),
            Said::Laden(kind, meant) => {
                self.on_handle(HANDLE_ACK);
                (kind, meant)
            }
            Said::Message(meant) => {
                self.holds_back = false;
                (None, meant)
            }
        };
        match meant {
            Meant::Nothing => self.ignored += 1,
            Meant::Skipped(reason) => {
                let with_handle = handle.is_some();
                self.emit(PrimaryEvent::Skipped { reason, length, with_handle });
            }
            Meant::Answer(line) => self.emit(PrimaryEvent::Answer(line)),
            Meant::User(json) => {
                let (suicide, ready) = (parse::is_suicide(&json), json.trim() == "\"ready\"");
                let handle = kind.zip(handle);
                self.emit(PrimaryEvent::User { json, handle });
                if suicide {
                    self.emit(PrimaryEvent::Message(FromWorker::Suicide { seq: SUICIDE }));
                } else if ready {
                    self.emit(PrimaryEvent::Message(FromWorker::Ready));
                }
            }
            Meant::Cluster(msg) => self.hear_cluster(msg),
        }
    }

    fn hear_cluster(&mut self, msg: PrimaryMeaning) {
        match msg {
            PrimaryMeaning::Stray => self.emit(PrimaryEvent::Stray),
            PrimaryMeaning::Say(msg) => self.emit(PrimaryEvent::Message(msg)),
            PrimaryMeaning::Answered { ack, accepted } => self.on_answered(ack, accepted),
            PrimaryMeaning::Listening(server) => self.on_listening(&server),
            PrimaryMeaning::Close(key) => self.on_close(key),
            PrimaryMeaning::Query { seq, server, query } => self.on_query(seq, server, query),
        }
    }

    /// The worker sent a handle, whether or not it has come. Until the worker has the answer, it
    /// holds back what it would say about the connections that it has.
    fn on_handle(&mut self, answer: &[u8]) {
        self.holds_back = true;
        for seq in core::mem::take(&mut self.arrived) {
            self.emit(PrimaryEvent::InDoubt { seq });
        }
        self.emit(PrimaryEvent::Answer(answer.to_vec()));
    }

    /// The transport for which the worker asked with a listener that it holds.
    fn transport_of(&self, listener: ListenerId) -> Option<Transport> {
        let grant = self.granted.iter().find(|grant| grant.listener == listener);
        grant.map(|grant| grant.transport)
    }

    fn emit(&mut self, event: PrimaryEvent<T>) {
        self.events.push_back(event);
    }

    fn on_acked(&mut self) {
        match self.unacked.acked() {
            None => self.emit(PrimaryEvent::Stray),
            Some(Cargo::Handoff(seq)) if self.holds_back => {
                self.emit(PrimaryEvent::InDoubt { seq });
            }
            // A worker that answers connections before they arrive leaves them here for good.
            Some(Cargo::Handoff(_)) if self.arrived.len() >= MAX_UNACKED => {
                self.lines.fail(DecodeError::TooManyHandles);
            }
            Some(Cargo::Handoff(seq)) => self.arrived.push_back(seq),
            Some(Cargo::Grant { .. } | Cargo::User) => {}
            Some(Cargo::Passed(listener)) => {
                // A worker without cluster does not report itself; now it can serve.
                self.emit(PrimaryEvent::Message(FromWorker::Online));
                self.emit(PrimaryEvent::Message(FromWorker::Listening { listener }));
            }
        }
    }

    fn on_refused(&mut self) {
        match self.unacked.refused() {
            Refused::Stray => self.emit(PrimaryEvent::Stray),
            Refused::Again(Cargo::Handoff(seq)) | Refused::GivenUp(Cargo::Handoff(seq)) => {
                self.emit(PrimaryEvent::NotArrived { seq });
            }
            Refused::Again(Cargo::User) | Refused::GivenUp(Cargo::User) => {
                self.emit(PrimaryEvent::UserNotArrived);
            }
            Refused::Again(Cargo::Grant { ack, granted }) => {
                let attach = Attach::Listener(granted.listener);
                let msg = ToWorker::QueryReply { ack, result: Ok(granted) };
                self.emit(PrimaryEvent::Resend { msg, attach });
            }
            Refused::Again(Cargo::Passed(listener)) => {
                let attach = Attach::Listener(listener);
                self.emit(PrimaryEvent::Resend {
                    msg: ToWorker::PassListener { listener },
                    attach,
                });
            }
            Refused::GivenUp(Cargo::Grant { ack, granted }) => {
                // It holds nothing, and its query has no answer yet.
                let listener = granted.listener;
                self.granted.retain(|grant| grant.listener != listener);
                self.emit(PrimaryEvent::Message(FromWorker::Close { listener }));
                self.refuse(ack, Errno::EMFILE);
            }
            // It can't serve, and has nothing else to say.
            Refused::GivenUp(Cargo::Passed(_)) => {
                self.lines.fail(DecodeError::BadMessage);
            }
        }
    }

    fn on_answered(&mut self, ack: u64, accepted: bool) {
        match handoff_of(ack) {
            Some(ack) => {
                // Usually the oldest.
                if let Some(at) = self.arrived.iter().position(|seq| *seq == ack) {
                    self.arrived.remove(at);
                }
                self.emit(PrimaryEvent::Message(FromWorker::Ack { ack, accepted }));
            }
            None => self.emit(PrimaryEvent::Stray),
        }
    }

    fn on_query(&mut self, seq: Seq, server: Server, query: Result<Box<Query>, Errno>) {
        let Query { key, backlog, data } = match query {
            Ok(query) => *query,
            Err(errno) => return self.refuse(seq, errno),
        };
        if self.asked.iter().any(|(other, ..)| *other == seq) {
            return self.emit(PrimaryEvent::Stray);
        }
        self.asked.push((seq, server, key.transport));
        let key = Box::new(key);
        self.emit(PrimaryEvent::Message(FromWorker::Query { seq, key, backlog, data }));
    }

    fn refuse(&mut self, ack: Seq, errno: Errno) {
        let mut bytes = Vec::new();
        self.encode(&ToWorker::QueryReply { ack, result: Err(errno) }, &mut bytes);
        self.emit(PrimaryEvent::Answer(bytes));
    }

    fn on_listening(&mut self, server: &Server) {
        let found = self.granted.iter_mut().find(|grant| {
            let port = server.port == grant.server.port
                || grant.real_port.is_some_and(|real| server.port == i64::from(real));
            let same = Server { port: grant.server.port, ..server.clone() } == grant.server;
            !grant.listening && same && (port || server.fd >= 0)
        });
        match found {
            Some(grant) => {
                grant.listening = true;
                let listener = grant.listener;
                self.emit(PrimaryEvent::Message(FromWorker::Listening { listener }));
            }
            None => self.emit(PrimaryEvent::Stray),
        }
    }

    fn on_close(&mut self, key: Option<ListenerId>) {
        match self.granted.iter().position(|grant| Some(grant.listener) == key) {
            Some(at) => {
                let listener = self.granted.swap_remove(at).listener;
                self.emit(PrimaryEvent::Message(FromWorker::Close { listener }));
            }
            None => self.emit(PrimaryEvent::Stray),
        }
    }
}
