//! A primary driven by hand, for tests of code built around one and of this crate itself.
//!
//! ```
//! use roundel_core::testing::Hand;
//! use roundel_core::{Address, Config, ConnEnd, ListenKey};
//!
//! let listeners = vec![ListenKey::stream(Address::Any { port: 80 })];
//! let mut hand = Hand::new(Config::builder().workers(2).listeners(listeners).build()?)?;
//! let workers = hand.ready(2)?;
//!
//! // Of two connections each worker gets one.
//! let listener = hand.listeners()[0];
//! let (alice, bob) = (hand.arrive(listener)?, hand.arrive(listener)?);
//! let handoffs = hand.handoffs();
//! assert_eq!(handoffs[0].conn, alice);
//! assert_eq!((handoffs[1].conn, handoffs[1].worker), (bob, workers[1]));
//!
//! // One serves its own. The other one dies, and what it had goes to the first.
//! hand.answer(handoffs[0], true)?;
//! hand.die(workers[1])?;
//! let again = hand.handoffs();
//! assert_eq!((again[0].conn, again[0].worker), (bob, workers[0]));
//! hand.answer(again[0], true)?;
//! let served = ConnEnd::AcceptedBy(workers[0]);
//! assert_eq!(hand.ends(), [(alice, served), (bob, served)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;

use crate::{
    Address, Attach, Codec, Config, ConnEnd, ConnId, Custody, ExitStatus, FromWorker, Input,
    ListenKey, ListenerId, Misuse, Output, Primary, Seq, SockName, Time, ToWorker, WorkerId,
};

/// A [`Primary`] for which the caller plays the sockets, the processes and the clock.
///
/// The outputs that a method causes are kept until [`outputs`](Hand::outputs),
/// [`handoffs`](Hand::handoffs) or [`ends`](Hand::ends) takes them.
#[derive(Debug)]
pub struct Hand {
    pub(crate) core: Primary,
    pub(crate) at: Time,
    custody: Custody<()>,
    listeners: Vec<ListenerId>,
    starting: VecDeque<WorkerId>,
    outputs: Vec<Output>,
    handoffs: Vec<Handoff>,
    ends: Vec<(ConnId, ConnEnd)>,
}

/// A connection that was sent to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Handoff {
    /// The worker.
    pub worker: WorkerId,
    /// Its number, which the answer names.
    pub seq: Seq,
    /// The connection.
    pub conn: ConnId,
}

impl Hand {
    /// A new primary at [`Time::ZERO`], whose listeners are bound.
    ///
    /// # Errors
    /// None is known: a new primary expects these inputs.
    pub fn new(config: Config) -> Result<Hand, Misuse> {
        let mut hand = Hand::over(Primary::new(config), Time::ZERO);
        hand.poll();
        for output in hand.outputs() {
            if let Output::Bind { listener, key, .. } = output {
                hand.listeners.push(listener);
                hand.input(Input::Bound { listener, result: Ok(sockname(&key.address)) })?;
            }
        }
        Ok(hand)
    }

