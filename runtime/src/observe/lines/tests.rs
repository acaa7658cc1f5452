use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// Writes to a pipe, and reports how much was dropped as a line of its own.
struct Pipe(OwnedFd);

impl Sink for Pipe {
    fn put(&mut self, lines: &[u8], progress: &Progress) {
        write_lines(self.0.as_fd(), lines, progress).unwrap();
    }

    fn dropped(&mut self, count: u64, progress: &Progress) {
        self.put(format!("dropped {count}\n").as_bytes(), progress);
    }

    fn reopen(&mut self, progress: &Progress) {
        self.put(b"reopened\n", progress);
    }
}

fn on_a_pipe(capacity: usize) -> (Lines, File) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    (Lines::start("test", capacity, Pipe(writer)).unwrap(), reader.into())
}

/// A writer in the middle of a line that nobody reads, with an empty queue.
fn stalled(capacity: usize) -> (Lines, File) {
    let (lines, reader) = on_a_pipe(capacity);
    lines.push(&[&"x".repeat(capacity - 1), "\n"]);
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)), Ok(1));
    (lines, reader)
}

fn read_lines(reader: File) -> Vec<String> {
    BufReader::new(reader).lines().skip(1).map(Result::unwrap).collect()
}

#[test]
fn a_gap_is_in_one_place_and_told_there() {
    let capacity = 1 << 20;
    let (lines, reader) = stalled(capacity);
    let long = "y".repeat(capacity - 10);
    lines.push(&[&long, "\n"]);
    // It does not fit; the next line would, but must not come before it.
    lines.push(&["0123456789\n", "two\n"]);
    lines.push(&["small\n"]);
    assert!(!lines.flush(Duration::from_millis(30), LONG));
    let reading = thread::spawn(move || read_lines(reader));
    assert!(lines.flush(LONG, LONG));
    lines.push(&["again\n"]);
    drop(lines);
    assert_eq!(reading.join().unwrap(), [&long, "dropped 3", "again"]);
}

#[test]
fn the_end_is_waited_for_as_long_as_something_is_read() {
    let capacity = 1 << 20;
    let (lines, mut reader) = stalled(capacity);
    let reading = thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        let mut count = 0;
        loop {
            // In total slower than the other side's patience, but faster at each step.
            thread::sleep(Duration::from_millis(20));
            match reader.read(&mut chunk).unwrap() {
                0 => return count,
                some => count += some,
            }
        }
    });
    assert!(lines.flush(Duration::from_millis(250), LONG));
    drop(lines);
    assert_eq!(reading.join().unwrap(), capacity);
}

#[test]
fn the_end_has_a_limit_whatever_is_read() {
    let (lines, _reader) = stalled(1 << 20);
    let begun = Instant::now();
    assert!(!lines.flush(LONG, Duration::from_millis(30)));
    assert!(begun.elapsed() < LONG);
}

#[test]
fn it_is_opened_anew_between_lines_also_where_the_queue_is_full() {
    let capacity = 1 << 17;
    let (lines, reader) = stalled(capacity);
    let long = "y".repeat(capacity - 1);
    lines.push(&[&long, "\n"]);
    lines.reopen();
    lines.push(&["lost\n"]);
    lines.reopen();
    let reading = thread::spawn(move || read_lines(reader));
    drop(lines);
    assert_eq!(reading.join().unwrap(), [&long, "reopened", "dropped 1"]);
}

/// Nothing else is queued then: neither lines nor a busy writer show that something is due.
#[test]
fn the_end_comes_after_an_opening() {
    let (lines, mut reader) = on_a_pipe(16);
    for _ in 0..200 {
        lines.reopen();
        assert!(lines.flush(LONG, LONG));
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
        assert_eq!(reader.read(&mut [0; 16]).unwrap(), "reopened\n".len());
    }
}

#[test]
fn lines_longer_than_the_queue_are_a_gap() {
    let (lines, mut reader) = on_a_pipe(16);
    lines.push(&["longer than the queue\n"]);
    assert!(lines.flush(LONG, LONG));
    lines.push(&["one\n"]);
    drop(lines);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "dropped 1\none\n");
}

#[test]
fn a_pipe_that_another_made_non_blocking_is_waited_for() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    crate::unix::channel::set_nonblocking(&writer).unwrap();
    // More than any pipe holds.
    let bytes = vec![b'x'; 4 << 20];
    let sent = bytes.len();
    let progress = Progress::default();
    let write = move || write_all(writer.as_fd(), &bytes, &progress).unwrap();
    let writing = thread::spawn(write);
    let read = io::copy(&mut File::from(reader), &mut io::sink()).unwrap();
    assert_eq!((writing.join().unwrap(), read), (sent, sent as u64));
}

/// Two writers on one non-blocking pipe: no line of one has a line of the other in it.
#[test]
fn lines_stay_whole_beside_those_of_others() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    crate::unix::channel::set_nonblocking(&writer).unwrap();
    let line = |byte: &str| byte.repeat(999) + "\n";
    let writers = ["a", "b"].map(|byte| {
        let (writer, bytes) = (writer.try_clone().unwrap(), line(byte).repeat(500));
        thread::spawn(move || {
            write_lines(writer.as_fd(), bytes.as_bytes(), &Progress::default()).unwrap();
        })
    });
    drop(writer);
    let read: Vec<String> =
        BufReader::new(File::from(reader)).lines().map(Result::unwrap).collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(read.len(), 1_000);
    for text in read {
        assert!(text.len() == 999 && text.chars().all(|c| text.starts_with(c)), "{text}");
    }
}

#[test]
fn pieces_end_with_lines() {
    let max = nix::libc::PIPE_BUF;
    assert_eq!(first_lines(b"a\nb"), 3);
    let long = [vec![b'x'; max], b"\nnext\n".to_vec()].concat();
    assert_eq!(first_lines(&long), max + 1);
    let short = [b"a\n".to_vec(), vec![b'x'; max]].concat();
    assert_eq!(first_lines(&short), 2);
    assert_eq!(first_lines(&vec![b'x'; max + 5]), max + 5);
}

#[test]
fn an_error_tells_how_much_went() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    let (count, error) = write_lines(writer.as_fd(), b"a\n", &Progress::default()).unwrap_err();
    assert_eq!((count, error.kind()), (0, io::ErrorKind::BrokenPipe));
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    assert!(full.write(b"x").is_err());
    assert!(write_all(full.as_fd(), b"x", &Progress::default()).is_err());
}
