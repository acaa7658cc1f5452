//! What a `queryServer` asks for, and the `listening` that follows it.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use serde_json::value::RawValue;

use super::host::Host;
use super::js;
use super::parse::Cluster;
use crate::msg::is_unix_name;
use crate::{Address, Errno, ListenKey, Transport};

/// libuv's UV_UDP_REUSEADDR. Its flags to share a port (SO_REUSEPORT) are for sockets that a worker
/// binds by itself; no query has them.
pub(crate) const UDP_REUSEADDR: u16 = 4;

/// Only so much of a longer text tells one server from another.
const MAX_TEXT: usize = 512;

/// What tells one server of a worker from its others, in a `queryServer` and the `listening` that
/// follows it. Never an error: it is compared, not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) address: Option<String>,
    /// -1 for none.
    pub(crate) port: i64,
    pub(crate) address_type: String,
    /// -1 for none.
    pub(crate) fd: i64,
    pub(crate) index: i64,
    /// The users that may connect to a unix socket, as the mode of its path; 0 leaves it as it is.
    pub(crate) mode: u32,
}

/// A `queryServer` that makes sense.
pub(crate) struct Query {
    pub(crate) key: ListenKey,
    pub(crate) backlog: u32,
    pub(crate) data: Vec<u8>,
}

