//! What an embedder or operator chooses. Valid by construction.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU64;
use core::ops::RangeInclusive;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::MAX_FRAME_DEFAULT;
use crate::{Address, ListenKey};

mod choices;

pub use choices::{Overflow, Policy, Respawn, StopSignal};

/// Turns the table below into fields, setters, getters, defaults, checks and [`limits`].
///
/// After a default, `=> range` bounds a number, and `, nonzero` means that a span must be longer
/// than zero.
macro_rules! config {
    ($($(#[$doc:meta])* $name:ident: $type:ty $(as $borrowed:ty)? = $default:expr
        $(=> $range:expr)? $(, $nonzero:ident)?;)*) => {
        /// A valid configuration. Made by [`Config::builder`]; the defaults are those of the
        /// command line. A deserialized configuration is checked as well.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "ConfigBuilder")]
        pub struct Config {
            $(pub(crate) $name: $type,)*
        }

        /// Collects choices; [`build`](ConfigBuilder::build) checks them together.
        ///
        /// When it is deserialized, a missing field has its default, and an unknown field is an
        /// error if the format has names.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct ConfigBuilder {
            $($name: $type,)*
        }

        impl ConfigBuilder {
            $($(#[$doc])*
            ///
            $(#[doc = concat!("Within `", stringify!($range), "`.")])?
            $(#[doc = concat!("Must be ", stringify!($nonzero), ".")])?
            #[doc = concat!("Default `", stringify!($default), "`.")]
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            })*

            /// The choices, each within its own bounds.
            fn checked(self) -> Result<Config, ConfigError> {
                $($(within(stringify!($name), self.$name, $range)?;)?
                $($nonzero(stringify!($name), self.$name)?;)?)*
                Ok(Config { $($name: self.$name,)* })
            }
        }

        impl Default for Config {
            /// One worker, no listener.
            fn default() -> Self {
                Config { $($name: $default,)* }
            }
        }

        impl From<Config> for ConfigBuilder {
            /// Begins with the choices of a configuration; they are checked again.
            fn from(config: Config) -> Self {
                ConfigBuilder { $($name: config.$name,)* }
            }
        }

        impl Config {
            $(getter! {
                $(#[$doc])*
                ///
                $(#[doc = concat!("Within `", stringify!($range), "`.")])?
                $(#[doc = concat!("Must be ", stringify!($nonzero), ".")])?
                #[doc = concat!("Default `", stringify!($default), "`.")]
                $name: $type $(as $borrowed)?
            })*
        }

        /// The bounds of the numbers of a [`Config`]: one function for each number that has bounds.
        pub mod limits {
            use core::ops::RangeInclusive;

            $($(
            #[doc = concat!("`", stringify!($range), "`, of")]
            #[doc = concat!("[this field](crate::Config::", stringify!($name), ").")]
            pub const fn $name() -> RangeInclusive<$type> {
                $range
            })?)*
        }
    };
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident: $type:ty) => {
        $(#[$doc])*
        pub const fn $name(&self) -> $type {
            self.$name
        }
    };
    ($(#[$doc:meta])* $name:ident: $type:ty as $borrowed:ty) => {
        $(#[$doc])*
        pub fn $name(&self) -> $borrowed {
            &self.$name
        }
    };
}

config! {
    /// How many workers to keep.
    workers: u32 = 1 => 1..=10_000;
    /// Listeners that the operator gives, bound before the first worker starts.
    listeners: Vec<ListenKey> as &[ListenKey] = Vec::new();
    /// The scheduling policy for streams; datagram sockets are always shared.
    policy: Policy = Policy::RoundRobin;
    /// Connections in flight at one native worker.
    window: u32 = 1 => 1..=1_024;
    /// Connections in flight at one Node worker.
    node_window: u32 = 4 => 1..=1_024;
    /// Connections pending at one listener before [`Overflow`] applies; one accept batch may go
    /// past it.
    max_pending: u32 = 1_024 => 1..=1 << 24;
    /// How many there may be of connections (pending and in flight) and of listeners that workers
    /// asked for, together, before accepting stops everywhere; one connection may always be held.
    /// Adapters derive it from the limit on open files.
    max_held: u32 = 16_777_216 => 1..=u32::MAX;
    /// What to do at `max_pending`.
    overflow: Overflow = Overflow::Wait;
    /// How long a worker may have something in flight and answer nothing, before it is killed.
    /// `None` means for ever.
    ack_timeout: Option<Duration> = Some(Duration::from_secs(60)), nonzero;
    /// How long after a granted query a worker may take to become ready, before it is killed.
    /// `None` means for ever.
    ready_timeout: Option<Duration> = Some(Duration::from_secs(30)), nonzero;
    /// How long a drain, and so the shutdown, may take.
    drain_timeout: Duration = Duration::from_secs(30), nonzero;
    /// How long after its last handoff a worker that must leave is told to; at most a quarter of
    /// `drain_timeout`. Zero means at once.
    drain_settle: Duration = Duration::from_secs(1);
    /// How long a leaving worker that had connections may live on without any before it gets
    /// SIGTERM. `None` means until its deadline is near.
    linger: Option<Duration> = Some(Duration::from_secs(2)), nonzero;
    /// What a Node worker that must leave gets instead of `disconnect`.
    stop_signal: Option<StopSignal> = None;
    /// How long a worker may send nothing at all before that is reported, once.
    silent_after: Duration = Duration::from_secs(30), nonzero;
    /// How many early failures a slot may have within `restart_period` and still be respawned.
    restart_intensity: u32 = 5;
    /// See `restart_intensity`.
    restart_period: Duration = Duration::from_secs(10), nonzero;
    /// The delay before a slot's first respawn after an early failure; doubles each time.
    respawn_delay: Duration = Duration::from_millis(100), nonzero;
    /// Where that delay stops growing.
    respawn_delay_max: Duration = Duration::from_secs(5);
    /// Which exits are followed by a respawn.
    respawn: Respawn = Respawn::Always;
    /// How long a worker that declined gets nothing from that listener; doubles with each decline
    /// in a row.
    cooldown: Duration = Duration::from_millis(5), nonzero;
    /// Where that time stops growing.
    cooldown_max: Duration = Duration::from_millis(250);
    /// At how many dead workers a connection may have been in flight before it is refused.
    max_attempts: u8 = 5 => 1..=u8::MAX;
    /// How many acks that answer nothing a worker may send between two valid ones.
    max_stray_acks: u32 = 1_000;
    /// How many listeners one worker may hold, and how many there may be because of one slot's
    /// workers, former ones included.
    max_listeners_per_worker: u32 = 64 => 1..=1_024;
    /// Listeners in all.
    max_listeners: u32 = 1_024 => 1..=1_024;
    /// How long a listener that workers asked for outlives its last holder.
    unheld_timeout: Duration = Duration::from_secs(1), nonzero;
    /// The longest frame of the native codec in bytes.
    max_frame: u32 = MAX_FRAME_DEFAULT => 1_024..=1 << 24;
    /// The longest line of the Node codec in bytes. A longer line of a program's own is skipped; a
    /// longer line of the cluster's is a violation.
    max_line: u32 = 8 << 20 => 1_024..=1 << 26;
    /// Whether a worker is ready only once its program has also said so: [`FromWorker::Ready`].
    ///
    /// [`FromWorker::Ready`]: crate::FromWorker::Ready
    wait_ready: bool = false;
    /// Whether every worker is a Node program without cluster that is given the operator's
    /// listeners as it starts, and accepts for itself.
    pass_listeners: bool = false;
    /// Whether workers may be programs that know no channel: they are also passed the operator's
    /// listeners as a service manager does it (sd_listen_fds(3)). One that has said nothing for a
    /// second counts as ready, and may close its channel.
    listen_fds: bool = false;
    /// How long a begun frame of the native codec may take to complete. Lines of Node may take any
    /// time: a busy program writes nothing meanwhile.
    frame_timeout: Duration = Duration::from_secs(10), nonzero;
    /// How long after SIGKILL the read side of a worker's channel is shut down.
    shutdown_read_timeout: Duration = Duration::from_secs(1), nonzero;
    /// How many slots one step of a reload replaces together. 10,000 means all of them.
    reload_batch: u32 = 1 => 1..=10_000;
    /// How many workers a reload leaves ready, if as many were when a batch began. `None` means all
    /// that were. With less than the wanted number, a batch ends so many of its old workers before
    /// it starts the new ones, for programs that can't run twice.
    min_ready: Option<u32> = None;
    /// How long a new worker of a reload must stay as ready as its predecessor before it counts.
    ready_hold: Duration = Duration::from_secs(1);
    /// How many generations may have living workers. If a reload makes more, the workers of the
    /// oldest one are ended.
    max_generations: u32 = 4 => 2..=1_000;
    /// How long a shutdown goes on serving as before: load balancers notice it meanwhile.
    shutdown_delay: Duration = Duration::ZERO;
    /// How often a native worker is asked for a sign of life; it is killed when two are missing.
    /// `None` means never.
    heartbeat: Option<Duration> = None, nonzero;
    /// After how many connections a worker is replaced. `None` means never.
    max_requests: Option<NonZeroU64> = None;
    /// Up to how many connections more that may be: each worker gets its own number.
    max_requests_jitter: u64 = 0;
    /// How long after it became ready a worker is replaced. `None` means never.
    max_age: Option<Duration> = None, nonzero;
    /// Beyond how many bytes of memory, seen twice in a row, a worker is replaced. `None` means
    /// never.
    max_memory: Option<NonZeroU64> = None;
    /// How long after a slot was given up it is tried again; doubles each time. `None` means never.
    retry_delay: Option<Duration> = Some(Duration::from_secs(60)), nonzero;
    /// Where that delay stops growing.
    retry_delay_max: Duration = Duration::from_secs(600);
}

/// Messages that an adapter reads from one worker before it turns to the next one.
pub const MESSAGES_PER_TURN: u32 = 64;
/// Bytes that an adapter reads from one worker before it turns to the next one.
pub const BYTES_PER_TURN: usize = 256 * 1024;
/// Reads that an adapter makes from one worker before it turns to the next one: a worker that
/// writes byte by byte must not hold the others up either.
pub const READS_PER_TURN: u32 = 64;
/// Connections that an adapter accepts from one listener before it turns to the next one.
pub const ACCEPTS_PER_TURN: u32 = 64;

/// How long a connection may wait, pending or in the kernel's queue, while a worker that could take
/// it has nothing in flight, before an [event](crate::Event::Stalled) reports it. That happens only
/// if there is a fault in a driver or in this crate.
///
/// A driver looks at its listeners at this interval while connections come, and once a second
/// otherwise, and reports [`Input::Queue`](crate::Input::Queue).
pub const STALLED_AFTER: Duration = Duration::from_millis(250);

impl ConfigBuilder {
    /// Checks the choices.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is outside its bounds.
    pub fn build(self) -> Result<Config, ConfigError> {
        let config = self.checked()?;
        let most = u64::from(config.max_listeners);
        within("listeners", config.listeners.len() as u64, 0..=most)?;
        if config.cooldown_max < config.cooldown {
            return Err(ConfigError::Order { low: "cooldown", high: "cooldown_max" });
        }
        if config.respawn_delay_max < config.respawn_delay {
            return Err(ConfigError::Order { low: "respawn_delay", high: "respawn_delay_max" });
        }
        if config.retry_delay.is_some_and(|delay| config.retry_delay_max < delay) {
            return Err(ConfigError::Order { low: "retry_delay", high: "retry_delay_max" });
        }
        let uncounted = config.policy.workers_accept() || config.pass_listeners;
        if config.max_requests.is_some() && uncounted {
            return Err(ConfigError::Uncounted { field: "max_requests" });
        }
        for (nth, key) in config.listeners.iter().enumerate() {
            if matches!(key.address, Address::Nth(_)) {
                return Err(ConfigError::NthListener { nth });
            }
            let before = config.listeners.iter().take(nth);
            if let Some(other) = before.rev().find(|other| overlap(other, key)) {
                let [wide, narrow] = if covers(key, other) { [key, other] } else { [other, key] };
                let (wide, narrow) = (wide.address.clone(), narrow.address.clone());
                return Err(ConfigError::Overlap(Box::new(Overlap { wide, narrow })));
            }
        }
        Ok(config)
    }
}

impl Config {
    /// Begins with the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }
}

impl Default for ConfigBuilder {
    fn default() -> Self {
        Config::default().into()
    }
}

impl TryFrom<ConfigBuilder> for Config {
    type Error = ConfigError;

    fn try_from(choices: ConfigBuilder) -> Result<Self, ConfigError> {
        choices.build()
    }
}

fn within<N>(field: &'static str, value: N, range: RangeInclusive<N>) -> Result<(), ConfigError>
where
    N: Copy + PartialOrd + Into<u64>,
{
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = (*range.start(), *range.end());
    Err(ConfigError::OutOfBounds { field, value: value.into(), min: min.into(), max: max.into() })
}

/// `None` means for ever.
fn nonzero(field: &'static str, span: impl Into<Option<Duration>>) -> Result<(), ConfigError> {
    match span.into() {
        Some(Duration::ZERO) => Err(ConfigError::Zero { field }),
        _ => Ok(()),
    }
}

/// Whether the kernel would refuse one of two listeners because of the other.
fn overlap(one: &ListenKey, other: &ListenKey) -> bool {
    let alike = one.transport == other.transport && one.address.port() != Some(0);
    alike && one.address.collides(one.v6_only, &other.address, other.v6_only)
}

fn covers(wide: &ListenKey, narrow: &ListenKey) -> bool {
    wide.address.covers(wide.v6_only, &narrow.address, narrow.v6_only)
}

/// Two listeners of the operator that can't both be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overlap {
    /// The listener that also receives what the other one would.
    pub wide: Address,
    /// The other listener; the same address if it was given twice.
    pub narrow: Address,
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is not between its bounds.
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// What it was.
        value: u64,
        /// The smallest allowed value.
        min: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// A time span is zero where that makes no sense.
    Zero {
        /// The field.
        field: &'static str,
    },
    /// The choice needs connections that the primary counts, and workers accept by themselves.
    Uncounted {
        /// The field.
        field: &'static str,
    },
    /// A start value is larger than the value it grows to.
    Order {
        /// The start value's field.
        low: &'static str,
        /// The end value's field.
        high: &'static str,
    },
    /// An operator's listener names another operator's listener instead of an address.
    NthListener {
        /// Which one, counted from 0.
        nth: usize,
    },
    /// One of two operator's listeners takes the other's address as well.
    Overlap(Box<Overlap>),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::OutOfBounds { field, value, min, max } => {
                write!(f, "{field} is {value}, which is not between {min} and {max}")
            }
            ConfigError::Zero { field } => write!(f, "{field} must be greater than zero"),
            ConfigError::Uncounted { field } => {
                write!(f, "{field} counts connections, but the workers accept them by themselves")
            }
            ConfigError::Order { low, high } => write!(f, "{high} must not be less than {low}"),
            ConfigError::NthListener { nth } => {
                write!(f, "listener {nth} names another listener instead of an address")
            }
            ConfigError::Overlap(it) if it.wide == it.narrow => {
                write!(f, "listener {} is given twice", it.wide)
            }
            ConfigError::Overlap(it) => {
                write!(f, "listener {} already includes {}: give {0} alone", it.wide, it.narrow)
            }
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
