//! As much of HTTP/1.1 as the demo worker speaks (RFC 9112).

use std::time::Duration;

/// The longest request head in bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// The longest body that is read and thrown away, in bytes.
const MAX_BODY: u64 = 1 << 20;
const MAX_HEADERS: usize = 64;
/// The longest `/sleep`.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// What the bytes of a client amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Nothing whole yet.
    Partial,
    Request(Request),
    /// Not to be answered but with this status; the connection is closed.
    Bad(Status),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Bytes of the head.
    pub(super) head: usize,
    /// Bytes of the body that follows.
    pub(super) body: u64,
    pub(super) keep_alive: bool,
    /// HEAD: the answer has no body.
    pub(super) head_only: bool,
    pub(super) route: Route,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Hello,
    Spin,
    Sleep(Duration),
    Crash,
    Exit(i32),
    Wrong(Status),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    LengthRequired,
    ContentTooLarge,
    HeadersTooLarge,
}

impl Status {
    pub(super) const fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::LengthRequired => "411 Length Required",
            Status::ContentTooLarge => "413 Content Too Large",
            Status::HeadersTooLarge => "431 Request Header Fields Too Large",
        }
    }
}

/// Reads the head of the next request.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => {
            return Parsed::Bad(Status::HeadersTooLarge);
        }
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(Status::HeadersTooLarge),
        Err(_) => return Parsed::Bad(Status::BadRequest),
    };
    if head > MAX_HEAD {
        return Parsed::Bad(Status::HeadersTooLarge);
    }
    let mut keep_alive = request.version == Some(1);
    let mut length: Option<u64> = None;
    for header in request.headers.iter() {
        let Ok(value) = std::str::from_utf8(header.value) else { continue };
        if header.name.eq_ignore_ascii_case("connection") {
            for word in value.split(',').map(str::trim) {
                if word.eq_ignore_ascii_case("close") {
                    keep_alive = false;
                } else if word.eq_ignore_ascii_case("keep-alive") {
                    keep_alive = true;
                }
            }
        } else if header.name.eq_ignore_ascii_case("content-length") {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            match value.parse() {
                // Two that differ are an attack on whoever is in front (RFC 9112, 6.3).
                Ok(said) if digits && length.is_none_or(|before| before == said) => {
                    length = Some(said);
                }
                _ => return Parsed::Bad(Status::BadRequest),
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Parsed::Bad(Status::LengthRequired);
        }
    }
    let body = length.unwrap_or(0);
    if body > MAX_BODY {
        return Parsed::Bad(Status::ContentTooLarge);
    }
    let head_only = request.method == Some("HEAD");
    let route = match request.method {
        Some("GET" | "HEAD" | "POST") => route(request.path.unwrap_or("/")),
        _ => Route::Wrong(Status::MethodNotAllowed),
    };
    Parsed::Request(Request { head, body, keep_alive, head_only, route })
}

fn route(target: &str) -> Route {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let number = |name: &str| -> Option<u32> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
    };
    match path {
        "/" => Route::Hello,
        "/spin" => Route::Spin,
        "/sleep" => match number("ms").map(|ms| Duration::from_millis(ms.into())) {
            Some(time) if time <= MAX_SLEEP => Route::Sleep(time),
            _ => Route::Wrong(Status::BadRequest),
        },
        "/crash" => Route::Crash,
        "/exit" => match number("code") {
            Some(code) if code < 256 => Route::Exit(code as i32),
            _ => Route::Wrong(Status::BadRequest),
        },
        _ => Route::Wrong(Status::NotFound),
    }
}

/// Appends an answer.
pub(super) fn answer(
    out: &mut Vec<u8>,
    status: Status,
    body: &str,
    keep_alive: bool,
    head_only: bool,
) {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        status.line(),
        body.len(),
    );
    out.extend_from_slice(head.as_bytes());
    if !head_only {
        out.extend_from_slice(body.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request) => request,
            other => panic!("{text:?} is {other:?}"),
        }
    }

    #[test]
    fn routes() {
        let route = |path: &str| request(&format!("GET {path} HTTP/1.1\r\n\r\n")).route;
        assert_eq!(route("/"), Route::Hello);
        assert_eq!(route("/?x=1"), Route::Hello);
        assert_eq!(route("/spin"), Route::Spin);
        assert_eq!(route("/sleep?ms=250"), Route::Sleep(Duration::from_millis(250)));
        assert_eq!(route("/sleep?ms=60001"), Route::Wrong(Status::BadRequest));
        assert_eq!(route("/sleep"), Route::Wrong(Status::BadRequest));
        assert_eq!(route("/crash"), Route::Crash);
        assert_eq!(route("/exit?code=7"), Route::Exit(7));
        assert_eq!(route("/exit?code=256"), Route::Wrong(Status::BadRequest));
        assert_eq!(route("/nothing"), Route::Wrong(Status::NotFound));
    }

    #[test]
    fn keep_alive_is_the_default_of_1_1_only() {
        assert!(request("GET / HTTP/1.1\r\n\r\n").keep_alive);
        assert!(!request("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n").keep_alive);
        assert!(!request("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(request("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn bodies_and_what_is_refused() {
        let posted = request("POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n");
        assert_eq!((posted.body, posted.head), (12, 39));
        let status = |text: &str| match parse(text.as_bytes()) {
            Parsed::Bad(status) => status,
            other => panic!("{text:?} is {other:?}"),
        };
        let with = |header: &str| status(&format!("GET / HTTP/1.1\r\n{header}\r\n\r\n"));
        assert_eq!(with("Transfer-Encoding: chunked"), Status::LengthRequired);
        assert_eq!(with("Content-Length: 1048577"), Status::ContentTooLarge);
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 2"), Status::BadRequest);
        assert_eq!(with("Content-Length: +1"), Status::BadRequest);
        assert_eq!(status("\x16\x03\x01 hello"), Status::BadRequest);
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(status(&long), Status::HeadersTooLarge);
        assert_eq!(parse(b"GET / HT"), Parsed::Partial);
        let deleted = request("DELETE / HTTP/1.1\r\n\r\n");
        assert_eq!(deleted.route, Route::Wrong(Status::MethodNotAllowed));
    }
}
