//! Listeners: which workers ask for them and hold them, and when they are bound and closed.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Primary;
use super::invariants::{POSITION, broken};
use super::output::{Event, Output, Verdict};
use super::state::{Asker, ListenerRecord, ListenerState, Share, WorkerKind};
use crate::timers::Due;
use crate::transitions::{Life, Step};
use crate::{
    Address, Attach, Errno, Granted, ListenKey, ListenerId, Seq, SockName, ToWorker, Transport,
    WorkerId,
};

impl Primary {
    /// Binds the operator's listeners, the first thing a primary does. The workers start once all
    /// are bound.
    pub(super) fn bind_operator(&mut self) {
        let keys = self.config.listeners.clone();
        let ids: Vec<ListenerId> = keys.into_iter().map(|key| self.bind(key, true, 0)).collect();
        let is_empty = ids.is_empty();
        self.operator.insert(self.generation, ids);
        if is_empty {
            self.start_workers();
        }
    }

    pub(super) fn bind(&mut self, key: ListenKey, operator: bool, backlog: u32) -> ListenerId {
        let listener = self.next_listener;
        self.next_listener = listener.next();
        let shared = key.transport != Transport::Stream
            || self.config.policy.workers_accept()
            || self.config.pass_listeners;
        self.make_way_for(&key);
        let mut record = ListenerRecord::new(key, operator, shared);
        record.state = ListenerState::Waiting { backlog };
        self.listeners.insert(listener, record);
        self.bind_if_free(listener);
        listener
    }

    pub(super) fn on_bound(&mut self, id: ListenerId, result: Result<SockName, Errno>) {
        let stopping = self.is_stopping();
        let Some(record) = self.listeners.get_mut(id) else { return };
        let operator = record.operator;
        record.state = ListenerState::Open;
        let askers = core::mem::take(&mut record.askers);
        match result {
            Ok(sockname) => {
                record.sockname = Some(sockname.clone());
                self.event(Event::Bound { listener: id, sockname });
                for Asker { worker, seq } in askers {
                    self.forget_query(worker);
                    self.grant(worker, seq, id);
                }
                if self.is_draining() {
                    return self.close(id);
                }
                if stopping {
                    return self.unbind(id);
                }
                self.resume_if_allowed(id);
                if operator && !self.is_bound_for_reload(id) && self.operator_is_open() {
                    self.start_workers();
                }
            }
            Err(errno) => {
                let address = record.key.address.clone();
                self.listeners.remove(id);
                self.event(Event::BindFailed { address: address.clone(), errno });
                for Asker { worker, seq } in askers {
                    self.forget_query(worker);
                    self.reply(worker, seq, Err(errno));
                }
                if operator && !self.bind_failed_for_reload(id, &address, errno) {
                    self.stop_now(Verdict::CannotBind { address, errno });
                }
            }
        }
    }

    fn operator_is_open(&self) -> bool {
        self.operator_of(self.generation)
            .iter()
            .all(|&id| self.listeners.get(id).is_some_and(ListenerRecord::is_open))
    }

