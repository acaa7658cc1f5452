//! How a reload begins: the configuration is read and the program looked up again, on a thread of
//! its own, since both may wait for a disk. The machine does the rest.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};

use roundel_core::{Config, Input, ListenKey, Time};

use super::waiting::Goal;
use super::{PrimaryDriver, helpers, report};
use crate::observe::control::{ClientId, DryRun, Failed};
use crate::primary::setup::{Fresh, Reread};

/// How many refusals are remembered.
const REMEMBERED: usize = 10;

/// What asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// SIGHUP.
    Signal,
    /// A client of the control socket, which waits for the outcome.
    Client(ClientId),
    /// A client that only wants to know what a reload would do.
    DryRun(ClientId),
}

/// A reload that could not begin.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) at: Time,
    pub(super) cause: String,
}

/// What was read, or why it could not be.
type Reply = Result<Fresh, String>;

/// Reloads before the machine knows of them.
#[derive(Debug)]
pub(super) struct Reloading {
    reread: Option<Reread>,
    helpers: Arc<OwnedFd>,
    /// What is read now, and for whom.
    running: Option<(Receiver<Reply>, Vec<Asker>)>,
    /// What they want was asked for later than the reading began, so it is read again for them.
    next: Vec<Asker>,
    /// The last ones, the latest one last.
    pub(super) refused: VecDeque<Refused>,
}

impl Reloading {
    pub(super) fn new(reread: Option<Reread>, helpers: Arc<OwnedFd>) -> Reloading {
        Reloading { reread, helpers, running: None, next: Vec::new(), refused: VecDeque::new() }
    }

    pub(super) fn helpers(&self) -> &OwnedFd {
        &self.helpers
    }
}

impl PrimaryDriver {
    pub(super) fn reload(&mut self, asker: Asker) {
        match asker {
            Asker::Client(client) => self.waiting.add(client, Goal::Reread),
            Asker::DryRun(client) => self.waiting.add(client, Goal::Foretelling),
            Asker::Signal => {}
        }
        if !matches!(asker, Asker::DryRun(_)) {
            self.reload_begins();
        }
        // More than one signal at the same time is like one.
        if !self.reloading.next.contains(&asker) {
            self.reloading.next.push(asker);
        }
        self.reread();
    }

    /// Begins to read for those that wait for it.
    fn reread(&mut self) {
        if self.reloading.running.is_some() || self.reloading.next.is_empty() {
            return;
        }
        let askers = std::mem::take(&mut self.reloading.next);
        if self.core.stop_deadline().is_some() {
            return self.refuse_reload(&askers, "the primary is stopping");
        }
        let Some(reread) = self.reloading.reread.clone() else {
            return self.begin_reload(&askers, None);
        };
        let (sender, receiver) = mpsc::channel();
        let helpers = self.reloading.helpers.clone();
        let dry_run = askers.iter().all(|asker| matches!(asker, Asker::DryRun(_)));
        let run = move || {
            // A reader that panics must not leave the primary waiting.
            let _ = sender.send(reread.call(dry_run));
            drop(sender);
            helpers::notify(&helpers);
        };
        match std::thread::Builder::new().name("reload".into()).spawn(run) {
            Ok(_) => self.reloading.running = Some((receiver, askers)),
            Err(error) => self.refuse_reload(&askers, &format!("cannot start a thread: {error}")),
        }
    }

