//! Metrics and health over HTTP: what they count is what clients saw, and asking holds up nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cells::{on_all, on_both};
use crate::harness::*;
use crate::pair::Pair;

on_all! {
    counters_are_what_clients_saw,
    a_killed_worker_is_counted,
    a_primary_without_a_ready_worker_is_alive_and_not_ready,
    a_stopping_primary_is_not_ready,
    scrapes_and_floods_hold_up_nobody,
}

on_both! {
    "it asks the primary alone":
    metrics_over_a_unix_socket,
    every_name_is_in_the_docs_and_the_other_way_round,
    an_address_in_use_is_told,
}

on_both! {
    "it asks the primary alone", one listener "it counts what waits at one":
    what_waits_is_seen_where_it_waits,
    clients_of_the_metrics_take_no_descriptor_of_connections,
}

/// The options with which the kernel chooses the port.
const METRICS: [&str; 2] = ["--metrics", "127.0.0.1:0"];

fn address(cluster: &Cluster) -> SocketAddr {
    let status = cluster.status();
    let place = status["primary"]["metrics"].as_str().expect("it has metrics").to_owned();
    let address = place.strip_prefix("http://").and_then(|it| it.strip_suffix("/metrics"));
    address.expect("an address").parse().unwrap()
}

/// Sends a request; the status and the body of the answer.
fn ask_over(mut stream: impl Read + Write, path: &str) -> Option<(String, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.strip_prefix("HTTP/1.1 ")?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    assert_eq!(length.parse(), Ok(body.len()));
    Some((status.to_owned(), body.to_owned()))
}

fn ask(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    ask_over(stream, path)
}

/// The samples of a page by name and labels, as they are written.
struct Page(BTreeMap<String, f64>);

impl Page {
    fn parse((status, body): (String, String)) -> Page {
        assert_eq!(status, "200 OK");
        let body = body.strip_suffix("# EOF\n").expect("the end of the page");
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (key, value) = line.rsplit_once(' ').unwrap();
            (key.to_owned(), value.parse().unwrap())
        });
        Page(samples.collect())
    }

    fn of(address: SocketAddr) -> Page {
        Page::parse(ask(address, "/metrics").expect("an answer"))
    }

    fn get(&self, key: &str) -> f64 {
        *self.0.get(key).unwrap_or_else(|| panic!("{key} in {:?}", self.0))
    }

    /// The sum over all labels.
    fn sum(&self, name: &str) -> f64 {
        let labelled = format!("{name}{{");
        let of_name = self.0.iter().filter(|(key, _)| *key == name || key.starts_with(&labelled));
        of_name.map(|(_, value)| value).sum()
    }

    /// The names, without the suffixes of a histogram.
    fn names(&self) -> BTreeSet<String> {
        let names = self.0.keys().map(|key| key.split('{').next().unwrap_or_default());
        names.map(plain).collect()
    }
}

/// A name without the suffix of a histogram.
fn plain(name: &str) -> String {
    let suffix = ["_bucket", "_sum", "_count"].into_iter().find(|it| name.ends_with(it));
    name.strip_suffix(suffix.unwrap_or_default()).unwrap_or(name).to_owned()
}

