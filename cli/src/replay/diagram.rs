//! A run as a sequence diagram, in Mermaid's language (mermaid.js.org, `sequenceDiagram`).
//!
//! Rows are the messages between the clients, the primary and the workers. The release of an
//! accepted connection and a check of the clock get no row, because they follow from another row.

use std::io::{self, Write};

use roundel_core::journal::Step;
use roundel_core::{
    Attach, ConnEnd, Event, FromWorker, Input, Output, SpawnError, ToWorker, WorkerId,
};
use roundel_runtime::text::errno;

/// Writes the rows of a step.
pub(super) fn show(step: &Step, to: &mut impl Write) -> io::Result<()> {
    let outputs = match step {
        Step::Begun { outputs, .. } => {
            writeln!(to, "sequenceDiagram")?;
            writeln!(to, "    participant C as clients")?;
            writeln!(to, "    participant P as primary")?;
            outputs
        }
        Step::Entry { input, outputs, .. } => {
            if let Some(row) = incoming(input) {
                writeln!(to, "    {row}")?;
            }
            outputs
        }
        _ => return Ok(()),
    };
    for output in outputs {
        if let Output::Spawn { worker, slot, .. } = output {
            let (name, id) = (worker.get(), slot.0);
            writeln!(to, "    participant W{name} as worker {name}, slot {id}")?;
        }
        if let Some(row) = outgoing(output) {
            writeln!(to, "    {row}")?;
        }
    }
    Ok(())
}

/// The row for an input of the primary.
fn incoming(input: &Input) -> Option<String> {
    Some(match input {
        Input::Incoming { conn, listener } => {
            format!("C->>P: connection {} at listener {}", conn.get(), listener.get())
        }
        Input::Message { worker, msg } => return said(*worker, msg),
        Input::Spawned { worker, pid } => format!("Note over W{}: runs as pid {pid}", worker.get()),
        Input::SpawnFailed { worker, cause } => {
            let cause = match cause {
                SpawnError::NotFound => "no such program".into(),
                SpawnError::Other(why) | SpawnError::NotExecutable(why) => errno(*why),
                other => format!("{other:?}"),
            };
            format!("Note over W{}: can't be started: {}", worker.get(), text(&cause))
        }
        Input::Violation { worker, what } => {
            format!("W{}-xP: {}", worker.get(), what.name())
        }
        Input::ChannelClosed { worker } => format!("W{}-xP: end of channel", worker.get()),
        Input::Exited { worker, status } => format!("Note over W{}: exit, {status}", worker.get()),
        Input::Bound { listener, result } => match result {
            Ok(name) => {
                let name = name.to_string();
                format!("Note over P: listener {} is bound to {}", listener.get(), text(&name))
            }
            Err(why) => format!("Note over P: listener {}: {}", listener.get(), errno(*why)),
        },
        Input::Unbound { listener } => {
            format!("Note over P: listener {} is closed", listener.get())
        }
        Input::HandoffFailed { worker, seq, errno: why } => {
            let (to, why) = (worker.get(), errno(*why));
            format!("P-xW{to}: newconn {} could not be sent: {why}", seq.get())
        }
        Input::InDoubt { worker, seq } => {
            format!("W{}-->>P: has received newconn {}, not yet answered", worker.get(), seq.get())
        }
        Input::Connections { worker, open: Some(open) } => {
            format!("Note over W{}: has {open} connections open", worker.get())
        }
        Input::Connections { worker, open: None } => {
            format!("Note over W{}: may have connections open", worker.get())
        }
        Input::Stray { worker } => format!("W{}-->>P: an unexpected answer", worker.get()),
        Input::Command(command) => {
            format!("Note over P: command {}", text(&format!("{command:?}")))
        }
        Input::Wake | Input::Hello { .. } | Input::FrameBegun { .. } | Input::Queue { .. } => {
            return None;
        }
        other => format!("Note over P: {}", text(&format!("{other:?}"))),
    })
}

fn said(worker: WorkerId, msg: &FromWorker) -> Option<String> {
    let from = worker.get();
    Some(match msg {
        FromWorker::Online => format!("W{from}->>P: online"),
        FromWorker::Query { seq, key, .. } => {
            format!("W{from}->>P: queryServer {}: {}", seq.get(), text(&key.address.to_string()))
        }
        FromWorker::Listening { listener } => {
            format!("W{from}->>P: listening at listener {}", listener.get())
        }
        FromWorker::Ack { ack, accepted } => {
            let answer = if *accepted { "accepted" } else { "declined" };
            format!("W{from}-->>P: ack {}, {answer}", ack.get())
        }
        FromWorker::Close { listener } => format!("W{from}->>P: close listener {}", listener.get()),
        FromWorker::Suicide { .. } => format!("W{from}->>P: suicide"),
        FromWorker::ExitedAfterDisconnect { .. } => format!("W{from}->>P: exitedAfterDisconnect"),
        FromWorker::Pong { .. } => format!("W{from}-->>P: pong"),
        FromWorker::Load { open } => format!("W{from}->>P: load, {open} open"),
        FromWorker::Lag { millis } => format!("W{from}->>P: its event loop is {millis} ms late"),
        FromWorker::StopSignal { signal: Some(signal) } => {
            format!("W{from}->>P: it handles SIG{}", signal.name())
        }
        FromWorker::StopSignal { signal: None } => format!("W{from}->>P: it handles no signal"),
        FromWorker::Ready => format!("W{from}->>P: ready"),
        other => format!("W{from}->>P: {}", text(&format!("{other:?}"))),
    })
}

