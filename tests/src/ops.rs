//! What can happen to a cluster, and how often it does.

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use roundel_core::{Address, Config, ListenKey, Overflow, Respawn};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One thing that happens. Numbers pick among what there is.
#[derive(Clone, Debug)]
pub enum Op {
    /// Clients connect to a listener.
    Connect(u8, u8),
    /// The primary accepts at a listener.
    Accept(u8, u8),
    /// A worker reads its channel.
    Read(u8),
    /// A worker answers one connection.
    Answer(u8, u8, bool),
    /// A worker accepts everything that it holds.
    AcceptAll(u8),
    /// The primary reads a worker's channel.
    Pull(u8),
    /// Everybody who is well reads and accepts once.
    Round,
    /// The embedder answers the core: spawns, binds, closes.
    Todo,
    /// The embedder answers one thing.
    TodoOne,
    /// Exits are noticed.
    Reap,
    /// Time passes, in milliseconds, with every deadline served.
    Pass(u16),
    /// Time passes, in milliseconds, and nobody looks at the clock meanwhile.
    Sleep(u16),
    /// A worker answers a number that it was not given, or was long ago.
    Stray(u8, u8),
    /// A worker answers again.
    Repeat(u8, bool),
    /// A worker stops reading and answering, or goes on.
    Stall(u8, bool),
    /// A process accepts what it holds and ends; its exit is noticed before its answers are read.
    Die(u8),
    /// A process ends with this code.
    Exit(u8, u8),
    /// A process is killed, and a grandchild has the channel.
    Orphan(u8),
    /// A process hangs in the kernel: no signal ends it.
    Hang(u8),
    /// A worker closes its channel and lives on.
    CloseChannel(u8),
    /// A worker says that it is failing.
    Suicide(u8),
    /// A worker leaves.
    Leave(u8),
    /// A worker closes a listener.
    CloseListener(u8, u8),
    /// A worker asks for a listener.
    Ask(u8, u8),
    /// A worker sends bytes that are no message.
    Garbage(u8),
    /// A worker sends half a message.
    Half(u8),
    /// The next spawns fail.
    FailSpawns(u8),
    /// The next bind fails.
    FailBind,
    /// Workers that start now say nothing, or speak again.
    Mute(bool),
    /// The newest handoff to a worker can't be sent.
    FailHandoff(u8),
    /// The operator pings a worker.
    Ping(u8),
    /// The operator stops the cluster.
    Stop,
    /// The operator stops it at once.
    StopNow,
}

/// Which things happen in a run.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Workers end.
    pub deaths: bool,
    /// Workers decline.
    pub declines: bool,
    /// Workers stall or hang.
    pub stalls: bool,
    /// Spawns and binds fail, workers fall silent.
    pub failures: bool,
    /// Workers send what they should not.
    pub hostile: bool,
    /// The operator stops the cluster.
    pub stops: bool,
}

impl Mix {
    /// Everything.
    pub const ALL: Mix = Mix {
        deaths: true,
        declines: true,
        stalls: true,
        failures: true,
        hostile: true,
        stops: true,
    };
    /// Nothing but traffic.
    pub const CALM: Mix = Mix {
        deaths: false,
        declines: false,
        stalls: false,
        failures: false,
        hostile: false,
        stops: false,
    };
}

