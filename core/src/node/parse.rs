//! What a line says. serde_json reads it, after its nesting was looked at.

use alloc::borrow::Cow;
use alloc::string::String;
use core::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::MAX_NESTING;
use crate::{Address, DecodeError, ListenKey, Seq, Transport};

/// What Node calls the kind of a handle, in the `type` of a `NODE_HANDLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandleKind {
    /// A TCP or unix socket as the cluster passes it: a connection or a listener.
    NetNative,
    /// A listener from the program (`net.Server`).
    NetServer,
    /// A connection from the program (`net.Socket`).
    NetSocket,
    /// A UDP socket as the cluster passes it.
    DgramNative,
    /// A UDP socket from the program (`dgram.Socket`).
    DgramSocket,
}

impl HandleKind {
    /// As the wire has it.
    pub const fn name(self) -> &'static str {
        match self {
            HandleKind::NetNative => "net.Native",
            HandleKind::NetServer => "net.Server",
            HandleKind::NetSocket => "net.Socket",
            HandleKind::DgramNative => "dgram.Native",
            HandleKind::DgramSocket => "dgram.Socket",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        use HandleKind::*;
        [NetNative, NetServer, NetSocket, DgramNative, DgramSocket]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// A line.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    HandleAck,
    HandleNack,
    /// `NODE_HANDLE`: the wrapped message, and what its handle is; `None` for a kind that is not
    /// known here.
    Laden(Option<HandleKind>, Message<'a>),
    Plain(Message<'a>),
}

/// A message, wrapped or not.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives for one line only")]
pub(crate) enum Message<'a> {
    Cluster(Cluster<'a>),
    /// The program's own: any JSON.
    User(&'a str),
    /// Internal, but of no kind that matters here.
    Unknown,
}

/// A `NODE_CLUSTER` message of either direction. Absent and null are the same.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cluster<'a> {
    #[serde(borrow)]
    pub(crate) act: Option<Text<'a>>,
    pub(crate) seq: Option<u64>,
    pub(crate) ack: Option<u64>,
    pub(crate) accepted: Option<bool>,
    pub(crate) errno: Option<f64>,
    #[serde(borrow)]
    pub(crate) key: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) sockname: Option<Name<'a>>,
    #[serde(borrow)]
    pub(crate) address: Option<Text<'a>>,
    pub(crate) port: Option<f64>,
    #[serde(borrow)]
    pub(crate) address_type: Option<&'a RawValue>,
    pub(crate) fd: Option<f64>,
    pub(crate) flags: Option<f64>,
    pub(crate) index: Option<f64>,
    #[serde(borrow)]
    backlog: Option<&'a RawValue>,
}

/// A string, borrowed if it has no escapes. (serde borrows no `Option<Cow<str>>`.)
#[derive(Debug, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The `sockname` of a reply.
#[derive(Debug, Deserialize)]
pub(crate) struct Name<'a> {
    #[serde(borrow)]
    pub(crate) address: Option<Text<'a>>,
    pub(crate) port: Option<f64>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    cmd: Option<&'a RawValue>,
    #[serde(borrow)]
    act: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Wrapper<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
}

/// Reads a line.
pub(crate) fn parse(line: &[u8]) -> Result<Line<'_>, DecodeError> {
    // One of the two lines that come for each connection, as Node writes it.
    if line == b"{\"cmd\":\"NODE_HANDLE_ACK\"}" {
        return Ok(Line::HandleAck);
    }
    let text = core::str::from_utf8(line).map_err(|_| DecodeError::BadMessage)?;
    if nesting(text) > MAX_NESTING {
        return Err(DecodeError::NestedTooDeep);
    }
    let cmd = match internal(text)? {
        None => return Ok(Line::Plain(Message::User(text))),
        Some(cmd) => cmd,
    };
    Ok(match &*cmd {
        "NODE_HANDLE_ACK" => Line::HandleAck,
        "NODE_HANDLE_NACK" => Line::HandleNack,
        "NODE_HANDLE" => {
            let wrapper: Wrapper<'_> = read(text)?;
            let kind = wrapper.kind.and_then(|kind| HandleKind::from_name(&kind.0));
            let msg = wrapper.msg.map_or("null", RawValue::get);
            Line::Laden(kind, message(msg, internal(msg)?.as_deref())?)
        }
        cmd => Line::Plain(message(text, Some(cmd))?),
    })
}

