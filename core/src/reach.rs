//! Which addresses a listener receives connections for: what it covers, and what it collides with.
//!
//! This follows the kernel's rules for two listening sockets on one port, neither with
//! SO_REUSEPORT.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Address;

/// What a listener on an IP address takes: a part of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    port: u16,
    v4: Option<Ipv4Addr>,
    /// With the scope, where that is part of the address.
    v6: Option<(Ipv6Addr, u32)>,
}

impl Reach {
    /// `None` if the address is not an IP address.
    fn of(address: &Address, v6_only: bool) -> Option<Reach> {
        let every4 = (!v6_only).then_some(Ipv4Addr::UNSPECIFIED);
        let (port, v4, v6) = match address {
            Address::Any { port } => (*port, every4, Some((Ipv6Addr::UNSPECIFIED, 0))),
            Address::Ip(SocketAddr::V4(addr)) => (addr.port(), Some(*addr.ip()), None),
            Address::Ip(SocketAddr::V6(addr)) => match addr.ip().to_canonical() {
                IpAddr::V4(mapped) => (addr.port(), Some(mapped), None),
                IpAddr::V6(ip) if ip.is_unspecified() => (addr.port(), every4, Some((ip, 0))),
                IpAddr::V6(ip) => {
                    let scope = if has_scope(ip) { addr.scope_id() } else { 0 };
                    (addr.port(), None, Some((ip, scope)))
                }
            },
            Address::Unix(_) | Address::Fd(_) | Address::Nth(_) => return None,
        };
        Some(Reach { port, v4, v6 })
    }

    fn covers(self, ask: Reach) -> bool {
        let v4 =
            ask.v4.is_none_or(|ask| self.v4.is_some_and(|own| own.is_unspecified() || own == ask));
        let v6 = ask
            .v6
            .is_none_or(|ask| self.v6.is_some_and(|own| own.0.is_unspecified() || own == ask));
        self.port == ask.port && v4 && v6
    }

    fn meets(self, other: Reach) -> bool {
        let v4 = self.v4.zip(other.v4);
        let v4 = v4.is_some_and(|(a, b)| a == b || a.is_unspecified() || b.is_unspecified());
        let v6 = self.v6.zip(other.v6);
        let v6 = v6.is_some_and(|(a, b)| a == b || a.0.is_unspecified() || b.0.is_unspecified());
        self.port == other.port && (v4 || v6)
    }
}

/// Whether an address means something only together with an interface (RFC 4007).
fn has_scope(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_unicast_link_local() || (first == 0xff && matches!(second & 0xf, 1 | 2))
}

impl Address {
    /// Whether a listener at `self` receives everything that one at `ask` would. A `[::]` takes
    /// IPv4 too, unless it is `v6_only` (ipv6(7)).
    pub(crate) fn covers(&self, v6_only: bool, ask: &Address, ask_v6_only: bool) -> bool {
        match (Reach::of(self, v6_only), Reach::of(ask, ask_v6_only)) {
            (Some(own), Some(ask)) => own.covers(ask),
            _ => self == ask,
        }
    }

    /// Whether the kernel refuses one of the two while the other one listens.
    pub(crate) fn collides(&self, v6_only: bool, other: &Address, other_v6_only: bool) -> bool {
        match (Reach::of(self, v6_only), Reach::of(other, other_v6_only)) {
            (Some(own), Some(other)) => own.meets(other),
            _ => self == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> (Address, bool) {
        let (text, only) = text.strip_prefix("only ").map_or((text, false), |rest| (rest, true));
        let address = match text.strip_prefix('*') {
            Some(port) => Address::Any { port: port[1..].parse().unwrap() },
            None => Address::Ip(text.parse().unwrap()),
        };
        (address, only)
    }

    /// Whether the first covers the second, the second the first, and whether they collide.
    #[track_caller]
    fn check(one: &str, two: &str, expected: (bool, bool, bool)) {
        let ((a, a_only), (b, b_only)) = (at(one), at(two));
        let there = a.covers(a_only, &b, b_only);
        let back = b.covers(b_only, &a, a_only);
        let collides = a.collides(a_only, &b, b_only);
        assert_eq!((there, back, collides), expected, "{one} and {two}");
        assert_eq!(b.collides(b_only, &a, a_only), collides, "{two} and {one}");
    }

    #[test]
    fn families_and_wildcards() {
        check("*:80", "[::]:80", (true, true, true));
        check("*:80", "0.0.0.0:80", (true, false, true));
        check("*:80", "127.0.0.1:80", (true, false, true));
        check("*:80", "[::1]:80", (true, false, true));
        check("*:80", "only [::]:80", (true, false, true));
        check("only *:80", "only [::]:80", (true, true, true));
        check("0.0.0.0:80", "only [::]:80", (false, false, false));
        check("0.0.0.0:80", "[::]:80", (false, true, true));
        check("0.0.0.0:80", "[::1]:80", (false, false, false));
        check("0.0.0.0:80", "127.0.0.1:80", (true, false, true));
        check("127.0.0.2:80", "127.0.0.1:80", (false, false, false));
        check("only [::]:80", "[::1]:80", (true, false, true));
        check("only [::]:80", "127.0.0.1:80", (false, false, false));
        check("*:80", "*:81", (false, false, false));
    }

    #[test]
    fn ipv4_written_as_ipv6() {
        check("[::ffff:127.0.0.1]:80", "127.0.0.1:80", (true, true, true));
        check("[::ffff:127.0.0.1]:80", "0.0.0.0:80", (false, true, true));
        check("[::ffff:127.0.0.1]:80", "only [::]:80", (false, false, false));
    }

    #[test]
    fn a_zone_is_part_of_a_link_local_address_only() {
        check("[fe80::1%2]:80", "[fe80::1%2]:80", (true, true, true));
        check("[fe80::1%2]:80", "[fe80::1%3]:80", (false, false, false));
        check("[fe80::1%2]:80", "[::]:80", (false, true, true));
        check("[ff02::1%2]:80", "[ff02::1%3]:80", (false, false, false));
        check("[2001:db8::1%2]:80", "[2001:db8::1%3]:80", (true, true, true));
    }

    #[test]
    fn addresses_without_an_ip_reach_only_themselves() {
        let (a, b) = (Address::Unix("/a".into()), Address::Unix("/b".into()));
        assert!(a.covers(false, &a, false) && a.collides(false, &a, false));
        assert!(!a.covers(false, &b, false) && !a.collides(false, &b, false));
        assert!(!Address::Fd(3).collides(false, &at("*:3").0, false));
    }
}
