use roundel_core::journal::Recorder;
use roundel_core::{
    Address, Codec, Config, ConnId, FromWorker, Input, ListenKey, Output, Primary, SockName, Time,
    ToWorker, WorkerId,
};

use super::*;

/// A journal of a primary with two workers, of which the first one dies with connections in flight.
fn journal(limit: u64, conns: u64) -> Vec<u8> {
    let key = ListenKey::stream(Address::Unix("/a;b#c".into()));
    let config = Config::builder().workers(2).listeners(vec![key]).build().unwrap();
    let mut recorder = Recorder::new(&config, limit);
    let mut primary = Primary::new(config);
    let mut now = 0;
    let mut inputs: std::collections::VecDeque<Input> = [Input::Wake].into();
    let mut next = 0;
    loop {
        while let Some(output) = recorder.poll_output(&mut primary) {
            match output {
                Output::Bind { listener, .. } => {
                    let result = Ok(SockName::Unix("/a;b#c".into()));
                    inputs.push_back(Input::Bound { listener, result });
                }
                Output::Spawn { worker, .. } => {
                    let pid = worker.get() as i32;
                    inputs.push_back(Input::Spawned { worker, pid });
                    inputs.push_back(Input::Hello { worker, codec: Codec::Native });
                    inputs.push_back(Input::Message { worker, msg: FromWorker::Online });
                    let key = Box::new(ListenKey::stream(Address::Nth(0)));
                    let seq = roundel_core::Seq::from_raw(1).unwrap();
                    let msg = FromWorker::Query { seq, key, backlog: 0, data: Vec::new() };
                    inputs.push_back(Input::Message { worker, msg });
                }
                Output::Send {
                    worker, msg: ToWorker::QueryReply { result: Ok(it), .. }, ..
                } => {
                    let msg = FromWorker::Listening { listener: it.listener };
                    inputs.push_back(Input::Message { worker, msg });
                }
                Output::Send { worker, msg: ToWorker::NewConn { first_seq, .. }, .. }
                    if worker.get() > 1 =>
                {
                    let msg = FromWorker::Ack { ack: first_seq, accepted: true };
                    inputs.push_back(Input::Message { worker, msg });
                }
                _ => {}
            }
        }
        let worker = WorkerId::from_raw(1).unwrap();
        let input = match inputs.pop_front() {
            Some(input) => input,
            None if next < conns => {
                next += 1;
                let listener = roundel_core::ListenerId::from_raw(1).unwrap();
                if next == 5 {
                    inputs.push_back(Input::ChannelClosed { worker });
                    let status = roundel_core::ExitStatus::Signal(9);
                    inputs.push_back(Input::Exited { worker, status });
                }
                Input::Incoming { listener, conn: ConnId::from_raw(next).unwrap() }
            }
            None => break,
        };
        now += 1;
        recorder.handle_input(&mut primary, Time::from_millis(now), input).unwrap();
    }
    recorder.end(&primary);
    recorder.take()
}

fn outcome(journal: &[u8], as_diagram: bool) -> (String, Result<Option<String>, String>) {
    let mut printed = Vec::new();
    let result = replay(journal, as_diagram, &mut printed, false);
    let result = result.map_err(|fault| match fault {
        Fault::Journal(cause) => cause,
        Fault::Output(error) => panic!("{error}"),
    });
    (String::from_utf8(printed).unwrap(), result)
}

#[test]
fn a_run_in_a_few_lines() {
    let (printed, result) = outcome(&journal(u64::MAX, 2_000), false);
    assert_eq!(result, Ok(None));
    let lines: Vec<&str> = printed.lines().collect();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(lines[0], format!("recorded with version {version}: 2 workers, round-robin"));
    assert!(lines[1].starts_with("replayed 4"), "{printed}");
    assert!(lines[1].contains(" outputs as recorded"), "{printed}");
    let connections = "connections: 2000 arrived, 2001 handed off, 2000 accepted, 0 declined, 1 \
                       redispatched, 0 refused";
    assert_eq!(lines[2..], [connections, "workers: 2 started, 1 ended"]);
}

#[test]
fn a_run_as_a_diagram() {
    let (printed, result) = outcome(&journal(u64::MAX, 6), true);
    assert_eq!(result, Ok(None));
    assert!(printed.starts_with("sequenceDiagram\n    participant C as clients\n"), "{printed}");
    for row in [
        "    participant W1 as worker 1, slot 0\n    P->>W1: start\n",
        "    Note over P: listener 1 is bound to unix:/a#59;b#35;c\n",
        "    W1->>P: queryServer 1: nth:0\n",
        "    C->>P: connection 1 at listener 1\n    P->>W1: newconn 1, connection 1\n",
        "    W2-->>P: ack 1, accepted\n",
        "    W1-xP: end of channel\n",
        "    Note over P: connection 1 is back in its queue, attempt 1\n",
        "    P->>W2: newconn 5, connection 1\n    W2-->>P: ack 5, accepted\n",
        "    Note over W1: exit, signal 9\n",
    ] {
        assert!(printed.contains(row), "{row}: {printed}");
    }
    assert!(printed.lines().skip(1).all(|row| row.starts_with("    ")), "{printed}");
}

#[test]
fn a_cut_is_told_with_its_place() {
    let journal = journal(u64::MAX, 20);
    let (printed, result) = outcome(&journal[..journal.len() - 60], false);
    assert!(printed.contains("outputs as recorded"), "{printed}");
    let note = result.unwrap().unwrap();
    let byte = format!("at byte {}:", journal.len() - 60);
    assert!(note.contains("is cut off") && note.contains(&byte), "{note}");
}

#[test]
fn a_journal_that_is_full_is_told() {
    let (printed, result) = outcome(&journal(2_000, 200), false);
    assert!(printed.contains("outputs as recorded"), "{printed}");
    assert!(result.unwrap().unwrap().contains("up to its limit at entry "));
}

#[test]
fn a_difference_shows_the_entry() {
    let mut journal = journal(u64::MAX, 20);
    // A recorded primary that ignored the last connection: its entry is taken out. After the hello
    // of 8 bytes, frames begin with their length.
    let mut frames = vec![8];
    while let Some(length) = journal.get(frames[frames.len() - 1]..).and_then(|it| it.first_chunk())
    {
        frames.push(frames[frames.len() - 1] + 4 + u32::from_le_bytes(*length) as usize);
    }
    let [.., begin, end, _, _] = frames[..] else { panic!() };
    journal.drain(begin..end);
    let (printed, result) = outcome(&journal, false);
    let cause = result.unwrap_err();
    assert!(
        cause.starts_with("entry ") && cause.ends_with("differ from the recorded ones"),
        "{cause}"
    );
    assert!(printed.starts_with("entry ") && printed.contains("accepted: true"), "{printed}");
    assert!(printed.contains("now gives: Release"), "{printed}");
}

#[test]
fn a_file_that_is_not_a_journal_is_an_error() {
    let (printed, result) = outcome(b"#!/bin/sh\n", false);
    assert_eq!(printed, "");
    assert!(result.unwrap_err().starts_with("is not a journal: "));
    assert_eq!(outcome(b"", false).1, Err("is not a journal: it ends after 0 bytes".into()));
}
