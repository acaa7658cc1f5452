//! What an adapter watches for the driver.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use roundel_core::{ListenerId, WorkerId};

use crate::observe::output::Stream;

/// Something with a descriptor that can become ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The signals of the primary.
    Signals,
    /// A client of the control socket.
    Control,
    /// A client of the control socket.
    ControlClient(u32),
    /// A helper thread has an answer.
    Helpers,
    /// A listener.
    Listener(ListenerId),
    /// A worker's channel.
    Channel(WorkerId),
    /// What a worker prints.
    Output(WorkerId, Stream),
    /// A client of the metrics. In the order of sources it comes before new clients, which may
    /// take its place.
    MetricsClient(u32),
    /// New clients of the metrics.
    Metrics,
}

impl Source {
    /// The number of this source, which an adapter can use as a token of mio.
    pub fn to_token(self) -> u64 {
        match self {
            Source::Signals => 0,
            Source::Control => 1,
            Source::Helpers => 5,
            Source::ControlClient(client) => (u64::from(client) << 3) | 2,
            Source::Listener(id) => (id.get() << 3) | 3,
            Source::Channel(id) => (id.get() << 3) | 4,
            Source::Output(id, Stream::Stdout) => (id.get() << 4) | 6,
            Source::Output(id, Stream::Stderr) => (id.get() << 4) | 8 | 6,
            Source::Metrics => 7,
            Source::MetricsClient(client) => ((u64::from(client) + 1) << 3) | 7,
        }
    }

    /// The source with such a number.
    pub fn from_token(token: u64) -> Option<Source> {
        let rest = token >> 3;
        match token & 7 {
            0 => Some(Source::Signals),
            1 => Some(Source::Control),
            5 => Some(Source::Helpers),
            2 => u32::try_from(rest).ok().map(Source::ControlClient),
            3 => ListenerId::from_raw(rest).map(Source::Listener),
            4 => WorkerId::from_raw(rest).map(Source::Channel),
            6 => {
                let stream = if rest & 1 == 0 { Stream::Stdout } else { Stream::Stderr };
                WorkerId::from_raw(rest >> 1).map(|id| Source::Output(id, stream))
            }
            7 if rest == 0 => Some(Source::Metrics),
            7 => u32::try_from(rest - 1).ok().map(Source::MetricsClient),
            _ => None,
        }
    }
}

/// A change in what an adapter has to watch.
#[derive(Clone, Debug)]
pub enum Change {
    /// Watch a descriptor for readiness to read and, if `writable`, to write.
    ///
    /// It is shared, so that it is closed only when both sides have dropped it: a listener that a
    /// worker holds too would otherwise stay in an epoll set after its close (epoll(7)).
    Watch {
        /// The source that the descriptor belongs to.
        source: Source,
        /// The descriptor.
        fd: Arc<OwnedFd>,
        /// Whether readiness to write matters too.
        writable: bool,
    },
    /// Watch the same descriptor for another kind of readiness. Ask for readiness to write only
    /// while something waits for it: otherwise each read at the other end would wake the primary.
    Rewatch {
        /// The source that the descriptor belongs to.
        source: Source,
        /// Whether readiness to write matters too.
        writable: bool,
    },
    /// Stop watching it, and drop the descriptor.
    Unwatch {
        /// The source that the descriptor belongs to.
        source: Source,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_there_and_back() {
        let worker = WorkerId::from_raw(7).unwrap();
        let listener = ListenerId::from_raw(1).unwrap();
        for source in [
            Source::Signals,
            Source::Control,
            Source::Helpers,
            Source::ControlClient(63),
            Source::Listener(listener),
            Source::Channel(worker),
            Source::Output(worker, Stream::Stdout),
            Source::Output(worker, Stream::Stderr),
            Source::Metrics,
            Source::MetricsClient(0),
            Source::MetricsClient(u32::MAX),
        ] {
            assert_eq!(Source::from_token(source.to_token()), Some(source));
        }
    }
}
