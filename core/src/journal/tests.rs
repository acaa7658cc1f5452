use alloc::boxed::Box;
use alloc::vec::Vec;

use super::*;
use crate::Config;
use crate::{
    Address, Codec, Command, ConnId, FromWorker, ListenKey, Primary, SockName, Time, ToWorker,
    WorkerId,
};

fn config() -> Config {
    let key = ListenKey::stream(Address::Any { port: 80 });
    Config::builder().workers(2).listeners([key].into()).build().unwrap()
}

/// A recorded primary whose workers do as they are told.
struct Run {
    recorder: Recorder,
    primary: Primary,
    now: u64,
    journal: Vec<u8>,
    outputs: Vec<Output>,
}

impl Run {
    fn new(limit: u64) -> Run {
        let config = config();
        let recorder = Recorder::new(&config, limit);
        let primary = Primary::new(config);
        Run { recorder, primary, now: 1_000, journal: Vec::new(), outputs: Vec::new() }
    }

    fn input(&mut self, input: Input) {
        self.now += 1_000;
        let now = Time::from_nanos(self.now);
        self.recorder.handle_input(&mut self.primary, now, input).unwrap();
    }

    fn say(&mut self, worker: WorkerId, msg: FromWorker) {
        self.input(Input::Message { worker, msg });
    }

    fn settle(&mut self) {
        while let Some(output) = self.recorder.poll_output(&mut self.primary) {
            self.outputs.push(output.clone());
            if let Output::Bind { listener, .. } = output {
                let sockname = SockName::Ip("[::]:80".parse().unwrap());
                self.input(Input::Bound { listener, result: Ok(sockname) });
            } else if let Output::Spawn { worker, .. } = output {
                self.input(Input::Spawned { worker, pid: 1 });
                self.input(Input::Hello { worker, codec: Codec::Native });
                self.say(worker, FromWorker::Online);
                let key = Box::new(ListenKey::stream(Address::Nth(0)));
                let seq = crate::Seq::FIRST;
                self.say(worker, FromWorker::Query { seq, key, backlog: 0, data: Vec::new() });
            } else if let Output::Send { worker, msg, .. } = output {
                if let ToWorker::QueryReply { result: Ok(granted), .. } = msg {
                    self.say(worker, FromWorker::Listening { listener: granted.listener });
                } else if let ToWorker::NewConn { first_seq, .. } = msg {
                    self.say(worker, FromWorker::Ack { ack: first_seq, accepted: true });
                }
            }
        }
        self.journal.extend(self.recorder.take());
    }

    fn serve(&mut self, conns: core::ops::RangeInclusive<u64>) {
        for raw in conns {
            let conn = ConnId::from_raw(raw).unwrap();
            let listener = crate::ListenerId::FIRST;
            self.input(Input::Incoming { listener, conn });
            self.settle();
        }
    }

    fn end(mut self) -> Run {
        self.recorder.end(&self.primary);
        self.journal.extend(self.recorder.take());
        self
    }
}

/// So many connections served by two workers, to the end.
fn served(conns: u64) -> Run {
    let mut run = Run::new(u64::MAX);
    run.settle();
    run.serve(1..=conns);
    run.end()
}

/// All steps of a journal fed in pieces of this size.
fn steps(journal: &[u8], piece: usize) -> (Replay, Vec<Step>, Option<ReplayError>) {
    let mut replay = Replay::new();
    let mut steps = Vec::new();
    for bytes in journal.chunks(piece) {
        replay.feed(bytes);
        loop {
            match replay.step() {
                Ok(Some(step)) => steps.push(step),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(replay.step(), Err(error.clone()), "an error stays");
                    return (replay, steps, Some(error));
                }
            }
        }
    }
    (replay, steps, None)
}

/// The frames after the hello, and where each begins.
fn frames(journal: &[u8]) -> Vec<core::ops::Range<usize>> {
    let mut decoder = wire::Decoder::<Record<'static>>::new(MAX_FRAME);
    decoder.feed(journal);
    core::iter::from_fn(|| decoder.poll().unwrap())
        .map(|(_, range)| range.start as usize..range.end as usize)
        .collect()
}

