//! What an event log must show of reloads (guarantee 8) and of connections (guarantee 2), whatever
//! happened to the workers meanwhile. Recycling is not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

/// Where the log is against guarantee 8, in plain words; empty if it keeps it. `hold` is
/// `--ready-hold`, and all workers listen. The log must begin with the primary.
pub fn faults(events: &[Value], hold: Duration) -> Vec<String> {
    let mut judge = Judge { hold: hold.as_millis() as u64, ..Judge::default() };
    for event in events {
        judge.see(event);
    }
    judge.end();
    judge.faults
}

/// Connections that were handed off, and that no worker accepted nor the primary refused.
pub fn unanswered(events: &[Value]) -> BTreeSet<u64> {
    let mut open = BTreeSet::new();
    for event in events {
        let Some(conn) = event["conn"].as_u64() else { continue };
        match event["event"].as_str() {
            Some("handed_off") => _ = open.insert(conn),
            Some("accepted" | "refused") => _ = open.remove(&conn),
            _ => {}
        }
    }
    open
}

#[derive(Debug, Default)]
struct Worker {
    slot: u64,
    generation: u64,
    /// When it began to listen, in milliseconds since the primary started.
    ready_at: Option<u64>,
    /// It was told to leave, says that it leaves, or is being killed.
    leaves: bool,
    ended: bool,
    /// Another one has its place, or nobody wants it: it may be told to leave.
    may_leave: bool,
    /// Its reload has failed, so it must end.
    called_off: bool,
}

#[derive(Debug)]
struct Place {
    generation: u64,
    current: Option<u64>,
    successor: Option<u64>,
}

#[derive(Debug)]
struct Running {
    generation: u64,
    slots: u64,
    done: u64,
    /// A new worker has ended, so the reload must fail.
    lost: Option<u64>,
}

#[derive(Debug, Default)]
struct Judge {
    hold: u64,
    now: u64,
    workers: BTreeMap<u64, Worker>,
    places: BTreeMap<u64, Place>,
    running: Option<Running>,
    stopping: bool,
    faults: Vec<String>,
}

impl Judge {
    fn fault(&mut self, what: String) {
        self.faults.push(format!("at {} ms: {what}", self.now));
    }

    fn see(&mut self, event: &Value) {
        self.now = event["at_ms"].as_u64().unwrap_or(self.now);
        let number = |name: &str| event[name].as_u64().unwrap_or(0);
        let worker = number("worker");
        match event["event"].as_str().unwrap_or_default() {
            "events_dropped" => self.fault("events are missing".into()),
            "spawned" => self.spawned(worker, number("slot"), number("generation")),
            "ready" => {
                let now = self.now;
                let it = self.workers.get_mut(&worker);
                it.into_iter().for_each(|it| _ = it.ready_at.get_or_insert(now));
            }
            "handed_off" => self.handed_off(worker),
            "settling" | "draining" => self.told_to_leave(worker),
            "leaving" | "suicide" | "killing" => self.leaves(worker),
            "exited" => self.exited(worker),
            "reload_started" => self.started(number("generation"), number("slots")),
            "reload_progress" => self.progress(number("generation"), number("done")),
            "reload_done" => self.done(number("generation")),
            "reload_failed" => self.failed(number("generation")),
            "scaled" => self.scaled(number("to")),
            "stopping" => self.stopping = true,
            _ => {}
        }
    }

    fn spawned(&mut self, id: u64, slot: u64, generation: u64) {
        self.workers.insert(id, Worker { slot, generation, ..Worker::default() });
        let place =
            self.places.entry(slot).or_insert(Place { generation, current: None, successor: None });
        let own = place.generation;
        let stays = |id: &u64| self.workers.get(id).is_some_and(|it| !it.leaves && !it.ended);
        let fault = if generation == own {
            place.current.replace(id).filter(stays).map(|old| format!("it has worker {old}"))
        } else if self.running.as_ref().is_some_and(|it| it.generation == generation) {
            place.successor.replace(id).map(|other| format!("it has a new worker, {other}"))
        } else {
            Some(format!("its own is {own}"))
        };
        if let Some(why) = fault {
            self.fault(format!("worker {id} of generation {generation} in slot {slot}: {why}"));
        }
    }

