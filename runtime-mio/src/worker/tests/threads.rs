//! Calls that wait on several threads: none sleeps beside what it waits for, no matter which of
//! them has read the channel.

use roundel_core::{Codec, Errno};
use roundel_test_support::{Dealer, Dice};

use super::*;

/// Waits until everything is answered, and grants what is asked for meanwhile.
fn settle(dealer: &mut Dealer, seed: u64) {
    let begun = Instant::now();
    loop {
        dealer.grant_asked();
        let left = dealer.in_flight();
        if left == 0 {
            return;
        }
        assert!(begun.elapsed() < SOON, "seed {seed}: threads sleep beside {left} connections");
        thread::park_timeout(Duration::from_micros(100));
    }
}

/// Two threads at one listener, one each at two others; sometimes one of them listens anew.
fn serve(seed: u64, worker: &Worker, web: &Listener) {
    let mut dice = Dice::new(seed);
    loop {
        let is_over = match dice.roll(8) {
            0 => !web.decline().unwrap(),
            1 => {
                let _ = web.try_accept();
                // It is refused if the worker must leave.
                drop(worker.listen(&format!("127.0.0.1:{}", 20_000 + dice.roll(10_000))));
                continue;
            }
            _ => web.accept().unwrap().is_none(),
        };
        if is_over {
            return;
        }
    }
}

fn any_threads(codec: Codec) {
    for seed in 1..=8 {
        let (mut dealer, driver) = Dealer::new(codec);
        let worker = Worker::over(driver).unwrap();
        let mut open = Vec::new();
        for n in 0..3 {
            open.push(thread::scope(|scope| {
                scope.spawn(|| dealer.grant());
                worker.listen(&format!("127.0.0.1:{}", 10_000 + n)).unwrap()
            }));
        }
        dealer.hear();
        let served = thread::spawn(move || {
            thread::scope(|scope| {
                for n in 0..4 {
                    let (worker, web) = (&worker, &open[n % 3]);
                    scope.spawn(move || serve(seed * 10 + n as u64, worker, web));
                }
                assert_ne!(worker.leaving().unwrap(), Standing::Serving);
            });
            assert_eq!(worker.finish(), ExitCode::SUCCESS);
        });
        let mut dice = Dice::new(seed);
        for _ in 0..60 {
            for _ in 0..=dice.roll(6) {
                dealer.deal(dice.roll(3));
            }
            settle(&mut dealer, seed);
        }
        dealer.dismiss();
        let begun = Instant::now();
        while !served.is_finished() {
            settle(&mut dealer, seed);
            assert!(begun.elapsed() < SOON, "seed {seed}: threads do not know of their end");
            thread::park_timeout(Duration::from_micros(100));
        }
        served.join().unwrap();
    }
}

#[test]
fn no_threads_lose_a_wake() {
    any_threads(Codec::Native);
}

#[test]
fn nor_under_a_primary_of_node() {
    any_threads(Codec::Node);
}

/// A thread is about to wait, and another one reads the channel first.
#[test]
fn one_read_wakes_all_waiting_calls() {
    let (mut primary, mut worker, web) = serving();
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(8));
    poll.registry().register(&mut worker, Token(7), Interest::READABLE).unwrap();
    let mut is_woken = || {
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    };
    let reads = || assert!(web.try_accept().is_err());
    while is_woken() {}
    let ask = worker.inner.act(|driver| driver.ask(ListenKey::stream(Address::Nth(1)), 0, vec![]));
    let FromWorker::Query { seq: asked, .. } = primary.hear() else { panic!("it does not ask") };
    primary.send(&ToWorker::QueryReply { ack: asked, result: Err(Errno::EINVAL) }, &[]);
    reads();
    assert!(is_woken(), "for the answer to its ask");
    assert!(worker.inner.act(|driver| driver.answer(ask)).is_some());
    worker.request_replacement();
    let FromWorker::Suicide { seq: said } = primary.hear() else { panic!("it does not say so") };
    while is_woken() {}
    primary.send(&ToWorker::Ack { ack: said }, &[]);
    reads();
    assert!(is_woken(), "for the confirmation");
}

/// The program in the README: read the request, answer, go on.
#[test]
fn a_blocking_program_reads_requests_and_survives_its_clients() {
    let (mut primary, _worker, web) = serving();
    let served = thread::spawn(move || {
        let mut count = 0;
        while let Some(mut connection) = web.accept().unwrap() {
            let mut request = [0; 1024];
            let _ = connection.read(&mut request).and_then(|_| connection.write_all(b"hello"));
            count += 1;
        }
        count
    });
    let mut handed = 0;
    let mut client = || {
        let (client, ours) = connection();
        handed += 1;
        primary.hand_over(handed, &[&ours]);
        // It waits for the request from here on.
        assert_eq!(primary.hear(), FromWorker::Ack { ack: seq(handed), accepted: true });
        client
    };
    // One of them is reset, because it leaves an answer unread: it had one before.
    for body in [0, 10 << 20] {
        let mut leaver = client();
        leaver.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let _ = leaver.write_all(&vec![b'x'; body]);
        drop(leaver);
        let mut patient = client();
        patient.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        patient.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
    }
    primary.send(&ToWorker::Drain { deadline_ms: 1_000 }, &[]);
    assert_eq!(soon(|| served.join().unwrap()), 4);
}

#[test]
fn a_silent_client_holds_nobody_up_for_longer_than_is_said() {
    let (mut primary, _worker, web) = serving();
    let (_client, ours) = connection();
    primary.hand_over(1, &[&ours]);
    let mut taken = web.accept().unwrap().unwrap();
    taken.set_timeout(Some(Duration::from_millis(10))).unwrap();
    let read = soon(move || taken.read(&mut [0]));
    assert!(read.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
}