impl Cluster<'_> {
    /// Which server this is about.
    pub(crate) fn server(&self) -> Server {
        let int = |raw: Option<&RawValue>, absent| {
            let number = raw.filter(|raw| raw.get() != "null").map(js::number);
            number.map_or(absent, |number| number as i64)
        };
        let cut = |text: Cow<'_, str>| text.chars().take(MAX_TEXT).collect();
        Server {
            address: self.address.and_then(js::text).map(cut),
            port: int(self.port, -1),
            address_type: cut(self.kind()),
            fd: int(self.fd, -1),
            index: int(self.index, 0),
            mode: self.mode(),
        }
    }

    /// `readableAll` and `writableAll` of a path.
    fn mode(&self) -> u32 {
        let all =
            |wish: Option<&RawValue>, bits| if wish.is_some_and(js::is_truthy) { bits } else { 0 };
        all(self.readable_all, 0o444) | all(self.writable_all, 0o222)
    }

    /// `4`, `6`, `-1`, `udp4`, `udp6`, `null`.
    fn kind(&self) -> Cow<'_, str> {
        let Some(raw) = self.address_type else { return Cow::Borrowed("null") };
        js::text(raw).unwrap_or_else(|| Cow::Borrowed(raw.get()))
    }

    /// What a `queryServer` asks for.
    ///
    /// # Errors
    /// EINVAL if it makes no sense.
    pub(crate) fn query(&self, host: &Host) -> Result<Query, Errno> {
        Ok(Query {
            key: self.listen_key(host)?,
            backlog: self.backlog(),
            data: self.data.map_or("null", RawValue::get).into(),
        })
    }

    /// How many connections may wait in the kernel; 0 is the default. It is `false` where the
    /// program says `listen(port, host, callback)`; below zero it is as many as the kernel allows.
    fn backlog(&self) -> u32 {
        let number = self.backlog.map_or(0.0, js::number);
        if number < 0.0 { u32::MAX } else { number as u32 }
    }

    /// As Node's primary does, the number of a descriptor counts before a port, and a port before a
    /// path; which of them `addressType` claims does not matter, only whether it is UDP.
    fn listen_key(&self, host: &Host) -> Result<ListenKey, Errno> {
        let flags = js::to_u16(self.flags.map_or(0.0, js::number));
        let transport = match &*self.kind() {
            "udp4" | "udp6" if flags & UDP_REUSEADDR != 0 => Transport::DatagramReuse,
            "udp4" | "udp6" => Transport::Datagram,
            _ => Transport::Stream,
        };
        let address = match (self.fd()?, transport) {
            (Some(fd), _) => Address::Fd(fd),
            (None, Transport::Datagram | Transport::DatagramReuse) => {
                self.datagram_address(host)?
            }
            (None, Transport::Stream) => self.stream_address(host)?,
        };
        // libuv's UV_TCP_IPV6ONLY and UV_UDP_IPV6ONLY are both 1.
        let can_be = matches!(&address, Address::Any { .. } | Address::Ip(SocketAddr::V6(_)));
        let v6_only = flags & 1 == 1 && can_be;
        let index = self.index(&address)?;
        Ok(ListenKey { address, transport, v6_only, index })
    }

    /// Workers count servers by the port as the program wrote it: `bind()` and `bind(0)` are two
    /// servers, each the first of its kind.
    fn index(&self, address: &Address) -> Result<u32, Errno> {
        let index = self.index.map_or(0.0, js::number);
        let index = js::whole(index, 0, (1 << 24) - 1).ok_or(Errno::EINVAL)?;
        let index = u32::try_from(index).map_err(|_| Errno::EINVAL)?;
        let written = match (address.port(), self.port.map(RawValue::get)) {
            (Some(0), None) => 1,
            (Some(0), Some("null")) => 2,
            (Some(0), Some(port)) if port.starts_with('"') => 3,
            _ => 0,
        };
        Ok(written << 24 | index)
    }

    fn fd(&self) -> Result<Option<i32>, Errno> {
        let number = self.fd.filter(|raw| raw.get() != "null").map(js::number);
        match number {
            None => Ok(None),
            Some(number) if number < 0.0 => Ok(None),
            Some(number) => {
                let fd = js::whole(number, 0, i32::MAX.into()).ok_or(Errno::EINVAL)?;
                Ok(i32::try_from(fd).ok())
            }
        }
    }

    fn stream_address(&self, host: &Host) -> Result<Address, Errno> {
        let text = self.address.and_then(js::text).filter(|text| !text.is_empty());
        let port = self.port.map_or(f64::NAN, js::number);
        if port >= 0.0 {
            let port =
                js::whole(port, 0, u16::MAX.into()).and_then(|port| u16::try_from(port).ok());
            let port = port.ok_or(Errno::EINVAL)?;
            return match text {
                None => Ok(Address::Any { port }),
                Some(text) => Ok(Address::Ip(ip(&text, port, host)?)),
            };
        }
        match text {
            Some(path) => unix_path(path.into_owned(), host).map(Address::Unix),
            None => Err(Errno::EINVAL),
        }
    }

    /// Node binds UDP to any port that JavaScript can make of the value: none at all is 0.
    fn datagram_address(&self, host: &Host) -> Result<Address, Errno> {
        let number = self.port.map_or(0.0, js::number);
        let port = js::to_u16(number);
        let v4 = self.kind() == "udp4";
        let text = self.address.and_then(js::text).filter(|text| !text.is_empty());
        let text = match &text {
            None if v4 => return Ok(Address::Ip((Ipv4Addr::UNSPECIFIED, port).into())),
            None => return Ok(Address::Ip((Ipv6Addr::UNSPECIFIED, port).into())),
            // If the port is below zero, a worker takes the address for a path, and completes it.
            Some(text) if number < 0.0 => text.rsplit('/').next().unwrap_or_default(),
            Some(text) => text,
        };
        match ip(text, port, host)? {
            addr if addr.is_ipv4() == v4 => Ok(Address::Ip(addr)),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// An address with a port. Behind `%` is the name of the interface that a link-local address is
/// valid on; elsewhere it has no meaning, and is left out so that equal addresses are equal.
fn ip(text: &str, port: u16, host: &Host) -> Result<SocketAddr, Errno> {
    let Some((text, zone)) = text.split_once('%') else {
        let ip: IpAddr = text.parse().map_err(|_| Errno::EINVAL)?;
        return Ok(SocketAddr::new(ip, port));
    };
    let ip: Ipv6Addr = text.parse().map_err(|_| Errno::EINVAL)?;
    let scoped = is_link_local(&ip) || ip.is_multicast();
    let scope = if scoped { (host.interface_number)(zone) } else { 0 };
    Ok(SocketAddrV6::new(ip, port, 0, scope).into())
}

/// Whether an address means something else on each interface.
pub(crate) fn is_link_local(ip: &Ipv6Addr) -> bool {
    let [first, ..] = ip.segments();
    first & 0xFFC0 == 0xFE80
}

/// Workers make paths absolute, abstract names too. A name that no socket can have may be possible
/// as seen from the primary's directory, as Node's primary sees all of them: a path that is shorter
/// there, or a name that begins with a zero byte. (Node 18 and 20 pad such names with zero bytes.)
fn unix_path(path: String, host: &Host) -> Result<String, Errno> {
    if is_unix_name(&path) {
        return Ok(path);
    }
    (host.relative_path)(&path).filter(|path| is_unix_name(path)).ok_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests;
