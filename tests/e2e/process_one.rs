//! What only process 1 has to do: it inherits the processes that others leave behind.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cells::as_process_one;
use crate::harness::*;
use crate::pair::Pair;

as_process_one! {
    orphans_are_reaped_and_nothing_else_changes,
}

/// Becomes the demo worker, and before that leaves processes in a session of their own, whose parent
/// has ended: ten end at once, and one never.
fn with_orphans(on: Pair) -> Vec<String> {
    let script = r#"
        for i in 0 1 2 3 4 5 6 7 8 9; do (setsid sh -c "exit $i" &); done
        (setsid sleep 1000 &)
        exec "$@""#;
    ["sh", "-c", script, "sh"].map(str::to_owned).into_iter().chain(on.demo_worker()).collect()
}

fn orphans_are_reaped_and_nothing_else_changes(on: Pair) {
    let _load = alone();
    let mut cluster = on.run(&["-w", "2"], &with_orphans(on));
    let mut killed = 0;
    let outcomes = under_load(cluster.addr, 2, || {
        for _ in 0..5 {
            let pids = cluster.ready(2);
            kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
            killed += 1;
            wait_for("a new worker", || (!cluster.ready(2).contains(&pids[0])).then_some(()));
        }
    });
    // Those that have not ended are children of the primary now.
    let sleepers = || {
        let wanted = ("sleep".to_owned(), cluster.pid());
        let all = cluster.processes().into_iter().filter_map(name_and_parent);
        all.filter(|it| *it == wanted).count()
    };
    wait_for("the orphans", || (sleepers() == 2 + killed).then_some(()));
    cluster.expect_no_zombies();
    // Each exit that was told is that of a worker, once, and as it was.
    let exits = cluster.events_named("exited");
    let workers: BTreeSet<u64> = exits.iter().filter_map(|it| it["worker"].as_u64()).collect();
    assert_eq!((exits.len(), workers.len()), (killed, killed), "{exits:?}");
    assert!(exits.iter().all(|it| it["class"] == "killed"), "{exits:?}");
    assert_eq!(cluster.events_named("spawned").len(), 2 + killed);
    let lost = outcomes.iter().filter(|it| !matches!(it, Outcome::Ok(_))).count();
    assert!(lost <= 2 * killed, "{outcomes:?}");
    // The end of process 1 ends all of them, and they don't hold it up.
    let begun = std::time::Instant::now();
    cluster.signal(Signal::SIGTERM);
    assert_eq!(cluster.wait(), 0, "{}", cluster.log());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    cluster.expect_nothing_left();
}
