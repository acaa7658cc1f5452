//! The primary, told anything: what can be, what can't, in any order.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::Duration;

use roundel_core::{
    Address, Codec, Command, Config, ConfigBuilder, ConnId, DecodeError, Errno, ExitStatus,
    FromWorker, Input, ListenKey, ListenerId, Output, Overflow, Policy, Primary, Respawn, Seq,
    Signal, SockName, SpawnError, Time, ToWorker, Violation, WorkerId,
};

use crate::script::Script;

/// No matter what a primary is told, it keeps its invariants, refuses without a trace what can't
/// be, and says no more than it should.
pub fn primary_inputs(data: &[u8]) {
    let mut script = Script::new(data);
    let mut primary = Primary::new(config(&mut script));
    let mut env = Surroundings::default();
    env.obey(&mut primary, 0);
    let mut now = Time::from_nanos(0);
    while !script.is_over() {
        let step = u32::from(script.byte());
        // Some steps take no time, some a moment, some many seconds; the clock may go back.
        now = match step {
            0..200 => now + Duration::from_micros(step.into()),
            200..250 => now + Duration::from_millis(u64::from(step - 199) * 37),
            250..254 => now + Duration::from_secs(31),
            _ => Time::from_nanos(now.as_nanos() / 2),
        };
        let input = env.input(&mut script, &primary);
        let before = primary.clone();
        let incoming = match &input {
            Input::Incoming { conn, .. } => Some(*conn),
            _ => None,
        };
        match primary.handle_input(now, input) {
            Ok(()) => env.conns.extend(incoming),
            Err(_) => assert!(primary == before, "what was refused has left a trace"),
        }
        env.obey(&mut primary, 64);
        if let Err(broken) = primary.check() {
            panic!("{broken}");
        }
        let held: BTreeSet<ConnId> = primary.held().into_iter().collect();
        assert_eq!(held, env.conns, "what is held is not what was given in and not released");
    }
}

fn config(script: &mut Script<'_>) -> Config {
    let bits = script.byte();
    let listeners = (0..script.below(3)).map(|n| {
        let port = 80 + u16::from(n);
        ListenKey::stream(if bits & 1 == 0 { Address::Any { port } } else { Address::Fd(n.into()) })
    });
    // What is not counted can't be limited.
    let counted = bits & 2 == 0 && bits & 128 == 0;
    let seconds = |n: u8| (n > 0).then(|| Duration::from_secs(n.into()));
    Config::builder()
        .reload_batch(1 + u32::from(script.below(3)))
        .min_ready(Some(u32::from(script.below(4))).filter(|least| *least < 3))
        .ready_hold(Duration::from_millis(u64::from(script.below(3)) * 37))
        .max_generations(2 + u32::from(script.below(2)))
        .shutdown_delay(Duration::from_secs(script.below(2).into()))
        .heartbeat(seconds(script.below(3)))
        .max_requests(NonZeroU64::new(script.below(5).into()).filter(|_| counted))
        .max_age(seconds(script.below(3)))
        .max_memory(NonZeroU64::new(script.below(2).into()))
        .workers(1 + u32::from(script.below(4)))
        .listeners(listeners.collect())
        .policy(if bits & 2 == 0 { Policy::RoundRobin } else { Policy::Shared })
        .overflow(if bits & 4 == 0 { Overflow::Wait } else { Overflow::Refuse })
        .respawn([Respawn::Always, Respawn::OnFailure, Respawn::Never][usize::from(bits >> 3) % 3])
        .window(1 + u32::from(script.below(3)))
        .node_window(1 + u32::from(script.below(5)))
        .max_pending(1 + u32::from(script.below(8)))
        .max_held(1 + u32::from(script.below(16)))
        .max_stray_acks(u32::from(script.below(4)))
        .restart_intensity(u32::from(script.below(3)))
        .max_listeners(4)
        .max_listeners_per_worker(2)
        .wait_ready(bits & 64 != 0)
        .pass_listeners(bits & 128 != 0)
        .build()
        .expect("a valid configuration")
}

