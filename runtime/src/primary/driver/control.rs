//! The control socket in the driver: which clients are watched, and how requests are answered.

use roundel_core::{Command, Input};

use super::reload::Asker;
use super::{Change, PrimaryDriver, Source};
use crate::observe::control::{ClientId, Failed, Paused, Request, Stopping};

/// How many clients are accepted in a turn: a flood of them never holds up serving.
const ACCEPTS_PER_TURN: u32 = 16;

/// How many requests of one client are answered in a turn.
const REQUESTS_PER_TURN: u32 = 4;

impl PrimaryDriver {
    pub(super) fn accept_control(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(control) = &mut self.control else { return };
            let now = self.now;
            let accepted = match control.accept(now) {
                // A client that wants to stop the primary must get through, so a reserve descriptor
                // is lent.
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    self.spare.lend(|| control.accept(now))
                }
                accepted => accepted,
            };
            let evicted = control.take_evicted();
            self.forget_control(evicted);
            match accepted {
                Ok(None) => {}
                Ok(Some(client)) => {
                    let fd = self.control.as_ref().and_then(|it| it.client_fd(client).cloned());
                    if let Some(fd) = fd {
                        self.watch(Source::ControlClient(client.0), fd);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // There is no free descriptor: the client waits in the backlog.
                    self.control_starved = true;
                    return self.retry_later();
                }
            }
        }
        self.ready.insert(Source::Control);
    }

    fn forget_control(&mut self, clients: Vec<ClientId>) {
        for client in clients {
            let source = Source::ControlClient(client.0);
            self.changes.push_back(Change::Unwatch { source });
        }
    }

    pub(super) fn on_control(&mut self, client: u32) {
        let id = ClientId(client);
        let Some(control) = &self.control else { return };
        let before = control.wants_write(id);
        for _ in 0..REQUESTS_PER_TURN {
            let Some(control) = &mut self.control else { return };
            match control.on_ready(id, self.now) {
                Some(Request::Status) => {
                    let status = self.status();
                    self.reply(id, &status);
                }
                Some(Request::Logs { slot }) => self.follow(id, slot),
                Some(Request::Reload { dry_run: true }) => self.reload(Asker::DryRun(id)),
                Some(Request::Reload { dry_run: false }) => self.reload(Asker::Client(id)),
                Some(Request::Scale { to, by }) => self.scale_for(id, to, by),
                Some(Request::Pause) => self.set_paused(id, true),
                Some(Request::Resume) => self.set_paused(id, false),
                Some(Request::Stop) => {
                    self.reply(id, &Stopping::YES);
                    // Further requests to stop change nothing: another client's stop never hurries
                    // the drain.
                    if !std::mem::replace(&mut self.stop_asked, true) {
                        self.input(Input::Command(Command::Stop));
                    }
                }
                None => return self.rewatch_control(id, before),
            }
        }
        self.ready.insert(Source::ControlClient(client));
        self.rewatch_control(id, before);
    }

    fn set_paused(&mut self, client: ClientId, paused: bool) {
        if self.core.stop_deadline().is_some() {
            return self.reply(client, &Failed::because("the primary is stopping"));
        }
        if paused && self.core.config().policy().workers_accept() {
            let cause = "under the policy shared, workers accept by themselves: a pause would not \
                         stop them";
            return self.reply(client, &Failed::because(cause));
        }
        self.input(Input::Command(if paused { Command::Pause } else { Command::Resume }));
        self.reply(client, &Paused { ok: true, paused: self.core.is_paused() });
    }

    /// Has a client follow what workers print.
    fn follow(&mut self, client: ClientId, slot: Option<u32>) {
        let slots = self.core.config().workers();
        let refused = match slot {
            _ if self.output.is_none() => Some(
                "what workers print goes past the primary (--log-format raw); start it with \
                 --log-format prefix or json, or with --log-file"
                    .into(),
            ),
            Some(slot) if slot >= slots => {
                Some(format!("there is no slot {slot}; the last one is {}", slots - 1))
            }
            _ => None,
        };
        match refused {
            Some(why) => self.reply(client, &Failed::because(why)),
            None => {
                let now = self.now;
                if let Some(control) = &mut self.control {
                    control.follow(client, slot, now);
                }
            }
        }
    }

    pub(super) fn reply(&mut self, client: ClientId, answer: &impl serde::Serialize) {
        let now = self.now;
        if let Some(control) = &mut self.control {
            control.reply(client, answer, now);
            let evicted = control.take_evicted();
            self.forget_control(evicted);
        }
    }

    pub(super) fn rewatch_control(&mut self, client: ClientId, before: Option<bool>) {
        let Some(control) = &self.control else { return };
        let source = Source::ControlClient(client.0);
        if control.is_half_closed(client) {
            return self.changes.push_back(Change::Unwatch { source });
        }
        match control.wants_write(client) {
            None if before.is_some() => self.changes.push_back(Change::Unwatch { source }),
            None => {}
            Some(writable) => self.changes.push_back(Change::Rewatch { source, writable }),
        }
    }

    pub(super) fn expire_control(&mut self) {
        let now = self.now;
        let Some(control) = &mut self.control else { return };
        if control.deadline().is_none_or(|at| at > now) {
            return;
        }
        let expired = control.expire(now);
        self.forget_control(expired);
    }
}
