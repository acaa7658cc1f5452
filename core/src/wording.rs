//! What ids, times, addresses and errors look like in a log. Programs read some of it, and people
//! read all of it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Debug;
use core::net::SocketAddr;

use crate::journal::ReplayError;
use crate::*;

fn worker(raw: u64) -> WorkerId {
    WorkerId::from_raw(raw).unwrap()
}

fn conn(raw: u64) -> ConnId {
    ConnId::from_raw(raw).unwrap()
}

fn ip(text: &str) -> Address {
    Address::Ip(text.parse::<SocketAddr>().unwrap())
}

#[track_caller]
fn say<T: ToString>(said: &[(T, &str)]) {
    for (value, text) in said {
        assert_eq!(value.to_string(), *text);
    }
}

#[test]
fn ids_say_of_what_they_are() {
    let listener = ListenerId::from_raw(3).unwrap();
    assert_eq!(worker(7).to_string(), "w7");
    assert_eq!(debugged(&worker(7)), "w7");
    assert_eq!(conn(9).to_string(), "c9");
    assert_eq!(listener.to_string(), "l3");
    assert_eq!(Seq::from_raw(4).unwrap().to_string(), "#4");
    assert_eq!(Slot(2).to_string(), "2");
}

fn debugged(value: &impl Debug) -> String {
    alloc::format!("{value:?}")
}

#[test]
fn ranges_of_connections() {
    let mut custody = Custody::new();
    let all = custody.admit_all(["a", "b", "c"]);
    assert_eq!((debugged(&all), all.len()), (String::from("c1..c4"), 3));
    assert_eq!((debugged(&ConnRange::EMPTY), ConnRange::EMPTY.len()), ("c1..c1".into(), 0));
    let left = custody.finish().unwrap_err();
    assert_eq!(left.to_string(), "3 connections were never released");
}

#[test]
fn times_are_seconds() {
    let at = Time::from_millis(61_002) + core::time::Duration::from_nanos(345_678);
    assert_eq!(at.to_string(), "61.002345");
    say(&[(Deadline { at, timer: Timer::Drain }, "Drain at 61.002345")]);
}

#[test]
fn addresses_are_as_the_command_line_writes_them() {
    say(&[
        (Address::Any { port: 80 }, "*:80"),
        (ip("127.0.0.1:80"), "127.0.0.1:80"),
        (ip("[::]:443"), "[::]:443"),
        (Address::Unix("/run/x".into()), "unix:/run/x"),
        (Address::Unix("\0x".into()), "unix:@x"),
        (Address::Fd(3), "fd:3"),
        (Address::Nth(0), "nth:0"),
    ]);
    say(&[
        (SockName::Ip("10.0.0.1:8".parse().unwrap()), "10.0.0.1:8"),
        (SockName::Unix("/run/x".into()), "unix:/run/x"),
        (SockName::Unix("\0x".into()), "unix:@x"),
    ]);
}

#[test]
fn errors_and_ends() {
    say(&[(Errno::EINVAL, "errno 22")]);
    say(&[(ExitStatus::Code(3), "code 3"), (ExitStatus::Signal(9), "signal 9")]);
    say(&[(Life::Ready, "ready"), (Life::Starting, "starting")]);
    say(&[(Broken("it does not hold"), "it does not hold")]);
    let address = Address::Any { port: 80 };
    say(&[
        (Verdict::Stopped, "stopped"),
        (Verdict::CrashLoop, "every worker slot failed too often"),
        (Verdict::CannotBind { address, errno: Errno(98) }, "cannot bind *:80: errno 98"),
        (Verdict::ProgramMissing, "the program does not exist"),
        (Verdict::NotExecutable { errno: Errno(13) }, "the program cannot be executed: errno 13"),
    ]);
    let listener = ListenerId::from_raw(3).unwrap();
    say(&[
        (Misuse::UnknownWorker(worker(7)), "w7 was never issued"),
        (Misuse::NotStarting(worker(7)), "no start of w7 is expected"),
        (Misuse::ListenerNotOpen(listener), "l3 is not open"),
        (Misuse::NotBinding(listener), "no bind of l3 is expected"),
        (Misuse::NotUnbinding(listener), "no close of l3 is expected"),
        (Misuse::ConnNotRising(conn(9)), "c9 does not come after the last connection"),
        (Misuse::NothingSent, "no polled message is waiting to be sent"),
        (Misuse::AskPending(5), "ask 5 has no answer yet"),
    ]);
}

#[test]
fn decode_errors() {
    let all = [
        (DecodeError::BadMagic, "bad_magic", "the stream does not begin with the hello"),
        (
            DecodeError::BadVersion { own: 1, other: 3 },
            "bad_version",
            "its version is 3, and that of this program 1",
        ),
        (DecodeError::FrameTooLong, "frame_too_long", "a frame is longer than allowed"),
        (DecodeError::BadMessage, "bad_message", "a frame is not a message"),
        (DecodeError::TrailingBytes, "trailing_bytes", "a frame has bytes left after its message"),
        (
            DecodeError::UnexpectedHandles,
            "unexpected_handles",
            "handles arrived that no message announced",
        ),
        (DecodeError::NestedTooDeep, "nested_too_deep", "a message is nested too deeply"),
        (
            DecodeError::TooManyHandles,
            "too_many_handles",
            "too many handles wait for their acknowledgement",
        ),
    ];
    for (error, name, text) in all {
        assert_eq!((error.name(), error.to_string().as_str()), (name, text));
        assert_eq!(Violation::Decode(error).name(), name);
    }
    let others: Vec<&str> = [
        Violation::UnknownCodec,
        Violation::FrameTimeout,
        Violation::UnexpectedMessage,
        Violation::StrayMessages,
    ]
    .iter()
    .map(Violation::name)
    .collect();
    assert_eq!(others, ["unknown_codec", "frame_timeout", "unexpected_message", "stray_messages"]);
}

