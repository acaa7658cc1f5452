//! A worker in a simulation: its process, both ends of its channel, and what is wrong with it.

use roundel_core::WorkerChannel;
use roundel_core::{Config, ExitStatus, Slot, WorkerId};
use roundel_runtime::primary::channel_io;

use super::end::Trouble;
use super::omen::Omen;
use super::program::{Channel, Program};
use crate::sim::plan::World;

/// A worker.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: WorkerId,
    pub(crate) slot: Slot,
    pub(crate) generation: u32,
    /// What becomes of it.
    pub(crate) omen: Option<Omen>,
    /// How often it had its turn.
    pub(crate) turns: u32,
    pub(crate) link: WorkerChannel,
    pub(crate) channel: Channel,
    /// What runs in it, once it speaks and as long as it lives.
    pub(crate) program: Option<Program>,
    /// The core was told that it runs.
    pub(crate) started: bool,
    /// The process lives.
    pub(crate) alive: bool,
    /// The core was told that the channel has ended.
    pub(crate) ended: bool,
    /// More can be read than the last turn had room for.
    pub(crate) more: bool,
    /// How it ended, until it is reaped.
    pub(crate) exit: Option<ExitStatus>,
    /// The core was told that the process has ended, or never will be.
    pub(crate) reaped: bool,
    /// Nobody will ever tell the core of its exit.
    pub(crate) exit_lost: bool,
    /// Kills do nothing: it hangs in the kernel.
    pub(crate) hangs: bool,
    /// It was killed while it hung: it never comes back.
    pub(crate) doomed: bool,
    /// A grandchild has the channel, too.
    pub(crate) grandchild: bool,
    /// It reads and answers nothing.
    pub(crate) stalls: bool,
    /// It takes one connection a round.
    pub(crate) slow: bool,
    /// What it sends is not to be believed.
    pub(crate) hostile: bool,
    /// It has no descriptors left.
    pub(crate) starved: bool,
    /// What befalls the next send with handles.
    pub(crate) trouble: Option<Trouble>,
    /// 0: it exits when it is done. 1: only at a signal, 2: at SIGTERM, 3: not by itself.
    pub(crate) stubborn: u8,
    /// How often it asked for a listener that it lacked.
    pub(crate) asked: u32,
}

impl Process {
    pub(crate) fn new(
        id: WorkerId,
        (slot, generation): (Slot, u32),
        config: &Config,
        world: &World,
    ) -> Process {
        Process {
            id,
            slot,
            generation,
            omen: None,
            turns: 0,
            link: channel_io::new(None, config),
            channel: Channel::new(world.down, world.up),
            program: None,
            started: false,
            alive: false,
            ended: false,
            more: false,
            exit: None,
            reaped: false,
            exit_lost: false,
            hangs: false,
            doomed: false,
            grandchild: false,
            stalls: false,
            slow: false,
            hostile: false,
            starved: false,
            trouble: None,
            stubborn: 0,
            asked: 0,
        }
    }

    /// Whether its program can do something now.
    pub(crate) fn acts(&self) -> bool {
        self.alive && !self.stalls && self.program.is_some()
    }

    /// Ends the process. What it has written stays readable.
    pub(crate) fn die(&mut self, status: ExitStatus) {
        if self.alive {
            self.alive = false;
            self.exit = Some(status);
            self.program = None;
            if !self.grandchild {
                self.channel.worker_closes();
            }
        }
    }
}