#[test]
fn a_journal_replays_however_it_is_cut() {
    let run = served(600);
    for piece in [1, 7, 4_096, run.journal.len()] {
        let (replay, steps, error) = steps(&run.journal, piece);
        assert_eq!(error, None);
        assert_eq!(replay.ended(), Some(Ending::Complete));
        assert!(replay.primary() == Some(&run.primary));
        let mut outputs = Vec::new();
        let (mut entries, mut checks) = (0, 0);
        for step in steps {
            match step {
                Step::Begun { version, config: read, outputs: first } => {
                    assert_eq!(version, env!("CARGO_PKG_VERSION"));
                    assert_eq!(*read, config());
                    outputs.extend(first);
                }
                Step::Entry { number, now, outputs: more, .. } => {
                    entries += 1;
                    assert_eq!(number, entries);
                    assert_eq!(now, Time::from_nanos(1_000 + 1_000 * number));
                    outputs.extend(more);
                }
                Step::Checked { .. } => checks += 1,
                Step::Ended(why) => assert_eq!(why, Ending::Complete),
            }
        }
        assert_eq!(outputs, run.outputs);
        assert_eq!((entries, checks), (replay.entries(), entries / CHECK_EVERY));
        assert!(checks >= 1);
        assert_eq!(replay.outputs(), run.outputs.len() as u64);
    }
}

#[test]
fn a_hundred_thousand_connections_with_deaths_replay() {
    let mut run = Run::new(u64::MAX);
    run.settle();
    let mut life = 0;
    for batch in 0..100u64 {
        run.serve(batch * 1_000 + 1..=batch * 1_000 + 999);
        // The last one of the batch is in flight at a worker that dies.
        let listener = crate::ListenerId::FIRST;
        run.input(Input::Incoming {
            listener,
            conn: ConnId::from_raw((batch + 1) * 1_000).unwrap(),
        });
        let Some(Output::Send { worker, .. }) = run.recorder.poll_output(&mut run.primary) else {
            panic!()
        };
        run.input(Input::ChannelClosed { worker });
        run.input(Input::Exited { worker, status: crate::ExitStatus::Signal(9) });
        run.settle();
        life += 1;
    }
    let run = run.end();
    let (replay, _, error) = steps(&run.journal, 65_536);
    assert_eq!((error, replay.ended()), (None, Some(Ending::Complete)));
    assert!(replay.primary() == Some(&run.primary));
    let totals = run.primary.totals();
    assert_eq!((totals.accepted, life), (100_000, 100));
}

#[test]
fn a_cut_journal_replays_up_to_the_cut() {
    let run = served(20);
    let frames = frames(&run.journal);
    for cut in 0..run.journal.len() {
        let (replay, _, error) = steps(&run.journal[..cut], 64);
        assert_eq!(error, None);
        assert_eq!(replay.ended(), None);
        let whole = frames.iter().filter(|frame| frame.end <= cut).count() as u64;
        assert_eq!(replay.entries(), whole.saturating_sub(1));
        let at_an_end = cut == 0 || cut == 8 || frames.iter().any(|frame| frame.end == cut);
        assert_eq!(replay.is_mid_frame(), !at_an_end);
    }
}

/// As if the recorded core had done something else: an entry is taken out of the journal.
#[test]
fn a_difference_names_its_entry() {
    let run = served(20);
    let frames = frames(&run.journal);
    // Taken out: the last connection, and one in the middle with its answer still there.
    for gone in [frames.len() - 3, frames.len() - 13] {
        let mut journal = run.journal.clone();
        journal.drain(frames[gone].clone());
        let (replay, _, error) = steps(&journal, 64);
        let Some(ReplayError::Differs { entries }) = error else { panic!("{error:?}") };
        assert_eq!(entries, gone as u64 - 1..=gone as u64 - 1);
        assert_eq!(replay.entries(), gone as u64 - 1);
    }
}

