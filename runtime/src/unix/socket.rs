//! Listening sockets: bind, take over, accept.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, UnixAddr,
    bind as nix_bind, getsockname, getsockopt, listen, setsockopt, socket, sockopt,
};
use roundel_core::{Address, ListenKey, SockName, Transport};

use crate::unix::channel::set_nonblocking;
use crate::unix::unix_path::{self, BoundPath, FileOptions, Wish};

/// The default backlog of listen(2): Node's.
const DEFAULT_BACKLOG: i32 = 511;

/// Standard input.
const STDIN: RawFd = 0;

/// Standard output and standard error: not used as listeners, even if they are listening sockets.
pub(crate) const OUTPUT: std::ops::RangeInclusive<RawFd> = 1..=2;

/// How many failed connections one accept skips.
const MAX_PASSED_OVER: u32 = 64;

/// Where a socket is bound, and the path to remove when it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bound {
    /// Its address.
    pub sockname: SockName,
    path: Option<BoundPath>,
}

impl Bound {
    /// Sets the mode of the path of a unix socket, unless another process has taken the path over.
    pub(crate) fn set_mode(&self, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        if let Some(path) = &self.path
            && BoundPath::of(path.path()).as_ref() == Some(path)
        {
            // Node's primary, which does the same, does not handle a failure either.
            let _ = fs::set_permissions(path.path(), fs::Permissions::from_mode(mode));
        }
    }

    /// The path of a unix socket.
    pub(crate) fn path(&self) -> Option<&BoundPath> {
        self.path.as_ref()
    }

    /// Removes the path of a unix socket, unless another process has taken the path over.
    pub fn unlink(&self) {
        if let Some(path) = &self.path {
            path.unlink();
        }
    }
}

/// The descriptors that this process was started with, apart from standard output and error.
#[derive(Clone, Debug, Default)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Lists those that are open and not close-on-exec, and makes them close-on-exec until
    /// [`pass_on`](Inherited::pass_on). Call it once, before anything is opened. Standard input is
    /// left as it is: it may be a socket to listen on (inetd(8), systemd.exec(5)), and workers get
    /// another one.
    pub fn snapshot() -> Inherited {
        let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let numbers: Vec<RawFd> = names.filter(|number: &RawFd| !OUTPUT.contains(number)).collect();
        let mut inherited = Vec::new();
        for number in numbers {
            let Ok(flags) = fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
                continue;
            };
            let octal = flags.lines().find_map(|line| line.strip_prefix("flags:"));
            let bits = octal.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
            // The flags in fdinfo include O_CLOEXEC (proc(5)).
            if bits.is_some_and(|bits| bits & 0o2_000_000 == 0) {
                if number != STDIN {
                    crate::unix::sys::close_on_exec(number);
                }
                inherited.push(number);
            }
        }
        Inherited(inherited)
    }

    /// Takes one out for good; its number means nothing any more, but stays occupied.
    pub(crate) fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        let at = self.0.iter().position(|own| *own == number)?;
        self.0.swap_remove(at);
        let fd = crate::unix::sys::duplicate(number).ok()?;
        crate::unix::sys::vacate(number).ok()?;
        Some(fd)
    }

    /// Lets workers inherit them too, except those for which `is_kept` is true: a listener of the
    /// primary must close with the primary.
    pub fn pass_on(&self, is_kept: impl Fn(RawFd) -> bool) {
        for &number in self.0.iter().filter(|&&number| !is_kept(number)) {
            crate::unix::sys::keep_on_exec(number);
        }
    }
}

/// Binds the address of a key and, for streams, listens. Non-blocking, close-on-exec,
/// `SO_REUSEADDR`. A backlog of 0 means 511. If no process listens on the path of a unix socket,
/// the path is taken over: it must be one that is meant for this program alone.
///
/// # Errors
/// The errno of the call that failed: EADDRINUSE also for a unix path that a process listens on or
/// that is no socket, EBADF for a descriptor that was not inherited or is no socket, EINVAL for one
/// of another type or that does not listen.
pub fn bind(
    key: &ListenKey,
    backlog: u32,
    inherited: &Inherited,
) -> Result<(OwnedFd, Bound), roundel_core::Errno> {
    bind_with(key, backlog, inherited, FileOptions::default())
}

/// Like [`bind`]; the path of a unix socket gets this owner and mode before a client can connect.
///
/// # Errors
/// As [`bind`]; EPERM for an owner that this process can't give it.
pub(crate) fn bind_with(
    key: &ListenKey,
    backlog: u32,
    inherited: &Inherited,
    file: FileOptions,
) -> Result<(OwnedFd, Bound), roundel_core::Errno> {
    let bound = bind_or_replace(key, backlog, inherited, Some(file));
    bound.map_err(|errno| roundel_core::Errno(errno as i32))
}

