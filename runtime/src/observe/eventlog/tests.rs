use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// A path in a directory of its own, which is removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("roundel-log-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open_log(path: &Path) -> EventLog {
    EventLog::open(&Target::Path(path.to_owned()), Time::ZERO, Console::silent()).unwrap()
}

/// A FIFO and its reading end, which must be open before a log opens the writing end.
fn fifo(scratch: &Scratch) -> (PathBuf, File) {
    let path = scratch.at("fifo");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let flags = OFlag::O_NONBLOCK.bits();
    let reader = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
    (path, reader)
}

/// Blocks the writer until somebody reads: it is given a line longer than a pipe and a batch, and
/// is in the middle of it when this returns. From then on the queue takes exactly `CAPACITY`.
fn block_writer(log: &mut EventLog, reader: &File) {
    log.write(&format!("\"{}\"", "x".repeat(4 << 20)));
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)), Ok(1));
}

/// The count in an `events_dropped` line.
fn dropped_in(line: &str) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let is_note = value.get("event").is_some_and(|event| event == "events_dropped");
    assert!(!is_note || value.get("at_ms").is_some_and(serde_json::Value::is_u64), "{line}");
    value.get("count").filter(|_| is_note)?.as_u64()
}

/// Reads to the end of file, and waits for it.
fn lines_of(reader: File) -> Vec<String> {
    let mut flags =
        OFlag::from_bits_retain(nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_GETFL).unwrap());
    flags.remove(OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    BufReader::new(reader).lines().map(Result::unwrap).collect()
}

#[test]
fn lines_arrive_in_order_and_a_rotation_splits_them_exactly() {
    let scratch = Scratch::new("order");
    let (path, moved) = (scratch.at("log"), scratch.at("log.1"));
    let mut log = open_log(&path);
    fs::rename(&path, &moved).unwrap();
    for n in 0..1_000 {
        log.write(&format!("{n}"));
    }
    log.reopen();
    log.write("new");
    log.finish(LONG);
    let text = fs::read_to_string(&moved).unwrap();
    let expected: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
}

#[test]
fn a_blocked_pipe_holds_nobody_up_and_what_was_dropped_is_counted() {
    let scratch = Scratch::new("blocked");
    let (path, reader) = fifo(&scratch);
    let mut log = open_log(&path);
    block_writer(&mut log, &reader);
    // Eight bytes each, with the line end.
    let fit = CAPACITY / 8;
    for n in 0..fit + 1_000 {
        log.write(&format!("{n:07}"));
    }
    let reading = thread::spawn(move || lines_of(reader));
    log.finish(LONG);
    let lines = reading.join().unwrap();
    let dropped = lines.iter().filter(|line| line.starts_with('{')).filter_map(|it| dropped_in(it));
    assert_eq!(dropped.sum::<u64>(), 1_000);
    let numbers: Vec<usize> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers, (0..fit).collect::<Vec<_>>());
}

#[test]
fn the_end_is_not_held_up_by_a_pipe_that_nobody_reads() {
    let scratch = Scratch::new("end");
    let (path, reader) = fifo(&scratch);
    let mut log = open_log(&path);
    block_writer(&mut log, &reader);
    let begun = Instant::now();
    log.finish(Duration::from_millis(50));
    assert!(begun.elapsed() < LONG);
}

#[test]
fn a_rotation_finds_its_place_in_a_full_queue() {
    let scratch = Scratch::new("due");
    let (path, reader) = fifo(&scratch);
    let mut log = open_log(&path);
    block_writer(&mut log, &reader);
    for _ in 0..=CAPACITY / 8 {
        log.write("1234567");
    }
    log.reopen();
    fs::remove_file(&path).unwrap();
    // The FIFO ends when the writer closes it, which is when it opens the file.
    let lines = lines_of(reader);
    assert_eq!(lines.len(), 1 + CAPACITY / 8);
    log.write("\"last\"");
    log.finish(LONG);
    let text = fs::read_to_string(&path).unwrap();
    let (note, last) = text.split_once('\n').unwrap();
    assert_eq!((dropped_in(note), last), (Some(1), "\"last\"\n"));
}

#[test]
fn a_full_disk_stops_the_log_until_it_is_opened_anew() {
    let scratch = Scratch::new("full");
    let (path, file) = (scratch.at("log"), scratch.at("file"));
    symlink("/dev/full", &path).unwrap();
    let mut log = open_log(&path);
    for n in 0..10 {
        log.write(&format!("{n}"));
    }
    fs::remove_file(&path).unwrap();
    symlink(&file, &path).unwrap();
    log.reopen();
    log.write("11");
    log.finish(LONG);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines.iter().filter_map(|line| dropped_in(line)).sum::<u64>(), 10);
    assert!(lines.contains(&"11"));
}