/// The journal with one of its records changed.
fn changed(journal: &[u8], frame: usize, change: impl FnOnce(&mut Record<'static>)) -> Vec<u8> {
    let range = frames(journal)[frame].clone();
    let mut decoder = wire::Decoder::<Record<'static>>::new(MAX_FRAME);
    decoder.feed(journal);
    let (mut record, _) = core::iter::from_fn(|| decoder.poll().unwrap()).nth(frame).unwrap();
    change(&mut record);
    let mut bytes = Vec::new();
    wire::encode_frame(&record, MAX_FRAME, &mut bytes).unwrap();
    let mut journal = journal.to_vec();
    journal.splice(range, bytes);
    journal
}

/// Only the digest shows that there were as many outputs, but other ones.
#[test]
fn other_outputs_are_noticed_at_their_entry() {
    let run = served(3);
    for frame in 1..frames(&run.journal).len() {
        let journal = changed(&run.journal, frame, |record| match record {
            Record::Entry { seen, .. } | Record::End { seen, .. } => seen.print ^= 1 << 9,
            Record::Begin { .. } | Record::Check(_) => panic!(),
        });
        let (_, _, error) = steps(&journal, 4_096);
        let Some(ReplayError::Differs { entries }) = error else { panic!("{frame}: {error:?}") };
        assert_eq!(*entries.end(), frame as u64 - 1);
    }
}

#[test]
fn a_check_compares_the_whole_digest() {
    let run = served(600);
    let at = CHECK_EVERY as usize + 1;
    // A difference that 16 bits don't show.
    let journal = changed(&run.journal, at, |record| {
        let Record::Check(totals) = record else { panic!("{record:?}") };
        let print = totals.digest.print();
        totals.digest.0 ^= 0x0001_0001;
        assert_eq!(totals.digest.print(), print);
    });
    let (_, _, error) = steps(&journal, 4_096);
    let Some(ReplayError::Differs { entries }) = error else { panic!("{error:?}") };
    assert_eq!(*entries.end(), CHECK_EVERY);
}

#[test]
fn the_limit_holds_and_the_journal_says_so() {
    let whole = served(2_000).journal.len() as u64;
    for limit in [0, 500, whole / 3, whole / 2, whole - 1] {
        let mut run = Run::new(limit);
        run.settle();
        run.serve(1..=2_000);
        assert_eq!(run.recorder.ended(), Some(Ending::Limit));
        assert!(run.journal.len() as u64 <= limit.max(300), "{limit}: {}", run.journal.len());
        // Where it ends by itself, nothing more comes.
        let run = run.end();
        let (replay, _, error) = steps(&run.journal, 4_096);
        assert_eq!((error, replay.ended()), (None, Some(Ending::Limit)));
        assert!(limit < 1_000 || replay.entries() > limit / 60);
    }
}

#[test]
fn the_primary_may_be_polled_at_any_time() {
    let mut run = Run::new(u64::MAX);
    run.settle();
    // Several inputs before the outputs are polled, some of which stay to the end.
    for raw in 1..=5 {
        let conn = ConnId::from_raw(raw).unwrap();
        run.input(Input::Incoming { listener: crate::ListenerId::FIRST, conn });
    }
    run.recorder.poll_output(&mut run.primary).unwrap();
    run.input(Input::Command(Command::StopNow));
    let run = run.end();
    let (replay, _, error) = steps(&run.journal, 4_096);
    assert_eq!((error, replay.ended()), (None, Some(Ending::Complete)));
    // One output less than recorded: the digest covers what was polled.
    let mut journal = run.journal.clone();
    let frames = frames(&journal);
    journal.drain(frames[frames.len() - 3].clone());
    let (_, _, error) = steps(&journal, 4_096);
    let Some(ReplayError::Differs { entries }) = error else { panic!("{error:?}") };
    assert!(entries.start() < entries.end(), "{entries:?}");
}

#[test]
fn a_refused_input_is_refused_again() {
    let mut run = Run::new(u64::MAX);
    run.settle();
    let worker = WorkerId::from_raw(99).unwrap();
    let input = Input::ChannelClosed { worker };
    run.recorder.handle_input(&mut run.primary, Time::from_nanos(9_000_000), input).unwrap_err();
    // A refused input does not move the machine's clock, neither when recorded nor when replayed.
    run.serve(1..=3);
    let run = run.end();
    let (replay, _, error) = steps(&run.journal, 4_096);
    assert_eq!(error, None);
    assert!(replay.primary() == Some(&run.primary));
}

#[test]
fn a_clock_that_goes_back_replays() {
    let mut run = Run::new(u64::MAX);
    run.settle();
    run.serve(1..=2);
    run.now -= 5_000;
    run.serve(3..=4);
    let run = run.end();
    let (replay, _, error) = steps(&run.journal, 4_096);
    assert_eq!(error, None);
    assert!(replay.primary() == Some(&run.primary));
}

#[test]
fn input_that_is_not_a_journal_is_an_error() {
    let error = |bytes: &[u8]| steps(bytes, 4_096).2;
    let damaged = |entry, cause| Some(ReplayError::Damaged { entry, cause });
    assert_eq!(error(b"hello, world"), damaged(0, crate::DecodeError::BadMagic));
    for other in [0, 2, 7] {
        let cause = crate::DecodeError::BadVersion { own: VERSION, other };
        assert_eq!(error(&[b"\xFFRNDJ", &[other as u8, 0, 0][..]].concat()), damaged(0, cause));
    }
    // A channel's bytes are not a journal's.
    let mut channel = Vec::new();
    wire::encode_hello(&mut channel);
    assert_eq!(error(&channel), damaged(0, crate::DecodeError::BadMagic));
    let run = served(3);
    let frames = frames(&run.journal);
    let mut journal = run.journal.clone();
    journal[frames[5].start + 4] = 0xEE;
    assert_eq!(error(&journal), damaged(4, crate::DecodeError::BadMessage));
    // The beginning twice, no beginning, and something after the end.
    for (from, to) in [(0, 4), (3, 0), (4, frames.len())] {
        let frame = run.journal[frames[from].clone()].to_vec();
        let at = frames.get(to).map_or(run.journal.len(), |frame| frame.start);
        let mut journal = run.journal.clone();
        journal.splice(at..at, frame);
        let entry = [3, 0, frames.len() as u64 - 2]
            [[4, 0, frames.len()].iter().position(|it| *it == to).unwrap()];
        assert_eq!(error(&journal), Some(ReplayError::Misplaced { entry }), "{from} {to}");
    }
    let mut journal = Vec::new();
    wire::hello::<Record<'_>>(&mut journal);
    let wild = ConfigBuilder::from(config()).workers(u32::MAX);
    let record = Record::Begin { version: "1".into(), config: Box::new(wild) };
    wire::encode_frame(&record, MAX_FRAME, &mut journal).unwrap();
    assert!(matches!(error(&journal), Some(ReplayError::Config(_))));
}

/// So that a journal can be checked by others: FNV-1a over the native encoding of the outputs.
#[test]
fn the_digest_is_fnv() {
    let output = Output::Stopped(crate::Verdict::Stopped);
    let (mut digest, mut wanted) = (Digest::default(), 0xcbf2_9ce4_8422_2325_u64);
    for _ in 0..2 {
        digest.add(&output);
        wire::encoding(&output, |bytes| {
            assert!(!bytes.is_empty());
            for byte in bytes {
                wanted ^= u64::from(*byte);
                wanted = wanted.wrapping_mul(1_099_511_628_211);
            }
        });
    }
    assert_eq!(digest.0, wanted);
    assert_eq!(Digest(0x1234_5678_9abc_def1).print(), 0x1234 ^ 0x5678 ^ 0x9abc ^ 0xdef1);
}

#[test]
fn the_longest_allowed_message_is_recorded() {
    let written = |limit| {
        let mut run = Run::new(limit);
        let waiting = run.recorder.waiting();
        run.journal = run.recorder.take();
        assert_eq!((run.journal.len(), run.recorder.waiting()), (waiting, 0));
        run.settle();
        (run.recorder.ended(), run.journal.len() as u64)
    };
    let (ended, whole) = written(1 << 20);
    assert_eq!(ended, None);
    // There is always room for the end.
    assert_eq!(written(whole + recorder::END), (None, whole));
    assert_eq!(written(whole + recorder::END - 1).0, Some(Ending::Limit));
}
