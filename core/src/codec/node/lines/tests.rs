//! Lines, however their bytes come.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

use proptest::prelude::*;

use super::*;

fn drain(lines: &mut Lines<u32>) -> Vec<(String, Option<u32>)> {
    core::iter::from_fn(|| {
        let Cut { piece, handle } = lines.poll().unwrap()?;
        let text = match piece {
            Piece::Line(line) => core::str::from_utf8(line).unwrap().to_string(),
            Piece::Long { opening, length } => format!("{opening:?} {length}"),
        };
        Some((text, handle))
    })
    .collect()
}

#[test]
fn a_handle_belongs_to_the_line_of_the_last_byte() {
    let mut lines = Lines::new(100);
    lines.feed(b"one\ntwo\nlad", Some(7));
    assert_eq!(drain(&mut lines), [("one".to_string(), None), ("two".to_string(), None)]);
    assert!(lines.is_mid_line());
    lines.feed(b"en\n", None);
    assert_eq!(drain(&mut lines), [("laden".to_string(), Some(7))]);
    lines.feed(b"plain\nladen\n", Some(8));
    assert_eq!(drain(&mut lines), [("plain".to_string(), None), ("laden".to_string(), Some(8))]);
    assert!(!lines.is_mid_line());
}

#[test]
fn a_handle_in_the_middle_of_a_line_is_an_error() {
    let mut lines = Lines::new(100);
    lines.feed(b"beg", None);
    lines.feed(b"un\n", Some(7));
    assert_eq!(lines.poll().unwrap_err(), DecodeError::UnexpectedHandles);
    assert_eq!(lines.poll().unwrap_err(), DecodeError::UnexpectedHandles, "for good");
}

#[test]
fn a_second_handle_on_a_line_is_an_error_before_its_end() {
    let mut lines = Lines::new(100);
    lines.feed(b"twice", Some(7));
    assert!(drain(&mut lines).is_empty());
    lines.feed(b"x", Some(8));
    assert_eq!(lines.poll().unwrap_err(), DecodeError::TooManyHandles);
    assert!(lines.laden.is_empty(), "nothing is kept");
    let mut lines = Lines::new(100);
    lines.feed(b"twice", Some(7));
    lines.feed(b"\n", Some(8));
    assert_eq!(lines.poll().unwrap_err(), DecodeError::TooManyHandles);
    // The first of them may be the one in the middle.
    let mut lines = Lines::new(100);
    lines.feed(b"beg", None);
    lines.feed(b"u", Some(7));
    assert!(drain(&mut lines).is_empty());
    lines.feed(b"n", Some(8));
    assert_eq!(lines.poll().unwrap_err(), DecodeError::TooManyHandles);
    // One handle per line is right, even if the second comes before the first line has ended.
    let mut lines = Lines::new(100);
    lines.feed(b"on", Some(7));
    assert!(drain(&mut lines).is_empty());
    lines.feed(b"e\ntwo\n", Some(8));
    assert_eq!(drain(&mut lines), [("one".to_string(), Some(7)), ("two".to_string(), Some(8))]);
    // Also in a line that is too long.
    let mut lines = Lines::new(4);
    for handle in [Some(7), None, None] {
        lines.feed(b"12345", handle);
        assert!(drain(&mut lines).is_empty());
    }
    lines.feed(b"6", Some(8));
    assert_eq!(lines.poll().unwrap_err(), DecodeError::TooManyHandles);
}

#[test]
fn of_a_long_line_nothing_is_kept() {
    let mut lines = Lines::new(4);
    lines.feed(b"1234", None);
    assert!(drain(&mut lines).is_empty());
    lines.feed(b"\n", None);
    assert_eq!(drain(&mut lines), [("1234".to_string(), None)]);
    lines.feed(b"12345", Some(7));
    for _ in 0..1_000 {
        assert!(drain(&mut lines).is_empty());
        assert!(lines.buffer.is_empty() && lines.buffer.capacity() <= 2 * KEEP);
        assert!(lines.is_mid_line());
        lines.feed(&[b'x'; 1_000], None);
    }
    lines.feed(b"\nnext\nmore", None);
    let long = ("Program 1000005".to_string(), Some(7));
    assert_eq!(drain(&mut lines), [long, ("next".to_string(), None)]);
    lines.feed(b"\n12345\n1\n", None);
    let wanted = ["more", "Program 5", "1"].map(|text| (text.to_string(), None));
    assert_eq!(drain(&mut lines), wanted);
    assert!(!lines.is_mid_line());
}

