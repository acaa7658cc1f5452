//! Guarantee 9, counted beside the primary: how often, and how soon, a slot gets its next worker.

use std::time::Duration;

use roundel_core::{Config, Time, WorkerId};

use super::reference::{Reference, WorkerModel};
use crate::models::reload::News;

/// The restarts of a slot.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    /// When its workers failed early.
    failures: Vec<Time>,
    /// The last of that, if nobody came since.
    waits: Option<Time>,
}

impl Reference {
    /// A worker's process is gone for good: it failed early if it was never ready, or has served
    /// nothing in its first second.
    pub(super) fn vacates(&mut self, id: WorkerId) {
        let now = self.now;
        let Some(member) = self.member(id) else { return };
        let second = Duration::from_secs(1);
        let early = member.ready_at.is_none_or(|at| now.since(at) < second && !member.served);
        let slot = member.slot as usize;
        if std::mem::replace(&mut member.followed, true) || !early {
            return;
        }
        if let Some(tries) = self.tries.get_mut(slot) {
            tries.failures.push(now);
            tries.waits = Some(now);
        }
    }

    /// Nothing was to be had to start a worker: that counts for nothing, and its slot waits.
    pub(super) fn starves(&mut self, id: WorkerId, now: Time) {
        let Some(member) = self.member(id) else { return };
        let (slot, followed) = (member.slot as usize, member.followed);
        self.members.retain(|member| member.id != id);
        if let Some(tries) = self.tries.get_mut(slot).filter(|_| !followed) {
            tries.waits = Some(now);
        }
    }

    /// A slot is given up.
    pub(super) fn on_given_up(&mut self, slot: u32, config: &Config) {
        let now = self.now;
        let Some(tries) = self.tries.get(slot as usize) else { return };
        let recent = tries.failures.iter().filter(|&&at| now.since(at) < config.restart_period());
        let count = recent.count();
        if count <= config.restart_intensity() as usize {
            self.wrong(format!("9: slot {slot} is given up after {count} early failures"));
        }
    }

    /// A worker is started.
    pub(super) fn on_spawn(&mut self, id: WorkerId, slot: u32, config: &Config) {
        if self.successors.contains(&id) {
            self.members.push(WorkerModel { held: true, followed: true, ..new(id, slot) });
            return;
        }
        let now = self.now;
        self.tries.resize_with(config.workers() as usize, Tries::default);
        if let Some(tries) = self.tries.get_mut(slot as usize) {
            tries.failures.retain(|&at| now.since(at) < config.restart_period());
            let failures = tries.failures.len();
            let soon = tries.waits.take().is_some_and(|at| at + config.respawn_delay() > now);
            if failures > config.restart_intensity() as usize {
                self.wrong(format!("9: {id} is started after {failures} early failures"));
            } else if soon {
                self.wrong(format!("9: {id} is started at once after an early failure"));
            }
        }
        for member in self.members.iter_mut().filter(|member| member.slot == slot) {
            member.followed = true;
        }
        self.members.push(new(id, slot));
    }

    /// What follows from a reload.
    pub(super) fn on_news(&mut self, news: &News) {
        match news {
            News::Successor(id) => self.successors.push(*id),
            News::Promoted(slot, id) => {
                self.successors.retain(|other| other != id);
                for member in self.members.iter_mut().filter(|it| it.slot == slot.0) {
                    member.followed = member.id != *id;
                    member.held &= member.id != *id;
                }
                if let Some(tries) = self.tries.get_mut(slot.0 as usize) {
                    *tries = Tries::default();
                }
                self.move_to_end(*id);
            }
            News::Reloading(_)
            | News::Config(_)
            | News::Hastened(..)
            | News::Operator(_)
            | News::Dropped(_) => {}
        }
    }
}

/// A worker that is started.
fn new(id: WorkerId, slot: u32) -> WorkerModel {
    WorkerModel {
        id,
        ready: false,
        out: false,
        held: false,
        in_flight: Vec::new(),
        in_doubt: Vec::new(),
        cool: None,
        slot,
        ready_at: None,
        served: false,
        followed: false,
    }
}