/// Like [`bind`], but leaves any existing path alone, as bind(2) does: for requests of a worker,
/// which must not remove other programs' files.
///
/// # Errors
/// As [`bind`]; EADDRINUSE for every path that exists.
pub fn bind_new(
    key: &ListenKey,
    backlog: u32,
    inherited: &Inherited,
) -> Result<(OwnedFd, Bound), roundel_core::Errno> {
    let bound = bind_or_replace(key, backlog, inherited, None);
    bound.map_err(|errno| roundel_core::Errno(errno as i32))
}

/// The file options are there for the operator's listeners, which replace stale paths.
fn bind_or_replace(
    key: &ListenKey,
    backlog: u32,
    inherited: &Inherited,
    operators: Option<FileOptions>,
) -> Result<(OwnedFd, Bound), Errno> {
    let kind = match key.transport {
        Transport::Datagram | Transport::DatagramReuse => SockType::Datagram,
        _ => SockType::Stream,
    };
    let (fd, path) = match &key.address {
        Address::Any { port } => (bind_any(*port, kind, key.v6_only)?, None),
        Address::Ip(addr) if key.transport == Transport::DatagramReuse => {
            (bind_for_reuse(addr, key.v6_only)?, None)
        }
        Address::Ip(addr) => (bind_ip(addr, kind, key.v6_only)?, None),
        Address::Unix(path) if path.starts_with('\0') => (bind_abstract(path, kind)?, None),
        Address::Unix(path) => {
            let (fd, path) = bind_unix(Path::new(path), kind, backlog, operators)?;
            (fd, Some(path))
        }
        Address::Fd(number) => (take_inherited(*number, kind, inherited)?, None),
        _ => return Err(Errno::EINVAL),
    };
    // An inherited socket listens already, with the backlog that its creator chose.
    let is_ours = !matches!(key.address, Address::Fd(_));
    let named = if kind == SockType::Stream && is_ours {
        listen_on(&fd, backlog).and_then(|()| sockname(&fd))
    } else {
        sockname(&fd)
    };
    match named {
        Ok(sockname) => Ok((fd, Bound { sockname, path })),
        Err(errno) => {
            if let Some(path) = path {
                path.unlink();
            }
            Err(errno)
        }
    }
}

/// Takes over a listener that this process was started with, if it is one of this key: a former
/// primary may have bound it. `None` if it is not; then it is closed.
pub(crate) fn reuse(
    number: RawFd,
    key: &ListenKey,
    inherited: &mut Inherited,
) -> Option<(OwnedFd, Bound)> {
    let fd = inherited.take(number)?;
    let is_stream = getsockopt(&fd, sockopt::SockType) == Ok(SockType::Stream);
    if !is_stream || getsockopt(&fd, sockopt::AcceptConn) != Ok(true) {
        return None;
    }
    let sockname = sockname(&fd).ok()?;
    let path = match (&key.address, &sockname) {
        (Address::Any { port }, SockName::Ip(addr)) => {
            (is_port(*port, addr) && addr.ip().is_unspecified()).then_some(None)
        }
        (Address::Ip(wanted), SockName::Ip(addr)) => {
            (is_port(wanted.port(), addr) && wanted.ip() == addr.ip()).then_some(None)
        }
        (Address::Unix(wanted), SockName::Unix(name)) if wanted == name => {
            match name.starts_with('\0') {
                true => Some(None),
                // If the path is gone, no client finds the socket.
                false => BoundPath::of_socket(Path::new(name)).map(Some),
            }
        }
        _ => None,
    }?;
    set_nonblocking(&fd).ok()?;
    Some((fd, Bound { sockname, path }))
}

/// Port 0 was any.
fn is_port(wanted: u16, addr: &SocketAddr) -> bool {
    wanted == 0 || wanted == addr.port()
}

/// True if a connection waits at a listening socket, or there is something to read. The check needs
/// no new descriptor.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(fd, PollFlags::POLLIN)];
    // If the check fails, the socket counts as readable and is tried.
    poll(&mut asked, PollTimeout::ZERO) != Ok(0)
}

/// Takes over a socket that another process has bound: makes it listen, if it is of a type that
/// listens and does not yet, and makes it non-blocking.
///
/// # Errors
/// As listen(2): EADDRINUSE if another socket has begun to listen there.
pub(crate) fn take_over(fd: &OwnedFd) -> io::Result<SockName> {
    crate::unix::channel::set_nonblocking(fd)?;
    if getsockopt(fd, sockopt::SockType)? == SockType::Stream {
        listen_on(fd, 0)?;
    }
    Ok(sockname(fd)?)
}

