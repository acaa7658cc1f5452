//! What a primary's cluster message means to a worker.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::js;
use super::parse::{self, Cluster};
use crate::SockName;

/// What a primary's cluster message means to a worker.
pub(crate) enum WorkerMeaning {
    Disconnect,
    NewConn { seq: u64, key: Option<String> },
    Answered { ack: u64, reply: Reply },
}

pub(crate) struct Reply {
    pub(crate) errno: i64,
    pub(crate) key: Option<String>,
    pub(crate) data: Vec<u8>,
    pub(crate) sockname: Option<SockName>,
}

/// EINVAL, as Node writes it.
const EINVAL: i64 = -22;

impl WorkerMeaning {
    /// What this message means, if anything.
    pub(crate) fn of(cluster: &Cluster<'_>) -> Option<Self> {
        let key = || cluster.key.and_then(js::text).map(Cow::into_owned);
        if let Some(ack) = cluster.ack {
            let ack = parse::count(ack)?;
            return Some(WorkerMeaning::Answered { ack, reply: reply(cluster, key()) });
        }
        match (cluster.act().as_deref(), cluster.seq()) {
            (Some("newconn"), Some(seq)) => Some(WorkerMeaning::NewConn { seq, key: key() }),
            (Some("disconnect"), _) => Some(WorkerMeaning::Disconnect),
            _ => None,
        }
    }
}

fn reply(cluster: &Cluster<'_>, key: Option<String>) -> Reply {
    let errno = cluster.errno.map_or(0.0, js::number);
    // A value that is not an error number is an error all the same.
    let errno = js::whole(errno, i32::MIN.into(), i32::MAX.into()).unwrap_or(EINVAL);
    let data = cluster.data.map_or("null", |data| data.get()).into();
    let name = cluster.sockname.and_then(|name| js::fields(name.get(), &["address", "port"]));
    let sockname = name.and_then(|[address, port]| {
        let port = js::whole(js::number(port?), 0, u16::MAX.into())?;
        // The part after `%` names an interface of the primary's machine, which is ours too; the
        // core has no use for it.
        let text = js::text(address?)?;
        let ip = text.split('%').next()?.parse().ok()?;
        Some(SockName::Ip(SocketAddr::new(ip, u16::try_from(port).ok()?)))
    });
    Reply { errno, key, data, sockname }
}
