//! The primary is told how many connections are open.

use std::time::Instant;

use nix::poll::{PollFd, PollFlags, poll};

use super::*;

const DELAY: Duration = Duration::from_millis(50);

/// Hands so many connections over, and takes them.
fn take_some(
    primary: &mut Primary,
    driver: &mut WorkerDriver,
    web: &Listener,
    first: u64,
    count: u32,
) -> Vec<Connection> {
    let (_client, ours) = connection();
    primary.hand_over(first, count, &vec![&ours; count as usize]);
    std::iter::from_fn(|| take(driver, web)).collect()
}

/// Waits as an event loop does, and makes the turns that are due, until the primary is told that so
/// many are open; returns all numbers that it was told. A slow machine tells some between.
fn until(wanted: u32, primary: &mut Primary, driver: &mut WorkerDriver) -> Vec<u32> {
    let mut told = primary.hear_loads();
    while told.last() != Some(&wanted) {
        wait(driver);
        told.extend(primary.hear_loads());
    }
    told
}

fn wait(driver: &mut WorkerDriver) {
    let fd = driver.load_fd().unwrap().clone();
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 10_000_u16), Ok(1), "the timer is not set");
    driver.turn_once();
    assert_eq!(poll(&mut fds, 0_u8), Ok(0), "it stays ready");
}

#[test]
fn taken_and_closed_connections_are_told() {
    let (mut primary, mut driver) = cluster_unheard();
    assert_eq!(primary.hear_loads(), [0], "at the start");
    let web = listen(&mut primary, &mut driver);
    let taken = take_some(&mut primary, &mut driver, &web, 1, 3);
    assert_eq!(driver.open_connections(), 3);
    until(3, &mut primary, &mut driver);
    drop(taken);
    assert_eq!(driver.open_connections(), 0);
    assert_eq!(until(0, &mut primary, &mut driver), [0]);
    assert!(driver.is_all_closed());
}

#[test]
fn many_changes_are_told_at_once_and_not_before_their_time() {
    let (mut primary, mut driver, web) = serving();
    let begun = Instant::now();
    let mut kept = Vec::new();
    for n in 0..20 {
        let mut taken = take_some(&mut primary, &mut driver, &web, 1 + 2 * n, 2);
        kept.extend(taken.pop());
    }
    let told = until(20, &mut primary, &mut driver);
    let took = begun.elapsed();
    assert!(took >= DELAY, "{took:?} {told:?}");
    // The first number was that of the start.
    assert!(told.len() <= 1 + took.as_millis() as usize / 50, "{took:?} {told:?}");
    for _ in 0..5 {
        driver.turn();
    }
    assert_eq!(primary.hear_loads(), [0; 0]);
}

#[test]
fn a_change_that_is_taken_back_is_not_told() {
    let (mut primary, mut driver, web) = serving();
    let mut told = vec![0];
    drop(take_some(&mut primary, &mut driver, &web, 1, 2));
    wait(&mut driver);
    told.extend(primary.hear_loads());
    assert!(told.windows(2).all(|two| two[0] != two[1]), "{told:?}");
}

#[test]
fn a_connection_may_be_closed_on_another_thread() {
    let (mut primary, mut driver, web) = serving();
    let taken = take_some(&mut primary, &mut driver, &web, 1, 2);
    until(2, &mut primary, &mut driver);
    thread::spawn(move || drop(taken)).join().unwrap();
    until(0, &mut primary, &mut driver);
}

/// A change is never overlooked, however it falls in with a report.
#[test]
fn threads_that_change_the_number_at_once_leave_the_right_one() {
    let (mut primary, mut driver, web) = serving();
    for round in 0..10 {
        let taken = take_some(&mut primary, &mut driver, &web, 1 + 9 * round, 9);
        until(9, &mut primary, &mut driver);
        let closing: Vec<_> =
            taken.into_iter().map(|one| thread::spawn(move || drop(one))).collect();
        closing.into_iter().for_each(|thread| thread.join().unwrap());
        until(0, &mut primary, &mut driver);
    }
}

#[test]
fn a_hold_counts_for_a_connection_that_became_a_stream() {
    let (mut primary, mut driver, web) = serving();
    let mut taken = take_some(&mut primary, &mut driver, &web, 1, 2);
    let hold = taken[0].hold();
    drop(taken[0].hold());
    assert_eq!(driver.open_connections(), 2, "the second one counts nothing");
    let mut streams = taken.into_iter().map(|it| it.into_tcp_stream().unwrap());
    let (first, _second) = (streams.next(), streams.next());
    assert_eq!(driver.open_connections(), 1, "nothing was taken from the other one");
    drop(first);
    assert_eq!(driver.open_connections(), 1);
    drop(hold);
    assert_eq!(driver.open_connections(), 0);
}

#[test]
fn a_draining_worker_goes_on_telling() {
    let (mut primary, mut driver, web) = serving();
    let taken = take_some(&mut primary, &mut driver, &web, 1, 1);
    primary.send(&ToWorker::Drain { deadline_ms: 10_000 }, &[]);
    driver.turn();
    until(1, &mut primary, &mut driver);
    assert!(driver.is_drained());
    drop(taken);
    until(0, &mut primary, &mut driver);
}

/// Only the newest number is of use.
#[test]
fn nothing_piles_up_in_a_full_channel() {
    let (mut primary, mut driver, web) = serving();
    let mut taken = take_some(&mut primary, &mut driver, &web, 1, 3);
    until(3, &mut primary, &mut driver);
    let clogged = clog(&driver);
    driver.request_replacement();
    assert!(driver.wants_write());
    taken.pop();
    wait(&mut driver);
    taken.pop();
    driver.turn();
    unclog(&primary, clogged);
    driver.turn();
    assert_eq!(primary.hear_loads(), [1]);
}

#[test]
fn nobody_is_told_without_a_native_primary() {
    let mut alone = WorkerDriver::new(None);
    assert!(alone.load_fd().is_none());
    let any = listen_alone(&mut alone, "127.0.0.1:0");
    let _client = TcpStream::connect(("127.0.0.1", any.sockname().port().unwrap())).unwrap();
    let taken = take(&mut alone, &any).unwrap();
    assert_eq!(alone.open_connections(), 1);
    drop(taken);
    assert!(alone.is_all_closed());
    let (_ours, theirs) = channel::pair().unwrap();
    assert!(WorkerDriver::new(Some((theirs, Codec::Node))).load_fd().is_none());
    let (primary, driver, _web) = serving();
    assert!(driver.load_fd().is_some());
    drop(primary);
}
