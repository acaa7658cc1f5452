//! What an HTTP client asks for.

use httparse::{EMPTY_HEADER, Status};

/// How many header fields a request may have.
const MAX_FIELDS: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// `/metrics`.
    Metrics,
    /// `/healthz`: does the primary run?
    Health,
    /// `/readyz`: should clients be sent here?
    Ready,
    /// Something that there is not.
    Other(Refused),
}

/// The head of a request, which is all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) question: Question,
    /// The client wants the head of the answer alone.
    pub(super) head_only: bool,
    /// Nothing more is read from this client.
    pub(super) is_last: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Malformed,
    UnknownPath,
    OtherMethod,
    TooSlow,
    TooLong,
}

/// Reads the first request in some bytes: the request and its length, or `None` if more must come.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refused> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLong),
        Err(_) => return Err(Refused::Malformed),
    };
    let method = head.method.unwrap_or_default();
    let path = head.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let question = match (method, path) {
        ("GET" | "HEAD", "/metrics") => Question::Metrics,
        ("GET" | "HEAD", "/healthz") => Question::Health,
        ("GET" | "HEAD", "/readyz") => Question::Ready,
        ("GET" | "HEAD", _) => Question::Other(Refused::UnknownPath),
        _ => Question::Other(Refused::OtherMethod),
    };
    let has = |name: &str, is_meant: fn(&[u8]) -> bool| {
        head.headers.iter().any(|it| it.name.eq_ignore_ascii_case(name) && is_meant(it.value))
    };
    // What follows such a head is not the next request.
    let has_body = has("transfer-encoding", |_| true) || has("content-length", |it| it != b"0");
    let closes = has("connection", |value| {
        value.split(|byte| *byte == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    let is_last = has_body || closes || head.version != Some(1);
    Ok(Some((Request { question, head_only: method == "HEAD", is_last }, length)))
}