/// What a reload changes; `None` for nothing.
fn changed(script: &mut Script<'_>, config: &Config) -> Option<Config> {
    let builder = ConfigBuilder::from(config.clone());
    let builder = match script.below(8) {
        0 => builder.workers(1 + u32::from(script.below(4))),
        1 => builder.policy(Policy::Shared),
        2 => builder.pass_listeners(true),
        3 => {
            let key = script.key();
            let mut listeners = config.listeners().to_vec();
            if script.flag() {
                listeners.push(key);
            } else {
                listeners.pop();
            }
            builder.listeners(listeners)
        }
        4 => builder.ack_timeout(Some(Duration::from_secs(1 + u64::from(script.below(60))))),
        5 => builder.ready_timeout(None).retry_delay(None),
        _ => return None,
    };
    builder.build().ok()
}

/// What is outside a primary, as far as its outputs tell.
#[derive(Default)]
struct Surroundings {
    workers: Vec<WorkerId>,
    listeners: Vec<ListenerId>,
    conns: BTreeSet<ConnId>,
    last_conn: u64,
    /// Handoffs: to whom, and under which number.
    sent: Vec<(WorkerId, Seq)>,
}

impl Surroundings {
    /// Takes all outputs in; of one input not more than a few for each worker and connection.
    fn obey(&mut self, primary: &mut Primary, spare: usize) {
        let mut count = 0;
        let allowed = spare + 64 + 8 * (self.workers.len() + self.conns.len());
        while let Some(output) = primary.poll_output() {
            count += 1;
            assert!(count <= allowed, "{count} outputs of one input");
            match output {
                Output::Spawn { worker, .. } => self.workers.push(worker),
                Output::Forget { worker } => self.workers.retain(|it| *it != worker),
                Output::Bind { listener, .. } => self.listeners.push(listener),
                Output::Send { worker, msg: ToWorker::NewConn { first_seq, .. }, .. } => {
                    self.sent.push((worker, first_seq));
                }
                Output::Release { conn, .. } => {
                    assert!(self.conns.remove(&conn), "{conn} is released and was not held");
                }
                _ => {}
            }
        }
        let surplus = self.sent.len().saturating_sub(64);
        self.sent.drain(..surplus);
    }

    fn input(&mut self, script: &mut Script<'_>, primary: &Primary) -> Input {
        let worker = self.worker(script);
        match script.below(23) {
            0..3 => Input::Wake,
            3..6 => {
                self.last_conn += u64::from(script.byte() < 250);
                let conn = ConnId::from_raw(self.last_conn.max(1)).expect("not zero");
                Input::Incoming { listener: self.listener(script), conn }
            }
            6 => {
                let result = if script.byte() < 200 {
                    Ok(SockName::Ip(([127, 0, 0, 1], 80).into()))
                } else {
                    Err(Errno::EADDRINUSE)
                };
                Input::Bound { listener: self.listener(script), result }
            }
            7 => Input::Spawned { worker, pid: 1 },
            8 => {
                let cause = match (script.flag(), worker.get() % 2) {
                    (true, _) => SpawnError::NotFound,
                    (false, 0) => SpawnError::NotExecutable(Errno(13)),
                    (false, _) => SpawnError::Other(Errno(11)),
                };
                Input::SpawnFailed { worker, cause }
            }
            9 => {
                let codec = if script.flag() { Codec::Native } else { Codec::Node };
                Input::Hello { worker, codec }
            }
            10..13 => match self.answer(script) {
                Some((worker, msg)) => Input::Message { worker, msg },
                None => Input::Message { worker, msg: self.message(script) },
            },
            13 | 14 => Input::Message { worker, msg: self.message(script) },
            15 => Input::ChannelClosed { worker },
            16 => {
                let number = i32::from(script.byte());
                let code = script.flag();
                let status =
                    if code { ExitStatus::Code(number) } else { ExitStatus::Signal(number) };
                Input::Exited { worker, status }
            }
            17 => match script.below(6) {
                0 => Input::FrameBegun { worker },
                1 => Input::Violation { worker, what: Violation::Decode(DecodeError::BadMessage) },
                2 => Input::Violation { worker, what: Violation::UnknownCodec },
                3 if script.flag() => {
                    let open = script.flag().then(|| u32::from(script.byte()));
                    Input::Connections { worker, open }
                }
                3 => Input::Stray { worker },
                4 => Input::Queue { listener: self.listener(script), waiting: true },
                _ => Input::Unbound { listener: self.listener(script) },
            },
            18 => {
                let (worker, seq) = self.handoff(script, worker);
                if script.flag() {
                    Input::InDoubt { worker, seq }
                } else {
                    Input::HandoffFailed { worker, seq, errno: Errno::EMFILE }
                }
            }
            20 => Input::Reload { config: changed(script, primary.config()).map(Box::new) },
            21 => Input::Memory { worker, bytes: script.number() },
            22 => Input::Command(match script.below(3) {
                0 => Command::Pause,
                1 => Command::Resume,
                _ => Command::Scale(script.below(7).into()),
            }),
            _ => match script.byte() {
                0..4 => Input::Command(Command::Stop),
                4 => Input::Command(Command::StopNow),
                5..50 => Input::Command(Command::Ping(worker)),
                _ => Input::Wake,
            },
        }
    }

