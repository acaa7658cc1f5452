//! Runs as values: a configuration, channels, what workers ask for, and what happens.

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use roundel_core::{
    Address, Config, ConfigBuilder, ListenKey, Overflow, Policy, Respawn, Signal, StopSignal,
};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::sim::ops::{Mix, Op, arms};
use crate::sim::rng::Rng;

/// What workers speak in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codecs {
    /// The native protocol.
    Native,
    /// Node's.
    Node,
    /// Either, by chance.
    Mixed,
    /// Node's, by programs without cluster, which are given their listeners.
    Fork,
}

/// How channels are in a run.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// What the chance within a run comes from.
    pub seed: u64,
    /// How many bytes a channel holds on the way to a worker.
    pub down: usize,
    /// How many bytes a channel holds on the way to the primary.
    pub up: usize,
    /// The longest read; 0 for no limit.
    pub chunk: u16,
    /// What workers speak.
    pub codecs: Codecs,
}

impl World {
    /// Wide channels and native workers.
    pub const CALM: World =
        World { seed: 1, down: 1 << 20, up: 1 << 20, chunk: 0, codecs: Codecs::Native };
}

/// A run: a configuration, channels, what workers ask for, and what happens.
#[derive(Clone)]
pub struct Plan {
    /// The configuration.
    pub config: Config,
    /// The channels.
    pub world: World,
    /// What workers ask for.
    pub keys: Vec<ListenKey>,
    /// What they ask for now and then: nobody can have it beside the last one of the others.
    pub rivals: Vec<ListenKey>,
    /// What happens.
    pub ops: Vec<Op>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one line: a failing plan is read beside its trace.
        let (config, world, keys) = (&self.config, &self.world, self.keys.len());
        write!(f, "{config:?}; {world:?}; {keys} keys; {:?}", self.ops)
    }
}

/// The key of a listener on this port of the loopback.
pub fn key(port: u16) -> ListenKey {
    ListenKey::stream(Address::Ip(SocketAddr::from(([127, 0, 0, 1], port))))
}

/// A port that the operator gives now and then, and no program asks for. No client comes there.
pub const UNWANTED: u16 = 99;

/// What asks for the same port on every address.
fn rival(key: &ListenKey) -> Option<ListenKey> {
    let port = key.address.port()?;
    Some(ListenKey::stream(Address::Ip(SocketAddr::from(([0, 0, 0, 0], port)))))
}

/// Whether the kernel refuses this ask while somebody listens there: on the same port and the same
/// IPv4 address, or one of the two on all of them.
pub fn is_taken(ask: &ListenKey, there: SocketAddr) -> bool {
    if let Address::Any { port } = ask.address {
        return port == there.port();
    }
    let Address::Ip(asked) = ask.address else { return false };
    let all = asked.ip().is_unspecified() || there.ip().is_unspecified();
    asked.port() != 0 && asked.port() == there.port() && (all || asked.ip() == there.ip())
}

/// The port of a listener that a reload adds.
pub const ADDED: u16 = 85;

/// What reloads, recycling and the like depend on, by a chance of their own: all else is as it
/// would be without.
fn with_reloads(mix: Mix, choices: u64, builder: ConfigBuilder) -> ConfigBuilder {
    if !mix.reloads {
        return builder.retry_delay(None);
    }
    let r = &mut Rng::new(choices.rotate_left(41));
    let some = |r: &mut Rng, ms: u64| r.one_in(4).then_some(Duration::from_millis(ms));
    builder
        .reload_batch(if r.one_in(4) { 10_000 } else { r.within(1..3) as u32 })
        .min_ready(if r.one_in(3) { Some(r.below(4) as u32) } else { None })
        .ready_hold(Duration::from_millis([0, 200, 1_000][r.below(3) as usize]))
        .max_generations(r.within(2..5) as u32)
        .shutdown_delay(Duration::from_millis(if r.one_in(4) { 700 } else { 0 }))
        .heartbeat(some(r, 400))
        .max_age(some(r, 6_000))
        .max_memory(NonZeroU64::new(MEMORY))
        .retry_delay(r.one_in(2).then_some(Duration::from_secs(3)))
        .retry_delay_max(Duration::from_secs(8))
        .restart_intensity(r.within(1..6) as u32)
}

