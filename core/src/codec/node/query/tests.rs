//! What workers may ask for.

use alloc::format;
use alloc::string::ToString;

use super::*;
use crate::node::parse::{self, Line, Message};

/// A machine with one interface, whose primary runs in a long directory.
const HOST: Host = Host {
    interface_number: |name| if name == "eth0" { 7 } else { 0 },
    interface_name: |number| (number == 7).then(|| "eth0".to_string()),
    relative_path: |path| path.strip_prefix(&format!("/{}/", "d".repeat(120))).map(String::from),
};

fn query(fields: &str) -> Result<Query, Errno> {
    let text = format!(r#"{{"cmd":"NODE_CLUSTER","act":"queryServer",{fields},"seq":1}}"#);
    match parse::parse(text.as_bytes()) {
        Ok(Line::Plain(Message::Cluster(cluster))) => cluster.query(&HOST),
        other => panic!("{other:?}"),
    }
}

fn key(fields: &str) -> Option<ListenKey> {
    query(fields).ok().map(|query| query.key)
}

fn address(fields: &str) -> Option<String> {
    key(fields).map(|key| key.address.to_string())
}

#[test]
fn queries_written_by_node_parse() {
    let any = key(r#""index":0,"data":null,"address":null,"port":80,"addressType":4"#);
    assert_eq!(any, Some(ListenKey::stream(Address::Any { port: 80 })));
    let ip = key(r#""index":0,"address":"127.0.0.1","port":80,"addressType":4,"flags":0"#);
    assert_eq!(ip, Some(ListenKey::stream(Address::Ip("127.0.0.1:80".parse().unwrap()))));
    let v6 = key(r#""index":2,"address":"::","port":80,"addressType":6,"flags":1"#).unwrap();
    assert_eq!((v6.v6_only, v6.index), (true, 2));
    let any = key(r#""index":0,"address":null,"port":80,"addressType":4,"flags":1"#).unwrap();
    assert_eq!((any.v6_only, any.address), (true, Address::Any { port: 80 }));
    let v4 = key(r#""index":0,"address":"1.2.3.4","port":80,"addressType":4,"flags":1"#).unwrap();
    assert!(!v4.v6_only, "it means nothing there");
    let unix = key(r#""index":0,"address":"/x","port":-1,"addressType":-1,"backlog":0"#);
    assert_eq!(unix, Some(ListenKey::stream(Address::Unix("/x".into()))));
    let fd = key(r#""address":null,"port":null,"addressType":null,"fd":5,"backlog":0"#).unwrap();
    assert_eq!((fd.address, fd.transport), (Address::Fd(5), Transport::Stream));
    let fd = key(r#""address":null,"port":null,"addressType":"udp4","fd":5,"flags":null"#).unwrap();
    assert_eq!((fd.address, fd.transport), (Address::Fd(5), Transport::Datagram));
}

/// Node makes them absolute as if they were paths.
#[test]
fn abstract_names() {
    let here = format!("/{}/\\u0000x", "d".repeat(120));
    for path in [r"\u0000x", &here] {
        let fields = format!(r#""address":"{path}","port":-1,"addressType":-1"#);
        assert_eq!(address(&fields).as_deref(), Some("unix:@x"));
    }
    let elsewhere = r#""address":"/some/where/\u0000x","port":-1,"addressType":-1"#;
    assert_eq!(address(elsewhere), None, "as under Node's primary");
    let of_length = |length| {
        let name = "x".repeat(length);
        address(&format!(r#""address":"\u0000{name}","port":-1,"addressType":-1"#))
    };
    assert_eq!(
        [0, 1, 107, 108].map(|length| of_length(length).is_some()),
        [false, true, true, false]
    );
}

/// Each port was tried on the primaries of Node 20 and 26.
#[test]
fn ports_are_what_javascript_makes_of_them() {
    for (port, bound) in [
        (r#","port":53"#, 53),
        (r#","port":"53""#, 53),
        (r#","port":" 18099 ""#, 18_099),
        (r#","port":"0x46A0""#, 18_080),
        (r#","port":"1e4""#, 10_000),
        (r#","port":8080.0"#, 8_080),
        (r#","port":1e3"#, 1_000),
        (r#","port":18096.5"#, 18_096),
        (r#","port":65536"#, 0),
        (r#","port":true"#, 1),
        (r#","port":"""#, 0),
        (r#","port":"abc""#, 0),
        (r#","port":null"#, 0),
        (r#","port":1e999"#, 0),
        (r#","port":{}"#, 0),
        ("", 0),
    ] {
        let udp = |kind: &str, ip: &str| {
            let ip = if ip.is_empty() { "null".into() } else { format!("\"{ip}\"") };
            address(&format!(
                r#""index":0,"data":null,"address":{ip},"addressType":"{kind}","fd":-1,"flags":0{port}"#
            ))
        };
        assert_eq!(udp("udp4", "127.0.0.1"), Some(format!("127.0.0.1:{bound}")), "{port}");
        assert_eq!(udp("udp4", ""), Some(format!("0.0.0.0:{bound}")), "{port}");
        assert_eq!(udp("udp6", ""), Some(format!("[::]:{bound}")), "{port}");
    }
    // The worker takes the address for a path, and makes it absolute.
    let below = r#""address":"/srv/app/0.0.0.0","port":-1,"addressType":"udp4","fd":-1,"flags":0"#;
    assert_eq!(address(below).as_deref(), Some("0.0.0.0:65535"));
    for (port, bound) in [("\"8080\"", 8_080), ("8080.0", 8_080), ("null", 0), ("true", 1)] {
        let tcp = address(&format!(r#""address":null,"port":{port},"addressType":4"#));
        assert_eq!(tcp, Some(format!("*:{bound}")), "{port}");
    }
}

/// Node's primary has a separate key for each.
#[test]
fn ports_that_are_written_otherwise_are_other_servers() {
    let udp = |port: &str| {
        key(&format!(r#""index":1,"address":null,"addressType":"udp4","fd":-1,"flags":0{port}"#))
    };
    let written = [r#","port":0"#, "", r#","port":null"#, r#","port":"0""#];
    for (at, one) in written.iter().enumerate() {
        assert_eq!(udp(one), udp(one));
        for other in &written[..at] {
            assert_ne!(udp(one), udp(other), "{one} and {other}");
        }
    }
    assert_eq!(udp(r#","port":"53""#), udp(r#","port":53"#), "one port");
}

#[test]
fn an_address_is_valid_on_the_interface_behind_it() {
    let tcp = |ip: &str| address(&format!(r#""address":"{ip}","port":80,"addressType":6"#));
    assert_eq!(tcp("fe80::1%eth0").as_deref(), Some("[fe80::1%7]:80"));
    assert_eq!(tcp("ff02::fb%eth0").as_deref(), Some("[ff02::fb%7]:80"));
    assert_eq!(tcp("fe80::1%none").as_deref(), Some("[fe80::1]:80"), "the kernel says no");
    // Elsewhere the interface means nothing: this is one address.
    assert_eq!(tcp("::1%eth0").as_deref(), Some("[::1]:80"));
    assert_eq!(tcp("::1").as_deref(), Some("[::1]:80"));
    assert_eq!(tcp("127.0.0.1%eth0"), None);
    let udp = r#""address":"fe80::1%eth0","port":0,"addressType":"udp6","fd":-1"#;
    assert_eq!(address(udp).as_deref(), Some("[fe80::1%7]:0"));
}

#[test]
fn a_long_path_is_taken_from_the_directory_of_the_primary() {
    let unix = |path: &str| {
        query(&format!(r#""address":"{path}","port":-1,"addressType":-1"#)).map(|it| it.key.address)
    };
    let directory = "d".repeat(120);
    assert_eq!(unix(&format!("/{directory}/s")), Ok(Address::Unix("s".into())));
    let fits = "f".repeat(106);
    assert_eq!(unix(&format!("/{fits}")), Ok(Address::Unix(format!("/{fits}"))));
    for bad in [
        format!("/{}", "f".repeat(107)),
        format!("/{directory}/{}", "f".repeat(108)),
        "/a\\u0000b".replace("\\\\", "\\"),
    ] {
        assert_eq!(unix(&bad).err(), Some(Errno::EINVAL), "{bad}");
    }
    assert_eq!(unix("/a\\ud800b").ok(), Some(Address::Unix("/a\u{FFFD}b".into())));
}

#[test]
fn flags_and_modes() {
    let udp = |flags: &str| {
        key(&format!(r#""address":"::","port":5353,"addressType":"udp6","flags":{flags}"#))
    };
    let of = |flags| udp(flags).map(|key| (key.transport, key.v6_only));
    assert_eq!(of("0"), Some((Transport::Datagram, false)));
    assert_eq!(of("1"), Some((Transport::Datagram, true)));
    assert_eq!(of("4"), Some((Transport::DatagramReuse, false)));
    assert_eq!(of("5"), Some((Transport::DatagramReuse, true)));
    let tcp = key(r#""address":"::","port":80,"addressType":6,"flags":5"#).unwrap();
    assert_eq!((tcp.transport, tcp.v6_only), (Transport::Stream, true));
    for (wish, mode) in [
        ("", 0),
        (r#","readableAll":true"#, 0o444),
        (r#","writableAll":true,"readableAll":false"#, 0o222),
        (r#","writableAll":1,"readableAll":true"#, 0o666),
    ] {
        let text = format!(r#"{{"cmd":"NODE_CLUSTER","address":"/s","port":-1{wish}}}"#);
        let Ok(Line::Plain(Message::Cluster(cluster))) = parse::parse(text.as_bytes()) else {
            panic!("no message of the cluster's")
        };
        assert_eq!(cluster.server().mode, mode, "{wish}");
    }
}

#[test]
fn backlogs() {
    for (said, meant) in [
        ("false", 0),
        ("null", 0),
        ("0", 0),
        ("7", 7),
        ("\"17\"", 17),
        ("1.5", 1),
        ("{}", 0),
        ("-1", u32::MAX),
        ("1e300", u32::MAX),
    ] {
        let query = query(&format!(r#""address":null,"port":80,"addressType":4,"backlog":{said}"#));
        assert_eq!(query.map(|query| query.backlog), Ok(meant), "{said}");
    }
}

#[test]
fn senseless_queries_are_invalid() {
    for bad in [
        r#""address":"nowhere","port":80,"addressType":4"#,
        r#""address":null,"addressType":4"#,
        r#""address":null,"port":-1,"addressType":-1"#,
        r#""address":"","port":-1,"addressType":-1"#,
        r#""address":null,"port":65536,"addressType":4"#,
        r#""address":null,"port":1.5,"addressType":4"#,
        r#""address":null,"port":1e999,"addressType":4"#,
        r#""address":null,"port":"abc","addressType":4"#,
        r#""address":null,"port":80,"addressType":4,"index":-1"#,
        r#""address":null,"port":80,"addressType":4,"index":"x""#,
        r#""address":null,"port":80,"addressType":4,"fd":1e99"#,
        r#""address":null,"port":80,"addressType":4,"fd":1.5"#,
        r#""address":"::1","port":80,"addressType":"udp4""#,
        r#""address":"127.0.0.1","port":80,"addressType":"udp6""#,
        r#""address":"localhost","port":80,"addressType":"udp4""#,
    ] {
        assert_eq!(query(bad).err(), Some(Errno::EINVAL), "{bad}");
    }
}

#[test]
fn servers_are_told_apart_by_what_they_are_asked_with() {
    let server = |fields: &str| {
        let text = format!(r#"{{"cmd":"NODE_CLUSTER","act":"listening",{fields}}}"#);
        match parse::parse(text.as_bytes()) {
            Ok(Line::Plain(Message::Cluster(cluster))) => cluster.server(),
            other => panic!("{other:?}"),
        }
    };
    let asked = server(r#""index":1,"address":"::","port":"80","addressType":6"#);
    assert_eq!(asked, server(r#""index":1,"address":"::","port":80,"addressType":6,"fd":null"#));
    for other in [
        r#""index":0,"address":"::","port":80,"addressType":6"#,
        r#""index":1,"address":null,"port":80,"addressType":6"#,
        r#""index":1,"address":"::","port":81,"addressType":6"#,
        r#""index":1,"address":"::","port":80,"addressType":"udp6""#,
        r#""index":1,"address":"::","port":80,"addressType":6,"fd":3"#,
    ] {
        assert_ne!(asked, server(other), "{other}");
    }
    let long = "x".repeat(100_000);
    let server = server(&format!(r#""address":"{long}","port":1e300,"addressType":"{long}""#));
    assert_eq!(server.address.map(|it| it.len()), Some(MAX_TEXT));
    assert_eq!(server.address_type.len(), MAX_TEXT);
}
