//! The life of a worker as a table: the code follows it, the docs print it.

#[cfg(feature = "inspect")]
use alloc::string::String;
use core::fmt;
#[cfg(feature = "inspect")]
use core::fmt::Write;

use serde::{Deserialize, Serialize};

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

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What moves a worker on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// It said `online`.
    Online,
    /// It said `listening` for the first time.
    Listening,
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
            Step::Drain => "it is to leave",
            Step::Leave => "suicide, voluntary leave, kill, end of channel or process",
            Step::Bury => "channel and process ended",
        }
    }
}

const TRANSITIONS: &[(Life, Step, Life)] = &[
    (Life::Starting, Step::Online, Life::Online),
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

/// The table as a Mermaid state diagram.
#[cfg(feature = "inspect")]
pub fn life_diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> starting\n");
    for (from, step, to) in TRANSITIONS {
        // Writing to a string can't fail.
        let _ = writeln!(text, "    {from} --> {to}: {}", step.label());
    }
    text.push_str("    dead --> [*]\n");
    text
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
    fn who_stays_can_still_be_told_to_leave() {
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
