//! What the keys ask of the primary. Each is carried out on a thread of its own, over a connection
//! of its own, since it may take as long as a worker takes to start.

use std::path::Path;

use roundel_runtime::observe::control::{Connection, Paused, Progress, Reloaded, Request, Scaled};

use crate::client::{PATIENCE, read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Reload,
    More,
    Fewer,
    Pause,
    Resume,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Reload => "reload",
            Order::More | Order::Fewer => "scale",
            Order::Pause => "pause",
            Order::Resume => "resume",
        }
    }

    /// What to ask the operator first, if it takes something away.
    pub(super) fn question(self) -> Option<&'static str> {
        match self {
            Order::Reload => Some("replace all workers?"),
            Order::Fewer => Some("one worker fewer?"),
            Order::Pause => Some("accept and hand out nothing until resumed?"),
            Order::Resume => Some("accept and hand out again?"),
            Order::More => None,
        }
    }

    /// Whether it goes on for some time: the primary carries out one of these after the other.
    pub(super) fn takes_time(self) -> bool {
        matches!(self, Order::Reload | Order::More | Order::Fewer)
    }

    /// Has the primary at `path` do it; returns when it is done, with what came of it.
    ///
    /// # Errors
    /// One line that says why it was not done.
    pub(super) fn carry_out(
        self,
        path: &Path,
        tell: impl FnMut(Progress),
    ) -> Result<String, String> {
        let mut connection = Connection::open(path)?;
        let mut scale = |by, tell| {
            let request = Request::Scale { to: None, by: Some(by) };
            let Scaled { from, to, .. } = read(&connection.ask_and_wait(&request, tell)?)?;
            Ok(format!("{to} workers, {from} before"))
        };
        match self {
            Order::More => scale(1, tell),
            Order::Fewer => scale(-1, tell),
            Order::Reload => {
                let request = Request::Reload { dry_run: false };
                let Reloaded { generation, .. } = read(&connection.ask_and_wait(&request, tell)?)?;
                Ok(format!("generation {generation} serves"))
            }
            Order::Pause | Order::Resume => {
                let request = if self == Order::Pause { Request::Pause } else { Request::Resume };
                let Paused { paused, .. } = read(&connection.ask(&request, PATIENCE)?)?;
                Ok(if paused { "nothing is accepted" } else { "connections are accepted" }.into())
            }
        }
    }
}
