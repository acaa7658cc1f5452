//! No task sleeps beside a connection, whatever each task waits for and whichever reads the
//! channel.

use std::time::Instant;

use roundel_core::Codec;
use roundel_test_support::{Dealer, Dice};

use super::*;

/// A worker with a number of listeners.
fn start(codec: Codec, listeners: usize) -> (Dealer, Worker, Vec<Listener>) {
    let (mut dealer, driver) = Dealer::new(codec);
    let worker = Worker::over(driver).unwrap();
    let mut open = Vec::new();
    for n in 0..listeners {
        open.push(thread::scope(|scope| {
            scope.spawn(|| dealer.grant());
            block_on(worker.listen(&format!("127.0.0.1:{}", 10_000 + n))).unwrap()
        }));
    }
    dealer.hear();
    (dealer, worker, open)
}

/// Takes the connections of these two listeners, in a way that changes with each connection, until
/// no more will come. After its calls that do not wait, it waits for one of the two.
async fn serve(seed: u64, worker: &Worker, one: &Listener, two: &Listener) {
    let mut dice = Dice::new(seed);
    let mut stream = one.incoming();
    loop {
        match dice.roll(8) {
            0 => drop(future::poll_once(one.accept()).await),
            1 => drop(future::poll_once(two.decline()).await),
            2 => {
                let _ = two.try_accept();
                two.try_decline();
            }
            3 => {
                let port = 20_000 + dice.roll(10_000);
                // It is refused if the worker must leave.
                let third = worker.listen(&format!("127.0.0.1:{port}")).await;
                future::yield_now().await;
                drop(third);
            }
            4 => {
                let abandoned = worker.listen("127.0.0.1:30000");
                drop(future::poll_once(abandoned).await);
            }
            _ => {}
        }
        let is_over = match dice.roll(4) {
            0 => stream.next().await.is_none(),
            1 => one.accept().await.unwrap().is_none(),
            2 => future::or(one.accept(), two.accept()).await.unwrap().is_none(),
            _ => !one.decline().await.unwrap(),
        };
        if is_over {
            return;
        }
    }
}

/// Waits until everything is answered, and grants what is asked for meanwhile.
fn settle(dealer: &mut Dealer, seed: u64) {
    let begun = Instant::now();
    loop {
        dealer.grant_asked();
        if dealer.in_flight() == 0 {
            return;
        }
        let left = dealer.in_flight();
        assert!(begun.elapsed() < SOON, "seed {seed}: tasks sleep beside {left} connections");
        thread::park_timeout(Duration::from_micros(100));
    }
}

fn any_tasks(codec: Codec) {
    for seed in 1..=8 {
        let (mut dealer, worker, open) = start(codec, 3);
        let shared = Arc::clone(&worker.inner.shared);
        let served = thread::spawn(move || {
            let executor = LocalExecutor::new();
            let all: Vec<_> = (0..3)
                .map(|n| {
                    let (one, two) = (&open[n as usize], &open[(n as usize + 1) % 3]);
                    executor.spawn(serve(seed * 10 + n, &worker, one, two))
                })
                .collect();
            async_io::block_on(executor.run(async {
                for task in all {
                    task.await;
                }
            }));
        });
        let mut dice = Dice::new(seed);
        for _ in 0..60 {
            let is_clogged = dice.roll(4) == 0;
            if is_clogged {
                // Not in the middle of a message that the worker writes.
                shared.with(|_| dealer.clog());
            }
            for _ in 0..=dice.roll(6) {
                dealer.deal(dice.roll(3));
            }
            if is_clogged {
                thread::park_timeout(Duration::from_micros(200));
                dealer.unclog();
            }
            settle(&mut dealer, seed);
        }
        dealer.dismiss();
        let begun = Instant::now();
        while !served.is_finished() {
            settle(&mut dealer, seed);
            assert!(begun.elapsed() < SOON, "seed {seed}: tasks do not know of their end");
            thread::park_timeout(Duration::from_micros(100));
        }
        served.join().unwrap();
    }
}

#[test]
fn no_tasks_lose_a_wake() {
    any_tasks(Codec::Native);
}

#[test]
fn nor_under_a_primary_of_node() {
    any_tasks(Codec::Node);
}

#[test]
fn room_for_an_answer_is_room_for_the_next_one() {
    let (mut dealer, worker, open) = start(Codec::Native, 1);
    assert!(try_now(open[0].accept()).is_none(), "this one reads the channel to its end");
    dealer.deal(0);
    dealer.deal(0);
    worker.inner.with(None, WorkerDriver::turn);
    dealer.clog();
    assert!(try_now(open[0].decline()).is_some(), "its answer waits");
    dealer.unclog();
    assert!(try_now(open[0].accept()).is_some(), "it sleeps beside a connection");
    dealer.hear();
    assert_eq!(dealer.in_flight(), 0);
}
