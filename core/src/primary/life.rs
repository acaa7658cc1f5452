//! A worker's life: from its spawn to the end of both its process and its channel.

use super::Primary;
use super::input::{ExitStatus, Violation};
use super::invariants::{WORKER, broken};
use super::output::{Event, Output};
use super::state::{LastExit, WorkerKind};
use crate::timers::Due;
use crate::transitions::{Channel, Intent, Life, Part, Process, Step};
use crate::{Codec, ExitClass, Signal, WorkerId};

/// How late a `Wake` may come after a deadline before it means that the primary was stopped, or
/// that the machine slept.
const LATE: core::time::Duration = core::time::Duration::from_secs(1);

/// How long a program must live without a word until it counts as one that has no channel.
const MUTE: core::time::Duration = core::time::Duration::from_secs(1);

impl Primary {
    /// Moves a worker on by the table; false if the table has no such step.
    pub(super) fn step(&mut self, id: WorkerId, step: Step) -> bool {
        let Some(index) = self.workers.position(id) else { return false };
        let Some(worker) = self.workers.at_mut(index) else { return false };
        let Some(life) = worker.life.after(step) else { return false };
        let serves = worker.life == Life::Ready && !worker.held;
        worker.life = life;
        if life == Life::Leaving {
            worker.leaving_since = self.now;
        }
        worker.refresh(self.paused);
        self.requeue(index);
        if serves {
            self.note_listened(id);
        }
        true
    }