fn counters_are_what_clients_saw(on: Pair) {
    let cluster = on.demo(&[&["-w", "3"][..], &METRICS].concat());
    cluster.ready(3);
    let address = address(&cluster);
    let mut seen: BTreeMap<i32, f64> = BTreeMap::new();
    for _ in 0..50 {
        *seen.entry(cluster.get("/").pid()).or_default() += 1.0;
    }
    let page = Page::of(address);
    for name in [
        "roundel_connections_received_total",
        "roundel_connections_handed_off_total",
        "roundel_connections_accepted_total",
        "roundel_connections_released_total",
        r#"roundel_connections_released_total{reason="accepted"}"#,
        "roundel_queue_wait_seconds_count",
        "roundel_ack_latency_seconds_count",
    ] {
        assert_eq!(page.sum(name), 50.0, "{name}");
    }
    for name in [
        "roundel_connections_declined_total",
        "roundel_connections_redispatched_total",
        "roundel_connections_refused_total",
        "roundel_connections_pending",
        "roundel_connections_in_flight",
        "roundel_accept_queue_length",
        "roundel_worker_exits_total",
        "roundel_worker_restarts_total",
        "roundel_stalls_total",
    ] {
        assert_eq!(page.sum(name), 0.0, "{name}");
    }
    let status = cluster.status();
    for worker in status["workers"].as_array().unwrap() {
        let pid = worker["pid"].as_i64().unwrap() as i32;
        let labels = format!(r#"{{slot="{}"}}"#, worker["slot"]);
        let accepted = page.get(&format!("roundel_connections_accepted_total{labels}"));
        assert_eq!(Some(&accepted), seen.get(&pid), "{seen:?}");
        assert!(page.get(&format!("roundel_worker_busy_seconds_total{labels}")) > 0.0);
    }
    assert_eq!(page.get(r#"roundel_workers{state="ready"}"#), 3.0);
    assert_eq!(page.get("roundel_workers_wanted"), 3.0);
    assert_eq!(page.sum("roundel_build_info"), 1.0);
    assert!(page.get("process_start_time_seconds") > 1e9);
    // Everybody is idle, so nobody's time goes on.
    let later = Page::of(address);
    let busy = "roundel_worker_busy_seconds_total";
    assert_eq!(later.sum(busy), page.sum(busy));
    cluster.stop();
}

fn a_killed_worker_is_counted(on: Pair) {
    let cluster = on.demo(&[&["-w", "2"][..], &METRICS].concat());
    let pids = cluster.ready(2);
    let address = address(&cluster);
    assert!((0..10).all(|_| cluster.get("/").pid() > 0));
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
    wait_for("the next one", || {
        let ready = cluster.pids("ready");
        (ready.len() == 2 && !ready.contains(&pids[0])).then_some(())
    });
    let page = Page::of(address);
    assert_eq!(page.get(r#"roundel_worker_exits_total{class="killed"}"#), 1.0);
    assert_eq!(page.sum("roundel_worker_exits_total"), 1.0);
    assert_eq!(page.sum("roundel_worker_restarts_total"), 1.0);
    // The counts of a slot outlive its worker.
    assert!((0..10).all(|_| cluster.get("/").pid() > 0));
    assert_eq!(Page::of(address).sum("roundel_connections_accepted_total"), 20.0);
    cluster.stop();
}

fn a_primary_without_a_ready_worker_is_alive_and_not_ready(on: Pair) {
    let args = [&["-w", "2"][..], &METRICS].concat();
    let mut cluster = on.run(&args, &on.test_worker(&["never-listen"]));
    let address = address(&cluster);
    wait_for("the workers", || (cluster.pids("online").len() == 2).then_some(()));
    let (status, why) = ask(address, "/readyz").unwrap();
    assert_eq!((&*status, &*why), ("503 Service Unavailable", "no worker is ready\n"));
    assert_eq!(ask(address, "/healthz").unwrap().0, "200 OK");
    cluster.signal(Signal::SIGQUIT);
    cluster.wait();
    assert!(ask(address, "/healthz").is_none());
}

fn a_stopping_primary_is_not_ready(on: Pair) {
    let mut cluster = on.demo(&[&["-w", "1"][..], &METRICS].concat());
    let worker = Pid::from_raw(cluster.ready(1)[0]);
    let address = address(&cluster);
    assert_eq!(ask(address, "/readyz").unwrap(), ("200 OK".into(), "ok\n".into()));
    // It can't leave before it goes on.
    kill(worker, Signal::SIGSTOP).unwrap();
    cluster.signal(Signal::SIGTERM);
    wait_for("the stop", || (!cluster.events_named("stopping").is_empty()).then_some(()));
    let (status, why) = ask(address, "/readyz").unwrap();
    assert_eq!((&*status, &*why), ("503 Service Unavailable", "stopping\n"));
    assert_eq!(ask(address, "/healthz").unwrap().0, "200 OK");
    assert_eq!(Page::of(address).get(r#"roundel_workers{state="ready"}"#), 0.0);
    kill(worker, Signal::SIGCONT).unwrap();
    assert_eq!(cluster.wait(), 0);
}

/// A scrape each 10 ms, and then ten thousand clients that ask, send garbage, or nothing.
fn scrapes_and_floods_hold_up_nobody(on: Pair) {
    let _load = alone();
    let cluster = on.demo(&[&["-w", "2"][..], &METRICS].concat());
    cluster.ready(2);
    let (addr, address) = (cluster.addr, address(&cluster));
    let outcomes = under_load(addr, 4, || {
        let mut last = 0.0;
        for _ in 0..50 {
            let received = Page::of(address).get("roundel_connections_received_total");
            assert!(received >= last);
            last = received;
            thread::park_timeout(Duration::from_millis(10));
        }
        let mut kept = Vec::new();
        for number in 0..10_000 {
            let Ok(mut client) = TcpStream::connect(address) else { continue };
            // The primary may have closed it already, to make room.
            let _ = match number % 4 {
                0 => client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n"),
                1 => client.write_all(b"\x16\x03\x01garbage"),
                2 => client.write_all(b"GET /met"),
                _ => Ok(()),
            };
            if number % 50 == 0 {
                kept.push(client);
            }
        }
        // There is room for the next one, whoever else is there.
        Page::of(address);
    });
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Ok(_))), "{:?}", {
        outcomes.iter().find(|it| !matches!(it, Outcome::Ok(_)))
    });
    let page = Page::of(address);
    let answered = outcomes.len() as f64;
    assert_eq!(page.get("roundel_connections_received_total"), answered);
    assert_eq!(page.sum("roundel_connections_accepted_total"), answered);
    assert_eq!(page.sum("roundel_connections_refused_total"), 0.0);
    cluster.stop();
}

fn metrics_over_a_unix_socket(on: Pair) {
    let dir = temp_dir();
    let (metrics, listener) = (dir.join("metrics"), dir.join("web"));
    let at = |path: &std::path::Path| format!("unix:{}", path.display());
    let (metrics_at, listener_at) = (at(&metrics), at(&listener));
    let cluster = on.demo(&["-w", "1", "--metrics", &metrics_at, "-b", &listener_at]);
    cluster.ready(1);
    assert_eq!(cluster.status()["primary"]["metrics"], *metrics_at);
    let page = UnixStream::connect(&metrics).ok().and_then(|it| ask_over(it, "/metrics"));
    let page = Page::parse(page.expect("an answer"));
    let labels = format!(r#"{{listener="{listener_at}"}}"#);
    assert_eq!(page.get(&format!("roundel_connections_pending{labels}")), 0.0);
    assert!(!page.0.contains_key(&format!("roundel_accept_queue_length{labels}")));
    cluster.stop();
    assert!(!metrics.exists());
    fs::remove_dir_all(dir).unwrap();
}

/// The words of a text that begin as metrics do.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let is_name = |word: &&str| {
        ["roundel_", "process_"].iter().any(|it| word.len() > it.len() && word.starts_with(it))
            // A crate, and a variable of the examples.
            && !["roundel_mio", "roundel_smol"].contains(word)
    };
    words.filter(is_name).map(plain).collect()
}

fn every_name_is_in_the_docs_and_the_other_way_round(on: Pair) {
    let cluster = on.demo(&[&["-w", "1"][..], &METRICS].concat());
    cluster.ready(1);
    let found = Page::of(address(&cluster)).names();
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let described = rows.filter_map(|row| Some(plain(row.split('`').nth(1)?.split('{').next()?)));
    assert_eq!(described.collect::<BTreeSet<_>>(), found);
    let dashboard = include_str!("../../docs/grafana-dashboard.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    assert!(parsed["panels"].as_array().is_some_and(|it| it.len() > 5));
    for (text, least) in [(page, found.len()), (dashboard, 10)] {
        let mut named = names_in(text);
        if text == page {
            // A captured page has the names of counters without their suffix, too.
            named.retain(|name| !found.contains(&format!("{name}_total")));
        }
        assert!(named.is_subset(&found), "{:?}", named.difference(&found));
        assert!(named.len() >= least, "{named:?}");
    }
    cluster.stop();
}

fn an_address_in_use_is_told(on: Pair) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |metrics: &str| {
        let mut command = Command::new(on.binary());
        command.args(["demo", "-b", "127.0.0.1:0", "--control", "off", "--metrics", metrics]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let name = on.binary().file_name().unwrap().to_str().unwrap().to_owned();
    let words = format!("{name}: --metrics {address}: Address already in use\n");
    assert_eq!(run(&address), (Some(4), words));
    let (code, words) = run("fd:3");
    assert_eq!(code, Some(2));
    assert!(words.contains(r#"--metrics: "fd:3" is not host:port or unix:PATH"#), "{words}");
}

/// One connection is in flight at a worker that is stopped, one is pending, and the rest wait in
/// the kernel.
fn what_waits_is_seen_where_it_waits(on: Pair) {
    let args = [&["-w", "1", "--max-pending", "1"][..], &METRICS].concat();
    let cluster = on.demo(&args);
    let worker = Pid::from_raw(cluster.ready(1)[0]);
    let address = address(&cluster);
    kill(worker, Signal::SIGSTOP).unwrap();
    let streams: Vec<TcpStream> = (0..5).map(|_| send(cluster.addr, "/").unwrap()).collect();
    let page = wait_for("a full primary", || {
        let page = Page::of(address);
        (page.sum("roundel_connections_pending") > 0.0).then_some(page)
    });
    assert_eq!(page.sum("roundel_connections_in_flight"), 1.0);
    assert_eq!(page.sum("roundel_connections_pending"), 1.0);
    assert_eq!(page.sum("roundel_accept_queue_length"), 3.0);
    assert_eq!(page.sum("roundel_accept_queue_limit"), 511.0);
    let busy = |page: &Page| page.get(r#"roundel_worker_busy_seconds_total{slot="0"}"#);
    // Its time goes on with each look.
    let before = busy(&page);
    assert!(busy(&Page::of(address)) > before);
    kill(worker, Signal::SIGCONT).unwrap();
    for stream in streams {
        receive(stream).pid();
    }
    let page = Page::of(address);
    assert_eq!(page.sum("roundel_accept_queue_length"), 0.0);
    assert_eq!(page.get("roundel_queue_wait_seconds_count"), 5.0);
    assert!(page.get("roundel_queue_wait_seconds_sum") > 0.0);
    cluster.stop();
}

/// As many connections as the limit allows, more clients of the metrics than there may be, and the
/// only worker is killed.
fn clients_of_the_metrics_take_no_descriptor_of_connections(on: Pair) {
    let mut command = Command::new("prlimit");
    command.arg("--nofile=80").arg(on.binary());
    let cluster = on.start_demo(command, &[&["-w", "1"][..], &METRICS].concat());
    let worker = Pid::from_raw(cluster.ready(1)[0]);
    let address = address(&cluster);
    kill(worker, Signal::SIGSTOP).unwrap();
    let idle: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let streams: Vec<TcpStream> = (0..60).map(|_| send(cluster.addr, "/").unwrap()).collect();
    wait_for("a full primary", || {
        (cluster.status()["listeners"][0]["accepting"] == false).then_some(())
    });
    let page = Page::of(address);
    assert!(page.sum("roundel_connections_pending") > 0.0);
    assert!(page.sum("roundel_accept_queue_length") > 0.0);
    kill(worker, Signal::SIGKILL).unwrap();
    for stream in streams {
        receive(stream).pid();
    }
    drop(idle);
    for name in ["accept_failed", "spawn_failed", "refused"] {
        assert_eq!(cluster.events_named(name).len(), 0, "{name}");
    }
    cluster.stop();
}
