//! What must make no difference, tried in a state: hostile answers, impossible inputs, late
//! reports, and a rest as a snapshot.

use std::sync::{Arc, OnceLock};

use roundel_core::{
    Codec, ConnId, Errno, FromWorker, Input, ListenerId, Primary, Seq, SockName, WorkerId,
};

use super::bug::Bug;
use super::fingerprint::fingerprints;
use super::process::State;
use super::world::World;

impl World {
    /// Invariants that a state alone shows.
    pub fn broken(&self) -> Option<String> {
        if let Some(what) = &self.fault {
            return Some(what.clone());
        }
        if let Err(broken) = self.primary.check() {
            return Some(format!("check: {broken}"));
        }
        // A process that hangs in the kernel counts until the primary lets go of it.
        let most = 2 * self.primary.config().workers() as usize;
        let living = self.processes.iter().filter(|p| p.state != State::Dead).count();
        if living > most {
            return Some(format!("9: {living} processes live"));
        }
        let held = self.primary.held();
        let custody: Vec<ConnId> = self.custody.iter().map(|held| held.0).collect();
        (held != custody).then(|| format!("1: {held:?} are held and {custody:?} are in custody"))
    }

    /// Guarantee 11, the rule that a misuse changes nothing, and that of snapshots.
    ///
    /// # Errors
    /// What did make a difference.
    pub fn probe(&self) -> Result<(), String> {
        self.probe_strays()?;
        self.probe_misuse()?;
        self.probe_late_reports()?;
        self.probe_snapshot()
    }

    /// Tells a copy something that must change nothing but a counter.
    fn changes_nothing(&self, input: Input) -> Result<(), String> {
        let mut world = self.clone();
        world.said = Some(Vec::new());
        let what = format!("11: {input:?} was no answer and changed something");
        world.tell(input);
        let said = world.said.take().unwrap_or_default();
        if world.fault.is_some() || !said.is_empty() {
            return Err(what);
        }
        if world.primary.canonical() == self.primary.canonical() { Ok(()) } else { Err(what) }
    }

    /// Answers that are repeated, too early, or another worker's.
    fn probe_strays(&self) -> Result<(), String> {
        let most = self.processes.iter().map(|process| process.sent).max().unwrap_or(0);
        for member in &self.reference.members {
            for raw in 1..=most + 1 {
                let Some(ack) = Seq::from_raw(raw) else { continue };
                if member.in_flight.iter().any(|in_flight| in_flight.0 == ack) {
                    continue;
                }
                for accepted in [true, false] {
                    let msg = FromWorker::Ack { ack, accepted };
                    self.changes_nothing(Input::Message { worker: member.id, msg })?;
                }
            }
        }
        Ok(())
    }

    /// The end of a channel or a process, told once more.
    fn probe_late_reports(&self) -> Result<(), String> {
        for process in &self.processes {
            let worker = process.id;
            if process.ended {
                self.changes_nothing(Input::ChannelClosed { worker })?;
            }
            if let Some(status) = process.exit.filter(|_| process.reaped) {
                self.changes_nothing(Input::Exited { worker, status })?;
            }
        }
        Ok(())
    }

    fn probe_misuse(&self) -> Result<(), String> {
        let nobody = WorkerId::from_raw(200).unwrap_or_else(|| unreachable!("not zero"));
        let nowhere = ListenerId::from_raw(200).unwrap_or_else(|| unreachable!("not zero"));
        let first = ConnId::from_raw(1).unwrap_or_else(|| unreachable!("not zero"));
        let mut inputs = vec![
            Input::Message { worker: nobody, msg: FromWorker::Online },
            Input::Hello { worker: nobody, codec: Codec::Native },
            Input::ChannelClosed { worker: nobody },
            Input::Incoming { listener: nowhere, conn: first },
            Input::Unbound { listener: nowhere },
            Input::Bound { listener: nowhere, result: Err(Errno(1)) },
        ];
        if self.last_conn > 0 {
            inputs.push(Input::Incoming { listener: self.listener, conn: first });
        }
        if self.socket != super::world::SocketState::Binding {
            let result = Ok(SockName::Unix(String::new()));
            inputs.push(Input::Bound { listener: self.listener, result });
        }
        let started = self.processes.iter().filter(|p| p.state != State::Starting);
        inputs.extend(started.map(|p| Input::Spawned { worker: p.id, pid: 1 }));
        for input in inputs {
            let mut copy = Primary::clone(&self.primary);
            let refused = copy.handle_input(self.now, input.clone()).is_err();
            if !refused || copy != *self.primary {
                return Err(format!("{input:?} can't be, and was not refused without a trace"));
            }
        }
        Ok(())
    }

    /// A primary read back from its snapshot equals the one that was written, and goes on the
    /// same from every next step.
    fn probe_snapshot(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("12: a snapshot {what}"));
        let Ok(mut text) = serde_json::to_string(&*self.primary) else {
            return wrong("can't be written");
        };
        if self.bug == Some(Bug::ForgetfulSnapshot) {
            text = text.replace("\"backlog\":[1]", "\"backlog\":[]");
        }
        let Ok(primary) = serde_json::from_str::<Primary>(&text) else {
            return wrong("can't be read");
        };
        if primary != *self.primary {
            return wrong("is not what was written");
        }
        for action in self.actions() {
            let mut live = self.clone();
            live.said = Some(Vec::new());
            let mut restored = live.clone();
            restored.primary = Arc::new(primary.clone());
            restored.seen = OnceLock::new();
            let done = live.apply(action);
            let same = restored.apply(action) == done && live.said == restored.said;
            let alike =
                fingerprints(&live) == fingerprints(&restored) && live.left == restored.left;
            if !same || !alike {
                return wrong(&format!("goes on in another way when {action}"));
            }
        }
        Ok(())
    }
}
