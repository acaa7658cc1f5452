//! A worker that is a Node program, as naive as the description of its wire: it acknowledges each
//! handle at once, takes messages in order, and says `accepted` when it takes a connection. While a
//! handle of its own is unanswered it holds back everything but those acknowledgements.

use roundel_core::{Address, ListenKey, Transport};
use serde_json::Value;

use super::pipe::Read;
use super::program::{Channel, Reading, Saw};
use super::socket::{Handle, Socket};

/// Node and the program in it.
#[derive(Debug, Default)]
pub struct Node {
    line: Vec<u8>,
    /// The handle of a line that has not ended.
    pending: Option<Handle>,
    seq: u64,
    servers: Vec<Server>,
    /// What is not written because a handle of its own is unanswered.
    held_back: Option<Vec<String>>,
    delivered: Vec<Socket>,
    answered: Option<u64>,
    /// It has as many connections as it wants.
    full: bool,
    leaving: bool,
    /// It has said that it leaves and waits for the answer, of this number.
    leave_notice: Option<u64>,
    disconnected: bool,
    /// It knows nothing of cluster, and is given what it listens on.
    alone: bool,
    said_ready: bool,
    /// What happened that a test wants to know of.
    pub saw: Saw,
}

#[derive(Debug)]
struct Server {
    listen: ListenKey,
    fields: String,
    asked: u64,
    key: Option<String>,
}

/// How much Node reads at once. It takes a handle for that of the next message that wants one, so
/// it relies on what the kernel does: a send as short as these is never cut.
const ONE_READ: usize = 64 * 1024;

/// Its answer to a handle.
const HANDLE_ACK: &str = "{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
/// Its answer to a message that says that a handle comes, without one.
const HANDLE_NACK: &str = "{\"cmd\":\"NODE_HANDLE_NACK\"}\n";

