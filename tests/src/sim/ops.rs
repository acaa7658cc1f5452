//! What can happen to a cluster, and how often it does.

use crate::sim::rng::Rng;

/// One thing that happens. Numbers pick among what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Clients connect to a listener.
    Connect(u8, u8),
    /// The primary accepts at a listener.
    Accept(u8, u8),
    /// A worker reads its channel.
    Read(u8),
    /// A worker reads so many bytes of its channel.
    ReadSome(u8, u8),
    /// A worker answers one connection.
    Answer(u8, u8, bool),
    /// A worker accepts everything that it holds.
    AcceptAll(u8),
    /// The primary reads a worker's channel.
    Pull(u8),
    /// The primary reads so many bytes of a worker's channel.
    PullSome(u8, u8),
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
    /// A worker takes one connection a round, or goes on as others.
    Slow(u8, bool),
    /// A worker is at its limit on open files, or no more.
    Starve(u8, bool),
    /// A worker that is to leave stays until a signal: 1 SIGINT, 2 SIGTERM, 3 SIGKILL.
    Linger(u8, u8),
    /// A process accepts what it holds and ends; its exit is noticed before its answers are read.
    Die(u8),
    /// A process ends with this code.
    Exit(u8, u8),
    /// A process ends, and nobody ever hears of it.
    LoseExit(u8),
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
    /// All workers close a listener, and one asks for all addresses of its port.
    Rival(u8),
    /// A worker says something of no consequence.
    Chat(u8, u8),
    /// A Node worker sends a handle of its own, and holds its answers back.
    SendHandle(u8),
    /// A worker says more than is read in one turn, or asks more than can be answered.
    Flood(u8, bool),
    /// A worker sends bytes of this seed that it should not.
    Hostile(u8, u32),
    /// A worker sends half a message.
    Half(u8),
    /// The next spawns fail; as if there were no such program.
    FailSpawns(u8, bool),
    /// The primary has no descriptors, processes or memory for the next spawns.
    StarveSpawns(u8),
    /// The next bind fails.
    FailBind,
    /// Workers that start now say nothing, or speak again.
    Mute(bool),
    /// The next handoff to a worker can't be sent.
    FailHandoff(u8),
    /// Too many descriptors are under way for the next handoff to a worker.
    ManyRefs(u8),
    /// The operator pings a worker.
    Ping(u8),
    /// The operator stops the cluster.
    Stop,
    /// The operator stops it at once.
    StopNow,
    /// The operator reloads: with this seed for what changes, and for what becomes of the new
    /// workers.
    Reload(u32),
    /// The operator wants so many workers.
    Scale(u8),
    /// The operator pauses the cluster, or ends that.
    Pause(bool),
    /// The embedder has seen how much memory a worker has: too much, or not.
    Memory(u8, bool),
    /// The next workers that start are not as they should be: see `Omen`.
    Doom(u8, u8),
    /// All machines are written down, and the run goes on with what is read back.
    Restore,
}

impl Op {
    /// Which worker it is about.
    pub fn worker(&self) -> Option<u8> {
        use Op::*;
        match *self {
            Connect(..) | Accept(..) | Round | Todo | TodoOne | Reap | Pass(_) | Sleep(_)
            | FailSpawns(..) | StarveSpawns(_) | FailBind | Mute(_) | Stop | StopNow
            | Reload(_) | Scale(_) | Pause(_) | Doom(..) | Restore => None,
            Read(w)
            | ReadSome(w, _)
            | Answer(w, ..)
            | AcceptAll(w)
            | Pull(w)
            | PullSome(w, _)
            | Stray(w, _)
            | Repeat(w, _)
            | Stall(w, _)
            | Slow(w, _)
            | Starve(w, _)
            | Linger(w, _)
            | Die(w)
            | Exit(w, _)
            | LoseExit(w)
            | Orphan(w)
            | Hang(w)
            | CloseChannel(w)
            | Suicide(w)
            | Leave(w)
            | CloseListener(w, _)
            | Ask(w, _)
            | Rival(w)
            | Chat(w, _)
            | SendHandle(w)
            | Flood(w, _)
            | Hostile(w, _)
            | Half(w)
            | FailHandoff(w)
            | ManyRefs(w)
            | Memory(w, _)
            | Ping(w) => Some(w),
        }
    }
}

/// Which things happen in a run.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Workers end.
    pub deaths: bool,
    /// Workers decline.
    pub declines: bool,
    /// Workers stall, hang or are slow.
    pub stalls: bool,
    /// Spawns, binds and sends fail, workers fall silent, descriptors run out.
    pub failures: bool,
    /// Workers send what they should not.
    pub hostile: bool,
    /// The operator stops the cluster.
    pub stops: bool,
    /// Workers are Node programs, too.
    pub node: bool,
    /// The operator reloads, scales and pauses the cluster, and workers are recycled.
    pub reloads: bool,
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
        node: true,
        reloads: true,
    };
    /// Nothing but traffic.
    pub const CALM: Mix = Mix {
        deaths: false,
        declines: false,
        stalls: false,
        failures: false,
        hostile: false,
        stops: false,
        node: false,
        reloads: false,
    };
}

