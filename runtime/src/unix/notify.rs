//! Messages to the service manager: the protocol of sd_notify(3). Nothing here waits, and no
//! failure ends anything: a primary without a service manager works as well.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use roundel_core::Time;

/// The address of the service manager's socket: a path, or `@` and an abstract name.
pub const SOCKET_VAR: &str = "NOTIFY_SOCKET";
/// How often the service manager wants a sign of life, in microseconds.
pub const WATCHDOG_VAR: &str = "WATCHDOG_USEC";
/// The process that must give it; unset means any.
pub const WATCHDOG_PID_VAR: &str = "WATCHDOG_PID";

/// The way to the service manager.
#[derive(Debug)]
pub struct NotifySocket {
    name: OsString,
    /// Connected; `None` if the last try failed.
    fd: Option<OwnedFd>,
}

impl NotifySocket {
    /// The socket that the environment names; `None` if it names none, or an address that is
    /// neither a path nor an abstract name (sd_notify(3) also has `vsock:`, which virtual machines
    /// use).
    pub fn of_process() -> Option<NotifySocket> {
        NotifySocket::named(&std::env::var_os(SOCKET_VAR)?)
    }

    /// The socket of this name, as the environment writes it.
    pub fn named(name: &OsStr) -> Option<NotifySocket> {
        if !matches!(name.as_bytes(), [b'/' | b'@', _, ..]) {
            return None;
        }
        let fd = dial(name).ok();
        Some(NotifySocket { name: name.to_owned(), fd })
    }

    /// Sends one message with descriptors. It arrives as a whole or not at all.
    ///
    /// # Errors
    /// As sendmsg(2), EAGAIN if the queue of the service manager is full; or as connect(2), if
    /// there is no connection and none can be made.
    pub fn send(&mut self, message: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fd = match self.fd.take() {
            Some(fd) => fd,
            // The service manager may have made its socket anew.
            None => dial(&self.name)?,
        };
        match crate::unix::sys::send_handles(fd.as_fd(), message.as_bytes(), fds) {
            Ok(_) => self.fd = Some(fd),
            Err(Errno::EAGAIN) => {
                self.fd = Some(fd);
                return Err(Errno::EAGAIN.into());
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

fn dial(name: &OsStr) -> Result<OwnedFd, Errno> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        _ => UnixAddr::new(Path::new(name))?,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    connect(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

/// How often this process must give a sign of life, from the environment: half of the time after
/// which the service manager would kill it, as sd_watchdog_enabled(3) recommends.
pub fn watchdog_interval() -> Option<Duration> {
    let of = |name: &str| std::env::var(name).ok();
    interval(of(WATCHDOG_VAR).as_deref(), of(WATCHDOG_PID_VAR).as_deref(), std::process::id())
}

fn interval(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok()?;
    // Less than a millisecond would be a busy loop.
    (usec > 0).then(|| Duration::from_micros(usec / 2).max(Duration::from_millis(1)))
}

/// The words by which a reload begins that was asked for before `now`. `READY=1` ends it.
pub fn reloading(now: Time) -> String {
    // The service manager compares it with the moment at which it asked (CLOCK_MONOTONIC).
    format!("RELOADING=1\nMONOTONIC_USEC={}", now.since(Time::ZERO).as_micros())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    struct Manager {
        socket: UnixDatagram,
        path: std::path::PathBuf,
    }

    impl Manager {
        fn new(name: &str) -> Manager {
            let name = format!("roundel-notify-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Manager { socket, path }
        }

        fn received(&self) -> Option<String> {
            let mut buffer = [0; 4096];
            let len = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
        }
    }

    impl Drop for Manager {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    #[test]
    fn a_message_arrives_at_a_path_and_at_an_abstract_name() {
        let manager = Manager::new("path");
        let mut notify = NotifySocket::named(manager.path.as_os_str()).unwrap();
        notify.send("READY=1", &[]).unwrap();
        assert_eq!(manager.received().as_deref(), Some("READY=1"));

        use std::os::linux::net::SocketAddrExt;
        let name = format!("roundel-notify-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let mut notify = NotifySocket::named(OsStr::new(&format!("@{name}"))).unwrap();
        notify.send("STOPPING=1", &[]).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 10);
    }

    #[test]
    fn descriptors_travel_with_the_message() {
        let manager = Manager::new("fds");
        let mut notify = NotifySocket::named(manager.path.as_os_str()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        notify.send("FDSTORE=1\nFDNAME=x", &[listener.as_fd()]).unwrap();
        let (mut buffer, mut fds) = ([0; 64], Vec::new());
        let got = crate::unix::sys::recv_handles(manager.socket.as_fd(), &mut buffer, 4, &mut fds);
        assert_eq!(got.unwrap().len, 18);
        let copy = std::net::TcpListener::from(fds.pop().unwrap());
        assert_eq!(copy.local_addr().unwrap(), listener.local_addr().unwrap());
    }

    #[test]
    fn a_full_socket_does_not_block_and_a_new_one_is_found() {
        let manager = Manager::new("full");
        let mut notify = NotifySocket::named(manager.path.as_os_str()).unwrap();
        let full = (0..100_000).find_map(|_| notify.send("STATUS=x", &[]).err()).unwrap();
        assert_eq!(full.raw_os_error(), Some(nix::libc::EAGAIN));
        while manager.received().is_some() {}
        notify.send("READY=1", &[]).unwrap();
        assert_eq!(manager.received().as_deref(), Some("READY=1"));
        drop(manager);
        assert!(notify.send("STATUS=y", &[]).is_err());
        assert!(notify.send("STATUS=y", &[]).is_err());
        let manager = Manager::new("full");
        notify.send("STATUS=z", &[]).unwrap();
        assert_eq!(manager.received().as_deref(), Some("STATUS=z"));
    }

    #[test]
    fn other_names_are_no_sockets() {
        for name in ["", "@", "/", "vsock:2:1234", "relative"] {
            assert!(NotifySocket::named(OsStr::new(name)).is_none(), "{name}");
        }
        // One that does not exist yet is tried later.
        assert!(NotifySocket::named(OsStr::new("/no/such/socket")).is_some());
    }

    #[test]
    fn the_watchdog_wants_half_of_the_time() {
        let half = Some(Duration::from_secs(15));
        assert_eq!(interval(Some("30000000"), None, 7), half);
        assert_eq!(interval(Some("30000000"), Some("7"), 7), half);
        assert_eq!(interval(Some("30000000"), Some("8"), 7), None);
        assert_eq!(interval(Some("1"), None, 7), Some(Duration::from_millis(1)));
        for none in [None, Some("0"), Some(""), Some("-1"), Some("x")] {
            assert_eq!(interval(none, None, 7), None, "{none:?}");
        }
    }

    #[test]
    fn a_reload_names_its_moment() {
        let now = Time::from_nanos(5_000_001_999);
        assert_eq!(reloading(now), "RELOADING=1\nMONOTONIC_USEC=5000001");
    }
}