fn listen_on(fd: &OwnedFd, backlog: u32) -> Result<(), Errno> {
    listen(fd, bounded(backlog)?)
}

fn bounded(backlog: u32) -> Result<Backlog, Errno> {
    let wanted = match i32::try_from(backlog) {
        Ok(0) => DEFAULT_BACKLOG,
        other => other.unwrap_or(i32::MAX),
    };
    let max = i32::from(Backlog::MAXCONN);
    Backlog::new(wanted.min(max)).map_err(|_| Errno::EINVAL)
}

fn open(family: AddressFamily, kind: SockType) -> Result<OwnedFd, Errno> {
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if kind == SockType::Stream {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    Ok(fd)
}

fn bind_ip(addr: &SocketAddr, kind: SockType, v6_only: bool) -> Result<OwnedFd, Errno> {
    match addr {
        SocketAddr::V4(addr) => {
            let fd = open(AddressFamily::Inet, kind)?;
            nix_bind(fd.as_raw_fd(), &SockaddrIn::from(*addr))?;
            Ok(fd)
        }
        SocketAddr::V6(addr) => {
            let fd = open(AddressFamily::Inet6, kind)?;
            setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only)?;
            nix_bind(fd.as_raw_fd(), &SockaddrIn6::from(*addr))?;
            Ok(fd)
        }
    }
}

/// A UDP socket at an address to which other sockets may be bound as well.
fn bind_for_reuse(addr: &SocketAddr, v6_only: bool) -> Result<OwnedFd, Errno> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = open(family, SockType::Datagram)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if addr.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only)?;
    }
    nix_bind(fd.as_raw_fd(), &SockaddrStorage::from(*addr))?;
    Ok(fd)
}

/// Binds `::` with IPv4, or `0.0.0.0` on a machine without IPv6.
fn bind_any(port: u16, kind: SockType, v6_only: bool) -> Result<OwnedFd, Errno> {
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match bind_ip(&all, kind, v6_only) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EINVAL) => {
            bind_ip(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), kind, false)
        }
        other => other,
    }
}

/// A stream socket listens at once: see [`unix_path`].
fn bind_unix(
    path: &Path,
    kind: SockType,
    backlog: u32,
    operators: Option<FileOptions>,
) -> Result<(OwnedFd, BoundPath), Errno> {
    let (file, replace_stale) = (operators.unwrap_or_default(), operators.is_some());
    let wish = Wish { kind, backlog: bounded(backlog)?, mode: None, file, replace_stale };
    Ok(unix_path::take(path, &wish)?)
}

