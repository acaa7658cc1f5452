//! A worker, told anything: what can be, what can't, in any order.

use std::time::Duration;

use roundel_core::{
    ConnRange, Custody, Errno, Granted, ListenerId, Seq, SockName, Time, ToWorker, Worker,
    WorkerInput, WorkerOutput,
};

use crate::script::Script;

/// No matter what a worker is told, each connection is in one place until it is delivered or
/// dropped, once.
pub fn worker_inputs(data: &[u8]) {
    let mut script = Script::new(data);
    let mut worker = Worker::new();
    let mut custody = Custody::new();
    let mut handed = 0u64;
    let mut now = Time::ZERO;
    while !script.is_over() {
        now += Duration::from_millis(script.byte().into());
        let input = worker_input(&mut script, &mut custody, &mut handed);
        let before = worker.clone();
        if worker.handle_input(now, input.clone()).is_err() {
            assert!(worker == before, "what was refused has left a trace");
            if let WorkerInput::Message { handles, .. } = input {
                for conn in handles {
                    let _ = custody.release(conn);
                }
            }
        }
        // Outputs may wait: what was not sent can't be said to be.
        while script.byte() < 200 {
            match worker.poll_output() {
                Some(output) => let_go(&mut custody, &output),
                None => break,
            }
        }
        if let Err(broken) = worker.check() {
            panic!("{broken}");
        }
        assert!(worker.untaken() as u64 <= handed);
    }
    // The end of the channel leaves nothing behind but what is delivered.
    let _ = worker.handle_input(now, WorkerInput::ChannelClosed);
    while let Some(output) = worker.poll_output() {
        let_go(&mut custody, &output);
    }
    assert_eq!(custody.finish().map_err(|left| left.0), Ok(()));
}

/// What an output ends is taken out of custody, once.
fn let_go(custody: &mut Custody<()>, output: &WorkerOutput) {
    let over = match output {
        WorkerOutput::Deliver { conn, .. } | WorkerOutput::Discard { conn } => Some(*conn),
        WorkerOutput::Granted { handle, .. } => *handle,
        _ => None,
    };
    if let Some(conn) = over {
        assert!(custody.release(conn).is_some(), "{conn} is gone twice");
    }
}

fn worker_input(
    script: &mut Script<'_>,
    custody: &mut Custody<()>,
    handed: &mut u64,
) -> WorkerInput {
    let listener = ListenerId::from_raw(u64::from(script.below(4)));
    let some_listener = listener.or(ListenerId::from_raw(1)).expect("not zero");
    match script.below(16) {
        0..4 => {
            let count = script.below(5);
            *handed += u64::from(count);
            let handles: ConnRange = custody.admit_all((0..count).map(|_| ()));
            WorkerInput::Message { msg: to_worker(script, some_listener), handles }
        }
        4..7 => WorkerInput::Sent,
        7..9 => WorkerInput::Take { listener },
        9 => WorkerInput::Decline { listener },
        10 | 11 => WorkerInput::Listen {
            ask: script.below(3).into(),
            key: Box::new(script.key()),
            backlog: 0,
            data: script.bytes(),
        },
        12 => WorkerInput::CloseListener { listener: some_listener },
        13 => WorkerInput::Wake,
        14 => WorkerInput::Load { open: 1 },
        _ => match script.byte() {
            0..4 => WorkerInput::ChannelClosed,
            4..8 => WorkerInput::RequestReplacement,
            12..16 => WorkerInput::Ready,
            8..12 => WorkerInput::Leave,
            _ => WorkerInput::Wake,
        },
    }
}

fn to_worker(script: &mut Script<'_>, listener: ListenerId) -> ToWorker {
    let seq = Seq::from_raw(script.number()).or(Seq::from_raw(1)).expect("not zero");
    let sockname = SockName::Ip(([127, 0, 0, 1], 80).into());
    match script.below(10) {
        0..4 => ToWorker::NewConn { first_seq: seq, listener, count: script.below(5).into() },
        4..7 => {
            let granted =
                Granted { listener, sockname, shared: script.byte() > 200, data: Vec::new() };
            let granted = Ok(Box::new(granted));
            let result = if script.byte() < 220 { granted } else { Err(Errno::EINVAL) };
            ToWorker::QueryReply { ack: seq, result }
        }
        7 => ToWorker::Ack { ack: seq },
        8 => ToWorker::PassListener { listener },
        _ => match script.byte() {
            0..10 => ToWorker::Disconnect,
            10..20 => ToWorker::Drain { deadline_ms: script.number() },
            _ => ToWorker::Ping { seq },
        },
    }
}