/// So much memory is too much.
pub const MEMORY: u64 = 1_000;

/// What changes at the reload of this seed; `None` for nothing.
pub fn change(seed: u32, config: &Config) -> Option<Config> {
    let r = &mut Rng::new(seed.into());
    let builder = ConfigBuilder::from(config.clone());
    let added = key(ADDED);
    let mut listeners = config.listeners().to_vec();
    let builder = match r.below(12) {
        0 => builder.workers(r.within(1..6) as u32),
        1 => builder.ack_timeout(Some(Duration::from_millis(r.within(8..30) * 100))),
        2 | 3 if config.pass_listeners() => return None,
        2 => {
            // Nobody could have it beside the others.
            if config.max_listeners_per_worker() == 1 {
                return None;
            }
            if !listeners.contains(&added) {
                listeners.push(added);
            }
            builder.listeners(listeners)
        }
        3 => {
            listeners.pop();
            builder.listeners(listeners)
        }
        4 => builder.max_requests(None).policy(match config.policy() {
            Policy::Shared => Policy::RoundRobin,
            _ => Policy::Shared,
        }),
        5 if r.one_in(2) => builder.max_requests(None).pass_listeners(!config.pass_listeners()),
        5 => builder.drain_timeout(Duration::from_millis(r.within(10..40) * 100)),
        6 => builder
            .window(r.within(1..5) as u32)
            .max_attempts(r.within(2..5) as u8)
            .max_pending(r.within(1..64) as u32)
            .min_ready(None)
            .ready_hold(Duration::from_millis(300)),
        _ => return None,
    };
    builder.build().ok()
}