    pub(super) fn on_query(
        &mut self,
        id: WorkerId,
        seq: Seq,
        key: ListenKey,
        backlog: u32,
        data: Vec<u8>,
    ) {
        let Some(worker) = self.workers.get(id) else { return };
        if !matches!(worker.life, Life::Online | Life::Ready) || self.is_draining() {
            return self.reply(id, seq, Err(Errno::ECANCELED));
        }
        self.timers.clear(Due::Silent(id));
        let held = worker.shares.len() as u64 + u64::from(worker.queries);
        let slot = worker.slot;
        if data.len() > self.config.max_frame as usize / 2 {
            return self.reply(id, seq, Err(Errno::EMSGSIZE));
        }
        let key = key.normal();
        if !key.is_possible() {
            return self.reply(id, seq, Err(Errno::EINVAL));
        }
        if held >= u64::from(self.config.max_listeners_per_worker) {
            return self.reply(id, seq, Err(Errno::EMFILE));
        }
        let listener = match self.find(&key, worker.generation) {
            Found::Here(found) if self.would_count(found, slot) && !self.make_room(slot) => {
                return self.reply(id, seq, Err(Errno::EMFILE));
            }
            Found::Here(found) => found,
            Found::Nowhere if self.is_stopping() => {
                return self.reply(id, seq, Err(Errno::ECANCELED));
            }
            Found::Nowhere if self.listeners.len() >= self.config.max_listeners as usize => {
                return self.reply(id, seq, Err(Errno::EMFILE));
            }
            // Checked last, since making room may close a listener.
            Found::Nowhere if !self.make_room(slot) => {
                return self.reply(id, seq, Err(Errno::EMFILE));
            }
            Found::Nowhere => self.bind(key, false, backlog),
            Found::Narrower(operator) => {
                self.tell_narrower(id, operator, &key);
                return self.reply(id, seq, Err(Errno::EADDRINUSE));
            }
            Found::No(errno) => return self.reply(id, seq, Err(errno)),
        };
        let stopping = self.is_stopping();
        let Some(record) = self.listeners.get_mut(listener) else { return };
        record.data.get_or_insert(data);
        match record.state {
            ListenerState::Waiting { .. } | ListenerState::Binding => {
                record.askers.push(Asker { worker: id, seq });
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.queries += 1;
                }
            }
            ListenerState::Open => self.grant(id, seq, listener),
            // While a shutdown hands out what is pending, a late worker can help.
            ListenerState::Closing | ListenerState::Closed if stopping && !record.shared => {
                self.grant(id, seq, listener);
            }
            ListenerState::Closing | ListenerState::Closed => {
                self.reply(id, seq, Err(Errno::ECANCELED));
            }
        }
    }

    /// What a query finds.
    fn find(&self, key: &ListenKey, generation: u32) -> Found {
        let operator = self.operator_of(generation);
        if let Address::Nth(nth) = key.address {
            let found = operator.get(nth as usize).copied();
            return found.map_or(Found::No(Errno::EINVAL), Found::Here);
        }
        for &id in operator {
            let Some(record) = self.listeners.get(id) else { continue };
            if record.key.transport != key.transport {
                continue;
            }
            // Port 0 asks for a port of its own, unless it is the first such query and the operator
            // gave the same address.
            if key.address.port() == Some(0) {
                if record.key.address == key.address && key.index == 0 {
                    return Found::Here(id);
                }
                continue;
            }
            let (own, v6_only) = (record.effective_address(), record.key.v6_only);
            let same = record.key.address == key.address;
            if same || own.covers(v6_only, &key.address, key.v6_only) {
                // A worker's second server on one address can't share its first one's.
                return if key.index == 0 { Found::Here(id) } else { Found::No(Errno::EADDRINUSE) };
            }
            if own.collides(v6_only, &key.address, key.v6_only) {
                return Found::Narrower(id);
            }
        }
        let same = |record: &ListenerRecord| !record.operator && record.key == *key;
        // Listeners are few and queries rare. Take the lowest id, for determinism.
        let found = self
            .listeners
            .iter()
            .filter(|(_, record)| {
                same(record) && (self.is_stopping() || record.state != ListenerState::Closing)
            })
            .map(|(id, _)| id)
            .min();
        found.map_or(Found::Nowhere, Found::Here)
    }

    /// Reports once which address the operator would have to give.
    fn tell_narrower(&mut self, worker: WorkerId, operator: ListenerId, key: &ListenKey) {
        let Some(record) = self.listeners.get_mut(operator) else { return };
        if core::mem::replace(&mut record.told, true) {
            return;
        }
        let bind = record.key.address.clone();
        let address = key.address.clone();
        self.event(Event::BindTooNarrow { worker, address, bind });
    }

    fn grant(&mut self, id: WorkerId, seq: Seq, listener: ListenerId) {
        let stays =
            self.workers.get(id).is_some_and(|w| w.life.is_staying()) && !self.is_draining();
        let Some(record) = self.listeners.get_mut(listener) else { return };
        let Some(sockname) = record.sockname.clone() else {
            return broken("an open listener has a name");
        };
        if !stays {
            return self.reply(id, seq, Err(Errno::ECANCELED));
        }
        if !record.holders.insert(id) {
            return self.reply(id, seq, Err(Errno::EADDRINUSE));
        }
        let shared = record.shared;
        let data = record.data.clone().unwrap_or_default();
        if let Some(worker) = self.workers.get_mut(id) {
            record.slots.insert(worker.slot);
            worker.shares.push(Share { listener, listening: false, cool: None });
            if worker.life == Life::Online && !self.timers.is_set(Due::Ready(id)) {
                self.expect_ready(id);
            }
        }
        self.reply(id, seq, Ok(Box::new(Granted { listener, sockname, shared, data })));
    }

    /// Starts a worker's ready timeout.
    fn expect_ready(&mut self, id: WorkerId) {
        if let Some(timeout) = self.config.ready_timeout {
            self.timers.set(Due::Ready(id), self.now + timeout);
        }
    }

    pub(super) fn reply(&mut self, id: WorkerId, ack: Seq, result: Result<Box<Granted>, Errno>) {
        let attach = match &result {
            Ok(granted) if granted.shared => Some(Attach::Listener(granted.listener)),
            _ => None,
        };
        // If the cluster stops, that is not the worker's fault.
        let failed = matches!(result, Err(errno) if errno != Errno::ECANCELED);
        let msg = ToWorker::QueryReply { ack, result };
        self.emit(Output::Send { worker: id, msg, attach });
        if failed {
            self.query_failed(id);
        }
    }

    pub(super) fn forget_query(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.queries = worker.queries.saturating_sub(1);
        }
    }

    pub(super) fn on_listening(&mut self, id: WorkerId, listener: ListenerId) {
        let Some(index) = self.workers.position(id) else { return };
        let Some(worker) = self.workers.at_mut(index) else { return broken(POSITION) };
        let Some(share) = worker.share_mut(listener) else { return self.stray(id) };
        share.listening = true;
        if worker.life == Life::Online && self.is_private(id, listener) {
            // A launcher may never listen on anything else: report that after a while.
            self.timers.clear(Due::Ready(id));
            if let Some(timeout) = self.config.ready_timeout {
                self.timers.set(Due::Silent(id), self.now + timeout);
            }
            return;
        }
        self.become_ready(id);
        self.serve(index);
    }

    /// Whether a worker's listener is for itself alone: a socket in a temporary directory that has
    /// the number of the process in its name, as launchers make them for what they start. A worker
    /// that listens there serves no client yet.
    pub(super) fn is_private(&self, id: WorkerId, listener: ListenerId) -> bool {
        let pid = self.workers.get(id).and_then(|worker| worker.pid);
        let asked_for = self.listeners.get(listener).filter(|record| !record.operator);
        match (asked_for.map(|record| &record.key.address), pid) {
            (Some(Address::Unix(path)), Some(pid)) => is_temporary_of(path, pid),
            _ => false,
        }
    }

    pub(super) fn on_said_ready(&mut self, id: WorkerId) {
        let Some(index) = self.workers.position(id) else { return };
        let Some(worker) = self.workers.at_mut(index) else { return broken(POSITION) };
        worker.said_ready = true;
        let listening = worker.shares.iter().filter(|share| share.listening);
        let listeners: Vec<ListenerId> = listening.map(|share| share.listener).collect();
        if listeners.into_iter().any(|listener| !self.is_private(id, listener)) {
            self.become_ready(id);
            self.serve(index);
        }
    }

    /// Makes a listening worker ready, unless its program must say so first and has not.
    fn become_ready(&mut self, id: WorkerId) {
        let now = self.now;
        let Some(worker) = self.workers.get(id) else { return };
        if self.config.wait_ready && !worker.said_ready {
            return;
        }
        if self.step(id, Step::Listening) {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.ready_at = Some(now);
            }
            self.timers.clear(Due::Ready(id));
            self.limit_life(id);
            self.event(Event::Ready { worker: id });
            self.await_claims();
        }
    }

    /// Gives the operator's listeners to a worker that will not ask for them.
    pub(super) fn pass_listeners(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.kind = Some(WorkerKind::NodeChild);
        let (slot, generation) = (worker.slot, worker.generation);
        self.expect_ready(id);
        for listener in self.operator_of(generation).to_vec() {
            let Some(record) = self.listeners.get_mut(listener) else { continue };
            record.holders.insert(id);
            record.slots.insert(slot);
            if let Some(worker) = self.workers.get_mut(id) {
                worker.shares.push(Share { listener, listening: false, cool: None });
            }
            let msg = ToWorker::PassListener { listener };
            let attach = Some(Attach::Listener(listener));
            self.emit(Output::Send { worker: id, msg, attach });
        }
    }

    pub(super) fn on_close(&mut self, id: WorkerId, listener: ListenerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let before = worker.shares.len();
        worker.shares.retain(|share| share.listener != listener);
        if worker.shares.len() == before {
            return self.stray(id);
        }
        let (stays, holds_more) = (worker.life.is_staying(), !worker.shares.is_empty());
        self.timers.clear(Due::Cooldown(id, listener));
        // If it holds no other listener, it has none to listen on; otherwise its ready timeout
        // starts again.
        if self.timers.is_set(Due::Ready(id)) {
            self.timers.clear(Due::Ready(id));
            if holds_more {
                self.expect_ready(id);
            }
        }
        if let Some(record) = self.listeners.get_mut(listener) {
            record.holders.remove(&id);
            // A program that looks for a free port closes it like this. A worker that leaves sends
            // this first, and `suicide` or the like later. The difference: a probe never had a
            // connection.
            let probe = stays && !record.used && !record.shared;
            if probe && record.is_unheld() && self.stop.is_none() {
                return self.unbind(listener);
            }
        }
        if !holds_more && !stays {
            self.count_later();
        }
    }

    /// A worker's channel is gone: it holds nothing any more.
    pub(super) fn drop_shares(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        for share in core::mem::take(&mut worker.shares) {
            self.timers.clear(Due::Cooldown(id, share.listener));
            if let Some(record) = self.listeners.get_mut(share.listener) {
                record.holders.remove(&id);
            }
        }
    }
}

/// What a query finds.
enum Found {
    /// This listener.
    Here(ListenerId),
    /// A new one must be bound.
    Nowhere,
    /// This operator's listener is in the way, and serves less than the query asks for.
    Narrower(ListenerId),
    /// Nothing, for this reason.
    No(Errno),
}

/// Whether a path has this number below a directory `tmp`.
fn is_temporary_of(path: &str, pid: i32) -> bool {
    let below = path.split('/').skip_while(|part| *part != "tmp").skip(1);
    let mut numbers = below.flat_map(|part| part.split(|letter: char| !letter.is_ascii_digit()));
    numbers.any(|number| number.parse() == Ok(pid) && !number.starts_with('0'))
}
