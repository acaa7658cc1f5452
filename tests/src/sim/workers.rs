//! What workers do, and what the primary hears of it.

use roundel_core::{
    BYTES_PER_TURN, ChannelEvent, Codec, Errno, ExitStatus, FromWorker, Input, ListenKey,
    SpawnError, WorkerId,
};
use roundel_runtime::primary::channel_io::{self, ReadState};

use super::Sim;
use super::end::PipeEnd;
use super::native::Native;
use super::node::Node;
use super::omen::Omen;
use super::process::Process;
use super::program::{Program, Reading};
use super::rng::Rng;
use crate::faults::fault::Property;
use crate::faults::mutants::Mutant;
use crate::sim::coverage::Effect;
use crate::sim::plan::{Codecs, key};

/// How long one read is: everything, or a part by chance.
fn read_size(chunk: u16, rng: &mut Rng) -> usize {
    match chunk {
        0 => 64 * 1024,
        most => rng.within(1..u64::from(most) + 1) as usize,
    }
}

/// Descriptors that a process can open while it does not reach its limit.
const ROOM: usize = 253;

/// What can be under way to and from a Node program: it waits for nobody when it writes, and relies
/// on no message to it being cut.
const NODE_CAPACITY: usize = 1 << 24;

impl Sim {
    pub(super) fn spawn(&mut self, id: WorkerId) {
        if let Some(cause) = self.failing_spawns.pop() {
            self.processes.remove(&id);
            return self.input(Input::SpawnFailed { worker: id, cause });
        }
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.started = true;
        process.alive = true;
        process.omen = self.dooms.pop_front();
        let crashes = process.omen == Some(Omen::Crashes);
        // A kill that came before the start is carried out right after it.
        let condemned = process.exit.take();
        if !self.mute {
            self.introduce(id);
        }
        if let Some(status) = condemned {
            self.die(id, status);
        } else if crashes {
            self.die(id, ExitStatus::Code(7));
        }
        self.input(Input::Spawned { worker: id, pid: 1_000 + id.get() as i32 });
    }

    /// Lets a worker's program begin: it says hello and asks for everything it listens on.
    pub(super) fn introduce(&mut self, id: WorkerId) {
        let node = match self.world.codecs {
            Codecs::Native => false,
            Codecs::Node | Codecs::Fork => true,
            Codecs::Mixed => self.rng.one_in(2),
        };
        let max_frame = self.core.core.config().max_frame();
        let (keys, now) = (self.asks_of(id), self.now);
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.program.is_some() || !process.alive {
            return;
        }
        if node {
            process.channel.up.set_capacity(NODE_CAPACITY);
            process.channel.down.set_capacity(NODE_CAPACITY);
            let node = match self.world.codecs {
                Codecs::Fork => Node::without_cluster(),
                _ => Node::new(&mut process.channel),
            };
            process.program = Some(Program::Node(Box::new(node)));
        } else {
            process.program = Some(Program::Native(Box::new(Native::new(max_frame))));
        }
        self.act(id, |program, process| {
            program.flush(now, &mut process.channel);
            for key in &keys {
                program.ask(now, key, &mut process.channel);
            }
        });
    }

    /// What a worker's program listens on.
    pub(super) fn asks_of(&self, id: WorkerId) -> Vec<ListenKey> {
        let Some(process) = self.processes.get(&id) else { return Vec::new() };
        let keys = self.asks.get(&process.generation).cloned().unwrap_or_default();
        match process.omen {
            Some(Omen::AsksNothing) => Vec::new(),
            Some(Omen::Elsewhere) => vec![key(9_999)],
            Some(Omen::OnOne) => keys.into_iter().take(1).collect(),
            _ => keys,
        }
    }