/// One operation.
pub fn op(mix: Mix) -> impl Strategy<Value = Op> {
    let byte = any::<u8>;
    let when = |on: bool, weight: u32| if on { weight } else { 0 };
    let declines = mix.declines;
    let arms: Vec<(u32, BoxedStrategy<Op>)> = vec![
        (24, (byte(), 1..6_u8).prop_map(|(l, n)| Op::Connect(l, n)).boxed()),
        (20, (byte(), 1..6_u8).prop_map(|(l, n)| Op::Accept(l, n)).boxed()),
        (12, byte().prop_map(Op::Read).boxed()),
        (
            14,
            (byte(), byte(), byte())
                .prop_map(move |(w, n, dice)| Op::Answer(w, n, !declines || dice % 3 != 0))
                .boxed(),
        ),
        (10, byte().prop_map(Op::AcceptAll).boxed()),
        (20, byte().prop_map(Op::Pull).boxed()),
        (8, Just(Op::Round).boxed()),
        (12, Just(Op::Todo).boxed()),
        (2, Just(Op::TodoOne).boxed()),
        (6, Just(Op::Reap).boxed()),
        (10, (0..60_u16).prop_map(Op::Pass).boxed()),
        (4, (0..4_000_u16).prop_map(Op::Pass).boxed()),
        (1, (0..20_000_u16).prop_map(Op::Pass).boxed()),
        (when(mix.stalls, 1), (0..9_000_u16).prop_map(Op::Sleep).boxed()),
        (when(mix.hostile, 3), (byte(), byte()).prop_map(|(w, n)| Op::Stray(w, n)).boxed()),
        (when(mix.hostile, 3), (byte(), any::<bool>()).prop_map(|(w, b)| Op::Repeat(w, b)).boxed()),
        (when(mix.stalls, 3), (byte(), any::<bool>()).prop_map(|(w, b)| Op::Stall(w, b)).boxed()),
        (when(mix.deaths, 4), (byte(), 0..2_u8).prop_map(|(w, code)| Op::Exit(w, code)).boxed()),
        (when(mix.deaths, 2), byte().prop_map(Op::Die).boxed()),
        (when(mix.deaths, 1), byte().prop_map(Op::Orphan).boxed()),
        (when(mix.stalls, 1), byte().prop_map(Op::Hang).boxed()),
        (when(mix.deaths, 1), byte().prop_map(Op::CloseChannel).boxed()),
        (when(mix.deaths, 2), byte().prop_map(Op::Suicide).boxed()),
        (when(mix.deaths, 2), byte().prop_map(Op::Leave).boxed()),
        (when(mix.deaths, 1), (byte(), byte()).prop_map(|(w, l)| Op::CloseListener(w, l)).boxed()),
        (when(mix.deaths, 2), (byte(), byte()).prop_map(|(w, k)| Op::Ask(w, k)).boxed()),
        (when(mix.hostile, 1), byte().prop_map(Op::Garbage).boxed()),
        (when(mix.hostile, 1), byte().prop_map(Op::Half).boxed()),
        (when(mix.failures, 1), (0..3_u8).prop_map(Op::FailSpawns).boxed()),
        (when(mix.failures, 1), Just(Op::FailBind).boxed()),
        (when(mix.failures, 1), any::<bool>().prop_map(Op::Mute).boxed()),
        (when(mix.failures, 2), byte().prop_map(Op::FailHandoff).boxed()),
        (1, byte().prop_map(Op::Ping).boxed()),
        (when(mix.stops, 1), prop_oneof![9 => Just(Op::Stop), 1 => Just(Op::StopNow)].boxed()),
    ];
    let arms: Vec<_> = arms.into_iter().filter(|(weight, _)| *weight > 0).collect();
    proptest::strategy::Union::new_weighted(arms)
}

/// A run: a configuration, what workers ask for, and what happens.
#[derive(Clone)]
pub struct Plan {
    /// The configuration.
    pub config: Config,
    /// What workers ask for.
    pub keys: Vec<ListenKey>,
    /// What happens.
    pub ops: Vec<Op>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one line: a failing plan is read beside its trace.
        write!(f, "{:?}; keys {}; {:?}", self.config, self.keys.len(), self.ops)
    }
}

/// The key of a listener on this port of the loopback.
pub fn key(port: u16) -> ListenKey {
    ListenKey::stream(Address::Ip(SocketAddr::from(([127, 0, 0, 1], port))))
}

/// Runs of at most `length` operations.
pub fn plan(mix: Mix, length: usize) -> impl Strategy<Value = Plan> {
    let sizes =
        (1..5_u32, 1..5_u32, prop_oneof![1..5_u32, Just(64)], prop_oneof![3..9_u32, Just(999)]);
    let choices = (any::<bool>(), 0..2_u8, 1..4_u8, any::<u8>());
    (sizes, choices, vec_of(op(mix), 0..length)).prop_map(move |(sizes, choices, ops)| {
        let (workers, window, max_pending, max_held) = sizes;
        let (refuse, operator, attempts, dice) = choices;
        let respawn = match dice % 8 {
            0 if mix.deaths => Respawn::OnFailure,
            1 if mix.deaths => Respawn::Never,
            _ => Respawn::Always,
        };
        let listeners: Vec<ListenKey> = (0..operator).map(|n| key(80 + u16::from(n))).collect();
        let asked = if listeners.is_empty() { 1 + dice % 2 } else { dice % 2 };
        let keys = listeners.iter().cloned().chain((0..asked).map(|n| key(8_000 + u16::from(n))));
        let keys = keys.collect();
        let config = Config::builder()
            .workers(workers)
            .window(window)
            .max_pending(max_pending)
            .max_held(max_held)
            .overflow(if refuse { Overflow::Refuse } else { Overflow::Wait })
            .listeners(listeners)
            .ack_timeout(Some(Duration::from_millis(1_500)))
            .ready_timeout(Some(Duration::from_secs(4)))
            .drain_timeout(Duration::from_secs(3))
            .frame_timeout(Duration::from_secs(2))
            .max_attempts(attempts + 1)
            .max_stray_acks(6)
            .respawn(respawn)
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        Plan { config, keys, ops }
    })
}
