//! The client connections that processes have open, as the kernel lists them (sock_diag(7)).
//!
//! A connection counts if its local address is that of a listener; so connections that a program
//! opened itself, for example to a database, do not count.
//!
//! This is hand-written: request and answer are two fixed layouts of linux/inet_diag.h and
//! linux/unix_diag.h. netlink-packet-sock-diag (0.5) would bring four crates, and loses a whole
//! dump because of one attribute that it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, SockaddrStorage,
    UnixAddr, getsockname, recv, send, socket,
};

use crate::unix::group;

/// `SOCK_DIAG_BY_FAMILY`, the type of requests and answers.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLM_F_DUMP_INTR`: something changed meanwhile, so sockets may be missing.
const INTERRUPTED: u16 = 0x10;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const FAILED: u16 = 2;
const DONE: u16 = 3;
/// Every state but `TCP_TIME_WAIT` (6), which belongs to no process, and `TCP_LISTEN` (10).
const OPEN: u32 = !(1 << 6 | 1 << 10);
/// `UDIAG_SHOW_NAME`, and the attribute that it adds.
const SHOW_NAME: u32 = 1;
const NAME: u16 = 0;

/// The addresses at which a cluster listens.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By port: the addresses.
    tcp: BTreeMap<u16, BTreeSet<IpAddr>>,
    /// As the bytes in the socket's address.
    unix: BTreeSet<Vec<u8>>,
}

/// At most this many names are kept: connections to any others are not counted.
const MAX_NAMES: usize = 65_536;

impl Names {
    /// Adds the address of a listener. It is kept after the listener is closed, because its
    /// connections may live on.
    pub fn add(&mut self, listener: &OwnedFd) {
        if self.tcp.len() + self.unix.len() >= MAX_NAMES {
            return;
        }
        if let Ok(name) = getsockname::<UnixAddr>(listener.as_raw_fd()) {
            let path = name.path().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
            let hidden = || name.as_abstract().map(|name| [&[0], name].concat());
            self.unix.extend(path.or_else(hidden));
        } else if let Some(at) = ip_name(listener) {
            self.tcp.entry(at.port()).or_default().insert(at.ip().to_canonical());
        }
    }

    fn has_ip(&self, ip: IpAddr, port: u16) -> bool {
        let at = |it: &IpAddr| it.is_unspecified() || *it == ip.to_canonical();
        self.tcp.get(&port).is_some_and(|all| all.iter().any(at))
    }
}

fn ip_name(listener: &OwnedFd) -> Option<SocketAddr> {
    let name: SockaddrStorage = getsockname(listener.as_raw_fd()).ok()?;
    match name.family()? {
        AddressFamily::Inet => name.as_sockaddr_in().map(|it| SocketAddr::V4((*it).into())),
        AddressFamily::Inet6 => name.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into())),
        _ => None,
    }
}

/// How many client connections each of these process groups has open. `None` if the descriptors of
/// a process can't be read: it may be another user's.
///
/// # Errors
/// If the kernel does not answer, for example in a sandbox without netlink; or if descriptors run
/// out.
pub fn count(names: &Names, leaders: &[i32]) -> io::Result<Vec<Option<u32>>> {
    let mut inodes = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        if !names.tcp.is_empty() {
            dump(&inet_request(family), |body| inodes.extend(inet_inode(names, body)))?;
        }
    }
    if !names.unix.is_empty() {
        dump(&unix_request(), |body| inodes.extend(unix_inode(names, body)))?;
    }
    let groups = group::members(leaders);
    let count = |leader: &i32| match groups.get(leader) {
        Some(members) => members.iter().try_fold(0, |sum, pid| Some(sum + open_at(*pid, &inodes)?)),
        // The group has ended since.
        None => group::is_ending(*leader).then_some(0),
    };
    Ok(leaders.iter().map(count).collect())
}

/// How many of these sockets a process has open.
fn open_at(pid: i32, inodes: &BTreeSet<u32>) -> Option<u32> {
    match sockets_of(pid) {
        Ok(sockets) => Some(sockets.iter().filter(|inode| inodes.contains(inode)).count() as u32),
        Err(_) => group::is_ending(pid).then_some(0),
    }
}

/// The inodes of the sockets that a process has open.
fn sockets_of(pid: i32) -> io::Result<Vec<u32>> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = match fs::read_link(entry?.path()) {
            Ok(link) => link,
            // The descriptor was closed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let inode = link.to_str().and_then(|it| it.strip_prefix("socket:[")?.strip_suffix(']'));
        sockets.extend(inode.and_then(|inode| inode.parse::<u32>().ok()));
    }
    Ok(sockets)
}

/// Sends a request, and passes each answer to `each`.
fn dump(request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let diag = SockProtocol::NetlinkSockDiag;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, diag)?;
    let length = (request.len() + 16) as u32;
    let mut message = Vec::from(length.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(request);
    send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            length => length?,
        };
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        while let Some((kind, flags, body, next)) = first_message(rest) {
            match kind {
                _ if flags & INTERRUPTED != 0 => return Err(ErrorKind::Interrupted.into()),
                DONE | FAILED => {
                    let errno = u32_at(body, 0).unwrap_or(0).cast_signed();
                    return if errno < 0 {
                        Err(io::Error::from_raw_os_error(-errno))
                    } else {
                        Ok(())
                    };
                }
                BY_FAMILY => each(body),
                _ => {}
            }
            rest = next;
        }
    }
}

/// Type, flags and content of the first message, and what follows it.
fn first_message(bytes: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(16..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 4)?, u16_at(bytes, 6)?, body, next))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A `struct inet_diag_req_v2` that asks for any TCP socket.
fn inet_request(family: AddressFamily) -> [u8; 56] {
    let mut request = [0; 56];
    request[0] = family as u8;
    request[1] = nix::libc::IPPROTO_TCP as u8;
    request[4..8].copy_from_slice(&OPEN.to_ne_bytes());
    request
}

/// The inode in a `struct inet_diag_msg`, if it is a connection to one of these names.
fn inet_inode(names: &Names, body: &[u8]) -> Option<u32> {
    let port = u16::from_be_bytes(body.get(4..6)?.try_into().ok()?);
    let address: [u8; 16] = body.get(8..24)?.try_into().ok()?;
    let ip = match i32::from(*body.first()?) {
        nix::libc::AF_INET => {
            let [a, b, c, d, ..] = address;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => IpAddr::V6(Ipv6Addr::from(address)),
    };
    let inode = u32_at(body, 68)?;
    (inode != 0 && names.has_ip(ip, port)).then_some(inode)
}

/// A `struct unix_diag_req` that asks for any socket, with its name.
fn unix_request() -> [u8; 24] {
    let mut request = [0; 24];
    request[0] = nix::libc::AF_UNIX as u8;
    request[4..8].copy_from_slice(&OPEN.to_ne_bytes());
    request[12..16].copy_from_slice(&SHOW_NAME.to_ne_bytes());
    request
}

/// The inode in a `struct unix_diag_msg`, if it is a connection to one of these names: an accepted
/// socket has the name of its listener.
fn unix_inode(names: &Names, body: &[u8]) -> Option<u32> {
    let mut attributes = body.get(16..)?;
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        if u16_at(attributes, 2)? == NAME {
            let name = attributes.get(4..length)?;
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            return if names.unix.contains(name) { u32_at(body, 4) } else { None };
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}
