//! How large the explored world is.

use std::time::Duration;

use roundel_core::{Address, Config, ListenKey, Overflow};

const SECOND: Duration = Duration::from_secs(1);

/// The bounds of a search: what is counted down as a run goes on, and what stays as it is.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Workers that the primary keeps. At most 3 are practical.
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
    /// Begin before the listener is bound, not when all workers are ready.
    pub cold: bool,
    /// Whoever has to start a process, close a listener, or say hello may do so at any time later,
    /// not at once.
    pub lazy: bool,
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
            cold: false,
            lazy: false,
            strict: false,
        }
    }

    /// The primary's configuration: every time is a whole number of seconds, and a small one, so
    /// that there are few differences between times.
    pub fn config(&self) -> Config {
        let builder = Config::builder()
            .workers(self.workers)
            .listeners(vec![ListenKey::stream(Address::Any { port: 80 })])
            .window(self.window)
            .ack_timeout(Some(2 * SECOND))
            .ready_timeout(Some(2 * SECOND))
            .silent_after(2 * SECOND)
            .drain_timeout(4 * SECOND)
            .fence_timeout(SECOND)
            .respawn_delay(SECOND)
            .respawn_delay_max(SECOND)
            .restart_period(SECOND)
            .cooldown(SECOND)
            .cooldown_max(SECOND)
            .max_attempts(2);
        let builder = if self.strict {
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
        };
        match builder.build() {
            Ok(config) => config,
            Err(error) => unreachable!("{error}"),
        }
    }
}
