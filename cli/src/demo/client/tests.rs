use super::*;

/// The request, and the length of its head and body.
fn found(text: &str) -> (Request, usize) {
    parse(text.as_bytes()).unwrap_or_else(|| panic!("{text:?} is not whole"))
}

fn then(text: &str) -> Then {
    found(text).0.3
}

#[test]
fn routes() {
    for (path, ms, then) in [
        ("/", 0, Then::Next),
        ("/?x=1", 0, Then::Next),
        ("/spin", 0, Then::Next),
        ("/sleep?ms=250", 250, Then::Next),
        ("/crash", 0, Then::Crash),
        ("/exit?code=7", 0, Then::Exit(7)),
    ] {
        let (request, ..) = found(&format!("GET {path} HTTP/1.1\r\n\r\n"));
        assert_eq!(request, ("200 OK", true, ms, then), "{path}");
    }
    for path in ["/sleep?ms=60001", "/sleep", "/exit?code=256", "/nothing"] {
        assert_eq!(route(path), ("404 Not Found", 0, Then::Next), "{path}");
    }
}

#[test]
fn keep_alive_is_the_default_of_1_1_only() {
    assert_eq!(then("GET / HTTP/1.1\r\n\r\n"), Then::Next);
    assert_eq!(then("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"), Then::Close);
    assert_eq!(then("GET / HTTP/1.1\r\nConnection: TE, close\r\n\r\n"), Then::Close);
    assert_eq!(then("GET / HTTP/1.0\r\n\r\n"), Then::Close);
    assert_eq!(then("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"), Then::Next);
    assert_eq!(then("GET /crash HTTP/1.1\r\nConnection: close\r\n\r\n"), Then::Crash);
}

#[test]
fn bodies_and_what_is_no_request() {
    const BAD: &str = "400 Bad Request";
    const TOO_LONG: &str = "431 Request Header Fields Too Large";
    let head = found("HEAD / HTTP/1.1\r\nContent-Length: 12\r\n\r\n");
    assert_eq!(head, (("200 OK", false, 0, Then::Next), 39 + 12));
    let status = |text: &str| {
        let (request, length) = found(text);
        assert_eq!((request.3, length), (Then::Linger, text.len()));
        request.0
    };
    let with = |header: &str| status(&format!("GET / HTTP/1.1\r\n{header}\r\n\r\n"));
    assert_eq!(with("Transfer-Encoding: chunked"), "411 Length Required");
    assert_eq!(with("Content-Length: 99999999999999999999"), BAD);
    assert_eq!(status("\x16\x03\x01 hello"), BAD);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD))), TOO_LONG);
    assert_eq!(with("X: x\r\n".repeat(100).trim_end()), TOO_LONG);
    assert_eq!(parse(b"GET / HT"), None);
}