/// Makes a plan: of the number `choices` what holds for all of it, and an operation of each word.
fn plan_of(mix: Mix, choices: u64, words: impl Iterator<Item = u64>) -> Plan {
    let mut rng = Rng::new(choices);
    let r = &mut rng;
    let operator = r.below(2);
    let respawn = match r.below(8) {
        0 if mix.deaths => Respawn::OnFailure,
        1 if mix.deaths => Respawn::Never,
        _ => Respawn::Always,
    };
    let policy = if mix.failures && r.one_in(16) { Policy::Shared } else { Policy::RoundRobin };
    let capacity = |r: &mut Rng| if r.one_in(2) { 1 << 20 } else { r.within(48..400) as usize };
    let codecs = match r.below(3) {
        0 if mix.node && r.one_in(8) => Codecs::Fork,
        0 if mix.node => Codecs::Node,
        1 if mix.node => Codecs::Mixed,
        _ => Codecs::Native,
    };
    let operator = if codecs == Codecs::Fork { 1 } else { operator };
    // Of their own, so that all else is as it was before there were such choices.
    let leave = &mut Rng::new(choices.rotate_left(17));
    let native_waits = &mut Rng::new(choices.rotate_left(23));
    let stop_signal = match leave.below(12) {
        0 => Some(StopSignal::Signal(Signal::Term)),
        1 => Some(StopSignal::Signal(Signal::Interrupt)),
        2 => Some(StopSignal::Signal(Signal::Hangup)),
        3 => Some(StopSignal::Signal(Signal::User2)),
        4 => Some(StopSignal::Message),
        _ => None,
    };
    let mut given: Vec<ListenKey> = (0..operator).map(|n| key(80 + n as u16)).collect();
    if codecs != Codecs::Fork && r.one_in(6) {
        given.push(key(UNWANTED));
    }
    let counted = codecs != Codecs::Fork && policy == Policy::RoundRobin && mix.reloads;
    let requests = NonZeroU64::new(choices % 12).filter(|_| counted && choices.is_multiple_of(3));
    let builder = with_reloads(mix, choices, Config::builder());
    let config = builder
        .pass_listeners(codecs == Codecs::Fork)
        .wait_ready(match codecs {
            Codecs::Node => r.one_in(8),
            Codecs::Native | Codecs::Mixed => native_waits.one_in(8),
            Codecs::Fork => false,
        })
        .workers(r.within(1..5) as u32)
        .window(r.within(1..5) as u32)
        .node_window(r.within(1..5) as u32)
        .max_pending(if r.one_in(2) { 64 } else { r.within(1..5) as u32 })
        .max_held(if r.one_in(2) { 999 } else { r.within(3..9) as u32 })
        .overflow(if r.one_in(2) { Overflow::Refuse } else { Overflow::Wait })
        .listeners(given)
        .policy(policy)
        .ack_timeout(Some(Duration::from_millis(1_500)))
        .ready_timeout(Some(Duration::from_secs(4)))
        .drain_timeout(Duration::from_secs(3))
        .drain_settle(Duration::from_millis(if leave.one_in(2) { 0 } else { 200 }))
        .linger(leave.one_in(2).then_some(Duration::from_millis(900)))
        .stop_signal(stop_signal)
        .frame_timeout(Duration::from_secs(2))
        .silent_after(Duration::from_secs(5))
        .max_attempts(r.within(2..5) as u8)
        .max_stray_acks(6)
        .max_listeners_per_worker(if r.one_in(4) { 1 } else { 64 })
        .max_frame(2_048)
        .max_line(4_096)
        .respawn(respawn)
        .max_requests(requests)
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    let world = World {
        seed: r.word(),
        down: capacity(r),
        up: capacity(r),
        chunk: if r.one_in(2) { 0 } else { r.within(1..40) as u16 },
        codecs,
    };
    let mut keys: Vec<ListenKey> = (0..operator).map(|n| key(80 + n as u16)).collect();
    keys.extend((operator..1 + r.below(2).max(operator)).map(|n| key(8_000 + n as u16)));
    // Nobody needs the last of several to be well.
    let rivals = keys.iter().skip(1).next_back().and_then(rival).into_iter().collect();
    let arms = arms(mix);
    let total = arms.iter().map(|(weight, _)| weight).sum();
    let op = |word: u64| {
        let mut rng = Rng::new(word);
        let mut dice = rng.below(total);
        let arm = arms.iter().find(|(weight, _)| match dice.checked_sub(*weight) {
            Some(left) => {
                dice = left;
                false
            }
            None => true,
        });
        arm.map_or(Op::Round, |(_, make)| make(&mut rng))
    };
    Plan { config, world, keys, rivals, ops: words.map(op).collect() }
}

/// Runs of at most `length` operations, for a search that makes them smaller.
pub fn plan(mix: Mix, length: usize) -> impl Strategy<Value = Plan> {
    let words = vec_of(any::<u64>(), 0..length);
    (any::<u64>(), words).prop_map(move |(choices, words)| plan_of(mix, choices, words.into_iter()))
}

impl Plan {
    /// The run of a seed, of at most `length` operations. Every other one is not stopped before
    /// its end, and in every third one nothing is reloaded.
    pub fn of_seed(seed: u64, length: usize) -> Plan {
        let mut rng = Rng::new(seed ^ 0x5EED_0000_0000);
        let reloads = !Rng::new(seed ^ 0x4E10_AD00_0000).one_in(3);
        let mix = Mix { stops: rng.one_in(2), reloads, ..Mix::ALL };
        Plan::of_seed_in(mix, rng.word(), length)
    }

    /// The same with so many workers.
    ///
    /// # Panics
    /// If that is not a number of workers that a configuration may have.
    #[must_use]
    pub fn with_workers(self, workers: u32) -> Plan {
        let config = ConfigBuilder::from(self.config).workers(workers).build();
        Plan { config: config.unwrap_or_else(|error| panic!("{error}")), ..self }
    }

    /// The run of a seed in a mix, of at most `length` operations.
    pub fn of_seed_in(mix: Mix, seed: u64, length: usize) -> Plan {
        let mut rng = Rng::new(seed);
        let choices = rng.word();
        let count = rng.within(1..length.max(1) as u64 + 1) as usize;
        plan_of(mix, choices, std::iter::repeat_with(move || rng.word()).take(count))
    }
}
