//! Listening addresses as people write them.

use std::env;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::path::{Component, PathBuf};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use roundel_core::{Address, MAX_UNIX_PATH};

use crate::text::number;

/// An address as the command line writes it: `host:port`, `[::]:port`, `*:port`, `unix:PATH`,
/// `fd:N`. A host name is looked up, and the first address found is taken.
///
/// # Errors
/// What is wrong, to be read on after the text: "has no port from 0 to 65535".
pub fn parse(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    if let Some(fd) = text.strip_prefix("fd:") {
        let fd = number(fd, 0, i32::MAX.unsigned_abs())
            .map_err(|_| "has no descriptor number behind fd:")?;
        return Ok(Address::Fd(fd.cast_signed()));
    }
    let forms = "is not host:port, [IPv6]:port, *:port, unix:PATH or fd:N";
    let (host, port) = text.rsplit_once(':').ok_or(forms)?;
    let port = number(port, 0, u16::MAX.into()).ok().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| format!("has no port from 0 to {}", u16::MAX))?;
    match host {
        "" | "*" => Ok(Address::Any { port }),
        _ if host.starts_with('[') => bracketed(text, host, port),
        _ if host.contains(':') => Err("is an IPv6 address without [ ] around it".into()),
        _ => look_up(host, port),
    }
}

fn unix(path: &str) -> Result<Address, String> {
    if path.is_empty() {
        return Err("has no path behind unix:".into());
    }
    if path.contains('\0') {
        return Err("has a zero byte in its path".into());
    }
    if path.len() > MAX_UNIX_PATH {
        return Err(format!("has a path of more than {MAX_UNIX_PATH} bytes"));
    }
    Ok(Address::Unix(absolute(path).unwrap_or_else(|| path.to_owned())))
}

/// A path as programs ask for it: Node makes it absolute, and takes `.` and `..` out, before it
/// asks. `None` if that is too long for a socket; then the primary sees what is asked from its
/// directory.
fn absolute(path: &str) -> Option<String> {
    let mut whole = PathBuf::new();
    for part in env::current_dir().ok()?.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(whole.pop()),
            other => whole.push(other),
        }
    }
    whole.to_str().filter(|path| path.len() <= MAX_UNIX_PATH).map(str::to_owned)
}

/// The whole text is parsed where it can be, for the scope of `[fe80::1%2]:80`; in its place may be
/// the name of an interface, as in getaddrinfo(3).
fn bracketed(text: &str, host: &str, port: u16) -> Result<Address, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Address::Ip(address));
    }
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or_default();
    let (ip, zone) = match inner.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (inner, None),
    };
    let ip: Ipv6Addr = ip.parse().map_err(|_| "has no IPv6 address between [ and ]")?;
    let scope = zone.map_or(Ok(0), interface_number)?;
    Ok(Address::Ip(SocketAddrV6::new(ip, port, 0, scope).into()))
}

fn interface_number(name: &str) -> Result<u32, String> {
    if_nametoindex(name).map_err(|errno| match errno {
        Errno::ENODEV => format!("names the interface {name:?}, which does not exist"),
        other => format!("names the interface {name:?}: {}", other.desc()),
    })
}

fn look_up(host: &str, port: u16) -> Result<Address, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Address::Ip(SocketAddr::new(ip, port)));
    }
    let mut found = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("has a host that cannot be looked up: {error}"))?;
    found.next().map(Address::Ip).ok_or_else(|| "has a host without an address".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
    }

    #[test]
    fn addresses() {
        let good = [
            ("127.0.0.1:8080", ip("127.0.0.1:8080")),
            ("0.0.0.0:0", ip("0.0.0.0:0")),
            ("[::]:80", ip("[::]:80")),
            ("[::1]:65535", ip("[::1]:65535")),
            ("[fe80::1%2]:80", ip("[fe80::1%2]:80")),
            ("*:80", Address::Any { port: 80 }),
            (":80", Address::Any { port: 80 }),
            ("unix:/run/app.sock", Address::Unix("/run/app.sock".into())),
            ("unix:/run/./x/../a:b", Address::Unix("/run/a:b".into())),
            ("fd:3", Address::Fd(3)),
        ];
        for (text, expected) in good {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        let bad = [
            ("", "is not host:port"),
            ("8080", "is not host:port"),
            ("localhost", "is not host:port"),
            ("127.0.0.1:", "has no port"),
            ("127.0.0.1:65536", "has no port"),
            ("127.0.0.1:http", "has no port"),
            ("127.0.0.1:+80", "has no port"),
            ("*:", "has no port"),
            ("::1:80", "is an IPv6 address without"),
            ("[::1]x:80", "has no IPv6 address"),
            ("[::1:80", "has no IPv6 address"),
            ("[127.0.0.1]:80", "has no IPv6 address"),
            ("[127.0.0.1%lo]:80", "has no IPv6 address"),
            ("[fe80::1%lo:80", "has no IPv6 address"),
            ("[fe80::1%no-such]:80", "names the interface \"no-such\", which does not exist"),
            ("[fe80::1%]:80", "names the interface \"\", which does not exist"),
            ("[fe80::1%4294967296]:80", "names the interface \"4294967296\", which"),
            ("[::1]", "has no port"),
            ("unix:", "has no path"),
            ("fd:", "has no descriptor"),
            ("fd:-1", "has no descriptor"),
            ("fd:2147483648", "has no descriptor"),
            ("fd:three", "has no descriptor"),
            ("nth:0", "has a host that cannot be looked up"),
        ];
        for (text, cause) in bad {
            let found = parse(text).unwrap_err();
            assert!(found.starts_with(cause), "{text:?}: {found}");
        }
        let here = std::env::current_dir().unwrap();
        let whole = here.join("s").to_str().unwrap().to_owned();
        assert_eq!(parse("unix:./s"), Ok(Address::Unix(whole)));
        // From this directory it fits.
        let long = "x".repeat(107);
        assert_eq!(parse(&format!("unix:{long}")), Ok(Address::Unix(long)));
        assert!(parse(&format!("unix:{}", "x".repeat(108))).is_err());
        assert!(parse("unix:a\0b").is_err());
    }

    #[test]
    fn a_zone_may_be_an_interface_by_its_name() {
        let Ok(number) = if_nametoindex("lo") else {
            println!("skipped: no loopback interface");
            return;
        };
        assert_eq!(parse("[fe80::1%lo]:80"), Ok(ip(&format!("[fe80::1%{number}]:80"))));
    }

    #[test]
    fn a_host_name_is_looked_up() {
        let Ok(Address::Ip(found)) = parse("localhost:81") else { panic!("no address") };
        assert!(found.ip().is_loopback());
        assert_eq!(found.port(), 81);
    }
}
