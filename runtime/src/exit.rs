//! How the programs end.

use std::process::ExitCode;

/// The exit codes, a contract with the supervisor of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Stopped as asked, also when workers had to be killed. For other commands: done.
    Stopped = 0,
    /// Something failed at run time.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Every slot was given up: the workers keep failing before they are ready.
    CrashLoop = 3,
    /// A listener could not be bound.
    CannotBind = 4,
    /// The program to run can't be executed; 126 as in the shells.
    NotExecutable = 126,
    /// The program to run does not exist; 127 as in the shells.
    ProgramMissing = 127,
}

impl Exit {
    /// The number that the parent process sees.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_contract() {
        let all = [
            Exit::Stopped,
            Exit::Failure,
            Exit::Usage,
            Exit::CrashLoop,
            Exit::CannotBind,
            Exit::NotExecutable,
            Exit::ProgramMissing,
        ];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 126, 127]);
    }
}
