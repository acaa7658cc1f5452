//! How large the explored world is.

use std::time::Duration;

use roundel_core::{Address, Codec, Config, ConfigBuilder, ListenKey, Overflow};

const SECOND: Duration = Duration::from_secs(1);

/// More workers than this are not practical.
pub const MAX_WORKERS: usize = 4;

/// Ways to search less and see as much. `docs/model-check.md` says why each of them does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// A state that is known with more left to happen is known.
    pub dominance: bool,
    /// Slots with their workers are exchanged where no tie can tell them apart.
    pub symmetry: bool,
    /// A worker's only answer comes first where it commutes with everything before it.
    pub answers: bool,
    /// States after which workers only come and go are not gone on from.
    pub spent: bool,
}

impl Reduce {
    /// All of them.
    pub const ALL: Reduce = Reduce { dominance: true, symmetry: true, answers: true, spent: true };
    /// None of them.
    pub const NONE: Reduce =
        Reduce { dominance: false, symmetry: false, answers: false, spent: false };
}

/// The bounds of a search: what is counted down as a run goes on, and what stays as it is.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Workers that the primary keeps. At most [`MAX_WORKERS`].
    pub workers: u32,
    /// Connections that arrive in a run.
    pub connections: u8,
    /// Connections in flight at one worker.
    pub window: u32,
    /// Troubles in a run: declines, and what goes wrong, as
    /// [`Action::is_trouble`](super::action::Action::is_trouble) lists it.
    pub troubles: u8,
    /// Workers started in a run beyond the first ones.
    pub respawns: u8,
    /// What the operator wants in a run.
    pub commands: u8,
    /// Reloads in a run. With any, of all troubles only deaths and failures to become ready happen.
    pub reloads: u8,
    /// How many slots a reload replaces together.
    pub batch: u32,
    /// Begin before the listener is bound, not when all workers are ready.
    pub cold: bool,
    /// Processes start, listeners close and workers say hello at any time later,
    /// not at once.
    pub lazy: bool,
    /// What is not searched because it would show nothing new.
    pub reduce: Reduce,
    /// The workers are Node programs, which may hold their answers back.
    pub node: bool,
    /// Refuse what arrives while one connection is pending, and give a slot up at its second
    /// early failure.
    pub strict: bool,
}

impl Bounds {
    /// Bounds with two troubles, two respawns and one command.
    pub fn new(workers: u32, connections: u8) -> Self {
        Bounds {
            workers,
            connections,
            window: 1,
            troubles: 2,
            respawns: 2,
            commands: 1,
            reloads: 0,
            batch: 1,
            cold: false,
            lazy: false,
            node: false,
            strict: false,
            reduce: Reduce::ALL,
        }
    }

    /// The same with a reload, and as many respawns as it takes.
    #[must_use]
    pub fn reloading(self, batch: u32) -> Self {
        let respawns = self.troubles + 2 * self.workers as u8;
        Bounds { reloads: 1, batch, respawns, ..self }
    }

    /// The primary's configuration: every time is a whole number of seconds, and a small one, so
    /// that there are few differences between times.
    pub fn config(&self) -> Config {
        self.builder().build().unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// What the workers speak.
    pub fn codec(&self) -> Codec {
        if self.node { Codec::Node } else { Codec::Native }
    }

    /// The same before it is checked.
    pub(super) fn builder(&self) -> ConfigBuilder {
        let builder = Config::builder()
            .workers(self.workers)
            .listeners(vec![ListenKey::stream(Address::Any { port: 80 })])
            .window(self.window)
            .node_window(self.window)
            .ack_timeout(Some(2 * SECOND))
            .ready_timeout(Some(2 * SECOND))
            .silent_after(2 * SECOND)
            .drain_timeout(4 * SECOND)
            .drain_settle(Duration::ZERO)
            .linger(None)
            .shutdown_read_timeout(SECOND)
            .respawn_delay(SECOND)
            .respawn_delay_max(SECOND)
            .restart_period(SECOND)
            .cooldown(SECOND)
            .cooldown_max(SECOND)
            .max_attempts(2)
            .reload_batch(self.batch)
            .ready_hold(SECOND)
            .retry_delay(None);
        if self.strict {
            let longer = 4 * SECOND;
            builder
                .overflow(Overflow::Refuse)
                .max_pending(1)
                .cooldown_max(2 * SECOND)
                .respawn_delay_max(2 * SECOND)
                .restart_period(longer)
                .restart_intensity(1)
        } else {
            builder
        }
    }
}
