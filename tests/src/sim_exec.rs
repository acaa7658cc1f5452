//! What the core says, done at once and without waiting.

use roundel_core::{
    Attach, ConnEnd, ConnId, ExitStatus, FromWorker, ListenKey, Output, Signal, ToWorker, WorkerId,
};

use crate::fault::Property;
use crate::sim::{Sim, SimListener, Todo};
use crate::sim_worker::{SimWorker, Up};

impl Sim {
    pub(crate) fn execute(&mut self, output: Output) {
        match output {
            Output::Spawn { worker, slot, .. } => {
                self.workers.insert(worker, SimWorker::new(worker, slot));
                self.todo.push_back(Todo::Spawn(worker));
            }
            Output::Kill { worker, signal } => self.signal(worker, signal),
            Output::Fence { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.fenced = true;
                }
            }
            Output::Forget { worker } => {
                if self.workers.get(&worker).is_some_and(|w| !w.ended) {
                    self.fault(Property::Invariants, format!("{worker} forgotten with a channel"));
                }
                self.workers.remove(&worker);
            }
            Output::Bind { listener, .. } => {
                self.listeners.insert(listener, SimListener::default());
                self.todo.push_back(Todo::Bind(listener));
            }
            Output::Unbind { listener } => {
                if let Some(record) = self.listeners.get_mut(&listener) {
                    record.accepting = false;
                }
                self.todo.push_back(Todo::Unbind(listener));
            }
            Output::ResumeAccept { listener } => {
                if let Some(record) = self.listeners.get_mut(&listener) {
                    record.accepting = record.open;
                }
            }
            Output::PauseAccept { listener } => {
                if let Some(record) = self.listeners.get_mut(&listener) {
                    record.accepting = false;
                }
            }
            Output::Send { worker, msg, attach } => self.send(worker, msg, attach),
            Output::Release { conn, end } => self.release(conn, end),
            Output::Stopped(verdict) => {
                let before = self.stopped.replace(verdict);
                if before.is_some() {
                    self.fault(Property::Shutdown, "it ended twice");
                }
            }
            _ => {}
        }
    }

    fn signal(&mut self, id: WorkerId, signal: Signal) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match signal {
            Signal::Kill if worker.hangs => worker.doomed = true,
            Signal::Kill if !worker.alive && worker.exit.is_none() => {
                worker.exit = Some(ExitStatus::Signal(9));
            }
            Signal::Kill => worker.die(ExitStatus::Signal(9)),
            // A well-behaved program ends at SIGTERM; one that says nothing may not.
            _ => {}
        }
    }

    fn send(&mut self, id: WorkerId, msg: ToWorker, attach: Option<Attach>) {
        let conn = match attach {
            Some(Attach::Conn(conn)) => Some(conn),
            _ => None,
        };
        if let Some(conn) = conn {
            if let Some(servers) = self.served.get(&conn) {
                let what = format!("{conn} went to {id} and {servers:?} had acknowledged it");
                self.fault(Property::NoDouble, what);
            }
            if self.custody.get(conn).is_none() {
                self.fault(Property::Conservation, format!("{conn} goes out and is not held"));
            }
        }
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.alive
            && worker.open
        {
            worker.down.push_back((msg, conn));
        }
    }

    fn release(&mut self, conn: ConnId, end: ConnEnd) {
        let Some(token) = self.custody.release(conn) else {
            return self.fault(Property::Conservation, format!("{conn} is released twice"));
        };
        token.close();
        self.released.insert(conn, end);
        let servers = self.served.get(&conn).cloned().unwrap_or_default();
        match end {
            ConnEnd::AcceptedBy(worker) if servers != [worker] => {
                let what = format!("{conn} is said to be {worker}'s, and is {servers:?}'s");
                self.fault(Property::NoDouble, what);
            }
            ConnEnd::Refused(refusal) if !servers.is_empty() => {
                let what = format!("{conn} is refused ({}) and served", refusal.name());
                self.fault(Property::NoDouble, what);
            }
            _ => {}
        }
    }

    /// A worker answers the nth of the connections that it holds.
    pub(crate) fn answer(&mut self, id: WorkerId, nth: usize, accepted: bool) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.holds.is_empty() || !worker.alive {
            return;
        }
        let held = worker.holds.remove(nth % worker.holds.len());
        worker.answered.push(held.seq);
        // An answer that can't be sent means that the connection is closed unread.
        if worker.say(FromWorker::Ack { ack: held.seq, accepted }) && accepted {
            let servers = self.served.entry(held.conn).or_default();
            servers.push(id);
            if servers.len() > 1 {
                let what = format!("{} was served by {servers:?}", held.conn);
                self.fault(Property::NoDouble, what);
            }
        }
    }
}

impl SimWorker {
    /// Says hello, and asks for everything that it listens on.
    pub(crate) fn introduce(&mut self, keys: &[ListenKey]) {
        self.introduced = true;
        self.write(Up::Hello);
        self.say(FromWorker::Online);
        for key in keys {
            self.ask(key);
        }
    }
}
