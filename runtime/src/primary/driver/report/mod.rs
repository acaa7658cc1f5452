//! Events as lines: JSON for the event log, plain words for the terminal.

mod changes;
mod failures;

use roundel_core::node::Skipped;
use roundel_core::{
    Address, ConnEnd, ConnId, Event, ExitStatus, ListenerId, Slot, SpawnError, WorkerId,
};
use serde_json::{Map, Value, json};

use crate::text;

pub(super) use changes::workers;
pub(crate) use failures::{explain, explain_bind, reload_failure};

/// An event-log line under construction: `{at_ms, event, worker, ...}`.
pub(super) struct Line(Map<String, Value>);

impl Line {
    /// `at_ms` counts from the start of the primary.
    pub(super) fn new(at_ms: u64, event: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("at_ms".into(), at_ms.into());
        fields.insert("event".into(), event.into());
        Line(fields)
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    pub(super) fn worker(self, worker: WorkerId) -> Self {
        self.with("worker", worker.get())
    }

    fn slot(self, slot: Slot) -> Self {
        self.with("slot", slot.0)
    }

    fn conn(self, conn: ConnId) -> Self {
        self.with("conn", conn.get())
    }

    fn listener(self, listener: ListenerId) -> Self {
        self.with("listener", listener.get())
    }

    pub(super) fn finish(self) -> String {
        Value::Object(self.0).to_string()
    }
}

/// A connection was sent to a worker.
pub(super) fn handed_off(at_ms: u64, worker: WorkerId, listener: ListenerId, conn: ConnId) -> Line {
    Line::new(at_ms, "handed_off").worker(worker).listener(listener).conn(conn)
}

/// The end of a connection for the primary.
pub(super) fn released(at_ms: u64, conn: ConnId, end: ConnEnd) -> Line {
    match end {
        ConnEnd::AcceptedBy(worker) => Line::new(at_ms, "accepted").worker(worker).conn(conn),
        ConnEnd::Refused(why) => Line::new(at_ms, "refused").conn(conn).with("reason", why.name()),
    }
}

/// Longer messages of programs are only measured: parsing one of some megabytes takes as long as
/// thousands of connections.
const MAX_USER_JSON: usize = 64 * 1024;

/// A message of a worker's program.
pub(super) fn user_message(at_ms: u64, worker: WorkerId, json: &str, with_handle: bool) -> Line {
    let line = Line::new(at_ms, "user_message").worker(worker).with("handle", with_handle);
    let value = match json.len() {
        0..=MAX_USER_JSON => serde_json::from_str::<Value>(json).ok(),
        _ => None,
    };
    match value {
        Some(value) => line.with("json", value),
        None => line.with("bytes", json.len()),
    }
}

/// A program sends messages that nobody receives.
pub(super) fn unheard(worker: WorkerId, pid: Option<i32>) -> String {
    format!(
        "{} sends messages, which are never answered; they go to the event log, which is off \
         (--events). log4js needs disableClustering: true",
        process(worker, pid)
    )
}

/// The longest address in a line. Socket addresses are shorter; what a worker asks for is not
/// always an address.
const MAX_ADDRESS: usize = 256;

fn shown(address: &impl ToString) -> String {
    text::cut(address.to_string(), MAX_ADDRESS)
}

fn process(worker: WorkerId, pid: Option<i32>) -> String {
    match pid {
        Some(pid) => format!("worker {} (pid {pid})", worker.get()),
        None => format!("worker {}", worker.get()),
    }
}

/// A message of a worker's program that was skipped.
pub(super) fn message_skipped(
    at_ms: u64,
    worker: WorkerId,
    reason: Skipped,
    bytes: u64,
    with_handle: bool,
) -> Line {
    let line = Line::new(at_ms, "message_skipped").worker(worker).with("reason", reason.name());
    line.with("bytes", bytes).with("handle", with_handle)
}

fn status_json(status: ExitStatus) -> Value {
    match status {
        ExitStatus::Code(code) => json!({ "code": code }),
        ExitStatus::Signal(signal) => json!({ "signal": signal }),
    }
}

/// An event of the core as a line.
pub(super) fn event(at_ms: u64, event: &Event, pid: Option<i32>) -> Line {
    let line = Line::new(at_ms, event.name());
    match event {
        Event::Spawned { worker, slot, generation, pid } => {
            line.worker(*worker).slot(*slot).with("generation", *generation).with("pid", *pid)
        }
        Event::SpawnFailed { worker, slot, cause } => {
            let cause = match cause {
                SpawnError::NotFound => "not found".into(),
                SpawnError::NotExecutable(errno) | SpawnError::Other(errno) => explain(errno.0),
                other => format!("{other:?}"),
            };
            line.worker(*worker).slot(*slot).with("cause", cause)
        }
        Event::Online { worker, codec } => {
            line.worker(*worker).with("pid", pid).with("codec", codec.name())
        }
        Event::Ready { worker } | Event::Silent { worker } | Event::NotListening { worker } => {
            line.worker(*worker).with("pid", pid)
        }
        Event::Failing { worker } | Event::Leaving { worker } => {
            line.worker(*worker).with("pid", pid)
        }
        Event::Settling { worker, within } | Event::Draining { worker, within } => {
            line.worker(*worker).with("pid", pid).with("within_ms", within.as_millis() as u64)
        }
        Event::Signalled { worker, signal } => {
            line.worker(*worker).with("pid", pid).with("signal", signal.name())
        }
        Event::Pong { worker, seq } => line.worker(*worker).with("seq", seq.get()),
        Event::Killing { worker, class, violation } => line
            .worker(*worker)
            .with("pid", pid)
            .with("class", class.name())
            .with("reason", violation.as_ref().map(|what| what.name())),
        Event::ChannelClosed { worker, in_flight } => {
            line.worker(*worker).with("in_flight", *in_flight)
        }
        Event::Exited { worker, slot, status, class } => line
            .worker(*worker)
            .slot(*slot)
            .with("pid", pid)
            .with("status", status_json(*status))
            .with("class", class.name()),
        Event::Redispatched { conn, worker, attempts } => {
            line.worker(*worker).conn(*conn).with("attempts", *attempts)
        }
        Event::Declined { conn, worker } => line.worker(*worker).conn(*conn),
        Event::HandoffFailed { conn, worker, errno } => {
            line.worker(*worker).conn(*conn).with("cause", explain(errno.0))
        }
        Event::RespawnDelayed { slot, delay } => {
            line.slot(*slot).with("delay_ms", delay.as_millis() as u64)
        }
        Event::GivenUp { slot, failures } => line.slot(*slot).with("failures", *failures),
        Event::Ended { slot } => line.slot(*slot),
        Event::Bound { listener, sockname } => {
            line.listener(*listener).with("address", shown(sockname))
        }
        Event::BindFailed { address, errno } => {
            line.with("address", shown(address)).with("cause", explain(errno.0))
        }
        Event::Unbound { listener }
        | Event::AcceptPaused { listener }
        | Event::AcceptResumed { listener } => line.listener(*listener),
        Event::BindTooNarrow { worker, address, bind } => {
            line.worker(*worker).with("address", shown(address)).with("bind", shown(bind))
        }
        Event::BindUnused { listener, address } => {
            line.listener(*listener).with("address", shown(address))
        }
        Event::Stopping { deadline: _ } => line,
        Event::Stalled { listener, worker, pending } => {
            line.worker(*worker).listener(*listener).with("pending", *pending)
        }
        other => changes::fields(line, other, pid),
    }
}

/// An event in words, if it is one that an operator wants to see on the terminal.
pub(super) fn words(event: &Event, pid: Option<i32>) -> Option<String> {
    let process = |worker: &WorkerId| process(*worker, pid);
    Some(match event {
        Event::Ready { worker } => format!("{} is ready", process(worker)),
        Event::Silent { worker } => {
            format!("{} has not sent anything on its channel yet", process(worker))
        }
        Event::NotListening { worker } => format!(
            "{} runs but has not asked to listen; if it should serve, run the program itself: \
             launchers such as npm, tsx or nodemon do not pass the channel on",
            process(worker)
        ),
        Event::Failing { worker } => {
            format!("{} is failing; its replacement takes over", process(worker))
        }
        Event::Killing { worker, class, violation } => match violation {
            Some(what) => {
                format!("{} is killed: {} ({what})", process(worker), class.name())
            }
            None => format!("{} is killed: {}", process(worker), class.name()),
        },
        Event::Signalled { worker, signal } => {
            format!("{} gets SIG{}", process(worker), signal.name())
        }
        Event::Exited { worker, status, class, .. } => {
            format!("{} has ended: {} ({status})", process(worker), class.name())
        }
        Event::SpawnFailed { worker, cause: why, .. } => {
            let cause = match why {
                SpawnError::NotFound => "the program does not exist".into(),
                SpawnError::NotExecutable(errno) | SpawnError::Other(errno) => explain(errno.0),
                other => format!("{other:?}"),
            };
            if why.is_want_of_resources() {
                return Some(format!(
                    "worker {} could not be started yet: {cause}; roundel keeps trying",
                    worker.get()
                ));
            }
            format!("worker {} could not be started: {cause}", worker.get())
        }
        Event::RespawnDelayed { slot, delay } => {
            format!("slot {slot}: next worker in {} ms", delay.as_millis())
        }
        Event::GivenUp { slot, failures } => {
            format!("slot {slot} is given up: {failures} failures within the restart period")
        }
        Event::Bound { sockname, .. } => format!("listening on {}", shown(sockname)),
        Event::BindFailed { address, errno } => {
            format!("cannot listen on {}: {}", shown(address), explain_bind(address, errno.0))
        }
        Event::BindTooNarrow { worker, address, bind } => {
            let wanted = match address {
                Address::Any { port } => format!("[::]:{port}"),
                other => shown(other),
            };
            let bind = shown(bind);
            format!(
                "{} asks for {wanted}, which --bind {bind} does not cover (it gets EADDRINUSE); \
                 write --bind {wanted}",
                process(worker)
            )
        }
        Event::BindUnused { address, .. } => {
            format!(
                "no worker has asked for --bind {}: connections to it are not served",
                shown(address)
            )
        }
        Event::Stopping { .. } => "stopping".into(),
        Event::Stalled { listener, worker, .. } => format!(
            "a connection waits at listener {} although worker {} is idle: this is a bug in the \
             primary, please report it",
            listener.get(),
            worker.get()
        ),
        other => return changes::words(other, pid),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn long_messages_are_measured_and_not_read() {
        let worker = WorkerId::from_raw(1).unwrap();
        let short = user_message(5, worker, r#"{"a":1}"#, true).finish();
        let fields = r#""at_ms":5,"event":"user_message","handle":true,"json":{"a":1},"worker":1"#;
        assert_eq!(short, format!("{{{fields}}}"));
        let long = format!("[{}0]", "0,".repeat(4 << 20));
        let begun = Instant::now();
        assert!(serde_json::from_str::<Value>(&long).is_ok());
        let read = begun.elapsed();
        let begun = Instant::now();
        let line = user_message(5, worker, &long, false).finish();
        assert!(begun.elapsed() < read / 10, "{:?} of {read:?}", begun.elapsed());
        let bytes = long.len();
        let fields = format!(r#""at_ms":5,"bytes":{bytes},"event":"user_message","handle":false"#);
        assert_eq!(line, format!(r#"{{{fields},"worker":1}}"#));
    }

    #[test]
    fn long_addresses_are_cut() {
        let address = roundel_core::Address::Unix("/x".repeat(250_000));
        let event = Event::BindFailed { address, errno: roundel_core::Errno::EINVAL };
        assert!(super::event(1, &event, None).finish().len() < 400);
        assert!(words(&event, None).unwrap().len() < 400);
    }
}
