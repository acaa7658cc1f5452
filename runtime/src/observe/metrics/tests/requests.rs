//! The heads of requests.

use super::super::request::{Question, Refused, Request, parse};

fn whole(text: &str) -> Request {
    let (request, length) = parse(text.as_bytes()).unwrap().expect("a whole request");
    assert_eq!(length, text.len(), "{text:?}");
    request
}

#[test]
fn paths_and_methods() {
    for (line, question) in [
        ("GET /metrics", Question::Metrics),
        ("HEAD /metrics", Question::Metrics),
        ("GET /metrics?name[]=x", Question::Metrics),
        ("GET /healthz", Question::Health),
        ("GET /readyz?", Question::Ready),
        ("GET /", Question::Other(Refused::UnknownPath)),
        ("GET /metrics/", Question::Other(Refused::UnknownPath)),
        ("GET http://x/metrics", Question::Other(Refused::UnknownPath)),
        ("POST /metrics", Question::Other(Refused::OtherMethod)),
        ("get /metrics", Question::Other(Refused::OtherMethod)),
    ] {
        let request = whole(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let head_only = line.starts_with("HEAD");
        assert_eq!(request, Request { question, head_only, is_last: false }, "{line}");
    }
}

#[test]
fn the_last_request_of_a_client() {
    for (rest, is_last) in [
        ("HTTP/1.1\r\n", false),
        ("HTTP/1.1\r\nConnection: keep-alive\r\n", false),
        ("HTTP/1.1\r\nX: close\r\nContent-Length: 0\r\n", false),
        ("HTTP/1.0\r\n", true),
        ("HTTP/1.1\r\nconnection: te, Close\r\n", true),
        ("HTTP/1.1\r\nContent-Length: 7\r\n", true),
        ("HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", true),
    ] {
        assert_eq!(whole(&format!("GET /metrics {rest}\r\n")).is_last, is_last, "{rest:?}");
    }
}

#[test]
fn what_is_no_request() {
    let fields = "a: b\r\n".repeat(65);
    for (bytes, why) in [
        ("\u{16}\u{3}\u{1}\u{2}", Refused::Malformed),
        ("GET /metrics HTTP/2.0\r\n", Refused::Malformed),
        ("GET\r\n\r\n", Refused::Malformed),
        ("GET /metrics HTTP/1.1\r\n: x\r\n", Refused::Malformed),
        (&format!("GET / HTTP/1.1\r\n{fields}\r\n"), Refused::TooLong),
    ] {
        assert_eq!(parse(bytes.as_bytes()), Err(why), "{bytes:?}");
    }
}