/// Binds a name without a file (unix(7)): it disappears with its last socket.
fn bind_abstract(name: &str, kind: SockType) -> Result<OwnedFd, Errno> {
    let address = UnixAddr::new_abstract(name.as_bytes().get(1..).unwrap_or_default())?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, kind, flags, None)?;
    nix_bind(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

fn take_inherited(number: RawFd, kind: SockType, inherited: &Inherited) -> Result<OwnedFd, Errno> {
    if !inherited.0.contains(&number) {
        return Err(Errno::EBADF);
    }
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    // A copy, so that the number keeps its meaning for the next request that names it.
    let fd = crate::unix::sys::duplicate(number).map_err(errno)?;
    let found = getsockopt(&fd, sockopt::SockType).map_err(|errno| match errno {
        Errno::ENOTSOCK => Errno::EBADF,
        other => other,
    })?;
    if found != kind || (kind == SockType::Stream && !getsockopt(&fd, sockopt::AcceptConn)?) {
        return Err(Errno::EINVAL);
    }
    set_nonblocking(&fd).map_err(errno)?;
    Ok(fd)
}

/// The local address of a socket, from getsockname(2).
///
/// # Errors
/// The errno of the call; EAFNOSUPPORT for an address that is neither IP nor unix.
pub(crate) fn sockname(fd: &OwnedFd) -> Result<SockName, Errno> {
    name_of(&getsockname(fd.as_raw_fd())?).ok_or(Errno::EAFNOSUPPORT)
}

/// `None` for an address that is neither IP nor unix.
pub(crate) fn name_of(found: &SockaddrStorage) -> Option<SockName> {
    if let Some(addr) = found.as_sockaddr_in() {
        return Some(SockName::Ip(SocketAddr::V4((*addr).into())));
    }
    if let Some(addr) = found.as_sockaddr_in6() {
        return Some(SockName::Ip(SocketAddr::V6((*addr).into())));
    }
    let addr = found.as_unix_addr()?;
    let path = addr.path().map(|path| path.to_string_lossy().into_owned());
    let name = || addr.as_abstract().map(|name| format!("\0{}", String::from_utf8_lossy(name)));
    Some(SockName::Unix(path.or_else(name).unwrap_or_default()))
}

/// Accepts one connection, non-blocking and close-on-exec; `None` if none is there. Connections
/// that failed before they could be accepted are skipped (accept(2), "Error handling").
///
/// # Errors
/// Errors that are not about one connection: usually EMFILE, ENFILE, ENOBUFS, ENOMEM; or the last
/// error of 64 failed connections in a row.
pub fn accept(fd: BorrowedFd<'_>) -> Result<Option<OwnedFd>, i32> {
    let mut last = Errno::EAGAIN;
    // A permanent error, for example from a security module, must not keep the caller here.
    for _ in 0..MAX_PASSED_OVER {
        last = match crate::unix::sys::accept(fd) {
            Ok(conn) => return Ok(Some(conn)),
            Err(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        };
        match last {
            Errno::EAGAIN => return Ok(None),
            Errno::EINTR
            | Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::EPERM => {}
            other => return Err(other as i32),
        }
    }
    Err(last as i32)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use std::path::PathBuf;

    use super::*;

    fn bind_at(address: Address) -> Result<(OwnedFd, Bound), roundel_core::Errno> {
        bind(&ListenKey::stream(address), 0, &Inherited::default())
    }

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("roundel-test-{}-{name}", std::process::id()))
    }

    #[test]
    fn any_takes_both_families() {
        let (fd, bound) = bind_at(Address::Any { port: 0 }).unwrap();
        let port = bound.sockname.port().unwrap();
        for host in ["127.0.0.1", "::1"] {
            if let Ok(_client) = TcpStream::connect((host, port)) {
                // The handshake is over when connect returns, so the connection is there.
                assert!(accept(fd.as_fd()).unwrap().is_some());
            } else {
                assert_eq!(host, "::1", "IPv4 is always there");
            }
        }
        assert!(accept(fd.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_port_in_use_is_told() {
        let (_fd, bound) = bind_at(Address::Ip("127.0.0.1:0".parse().unwrap())).unwrap();
        let SockName::Ip(addr) = bound.sockname else { panic!("not an IP address") };
        assert_eq!(bind_at(Address::Ip(addr)).unwrap_err(), roundel_core::Errno::EADDRINUSE);
    }

    #[test]
    fn a_stale_path_is_taken_over_and_a_live_one_is_not() {
        let path = path("stale");
        let address = Address::Unix(path.to_str().unwrap().to_owned());
        drop(UnixListener::bind(&path).unwrap());
        let (fd, bound) = bind_at(address.clone()).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        assert!(accept(fd.as_fd()).unwrap().is_some());
        assert_eq!(bind_at(address).unwrap_err(), roundel_core::Errno::EADDRINUSE);
        bound.unlink();
        assert!(!path.exists());
    }

    #[test]
    fn other_requests_replace_no_listener() {
        let path = path("foreign");
        drop(UnixListener::bind(&path).unwrap());
        let key = ListenKey::stream(Address::Unix(path.to_str().unwrap().to_owned()));
        let refused = bind_new(&key, 0, &Inherited::default()).unwrap_err();
        assert_eq!(refused, roundel_core::Errno::EADDRINUSE);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        let (_fd, bound) = bind_new(&key, 0, &Inherited::default()).unwrap();
        bound.unlink();
    }

    #[test]
    fn a_path_that_is_no_socket_or_no_longer_ours_stays() {
        let path = path("file");
        fs::write(&path, "kept").unwrap();
        let address = Address::Unix(path.to_str().unwrap().to_owned());
        assert_eq!(bind_at(address.clone()).unwrap_err(), roundel_core::Errno::EADDRINUSE);
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        fs::remove_file(&path).unwrap();
        let (_fd, bound) = bind_at(address).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        bound.unlink();
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn only_inherited_descriptors_can_be_named() {
        let (fd, _) = bind_at(Address::Ip("127.0.0.1:0".parse().unwrap())).unwrap();
        let number = fd.as_raw_fd();
        assert_eq!(bind_at(Address::Fd(number)).unwrap_err(), roundel_core::Errno::EBADF);
        let key = ListenKey::stream(Address::Fd(number));
        let (copy, bound) = bind(&key, 0, &Inherited(vec![number])).unwrap();
        assert_ne!(copy.as_raw_fd(), number);
        assert_eq!(Ok(bound.sockname), sockname(&fd));
    }
}