#[test]
fn after_a_failed_write_nothing_is_tried_before_the_file_is_opened_anew() {
    let scratch = Scratch::new("silent");
    let path = scratch.at("log");
    let mut writer = Writer {
        target: Target::Path(path.clone()),
        output: open_file(Path::new("/dev/full"), 0o600).unwrap(),
        mid_line: false,
        started: Time::ZERO,
        console: Console::silent(),
        lost: 0,
        broken: false,
    };
    let progress = Progress::default();
    writer.put(b"1\n2\n", &progress);
    // There is room again, but the output may end in half a line.
    writer.output = open_file(&path, 0o600).unwrap();
    writer.put(b"3\n", &progress);
    writer.dropped(4, &progress);
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    writer.reopen(&progress);
    assert_eq!(dropped_in(&fs::read_to_string(&path).unwrap()), Some(7));
}

#[test]
fn half_a_line_is_ended_before_the_next_one() {
    let scratch = Scratch::new("half");
    let path = scratch.at("log");
    let text = || fs::read_to_string(&path).unwrap();
    fs::write(&path, "whole\nha").unwrap();
    let mut log = open_log(&path);
    log.write("1");
    log.write("2");
    log.finish(LONG);
    assert_eq!(text(), "whole\nha\n1\n2\n");
    // Whole lines are left as they are, and so is an empty file.
    for whole in ["1\n", ""] {
        fs::write(&path, whole).unwrap();
        let mut log = open_log(&path);
        log.write("2");
        log.finish(LONG);
        assert_eq!(text(), format!("{whole}2\n"));
    }
}

#[test]
fn half_a_line_is_ended_when_the_file_is_opened_anew() {
    let scratch = Scratch::new("anew");
    let path = scratch.at("log");
    fs::write(&path, "ha").unwrap();
    let target = scratch.at("target");
    symlink("/dev/full", &target).unwrap();
    let mut log = open_log(&target);
    log.write("lost");
    fs::remove_file(&target).unwrap();
    symlink(&path, &target).unwrap();
    log.reopen();
    log.finish(LONG);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "ha"), "{text}");
    assert_eq!(dropped_in(lines[1]), Some(1));
}

/// Standard output may have been opened for appending or not, and is a file of its own.
#[test]
fn the_last_byte_is_the_one_before_the_next() {
    let scratch = Scratch::new("last");
    let path = scratch.at("log");
    fs::write(&path, "ab").unwrap();
    let append = OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(last_byte(&append), Some(b'b'));
    let mut over = OpenOptions::new().write(true).open(&path).unwrap();
    assert_eq!(last_byte(&over), None);
    std::io::Write::write_all(&mut over, b"x").unwrap();
    assert_eq!(last_byte(&over), Some(b'x'));
    // The byte is from that file, even if another file now has its name.
    fs::rename(&path, scratch.at("log.1")).unwrap();
    fs::write(&path, "\n").unwrap();
    assert_eq!(last_byte(&append), Some(b'b'));
    let (path, _reader) = fifo(&scratch);
    assert_eq!(last_byte(&open_file(&path, 0o600).unwrap()), None);
}

#[test]
fn files_that_it_makes_are_for_the_user_alone() {
    let scratch = Scratch::new("mode");
    let path = scratch.at("log");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let mut log = open_log(&path);
    assert_eq!(mode(), 0o600);
    fs::remove_file(&path).unwrap();
    log.reopen();
    log.write("1");
    log.finish(LONG);
    assert_eq!(mode(), 0o600);
    // A mode that the operator has given to the file is kept.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    open_log(&path).finish(LONG);
    assert_eq!(mode(), 0o644);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_immediate_error() {
    let open =
        |path: &Path| EventLog::open(&Target::Path(path.to_owned()), Time::ZERO, Console::silent());
    assert!(open(Path::new("/nonexistent/dir/log")).is_err());
    let scratch = Scratch::new("alone");
    let path = scratch.at("fifo");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let line = open(&path).unwrap_err().to_string();
    let no_reader = std::io::Error::from(nix::errno::Errno::ENXIO);
    assert_eq!(line, format!("{}: {no_reader}", path.display()));
}