    fn handed_off(&mut self, id: u64) {
        let Some(worker) = self.workers.get(&id) else { return };
        let is_new = self.places.get(&worker.slot).is_some_and(|it| it.successor == Some(id));
        if is_new || worker.called_off {
            self.fault(format!("worker {id} does not count, and gets a connection"));
        }
    }

    fn told_to_leave(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let is_right = worker.leaves || worker.may_leave;
        worker.leaves = true;
        if !is_right && !self.stopping {
            self.fault(format!("worker {id} is told to leave, and nobody has its place"));
        }
    }

    /// By itself, or by force.
    fn leaves(&mut self, id: u64) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.leaves = true;
        }
    }

    fn exited(&mut self, id: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.ended = true;
        let slot = worker.slot;
        let Some(place) = self.places.get_mut(&slot) else { return };
        if place.successor == Some(id) {
            place.successor = None;
            if let Some(running) = &mut self.running {
                running.lost = Some(id);
            }
        }
    }

    fn started(&mut self, generation: u64, slots: u64) {
        if let Some(other) =
            self.running.replace(Running { generation, slots, done: 0, lost: None })
        {
            self.fault(format!("reload {generation} starts within reload {}", other.generation));
        }
    }

    /// A batch is replaced: as a whole, by workers that have been ready for long enough.
    fn progress(&mut self, generation: u64, done: u64) {
        let Some(running) = self.running.as_mut().filter(|it| it.generation == generation) else {
            return self.fault(format!("reload {generation} goes on, and is not under way"));
        };
        let (batch, lost) = (done.saturating_sub(running.done), running.lost);
        running.done = done;
        if let Some(lost) = lost {
            self.fault(format!("a batch counts although its worker {lost} has ended"));
        }
        let mut faults = Vec::new();
        let mut count = 0;
        for (slot, place) in &mut self.places {
            let Some(new) = place.successor.take() else { continue };
            count += 1;
            let worker = self.workers.get(&new);
            let since = worker.filter(|it| !it.leaves && !it.ended).and_then(|it| it.ready_at);
            // Each time is cut to a whole millisecond.
            if since.is_none_or(|since| since + self.hold > self.now + 1) {
                faults.push(format!("worker {new} counts in slot {slot}, ready since {since:?}"));
            }
            place.generation = generation;
            let old = place.current.replace(new).and_then(|old| self.workers.get_mut(&old));
            old.into_iter().for_each(|old| old.may_leave = true);
        }
        if count != batch {
            faults.push(format!("a batch of {batch} has {count} new workers"));
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }

    fn done(&mut self, generation: u64) {
        match self.running.take() {
            Some(running) if running.generation == generation => {
                if running.done != running.slots {
                    let Running { done, slots, .. } = running;
                    self.fault(format!("reload {generation} is done after {done} of {slots}"));
                }
            }
            _ => self.fault(format!("reload {generation} is done, and is not under way")),
        }
        self.call_off();
        // An old worker without a place is in nobody's way: its slot was replaced, or has ended.
        self.places.values_mut().for_each(|place| place.generation = generation);
    }

    fn failed(&mut self, generation: u64) {
        // Others may have waited, and never began.
        if self.running.take_if(|it| it.generation == generation).is_some() {
            self.call_off();
        }
    }

    fn call_off(&mut self) {
        for place in self.places.values_mut() {
            let new = place.successor.take().and_then(|id| self.workers.get_mut(&id));
            new.into_iter().for_each(|new| (new.may_leave, new.called_off) = (true, true));
        }
    }

    /// The highest slots go.
    fn scaled(&mut self, to: u64) {
        for (_, place) in self.places.range_mut(to..) {
            let old = place.current.take().and_then(|id| self.workers.get_mut(&id));
            old.into_iter().for_each(|old| old.may_leave = true);
        }
    }

    fn end(&mut self) {
        let mut faults = Vec::new();
        if let Some(running) = &self.running {
            faults.push(format!("reload {} has no end", running.generation));
        }
        for (id, worker) in &self.workers {
            if worker.called_off && !worker.leaves && !worker.ended {
                let generation = worker.generation;
                faults.push(format!("worker {id} stays, and its reload {generation} has failed"));
            }
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }
}

#[cfg(test)]
mod tests;
