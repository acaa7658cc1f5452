//! Clients of the control socket whose requests take their time: each is told how far its request
//! is, and answered when it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use roundel_core::{Command, Input, Life, ReloadFailure, Slot, SlotStage, SlotStatus, Time};

use super::PrimaryDriver;
use super::report::reload_failure;
use crate::observe::control::{ClientId, Failed, Progress, Reloaded, Scaled};

/// How long a worker that asks for no listener must live before nothing more is expected of it.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The longest time between two lines to a client that waits: so it knows that the primary lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// What a reload would do.
    Foretelling,
    /// The configuration is read again.
    Reread,
    /// The workers of this generation.
    Reload { generation: u32 },
    /// This number of workers.
    Scale { from: u32, to: u32 },
}

#[derive(Debug)]
struct Wait {
    goal: Goal,
    /// What the client was told last, and when.
    told: Option<(Progress, Time)>,
}

/// The clients that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    clients: BTreeMap<ClientId, Wait>,
    /// When to look again although nothing may happen until then.
    look_at: Option<Time>,
}

impl Waiting {
    /// Has a client wait for this, whatever it waited for before.
    pub(super) fn add(&mut self, client: ClientId, goal: Goal) {
        self.clients.entry(client).or_insert(Wait { goal, told: None }).goal = goal;
    }

    fn look_by(&mut self, at: Time) {
        self.look_at = Some(self.look_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.look_at
    }
}

/// How far a request is.
enum Stand {
    Silent,
    Waits(Progress),
    Reloaded(u32),
    Scaled(Scaled),
    Failed(String),
    /// Another reload took its place.
    Follows(u32),
}

impl PrimaryDriver {
    /// Answers clients whose requests are done, and tells the others how far theirs are.
    pub(super) fn answer_waiting(&mut self) {
        self.waiting.look_at = None;
        if self.waiting.clients.is_empty() {
            return;
        }
        for (client, wait) in std::mem::take(&mut self.waiting.clients) {
            if self.control.as_ref().is_none_or(|it| it.client_fd(client).is_none()) {
                continue;
            }
            let stand = self.stand(wait.goal);
            self.tell(client, wait, stand);
        }
    }

    fn tell(&mut self, client: ClientId, mut wait: Wait, stand: Stand) {
        match stand {
            Stand::Reloaded(generation) => self.answer(client, &Reloaded { ok: true, generation }),
            Stand::Scaled(scaled) => self.answer(client, &scaled),
            Stand::Failed(cause) => self.answer(client, &Failed::because(cause)),
            Stand::Follows(generation) => {
                wait.goal = Goal::Reload { generation };
                self.waiting.clients.insert(client, wait);
                self.waiting.look_at = Some(self.now);
            }
            Stand::Silent => {
                self.waiting.clients.insert(client, wait);
            }
            Stand::Waits(progress) => {
                let known = wait
                    .told
                    .filter(|(told, at)| *told == progress && *at + SIGN_OF_LIFE > self.now);
                let (_, at) = *wait.told.insert(known.unwrap_or((progress, self.now)));
                self.waiting.clients.insert(client, wait);
                self.waiting.look_by(at + SIGN_OF_LIFE);
                if known.is_none() {
                    self.show(client, progress);
                }
            }
        }
    }

    fn show(&mut self, client: ClientId, progress: Progress) {
        let (id, now) = (client, self.now);
        let Some(control) = &mut self.control else { return };
        let before = control.wants_write(id);
        control.progress(id, &progress, now);
        self.rewatch_control(id, before);
    }

    /// Answers a request that took its time.
    pub(super) fn answer(&mut self, client: ClientId, answer: &impl serde::Serialize) {
        self.waiting.clients.remove(&client);
        let before = self.control.as_ref().and_then(|it| it.wants_write(client));
        self.reply(client, answer);
        // What it has sent meanwhile was read already.
        self.ready.insert(super::Source::ControlClient(client.0));
        self.rewatch_control(client, before);
    }

    fn stand(&mut self, goal: Goal) -> Stand {
        match goal {
            Goal::Foretelling => Stand::Silent,
            Goal::Reread => self.none_ready(),
            Goal::Reload { generation } => self.reload_stand(generation),
            Goal::Scale { from, to } => self.scale_stand(from, to),
        }
    }

    /// It waits, and none of the workers that it needs has started.
    fn none_ready(&self) -> Stand {
        Stand::Waits(Progress { ready: 0, wanted: self.core.wanted() })
    }