#[test]
fn journal_errors() {
    let cause = DecodeError::BadMagic;
    let config = Config::builder().workers(0).build().unwrap_err();
    say(&[
        (
            ReplayError::Damaged { entry: 0, cause },
            "is not a journal: the stream does not begin with the hello",
        ),
        (
            ReplayError::Damaged { entry: 4, cause: DecodeError::BadMessage },
            "is damaged after entry 4: a frame is not a message",
        ),
        (ReplayError::Misplaced { entry: 4 }, "is damaged after entry 4: a record is out of place"),
        (
            ReplayError::Config(config),
            "records an invalid configuration: workers is 0, which is not between 1 and 10000",
        ),
        (
            ReplayError::Differs { entries: 4..=4 },
            "entry 4: the outputs differ from the recorded ones",
        ),
        (
            ReplayError::Differs { entries: 4..=6 },
            "entries 4 to 6: the outputs differ from the recorded ones",
        ),
    ]);
}

#[test]
fn configuration_errors() {
    say(&[
        (ConfigError::Zero { field: "cooldown" }, "cooldown must be greater than zero"),
        (
            ConfigError::Order { low: "cooldown", high: "cooldown_max" },
            "cooldown_max must not be less than cooldown",
        ),
        (
            ConfigError::NthListener { nth: 1 },
            "listener 1 names another listener instead of an address",
        ),
    ]);
    let overlap = |addresses: [&str; 2]| {
        let listeners = addresses.map(|address| ListenKey::stream(ip(address))).to_vec();
        Config::builder().listeners(listeners).build().unwrap_err()
    };
    let wide = "listener [::]:80 already includes 0.0.0.0:80: give [::]:80 alone";
    say(&[
        (overlap(["0.0.0.0:80", "[::]:80"]), wide),
        (overlap(["[::]:80", "0.0.0.0:80"]), wide),
        (overlap(["127.0.0.1:80", "127.0.0.1:80"]), "listener 127.0.0.1:80 is given twice"),
    ]);
    let apart = ["127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:80", "[::1]:80", "0.0.0.0:81"];
    let listeners = apart.map(|address| ListenKey::stream(ip(address))).to_vec();
    assert!(Config::builder().listeners(listeners).build().is_ok());
}

#[test]
fn named_values_display_their_name() {
    say(&Policy::ALL.map(|it| (it, it.name())));
    say(&Overflow::ALL.map(|it| (it, it.name())));
    say(&Respawn::ALL.map(|it| (it, it.name())));
    say(&[(StopSignal::Signal(Signal::User2), "USR2"), (StopSignal::Message, "message")]);
    say(&[(Codec::Native, "native"), (Codec::Node, "node")]);
    say(&[(Refusal::Overflow, "overflow"), (Refusal::Unknown, "unknown")]);
    say(&[(ExitClass::NeverReady, "never_ready"), (ExitClass::Overdue, "overdue")]);
    say(&[(node::Skipped::NotUtf8, "not_utf8")]);
    say(&[(node::HandleKind::NetServer, "net.Server")]);
    // In a column.
    assert_eq!(alloc::format!("{:>8}|{:<6}|", Life::Ready, Signal::Term), "   ready|TERM  |");
}

#[test]
fn why_a_worker_was_ended_or_not_started() {
    say(&[
        (Violation::from(DecodeError::BadMessage), "a frame is not a message"),
        (Violation::UnknownCodec, "the first byte matches no codec"),
        (Violation::FrameTimeout, "a frame did not complete in time"),
        (Violation::UnexpectedMessage, "a message arrived that is not allowed now"),
        (Violation::StrayMessages, "too many messages refer to something unknown"),
    ]);
    say(&[
        (SpawnError::NotFound, "the program does not exist"),
        (SpawnError::Other(Errno::EAGAIN), "errno 11"),
        (SpawnError::NotExecutable(Errno::EACCES), "the program cannot be executed: errno 13"),
    ]);
}

#[test]
fn exits_are_those_of_wait() {
    for (status, end) in [
        (0, Some(ExitStatus::Code(0))),
        (255 << 8, Some(ExitStatus::Code(255))),
        (15, Some(ExitStatus::Signal(15))),
        (0x80 | 6, Some(ExitStatus::Signal(6))),
        (64, Some(ExitStatus::Signal(64))),
        // Stopped by SIGSTOP; continued.
        (19 << 8 | 0x7f, None),
        (0xffff, None),
    ] {
        assert_eq!(ExitStatus::from_wait_status(status), end, "{status:#x}");
    }
}
