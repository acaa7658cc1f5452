//! Clients of the control socket whose requests take their time: each is told how far its request
//! is, and answered when it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use roundel_core::{Command, Input, Life, ReloadFailure, SlotStage, SlotStatus, Time};

use super::PrimaryDriver;
use crate::observe::control::{ClientId, Failed, Progress, Reloaded, Scaled};

/// How long a worker that asks for no listener must live before nothing more is expected of it.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The configuration is read again.
    Reread,
    /// The workers of this generation.
    Reload { generation: u32, shown: Option<Progress> },
    /// This number of workers.
    Scale { from: u32, to: u32, shown: Option<Progress> },
}

/// The clients that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    clients: BTreeMap<ClientId, Wait>,
    /// When to look again although nothing may happen until then.
    look_at: Option<Time>,
}

impl Waiting {
    pub(super) fn add(&mut self, client: ClientId, wait: Wait) {
        self.clients.insert(client, wait);
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.look_at
    }
}

/// How far a request is.
enum Stand {
    Waits(Option<Progress>),
    Reloaded(u32),
    Scaled {
        from: u32,
        to: u32,
    },
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
            let stand = self.stand(&wait);
            self.tell(client, wait, stand);
        }
    }

    fn tell(&mut self, client: ClientId, wait: Wait, stand: Stand) {
        match stand {
            Stand::Reloaded(generation) => self.answer(client, &Reloaded { ok: true, generation }),
            Stand::Scaled { from, to } => self.answer(client, &Scaled { ok: true, from, to }),
            Stand::Failed(cause) => self.answer(client, &Failed::because(cause)),
            Stand::Follows(generation) => {
                self.waiting.add(client, Wait::Reload { generation, shown: None });
                self.waiting.look_at = Some(self.now);
            }
            Stand::Waits(progress) => {
                let (old, wait) = match wait {
                    Wait::Reread => (None, Wait::Reread),
                    Wait::Reload { generation, shown } => {
                        (shown, Wait::Reload { generation, shown: progress })
                    }
                    Wait::Scale { from, to, shown } => {
                        (shown, Wait::Scale { from, to, shown: progress })
                    }
                };
                self.waiting.add(client, wait);
                if let Some(progress) = progress.filter(|_| progress != old) {
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

    fn stand(&mut self, wait: &Wait) -> Stand {
        match *wait {
            Wait::Reread => Stand::Waits(None),
            Wait::Reload { generation, .. } => self.reload_stand(generation),
            Wait::Scale { from, to, .. } => self.scale_stand(from, to),
        }
    }

    fn reload_stand(&self, generation: u32) -> Stand {
        let mut records = self.core.reloads();
        let Some(record) = records.find(|record| record.generation == generation) else {
            // A later one took its place, one that was not refused.
            let refused = |failure| matches!(failure, &Some(ReloadFailure::Fixed { .. }));
            let later = self
                .core
                .reloads()
                .find(|record| record.generation > generation && !refused(&record.failure));
            return later.map_or(Stand::Waits(None), |later| Stand::Follows(later.generation));
        };
        match (&record.failure, record.ended) {
            (None, Some(_)) => Stand::Reloaded(generation),
            (None, None) => {
                let workers = self.core.workers();
                let new = workers.filter(|worker| worker.generation == generation);
                let ready = new.filter(|worker| worker.life == Life::Ready).count();
                let ready = u32::try_from(ready).unwrap_or(u32::MAX);
                Stand::Waits(Some(Progress { ready, wanted: self.core.wanted() }))
            }
            (Some(failure), _) => Stand::Failed(failure.to_string()),
        }
    }

    /// Begins to scale for a client.
    pub(super) fn scale_for(&mut self, client: ClientId, to: Option<u32>, by: Option<i32>) {
        let from = self.core.wanted();
        let planned = self.core.scaling_to().unwrap_or(from);
        let to = match (to, by) {
            (Some(to), None) => to,
            (None, Some(by)) => planned.saturating_add_signed(by),
            _ => {
                let cause = "scale needs either \"to\" or \"by\"";
                return self.answer(client, &Failed::because(cause));
            }
        };
        match self.scale(to) {
            Ok(()) => {
                self.waiting.add(client, Wait::Scale { from, to, shown: None });
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
        if let Some(other) = self.core.scaling_to() {
            // It waits behind a reload.
            return if other == to {
                Stand::Waits(None)
            } else {
                Stand::Failed(format!("another request scales to {other} workers"))
            };
        }
        let wanted = self.core.wanted();
        if wanted != to {
            return Stand::Failed(format!("{wanted} workers are wanted by now"));
        }
        let mut ready = 0;
        let slots: Vec<SlotStatus> = self.core.slots().collect();
        for status in slots {
            if status.stage == SlotStage::GivenUp {
                let cause = format!("slot {} is given up: its workers fail", status.slot);
                return Stand::Failed(cause);
            }
            ready += u32::from(self.has_all_it_needs(&status));
        }
        if ready >= to {
            return Stand::Scaled { from, to };
        }
        Stand::Waits(Some(Progress { ready, wanted: to }))
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
                let look_at = &mut self.waiting.look_at;
                *look_at = Some(look_at.map_or(settles_at, |at| at.min(settles_at)));
                false
            }
            _ => false,
        }
    }
}
