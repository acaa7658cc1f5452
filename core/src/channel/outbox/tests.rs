use alloc::vec;

use super::*;

/// A message of `len` bytes, all of them `byte`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fill(u8, usize);

fn encode(msg: &Fill, bytes: &mut Vec<u8>) {
    bytes.extend(core::iter::repeat_n(msg.0, msg.1));
}

fn next(outbox: &mut Outbox<Fill, char>) -> Option<(Vec<u8>, Vec<char>)> {
    assert_eq!(outbox.prepare(encode), None);
    outbox.transmit().map(|next| (next.bytes.to_vec(), next.handles.to_vec()))
}

fn three() -> Outbox<Fill, char> {
    let mut outbox = Outbox::new();
    outbox.push(Fill(1, 2), []);
    outbox.push(Fill(2, 3), ['a', 'b']);
    outbox.push(Fill(3, 1), []);
    outbox
}

#[test]
fn handles_ride_on_the_first_byte_of_their_message() {
    let mut outbox = three();
    assert_eq!(next(&mut outbox), Some((vec![1, 1], vec![])));
    outbox.sent(2);
    // None of its bytes were sent, so it is given again.
    assert_eq!(next(&mut outbox), Some((vec![2, 2, 2], vec!['a', 'b'])));
    assert_eq!(next(&mut outbox), Some((vec![2, 2, 2], vec!['a', 'b'])));
    outbox.sent(1);
    assert_eq!(next(&mut outbox), Some((vec![2, 2], vec![])));
    assert_eq!((outbox.take_finished(), outbox.len()), (1, 2));
    outbox.sent(2);
    assert_eq!(next(&mut outbox), Some((vec![3], vec![])));
    outbox.sent(1);
    assert_eq!(next(&mut outbox), None);
    assert_eq!(outbox.take_finished(), 2);
    assert!(outbox.is_empty());
}

#[test]
fn messages_without_handles_go_together_and_in_pieces() {
    let mut outbox = Outbox::new();
    (1..=3).for_each(|n| outbox.push(Fill(n, 2), []));
    assert_eq!(next(&mut outbox), Some((vec![1, 1, 2, 2, 3, 3], vec![])));
    outbox.sent(5);
    assert_eq!((outbox.take_finished(), next(&mut outbox)), (0, Some((vec![3], vec![]))));
    outbox.sent(1);
    assert_eq!((outbox.take_finished(), next(&mut outbox)), (3, None));
}

#[test]
fn urgent_messages_never_split_a_message() {
    let mut outbox = three();
    next(&mut outbox);
    outbox.sent(1);
    outbox.interject(&[9]);
    assert_eq!(next(&mut outbox), Some((vec![1], vec![])));
    outbox.sent(1);
    assert_eq!(next(&mut outbox), Some((vec![9], vec![])));
    outbox.sent(1);
    // Its first byte was not sent, so others may still go before it.
    assert_eq!(next(&mut outbox), Some((vec![2, 2, 2], vec!['a', 'b'])));
    outbox.interject(&[8]);
    assert_eq!(next(&mut outbox), Some((vec![8], vec![])));
    outbox.sent(1);
    assert_eq!(next(&mut outbox), Some((vec![2, 2, 2], vec!['a', 'b'])));
}

#[test]
fn a_message_takes_in_more_until_its_first_byte_has_gone() {
    let mut outbox = Outbox::new();
    outbox.push(Fill(1, 1), ['a']);
    assert_eq!(next(&mut outbox), Some((vec![1], vec!['a'])));
    let longer = |msg: &mut Fill| {
        msg.1 += 1;
        true
    };
    assert!(outbox.merge(longer, ['b']));
    assert!(!outbox.merge(|_| false, ['c']));
    assert_eq!(next(&mut outbox), Some((vec![1, 1], vec!['a', 'b'])));
    outbox.sent(1);
    assert!(!outbox.merge(longer, ['d']), "it is on its way");
    assert_eq!(next(&mut outbox), Some((vec![1], vec![])));
}

#[test]
fn unsendable_messages_are_removed_whole() {
    let mut outbox = three();
    next(&mut outbox);
    assert_eq!(outbox.take_unsendable(), None, "bytes alone fail with the channel");
    outbox.sent(2);
    next(&mut outbox);
    assert_eq!(outbox.take_unsendable(), Some(Fill(2, 3)));
    assert_eq!(next(&mut outbox), Some((vec![3], vec![])));
    // Handles need at least one byte to ride on.
    outbox.push(Fill(4, 0), ['c']);
    outbox.push(Fill(5, 0), []);
    outbox.sent(1);
    assert_eq!(outbox.prepare(encode), Some(Fill(4, 0)));
    assert_eq!((next(&mut outbox), outbox.take_finished()), (None, 3));
    assert!(outbox.is_empty());
}