    pub(super) fn on_reread(&mut self) {
        let Some((receiver, _)) = &self.reloading.running else { return };
        let outcome = match receiver.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => Err("the configuration could not be read".into()),
        };
        let Some((_, askers)) = self.reloading.running.take() else { return };
        match outcome {
            Ok(fresh) => self.begin_reload(&askers, Some(fresh)),
            Err(cause) => self.refuse_reload(&askers, &cause),
        }
        self.reread();
    }

    fn begin_reload(&mut self, askers: &[Asker], fresh: Option<Fresh>) {
        let slots = self.core.wanted();
        let config = fresh.as_ref().map(|fresh| self.room.fit(&fresh.config, slots));
        let config = match config.transpose() {
            Ok(config) => config.map(|(config, _)| config),
            Err(error) => return self.refuse_reload(askers, &error.to_string()),
        };
        let old = self.core.config();
        let passes = |config: &Config| config.listen_fds().then(|| config.listeners().to_vec());
        if config.as_ref().is_some_and(|new| passes(new) != passes(old)) {
            let cause = "listeners that programs are passed can't change while the primary runs";
            return self.refuse_reload(askers, cause);
        }
        if let Some(cause) = config.as_ref().and_then(|new| self.own_obstacle(new)) {
            return self.refuse_reload(askers, &cause);
        }
        let file_changes = fresh.as_ref().map(|fresh| self.file_changes(&fresh.socket_files));
        let file_changes = match file_changes.transpose() {
            Ok(changes) => changes.unwrap_or_default(),
            Err(cause) => return self.refuse_reload(askers, &cause),
        };
        for client in askers {
            if let Asker::DryRun(client) = client {
                let mut would = self.foretell(fresh.as_ref(), config.as_ref());
                would.extend(file_changes.iter().cloned());
                self.answer(*client, &DryRun { ok: true, would });
            }
        }
        if askers.iter().all(|asker| matches!(asker, Asker::DryRun(_))) {
            return;
        }
        let generation = self.core.next_generation();
        if let Some(Fresh { program, per_slot, notes, socket_files, .. }) = fresh {
            notes.iter().for_each(|note| self.say(note));
            self.socket_files.expect(generation, socket_files);
            self.programs.add(generation, program, per_slot);
        }
        for asker in askers {
            if let Asker::Client(client) = asker {
                self.waiting.add(*client, Goal::Reload { generation });
            }
        }
        self.input(Input::Reload { config: config.map(Box::new) });
    }

    /// Whether a reload is under way or waits.
    pub(super) fn reloads(&self) -> bool {
        let Reloading { running, next, .. } = &self.reloading;
        let read_for = running.iter().flat_map(|(_, askers)| askers);
        let mut asked = read_for.chain(next).filter(|it| !matches!(it, Asker::DryRun(_)));
        asked.next().is_some() || self.core.reloads().any(|record| record.ended.is_none())
    }

    /// A reload can't begin. Everything is as before.
    fn refuse_reload(&mut self, askers: &[Asker], cause: &str) {
        for asker in askers {
            if let Asker::Client(client) | Asker::DryRun(client) = asker {
                self.answer(*client, &Failed::because(cause));
            }
        }
        if askers.iter().all(|asker| matches!(asker, Asker::DryRun(_))) {
            return;
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.meter().reload("failed");
        }
        self.log(|at| report::Line::new(at, "reload_refused").with("cause", cause));
        cause.lines().for_each(|line| self.say(&format!("reload failed: {line}")));
        while self.reloading.refused.len() >= REMEMBERED {
            self.reloading.refused.pop_front();
        }
        self.reloading.refused.push_back(Refused { at: self.now, cause: cause.into() });
    }

    /// What a reload would do, one line each.
    fn foretell(&self, fresh: Option<&Fresh>, config: Option<&Config>) -> Vec<String> {
        let mut lines = Vec::new();
        let who = match self.core.wanted() {
            1 => "1 worker by a new one".to_owned(),
            slots => format!("{slots} workers by new ones"),
        };
        match fresh {
            Some(fresh) => {
                let path = std::path::Path::new(&fresh.program.path).display();
                lines.push(format!("replace {who} of {path}"));
                lines.extend(fresh.notes.iter().cloned());
            }
            None => lines.push(format!("replace {who}")),
        }
        let Some(new) = config else { return lines };
        let old = self.core.config();
        let added = |here: &[ListenKey], there: &[ListenKey]| -> Vec<String> {
            let added = here.iter().filter(|key| !there.contains(key));
            added.map(|key| key.address.to_string()).collect()
        };
        for address in added(new.listeners(), old.listeners()) {
            lines.push(format!("listen on {address}"));
        }
        for address in added(old.listeners(), new.listeners()) {
            lines.push(format!("stop listening on {address}"));
        }
        if old.workers() != new.workers() {
            lines.push(format!("keep {}", report::workers(new.workers())));
        }
        lines
    }
}
