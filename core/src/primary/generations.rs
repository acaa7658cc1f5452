//! Generations: which listeners of the operator the workers of each one have, and how many
//! generations there may be.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Primary;
use super::output::Event;
use super::state::{ListenerState, Reload, ReloadFailure};
use crate::{Address, Errno, ListenerId, WorkerId};

/// How long the workers of a generation that is one too many have to end.
const ENDS_WITHIN: core::time::Duration = core::time::Duration::from_secs(2);

impl Primary {
    /// The generation that the next [`Input::Reload`](crate::Input::Reload) asks for.
    pub fn next_generation(&self) -> u32 {
        self.last_generation.saturating_add(1)
    }

    /// Whether workers of a generation live or may be started again. When not, an embedder may
    /// forget what it starts them with.
    pub fn is_generation_needed(&self, generation: u32) -> bool {
        let waits = self.next_reload.as_ref().is_some_and(|next| next.generation == generation);
        waits
            || generation == self.generation
            || self.is_wanted(generation)
            || self.workers.iter().any(|(_, worker)| worker.generation == generation)
    }

    /// Whether a slot or the reload under way starts workers of a generation.
    fn is_wanted(&self, generation: u32) -> bool {
        let reloads = self.reload.as_ref().is_some_and(|it| it.generation == generation);
        reloads || self.slots.iter().any(|slot| slot.generation == generation && slot.may_start())
    }

    /// The operator's listeners for the workers of a generation.
    pub(super) fn operator_of(&self, generation: u32) -> &[ListenerId] {
        let own = self.operator.get(&generation).or_else(|| self.operator.get(&self.generation));
        own.map_or(&[], Vec::as_slice)
    }

    /// How many listeners the operator has, over all generations.
    pub(super) fn operator_count(&self) -> usize {
        match self.operator.len() {
            0 => 0,
            1 => self.operator.values().map(Vec::len).sum(),
            _ => self.operator.values().flatten().collect::<BTreeSet<_>>().len(),
        }
    }

    /// Gives the workers of a new generation the operator's listeners: those that are there, and
    /// new ones. Returns the new ones, which are being bound.
    pub(super) fn open_listeners(&mut self, generation: u32) -> Vec<ListenerId> {
        let (mut ids, mut new) = (Vec::new(), Vec::new());
        for key in self.config.listeners.clone() {
            let same = |id: &ListenerId| {
                self.listeners
                    .get(*id)
                    .is_some_and(|it| it.key == key && !matches!(it.state, ListenerState::Closing))
            };
            // Several may have the same key, such as port 0.
            let fresh = |id: &ListenerId| !ids.contains(id);
            let mut known = self.operator.values().flatten().copied().filter(fresh);
            let known = known.find(same);
            ids.push(known.unwrap_or_else(|| {
                let id = self.bind(key, true, 0);
                new.push(id);
                id
            }));
        }
        self.operator.insert(generation, ids);
        new
    }

    /// Whether a listener is one that the reload under way opens.
    pub(super) fn is_bound_for_reload(&mut self, id: ListenerId) -> bool {
        self.reload.as_mut().is_some_and(|reload| reload.binding.remove(&id))
    }

    /// Notes that a listener of the reload under way could not be bound. False if it is not one.
    pub(super) fn bind_failed_for_reload(
        &mut self,
        id: ListenerId,
        address: &Address,
        errno: Errno,
    ) -> bool {
        // A reload that has ended since does not want it any more.
        let of_first = self.operator.get(&super::FIRST_GENERATION);
        let is_first = of_first.is_some_and(|ids| ids.contains(&id));
        for ids in self.operator.values_mut() {
            ids.retain(|other| *other != id);
        }
        if let Some(reload) = &mut self.reload
            && reload.binding.remove(&id)
        {
            let address = address.clone();
            reload.failure.get_or_insert(ReloadFailure::CannotBind { address, errno });
        }
        !is_first || self.started
    }

    /// Closes the operator's listeners that only generations without a slot had.
    pub(super) fn close_dropped(&mut self) {
        if self.operator.len() < 2 || self.is_stopping() {
            return;
        }
        let gone: Vec<u32> =
            self.operator.keys().copied().filter(|&it| !self.is_wanted(it)).collect();
        for generation in gone {
            if generation == self.generation {
                continue;
            }
            for id in self.operator.remove(&generation).unwrap_or_default() {
                let kept = self.operator.values().any(|ids| ids.contains(&id));
                let Some(record) = self.listeners.get_mut(id).filter(|_| !kept) else { continue };
                record.operator = false;
                // One that is being bound closes once it is, since nobody holds it.
                if record.is_open() {
                    self.close_unheld(id);
                }
            }
        }
    }

    /// Ends the workers of the oldest generations if there are more of them than may be.
    pub(super) fn limit_generations(&mut self, reload: &Reload) {
        let deadline = self.now + ENDS_WITHIN;
        for id in self.too_old(reload.generation) {
            self.hasten(id, deadline);
        }
    }

    /// The leaving workers of the oldest generations, if there are too many with a new one.
    pub(super) fn too_old(&self, generation: u32) -> Vec<WorkerId> {
        let lives = |worker: &super::WorkerRecord| worker.may_end();
        let mut living: BTreeSet<u32> =
            self.workers.iter().filter(|(_, it)| lives(it)).map(|(_, it)| it.generation).collect();
        living.insert(generation);
        let mut ids = Vec::new();
        while living.len() > self.config.max_generations as usize
            && let Some(oldest) = living.pop_first()
        {
            let leaves = |id: &WorkerId| {
                self.workers.get(*id).is_some_and(|worker| {
                    worker.generation == oldest && lives(worker) && !worker.life.is_staying()
                })
            };
            ids.extend(self.workers.keys_sorted().into_iter().filter(leaves));
        }
        ids
    }

    /// Notes how a reload ended, and forgets those of long ago.
    pub(super) fn record_outcome(&mut self, generation: u32, failure: Option<ReloadFailure>) {
        let record = self.reloads.iter_mut().rev().find(|record| record.generation == generation);
        if let Some(record) = record {
            record.ended = Some(self.now);
            record.failure.clone_from(&failure);
        }
        self.event(match failure {
            None => Event::ReloadDone { generation },
            Some(failure) => Event::ReloadFailed { generation, failure },
        });
    }
}