/// How often each thing happens in a mix, and what it is.
pub(crate) type Arm = (u64, fn(&mut Rng) -> Op);

/// What happens in a mix.
pub(crate) fn arms(mix: Mix) -> Vec<Arm> {
    let when = |on: bool, weight: u64| if on { weight } else { 0 };
    let arms: [Arm; 51] = [
        (24, |r| Op::Connect(r.byte(), r.within(1..6) as u8)),
        (20, |r| Op::Accept(r.byte(), r.within(1..6) as u8)),
        (12, |r| Op::Read(r.byte())),
        (3, |r| Op::ReadSome(r.byte(), r.within(1..64) as u8)),
        (14, |r| Op::Answer(r.byte(), r.byte(), true)),
        (when(mix.declines, 5), |r| Op::Answer(r.byte(), r.byte(), false)),
        (10, |r| Op::AcceptAll(r.byte())),
        (20, |r| Op::Pull(r.byte())),
        (3, |r| Op::PullSome(r.byte(), r.within(1..64) as u8)),
        (8, |_| Op::Round),
        (12, |_| Op::Todo),
        (2, |_| Op::TodoOne),
        (6, |_| Op::Reap),
        (10, |r| Op::Pass(r.below(60) as u16)),
        (4, |r| Op::Pass(r.below(4_000) as u16)),
        (1, |r| Op::Pass(r.below(20_000) as u16)),
        (2, |r| Op::Chat(r.byte(), r.byte())),
        (1, |r| Op::Ping(r.byte())),
        (when(mix.stalls, 1), |r| Op::Sleep(r.below(9_000) as u16)),
        (when(mix.stalls, 3), |r| Op::Stall(r.byte(), r.one_in(2))),
        (when(mix.stalls, 1), |r| Op::Slow(r.byte(), r.one_in(2))),
        (when(mix.stalls, 1), |r| Op::Hang(r.byte())),
        (when(mix.stalls, 1), |r| Op::Linger(r.byte(), r.byte())),
        (when(mix.hostile, 3), |r| Op::Stray(r.byte(), r.byte())),
        (when(mix.hostile, 3), |r| Op::Repeat(r.byte(), r.one_in(2))),
        (when(mix.hostile, 2), |r| Op::Hostile(r.byte(), r.word() as u32)),
        (when(mix.hostile, 1), |r| Op::Half(r.byte())),
        (when(mix.hostile, 1), |r| Op::Flood(r.byte(), r.one_in(2))),
        (when(mix.node, 2), |r| Op::SendHandle(r.byte())),
        (when(mix.deaths, 4), |r| Op::Exit(r.byte(), r.below(2) as u8)),
        (when(mix.deaths, 2), |r| Op::Die(r.byte())),
        (when(mix.deaths, 1), |r| Op::LoseExit(r.byte())),
        (when(mix.deaths, 1), |r| Op::Orphan(r.byte())),
        (when(mix.deaths, 1), |r| Op::CloseChannel(r.byte())),
        (when(mix.deaths, 2), |r| Op::Suicide(r.byte())),
        (when(mix.deaths, 2), |r| Op::Leave(r.byte())),
        (when(mix.deaths, 1), |r| Op::CloseListener(r.byte(), r.byte())),
        (when(mix.deaths, 2), |r| Op::Ask(r.byte(), r.byte())),
        (when(mix.deaths, 1), |r| Op::Rival(r.byte())),
        (when(mix.failures, 1), |r| match (r.below(3) as u8, r.one_in(12)) {
            (0, _) => Op::StarveSpawns(3),
            (count, missing) => Op::FailSpawns(count, missing),
        }),
        (when(mix.failures, 1), |_| Op::FailBind),
        (when(mix.failures, 1), |r| Op::Mute(r.one_in(2))),
        (when(mix.failures, 2), |r| match r.below(2) {
            0 => Op::FailHandoff(r.byte()),
            _ => Op::ManyRefs(r.byte()),
        }),
        (when(mix.failures, 2), |r| Op::Starve(r.byte(), r.one_in(2))),
        (when(mix.reloads, 4), |r| Op::Reload(r.word() as u32)),
        (when(mix.reloads, 1), |r| Op::Scale(r.within(1..6) as u8)),
        (when(mix.reloads, 2), |r| Op::Pause(r.one_in(3))),
        (when(mix.reloads, 2), |r| Op::Memory(r.byte(), !r.one_in(4))),
        (when(mix.reloads && mix.deaths, 1), |r| Op::Doom(r.byte(), r.within(1..4) as u8)),
        (when(mix.reloads, 6), |r| Op::Pass(r.within(100..1_500) as u16)),
        (when(mix.stops, 1), |r| if r.one_in(8) { Op::StopNow } else { Op::Stop }),
    ];
    arms.into_iter().filter(|(weight, _)| *weight > 0).collect()
}