    /// Continues with an existing primary. Outputs that it already has are polled only at the next
    /// input.
    pub fn over(primary: Primary, at: Time) -> Hand {
        Hand {
            core: primary,
            at,
            custody: Custody::new(),
            listeners: Vec::new(),
            starting: VecDeque::new(),
            outputs: Vec::new(),
            handoffs: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// The primary.
    pub fn primary(&self) -> &Primary {
        &self.core
    }

    /// The operator's listeners, in the configuration's order.
    pub fn listeners(&self) -> &[ListenerId] {
        &self.listeners
    }

    /// Lets the next `count` workers that are awaited start, speak the native codec, and listen to
    /// the operator's first listener. Returns their ids: fewer than `count` if fewer are awaited,
    /// as before a respawn's delay has [passed](Hand::pass).
    ///
    /// # Errors
    /// [`Misuse`] if the caller has already reported their start.
    pub fn ready(&mut self, count: usize) -> Result<Vec<WorkerId>, Misuse> {
        let count = count.min(self.starting.len());
        let workers: Vec<WorkerId> = self.starting.drain(..count).collect();
        for &worker in &workers {
            self.online(worker)?;
            let key = Box::new(ListenKey::stream(Address::Nth(0)));
            let query = FromWorker::Query { seq: Seq::FIRST, key, backlog: 0, data: Vec::new() };
            self.say(worker, query)?;
            if let Some(&listener) = self.listeners.first() {
                self.say(worker, FromWorker::Listening { listener })?;
            }
        }
        Ok(workers)
    }

    /// A worker starts, and sends its first message in the native codec.
    ///
    /// # Errors
    /// [`Misuse`] if its start is not awaited.
    pub fn online(&mut self, worker: WorkerId) -> Result<(), Misuse> {
        self.starting.retain(|it| *it != worker);
        self.input(Input::Spawned { worker, pid: 100 })?;
        self.input(Input::Hello { worker, codec: Codec::Native })?;
        self.say(worker, FromWorker::Online)
    }

    /// A worker sends a message.
    ///
    /// # Errors
    /// [`Misuse`] if there was never such a worker.
    pub fn say(&mut self, worker: WorkerId, msg: FromWorker) -> Result<(), Misuse> {
        self.input(Input::Message { worker, msg })
    }

    /// A connection comes to a listener.
    ///
    /// # Errors
    /// [`Misuse`] if the listener is not bound.
    pub fn arrive(&mut self, listener: ListenerId) -> Result<ConnId, Misuse> {
        let conn = self.custody.admit(());
        self.input(Input::Incoming { listener, conn })?;
        Ok(conn)
    }

    /// A worker answers a handoff: it serves the connection, or declines it.
    ///
    /// # Errors
    /// [`Misuse`] if there was never such a worker.
    pub fn answer(&mut self, handoff: Handoff, accepted: bool) -> Result<(), Misuse> {
        self.say(handoff.worker, FromWorker::Ack { ack: handoff.seq, accepted })
    }

    /// A worker is killed by SIGKILL, and its channel ends.
    ///
    /// # Errors
    /// [`Misuse`] if there was never such a worker.
    pub fn die(&mut self, worker: WorkerId) -> Result<(), Misuse> {
        self.input(Input::ChannelClosed { worker })?;
        self.input(Input::Exited { worker, status: ExitStatus::Signal(9) })
    }

    /// Lets time pass, then does what is due.
    ///
    /// # Errors
    /// None.
    pub fn pass(&mut self, span: Duration) -> Result<(), Misuse> {
        self.at += span;
        self.input(Input::Wake)
    }

    /// Gives the primary any input.
    ///
    /// # Errors
    /// [`Misuse`] of the input.
    pub fn input(&mut self, input: Input) -> Result<(), Misuse> {
        let told = self.core.handle_input(self.at, input);
        self.poll();
        told
    }

    /// All outputs of the primary since the last call.
    pub fn outputs(&mut self) -> Vec<Output> {
        mem::take(&mut self.outputs)
    }

    /// The connections that were handed to workers since the last call.
    pub fn handoffs(&mut self) -> Vec<Handoff> {
        mem::take(&mut self.handoffs)
    }

    /// The connections that have ended for the primary since the last call, and how.
    pub fn ends(&mut self) -> Vec<(ConnId, ConnEnd)> {
        mem::take(&mut self.ends)
    }

    fn poll(&mut self) {
        while let Some(output) = self.core.poll_output() {
            if let Output::Spawn { worker, .. } = output {
                self.starting.push_back(worker);
            }
            if let Output::Release { conn, end } = output {
                // A connection that came by `input` was never in custody.
                let _ = self.custody.release(conn);
                self.ends.push((conn, end));
            }
            if let Output::Send {
                worker,
                msg: ToWorker::NewConn { first_seq: seq, .. },
                attach: Some(Attach::Conn(conn)),
            } = output
            {
                self.handoffs.push(Handoff { worker, seq, conn });
            }
            self.outputs.push(output);
        }
    }
}

/// Where such a listener might be bound.
fn sockname(address: &Address) -> SockName {
    match address {
        Address::Ip(addr) => SockName::Ip(*addr),
        Address::Unix(path) => SockName::Unix(path.clone()),
        Address::Any { .. } | Address::Fd(_) | Address::Nth(_) => {
            let port = address.port().unwrap_or_default();
            SockName::Ip(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
    }
}