#[test]
fn a_long_line_is_known_by_what_it_begins_with() {
    let mut lines = Lines::new(30);
    let handle = format!("{{\"cmd\":\"NODE_HANDLE\",{}\n", " ".repeat(30));
    lines.feed(handle.as_bytes(), Some(7));
    let [(text, Some(7))] = &drain(&mut lines)[..] else { panic!("no line") };
    assert!(text.starts_with("Handle "), "{text}");
    let cluster = format!("{{\"cmd\":\"NODE_CLUSTER\",{}", " ".repeat(30));
    lines.feed(cluster.as_bytes(), None);
    assert_eq!(lines.poll().unwrap_err(), DecodeError::FrameTooLong, "before its end");
    lines.feed(&[b'x'; 1_000], None);
    assert!(lines.buffer.is_empty(), "nothing is kept after an error");
    let mut lines = Lines::<u32>::new(30);
    lines.feed(format!("{cluster}\n").as_bytes(), None);
    assert_eq!(lines.poll().unwrap_err(), DecodeError::FrameTooLong);
    let other = format!("{{ \"cmd\":\"NODE_CLUSTER\",{}\n", " ".repeat(30));
    let mut lines = Lines::new(30);
    lines.feed(other.as_bytes(), None);
    assert!(drain(&mut lines)[0].0.starts_with("Program "), "Node writes no space");
}

#[test]
fn the_memory_of_a_long_line_is_given_back() {
    for size in [2 * KEEP, KEEP + KEEP / 2] {
        let mut lines = Lines { buffer: Vec::with_capacity(size), ..Lines::<u32>::new(9) };
        lines.feed(b"x\n", None);
        assert_eq!((drain(&mut lines).len(), lines.buffer.capacity()), (1, size), "no more");
    }
    let mut lines = Lines::<u32>::new(1 << 20);
    lines.feed(&[b'x'; 3 * KEEP], None);
    assert_eq!(drain(&mut lines).len(), 0);
    lines.feed(b"\n", None);
    let all = drain(&mut lines);
    assert_eq!((all.len(), all[0].0.len()), (1, 3 * KEEP));
    assert!(lines.buffer.capacity() > 2 * KEEP);
    lines.feed(b"y", None);
    assert_eq!(lines.buffer.capacity(), KEEP);
}

proptest! {
    /// What was sent comes out, whatever the reads were: each laden send ends a read.
    #[test]
    fn cuts_do_not_matter(
        sends in prop::collection::vec(("[a-z]{0,19}", any::<bool>()), 1..20),
        cuts in prop::collection::vec(1_usize..7, 1..200),
    ) {
        let mut cuts = cuts.into_iter().cycle();
        let mut lines = Lines::new(9);
        let mut got = Vec::new();
        let mut wanted = Vec::new();
        // Bytes that were sent and not read yet; a laden send ends what one read can take.
        let mut waiting: Vec<u8> = vec![];
        let read = |bytes: &mut Vec<u8>, handle, lines: &mut Lines<u32>| {
            lines.feed(bytes, handle);
            bytes.clear();
            drain(lines)
        };
        for (number, (text, laden)) in sends.into_iter().enumerate() {
            let handle = laden.then_some(number as u32);
            let is_long = text.len() > 9;
            let said = if is_long { format!("Program {}", text.len()) } else { text.clone() };
            wanted.push((said, handle));
            let line = [text.as_bytes(), b"\n"].concat();
            if laden {
                // The first byte takes the handle, however much of the line comes with it.
                let first = cuts.next().unwrap_or(1).min(line.len());
                waiting.extend(&line[..first]);
                got.extend(read(&mut waiting, handle, &mut lines));
                waiting.extend(&line[first..]);
            } else {
                waiting.extend(&line);
            }
            while waiting.len() > 8 {
                let mut part: Vec<u8> =
                    waiting.drain(..cuts.next().unwrap_or(1)).collect();
                got.extend(read(&mut part, None, &mut lines));
            }
        }
        got.extend(read(&mut waiting, None, &mut lines));
        prop_assert_eq!(got, wanted);
    }
}
