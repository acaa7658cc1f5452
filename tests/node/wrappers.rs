//! Programs that start Node instead of being it.

use nix::sys::signal::Signal;

use crate::client::*;
use crate::harness::*;

/// Two workers that are a shell which starts Node.
fn behind_a_shell() -> Option<Cluster> {
    if beyond_node("it starts Node itself") {
        return None;
    }
    let script = format!("node {} & wait", fixture_path("http.js").display());
    Some(fixture("http.js")?.program(&["sh", "-c", &script]).start())
}

#[test]
fn a_shell_that_starts_node() {
    let Some(cluster) = behind_a_shell() else { return };
    let addr = cluster.addr(0);
    let answers: Vec<Answer> = (0..20).map(|_| get(addr, "/")).collect();
    let pids: Vec<i32> = spread(&answers).into_keys().collect();
    assert_eq!(spread(&answers), evenly(&pids, 10));
    assert_eq!(pids.len(), 2);
    cluster.stop();
}

/// Node lives on with the channel; the primary ends it by that.
#[test]
fn a_shell_that_is_killed_leaves_nothing() {
    let Some(cluster) = behind_a_shell() else { return };
    let (shell, addr) = (cluster.ready(2)[0], cluster.addr(0));
    let before = cluster.processes().len();
    signal(shell, Signal::SIGKILL);
    let answers = plain_load(addr, 2, 200);
    let exited = cluster.exit_of(shell);
    // Node ends at once when its channel does; what it had accepted until then is lost with it.
    let lost: Vec<&Answer> = answers.iter().filter(|it| !matches!(it, Answer::Ok { .. })).collect();
    let accepted = cluster.events("accepted");
    let accepted = accepted.iter().filter(|it| it["worker"] == exited["worker"]).count();
    assert!(
        lost.len() <= accepted.min(2),
        "{lost:?}, {accepted} accepted by the one that was killed"
    );
    cluster.ready(2);
    eventually("as many processes as before", || {
        (cluster.processes().len() == before).then_some(())
    });
    cluster.stop();
}

/// npm is a Node program itself, and keeps the channel from what it starts.
#[test]
fn npm_start_works_or_says_why_not() {
    if beyond_node("it starts Node itself") {
        return;
    }
    if std::process::Command::new("npm").arg("--version").output().is_err() {
        return skip("no npm");
    }
    let Some(setup) = fixture("http.js") else { return };
    let script = format!("node {}", fixture_path("http.js").display());
    let package =
        serde_json::json!({"name": "x", "version": "1.0.0", "scripts": {"start": script}});
    let dir = setup.dir.clone();
    std::fs::write(dir.join("package.json"), package.to_string()).unwrap();
    let setup = setup.program(&["npm", "start", "--prefix"]).arg(dir);
    let cluster = setup.options(&["--ready-timeout", "5s"]).start_without_waiting();
    eventually("workers that serve, or a reason", || {
        let serves = cluster.serving().len() == 2;
        let said = cluster.count("not_listening") > 0;
        (serves || said).then_some(())
    });
    println!("{}", cluster.output());
}