    pub(super) fn on_spawned(&mut self, id: WorkerId, pid: i32) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.pid = Some(pid);
        worker.process.enter(Process::Running);
        worker.spawned_at = self.now;
        let (slot, generation) = (worker.slot, worker.generation);
        let staying = worker.life.is_staying();
        self.end_want(slot);
        if staying {
            let patience = if self.config.listen_fds { MUTE } else { self.config.silent_after };
            self.timers.set(Due::Silent(id), self.now + patience);
        }
        self.event(Event::Spawned { worker: id, slot, generation, pid });
        if self.config.pass_listeners && staying {
            self.pass_listeners(id);
        }
    }

    pub(super) fn on_hello(&mut self, id: WorkerId, codec: Codec) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        // A channel has only one first byte: a second `Hello` with another window could leave more
        // in flight than allowed.
        if worker.kind.is_some() {
            return;
        }
        worker.kind = Some(match codec {
            Codec::Native => WorkerKind::Native,
            Codec::Node if self.config.pass_listeners => WorkerKind::NodeChild,
            Codec::Node => WorkerKind::NodeCluster,
        });
        worker.window = match codec {
            Codec::Native => self.config.window,
            Codec::Node => self.config.node_window,
        };
    }

    pub(super) fn on_frame_begun(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if !core::mem::replace(&mut worker.mid_frame, true) {
            self.timers.set(Due::Frame(id), self.now + self.config.frame_timeout);
        }
    }

    pub(super) fn on_violation(&mut self, id: WorkerId, what: Violation) {
        self.kill(id, ExitClass::Violations, Some(what));
    }

    /// Kills a worker, once. What is in flight there stays until its channel has been read to
    /// its end: an ack may still be in it.
    pub(super) fn kill(&mut self, id: WorkerId, class: ExitClass, violation: Option<Violation>) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if !worker.may_end() {
            return;
        }
        worker.intent = Intent::Killed(class);
        let running = worker.process == Process::Running;
        // Without a channel there is nothing to read: wait only for the exit.
        let due =
            if worker.channel == Channel::Closed { Due::Orphan(id) } else { Due::ShutdownRead(id) };
        self.step(id, Step::Leave);
        self.timers.clear_worker(id);
        self.timers.set(due, self.now + self.config.shutdown_read_timeout);
        if running {
            self.event(Event::Killing { worker: id, class, violation });
        }
        self.emit(Output::Kill { worker: id, signal: Signal::Kill });
    }

    pub(super) fn on_channel_closed(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.channel == Channel::Closed {
            return;
        }
        worker.channel.enter(Channel::Closed);
        worker.queries = 0;
        let in_flight = worker.in_flight_count();
        let (intent, exited) = (worker.intent, worker.process == Process::Exited);
        self.timers.clear(Due::ShutdownRead(id));
        self.timers.clear(Due::Frame(id));
        self.timers.clear(Due::Ready(id));
        self.event(Event::ChannelClosed { worker: id, in_flight });
        // A program that knows no channel may close whatever it finds open.
        if self.may_be_mute(id) && !exited {
            return;
        }
        self.step(id, Step::Leave);
        self.drop_shares(id);
        self.take_back_all(id);
        if exited {
            self.bury(id);
        } else if intent != Intent::Leaves {
            // Usually the exit follows at once. If not, the process hangs in the kernel, or lives
            // on without a channel, and can't serve what the primary accepts.
            self.timers.set(Due::Orphan(id), self.now + self.config.shutdown_read_timeout);
        }
    }

    pub(super) fn on_exited(&mut self, id: WorkerId, status: ExitStatus) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.process == Process::Exited {
            return;
        }
        worker.process.enter(Process::Exited);
        let class = match (worker.intent, status) {
            (Intent::Killed(class), _) => class,
            (Intent::Leaves, _) => ExitClass::Voluntary,
            (Intent::Stays, ExitStatus::Code(0)) => ExitClass::Clean,
            (Intent::Stays, ExitStatus::Code(_)) => ExitClass::Crashed,
            (Intent::Stays, ExitStatus::Signal(_)) => ExitClass::Killed,
        };
        let (slot, channel) = (worker.slot, worker.channel);
        self.timers.clear_worker(id);
        self.step(id, Step::Leave);
        self.event(Event::Exited { worker: id, slot, status, class });
        self.vacate(id, LastExit { status: Some(status), class });
        match channel {
            Channel::Closed => self.bury(id),
            // A grandchild may hold the other end open for ever.
            Channel::Open => self.shut_read(id),
            Channel::ReadShut => {}
        }
    }

    /// Process and channel have ended, or the process never will.
    fn bury(&mut self, id: WorkerId) {
        self.step(id, Step::Bury);
        self.timers.clear_worker(id);
        if let Some(index) = self.workers.position(id) {
            self.ready_queue.leave(index);
        }
        self.workers.remove(id);
        self.emit(Output::Forget { worker: id });
    }

    fn shut_read(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return broken(WORKER) };
        worker.channel.enter(Channel::ReadShut);
        self.emit(Output::ShutdownRead { worker: id });
    }

    pub(super) fn on_wake(&mut self) {
        let now = self.now;
        if self.poll_timeout().is_some_and(|first| now.since(first.at) > LATE) {
            self.renew_patience();
        }
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Ack(id) => self.on_ack_due(id),
                Due::Ready(id) => self.kill(id, ExitClass::NeverReady, None),
                Due::Silent(id) => self.on_silent_due(id),
                Due::Frame(id) => {
                    self.kill(id, ExitClass::Violations, Some(Violation::FrameTimeout));
                }
                Due::Cooldown(id, listener) => self.on_cooled(id, listener),
                Due::Drain(id) => self.kill(id, ExitClass::Overdue, None),
                Due::Settle(id) => self.on_settle_due(id),
                Due::Terminate(id) => self.on_terminate_due(id),
                Due::Count => self.on_count_due(),
                Due::ShutdownRead(id) => self.on_shutdown_read_due(id),
                Due::Orphan(id) => self.on_orphan_due(id),
                Due::Respawn(slot) => self.spawn_again(slot),
                Due::Unheld(listener) => self.on_unheld_due(listener),
                Due::StopWaiting => self.on_stop_due(),
                Due::Claims => self.on_claims_due(),
                // Settling looks at the reload.
                Due::Reload | Due::Successor(_) => {}
                Due::Retry(slot) => self.on_retry_due(slot),
                Due::Heartbeat(id) => self.on_heartbeat_due(id),
                Due::Age(id) => self.recycle(id),
            }
            // The effects of one deadline may cancel the next one.
            self.settle();
        }
    }

    fn on_silent_due(&mut self, id: WorkerId) {
        match self.workers.get(id).map(|worker| worker.life) {
            Some(Life::Starting) if self.may_be_mute(id) => self.assume_ready(id),
            Some(Life::Starting) => self.event(Event::Silent { worker: id }),
            Some(Life::Online) => self.event(Event::NotListening { worker: id }),
            _ => {}
        }
    }

    /// Whether a worker may be a program that knows no channel: it has not said a word.
    fn may_be_mute(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(id);
        self.config.listen_fds
            && worker.is_some_and(|worker| {
                worker.kind.is_none() && (worker.life.is_staying() || worker.life == Life::Draining)
            })
    }

    /// Takes a worker that has said nothing for a program that knows no channel. If it speaks later
    /// it was only slow to start, and goes on as other workers do.
    fn assume_ready(&mut self, id: WorkerId) {
        if self.step(id, Step::Assume) {
            self.ever_online = true;
            if let Some(worker) = self.workers.get_mut(id) {
                worker.assumed = true;
                worker.ready_at = Some(self.now);
            }
            self.event(Event::Ready { worker: id });
        }
    }

    fn on_ack_due(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let due = self.config.ack_timeout.map(|timeout| worker.owes_since + timeout);
        match due {
            Some(due) if !worker.in_flight.is_empty() && due > self.now => {
                self.timers.set(Due::Ack(id), due);
            }
            Some(_) if !worker.in_flight.is_empty() => {
                self.kill(id, ExitClass::Unresponsive, None);
            }
            _ => worker.ack_armed = false,
        }
    }

    /// The primary could not read what workers may have sent long ago, so their time starts again.
    fn renew_patience(&mut self) {
        for id in self.workers.keys_sorted() {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.owes_since = self.now;
            }
        }
        if let Some(timeout) = self.config.ready_timeout {
            let due = self.now + timeout;
            let waiting: alloc::vec::Vec<Due> = self
                .timers
                .iter()
                .map(|(_, due)| due)
                .filter(|due| matches!(due, Due::Ready(_)))
                .collect();
            for ready in waiting {
                self.timers.set(ready, due);
            }
        }
        self.renew_reload();
        self.renew_heartbeats();
    }

    /// The worker was killed and its channel has not ended; the end of the channel clears this
    /// timer.
    fn on_shutdown_read_due(&mut self, id: WorkerId) {
        if self.workers.get(id).is_some_and(|worker| worker.channel == Channel::Open) {
            self.shut_read(id);
        }
    }

    fn on_orphan_due(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        if let Intent::Killed(class) = worker.intent {
            // It is stuck in the kernel. Its connections are elsewhere, so there is nothing to wait
            // for.
            self.vacate(id, LastExit { status: None, class });
            self.bury(id);
        } else if worker.ready_at.is_none() || worker.held {
            // It can't serve any more, and takes the place of a worker that would. Usually it is a
            // program that closes the descriptors that it inherits.
            self.kill(id, ExitClass::NeverReady, None);
        } else {
            // It may have something to finish, but must not take the place of a worker that would
            // serve.
            self.replace_early(id, None);
            if !self.timers.is_set(Due::Drain(id)) {
                self.lead_out(id, self.now + self.config.drain_timeout);
            }
        }
    }
}