fn message<'a>(text: &'a str, cmd: Option<&str>) -> Result<Message<'a>, DecodeError> {
    Ok(match cmd {
        None => Message::User(text),
        Some("NODE_CLUSTER") => Message::Cluster(read(text)?),
        Some(_) => Message::Unknown,
    })
}

/// The `cmd` of an internal message; `None` for one of the program's own.
fn internal(text: &str) -> Result<Option<Cow<'_, str>>, DecodeError> {
    if !text.trim_start().starts_with('{') {
        // It must be JSON all the same.
        let _: &RawValue = read(text)?;
        return Ok(None);
    }
    let head: Head<'_> = read(text)?;
    let cmd = head.cmd.and_then(|cmd| read::<Text<'_>>(cmd.get()).ok()).map(|cmd| cmd.0);
    // `NODE_` alone is the program's: Node wants something behind it.
    Ok(cmd.filter(|cmd| cmd.len() > 5 && cmd.starts_with("NODE_")))
}

/// Whether this is `{"act":"suicide"}`, by which workers without cluster say that they fail.
pub(crate) fn is_suicide(user: &str) -> bool {
    user.trim_start().starts_with('{')
        && read::<Head<'_>>(user).is_ok_and(|head| {
            head.act.is_some_and(|act| read::<Text<'_>>(act.get()).is_ok_and(|t| t.0 == "suicide"))
        })
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|_| DecodeError::BadMessage)
}

/// How deep arrays and objects are nested at most.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// A JSON number that is a whole one within these bounds.
pub(crate) fn whole(number: f64, min: i64, max: i64) -> Option<i64> {
    let whole = number as i64;
    (whole as f64 == number && (min..=max).contains(&whole)).then_some(whole)
}

/// The number of a message of the other side, which counts from 0 in JavaScript's whole numbers.
pub(crate) fn seq(number: u64) -> Option<Seq> {
    if number < 1 << 53 { Seq::from_raw(number + 1) } else { None }
}

/// The number that the other side gave the message that this core number stands for.
pub(crate) fn wire_seq(seq: Seq) -> u64 {
    seq.get() - 1
}

/// What tells one server of a worker from its others, in a `queryServer` and the `listening` that
/// follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) address: Option<String>,
    pub(crate) port: i64,
    pub(crate) address_type: String,
    pub(crate) fd: i64,
    pub(crate) index: i64,
}

