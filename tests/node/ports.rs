//! Ports that workers look at, give back, want again, or can't have.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use serde_json::{Value, json};

use crate::client::*;
use crate::harness::*;

/// One worker that does these things.
fn does(steps: &[Value]) -> Option<Setup> {
    let setup = fixture("steps.js")?.workers(1);
    Some(steps.iter().fold(setup, |setup, step| setup.arg(step.to_string())))
}

/// The outcome of every step, none of them an error.
fn all_well(cluster: &Cluster, steps: usize) -> Vec<Value> {
    let reports = cluster.report(steps);
    assert!(reports.iter().all(|report| report["code"].is_null()), "{reports:?}");
    assert_eq!(cluster.count("exited"), 0, "{reports:?}");
    reports
}

/// The major version of the Node that the tests use.
fn major() -> Option<u32> {
    let output = std::process::Command::new(node()?).arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// What programs do that look for a free port.
fn listens_elsewhere(first: &str, second: &str, served: bool) {
    let port = unused_address().port();
    let mut steps = vec![json!({"listen": {"port": port, "host": first}})];
    steps.extend(served.then(|| json!({"meet": true})));
    steps.extend([json!({"close": true}), json!({"listen": {"port": port, "host": second}})]);
    let Some(setup) = does(&steps) else { return };
    let cluster = setup.start();
    all_well(&cluster, steps.len());
    get(SocketAddr::from(([127, 0, 0, 1], port)), "/").pid();
    cluster.stop();
}

#[test]
fn a_wider_address_on_a_port_that_was_looked_at() {
    listens_elsewhere("0.0.0.0", "::", false);
}

#[test]
fn a_wider_address_on_a_port_that_was_served() {
    listens_elsewhere("0.0.0.0", "::", true);
}

#[test]
fn a_narrower_address_on_a_port_that_was_served() {
    listens_elsewhere("::", "127.0.0.1", true);
}

/// The options of the two sockets make no difference.
#[test]
fn a_udp_port_that_was_closed() {
    let kinds = [
        json!({"type": "udp4"}),
        json!({"type": "udp4", "reuseAddr": true}),
        json!({"type": "udp6"}),
        json!({"type": "udp6", "reuseAddr": true}),
        json!({"type": "udp6", "ipv6Only": true}),
    ];
    let Some(mut setup) = fixture("udp-again.js").map(|setup| setup.workers(1)) else { return };
    for first in &kinds {
        for second in &kinds {
            let port = UdpSocket::bind("[::]:0").unwrap().local_addr().unwrap().port();
            setup = setup.arg(json!([first, second, port]).to_string());
        }
    }
    let cluster = setup.start_without_waiting();
    assert_eq!(cluster.report(1)[0]["errors"], json!([]));
    cluster.stop();
}

fn port_zero_again(served: bool) {
    let mut steps = vec![json!({"listen": {"port": 0}})];
    steps.extend(served.then(|| json!({"meet": true})));
    steps.extend([json!({"close": true}), json!({"listen": {"port": "last"}})]);
    let Some(setup) = does(&steps) else { return };
    let cluster = setup.start();
    let reports = all_well(&cluster, steps.len());
    let port = |report: &Value| report["address"]["port"].as_u64().unwrap();
    let last = port(reports.last().unwrap());
    assert_eq!(port(&reports[0]), last);
    get(SocketAddr::from(([127, 0, 0, 1], last as u16)), "/").pid();
    cluster.stop();
}

#[test]
fn a_port_that_the_kernel_chose_is_listened_on_again() {
    port_zero_again(false);
}

#[test]
fn a_port_that_the_kernel_chose_and_that_was_served_is_listened_on_again() {
    port_zero_again(true);
}

/// The port is free for anybody at once, not only for workers.
#[test]
fn a_port_that_was_looked_at_is_free() {
    let steps = [json!({"listen": {"port": 0, "host": "127.0.0.1"}}), json!({"close": true})];
    let Some(setup) = does(&steps) else { return };
    let cluster = setup.start();
    let reports = all_well(&cluster, steps.len());
    let port = reports[0]["address"]["port"].as_u64().unwrap() as u16;
    if under() != Under::Node {
        cluster.event("unbound", |_| true);
        let bound_for = |name: &str| cluster.events(name)[0]["at_ms"].as_u64().unwrap();
        assert!(bound_for("unbound") - bound_for("ready") < 900, "it was kept");
    }
    eventually("the port", || TcpListener::bind(("127.0.0.1", port)).ok());
    cluster.stop();
}

/// As in the documentation of `net`: all workers get the port once the other program is gone.
#[test]
fn a_retry_until_others_let_go_of_the_port() {
    // Node 18 and 20 take asks with different numbers for different ports, also where the port is
    // the same: some of their workers never get it.
    if under() == Under::Node && major().is_some_and(|major| major < 22) {
        println!("skipped under Node's own primary: it is too old");
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let Some(setup) = fixture("retry.js") else { return };
    let options = json!({"port": addr.port(), "host": "127.0.0.1"});
    let cluster = setup.workers(3).arg(options.to_string()).start_without_waiting();
    eventually("many failures", || {
        let reports = cluster.reports();
        let failures = |pid: &Value| reports.iter().filter(|it| it["pid"] == *pid).count();
        let pids: std::collections::BTreeSet<i64> =
            reports.iter().filter_map(|it| it["pid"].as_i64()).collect();
        (pids.len() == 3 && pids.iter().all(|&pid| failures(&pid.into()) >= 3)).then_some(())
    });
    drop(taken);
    let pids = cluster.ready(3);
    let answers: Vec<Answer> = (0..9).map(|_| get(addr, "/")).collect();
    assert_even(&spread(&answers), &pids, 3);
    cluster.stop();
}

/// A program that consumes a queue, say, and whose port for metrics others have.
#[test]
fn a_worker_without_its_port_is_left_alone() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = json!({"port": taken.local_addr().unwrap().port(), "host": "127.0.0.1"});
    let Some(setup) = does(&[json!({ "listen": options }), json!({"wait": 2_000})]) else { return };
    let setup = match under() {
        Under::Node => setup,
        _ => setup.options(&["--ready-timeout", "500ms"]),
    };
    let cluster = setup.start_without_waiting();
    let reports = cluster.report(2);
    assert_eq!(reports[0]["code"], "EADDRINUSE");
    assert_eq!(cluster.count("killing") + cluster.count("exited"), 0);
    cluster.stop();
}

#[test]
fn a_bind_that_is_too_narrow_says_what_to_write() {
    if beyond_node("it has no options") {
        return;
    }
    let port = unused_address().port();
    let Some(setup) = does(&[json!({"listen": {"port": port}})]) else { return };
    let cluster = setup.options(&["-b", &format!("0.0.0.0:{port}")]).start_without_waiting();
    assert_eq!(cluster.report(1)[0]["code"], "EADDRINUSE");
    let event = cluster.event("bind_too_narrow", |_| true);
    assert_eq!(event["bind"], format!("0.0.0.0:{port}"));
    let said = format!("--bind 0.0.0.0:{port} does not cover");
    eventually("the words", || cluster.output().contains(&said).then_some(()));
    assert!(
        cluster.output().contains(&format!("write --bind [::]:{port}")),
        "{}",
        cluster.output()
    );
    cluster.stop();
}

#[test]
fn a_bind_that_nobody_wants_is_said_once() {
    if beyond_node("it has no options") {
        return;
    }
    let Some(setup) = does(&[json!({"listen": {"port": 0, "host": "127.0.0.1"}})]) else { return };
    let cluster = setup.workers(2).options(&["-b", "127.0.0.1:0"]).options(&["-b", "[::1]:0"]);
    let cluster = cluster.start();
    let event = cluster.event("bind_unused", |_| true);
    assert_eq!(event["address"], "[::1]:0");
    let said = "no worker has asked for --bind [::1]:0";
    eventually("the words", || cluster.output().contains(said).then_some(()));
    assert_eq!(cluster.count("bind_unused"), 1);
    cluster.stop();
}

/// A path of another program, whether it listens there or is about to, stays.
#[test]
fn a_path_that_exists_is_refused() {
    let Some(setup) = fixture("steps.js") else { return };
    let path = setup.dir.join("theirs.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let step = json!({"listen": {"path": path.to_str().unwrap()}});
    let cluster = setup.workers(1).arg(step.to_string()).start_without_waiting();
    assert_eq!(cluster.report(1)[0]["code"], "EADDRINUSE");
    assert!(path.exists());
    cluster.stop();
}
