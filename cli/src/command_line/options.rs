//! What the command line says, as plain data.

use std::time::Duration;

use roundel_core::{
    Address, Codec, Config, ConfigBuilder, ListenKey, Overflow, Policy, Respawn, StopSignal,
};

use roundel_runtime::observe::control::Where;
use roundel_runtime::observe::eventlog::Target;
use roundel_runtime::observe::journal;

/// The options of `run` and `demo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// How many workers to keep; `auto` is already counted out.
    pub(crate) workers: u32,
    /// The operator's listeners, in the order given.
    pub(crate) bind: Vec<Address>,
    /// A listener that is given to every worker as it starts.
    pub(crate) pass_server: Option<Address>,
    /// The scheduling policy.
    pub(crate) policy: Policy,
    /// Connections in flight a worker; `None` leaves it to the codec.
    pub(crate) window: Option<u32>,
    /// Connections pending at one listener.
    pub(crate) max_pending: u32,
    /// What happens beyond `max_pending`.
    pub(crate) overflow: Overflow,
    /// How long a worker may leave connections unanswered; `None` is for ever.
    pub(crate) ack_timeout: Option<Duration>,
    /// How long a worker may take to become ready; `None` is for ever.
    pub(crate) ready_timeout: Option<Duration>,
    /// Whether a worker is ready only once its program has said so.
    pub(crate) wait_ready: bool,
    /// How long a drain may take; never zero.
    pub(crate) drain_timeout: Duration,
    /// How long after its last handoff a leaving worker is told to leave.
    pub(crate) drain_settle: Duration,
    /// How long a leaving worker may live on without connections; `None` is until its deadline.
    pub(crate) linger: Option<Duration>,
    /// What a leaving Node worker gets instead of `disconnect`.
    pub(crate) stop_signal: Option<StopSignal>,
    /// Early failures of a slot within `restart_period` before it is given up.
    pub(crate) restart_intensity: u32,
    /// See `restart_intensity`; never zero.
    pub(crate) restart_period: Duration,
    /// Which exits are followed by a new worker.
    pub(crate) respawn: Respawn,
    /// Where the control socket is.
    pub(crate) control: Where,
    /// Where the event log goes; `None` is nowhere.
    pub(crate) events: Option<Target>,
    /// Where the journal goes; `None` is nowhere.
    pub(crate) journal: Option<journal::Target>,
    /// The codec that workers must speak; `None` lets each worker choose.
    pub(crate) codec: Option<Codec>,
    /// The variable that tells a program the number of its slot; `None` is none.
    pub(crate) instance_var: Option<String>,
}

impl Options {
    /// The configuration of the primary that these options ask for.
    pub(crate) fn config(&self) -> ConfigBuilder {
        let listeners = self.bind.iter().chain(&self.pass_server);
        let config = Config::builder()
            .workers(self.workers)
            .listeners(listeners.cloned().map(ListenKey::stream).collect())
            .pass_listeners(self.pass_server.is_some())
            .wait_ready(self.wait_ready)
            .policy(self.policy)
            .max_pending(self.max_pending)
            .overflow(self.overflow)
            .ack_timeout(self.ack_timeout)
            .ready_timeout(self.ready_timeout)
            .drain_timeout(self.drain_timeout)
            .drain_settle(self.drain_settle)
            .linger(self.linger)
            .stop_signal(self.stop_signal)
            .restart_intensity(self.restart_intensity)
            .restart_period(self.restart_period)
            .respawn(self.respawn);
        match self.window {
            Some(window) => config.window(window).node_window(window),
            None => config,
        }
    }
}
