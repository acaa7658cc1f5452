//! Why something failed, in words.

use nix::errno::Errno;
use roundel_core::{Address, ReloadFailure, SpawnError};

use super::shown;
use crate::text;
use crate::unix::socket::OUTPUT;

/// Why a listener can't be bound, in words.
pub(crate) fn explain_bind(address: &Address, errno: i32) -> String {
    let expected = "fd:N must be a listening stream socket that roundel inherits";
    match (address, Errno::from_raw(errno)) {
        (Address::Fd(number), Errno::EBADF) if OUTPUT.contains(number) => {
            "descriptors 1 and 2 are for output".into()
        }
        (Address::Fd(number), Errno::EBADF) => {
            format!("no socket was inherited as descriptor {number}; {expected}")
        }
        (Address::Fd(number), Errno::EINVAL) => {
            format!("descriptor {number} is not a listening stream socket; {expected}")
        }
        _ => explain(errno),
    }
}

/// An error number in words, as strerror(3) has them.
pub(crate) fn explain(errno: i32) -> String {
    Errno::from_raw(errno).desc().to_string()
}

/// Why a reload failed. The core has only the numbers of errors.
pub(crate) fn reload_failure(failure: &ReloadFailure) -> String {
    match failure {
        ReloadFailure::CannotBind { address, errno } => {
            let why = explain_bind(address, errno.0);
            format!("cannot bind {}: {why} ({})", shown(address), errno.0)
        }
        ReloadFailure::NotStarted {
            slot,
            cause: cause @ (SpawnError::NotExecutable(errno) | SpawnError::Other(errno)),
        } => {
            let what = match cause {
                SpawnError::NotExecutable(_) => "the program cannot be executed: ",
                _ => "",
            };
            let why = text::errno(*errno);
            format!("the new worker of slot {slot} could not be started: {what}{why}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use roundel_core::Slot;

    use super::*;

    #[test]
    fn errors_are_not_only_numbers() {
        let address: Address = "127.0.0.1:80".parse().unwrap();
        let errno = roundel_core::Errno::EADDRINUSE;
        assert_eq!(
            reload_failure(&ReloadFailure::CannotBind { address, errno }),
            "cannot bind 127.0.0.1:80: Address already in use (98)"
        );
        let cause = SpawnError::NotExecutable(roundel_core::Errno(13));
        assert_eq!(
            reload_failure(&ReloadFailure::NotStarted { slot: Slot(2), cause }),
            "the new worker of slot 2 could not be started: the program cannot be executed: \
             Permission denied (13)"
        );
        assert_eq!(reload_failure(&ReloadFailure::Stopped), "the primary is stopping");
    }
}
