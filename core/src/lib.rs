//! The protocol between a cluster primary and its workers, as two state machines without IO.
//!
//! A *primary* owns the listening sockets, accepts connections and hands each one to one of its
//! *workers*; it keeps a connection until the worker has acknowledged it, gives it to another
//! worker if that one dies, and starts, drains and replaces workers. [`Primary`] and [`Worker`] are
//! the two ends of that conversation. They have no clock, open nothing, start nothing and log
//! nothing: the embedder tells them what happened, and they return what to do. The embedder brings
//! the sockets, the processes and the event loop.
//!
//! # How to drive a machine
//!
//! Three methods drive each machine:
//!
//! - [`handle_input`](Primary::handle_input)`(now, input)` tells it what happened. It fails only if
//!   the input is impossible ([`Misuse`]): that is a fault of the embedder, and the state is
//!   unchanged. What a worker does wrong is never an error here: the machine ends that worker
//!   instead.
//! - [`poll_output`](Primary::poll_output) returns the next thing to do, first in, first out. Carry
//!   the outputs out *in that order*, and never wait for one. Any number of inputs may come before
//!   the outputs are polled: the outputs are the same.
//! - [`poll_timeout`](Primary::poll_timeout) returns when the machine wants [`Input::Wake`].
//!   Deadlines act only in a `Wake`. Send it after every turn, once all channels have been read to
//!   would-block, so that no worker is judged before its answers are read.
//!
//! [`Time`] is an integer that must not go back. Connections themselves stay outside: the machine
//! moves [`ConnId`]s, which [`Custody`] mints for whatever stands for a connection. Exactly one
//! output ends each connection, [`Output::Release`], and only that takes it out of custody. So
//! `admitted == released + held` at any time, and the whole state of a machine can be compared,
//! hashed, stored and read back, and a [`journal`] replays a run from its inputs.
//!
//! # What the embedder does for each output
//!
//! | [`Output`] | to do | then report |
//! |---|---|---|
//! | `Bind` | bind and listen, do not accept | `Bound` |
//! | `ResumeAccept`, `PauseAccept` | accept, or stop | `Incoming` for each connection |
//! | `Unbind` | accept what is left, close | `Incoming`..., `Unbound` |
//! | `Close` | close at once | `Unbound` |
//! | `Spawn` | start a process with a channel | `Spawned` or `SpawnFailed` |
//! | `Send` | queue the message behind all earlier ones; the handle rides on its first byte | `HandoffFailed` only if it can never go |
//! | `Kill` | send the signal | `Exited` when the process was reaped |
//! | `ShutdownRead` | shut down our receiving side, read to the end | `ChannelClosed` |
//! | `Release` | take the connection out of custody, close this copy | |
//! | `Forget` | drop what you keep for that worker: nothing is left of it | |
//! | `Event` | log it | |
//! | `Stopped` | leave the loop | |
//!
//! [`docs::starting_workers`] describes what `Spawn` starts a process with. [`docs::embedding`]
//! describes the order of a turn, what a failed send means, and what is still read after a
//! violation, an exit or `ShutdownRead`.
//!
//! A worker's channel gives these inputs: `Hello` once its first byte shows the codec
//! ([`Codec::detect`]), a `Message` for each one that [`wire::Decoder`] yields, `Violation` for
//! what the decoder refuses, `FrameBegun` while an unfinished frame is left over, and
//! `ChannelClosed` at the end of file.
//!
//! # Three orderings that make "nothing is lost, nothing twice" true
//!
//! **The ack is in the kernel before the program has the connection.** A worker's machine outputs
//! `Send(Ack)`, and outputs `Deliver` only after the embedder has confirmed with
//! [`WorkerInput::Sent`] that the last byte of that ack is in the channel. A full channel holds the
//! connection back. So if a worker dies before that, it has not read a byte of the connection, and
//! another worker can serve it.
//!
//! **A worker is dead when its channel was read to its end.** Its exit alone moves nothing: an ack
//! that it wrote before may still be unread. `ChannelClosed` means end of file, and only then do
//! the connections that it had not answered go back to their places in their queues. If another
//! process holds the other end open, `ShutdownRead` brings about the end of file.
//!
//! **A late ack never leads to a second delivery.** If a worker answers nothing in time, it is not
//! just passed over: it is killed, and its connections move once its channel has ended. Otherwise
//! the slow worker and its stand-in could both serve one client.
//!
//! # The loop
//!
//! Here the loop runs on a fake reactor: its "sockets" accept two connections, and its one "worker"
//! answers whatever it is sent.
//!
//! ```
//! use std::collections::VecDeque;
//!
//! use roundel_core::{
//!     Address, Codec, Command, Config, ConnEnd, Custody, ExitStatus, FromWorker, Input, ListenKey,
//!     Output, Primary, Seq, SockName, Time, ToWorker, Verdict, WorkerId,
//! };
//!
//! /// What stands in for sockets and processes: things that will have happened.
//! #[derive(Default)]
//! struct Reactor {
//!     happened: VecDeque<Input>,
//!     custody: Custody<&'static str>,
//!     served: Vec<(&'static str, WorkerId)>,
//!     verdict: Option<Verdict>,
//! }
//!
//! impl Reactor {
//!     fn carry_out(&mut self, output: Output) {
//!         match output {
//!             Output::Bind { listener, .. } => {
//!                 let name = SockName::Ip("[::]:80".parse().unwrap());
//!                 self.happened.push_back(Input::Bound { listener, result: Ok(name) });
//!             }
//!             Output::Spawn { worker, .. } => {
//!                 self.happened.push_back(Input::Spawned { worker, pid: 4711 });
//!                 // The worker says hello, asks for the operator's first listener, and gets ready.
//!                 self.happened.push_back(Input::Hello { worker, codec: Codec::Native });
//!                 let query = FromWorker::Query {
//!                     seq: Seq::from_raw(1).unwrap(),
//!                     key: Box::new(ListenKey::stream(Address::Nth(0))),
//!                     backlog: 0,
//!                     data: Vec::new(),
//!                 };
//!                 for msg in [FromWorker::Online, query] {
//!                     self.happened.push_back(Input::Message { worker, msg });
//!                 }
//!             }
//!             Output::ResumeAccept { listener } => {
//!                 for client in ["alice", "bob"] {
//!                     let conn = self.custody.admit(client);
//!                     self.happened.push_back(Input::Incoming { listener, conn });
//!                 }
//!             }
//!             Output::Send { worker, msg, .. } => {
//!                 let answer = match msg {
//!                     ToWorker::QueryReply { result: Ok(granted), .. } => {
//!                         FromWorker::Listening { listener: granted.listener }
//!                     }
//!                     ToWorker::NewConn { first_seq, .. } => {
//!                         FromWorker::Ack { ack: first_seq, accepted: true }
//!                     }
//!                     ToWorker::Drain { .. } => {
//!                         self.happened.push_back(Input::ChannelClosed { worker });
//!                         let status = ExitStatus::Code(0);
//!                         self.happened.push_back(Input::Exited { worker, status });
//!                         return;
//!                     }
//!                     _ => return,
//!                 };
//!                 self.happened.push_back(Input::Message { worker, msg: answer });
//!             }
//!             Output::Release { conn, end } => {
//!                 let client = self.custody.release(conn).expect("it was admitted");
//!                 if let ConnEnd::AcceptedBy(worker) = end {
//!                     self.served.push((client, worker));
//!                 }
//!                 if self.served.len() == 2 {
//!                     self.happened.push_back(Input::Command(Command::Stop));
//!                 }
//!             }
//!             Output::Unbind { listener } => self.happened.push_back(Input::Unbound { listener }),
//!             Output::Stopped(verdict) => self.verdict = Some(verdict),
//!             _ => {}
//!         }
//!     }
//! }
//!
//! let listeners = vec![ListenKey::stream(Address::Any { port: 80 })];
//! let config = Config::builder().workers(1).listeners(listeners).build()?;
//! let mut primary = Primary::new(config);
//! let mut reactor = Reactor::default();
//! let mut now = Time::ZERO;
//! for turn in 0.. {
//!     while let Some(output) = primary.poll_output() {
//!         reactor.carry_out(output);
//!     }
//!     if reactor.verdict.is_some() {
//!         break;
//!     }
//!     assert!(turn < 100, "it ends");
//!     // A real one waits here for readiness, or until the deadline. In this one nothing else can
//!     // happen, so the clock jumps.
//!     if let Some(deadline) = primary.poll_timeout().filter(|_| reactor.happened.is_empty()) {
//!         now = now.max(deadline.at);
//!     }
//!     while let Some(input) = reactor.happened.pop_front() {
//!         primary.handle_input(now, input)?;
//!     }
//!     primary.handle_input(now, Input::Wake)?;
//! }
//! assert_eq!(reactor.verdict, Some(Verdict::Stopped));
//! assert_eq!(reactor.served.len(), 2);
//! reactor.custody.finish()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Two machines in conversation
//!
//! A primary and a worker over two byte streams in memory, through the native codec, from the
//! worker's first message to the delivery of a connection:
//!
//! ```
//! use roundel_core::{
//!     Address, Codec, Config, ConnRange, Custody, FromWorker, Inbox, Input, ListenKey, Output,
//!     Primary, SockName, Time, Worker, WorkerInput, WorkerOutput, wire,
//! };
//!
//! const MAX_FRAME: u32 = wire::MAX_FRAME_DEFAULT;
//! let now = Time::ZERO;
//! let listeners = vec![ListenKey::stream(Address::Any { port: 80 })];
//! let mut primary = Primary::new(Config::builder().listeners(listeners).build()?);
//! let mut worker = Worker::new();
//! // Each side's custody: here a connection is a name, and its "descriptor" a copy of it.
//! let (mut here, mut there) = (Custody::new(), Custody::new());
//! let mut from_worker = wire::Decoder::<FromWorker>::new(MAX_FRAME);
//! let mut to_worker = Inbox::<String>::new(MAX_FRAME);
//! // Each direction begins with the hello.
//! let mut hello = Vec::new();
//! wire::encode_hello(&mut hello);
//! from_worker.feed(&hello);
//! to_worker.feed(&hello, []);
//!
//! let mut peer = None;
//! let mut delivered = None;
//! while delivered.is_none() {
//!     while let Some(output) = primary.poll_output() {
//!         match output {
//!             Output::Bind { listener, .. } => {
//!                 let result = Ok(SockName::Ip("[::]:80".parse()?));
//!                 primary.handle_input(now, Input::Bound { listener, result })?;
//!             }
//!             Output::Spawn { worker, .. } => {
//!                 peer = Some(worker);
//!                 primary.handle_input(now, Input::Spawned { worker, pid: 1 })?;
//!                 primary.handle_input(now, Input::Hello { worker, codec: Codec::Native })?;
//!             }
//!             Output::ResumeAccept { listener } => {
//!                 let conn = here.admit("alice".to_string());
//!                 primary.handle_input(now, Input::Incoming { listener, conn })?;
//!             }
//!             Output::Send { msg, attach, .. } => {
//!                 let mut bytes = Vec::new();
//!                 wire::encode(&msg, MAX_FRAME, &mut bytes)?;
//!                 let handle = match attach {
//!                     Some(roundel_core::Attach::Conn(conn)) => here.get(conn).cloned(),
//!                     _ => None,
//!                 };
//!                 to_worker.feed(&bytes, handle);
//!             }
//!             Output::Release { conn, .. } => drop(here.release(conn)),
//!             _ => {}
//!         }
//!     }
//!     while let Some(received) = to_worker.poll()? {
//!         let handles: Vec<String> =
//!             (0..received.handles).filter_map(|_| to_worker.take_handle()).collect();
//!         let handles: ConnRange = there.admit_all(handles);
//!         worker.handle_input(now, WorkerInput::Message { msg: received.msg, handles })?;
//!         // The program wants a connection whenever one is there.
//!         worker.handle_input(now, WorkerInput::Take { listener: None })?;
//!     }
//!     while let Some(output) = worker.poll_output() {
//!         match output {
//!             WorkerOutput::Send(msg) => {
//!                 let online = msg == FromWorker::Online;
//!                 let mut bytes = Vec::new();
//!                 wire::encode(&msg, MAX_FRAME, &mut bytes)?;
//!                 from_worker.feed(&bytes);
//!                 worker.handle_input(now, WorkerInput::Sent)?;
//!                 if online {
//!                     let key = Box::new(ListenKey::stream(Address::Nth(0)));
//!                     let listen =
//!                         WorkerInput::Listen { ask: 0, key, backlog: 0, data: Vec::new() };
//!                     worker.handle_input(now, listen)?;
//!                 }
//!             }
//!             WorkerOutput::Deliver { conn, .. } => delivered = there.release(conn),
//!             _ => {}
//!         }
//!     }
//!     while let Some((msg, _)) = from_worker.poll()? {
//!         primary.handle_input(now, Input::Message { worker: peer.unwrap(), msg })?;
//!     }
//! }
//! assert_eq!(delivered.as_deref(), Some("alice"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # From here to real sockets
//!
//! Two pages describe what the system does and what it requires: [`docs::starting_workers`] and
//! [`docs::embedding`]; the names of the variables are in [`environment`]. Three examples in the
//! repository do all of this with the system's own calls, and tests run them:
//!
//! - `tests/embed/examples/poll_loop.rs` is a primary around poll(2), from this crate alone;
//! - `tests/embed/examples/poll_worker.rs` is a worker of the same kind;
//! - `tests/embed/examples/tokio_worker.rs` serves HTTP on tokio, with connections that come through
//!   [`Worker`], and loses no request when it leaves.
//!
//! To record what an embedder's primary does, put a [`journal::Recorder`] in front of it.
//!
//! # Bounds
//!
//! Everything that grows is bounded by [`Config`]: pending connections per listener, connections in
//! flight per worker, listeners, frames, restarts. Outputs grow at most linearly in the inputs
//! since the last drain. Nothing panics, and nothing is allocated on the path of a connection once
//! the tables have grown to their size.
//!
//! # Features
//!
//! None is on by default: both machines and the native codec are always there.
//!
//! | feature | adds |
//! |---|---|
//! | `node` | [`node`], the codec of Node's `cluster`; compiles serde_json |
//! | `journal` | [`journal`], recorded runs and their replay |
//! | `testing` | [`testing`], a primary driven by hand |
//! | `inspect` | [`Primary::check`], [`held`](Primary::held), [`canonical`](Primary::canonical), [`view`](Primary::view) and [`deadline`](Primary::deadline), [`Worker::check`] and [`held`](Worker::held), [`life_diagram`]: for tests, searches, and reading snapshots |
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;

