//! How workers are led out: what runs when, that no request is cut, and who is signalled.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use roundel_tests::programs::optional::{NOT_ON_DIAGONAL, full_matrix};
use serde_json::{Value, json};

use crate::client::*;
use crate::harness::*;

/// Workers with a habit, under a primary that leads them out.
fn habit(habit: &str, options: &[&str]) -> Option<Setup> {
    if beyond_node("it leads nobody out") {
        return None;
    }
    Some(fixture("habits.js")?.workers(1).variable("HABIT", habit).options(options))
}

impl Cluster {
    fn ask_to_stop(&self) {
        signal(self.pid(), Signal::SIGTERM);
    }

    /// Waits for the end of the primary, and looks how the only worker ended and what it was sent.
    fn ended(mut self) -> (Value, Vec<String>) {
        assert_eq!(self.wait(), 0, "{}", self.output());
        let exits = self.events("exited");
        assert_eq!(exits.len(), 1, "{exits:?}");
        let signals = self.events("signalled");
        let signals = signals.iter().map(|it| it["signal"].as_str().unwrap().into()).collect();
        eventually("the end of all processes", || self.processes().is_empty().then_some(()));
        (exits[0]["status"].clone(), signals)
    }

    /// How long after the worker was told to leave it was signalled.
    fn signalled_after(&self) -> Duration {
        let at = |name| self.event(name, |_| true)["at_ms"].as_u64().unwrap();
        Duration::from_millis(at("signalled") - at("draining"))
    }
}

fn code(code: i32) -> Value {
    json!({ "code": code })
}

/// The pattern of Node's documentation.
#[test]
fn a_request_outlives_close_and_disconnect_by_another() {
    let Some(setup) = habit("none", &[]) else { return };
    let cluster = setup.start();
    let addr = cluster.addr(0);
    let slow = send(addr, "/sleep?4000").unwrap();
    cluster.report(1);
    let pid = get(addr, "/leave").pid();
    cluster.event("leaving", |it| it["pid"] == pid);
    assert_eq!(receive(slow).pid(), pid);
    let exited = cluster.exit_of(pid);
    assert_eq!((&exited["class"], &exited["status"]), (&"voluntary".into(), &code(0)));
    cluster.with_events(|events| {
        let at = |name: &str, worker: u64| {
            let is_it = |it: &Value| it["event"] == name && it["worker"] == worker;
            events.iter().position(is_it)
        };
        assert!(at("spawned", 2) < at("exited", 1), "it is replaced at once");
        assert_eq!(at("signalled", 1), None);
    });
    cluster.ready(1);
    cluster.stop();
}

/// A request that runs while the cluster stops is answered, and nobody is signalled.
fn answered_in_a_stop(ms: u32, options: &[&str]) {
    let Some(setup) = habit("none", options) else { return };
    let cluster = setup.start();
    let slow = send(cluster.addr(0), &format!("/sleep?{ms}")).unwrap();
    cluster.report(1);
    let begun = Instant::now();
    cluster.ask_to_stop();
    receive(slow).pid();
    let settling = cluster.event("settling", |_| true);
    assert!(settling["within_ms"].as_u64() <= Some(1_000), "{settling}");
    assert_eq!(cluster.ended(), (code(0), vec![]));
    // It settles, answers, and ends; a busy machine has some seconds of its own.
    assert!(begun.elapsed() < Duration::from_millis(ms.into()) + Duration::from_secs(5));
}

#[test]
fn six_of_ten_seconds() {
    answered_in_a_stop(6_000, &["--drain-timeout", "10s"]);
}

#[test]
fn twenty_of_thirty_seconds() {
    if !full_matrix() {
        return println!("skipped: {NOT_ON_DIAGONAL}");
    }
    answered_in_a_stop(20_000, &[]);
}

/// What has come and has sent nothing yet is answered too: Node 26 closes it when it disconnects.
#[test]
fn a_client_that_has_just_come_is_answered() {
    let Some(setup) = habit("none", &[]) else { return };
    let cluster = setup.start();
    let client = connect(cluster.addr(0)).unwrap();
    cluster.event("accepted", |_| true);
    cluster.ask_to_stop();
    cluster.event("settling", |it| it["within_ms"].as_u64() > Some(0));
    write_request(&client, "/").unwrap();
    receive(client).pid();
    assert_eq!(cluster.ended(), (code(0), vec![]));
}

