//! 128 bits that stand for a state.
//!
//! Two states have one fingerprint if they differ only by names, by the date, and by counters: the
//! primary's [`canonical`](roundel_core::Primary::canonical) view and the same view of what is
//! around it, hashed. With ten million states the chance of any collision is about 10^-25.

use std::hash::{DefaultHasher, Hash, Hasher};

use roundel_core::{ConnId, Time, WorkerId};

use super::process::{Down, Process, Up};
use super::world::World;

/// Keeps what it is fed.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// The fingerprint of a state.
pub fn fingerprint(world: &World) -> u128 {
    let mut bytes = Bytes(Vec::with_capacity(2_048));
    world.primary.canonical().hash(&mut bytes);
    View { world, out: &mut bytes }.all();
    let mut halves = [0, 1].map(|half: u64| {
        let mut hasher = DefaultHasher::new();
        half.hash(&mut hasher);
        hasher.write(&bytes.0);
        u128::from(hasher.finish())
    });
    halves[0] <<= 64;
    halves[0] | halves[1]
}

struct View<'a> {
    world: &'a World,
    out: &'a mut Bytes,
}

impl View<'_> {
    fn put(&mut self, what: impl Hash) {
        what.hash(self.out);
    }

    /// One more than the place in the order; 0 for what is gone.
    fn worker(&mut self, id: WorkerId) {
        let at = self.world.processes.iter().position(|process| process.id == id);
        self.put(at.map_or(0, |at| at as u8 + 1));
    }

    fn conn(&mut self, id: ConnId) {
        let at = self.world.custody.iter().position(|held| held.0 == id);
        self.put(at.map_or(0, |at| at as u8 + 1));
    }

    fn time(&mut self, at: Option<Time>) {
        let now = self.world.now.as_nanos();
        self.put(at.map(|at| at.as_nanos().wrapping_sub(now)));
    }

    fn all(&mut self) {
        let world = self.world;
        self.put((world.door, world.left, &world.verdict));
        self.put(world.processes.len());
        for process in &world.processes {
            self.process(process);
        }
        self.put(world.custody.len());
        for &(_, server) in &world.custody {
            self.put(server.is_some());
            if let Some(server) = server {
                self.worker(server);
            }
        }
        self.reference();
    }

    fn process(&mut self, p: &Process) {
        self.put((p.state, p.condemned, p.introduced, p.leaving, p.suicided, p.killed));
        self.put((p.shut, p.child, p.fenced, p.ended, p.exit, p.reaped));
        self.put(p.up.len());
        for up in &p.up {
            match up {
                Up::Ack(seq, accepted) => self.put((p.sent - seq.get(), accepted)),
                other => self.put(other),
            }
        }
        self.put(p.down.len());
        for down in &p.down {
            match down {
                Down::Conn(seq, conn) => {
                    self.put(p.sent - seq.get());
                    self.conn(*conn);
                }
                Down::Granted => self.put(down),
            }
        }
    }

    /// The reference says what the primary says, unless one of them is wrong.
    fn reference(&mut self) {
        let reference = &self.world.reference;
        self.put(reference.members.len());
        for member in &reference.members {
            // The place in the order matters only for those that may get something.
            if member.ready && !member.out {
                self.worker(member.id);
            }
        }
        for process in &self.world.processes {
            let members = reference.members.iter();
            for member in members.filter(|member| member.id == process.id) {
                self.put((member.ready, member.out, member.cool.map(|cool| cool.1)));
                self.time(member.cool.and_then(|cool| cool.0));
                self.put(member.flying.len());
                for &(_, conn, deaths) in &member.flying {
                    self.conn(conn);
                    self.put(deaths);
                }
            }
        }
        self.put(reference.pending.len());
        for &(conn, deaths) in &reference.pending {
            self.conn(conn);
            self.put(deaths);
        }
    }
}