mod address;
mod borrowed;
mod channel;
mod codec;
mod collections;
mod config;
mod custody;
mod display;
pub mod docs;
pub mod environment;
mod error;
mod id;
#[cfg(feature = "journal")]
pub mod journal;
mod msg;
mod primary;
mod process;
mod reach;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod timers;
mod transitions;
#[cfg(test)]
mod wording;
mod worker;

pub use address::AddressError;
pub use channel::{ChannelEvent, Outbox, PrimaryChannel, Transmit, WorkerChannel};
pub use codec::inbox::{Inbox, Received};
pub use codec::{native as wire, node};
pub use config::{
    ACCEPTS_PER_TURN, BYTES_PER_TURN, Config, ConfigBuilder, ConfigError, MESSAGES_PER_TURN,
    Overflow, Overlap, Policy, READS_PER_TURN, Respawn, STALLED_AFTER, StopSignal, limits,
};
pub use custody::{ConnRange, Custody, Leftover};
pub use error::Misuse;
pub use id::{ConnId, ListenerId, Seq, Slot, WorkerId};
pub use msg::{
    Address, Attach, Errno, FromWorker, Granted, ListenKey, MAX_UNIX_PATH, SockName, ToWorker,
    Transport,
};
#[cfg(feature = "inspect")]
pub use primary::{Broken, Canonical, CanonicalView};
pub use primary::{
    Command, ConnEnd, Event, ExitStatus, FixedField, Input, LastExit, ListenerStatus, Output,
    Primary, Refusal, ReloadFailure, ReloadRecord, SlotStage, SlotStatus, SpawnError, Totals,
    Verdict, Violation, WorkerStatus,
};
pub use process::{ExitClass, Signal};
pub use time::Time;
pub use timers::{Deadline, Timer};
pub use transitions::Life;
#[cfg(feature = "inspect")]
pub use transitions::life_diagram;
pub use wire::{Codec, DecodeError};
pub use worker::{Worker, WorkerInput, WorkerOutput};
