//! Sockets that the service manager passes to the primary: sd_listen_fds(3).

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::unix::sys;

/// The process that sockets are passed to.
pub(crate) const LISTEN_PID: &str = "LISTEN_PID";
/// How many there are.
pub(crate) const LISTEN_FDS: &str = "LISTEN_FDS";
/// Their names, separated by colons.
pub(crate) const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";

/// The name of a socket without one, as in sd_listen_fds_with_names(3).
const UNNAMED: &str = "unknown";

/// The longest name, as in sd_pid_notify_with_fds(3).
pub(crate) const MAX_NAME: usize = 255;

/// The sockets that were passed to this process, in their order, with their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    fds: Vec<(String, RawFd)>,
    /// Why there are none.
    none_because: Option<String>,
}

impl Passed {
    /// Reads `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` of this process.
    pub fn to_process() -> Passed {
        let of = |name: &str| std::env::var(name).ok();
        let (pid, fds, names) = (of(LISTEN_PID), of(LISTEN_FDS), of(LISTEN_FDNAMES));
        match read(pid.as_deref(), fds.as_deref(), names.as_deref(), std::process::id()) {
            Ok(fds) => Passed { fds, none_because: None },
            Err(why) => Passed { fds: Vec::new(), none_because: Some(why) },
        }
    }

    /// The listening stream sockets of this name.
    ///
    /// # Errors
    /// What is wrong, to follow the name: there are none, this process is not meant, or a
    /// descriptor of this name is something else.
    pub fn named(&self, name: &str) -> Result<Vec<RawFd>, String> {
        if let Some(why) = &self.none_because {
            return Err(why.clone());
        }
        let found: Vec<RawFd> =
            self.fds.iter().filter(|(own, _)| own == name).map(|(_, number)| *number).collect();
        if found.is_empty() {
            let names: Vec<String> = self.fds.iter().map(|(name, _)| format!("{name:?}")).collect();
            return Err(format!(
                "no socket of this name was passed; those passed are {}",
                names.join(", ")
            ));
        }
        found.iter().try_for_each(|number| is_listening(*number))?;
        Ok(found)
    }

    /// The name of a passed descriptor.
    pub(crate) fn name_of(&self, number: RawFd) -> Option<&str> {
        self.fds.iter().find(|(_, own)| *own == number).map(|(name, _)| name.as_str())
    }

    /// All descriptors with their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, RawFd)> {
        self.fds.iter().map(|(name, number)| (name.as_str(), *number))
    }
}

fn read(
    pid: Option<&str>,
    fds: Option<&str>,
    names: Option<&str>,
    own: u32,
) -> Result<Vec<(String, RawFd)>, String> {
    let (Some(pid), Some(fds)) = (pid, fds) else {
        return Err("no sockets were passed: LISTEN_PID and LISTEN_FDS are not both set".into());
    };
    if pid.parse() != Ok(own) {
        return Err(format!(
            "the sockets were passed to another process: LISTEN_PID is {pid}, this is {own} (a \
             shell in between must use exec)"
        ));
    }
    // The kernel has no process with more.
    let count: u16 = fds.parse().map_err(|_| format!("LISTEN_FDS is {fds:?}, not a number"))?;
    if count == 0 {
        return Err("no sockets were passed: LISTEN_FDS is 0".into());
    }
    let numbers = sys::FIRST_LISTENER..sys::FIRST_LISTENER + RawFd::from(count);
    let Some(names) = names else {
        return Ok(numbers.map(|number| (UNNAMED.to_owned(), number)).collect());
    };
    let names: Vec<&str> = names.split(':').collect();
    if names.len() != usize::from(count) {
        let named = names.len();
        return Err(format!("LISTEN_FDNAMES has {named} names for {count} sockets"));
    }
    Ok(names.into_iter().map(str::to_owned).zip(numbers).collect())
}

/// Checks that a descriptor is a listening stream socket.
fn is_listening(number: RawFd) -> Result<(), String> {
    let why = |what: &str| Err(format!("descriptor {number} {what}"));
    // A copy, because only numbers were passed.
    let Ok(fd) = sys::duplicate(number) else { return why("is not open") };
    match getsockopt(&fd, sockopt::SockType) {
        Ok(SockType::Stream) => {}
        Ok(SockType::Datagram) => return why("is a datagram socket, which is not supported"),
        Ok(_) => return why("is a socket of a type that is not supported"),
        Err(Errno::ENOTSOCK) => return why("is not a socket"),
        Err(errno) => return why(errno.desc()),
    }
    match getsockopt(&fd, sockopt::AcceptConn) {
        Ok(true) => Ok(()),
        _ => why("does not listen (Accept=yes passes connections; use Accept=no)"),
    }
}

/// A name by the rules of sd_pid_notify_with_fds(3): ASCII without control characters and `:`, not
/// empty.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_variables_are_read_as_sd_listen_fds_reads_them() {
        let named = |names: &[&str]| -> Vec<(String, RawFd)> {
            names.iter().map(|name| (*name).to_owned()).zip(3..).collect()
        };
        let read = |fds, names| read(Some("7"), Some(fds), names, 7);
        assert_eq!(read("2", Some("web:admin")), Ok(named(&["web", "admin"])));
        assert_eq!(read("2", Some("web:web")), Ok(named(&["web", "web"])));
        assert_eq!(read("2", None), Ok(named(&["unknown", "unknown"])));
        assert!(read("2", Some("web")).unwrap_err().contains("1 names for 2 sockets"));
        assert!(read("0", None).unwrap_err().contains("LISTEN_FDS is 0"));
        for bad in ["", "-1", "x", "70000"] {
            assert!(read(bad, None).unwrap_err().contains("not a number"), "{bad:?}");
        }
    }

    #[test]
    fn sockets_of_another_process_are_not_taken() {
        let why = read(Some("8"), Some("1"), None, 7).unwrap_err();
        assert!(why.contains("LISTEN_PID is 8, this is 7"), "{why}");
        for (pid, fds) in [(None, Some("1")), (Some("7"), None), (None, None)] {
            assert!(read(pid, fds, None, 7).unwrap_err().starts_with("no sockets were passed"));
        }
    }

    #[test]
    fn only_listening_streams_are_taken_and_the_names_are_listed() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let named = [
            ("web", tcp.as_raw_fd()),
            ("web", tcp.as_raw_fd()),
            ("accepted", connection.as_raw_fd()),
            ("dns", udp.as_raw_fd()),
            ("file", file.as_raw_fd()),
            ("closed", RawFd::MAX),
        ];
        let fds = named.map(|(name, number)| (name.to_owned(), number)).to_vec();
        let passed = Passed { fds, none_because: None };
        assert_eq!(passed.named("web"), Ok(vec![tcp.as_raw_fd(); 2]));
        for (name, cause) in [
            ("accepted", "does not listen"),
            ("dns", "is a datagram socket"),
            ("file", "is not a socket"),
            ("closed", "is not open"),
            ("missing", "those passed are \"web\", \"web\", \"accepted\""),
        ] {
            let why = passed.named(name).unwrap_err();
            assert!(why.contains(cause), "{name}: {why}");
        }
    }

    #[test]
    fn names() {
        for good in ["web", "a b", "x.socket", &"n".repeat(255)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a:b", "a\nb", "ä", "\u{7f}", &"n".repeat(256)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