/// A program with a habit of its own is told by it, and finds its server open.
fn told_its_way(name: &str, option: &str, why: &str, signals: &[&str]) {
    let Some(setup) = habit(name, &["--stop-signal", option]) else { return };
    let cluster = setup.start();
    let addr = cluster.addr(0);
    get(addr, "/").pid();
    let slow = send(addr, "/sleep?1500").unwrap();
    cluster.report(1);
    cluster.ask_to_stop();
    receive(slow).pid();
    let told = &cluster.report(2)[1];
    assert_eq!((&told["why"], &told["open"]), (&why.into(), &true.into()));
    let signals = signals.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(cluster.ended(), (code(0), signals));
}

#[test]
fn a_handler_of_sigterm() {
    told_its_way("term", "TERM", "SIGTERM", &["TERM"]);
}

#[test]
fn pm2_with_sigint() {
    told_its_way("int", "INT", "SIGINT", &["INT"]);
}

#[test]
fn pm2_with_a_message() {
    told_its_way("message", "message", "shutdown", &[]);
}

/// Alone it ends when its server and the last request have; here its channel keeps it until it is
/// told to disconnect, which it is when it has no client any more.
#[test]
fn a_handler_that_only_closes_its_server() {
    let Some(setup) = habit("term-close", &["--stop-signal", "TERM"]) else { return };
    let cluster = setup.start();
    let addr = cluster.addr(0);
    get(addr, "/").pid();
    let slow = send(addr, "/sleep?4000").unwrap();
    cluster.report(1);
    let begun = Instant::now();
    cluster.ask_to_stop();
    receive(slow).pid();
    assert_eq!(cluster.report(2)[1]["why"], "closed");
    assert_eq!(cluster.ended(), (code(0), vec!["TERM".into()]));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Node emits it when the last request has been answered and the channel is closed.
#[test]
fn handlers_of_disconnect_run_after_the_last_request() {
    let Some(setup) = habit("disconnect", &[]) else { return };
    let cluster = setup.start();
    let slow = send(cluster.addr(0), "/sleep?3000").unwrap();
    cluster.report(1);
    cluster.ask_to_stop();
    cluster.event("draining", |_| true);
    assert_eq!(cluster.reports().len(), 1);
    receive(slow).pid();
    let mut told: Vec<Value> = cluster.report(3)[1..].iter().map(|it| it["why"].clone()).collect();
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, ["disconnect", "worker disconnect"]);
    assert_eq!(cluster.ended(), (code(0), vec![]));
}

