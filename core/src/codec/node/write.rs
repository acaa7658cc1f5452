//! Lines as they are written: fields and their order as Node has them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::SocketAddr;

use serde_json::value::RawValue;

use super::handle_kind::HandleKind;
use super::host::Host;
use super::query::is_link_local;
use crate::{DecodeError, SockName};

/// A buffer of bytes that text is written to. Writing never fails.
pub(crate) struct Out<'a>(pub(crate) &'a mut Vec<u8>);

impl Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Appends a line. The text has no line end in it.
pub(crate) fn line(bytes: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let _ = Out(bytes).write_fmt(text);
    bytes.push(b'\n');
}

/// Appends a line with a handle.
pub(crate) fn laden(bytes: &mut Vec<u8>, kind: HandleKind, msg: fmt::Arguments<'_>) {
    let kind = kind.name();
    line(bytes, format_args!(r#"{{"cmd":"NODE_HANDLE","type":"{kind}","msg":{msg}}}"#));
}

/// A message of the program, as a line; with a handle, wrapped.
pub(crate) fn user_line(json: &str, kind: Option<HandleKind>) -> Result<Vec<u8>, DecodeError> {
    let json = one_line(json.as_bytes()).ok_or(DecodeError::BadMessage)?;
    let mut bytes = Vec::new();
    match kind {
        None => line(&mut bytes, format_args!("{json}")),
        Some(kind) => laden(&mut bytes, kind, format_args!("{json}")),
    }
    Ok(bytes)
}

/// A string with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    // Strings can always be written.
    serde_json::to_string(text).unwrap_or_default()
}

/// The JSON in these bytes without line ends, if they are JSON.
pub(crate) fn one_line(bytes: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(bytes).ok()?;
    let json: &RawValue = serde_json::from_str(text).ok()?;
    // Outside of strings a line end is white space, and inside it can't occur.
    Some(json.get().replace(['\n', '\r'], " "))
}

/// Says that none of the connections that the other side sent are left, under the server's key.
pub(crate) fn all_closed(key: &RawValue) -> Vec<u8> {
    let mut bytes = Vec::new();
    line(&mut bytes, format_args!(r#"{{"cmd":"NODE_SOCKET_ALL_CLOSED","key":{key}}}"#));
    bytes
}

/// Says how many of the connections that the other side sent are left: none.
pub(crate) fn none_left(key: &RawValue) -> Vec<u8> {
    let mut bytes = Vec::new();
    line(&mut bytes, format_args!(r#"{{"cmd":"NODE_SOCKET_COUNT","key":{key},"count":0}}"#));
    bytes
}

/// The `sockname` of a reply with a comma before it; nothing for a unix socket. An address that is
/// valid on one interface only has the interface's name behind it, as in Node.
pub(crate) fn sockname(name: &SockName, host: &Host) -> String {
    let SockName::Ip(addr) = name else { return String::new() };
    let family = if addr.is_ipv4() { "IPv4" } else { "IPv6" };
    let (ip, port) = (addr.ip(), addr.port());
    let zone = match addr {
        SocketAddr::V6(addr) if is_link_local(addr.ip()) => (host.interface_name)(addr.scope_id()),
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    };
    let zone = zone.map(|zone| alloc::format!("%{zone}")).unwrap_or_default();
    let address = quoted(&alloc::format!("{ip}{zone}"));
    alloc::format!(r#","sockname":{{"address":{address},"family":"{family}","port":{port}}}"#)
}
