//! What the worker API does for the programs that use it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cells::{on_all, on_both};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    clients_that_cannot_be_served_now_cost_no_cpu:
        not Node "how a program reads its clients is Node's own",
    helpers_know_nothing_of_the_cluster: not Node "helpers are started by Node's own means",
    a_panic_does_not_wait_for_a_full_channel_and_is_told_later:
        not Node "a panic hook is a thing of Rust",
}

on_both! {
    "the server is hyper's, on smol", one listener "the example has one":
    a_server_of_a_library_drains_under_load,
}

on_both! {
    "the examples are programs of ours", one listener "they have one":
    the_examples_survive_their_clients_and_wait_for_those_they_have,
}

fn helpers_know_nothing_of_the_cluster(on: Pair) {
    let cluster = on.run(&["-w", "1"], &on.test_worker(&["helper"]));
    cluster.ready(1);
    let Outcome::Ok(found) = cluster.get("/") else { panic!("no answer") };
    assert!(found.contains("\nPATH="), "{found}");
    for hidden in ["ROUNDEL_CHANNEL_FD", "ROUNDEL_WORKER_ID", "ROUNDEL_SLOT", "socket:"] {
        assert!(!found.contains(hidden), "{hidden} in\n{found}");
    }
    cluster.stop();
}

fn a_panic_does_not_wait_for_a_full_channel_and_is_told_later(on: Pair) {
    let _load = alone();
    let cluster = on.run(&["-w", "2"], &on.test_worker(&["panic-full"]));
    let pids = cluster.ready(2);
    // A worker takes it before the primary stops, and waits for the request.
    let stream = TcpStream::connect(cluster.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    wait_for("it to be taken", || (cluster.total("accepted_total") == 1).then_some(()));
    cluster.signal(Signal::SIGSTOP);
    (&stream).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let Outcome::Ok(answer) = receive(stream) else { panic!("the panic waits for the channel") };
    assert!(answer.contains("panicked true"), "{answer}");
    let words: Vec<&str> = answer.split_whitespace().collect();
    let [_, worker, _, pid, _, sent, ..] = words[..] else { panic!("{answer}") };
    assert!(sent.parse::<u32>().unwrap() > 100, "that was no full channel: {answer}");
    assert!(pids.contains(&pid.parse().unwrap()));
    cluster.signal(Signal::SIGCONT);
    let worker: u64 = worker.parse().unwrap();
    let exited = wait_for("the end of the worker", || {
        cluster.events_named("exited").into_iter().find(|event| event["worker"] == worker)
    });
    assert_eq!(exited["status"]["code"], 101);
    let events = cluster.events();
    let place = |name: &str, worker: u64| {
        events.iter().position(|event| event["event"] == name && event["worker"] == worker)
    };
    // The replacement is the third worker.
    let order = [place("suicide", worker), place("spawned", 3), place("exited", worker)];
    assert!(order.is_sorted() && order[0].is_some(), "{order:?}");
    cluster.stop();
}

fn a_server_of_a_library_drains_under_load(on: Pair) {
    let _load = alone();
    let server = Pair::hyper_server();
    let mut cluster = on.run(&["-w", "2"], &[server.to_str().unwrap().to_owned()]);
    let pids = cluster.ready(2);
    let addr = cluster.addr;
    assert_ne!(get(addr, "/").pid(), get(addr, "/").pid());
    let outcomes = under_load(addr, 8, || {
        wait_for("some load", || (cluster.total("accepted_total") > 200).then_some(()));
        cluster.signal(Signal::SIGTERM);
        assert_eq!(cluster.wait(), 0);
    });
    // Also those that it had taken, and whose request came after that.
    let answered: Vec<&Outcome> = outcomes.iter().filter(|o| matches!(o, Outcome::Ok(_))).collect();
    assert!(answered.iter().all(|outcome| pids.contains(&outcome.pid())));
    let lost: Vec<&Outcome> = outcomes.iter().filter(|o| !matches!(o, Outcome::Ok(_))).collect();
    let accepted = cluster.events_named("accepted").len();
    assert_eq!(accepted, answered.len() + 2, "without an answer: {lost:?}");
    let exits = cluster.events_named("exited");
    assert!(exits.iter().all(|exit| exit["class"] == "voluntary"), "{exits:?}");
    cluster.expect_nothing_left();
}

fn the_examples_survive_their_clients_and_wait_for_those_they_have(on: Pair) {
    let server = on.echo_server();
    let mut cluster = on.run(&["-w", "2"], &[server.to_str().unwrap().to_owned()]);
    let pids = cluster.ready(2);
    let open = || {
        let stream = TcpStream::connect(cluster.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    // What it leaves unread resets its connection.
    for _ in 0..4 {
        let mut rude = open();
        rude.write_all(&[b'x'; 100_000]).unwrap();
        rude.read_exact(&mut [0]).unwrap();
    }
    let echo = |mut stream: TcpStream| {
        let sent = b"hello".repeat(200_000);
        let mut writer = stream.try_clone().unwrap();
        let mut back = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            stream.read_to_end(&mut back).unwrap();
        });
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    };
    (0..4).for_each(|_| echo(open()));
    let fresh = [open(), open()];
    wait_for("them to be taken", || (cluster.total("accepted_total") == 10).then_some(()));
    cluster.signal(Signal::SIGTERM);
    wait_for("the drain", || (cluster.events_named("draining").len() == 2).then_some(()));
    fresh.into_iter().for_each(echo);
    assert_eq!(cluster.wait(), 0);
    let exits = cluster.events_named("exited");
    assert!(exits.iter().all(|exit| exit["class"] == "voluntary"), "{exits:?}");
    assert!(exits.iter().all(|exit| pids.contains(&(exit["pid"].as_i64().unwrap() as i32))));
}

/// What they send, and that they have closed their side, is there to be read all the time.
fn clients_that_cannot_be_served_now_cost_no_cpu(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&["-w", "1"]);
    let pids = cluster.ready(1);
    let open = |first: &str| {
        let mut stream = TcpStream::connect(cluster.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {first} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream
    };
    let closed = open("/sleep?ms=3000");
    closed.shutdown(Shutdown::Write).unwrap();
    let mut eager = open("/sleep?ms=3000");
    eager.write_all("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000).as_bytes()).unwrap();
    let mut lazy = open("/");
    lazy.set_nonblocking(true).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    wait_for("its answers to pile up", || {
        while lazy.write(request.as_bytes()).is_ok() {}
        // A span in which it takes nothing more.
        thread::park_timeout(Duration::from_millis(100));
        lazy.write(request.as_bytes()).is_err().then_some(())
    });
    let before = cpu_time(pids[0]);
    // The span over which the CPU is measured: the sleepers sleep for longer.
    thread::sleep(Duration::from_secs(1));
    let used = cpu_time(pids[0]) - before;
    assert!(used < Duration::from_millis(200), "{used:?} in 1 s");
    for mut stream in [closed, eager] {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    drop(lazy);
    cluster.stop();
}