/// As `docker stop` does: SIGTERM, ten seconds, SIGKILL. The events that a client waits for have no
/// end by themselves.
#[test]
fn a_handler_runs_before_the_deadline() {
    let Some(setup) = habit("term", &["--drain-timeout", "9s"]) else { return };
    let cluster = setup.start();
    let mut events = send(cluster.addr(0), "/events").unwrap();
    assert_ne!(events.read(&mut [0; 1000]).unwrap(), 0);
    let begun = Instant::now();
    cluster.ask_to_stop();
    let reports = cluster.report(1);
    assert_eq!(reports[0]["why"], "SIGTERM");
    let early = cluster.signalled_after();
    assert!(early > Duration::from_millis(5_500), "after {early:?}");
    // Its server has been closed by then, so closing it is an error to this program.
    assert_eq!(reports[0]["open"], false);
    assert_eq!(cluster.ended(), (code(1), vec!["TERM".into()]));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// It may work on what no client sees.
#[test]
fn a_worker_without_connections_keeps_its_deadline() {
    let Some(setup) = habit("queue", &[]) else { return };
    let cluster = setup.start_without_waiting();
    cluster.event("online", |_| true);
    cluster.ask_to_stop();
    assert!(cluster.report(1)[0]["flushed"] == true);
    assert_eq!(cluster.ended(), (code(0), vec![]));
}

/// A connection that it opened itself is no reason to stay.
#[test]
fn a_worker_with_only_a_database_connection_is_signalled() {
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port().to_string();
    let Some(setup) = habit("none", &[]) else { return };
    let cluster = setup.variable("DATABASE", port).start();
    let (_held, _) = database.accept().unwrap();
    get(cluster.addr(0), "/").pid();
    let begun = Instant::now();
    cluster.ask_to_stop();
    assert_eq!(cluster.ended(), (json!({"signal": 15}), vec!["TERM".into()]));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// An idle connection is kept alive: Node closes it after a while, or at once, as its version has
/// it.
#[test]
fn idle_connections_hold_nobody_for_long() {
    let Some(setup) = habit("none", &[]) else { return };
    let cluster = setup.start();
    let mut client = connect(cluster.addr(0)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n").unwrap();
    assert_ne!(client.read(&mut [0; 1000]).unwrap(), 0);
    let begun = Instant::now();
    cluster.ask_to_stop();
    let (status, _) = cluster.ended();
    assert_eq!(status, code(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Something that a client holds, and no end of it.
fn held(setup: Setup, hold: impl FnOnce(&str) -> Box<dyn Read>) {
    // It is looked each second, so without the connection it would be seen after two.
    let cluster = setup.options(&["--drain-timeout", "6s", "--linger", "500ms"]).start();
    let mut client = hold(&cluster.bound(0));
    assert_ne!(client.read(&mut [0; 1000]).unwrap(), 0);
    cluster.ask_to_stop();
    let after = cluster.signalled_after();
    // At three quarters, a settle at most before it was told.
    assert!(after > Duration::from_millis(2_900), "after {after:?}");
    assert_eq!(cluster.ended(), (json!({"signal": 15}), vec!["TERM".into()]));
}

fn hold_events(bound: &str) -> Box<dyn Read> {
    Box::new(send(reachable(bound), "/events").unwrap())
}

#[test]
fn a_held_connection_is_only_cut_at_the_deadline() {
    let Some(setup) = habit("none", &[]) else { return };
    held(setup, hold_events);
}

#[test]
fn a_held_connection_over_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("no IPv6 on this machine");
    }
    let Some(setup) = habit("none", &[]) else { return };
    held(setup.variable("HOST", "::1"), hold_events);
}

#[test]
fn a_held_connection_over_ipv4_to_an_ipv6_listener() {
    let Some(setup) = habit("none", &[]) else { return };
    held(setup.variable("HOST", "::"), |bound| {
        let port = bound.rsplit_once(':').unwrap().1;
        hold_events(&format!("127.0.0.1:{port}"))
    });
}

#[test]
fn a_held_connection_over_a_unix_socket() {
    let Some(setup) = habit("none", &[]) else { return };
    let path = setup.dir.join("socket");
    held(setup.variable("PORT", path.clone()), |_| {
        let client = UnixStream::connect(path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        write_request(&client, "/events").unwrap();
        Box::new(client)
    });
}

#[test]
fn a_held_connection_where_workers_accept_by_themselves() {
    let Some(setup) = habit("none", &["--policy", "shared"]) else { return };
    held(setup, hold_events);
}

#[test]
fn a_held_connection_to_a_passed_server() {
    let Some(setup) = habit("fork", &["--pass-server", "127.0.0.1:0"]) else { return };
    held(setup, hold_events);
}

/// It knows no message, and SIGTERM cuts nobody off there.
#[test]
fn a_worker_with_only_a_passed_server_ends_at_once() {
    let Some(setup) = habit("fork", &["--pass-server", "127.0.0.1:0"]) else { return };
    let cluster = setup.start();
    let begun = Instant::now();
    cluster.ask_to_stop();
    assert_eq!(cluster.ended(), (json!({"signal": 15}), vec!["TERM".into()]));
    assert!(begun.elapsed() < Duration::from_secs(15));
}

/// A program that closes what it inherits can't serve. Neither its slot nor a stop waits for it.
#[test]
fn a_worker_that_closes_its_channel_early_is_ended() {
    if beyond_node("it does not replace workers") {
        return;
    }
    let Some(setup) = fixture("http.js") else { return };
    let script = "eval \"exec $NODE_CHANNEL_FD>&-\"; exec sleep 1000";
    let setup = setup.workers(1).program(&["bash", "-c", script]);
    let mut cluster = setup.start_without_waiting();
    let killing = cluster.event("killing", |_| true);
    assert_eq!(killing["class"], "never_ready");
    cluster.event("spawned", |it| it["worker"] == 2);
    let begun = Instant::now();
    cluster.ask_to_stop();
    assert_eq!(cluster.wait(), 0);
    assert!(begun.elapsed() < Duration::from_secs(15));
}