/// The row for an output of the primary.
fn outgoing(output: &Output) -> Option<String> {
    Some(match output {
        Output::Spawn { worker, .. } => format!("P->>W{}: start", worker.get()),
        Output::Kill { worker, signal } => {
            format!("P-xW{}: SIG{}", worker.get(), signal.name())
        }
        Output::ShutdownRead { worker } => {
            format!("Note over P,W{}: the primary ends its reading side", worker.get())
        }
        Output::Send { worker, msg, attach } => return Some(sent(*worker, msg, *attach)),
        Output::Release { conn, end: ConnEnd::Refused(why) } => {
            format!("P-xC: connection {} refused, {}", conn.get(), why.name())
        }
        Output::Event(event) => return happened(event),
        Output::Stopped(verdict) => {
            format!("Note over P: ends, {}", text(&verdict.to_string()))
        }
        // These stay on the primary's host, or follow from an answer.
        _ => return None,
    })
}

fn sent(worker: WorkerId, msg: &ToWorker, attach: Option<Attach>) -> String {
    let to = worker.get();
    match (msg, attach) {
        (ToWorker::NewConn { first_seq, .. }, Some(Attach::Conn(conn))) => {
            format!("P->>W{to}: newconn {}, connection {}", first_seq.get(), conn.get())
        }
        (ToWorker::QueryReply { ack, result: Ok(granted) }, _) => {
            let handle = if granted.shared { " with its handle" } else { "" };
            format!("P-->>W{to}: reply {}: listener {}{handle}", ack.get(), granted.listener.get())
        }
        (ToWorker::QueryReply { ack, result: Err(why) }, _) => {
            format!("P-->>W{to}: reply {}: {}", ack.get(), errno(*why))
        }
        (ToWorker::Ack { .. }, _) => format!("P-->>W{to}: ack"),
        (ToWorker::Disconnect, _) => format!("P->>W{to}: disconnect"),
        (ToWorker::Drain { deadline_ms }, _) => format!("P->>W{to}: drain within {deadline_ms} ms"),
        (ToWorker::Shutdown, _) => format!("P->>W{to}: shutdown"),
        (ToWorker::Ping { .. }, _) => format!("P->>W{to}: ping"),
        (ToWorker::PassListener { listener }, _) => {
            format!("P->>W{to}: server, listener {}", listener.get())
        }
        (other, _) => format!("P->>W{to}: {}", text(&format!("{other:?}"))),
    }
}

/// The row for an event that no other row shows.
fn happened(event: &Event) -> Option<String> {
    Some(match event {
        Event::Ready { worker } => format!("Note over W{}: ready", worker.get()),
        Event::Settling { worker, within } if !within.is_zero() => {
            format!("Note over W{}: settles for {} ms", worker.get(), within.as_millis())
        }
        Event::Redispatched { conn, attempts, .. } => {
            format!(
                "Note over P: connection {} is back in its queue, attempt {attempts}",
                conn.get()
            )
        }
        Event::Killing { worker, class, .. } => {
            format!("Note over P: worker {} is killed, {}", worker.get(), class.name())
        }
        Event::RespawnDelayed { slot, delay } => {
            format!("Note over P: slot {} waits {} ms", slot.0, delay.as_millis())
        }
        Event::GivenUp { slot, .. } => format!("Note over P: slot {} is given up", slot.0),
        Event::AcceptPaused { listener } => {
            format!("Note over C,P: listener {} stops accepting for now", listener.get())
        }
        Event::AcceptResumed { listener } => {
            format!("Note over C,P: listener {} accepts connections", listener.get())
        }
        _ => return None,
    })
}

/// Escapes the text of a message: in a diagram, `;` and `#` have a meaning, and a line end ends the
/// message.
fn text(words: &str) -> String {
    let mut text = String::new();
    for character in words.chars() {
        match character {
            ';' => text.push_str("#59;"),
            '#' => text.push_str("#35;"),
            it if it.is_control() => text.push(' '),
            it => text.push(it),
        }
    }
    text
}