    fn reload_stand(&self, generation: u32) -> Stand {
        let mut records = self.core.reloads();
        let Some(record) = records.find(|record| record.generation == generation) else {
            // A later one took its place, one that was not refused.
            let refused = |failure| matches!(failure, &Some(ReloadFailure::Fixed { .. }));
            let mut all = self.core.reloads();
            let later = all.find(|it| it.generation > generation && !refused(&it.failure));
            return match later {
                Some(later) => Stand::Follows(later.generation),
                None => self.none_ready(),
            };
        };
        match (&record.failure, record.ended) {
            (None, Some(_)) => Stand::Reloaded(generation),
            (None, None) => {
                let workers = self.core.workers();
                let new = workers.filter(|worker| worker.generation == generation);
                let ready = new.filter(|worker| worker.life == Life::Ready).count();
                let ready = u32::try_from(ready).unwrap_or(u32::MAX);
                Stand::Waits(Progress { ready, wanted: self.core.wanted() })
            }
            (Some(failure), _) => Stand::Failed(reload_failure(failure)),
        }
    }

    /// Begins to scale for a client.
    pub(super) fn scale_for(&mut self, client: ClientId, to: Option<u32>, by: Option<i32>) {
        let from = self.core.wanted();
        let planned = self.core.scaling_to().unwrap_or(from);
        let to = match (to, by) {
            (Some(to), None) => Ok(to),
            (None, Some(by)) => changed(planned, by),
            _ => Err("scale needs either \"to\" or \"by\"".into()),
        };
        let to = match to {
            Ok(to) => to,
            Err(cause) => return self.answer(client, &Failed::because(cause)),
        };
        match self.scale(to) {
            Ok(()) => {
                self.waiting.add(client, Goal::Scale { from, to });
                self.waiting.look_at = Some(self.now);
            }
            Err(cause) => self.answer(client, &Failed::because(cause)),
        }
    }

    /// Has another number of workers kept.
    pub(super) fn scale(&mut self, to: u32) -> Result<(), String> {
        let range = roundel_core::limits::workers();
        if !range.contains(&to) {
            let (least, most) = range.into_inner();
            return Err(format!("{to} workers: there can be from {least} to {most}"));
        }
        if self.core.stop_deadline().is_some() {
            return Err("the primary is stopping".into());
        }
        self.room.fit(&self.core.config().clone().into(), to).map_err(|error| error.to_string())?;
        self.input(Input::Command(Command::Scale(to)));
        Ok(())
    }

    fn scale_stand(&mut self, from: u32, to: u32) -> Stand {
        if self.core.stop_deadline().is_some() {
            return Stand::Failed("the primary is stopping".into());
        }
        let (mut ready, mut missing, mut warnings) = (0, false, Vec::new());
        let wanted = self.core.wanted();
        let slots: Vec<SlotStatus> = self.core.slots().collect();
        for status in slots {
            let is_new = (from..to).contains(&status.slot.0);
            let given_up = status.stage == SlotStage::GivenUp;
            if given_up {
                warnings.push(format!("slot {} is given up: its workers fail", status.slot));
            }
            if given_up && is_new && wanted == to {
                let cause = warnings.pop().unwrap_or_default();
                return Stand::Failed(format!("{cause}; {wanted} workers stay wanted"));
            }
            let settled = self.has_all_it_needs(&status);
            ready += u32::from(settled);
            missing |= is_new && !settled;
        }
        if let Some(other) = self.core.scaling_to() {
            // It waits behind a reload.
            return if other == to {
                Stand::Waits(Progress { ready, wanted: to })
            } else {
                Stand::Failed(format!("another request scales to {other} workers"))
            };
        }
        if wanted != to {
            return Stand::Failed(format!("{wanted} workers are wanted by now"));
        }
        let serves = |life| matches!(life, Life::Starting | Life::Online | Life::Ready);
        let surplus = |slot: Slot| (to..from).contains(&slot.0);
        missing |= self.core.workers().any(|it| surplus(it.slot) && serves(it.life));
        if missing {
            return Stand::Waits(Progress { ready, wanted: to });
        }
        Stand::Scaled(Scaled { ok: true, from, to, warnings })
    }

    /// Whether nothing more is to come from a slot: its worker is ready, or asks for nothing, or
    /// the slot has none any more.
    fn has_all_it_needs(&mut self, slot: &SlotStatus) -> bool {
        let SlotStage::Filled(id) = slot.stage else { return slot.stage == SlotStage::Ended };
        let Some(worker) = self.core.worker(id) else { return false };
        let settles_at = worker.spawned_at + SETTLED_AFTER;
        match worker.life {
            Life::Ready => true,
            Life::Online if self.now >= settles_at => true,
            Life::Online => {
                self.waiting.look_by(settles_at);
                false
            }
            _ => false,
        }
    }
}

/// So many workers more or fewer.
///
/// # Errors
/// There can't be so many.
pub(super) fn changed(planned: u32, by: i32) -> Result<u32, String> {
    let range = roundel_core::limits::workers();
    let to = planned.checked_add_signed(by).filter(|to| range.contains(to));
    to.ok_or_else(|| {
        let (least, most) = range.into_inner();
        format!("from {planned} by {by:+}: there can be from {least} to {most} workers")
    })
}
