//! Workers that decline because they are full.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::*;
use crate::harness::*;

/// The places of each of the two workers.
const PLACES: usize = 5;

/// All places are taken, by clients that say nothing and stay.
fn full() -> Option<(Cluster, Vec<TcpStream>)> {
    let cluster = fixture("http.js")?.variable("MAX_CONNECTIONS", PLACES.to_string()).start();
    let mut guests = Vec::new();
    for count in 1..=2 * PLACES {
        guests.push(connect(cluster.addr(0)).unwrap());
        eventually("its place", || (cluster.count("accepted") == count).then_some(()));
    }
    Some((cluster, guests))
}

#[test]
fn fifty_connections_wait_for_a_place_without_a_spin() {
    if beyond_node("it hands them to full workers again and again") {
        return;
    }
    let _alone = alone();
    let Some((cluster, mut guests)) = full() else { return };
    let waiting: Vec<TcpStream> = (0..50).map(|_| connect(cluster.addr(0)).unwrap()).collect();
    // Probes are as rare as they get when those before that add up to less than this: 5 ms, doubled
    // six times.
    let _ = span_of(Duration::from_secs(1), &cluster);
    let (probes, used, span) = span_of(Duration::from_secs(5), &cluster);
    // Four a second and worker, and one more of each by where the span begins.
    assert!(probes <= span.as_millis() as usize * 4 * 2 / 1_000 + 2, "{probes} in {span:?}");
    assert!(used < span / 100, "{used:?} of CPU time in {span:?}");
    let mut late = Vec::new();
    while let Some(guest) = guests.pop() {
        let (accepted, freed) = (cluster.count("accepted"), Instant::now());
        drop(guest);
        eventually("the place's next guest", || {
            (cluster.count("accepted") > accepted).then_some(())
        });
        late.extend(Some(freed.elapsed()).filter(|it| *it > Duration::from_millis(300)));
    }
    // Others use this machine too.
    assert!(late.len() <= 2, "late: {late:?}");
    drop(waiting);
    for _ in 0..10 {
        get(cluster.addr(0), "/").pid();
    }
    assert_eq!((cluster.count("refused"), cluster.count("exited")), (0, 0));
    cluster.stop();
}

/// Lets so much time go by: how often workers declined, the CPU time of the primary, and how long
/// it really was.
fn span_of(time: Duration, cluster: &Cluster) -> (usize, Duration, Duration) {
    let (declined, used) = (cluster.count("declined"), cpu_time(cluster.pid()));
    let begun = Instant::now();
    std::thread::sleep(time);
    let declined = cluster.count("declined") - declined;
    (declined, cpu_time(cluster.pid()) - used, begun.elapsed())
}

/// One that is full leaves all to the others.
#[test]
fn others_serve_what_a_full_worker_declines() {
    let Some(setup) = fixture("http.js") else { return };
    let cluster = setup.variable("MAX_CONNECTIONS", "1").start();
    let addr = cluster.addr(0);
    let guest = send(addr, "/sleep?600000").unwrap();
    let answers: Vec<Answer> = (0..20).map(|_| get(addr, "/")).collect();
    assert_eq!(spread(&answers).len(), 1, "{answers:?}");
    drop(guest);
    cluster.stop();
}