impl Node {
    /// A program that has just started, and says so.
    pub fn new(channel: &mut Channel) -> Node {
        let mut node = Node::default();
        node.say(channel, r#""act":"online""#);
        node
    }

    /// A program that knows nothing of cluster.
    pub fn without_cluster() -> Node {
        Node { alone: true, ..Node::default() }
    }

    fn say(&mut self, channel: &mut Channel, fields: &str) -> u64 {
        if self.alone {
            return 0;
        }
        let seq = self.seq;
        self.seq += 1;
        self.send(channel, format!("{{\"cmd\":\"NODE_CLUSTER\",{fields},\"seq\":{seq}}}\n"));
        seq
    }

    /// Reports what the preload of `--node-assist` sees, which is loaded only where cluster is.
    pub fn report(&mut self, channel: &mut Channel, fields: &str) {
        if !self.alone {
            self.send(channel, format!("{{\"cmd\":\"NODE_CLUSTER\",{fields}}}\n"));
        }
    }

    /// Sends a line, once nothing of its own is unanswered.
    pub fn send(&mut self, channel: &mut Channel, line: String) {
        match &mut self.held_back {
            Some(lines) => {
                self.saw.held_back += u64::from(line.contains("accepted"));
                lines.push(line);
            }
            // Its buffer is large; nobody but a stopped primary could fill it.
            None => {
                let _ = channel.up.write(line.as_bytes(), []);
            }
        }
    }

    /// Sends a handle of its own, and holds everything back until it is answered.
    pub fn send_handle(&mut self, channel: &mut Channel) {
        if self.held_back.is_none() {
            let line = "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":{\"own\":1}}\n";
            if channel.up.write(line.as_bytes(), [Handle::Other]).is_ok() {
                self.held_back = Some(Vec::new());
            }
        }
    }

    /// Reads what is there, in the way that `reading` says.
    pub fn read(&mut self, channel: &mut Channel, reading: &mut Reading<'_>) {
        let mut bytes = 0;
        while !self.disconnected && bytes < reading.budget {
            let mut handles = Vec::new();
            let start = self.line.len();
            match channel.down.read(ONE_READ, &mut self.line, &mut handles) {
                Read::Bytes(count) => bytes += count,
                Read::Empty => break,
                Read::Reset | Read::End => {
                    self.leaving = true;
                    return self.disconnect(channel);
                }
            }
            let came = handles.len();
            handles.truncate(reading.room);
            self.saw.lost_handles += (came - handles.len()) as u64;
            if let Some(handle) = handles.pop() {
                self.pending = Some(handle);
            }
            self.split(channel, start);
        }
    }

    fn split(&mut self, channel: &mut Channel, mut scan: usize) {
        let mut lines = 0;
        let buffer = std::mem::take(&mut self.line);
        let mut used = 0;
        while let Some(length) = buffer[scan..].iter().position(|&byte| byte == b'\n') {
            let end = scan + length;
            match serde_json::from_slice(&buffer[used..end]) {
                Ok(value) => self.hear(channel, &value),
                Err(error) => {
                    self.saw.wrong.get_or_insert(format!("Node can't read: {error}"));
                }
            }
            lines += 1;
            used = end + 1;
            scan = used;
        }
        self.line = buffer;
        self.line.drain(..used);
        self.saw.merged_reads += u64::from(lines > 1);
    }

    fn hear(&mut self, channel: &mut Channel, value: &Value) {
        if value == "shutdown" {
            self.leaving = true;
            return self.close_all(channel);
        }
        match value["cmd"].as_str() {
            Some("NODE_HANDLE_ACK" | "NODE_HANDLE_NACK") => {
                for line in self.held_back.take().unwrap_or_default() {
                    self.send(channel, line);
                }
            }
            Some("NODE_HANDLE") => {
                let handle = self.pending.take();
                let answer = if handle.is_some() { HANDLE_ACK } else { HANDLE_NACK };
                let _ = channel.up.write(answer.as_bytes(), []);
                if handle.is_some() {
                    self.take_in(channel, &value["msg"], handle);
                }
            }
            Some("NODE_CLUSTER") => self.take_in(channel, value, None),
            _ => {}
        }
    }

    fn take_in(&mut self, channel: &mut Channel, msg: &Value, handle: Option<Handle>) {
        if let Some(ack) = msg["ack"].as_u64() {
            return self.on_answer(channel, ack, msg);
        }
        match msg["act"].as_str() {
            Some("newconn") => {
                let known = self.servers.iter().any(|s| s.key.as_deref() == msg["key"].as_str());
                let accepted = known && !self.full;
                let ack = msg["seq"].as_u64().unwrap_or_default();
                self.answered = Some(ack);
                self.say(channel, &format!("\"ack\":{ack},\"accepted\":{accepted}"));
                if let (true, Some(Handle::Conn(socket))) = (accepted, handle) {
                    self.delivered.push(socket);
                }
            }
            Some("disconnect") => {
                self.leaving = true;
                self.close_all(channel);
            }
            _ => {}
        }
    }

    fn on_answer(&mut self, channel: &mut Channel, ack: u64, msg: &Value) {
        if self.leave_notice == Some(ack) {
            return self.disconnect(channel);
        }
        let Some(at) = self.servers.iter().position(|s| s.asked == ack && s.key.is_none()) else {
            return;
        };
        let failed = msg["errno"].as_i64().unwrap_or_default() != 0;
        if failed || self.leaving {
            self.servers.remove(at);
            return;
        }
        self.servers[at].key = msg["key"].as_str().map(str::to_owned);
        let fields = self.servers[at].fields.clone();
        self.say(channel, &format!("\"act\":\"listening\",{fields}"));
    }

    /// Asks to listen.
    pub fn ask(&mut self, key: &ListenKey, channel: &mut Channel) {
        let (Address::Ip(addr), Transport::Stream) = (&key.address, key.transport) else { return };
        if self.leaving || self.alone {
            return;
        }
        // Counts the servers of this worker at one address.
        let index = self.servers.iter().filter(|s| s.listen == *key).count();
        let (ip, port) = (addr.ip(), addr.port());
        let fields = format!(
            r#""index":{index},"data":null,"address":"{ip}","port":{port},"addressType":4,"flags":0,"backlog":0"#
        );
        let asked = self.say(channel, &format!("\"act\":\"queryServer\",{fields}"));
        self.servers.push(Server { listen: key.clone(), fields, asked, key: None });
    }

    /// What of this it has not asked for.
    pub fn lacks(&self, keys: &[ListenKey]) -> Option<ListenKey> {
        if self.alone {
            return None;
        }
        let has = |key: &&ListenKey| !self.servers.iter().any(|s| s.listen == **key);
        keys.iter().find(has).cloned()
    }

    /// Closes the nth server.
    pub fn close(&mut self, nth: usize, channel: &mut Channel) {
        let held: Vec<usize> =
            (0..self.servers.len()).filter(|&at| self.servers[at].key.is_some()).collect();
        if !held.is_empty() {
            let server = self.servers.remove(held[nth % held.len()]);
            self.say_close(channel, server);
        }
    }

    fn say_close(&mut self, channel: &mut Channel, server: Server) {
        if let Some(key) = server.key {
            self.say(channel, &format!("\"act\":\"close\",\"key\":\"{key}\""));
        }
    }

    fn close_all(&mut self, channel: &mut Channel) {
        for server in std::mem::take(&mut self.servers) {
            self.say_close(channel, server);
        }
    }

    /// Leaves of its own will.
    pub fn leave(&mut self, channel: &mut Channel) {
        if !self.leaving {
            self.leaving = true;
            self.close_all(channel);
            let leave_notice = self.say(channel, "\"act\":\"exitedAfterDisconnect\"");
            self.leave_notice = (!self.alone).then_some(leave_notice);
        }
    }

    /// Closes its end.
    pub fn disconnect(&mut self, channel: &mut Channel) {
        if !std::mem::replace(&mut self.disconnected, true) {
            channel.worker_closes();
        }
    }

    /// Says once that it is ready.
    pub fn ready(&mut self, channel: &mut Channel) {
        if !std::mem::replace(&mut self.said_ready, true) {
            self.send(channel, "\"ready\"\n".into());
        }
    }

    /// Declines what comes, or not.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// The number that it answered last, as on the wire.
    pub fn answered(&self) -> Option<u64> {
        self.answered
    }

    /// What the program was given since the last call.
    pub fn take_delivered(&mut self) -> Vec<Socket> {
        std::mem::take(&mut self.delivered)
    }

    /// Whether it is on its way out.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether it may exit: told to leave, or confirmed.
    pub fn is_done(&self) -> bool {
        self.leaving
            && (self.leave_notice.is_none() || self.disconnected)
            && self.held_back.is_none()
    }
}
