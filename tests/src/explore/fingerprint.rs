//! 128 bits that stand for a state.
//!
//! Two states have one fingerprint if they differ only by names, by the date, and by counters: the
//! primary's [`canonical`](roundel_core::Primary::canonical) view and the same view of what is
//! around it, hashed. What is left to happen in a run is not part of it. With a hundred million
//! states the chance of any collision is about 10^-23.

use std::hash::{Hash, Hasher};

use roundel_core::{ConnId, Seq, Slot, Time};

use super::bounds::MAX_WORKERS;
use super::process::{Down, Process, State, Up};
use super::reference::WorkerModel;
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

impl Wide {
    const NEW: Wide = Wide { low: 1, high: 2 };

    fn number(mut self) -> u128 {
        // The end is mixed in like everything else, or the last piece would hardly be.
        self.write_u64(0);
        self.write_u64(0);
        u128::from(self.high) << 64 | u128::from(self.low)
    }
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

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.low
    }
}

/// What a primary alone puts into a fingerprint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    rest: Wide,
    slots: [Wide; MAX_WORKERS],
}

/// The fingerprints of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prints {
    /// Of the state as it is.
    pub exact: u128,
    /// The same for all states that are equal but for which slot is which, and which worker of
    /// different slots is older.
    pub alike: u128,
    /// Whether that makes no difference from here on.
    pub exchangeable: bool,
}

impl Prints {
    /// What the state is known by.
    pub fn key(self) -> u128 {
        if self.exchangeable { self.alike } else { self.exact }
    }
}

/// The fingerprints of a state.
pub fn fingerprints(world: &World) -> Prints {
    let count = world.slots();
    let Seen { mut rest, mut slots } = *world.seen.get_or_init(|| {
        let view = world.primary.view();
        let mut seen = Seen { rest: Wide::NEW, slots: [Wide::NEW; MAX_WORKERS] };
        view.hash_rest(&mut seen.rest);
        for (at, out) in (0..).zip(&mut seen.slots[..count]) {
            view.hash_slot(Slot(at), out);
        }
        seen
    });
    World::put_rest(world, &mut rest);
    let mut order = rest;
    for process in &world.processes {
        let out = &mut slots[process.slot as usize % MAX_WORKERS];
        View { world, out }.process(process);
        process.slot.hash(&mut order);
    }
    let mut numbers = [0; MAX_WORKERS];
    for (number, slot) in numbers.iter_mut().zip(&slots[..count]) {
        *number = slot.number();
    }
    let join = |mut out: Wide, numbers: &[u128]| {
        for number in numbers {
            out.write_u64(*number as u64);
            out.write_u64((*number >> 64) as u64);
        }
        out.number()
    };
    order.write_u64(1);
    let exact = join(order, &numbers[..count]);
    numbers[..count].sort_unstable();
    let alike = join(rest, &numbers[..count]);
    Prints { exact, alike, exchangeable: world.is_exchangeable() }
}

struct View<'a> {
    world: &'a World,
    out: &'a mut Wide,
}

impl World {
    /// How many places for workers there are.
    fn slots(&self) -> usize {
        (self.config.workers() as usize).min(MAX_WORKERS)
    }

    /// Whether slots can be exchanged from here on: no tie that the primary breaks by id can come
    /// any more between workers of different slots.
    ///
    /// There are two such ties: workers that cool down at the same time while a connection waits,
    /// which takes a decline each; and workers that wait for the place of the same process, which
    /// takes a trouble for each slot and one more.
    fn is_exchangeable(&self) -> bool {
        let members = self.reference.members.iter();
        let ends: Vec<Time> = members.filter_map(|member| member.cool?.0).collect();
        let ties = match self.left.troubles {
            0 => (1..ends.len()).any(|at| ends[at..].contains(&ends[at - 1])),
            more => usize::from(more) + ends.len() > 1,
        };
        // A reload goes through the slots in their order.
        self.reduce.symmetry && self.few_troubles && !ties && !self.may_reload()
    }

    fn put_rest(&self, out: &mut Wide) {
        let mut view = View { world: self, out };
        view.put((self.socket, &self.verdict));
        view.put(self.custody.len());
        view.put(self.reference.pending.len());
        for &(conn, deaths) in &self.reference.pending {
            view.conn(conn);
            view.put(deaths);
        }
    }
}

impl View<'_> {
    fn put(&mut self, what: impl Hash) {
        what.hash(self.out);
    }

    /// One more than the place in the order; 0 for what is gone.
    fn conn(&mut self, id: ConnId) {
        let at = self.world.custody.iter().position(|held| held.0 == id);
        self.put(at.map_or(0, |at| at as u8 + 1));
    }

    fn time(&mut self, at: Option<Time>) {
        let now = self.world.now.as_nanos();
        self.put(at.map(|at| at.as_nanos().wrapping_sub(now)));
    }

    /// A process, its channel, and what the reference says of it.
    fn process(&mut self, p: &Process) {
        let members = &self.world.reference.members;
        let member = members.iter().find(|member| member.id == p.id);
        self.put((p.state, p.condemned, p.shut, p.ended, p.reaped));
        self.put((p.child && !p.ended, p.read_shut && (p.lives() || !p.ended)));
        if p.state == State::Dead {
            // What it was says nothing any more; how it ended does until that is known.
            let answers = !p.up.is_empty();
            self.put((
                p.exit.filter(|_| !p.reaped && !p.killed),
                p.suicided && answers,
                p.killed && answers,
            ));
        } else {
            self.put((p.introduced, p.leaving, p.suicided, p.killed));
        }
        self.put(p.up.len());
        for up in &p.up {
            match up {
                Up::Doubt(seq) => self.put((b'd', Self::place(member, *seq))),
                Up::Ack(seq, accepted) => self.put((Self::place(member, *seq), accepted)),
                other => self.put(other),
            }
        }
        self.put(p.down.len());
        for down in &p.down {
            match down {
                Down::Conn(seq, conn) => {
                    self.put(Self::place(member, *seq));
                    self.conn(*conn);
                }
                Down::Granted => self.put(down),
            }
        }
        self.put(p.doubted.map(|seq| Self::place(member, seq)));
        for &(_, server) in &self.world.custody {
            self.put(server == Some(p.id));
        }
        if let Some(member) = member {
            self.member(member);
        }
        self.put(b';');
    }

    /// The place of what has this number among what is in flight, counted from 1.
    fn place(member: Option<&WorkerModel>, seq: Seq) -> usize {
        let in_flight = member.map(|member| member.in_flight.as_slice()).unwrap_or_default();
        in_flight.iter().position(|in_flight| in_flight.0 == seq).map_or(0, |at| at + 1)
    }

    /// The reference says what the primary says, unless one of them is wrong.
    fn member(&mut self, member: &WorkerModel) {
        self.put((member.ready, member.out, member.held));
        if !member.out {
            self.put(member.cool.map(|cool| cool.1));
            self.time(member.cool.and_then(|cool| cool.0));
        }
        if member.ready && !member.out {
            // The place in the order matters only for those that may get something.
            let members = self.world.reference.members.iter();
            let earlier = members.take_while(|other| other.id != member.id);
            self.put(earlier.filter(|other| other.ready && !other.out).count());
        }
        self.put(member.in_flight.len());
        for &(_, conn, deaths) in &member.in_flight {
            self.conn(conn);
            self.put(deaths);
        }
        for &seq in &member.in_doubt {
            self.put(Self::place(Some(member), seq));
        }
    }
}
