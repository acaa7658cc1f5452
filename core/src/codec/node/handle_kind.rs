//! What a handle is, as Node calls it.

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
    /// As it is written on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            HandleKind::NetNative => "net.Native",
            HandleKind::NetServer => "net.Server",
            HandleKind::NetSocket => "net.Socket",
            HandleKind::DgramNative => "dgram.Native",
            HandleKind::DgramSocket => "dgram.Socket",
        }
    }

    #[cfg(feature = "node")]
    pub(super) fn from_name(name: &str) -> Option<Self> {
        use HandleKind::*;
        [NetNative, NetServer, NetSocket, DgramNative, DgramSocket]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}
