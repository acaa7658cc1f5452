//! A Rust worker under Node's own primary, which takes it for one of its own.

use nix::sys::signal::Signal;

use crate::client::*;
use crate::harness::*;

fn rust_workers(count: usize) -> Option<Cluster> {
    Some(setup(count)?.start())
}

fn setup(count: usize) -> Option<Setup> {
    let setup = fixture("http.js")?.under(Under::Node).workers(count).program(&["serve"]);
    Some(setup.variable("EXECUTABLE", env!("CARGO_BIN_EXE_rust_worker")))
}

#[test]
fn messages_of_the_node_primary_are_accepted() {
    let Some(setup) = setup(2) else { return };
    let cluster = setup.variable("SPEAK", "1").start();
    let closed = || cluster.events("server_closed");
    eventually("the end of both servers", || (closed().len() == 2).then_some(()));
    assert!(closed().iter().all(|event| event["count"].is_u64()), "{:?}", closed());
    let answers: Vec<Answer> = (0..20).map(|_| get(cluster.addr(0), "/")).collect();
    let served = spread(&answers);
    assert!(cluster.ready(2).iter().all(|pid| served.contains_key(pid)), "{served:?}");
    assert_eq!(cluster.count("exited"), 0);
    cluster.stop();
}

#[test]
fn it_gets_its_share() {
    let Some(cluster) = rust_workers(3) else { return };
    let answers: Vec<Answer> = (0..60).map(|_| get(cluster.addr(0), "/")).collect();
    // The rotation is Node's: a worker that answers its client sooner than Node's primary reads its
    // acknowledgement may change places with the next one.
    let spread = spread(&answers);
    let share = |pid| spread.get(&pid).is_some_and(|count| (17..=23).contains(count));
    assert!(cluster.ready(3).into_iter().all(share), "{spread:?}");
    cluster.stop();
}

/// What comes while it leaves, it declines; the others serve it.
#[test]
fn it_leaves_of_its_own_will() {
    let Some(cluster) = rust_workers(2) else { return };
    let addr = cluster.addr(0);
    for _ in 0..3 {
        let leaving = get(addr, "/leave").pid();
        let answers = plain_load(&[addr], 4, 200);
        assert!(answers.iter().all(|it| matches!(it, Answer::Ok { .. })), "{answers:?}");
        let exited = cluster.exit_of(leaving);
        assert_eq!((&exited["class"], &exited["status"]["code"]), (&"voluntary".into(), &0.into()));
        cluster.ready(2);
    }
    cluster.stop();
}

#[test]
fn it_is_disconnected_and_ends() {
    let Some(mut cluster) = rust_workers(2) else { return };
    let pids = cluster.ready(2);
    get(cluster.addr(0), "/").pid();
    signal(cluster.pid(), Signal::SIGTERM);
    assert_eq!(cluster.wait(), 0);
    for pid in pids {
        let exited = cluster.exit_of(pid);
        assert_eq!((&exited["class"], &exited["status"]["code"]), (&"voluntary".into(), &0.into()));
    }
}

#[test]
fn its_crash_is_seen_as_one() {
    let Some(cluster) = rust_workers(2) else { return };
    let crashed = get(cluster.addr(0), "/exit").pid();
    let exited = cluster.exit_of(crashed);
    assert_eq!((&exited["class"], &exited["status"]["code"]), (&"crashed".into(), &7.into()));
    cluster.ready(2);
    cluster.stop();
}

#[test]
fn it_ends_when_the_primary_is_gone() {
    let Some(mut cluster) = rust_workers(2) else { return };
    signal(cluster.pid(), Signal::SIGKILL);
    assert_eq!(cluster.wait(), -(Signal::SIGKILL as i32));
    eventually("the end of the workers", || cluster.processes().is_empty().then_some(()));
}
