//! A view in which states that behave alike are equal, for search and comparison.

use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::Primary;
use super::records::{Listener, SlotState, Worker};
use super::shutdown::Stop;
use crate::timers::Due;
use crate::{ConnId, ListenerId, Time, WorkerId};

/// A [`Primary`] with its ids renamed in order, its times relative to now, and its counters left
/// out.
///
/// Two primaries with the same configuration and equal views answer equal inputs (renamed alike)
/// with equal outputs, but for the counters: totals, restarts, the last exit of a slot, and stray
/// messages short of their limit. Outputs that were not polled are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Canonical(Vec<Item>);

/// One fact of the view; the order of the facts is fixed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Item {
    /// A part begins.
    Mark(char),
    /// A number, a rank, or a flag.
    Number(u64),
    /// A time from now, in nanoseconds.
    Ahead(i128),
    /// Anything that has no ids or times in it.
    Text(alloc::string::String),
}

impl Primary {
    /// The view of this state.
    pub fn canonical(&self) -> Canonical {
        let mut view = View {
            items: Vec::new(),
            now: self.now,
            workers: self.workers.keys_sorted(),
            listeners: self.listeners.keys_sorted(),
            conns: self.held(),
        };
        for id in view.workers.clone() {
            if let Some(worker) = self.workers.get(id) {
                view.worker(self, worker);
            }
        }
        for id in view.listeners.clone() {
            if let Some(record) = self.listeners.get(id) {
                view.listener(record);
            }
        }
        view.mark('o');
        for index in self.ring.iter() {
            let rank = self.workers.key_at(index).map(|id| view.rank(id));
            view.number(rank.unwrap_or(0));
        }
        view.mark('b');
        for &id in &self.backlog {
            let rank = view.listener_rank(id);
            view.number(rank);
        }
        view.slots(self);
        view.timers(self);
        view.mark('p');
        view.number(u64::from(self.pressed));
        view.number(u64::from(self.ever_online));
        view.text(&self.stop.as_ref().map(Stop::without_time));
        view.time(self.stop.as_ref().map(Stop::deadline));
        Canonical(view.items)
    }
}

struct View {
    items: Vec<Item>,
    now: Time,
    workers: Vec<WorkerId>,
    listeners: Vec<ListenerId>,
    conns: Vec<ConnId>,
}

impl View {
    fn mark(&mut self, part: char) {
        self.items.push(Item::Mark(part));
    }

    fn number(&mut self, number: u64) {
        self.items.push(Item::Number(number));
    }

    fn text(&mut self, what: &impl core::fmt::Debug) {
        self.items.push(Item::Text(alloc::format!("{what:?}")));
    }

    fn time(&mut self, at: Option<Time>) {
        let ahead = |at: Time| i128::from(at.as_nanos()) - i128::from(self.now.as_nanos());
        self.items.push(Item::Ahead(at.map_or(i128::MAX, ahead)));
    }

    /// An age, of which only so much matters.
    fn age(&mut self, at: Time, matters: Duration) {
        let age = self.now.since(at).min(matters);
        self.number(age.as_nanos() as u64);
    }

    /// One more than the place in the order; 0 for what is gone.
    fn rank(&self, id: WorkerId) -> u64 {
        self.workers.binary_search(&id).map_or(0, |at| at as u64 + 1)
    }

    fn listener_rank(&self, id: ListenerId) -> u64 {
        self.listeners.binary_search(&id).map_or(0, |at| at as u64 + 1)
    }

    fn conn_rank(&self, id: ConnId) -> u64 {
        self.conns.binary_search(&id).map_or(0, |at| at as u64 + 1)
    }

    fn worker(&mut self, primary: &Primary, worker: &Worker) {
        self.mark('w');
        self.text(&(worker.slot, worker.generation, worker.codec, worker.life));
        self.text(&(worker.pid.is_some(), worker.voluntary, worker.killed_as, worker.replaced));
        self.text(&(worker.fenced, worker.channel_closed, worker.exit, worker.accepted > 0));
        self.number(worker.window.into());
        self.number(worker.queries.into());
        self.number(worker.said_ready.into());
        if let Some(at) = worker.ready_at {
            self.age(at, primary.config.restart_period.max(Duration::from_secs(1)));
        }
        if worker.life == crate::Life::Leaving {
            self.time(Some(worker.leaving_since));
        }
        self.mark('f');
        for entry in worker.in_flight.iter() {
            self.number(worker.next_seq.get() - entry.seq.get());
            self.number(self.conn_rank(entry.conn));
            self.number(self.listener_rank(entry.listener));
            self.number(entry.attempts.into());
            self.number(entry.doubtful.into());
        }
        self.time((!worker.in_flight.is_empty()).then_some(worker.owes_since));
        self.mark('s');
        for share in &worker.shares {
            self.number(self.listener_rank(share.listener));
            self.number(share.listening.into());
            self.text(&share.cool.map(|cool| cool.next));
            self.time(share.cool.and_then(|cool| cool.until));
        }
    }

    fn listener(&mut self, record: &Listener) {
        self.mark('l');
        self.text(&(&record.key, record.operator, record.shared, record.accepting));
        self.text(&(&record.sockname, &record.data));
        self.text(&record.state);
        for asker in &record.askers {
            self.number(self.rank(asker.worker));
            self.number(asker.seq.get());
        }
        self.mark('h');
        for &holder in &record.holders {
            self.number(self.rank(holder));
        }
        self.mark('q');
        for entry in &record.pending {
            self.number(self.conn_rank(entry.conn));
            self.number(entry.attempts.into());
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only this one has an id in it")]
    fn slots(&mut self, primary: &Primary) {
        for slot in &primary.slots {
            self.mark('t');
            match slot.state {
                SlotState::Filled(id) => self.number(self.rank(id)),
                SlotState::Crowded { failing, .. } => {
                    self.mark('c');
                    self.number(self.rank(failing));
                }
                other => self.text(&other),
            }
            self.text(&slot.delay);
            for &at in &slot.failures {
                self.age(at, primary.config.restart_period);
            }
        }
    }

    fn timers(&mut self, primary: &Primary) {
        self.mark('d');
        let mut facts: Vec<(Time, u8, u64, u64)> = primary
            .timers
            .iter()
            // An ack timer is only a reminder of what the record says.
            .filter(|(_, due)| !matches!(due, Due::Ack(_)))
            .map(|(at, due)| {
                let kind = due.timer() as u8;
                match due {
                    Due::Ack(w)
                    | Due::Ready(w)
                    | Due::Silent(w)
                    | Due::Frame(w)
                    | Due::Drain(w)
                    | Due::Interrupt(w)
                    | Due::Terminate(w)
                    | Due::Fence(w)
                    | Due::Orphan(w) => (at, kind, self.rank(w), 0),
                    Due::Cooldown(w, l) => (at, kind, self.rank(w), self.listener_rank(l)),
                    Due::Respawn(slot) => (at, kind, slot.0.into(), 0),
                    Due::Unheld(l) => (at, kind, self.listener_rank(l), 0),
                    Due::StopWaiting => (at, kind, 0, 0),
                }
            })
            .collect();
        facts.sort_unstable();
        for (at, kind, who, which) in facts {
            self.time(Some(at));
            self.number(kind.into());
            self.number(who);
            self.number(which);
        }
    }
}
