//! What a reload changes in the operator's listeners: what the files of unix sockets get, and what
//! can't be listened on because of a listener that is there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::errno::Errno;
use roundel_core::{Address, Config, Event, ListenKey, SockName};

use super::{PrimaryDriver, report};
use crate::unix::unix_path::{BoundPath, FileOptions};

/// The options of files by the paths of their sockets.
type Files = BTreeMap<String, FileOptions>;

/// What the files of the operator's unix sockets get.
#[derive(Debug)]
pub(super) struct SocketFiles {
    /// By the configuration that holds.
    files: Files,
    /// By those of reloads that are not over, by their generations.
    coming: BTreeMap<u32, Files>,
}

impl SocketFiles {
    pub(super) fn new(files: Files) -> SocketFiles {
        SocketFiles { files, coming: BTreeMap::new() }
    }

    /// What the file of a new listener gets. Only the reload that is under way binds; it is the
    /// earliest that is not over.
    pub(super) fn of(&self, address: &Address) -> FileOptions {
        let Address::Unix(path) = address else { return FileOptions::default() };
        let coming = self.coming.values().next().and_then(|files| files.get(path));
        coming.or_else(|| self.files.get(path)).copied().unwrap_or_default()
    }

    pub(super) fn expect(&mut self, generation: u32, files: Files) {
        self.coming.insert(generation, files);
    }

    /// The options of files that change, with those of before.
    fn changes(&self, new: &Files) -> Vec<(String, FileOptions, FileOptions)> {
        let change = |(path, new): (&String, &FileOptions)| {
            let old = self.files.get(path).filter(|old| *old != new)?;
            Some((path.clone(), *old, *new))
        };
        new.iter().filter_map(change).collect()
    }
}

impl PrimaryDriver {
    /// What a reload changes in the files of sockets that are there, one line each.
    ///
    /// # Errors
    /// What it can't change: a whole line.
    pub(super) fn file_changes(&self, new: &Files) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for (path, old, new) in self.socket_files.changes(new) {
            let Some(bound) = self.path_of(&path) else { continue };
            let address = Address::Unix(path);
            if let Some(option) = new.dropped(&old) {
                return Err(format!(
                    "{address}: {option} can't be left out while the primary runs: write the one \
                     that the file should have"
                ));
            }
            match new.may_set(&old, bound) {
                Ok(()) => lines.push(format!("change mode, owner or group of {address}")),
                Err(error @ Errno::EPERM) => {
                    let why = report::explain(error as i32);
                    return Err(format!("{address}: mode, owner, group: no change: {why}"));
                }
                // The file there is not ours any more.
                Err(_) => {}
            }
        }
        Ok(lines)
    }

    fn path_of(&self, path: &str) -> Option<&BoundPath> {
        let listens = |bound: &&BoundPath| bound.path().as_os_str() == path;
        self.sockets.values().filter_map(|socket| socket.path()).find(listens)
    }

    /// Changes the files of sockets once workers of a new configuration serve, and forgets what a
    /// reload wanted that is over.
    pub(super) fn note_for_files(&mut self, event: &Event) {
        let files = match event {
            Event::ReloadProgress { generation, .. } | Event::ReloadDone { generation } => {
                self.socket_files.coming.remove(generation)
            }
            Event::ReloadFailed { generation, .. } => {
                self.socket_files.coming.remove(generation);
                None
            }
            _ => None,
        };
        let Some(files) = files else { return };
        for (path, _, new) in self.socket_files.changes(&files) {
            match self.path_of(&path).map(|bound| new.set(bound)) {
                // The file there is not ours any more.
                None | Some(Ok(()) | Err(Errno::EADDRINUSE | Errno::ENOENT)) => {}
                Some(Err(error)) => {
                    let (address, why) = (Address::Unix(path), report::explain(error as i32));
                    self.say(&format!("{address}: mode, owner, group: no change: {why}"));
                }
            }
        }
        self.socket_files.files.extend(files);
    }

    /// Why a new listener can't be bound: the first one that has one of our own in its way. The old
    /// listeners stay open until the new ones are.
    pub(super) fn own_obstacle(&self, new: &Config) -> Option<String> {
        let old = self.core.config().listeners();
        new.listeners().iter().filter(|key| !old.contains(key)).find_map(|key| {
            let mut own = self.core.listeners().filter(|it| it.key != key);
            let obstacle = own.find(|it| meet(key, it.key, it.sockname))?;
            Some(format!(
                "cannot listen on {}: the primary's own listener {} is in its way; such a change \
                 needs a restart",
                key.address, obstacle.key.address
            ))
        })
    }
}

/// Whether one of two addresses covers the other, so that they can't both be listened on.
fn meet(new: &ListenKey, own: &ListenKey, sockname: Option<&SockName>) -> bool {
    let (Some(new_at), Some(own_at)) = (place(&new.address), place(&own.address)) else {
        return false;
    };
    let own_port = match sockname {
        Some(SockName::Ip(at)) => at.port(),
        _ => own_at.1,
    };
    let covers = |one: Option<IpAddr>, other: Option<IpAddr>, v6_only: bool| match (one, other) {
        (None, _) => true,
        (Some(IpAddr::V6(all)), Some(IpAddr::V4(_))) => all.is_unspecified() && !v6_only,
        (Some(all), Some(other)) => all.is_unspecified() && all.is_ipv4() == other.is_ipv4(),
        (Some(_), None) => false,
    };
    new.transport == own.transport
        && new_at.1 != 0
        && new_at.1 == own_port
        && (covers(new_at.0, own_at.0, new.v6_only) || covers(own_at.0, new_at.0, own.v6_only))
}

/// The host, `None` for every one, and the port.
fn place(address: &Address) -> Option<(Option<IpAddr>, u16)> {
    match address {
        Address::Any { port } => Some((None, *port)),
        Address::Ip(at) => Some((Some(at.ip()), at.port())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cover_each_other() {
        let key = |text: &str| ListenKey::stream(text.parse().unwrap());
        for (one, other, wanted) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:81", false),
            ("*:80", "[::1]:80", true),
            ("*:80", "0.0.0.0:80", true),
            ("[::]:80", "[::1]:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "[::1]:80", false),
            ("*:80", "unix:/a", false),
            ("0.0.0.0:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(meet(&key(one), &key(other), None), wanted, "{one} {other}");
            assert_eq!(meet(&key(other), &key(one), None), wanted, "{other} {one}");
        }
        let bound = SockName::Ip("127.0.0.1:80".parse().unwrap());
        assert!(meet(&key("0.0.0.0:80"), &key("127.0.0.1:0"), Some(&bound)));
        let narrow = ListenKey { v6_only: true, ..key("[::]:80") };
        assert!(!meet(&narrow, &key("127.0.0.1:80"), None));
    }
}