    /// What was to become of a program that has had its turn becomes of it.
    pub(super) fn fulfil(&mut self, id: WorkerId) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&id).filter(|it| it.acts()) else { return };
        process.turns += 1;
        if process.turns != 3 {
            return;
        }
        match process.omen {
            Some(Omen::CrashesSoon) => self.die(id, ExitStatus::Code(8)),
            Some(Omen::Leaves) => self.act(id, |p, it| p.leave(now, &mut it.channel)),
            Some(Omen::Fails) => self.act(id, |p, it| p.request_replacement(now, &mut it.channel)),
            _ => {}
        }
    }

    /// Lets a worker's program do something, if it can, and looks at what came of it.
    pub(super) fn act(&mut self, id: WorkerId, what: impl FnOnce(&mut Program, &mut Process)) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.acts() {
            return;
        }
        let Some(mut program) = process.program.take() else { return };
        what(&mut program, process);
        let saw = program.take_saw();
        for socket in program.take_delivered() {
            self.on_served(id, socket.name());
        }
        if let Some(process) = self.processes.get_mut(&id) {
            process.program = Some(program);
        }
        let hostile = self.hostile.contains(&id);
        self.coverage.saw(&saw);
        if let Some(wrong) = saw.wrong
            && !hostile
        {
            self.fault(Property::Invariants, format!("{id}: {wrong}"));
        }
    }

    fn on_served(&mut self, id: WorkerId, conn: roundel_core::ConnId) {
        self.note(Some(id), || format!("serves {conn}"));
        let slot = self.processes.get(&id).map_or(0, |process| process.slot.0 as usize);
        let slots = self.served_by_slot.len().max(slot + 1);
        self.served_by_slot.resize(slots, 0);
        if let Some(count) = self.served_by_slot.get_mut(slot) {
            *count += 1;
        }
        let Some(fate) = self.fate(conn) else { return };
        fate.served.push(id);
        let servers = self.servers(conn);
        if servers.len() > 1 {
            self.fault(Property::NoDouble, format!("{conn} was served by {servers:?}"));
        }
    }

    /// A worker reads its channel, `budget` bytes at most.
    pub(super) fn read(&mut self, id: WorkerId, budget: usize) {
        let now = self.now;
        let swap = self.mutant == Some(Mutant::SwapHandles);
        let (chunk, mut rng) = (self.world.chunk, self.rng.clone());
        self.act(id, |program, process| {
            let mut size = || read_size(chunk, &mut rng).min(budget);
            let room = if process.starved { 0 } else { ROOM };
            let mut reading = Reading { budget, size: &mut size, room, swap };
            program.read(now, &mut process.channel, &mut reading);
        });
        self.rng.word();
    }

    /// The primary reads a worker's channel, `budget` bytes at most.
    pub(super) fn pull(&mut self, id: WorkerId, budget: usize) -> ReadState {
        let mut heard = std::mem::take(&mut self.heard);
        let Some(process) = self.processes.get_mut(&id) else { return ReadState::Closed };
        let ready = process.more || process.channel.up.is_ready();
        if process.ended || !process.started || !ready {
            self.heard = heard;
            return ReadState::Wait;
        }
        let (chunk, rng) = (self.world.chunk, &mut self.rng);
        let exited = process.reaped;
        let mut size = || read_size(chunk, rng);
        let end = PipeEnd::new(&mut process.channel.up, &mut process.channel.down);
        let mut end = PipeEnd { size: Some(&mut size), budget, ..end };
        let state =
            channel_io::read(&mut process.link, &mut end, &mut self.buffer, |it| heard.push(it));
        let is_held = state == ReadState::Wait && end.budget > 0 && end.from.is_ready();
        process.more = state == ReadState::More;
        match state {
            ReadState::Closed => process.ended = true,
            ReadState::More => self.reached(Effect::TurnUsedUp),
            ReadState::Wait if is_held => self.reached(Effect::ReadingHeld),
            ReadState::Wait => {}
        }
        for heard in heard.drain(..) {
            self.hear(id, heard, exited);
        }
        self.heard = heard;
        state
    }

    fn hear(&mut self, worker: WorkerId, heard: ChannelEvent, exited: bool) {
        match &heard {
            ChannelEvent::Message(msg) => {
                let process = self.processes.get(&worker);
                let node = process.is_some_and(|p| p.link.codec() == Some(Codec::Node));
                self.coverage.heard(node, msg);
                if exited && matches!(msg, FromWorker::Ack { .. }) {
                    self.reached(Effect::AnswerAfterExit);
                }
            }
            ChannelEvent::FrameBegun => self.reached(Effect::SplitFrame),
            ChannelEvent::NotArrived { .. } => self.reached(Effect::NotArrived),
            ChannelEvent::Skipped { .. } => self.reached(Effect::MessageSkipped),
            ChannelEvent::User { .. } => self.reached(Effect::UserMessage),
            _ => {}
        }
        if let Some(input) = heard.into_input(worker) {
            self.input(input);
        }
    }

    /// Every channel is read to its end or to would-block.
    pub(super) fn pull_all(&mut self) {
        for id in self.ids() {
            while self.pull(id, BYTES_PER_TURN) == ReadState::More {}
        }
    }

    /// A process ends.
    pub(super) fn die(&mut self, id: WorkerId, status: ExitStatus) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.alive {
            return;
        }
        if !process.channel.up.is_empty() {
            self.coverage.reached(Effect::DiedWithSomethingUnread);
        }
        if !process.channel.down.is_empty() {
            self.coverage.reached(Effect::DiedWithoutReading);
        }
        process.die(status);
        self.note(Some(id), || format!("ends: {status}"));
    }

    /// The primary learns which processes have ended.
    pub(super) fn reap_all(&mut self) {
        for id in self.ids() {
            if let Some(process) = self.processes.get_mut(&id)
                && process.started
                && !process.reaped
                && !process.exit_lost
                && let Some(status) = process.exit
            {
                process.reaped = true;
                if process.ended {
                    self.coverage.reached(Effect::ExitAfterChannel);
                }
                self.input(Input::Exited { worker: id, status });
            }
        }
    }

    /// What a worker lacks of what it is to listen on.
    pub(super) fn lacks(&self, id: WorkerId) -> Option<ListenKey> {
        let (mut keys, process) = (self.asks_of(id), self.processes.get(&id)?);
        // One after the other: what it can't have is in the way of none.
        let first = process.asked as usize % keys.len().max(1);
        keys.rotate_left(first);
        process.program.as_ref()?.lacks(&keys)
    }

    /// Makes the next spawns fail.
    pub(super) fn fail_spawns(&mut self, count: u8, missing: bool) {
        for nth in 0..count {
            self.failing_spawns.push(match missing {
                true if nth % 2 == 1 => SpawnError::NotExecutable(Errno(13)),
                true => SpawnError::NotFound,
                // ENOEXEC.
                false => SpawnError::Other(Errno(8)),
            });
        }
    }

    /// The next spawns find no descriptors, processes or memory.
    pub(super) fn starve_spawns(&mut self, count: u8) {
        let wants = [Errno::EMFILE, Errno::ENFILE, Errno::EAGAIN, Errno::ENOMEM];
        let causes = wants.into_iter().cycle().map(SpawnError::Other);
        self.failing_spawns.extend(causes.take(count.into()));
    }
}