impl Cluster<'_> {
    /// How many connections may wait in the kernel; 0 is the default. It is `false` where the program
    /// says `listen(port, host, callback)`.
    pub(crate) fn backlog(&self) -> u32 {
        let number = self.backlog.and_then(|it| read::<f64>(it.get()).ok());
        number.map_or(0, |number| number as u32)
    }

    /// Which server this is about.
    pub(crate) fn server(&self) -> Option<Server> {
        let int = |number: Option<f64>, absent| match number {
            None => Some(absent),
            Some(number) => whole(number, -1, u32::MAX.into()),
        };
        Some(Server {
            address: self.address.as_ref().map(|text| text.0.clone().into_owned()),
            port: int(self.port, -1)?,
            address_type: self.address_type.map_or("null", RawValue::get).trim_matches('"').into(),
            fd: int(self.fd, -1)?,
            index: int(self.index, 0)?,
        })
    }

    /// What a `queryServer` asks for; `None` if it makes no sense.
    pub(crate) fn listen_key(&self) -> Option<ListenKey> {
        let Server { address, port, address_type, fd, index } = self.server()?;
        let transport = match &*address_type {
            "udp4" | "udp6" => Transport::Datagram,
            _ => Transport::Stream,
        };
        let port = || u16::try_from(port).ok();
        let address = match (address, &*address_type) {
            _ if fd >= 0 => Address::Fd(i32::try_from(fd).ok()?),
            (Some(path), "-1") => Address::Unix(path),
            (None, "udp4") => Address::Ip(SocketAddr::new([0, 0, 0, 0].into(), port()?)),
            (None, "udp6") => Address::Ip(SocketAddr::new(IpAddr::from([0_u16; 8]), port()?)),
            (None, "4" | "6" | "null") => Address::Any { port: port()? },
            (Some(ip), "4" | "6" | "udp4" | "udp6") => {
                Address::Ip(SocketAddr::new(ip.parse().ok()?, port()?))
            }
            _ => return None,
        };
        // libuv's UV_TCP_IPV6ONLY and UV_UDP_IPV6ONLY are both 1.
        let flags = self.flags.map_or(Some(0), |flags| whole(flags, 0, u32::MAX.into()))?;
        let v6_only = flags & 1 == 1;
        Some(ListenKey { address, transport, v6_only, index: u32::try_from(index).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn cluster(text: &str) -> Cluster<'_> {
        match parse(text.as_bytes()) {
            Ok(Line::Plain(Message::Cluster(cluster))) => cluster,
            other => panic!("{other:?}"),
        }
    }

    fn key(fields: &str) -> Option<ListenKey> {
        let text = format!(r#"{{"cmd":"NODE_CLUSTER","act":"queryServer",{fields},"seq":1}}"#);
        cluster(&text).listen_key()
    }

    #[test]
    fn what_is_internal() {
        let user = |text: &str| matches!(parse(text.as_bytes()), Ok(Line::Plain(Message::User(_))));
        for text in [
            "1",
            "-1",
            "\"NODE_HANDLE_ACK\"",
            "null",
            "true",
            "[]",
            "{}",
            r#"{"cmd":1}"#,
            r#"{"cmd":"NODE_"}"#,
            r#"{"cmd":"node_x"}"#,
            r#"{"cmd":{"a":1},"data":{}}"#,
            " {} ",
        ] {
            assert!(user(text), "{text}");
        }
        assert!(matches!(parse(br#"{"cmd":"NODE_X"}"#), Ok(Line::Plain(Message::Unknown))));
        assert!(matches!(parse(br#"{ "cmd" : "NODE_HANDLE_ACK" }"#), Ok(Line::HandleAck)));
        assert!(matches!(parse(br#"{"cmd":"NODE_HANDLE_NACK"}"#), Ok(Line::HandleNack)));
        let escaped = r#"{"cmd":"\u004eODE_CLUSTER","act":"online","seq":0}"#;
        assert_eq!(cluster(escaped).act.unwrap().0, "online");
    }

    #[test]
    fn nesting_has_an_end() {
        let depth = MAX_NESTING + 1;
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let beside = format!("[{}[]]", "[],".repeat(depth));
        let in_text = format!(r#"["\\\"{}", "]"]"#, "[".repeat(depth));
        for (text, is_too_deep) in [
            (&deep, true),
            (&format!("[1,{}]", &deep[1..deep.len() - 1]), true),
            (&format!(r#"["\"", {}]"#, &deep[1..deep.len() - 1]), true),
            (&deep[1..deep.len() - 1].into(), false),
            (&beside, false),
            (&in_text, false),
        ] {
            let refused = matches!(parse(text.as_bytes()), Err(DecodeError::NestedTooDeep));
            assert_eq!(refused, is_too_deep, "{text}");
        }
    }

    #[test]
    fn numbers_are_those_that_javascript_has() {
        assert_eq!(seq(0).map(wire_seq), Some(0));
        let last = (1 << 53) - 1;
        assert_eq!(seq(last).map(wire_seq), Some(last));
        assert_eq!(seq(last + 1), None);
    }

    #[test]
    fn what_is_wrapped() {
        let laden = br#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"a":1},"key":"x"}"#;
        let Ok(Line::Laden(kind, Message::User(user))) = parse(laden) else { panic!("user") };
        assert_eq!((kind, user), (Some(HandleKind::NetSocket), r#"{"a":1}"#));
        let laden = br#"{"cmd":"NODE_HANDLE","type":"tty.Thing","msg":{"cmd":"NODE_CLUSTER"}}"#;
        assert!(matches!(parse(laden), Ok(Line::Laden(None, Message::Cluster(_)))));
        let laden = br#"{"cmd":"NODE_HANDLE","type":"net.Server"}"#;
        assert!(matches!(parse(laden), Ok(Line::Laden(_, Message::User("null")))));
    }

    #[test]
    fn what_is_no_message() {
        for text in [
            "",
            "{",
            "nul",
            "{}{}",
            "[1,",
            "\"",
            "{\"cmd\":}",
            "\u{7f}",
            "{'a':1}",
            r#"{"cmd":"NODE_CLUSTER","seq":-1}"#,
            r#"{"cmd":"NODE_CLUSTER","accepted":1}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).err(), Some(DecodeError::BadMessage), "{text}");
        }
        assert_eq!(parse(b"\"\xff\"").err(), Some(DecodeError::BadMessage));
    }

    #[test]
    fn keys() {
        let any = key(r#""index":0,"data":null,"address":null,"port":80,"addressType":4"#);
        assert_eq!(any, Some(ListenKey::stream(Address::Any { port: 80 })));
        let ip = key(r#""index":0,"address":"127.0.0.1","port":80,"addressType":4,"flags":0"#);
        assert_eq!(ip, Some(ListenKey::stream(Address::Ip("127.0.0.1:80".parse().unwrap()))));
        let v6 = key(r#""index":2,"address":"::","port":80,"addressType":6,"flags":1"#).unwrap();
        assert_eq!((v6.v6_only, v6.index), (true, 2));
        let unix = key(r#""index":0,"address":"/x","port":-1,"addressType":-1"#);
        assert_eq!(unix, Some(ListenKey::stream(Address::Unix("/x".into()))));
        let udp = key(r#""address":"0.0.0.0","port":53,"addressType":"udp4","fd":-1"#).unwrap();
        assert_eq!(udp.transport, Transport::Datagram);
        for (kind, all) in [("udp4", "0.0.0.0:53"), ("udp6", "[::]:53")] {
            let all = Address::Ip(all.parse().unwrap());
            let udp = key(&format!(r#""address":null,"port":53,"addressType":"{kind}""#));
            assert_eq!(
                udp.map(|key| (key.transport, key.address)),
                Some((Transport::Datagram, all))
            );
        }
        let fd = key(r#""address":null,"port":null,"addressType":null,"fd":5"#).unwrap();
        assert_eq!(fd.address, Address::Fd(5));
        for bad in [
            r#""address":"nowhere","port":80,"addressType":4"#,
            r#""address":null,"addressType":4"#,
            r#""address":null,"port":65536,"addressType":4"#,
            r#""address":null,"port":1.5,"addressType":4"#,
            r#""address":null,"port":80,"addressType":{}"#,
            r#""address":null,"port":80,"addressType":4,"index":-1"#,
            r#""address":null,"port":80,"addressType":4,"fd":1e99"#,
        ] {
            assert_eq!(key(bad), None, "{bad}");
        }
    }

    #[test]
    fn suicides() {
        assert!(is_suicide(r#"{"act":"suicide"}"#));
        for other in [r#"{"act":"suicides"}"#, r#"{"act":1}"#, "\"suicide\"", "[\"suicide\"]"] {
            assert!(!is_suicide(other), "{other}");
        }
    }
}
