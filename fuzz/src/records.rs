//! What a run leaves behind, read back: journals and snapshots.

use std::time::Duration;

use roundel_core::journal::Replay;
use roundel_core::{Command, ConnId, Input, ListenerId, Primary, Time, WorkerId};

/// Any bytes are a journal, or the start of one, or a lasting error; the same however they are cut.
pub fn journal(data: &[u8]) {
    let whole = steps(data, data.len().max(1));
    assert_eq!(steps(data, 1), whole, "cut into single bytes");
}

fn steps(data: &[u8], piece: usize) -> Vec<String> {
    let mut replay = Replay::new();
    let mut told = Vec::new();
    for bytes in data.chunks(piece) {
        replay.feed(bytes);
        loop {
            match replay.step() {
                Ok(Some(step)) => told.push(format!("{step:?}")),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(replay.step(), Err(error.clone()), "an error stays");
                    told.push(format!("{error:?}"));
                    return told;
                }
            }
        }
        if let Some(Err(broken)) = replay.primary().map(Primary::check) {
            panic!("{broken}");
        }
    }
    told
}

/// A snapshot (JSON, as serde writes it) that keeps the invariants goes on as a primary: twice the
/// same, without a panic and to an end, however odd it is.
pub fn snapshot(data: &[u8]) {
    let Ok(mut primary) = serde_json::from_slice::<Primary>(data) else { return };
    if primary.check().is_err() {
        return;
    }
    let mut again = primary.clone();
    let ids = (1..4).filter_map(WorkerId::from_raw);
    let mut inputs = vec![Input::Wake];
    inputs.extend(ids.map(|worker| Input::ChannelClosed { worker }));
    if let (Some(listener), Some(conn)) = (ListenerId::from_raw(1), ConnId::from_raw(u64::MAX)) {
        inputs.push(Input::Incoming { listener, conn });
    }
    inputs.push(Input::Command(Command::Stop));
    inputs.extend((0..4).map(|_| Input::Wake));
    let mut now = Time::ZERO;
    for input in inputs {
        now += Duration::from_secs(40);
        let first = primary.handle_input(now, input.clone());
        assert_eq!(first, again.handle_input(now, input));
        let outputs = std::iter::from_fn(|| primary.poll_output());
        assert!(outputs.eq(std::iter::from_fn(|| again.poll_output())));
    }
    assert!(primary == again);
}