    /// One of those that there are, most of the time.
    fn worker(&self, script: &mut Script<'_>) -> WorkerId {
        let choice = script.byte();
        let known = self.workers.get(usize::from(choice) % self.workers.len().max(1));
        let any = || WorkerId::from_raw(u64::from(choice)).or(WorkerId::from_raw(1));
        known.copied().filter(|_| choice < 240).or_else(any).expect("not zero")
    }

    fn listener(&self, script: &mut Script<'_>) -> ListenerId {
        let choice = script.byte();
        let known = self.listeners.get(usize::from(choice) % self.listeners.len().max(1));
        let any = || ListenerId::from_raw(u64::from(choice)).or(ListenerId::from_raw(1));
        known.copied().filter(|_| choice < 240).or_else(any).expect("not zero")
    }

    fn handoff(&self, script: &mut Script<'_>, worker: WorkerId) -> (WorkerId, Seq) {
        let choice = usize::from(script.byte()) % self.sent.len().max(1);
        let any = (worker, Seq::from_raw(1).expect("not zero"));
        self.sent.get(choice).copied().unwrap_or(any)
    }

    /// An answer to a handoff that there was.
    fn answer(&self, script: &mut Script<'_>) -> Option<(WorkerId, FromWorker)> {
        // The last ones are more often still to be answered.
        let back = usize::from(script.below(8));
        let at = self.sent.len().checked_sub(1 + back)?;
        let (worker, ack) = *self.sent.get(at)?;
        Some((worker, FromWorker::Ack { ack, accepted: script.byte() < 200 }))
    }

    fn message(&self, script: &mut Script<'_>) -> FromWorker {
        let seq = Seq::from_raw(script.number()).or(Seq::from_raw(1)).expect("not zero");
        match script.below(13) {
            0 => FromWorker::Online,
            1 | 2 => FromWorker::Query {
                seq,
                key: Box::new(script.key()),
                backlog: 0,
                data: script.bytes(),
            },
            3 => FromWorker::Listening { listener: self.listener(script) },
            4 => FromWorker::Ack { ack: seq, accepted: script.flag() },
            5 => FromWorker::Close { listener: self.listener(script) },
            6 => FromWorker::Suicide { seq },
            7 => FromWorker::ExitedAfterDisconnect { seq },
            8 => FromWorker::Ready,
            9 => FromWorker::Pong { ack: seq },
            10 => FromWorker::Lag { millis: 10 },
            11 => FromWorker::StopSignal { signal: script.flag().then_some(Signal::Term) },
            _ => FromWorker::Load { open: 1 },
        }
    }
}
