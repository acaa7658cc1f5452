//! The life of a worker as tables: the code follows them, the docs print them.

#[cfg(feature = "inspect")]
use alloc::string::String;
#[cfg(feature = "inspect")]
use core::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::ExitClass;

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Life {
    /// Its process was asked for; it has said nothing yet.
    Starting,
    /// It speaks the protocol.
    Online,
    /// It listens: connections go to it.
    Ready,
    /// The primary told it to leave, or will when it has settled.
    Draining,
    /// It is on its way out by itself, or was killed, or its channel is gone.
    Leaving,
    /// Its process and its channel have ended.
    Dead,
}

impl Life {
    /// As `status` and the event log write it.
    pub const fn name(self) -> &'static str {
        match self {
            Life::Starting => "starting",
            Life::Online => "online",
            Life::Ready => "ready",
            Life::Draining => "draining",
            Life::Leaving => "leaving",
            Life::Dead => "dead",
        }
    }

    /// Whether the worker is expected to serve, now or soon.
    pub(crate) const fn is_staying(self) -> bool {
        matches!(self, Life::Starting | Life::Online | Life::Ready)
    }

    /// Where a step leads, if the table has it.
    pub(crate) fn after(self, step: Step) -> Option<Life> {
        TRANSITIONS.iter().find(|row| row.0 == self && row.1 == step).map(|row| row.2)
    }
}

/// What moves a worker on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// It said `online`.
    Online,
    /// It said `listening` for the first time.
    Listening,
    /// It has said nothing, and may be a program without a channel.
    Assume,
    /// The primary drains it.
    Drain,
    /// It said `suicide` or `exitedAfterDisconnect`, it was killed, or its channel or process
    /// ended.
    Leave,
    /// Both its channel and its process have ended.
    Bury,
}

impl Step {
    #[cfg(feature = "inspect")]
    const fn label(self) -> &'static str {
        match self {
            Step::Online => "online",
            Step::Listening => "first listening",
            Step::Assume => "alive for 1 s, if it may lack a channel",
            Step::Drain => "told to leave",
            Step::Leave => "suicide, voluntary leave, kill, end of channel or process",
            Step::Bury => "channel and process ended",
        }
    }
}

const TRANSITIONS: &[(Life, Step, Life)] = &[
    (Life::Starting, Step::Online, Life::Online),
    (Life::Starting, Step::Assume, Life::Ready),
    (Life::Starting, Step::Drain, Life::Draining),
    (Life::Starting, Step::Leave, Life::Leaving),
    (Life::Online, Step::Listening, Life::Ready),
    (Life::Online, Step::Drain, Life::Draining),
    (Life::Online, Step::Leave, Life::Leaving),
    (Life::Ready, Step::Drain, Life::Draining),
    (Life::Ready, Step::Leave, Life::Leaving),
    (Life::Draining, Step::Leave, Life::Leaving),
    (Life::Leaving, Step::Bury, Life::Dead),
];

/// A part of a worker's state beside its [`Life`], with the moves that it can make.
pub(crate) trait Part: Copy + PartialEq + 'static {
    /// From, by what, to.
    const MOVES: &'static [(Self, &'static str, Self)];

    /// Moves on; the table must have the move.
    fn enter(&mut self, next: Self) {
        let moves = || Self::MOVES.iter();
        debug_assert!(moves().any(|(from, _, to)| from == self && *to == next), "not in the table");
        *self = next;
    }
}

/// The primary's end of a worker's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Channel {
    Open,
    /// Its receiving side was shut down: what the worker wrote before must still be read.
    ReadShut,
    /// It was read to its end.
    Closed,
}

impl Part for Channel {
    const MOVES: &'static [(Self, &'static str, Self)] = &[
        (Channel::Open, "the process ended, or was killed and hangs", Channel::ReadShut),
        (Channel::Open, "end of file", Channel::Closed),
        (Channel::ReadShut, "end of file", Channel::Closed),
    ];
}

/// A worker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Process {
    /// It was asked for.
    Wanted,
    Running,
    Exited,
}

impl Part for Process {
    const MOVES: &'static [(Self, &'static str, Self)] = &[
        (Process::Wanted, "spawned", Process::Running),
        (Process::Running, "reaped", Process::Exited),
        // An embedder may leave out `Spawned`.
        (Process::Wanted, "reaped", Process::Exited),
    ];
}

/// How a worker's end would be classified if it came now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Intent {
    /// Nobody wants it to end: it would be a crash, or clean with code 0.
    Stays,
    /// It said that it leaves, or was told to.
    Leaves,
    /// The primary killed it for this.
    Killed(ExitClass),
}

impl Intent {
    pub(crate) const fn is_killed(self) -> bool {
        matches!(self, Intent::Killed(_))
    }
}

/// The tables as a Mermaid state diagram.
#[cfg(feature = "inspect")]
pub fn life_diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    state worker {\n        [*] --> starting\n");
    for (from, step, to) in TRANSITIONS {
        // Writing to a string can't fail.
        let _ = writeln!(text, "        {from} --> {to}: {}", step.label());
    }
    text.push_str("        dead --> [*]\n");
    part(&mut text, "channel", |channel| match channel {
        Channel::Open => "open",
        Channel::ReadShut => "read_shut",
        Channel::Closed => "closed",
    });
    part(&mut text, "process", |process| match process {
        Process::Wanted => "wanted",
        Process::Running => "running",
        Process::Exited => "exited",
    });
    text.push_str("    }\n");
    text
}

/// A region of the diagram, parallel to the others.
#[cfg(feature = "inspect")]
fn part<P: Part>(text: &mut String, what: &str, name: fn(P) -> &'static str) {
    text.push_str("        --\n");
    for (from, why, to) in P::MOVES {
        let _ = writeln!(text, "        {what}_{} --> {what}_{}: {why}", name(*from), name(*to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Life; 6] =
        [Life::Starting, Life::Online, Life::Ready, Life::Draining, Life::Leaving, Life::Dead];

    #[test]
    fn life_only_goes_forward_and_always_ends() {
        for &(from, step, to) in TRANSITIONS {
            assert!(from < to, "{from} --{step:?}--> {to} goes back");
        }
        for life in ALL {
            let ends = life == Life::Dead
                || life == Life::Leaving
                || life.after(Step::Leave) == Some(Life::Leaving);
            assert!(ends, "{life} can't leave");
        }
    }

    #[test]
    fn workers_can_be_told_to_leave_before_they_leave() {
        for life in ALL {
            assert_eq!(life.is_staying(), life.after(Step::Drain).is_some(), "{life}");
        }
    }

    #[test]
    fn the_table_is_a_function() {
        for (at, row) in TRANSITIONS.iter().enumerate() {
            let twin = TRANSITIONS.iter().skip(at + 1).find(|r| r.0 == row.0 && r.1 == row.1);
            assert!(twin.is_none(), "{row:?} stands twice");
        }
    }

    #[test]
    fn the_diagram_names_every_state() {
        let text = life_diagram();
        for life in ALL {
            assert!(text.contains(life.name()));
        }
    }
}
