//! Listening addresses as people write them.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::str::FromStr;

use crate::{Address, MAX_UNIX_PATH};

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Address::Ip(addr)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// An address as [`Display`](fmt::Display) and the command line write it: `127.0.0.1:80`,
    /// `[::1]:80`, `*:80` or `:80`, `unix:PATH`, `fd:N`. Neither [`Address::Nth`] nor an abstract
    /// unix socket can be written: `unix:@a` is a path.
    ///
    /// # Errors
    /// [`AddressError`]; it is [`AddressError::HostName`] or [`AddressError::Interface`] if only
    /// the system can resolve the address.
    ///
    /// ```
    /// use roundel_core::{Address, AddressError};
    ///
    /// assert_eq!("*:80".parse(), Ok(Address::Any { port: 80 }));
    /// assert_eq!("localhost:80".parse::<Address>(), Err(AddressError::HostName));
    /// ```
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        if let Some(fd) = text.strip_prefix("fd:") {
            return digits(fd).map(Address::Fd).ok_or(AddressError::NoDescriptor);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoForm)?;
        let port = digits(port).ok_or(AddressError::NoPort)?;
        match host {
            "" | "*" => Ok(Address::Any { port }),
            _ if host.starts_with('[') => bracketed(text, host, port),
            _ if host.contains(':') => Err(AddressError::NoBrackets),
            _ => {
                let ip: IpAddr = host.parse().map_err(|_| AddressError::HostName)?;
                Ok(SocketAddr::new(ip, port).into())
            }
        }
    }
}

/// A number written in digits alone: `from_str` also takes `+5`, which is more likely a mistake.
fn digits<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn unix(path: &str) -> Result<Address, AddressError> {
    match path {
        "" => Err(AddressError::NoPath),
        _ if path.contains('\0') => Err(AddressError::ZeroByte),
        _ if path.len() > MAX_UNIX_PATH => Err(AddressError::PathTooLong),
        _ => Ok(Address::Unix(path.into())),
    }
}

/// Parses the whole text where possible, to get the scope of `[fe80::1%2]:80`.
fn bracketed(text: &str, host: &str, port: u16) -> Result<Address, AddressError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.into());
    }
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or_default();
    let (ip, zone) = match inner.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (inner, None),
    };
    let ip: Ipv6Addr = ip.parse().map_err(|_| AddressError::NoIpv6)?;
    match zone {
        None => Ok(SocketAddr::from(SocketAddrV6::new(ip, port, 0, 0)).into()),
        Some(_) => Err(AddressError::Interface),
    }
}

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressError {
    /// It has none of the forms.
    NoForm,
    /// Its last part is not a port.
    NoPort,
    /// No descriptor number follows `fd:`.
    NoDescriptor,
    /// Nothing follows `unix:`.
    NoPath,
    /// There is a zero byte in its path.
    ZeroByte,
    /// Its path is longer than [`MAX_UNIX_PATH`].
    PathTooLong,
    /// It is an IPv6 address, and without brackets nothing separates the port from it.
    NoBrackets,
    /// There is no IPv6 address between its brackets.
    NoIpv6,
    /// Its host is a name, which must be looked up.
    HostName,
    /// The name of an interface follows `%`, as in getaddrinfo(3); only the system knows its
    /// number.
    Interface,
}

impl fmt::Display for AddressError {
    /// Continues a sentence that begins with the text: `"80"` *is not host:port*.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::NoForm => "is not host:port, [IPv6]:port, *:port, unix:PATH or fd:N",
            AddressError::NoPort => return write!(f, "has no port from 0 to {}", u16::MAX),
            AddressError::NoDescriptor => "has no descriptor number after fd:",
            AddressError::NoPath => "has no path after unix:",
            AddressError::ZeroByte => "has a NUL byte in its path",
            AddressError::PathTooLong => {
                return write!(f, "has a path of more than {MAX_UNIX_PATH} bytes");
            }
            AddressError::NoBrackets => "is an IPv6 address without [ ] around it",
            AddressError::NoIpv6 => "has no IPv6 address between [ and ]",
            AddressError::HostName => "has a host that is not an IP address",
            AddressError::Interface => "names an interface, which can't be resolved here",
        })
    }
}

impl core::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn displayed_addresses_parse_back() {
        for text in [
            "127.0.0.1:8080",
            "[::]:0",
            "[fe80::1%2]:65535",
            "*:80",
            "unix:/run/app.sock",
            "unix:./a:b",
            "fd:3",
            "fd:2147483647",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(":80".parse(), Ok(Address::Any { port: 80 }));
        let ip: SocketAddr = "10.0.0.1:80".parse().unwrap();
        assert_eq!(Address::from(ip), Address::Ip(ip));
        assert_eq!("10.0.0.1:80".parse(), Ok(Address::Ip(ip)));
    }

    #[test]
    fn invalid_addresses_give_the_cause() {
        use AddressError::*;
        let long = "unix:".to_string() + &"x".repeat(MAX_UNIX_PATH + 1);
        for (text, error, words) in [
            ("8080", NoForm, "is not host:port, [IPv6]:port, *:port, unix:PATH or fd:N"),
            ("*:", NoPort, "has no port from 0 to 65535"),
            ("*:65536", NoPort, "has no port from 0 to 65535"),
            ("*:+80", NoPort, "has no port from 0 to 65535"),
            ("fd:", NoDescriptor, "has no descriptor number after fd:"),
            ("fd:-1", NoDescriptor, "has no descriptor number after fd:"),
            ("fd:2147483648", NoDescriptor, "has no descriptor number after fd:"),
            ("unix:", NoPath, "has no path after unix:"),
            ("unix:a\0", ZeroByte, "has a NUL byte in its path"),
            (&long, PathTooLong, "has a path of more than 107 bytes"),
            ("::1:80", NoBrackets, "is an IPv6 address without [ ] around it"),
            ("[10.0.0.1]:80", NoIpv6, "has no IPv6 address between [ and ]"),
            ("[::1:80", NoIpv6, "has no IPv6 address between [ and ]"),
            ("nth:0", HostName, "has a host that is not an IP address"),
            ("[fe80::1%lo]:80", Interface, "names an interface, which can't be resolved here"),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
            assert_eq!(error.to_string(), words);
        }
        assert!(long[..long.len() - 1].parse::<Address>().is_ok());
    }
}
