//! Outputs of the machine, turned into system calls.

use std::os::fd::AsFd;
use std::sync::Arc;

use roundel_core::{Attach, Event, Input, Output, Signal, Slot, ToWorker, WorkerId};

use super::peer::{Peer, Skips};
use super::{PrimaryDriver, Source, report};
use crate::primary::channel_io;
use crate::unix::outputs::Outputs;
use crate::unix::process::{self, SpawnError};

impl PrimaryDriver {
    pub(super) fn execute(&mut self, output: Output) {
        match output {
            Output::Send { worker, msg, attach } => self.send(worker, msg, attach),
            Output::Release { conn, end } => {
                self.log(|at| report::released(at, conn, end));
                // Dropping it closes the primary's copy.
                if let Some(held) = self.custody.release(conn) {
                    self.meter_release(&held, end);
                }
            }
            Output::Event(event) => self.report(&event),
            Output::Spawn { worker, slot, generation } => self.spawn(worker, slot, generation),
            Output::Kill { worker, signal } => self.kill(worker, signal),
            Output::ShutdownRead { worker } => {
                if let Some(Peer { fd, channel, .. }) = self.peers.get_mut(&worker) {
                    channel_io::shutdown_read(channel, &mut fd.as_fd());
                    self.ready.insert(Source::Channel(worker));
                }
            }
            Output::Forget { worker } => {
                self.close_channel(worker);
                self.forget_output(worker);
                self.pids.remove(&worker);
                if let Some(metrics) = &mut self.metrics {
                    metrics.meter().forget(worker);
                }
            }
            Output::Bind { listener, key, backlog } => self.bind(listener, &key, backlog),
            Output::Unbind { listener } => self.empty(listener),
            Output::Close { listener } => self.close_socket(listener),
            Output::ResumeAccept { listener } => self.resume(listener),
            Output::PauseAccept { listener } => self.pause(listener),
            Output::CountConnections { workers } => self.count_connections(&workers),
            Output::Stopped(verdict) => self.verdict = Some(verdict),
            other => debug_assert!(false, "an output that is not carried out: {other:?}"),
        }
    }

    fn send(&mut self, worker: WorkerId, msg: ToWorker, attach: Option<Attach>) {
        if let (ToWorker::NewConn { listener, .. }, Some(Attach::Conn(conn))) = (&msg, attach) {
            let listener = *listener;
            self.log(|at| report::handed_off(at, worker, listener, conn));
            self.meter_handoff(worker, conn);
        }
        if let Some(peer) = self.peers.get_mut(&worker) {
            // Set the mode before the worker learns that it listens, and so before any client is
            // told to connect.
            if let ToWorker::QueryReply { result: Ok(granted), .. } = &msg
                && let Some(mode) = peer.channel.wished_mode(&msg)
                // Not for the operator's listeners: only the operator opens them to others.
                && !self.core.is_operators(granted.listener)
                && let Some(socket) = self.sockets.get(&granted.listener)
            {
                socket.set_mode(mode);
            }
            peer.channel.push(msg, attach);
            self.unsent.insert(worker);
        }
    }

    fn spawn(&mut self, worker: WorkerId, slot: Slot, generation: u32) {
        if !self.begin() {
            return;
        }
        let program = self.programs.of(generation, slot);
        let (variables, files) = (self.variables, &self.files);
        let outputs = if self.output.is_some() { Outputs::Piped } else { Outputs::Inherited };
        let passed = self.passed_on();
        let start = || process::spawn(&program, worker, slot, variables, files, outputs, &passed);
        match self.spawn_reserve.lend(start) {
            Ok(process::Spawned { pid, channel, pipes }) => {
                let fd = Arc::new(channel);
                self.watch(Source::Channel(worker), fd.clone());
                let channel = channel_io::new(self.codec, self.core.config());
                let skips = Skips::default();
                self.peers.insert(worker, Peer { fd, channel, watched_for_write: false, skips });
                if let Some(pipes) = pipes {
                    self.add_output(worker, slot, pid, pipes);
                }
                self.pids.insert(worker, pid);
                self.groups.begin(pid);
                self.workers_by_pid.insert(pid, worker);
                self.input(Input::Spawned { worker, pid });
            }
            Err(error) => {
                let cause = match error {
                    SpawnError::NotFound => roundel_core::SpawnError::NotFound,
                    SpawnError::NotExecutable(errno) => {
                        roundel_core::SpawnError::NotExecutable(roundel_core::Errno(errno))
                    }
                    SpawnError::Other(errno) => {
                        roundel_core::SpawnError::Other(roundel_core::Errno(errno))
                    }
                };
                self.input(Input::SpawnFailed { worker, cause });
            }
        }
    }

    /// Signals go only to a process that is not reaped yet: its number can't be another's.
    fn kill(&mut self, worker: WorkerId, signal: Signal) {
        let Some(&pid) = self.pids.get(&worker) else { return };
        if self.workers_by_pid.get(&pid) != Some(&worker) {
            return;
        }
        match signal {
            Signal::Kill => process::kill_group(pid),
            other => process::signal(pid, other),
        }
    }

    fn report(&mut self, event: &Event) {
        self.note_for_manager(event);
        self.note_for_files(event);
        if let Some(metrics) = &mut self.metrics {
            metrics.meter().event(event, self.now);
        }
        let worker = match event {
            Event::Spawned { worker, .. }
            | Event::Online { worker, .. }
            | Event::Ready { worker }
            | Event::Silent { worker }
            | Event::NotListening { worker }
            | Event::Failing { worker }
            | Event::Leaving { worker }
            | Event::Settling { worker, .. }
            | Event::Draining { worker, .. }
            | Event::Signalled { worker, .. }
            | Event::BindTooNarrow { worker, .. }
            | Event::Killing { worker, .. }
            | Event::Recycling { worker, .. }
            | Event::Recycled { worker, .. }
            | Event::RecycleFailed { worker, .. }
            | Event::Exited { worker, .. } => Some(*worker),
            _ => None,
        };
        let pid = worker.and_then(|worker| self.pids.get(&worker).copied());
        self.log(|at| report::event(at, event, pid));
        // A primary that ends by itself gives the reason in one line, not one for each worker. And
        // a lack of resources is the same for all slots.
        let noise = match event {
            Event::SpawnFailed { cause, .. } => {
                let wants = cause.is_want_of_resources();
                let said = wants && std::mem::replace(&mut self.want_said, true);
                said || self.core.stop_deadline().is_some()
            }
            Event::Spawned { .. } => {
                self.want_said = false;
                false
            }
            Event::Stopping { .. } => !self.stop_asked,
            _ => false,
        };
        if !noise && let Some(words) = report::words(event, pid) {
            self.say(&words);
        }
        if let Event::Ready { .. } = event {
            self.welcome();
        }
    }
}
