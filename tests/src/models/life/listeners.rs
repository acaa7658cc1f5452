//! When listeners may be closed, and when they must be: the reference for guarantee 7.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use roundel_core::{ListenerId, Policy, Slot, Time, WorkerId};

use super::restarts::Place;
use super::{LifeModel, Stage, WorkerModel};
use crate::faults::fault::Property;
use crate::sim::plan::is_taken;

#[derive(Debug, Default)]
pub(super) struct Listener {
    pub(super) operator: bool,
    pub(super) holders: BTreeSet<WorkerId>,
    pub(super) open: bool,
    pub(super) closing: bool,
    pub(super) at: Option<SocketAddr>,
    /// The slots whose workers had it.
    pub(super) slots: BTreeSet<Slot>,
    /// A connection came to it.
    pub(super) used: bool,
    /// One that stays looked whether the port is free.
    pub(super) probed: bool,
    /// Since when nothing speaks for keeping it.
    pub(super) unwanted_since: Option<Time>,
}

impl LifeModel {
    pub(super) fn on_close(&mut self, worker: WorkerId, listener: ListenerId) {
        let shared = self.config.policy() == Policy::Shared || self.config.pass_listeners();
        let Some(member) = self.members.get(&worker).filter(|member| !member.killed) else {
            return;
        };
        let stays = member.stage == Stage::Staying;
        if let Some(record) = self.listeners.get_mut(&listener) {
            let held = record.holders.remove(&worker);
            let last = held && record.holders.is_empty() && record.open && !record.operator;
            record.probed |= last && stays && !record.used && !shared;
        }
    }

    /// Whether a listener was asked for by workers, and none has it; or the core has forgotten it.
    pub fn is_left_behind(&self, listener: ListenerId) -> bool {
        let record = self.listeners.get(&listener);
        record.is_none_or(|it| !it.operator && it.holders.is_empty())
    }

    pub(super) fn on_unbind(&mut self, listener: ListenerId) {
        if self.operator.contains(&listener) && !self.dropped.contains(&listener) {
            self.look_at_delay("a listener is closed");
        }
        if self.dropped.contains(&listener) {
            // Whether it may be is looked at elsewhere.
            if let Some(record) = self.listeners.get_mut(&listener) {
                (record.open, record.closing) = (false, true);
            }
            return;
        }
        let now = self.now;
        let unheld_timeout = self.config.unheld_timeout();
        let stopping = self.stopping;
        let makes_room = self.makes_room(listener);
        let Some(record) = self.listeners.get_mut(&listener) else { return };
        record.open = false;
        record.closing = true;
        let ripe = record.unwanted_since.is_some_and(|at| now.since(at) >= unheld_timeout);
        let operator = record.operator;
        let at = record.at;
        let asked = self.query.as_ref().zip(at);
        let yields = asked.is_some_and(|((_, ask), at)| is_taken(ask, at));
        let yields = (yields || makes_room) && record.holders.is_empty();
        if !stopping && (operator || !(ripe || yields || record.probed)) {
            self.fault(Property::Listeners, format!("{listener} was closed while wanted"));
        }
    }

    /// Whether a listener that only a slot's former workers had is in the way of one that its
    /// present worker asks for, which it may not have beside all others.
    fn makes_room(&self, listener: ListenerId) -> bool {
        let asker = self.query.as_ref().and_then(|(worker, _)| self.members.get(worker));
        let Some(slot) = asker.map(|member| member.slot) else { return false };
        let counts = |it: &&Listener| {
            let of_slot = it.slots.contains(&slot) || it.slots.is_empty();
            !it.operator && !it.closing && of_slot
        };
        let count = self.listeners.values().filter(counts).count();
        let its_alone = |it: &Listener| it.slots.iter().eq([&slot]);
        self.listeners.get(&listener).is_some_and(its_alone)
            && count >= self.config.max_listeners_per_worker() as usize
    }

    /// Whether a slot waits for a worker: there may be too many processes for another one.
    fn is_empty(&self, at: u32, place: &Place) -> bool {
        if place.given_up || place.ended || place.removed {
            return false;
        }
        let mut new = self.successors.iter().filter_map(|id| self.members.get(id));
        let has_new = new.any(|it| it.slot.0 == at && !it.exited);
        let gone = place.newest.is_none_or(|id| !self.members.contains_key(&id));
        if place.ended_first { !has_new } else { gone }
    }

    pub(super) fn review_listeners(&mut self) {
        if self.stopping {
            return;
        }
        let now = self.now;
        let unheld_timeout = self.config.unheld_timeout();
        // One that lives on without its channel has its replacement for that.
        let settled = |m: &WorkerModel| m.stage == Stage::Staying && m.asked;
        let may_come = |m: &WorkerModel| !(settled(m) || m.closed && m.replaced);
        let back = |slot: &Slot| {
            let newest = self.places.get(slot.0 as usize).and_then(|place| place.newest);
            newest.and_then(|id| self.members.get(&id)).is_some_and(settled)
        };
        let on_the_way = self.members.values().any(may_come)
            || self.members.is_empty()
            || (0..)
                .zip(&self.places)
                .any(|(at, it)| it.not_before.is_some() || self.is_empty(at, it));
        let mut late = false;
        let mut in_use = false;
        for record in self.listeners.values_mut() {
            in_use |= record.probed && record.open;
            let unwanted = record.open && !record.operator && record.holders.is_empty();
            // Until every slot that had it has come back without it.
            let missed = record.slots.is_empty() || !record.slots.iter().all(back);
            if !unwanted || on_the_way && missed {
                record.unwanted_since = None;
                continue;
            }
            let since = *record.unwanted_since.get_or_insert(now);
            late |= self.is_wake && now.since(since) >= unheld_timeout;
        }
        if late {
            self.fault(Property::Listeners, "a listener that nobody wants is kept");
        }
        if in_use {
            self.fault(Property::Listeners, "a port that was looked at is kept");
        }
    }
}
