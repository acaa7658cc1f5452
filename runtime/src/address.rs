//! Listening addresses as people write them.

use std::env;
use std::net::ToSocketAddrs;
use std::path::{Component, PathBuf};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use roundel_core::{Address, AddressError, MAX_UNIX_PATH};

/// An address as the command line writes it: `host:port`, `[::]:port`, `*:port`, `unix:PATH`,
/// `fd:N`. A host name is looked up, and the first address found is taken; a path is made absolute;
/// an IPv6 address may name its interface: `[fe80::1%eth0]:80`.
///
/// # Errors
/// What is wrong, worded to follow the text: "has no port from 0 to 65535".
pub fn parse(text: &str) -> Result<Address, String> {
    match text.parse() {
        Ok(Address::Unix(path)) => Ok(Address::Unix(absolute(&path).unwrap_or(path))),
        Ok(address) => Ok(address),
        Err(AddressError::HostName) => look_up(text),
        Err(AddressError::Interface) => with_interface(text),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes a path absolute and resolves `.` and `..`, as Node does before it asks for a path. `None`
/// if the result is too long for a socket. The path is then kept as written: the primary, too,
/// makes a worker's path relative to its own directory if it is too long.
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

/// Replaces the interface's name by its number, as getaddrinfo(3) does.
fn with_interface(text: &str) -> Result<Address, String> {
    let zone = text.split_once('%').and_then(|(ip, rest)| Some((ip, rest.rsplit_once(']')?)));
    let (ip, (name, port)) = zone.ok_or_else(|| AddressError::Interface.to_string())?;
    let number = interface_number(name)?;
    format!("{ip}%{number}]{port}").parse().map_err(|error: AddressError| error.to_string())
}

fn interface_number(name: &str) -> Result<u32, String> {
    if_nametoindex(name).map_err(|errno| match errno {
        Errno::ENODEV => format!("names the interface {name:?}, which does not exist"),
        other => format!("names the interface {name:?}: {}", other.desc()),
    })
}

fn look_up(text: &str) -> Result<Address, String> {
    let mut found = text
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
        // Relative to this directory it fits.
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
