//! What a search must have seen at least once, or it proves little.

use std::fmt;

macro_rules! goals {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Something that must happen in some run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each has a text")]
        pub enum Goal {
            $($(#[$doc])* $name,)*
        }

        impl Goal {
            /// All of them.
            pub const ALL: &[Goal] = &[$(Goal::$name,)*];
        }

        impl fmt::Display for Goal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Goal::$name => $text,)*
                })
            }
        }
    };
}

goals! {
    Accepted = "a connection is accepted";
    Redispatched = "a connection is handed to another worker because its worker died";
    RefusedAttempts = "a connection is refused because too many workers died with it";
    RefusedShutdown = "a connection is refused at a shutdown's deadline";
    RefusedOverflow = "a connection is refused because its listener is full";
    LateAck = "an answer is read after the exit of its worker";
    AckOfKilled = "an answer is read after the primary has killed its worker";
    AckOfSuicide = "a failing worker accepts what it has";
    ServedAfterDecline = "a worker gets a connection after it has cooled down";
    OutOfOrder = "a worker answers its second connection first";
    HandoffFailed = "a handoff that can't be sent goes to another worker";
    SuicideReplaced = "a failing worker is replaced while it lives";
    Voluntary = "a worker's end is voluntary";
    AckTimeout = "a worker is killed because it answers nothing";
    NeverReady = "a worker is killed because it does not get ready";
    Overdue = "a worker is killed because it does not leave";
    Violation = "a worker is killed for what it wrote";
    ReadShutEnd = "a channel ends only because its read side was shut down";
    HangingBuried = "a process that hangs in the kernel is let go of";
    OrphanReplaced = "a worker that closed its channel and lives on is replaced";
    RespawnDelayed = "a slot waits before its next worker";
    SpawnFailed = "a process can't be started";
    SpawnStarved = "nothing is to be had to start a process";
    GivenUp = "a slot is given up";
    PendingAlone = "a connection is pending and no worker is there";
    Unknown = "a connection is let go of because its dead worker may have served it";
    LateArrival = "a connection arrives while its listener is being closed";
    ServedInShutdown = "a connection is handed off during a shutdown";
    Reported = "a worker that says nothing is reported";
    Stopped = "a shutdown is over";
    CrashLoop = "the cluster ends because every slot is given up";
    ReloadDone = "a reload is done";
    ReloadFailed = "a reload fails because a new worker ends";
    ReloadLate = "a reload fails because a new worker does not become ready";
    ReloadStopped = "a shutdown ends a reload";
    CannotBind = "the cluster ends because its listener can't be bound";
}

/// A set of goals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goals(u64);

impl Goals {
    /// Adds one.
    pub fn reach(&mut self, goal: Goal) {
        self.0 |= 1 << goal as u64;
    }

    /// Adds all of another set.
    pub fn join(&mut self, other: Goals) {
        self.0 |= other.0;
    }

    /// Whether it is in the set.
    pub fn has(self, goal: Goal) -> bool {
        self.0 & (1 << goal as u64) != 0
    }
}
