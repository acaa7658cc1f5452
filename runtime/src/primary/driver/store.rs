//! Listeners that the service manager keeps while there is no primary: the descriptor store of
//! sd_pid_notify_with_fds(3).
//!
//! If the primary is killed, its listeners stay open there, and clients wait in them. The next
//! primary gets them as it gets other sockets, and finds each one by its name.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use roundel_core::{Address, ListenKey, ListenerId, ListenerStatus};

use super::PrimaryDriver;
use crate::unix::passed::{self, Passed};
use crate::unix::process::PassedOn;
use crate::unix::socket::{self, Bound, Inherited};

/// What the names of stored listeners begin with, so that others in the store are left alone.
const PREFIX: &str = "roundel-";

/// What was passed to this process, and in it listeners of a former primary, by their names, until
/// they are used.
#[derive(Debug)]
pub(super) struct Stored {
    passed: Passed,
    unused: BTreeMap<String, VecDeque<RawFd>>,
}

impl Stored {
    pub(super) fn of(passed: Passed) -> Stored {
        let mut unused: BTreeMap<String, VecDeque<RawFd>> = BTreeMap::new();
        for (name, number) in passed.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            unused.entry(name.to_owned()).or_default().push_back(number);
        }
        Stored { passed, unused }
    }

    /// The name under which a program is passed the listener of this address.
    fn name_for_programs(&self, address: &Address) -> String {
        let passed = match address {
            Address::Fd(number) => self.passed.name_of(*number).map(str::to_owned),
            _ => None,
        };
        passed.unwrap_or_else(|| plain(&address.to_string()))
    }

    /// The listener for this key, if one is stored.
    fn take(
        &mut self,
        key: &ListenKey,
        inherited: &mut Inherited,
    ) -> Option<Result<(OwnedFd, Bound), String>> {
        let name = name_of(&key.address)?;
        let number = self.unused.get_mut(&name)?.pop_front()?;
        Some(socket::reuse(number, key, inherited).ok_or(name))
    }
}

/// The name under which a listener is stored: its address, in characters that a name may have.
/// `None` for one that the service manager has anyway, or whose name would be too long.
fn name_of(address: &Address) -> Option<String> {
    if matches!(address, Address::Fd(_) | Address::Nth(_)) {
        return None;
    }
    let mut name = PREFIX.to_owned();
    name.push_str(&plain(&address.to_string()));
    (name.len() <= passed::MAX_NAME).then_some(name)
}

/// A text in characters that a name may have, and different for different texts.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for byte in text.bytes() {
        match byte {
            // Not allowed, and in every address with a port.
            b':' => plain.push('_'),
            b'_' | b'%' | ..=b' ' | 0x7f.. => {
                // A String takes all that is written.
                let _ = write!(plain, "%{byte:02X}");
            }
            _ => plain.push(char::from(byte)),
        }
    }
    plain
}

impl PrimaryDriver {
    /// Takes the operator's listener from the store, if it is there.
    pub(super) fn take_stored(&mut self, key: &ListenKey) -> Option<(OwnedFd, Bound)> {
        match self.stored.take(key, &mut self.inherited)? {
            Ok(found) => Some(found),
            Err(name) => {
                // It is of no use, and a new one gets the name.
                self.unstore(&name);
                None
            }
        }
    }

    /// Has the service manager keep an operator's listener.
    pub(super) fn store(&mut self, key: &ListenKey, fd: &Arc<OwnedFd>) {
        if let (Some(manager), Some(name)) = (&mut self.manager, name_of(&key.address)) {
            manager.say(format!("FDSTORE=1\nFDNAME={name}"), Some(fd));
        }
    }

    /// A listener is closed. While the primary stops, the service manager keeps what can wait for
    /// the next primary, and closes it itself if there is none; but the path of a unix socket is
    /// removed, and no client would find it any more.
    pub(super) fn unstore_closed(&mut self, listener: ListenerId) {
        let key = self.core.listeners().find(|it| it.id == listener).map(|it| it.key.clone());
        let Some(key) = key.filter(|key| self.core.config().listeners().contains(key)) else {
            return;
        };
        let is_path = matches!(&key.address, Address::Unix(path) if !path.starts_with('\0'));
        if let Some(name) = name_of(&key.address)
            && (is_path || self.core.stop_deadline().is_none())
        {
            self.unstore(&name);
        }
    }

    /// The operator's listeners, for programs that have no channel.
    pub(super) fn passed_on(&self) -> PassedOn {
        if !self.core.config().listen_fds() {
            return PassedOn::default();
        }
        let operators = |it: &ListenerStatus<'_>| self.core.config().listeners().contains(it.key);
        let found = self.core.listeners().filter(operators).filter_map(|it| {
            let name = self.stored.name_for_programs(&it.key.address);
            Some((self.sockets.get(&it.id)?.shared(), name))
        });
        let (listeners, names): (Vec<_>, Vec<_>) = found.unzip();
        PassedOn { listeners, names: names.join(":") }
    }

    /// Closes stored listeners that no address of this primary's asks for.
    pub(super) fn drop_stored(&mut self) {
        for (name, numbers) in std::mem::take(&mut self.stored.unused) {
            if numbers.is_empty() {
                continue;
            }
            for number in numbers {
                drop(self.inherited.take(number));
            }
            self.unstore(&name);
        }
    }

    fn unstore(&mut self, name: &str) {
        if let Some(manager) = &mut self.manager {
            manager.say(format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_allowed_and_different() {
        for (address, name) in [
            ("127.0.0.1:8080", "roundel-127.0.0.1_8080"),
            ("[::1]:80", "roundel-[__1]_80"),
            ("[fe80::1%2]:80", "roundel-[fe80__1%252]_80"),
            ("*:80", "roundel-*_80"),
            ("unix:/run/a_b:c", "roundel-unix_/run/a%5Fb_c"),
            ("unix:/run/a b\n", "roundel-unix_/run/a%20b%0A"),
            ("unix:/run/\u{e4}", "roundel-unix_/run/%C3%A4"),
        ] {
            let found = name_of(&address.parse().unwrap());
            assert_eq!(found.as_deref(), Some(name));
            assert!(passed::is_name(name));
        }
        assert_eq!(name_of(&Address::Fd(3)), None);
        // Three characters for each byte would be too many.
        assert_eq!(name_of(&Address::Unix("\u{1}".repeat(107))), None);
    }
}
