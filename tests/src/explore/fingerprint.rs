//! 128 bits that stand for a state.
//!
//! Two states have one fingerprint if they differ only by names, by the date, and by counters: the
//! primary's [`canonical`](roundel_core::Primary::canonical) view and the same view of what is
//! around it, hashed. With ten million states the chance of any collision is about 10^-25.

use std::hash::{Hash, Hasher};

use roundel_core::{ConnId, Time, WorkerId};

use super::process::{Down, Process, State, Up};
use super::world::World;

/// Two independent hashes of the same input, 64 bits each: every piece is mixed in by a
/// multiplication to 128 bits whose halves are folded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide {
    low: u64,
    high: u64,
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Hasher for Wide {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    // Odd numbers without a pattern: the fractions of the square roots of 2, 3, 5 and 7.
    fn write_u64(&mut self, word: u64) {
        self.low = fold(self.low ^ word, 0x6a09_e667_f3bc_c909).wrapping_add(0xbb67_ae85_84ca_a73b);
        self.high = fold(self.high.rotate_left(23) ^ word, 0x3c6e_f372_fe94_f82b)
            .wrapping_add(0xa54f_f53a_5f1d_36f1);
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.low
    }
}

/// The fingerprint of a state.
pub fn fingerprint(world: &World) -> u128 {
    let primary = || {
        let mut out = Wide { low: 1, high: 2 };
        world.primary.canonical().hash(&mut out);
        out
    };
    let mut out = *world.seen.get_or_init(primary);
    View { world, out: &mut out }.all();
    // The end is mixed in like everything else, or the last piece would hardly be.
    out.write_u64(0);
    out.write_u64(0);
    u128::from(out.high) << 64 | u128::from(out.low)
}

struct View<'a> {
    world: &'a World,
    out: &'a mut Wide,
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
        self.put((p.state, p.condemned, p.shut, p.child, p.fenced, p.ended, p.reaped));
        if p.state == State::Dead {
            // What it was says nothing any more; how it ended does until that is known.
            self.put((p.exit.filter(|_| !p.reaped), p.suicided, p.killed));
        } else {
            self.put((p.introduced, p.leaving, p.suicided, p.killed));
        }
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
