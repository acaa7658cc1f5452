//! Listeners that the service manager keeps while there is no primary.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use roundel_tests::programs::observe::unused_address;

use super::manager::{Manager, start};
use crate::cells::on_both;
use crate::harness::*;
use crate::pair::Pair;

on_both! {
    "it is about the primary alone", one listener "the listeners are given":
    case_15_a_killed_primary_leaves_its_listeners_to_the_next_one,
    a_restart_as_asked_refuses_nobody,
    what_no_address_asks_for_is_closed,
}

fn restart(on: Pair, manager: &Manager, binds: &[&str]) -> Cluster {
    let stored = manager.hand_back();
    let sockets = stored.iter().map(|(name, fd)| (name.as_str(), fd.try_clone().unwrap()));
    start(on, Some(manager), sockets.collect(), binds, &[])
}

fn inode(addr: SocketAddr) -> String {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let SocketAddr::V4(addr) = addr else { panic!("{addr}") };
    let bytes = u32::from_le_bytes(addr.ip().octets());
    let at = format!("{bytes:08X}:{:04X} 00000000:0000 0A", addr.port());
    let line = table.lines().find(|line| line.contains(&at));
    line.unwrap_or_else(|| panic!("no {at}")).split_whitespace().nth(9).unwrap().to_owned()
}

fn case_15_a_killed_primary_leaves_its_listeners_to_the_next_one(on: Pair) {
    let _turn = alone();
    let manager = Manager::new();
    let (addr, path) = (unused_address(), temp_dir().join("socket"));
    let (tcp, unix) = (addr.to_string(), format!("unix:{}", path.display()));
    let binds = [tcp.as_str(), unix.as_str()];
    let mut first = start(on, Some(&manager), Vec::new(), &binds, &[]);
    let old = first.ready(2);
    wait_for("the store", || (manager.stored().len() == 2).then_some(()));
    let name = format!("roundel-{}", tcp.replace(':', "_"));
    assert!(manager.stored().contains(&name), "{:?}", manager.stored());
    let before = inode(addr);
    let mut second = None;
    let outcomes = under_load(addr, 4, || {
        wait_for("load", || (first.total("accepted_total") > 100).then_some(()));
        manager.forget();
        first.signal(Signal::SIGKILL);
        assert_eq!(first.wait(), -9);
        // A client of this moment waits in the store.
        let waiting = send(addr, "/").unwrap();
        let unix = UnixStream::connect(&path).unwrap();
        let next = restart(on, &manager, &binds);
        next.ready(2);
        assert!(matches!(receive(waiting), Outcome::Ok(_)));
        drop(unix);
        wait_for("load", || (next.total("accepted_total") > 100).then_some(()));
        second = Some(next);
    });
    let second = second.unwrap();
    assert_eq!(inode(addr), before, "the same socket");
    let refused = outcomes.iter().filter(|it| **it == Outcome::Refused).count();
    let served = outcomes.iter().filter(|it| matches!(it, Outcome::Ok(_))).count();
    assert_eq!(refused, 0, "of {}", outcomes.len());
    // At most one of each client was with the primary or its workers.
    assert!(outcomes.len() - served <= 8, "{} of {}", served, outcomes.len());
    let new = second.ready(2);
    assert!(new.iter().all(|pid| !old.contains(pid)));
    // They are in the store already.
    let again = manager.heard().iter().filter(|it| it.starts_with("FDSTORE")).count();
    assert_eq!(again, 0);
    second.stop();
    // The path is removed, so that nobody waits behind it in vain.
    assert!(!path.exists());
    assert_eq!(manager.stored(), [name]);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

fn a_restart_as_asked_refuses_nobody(on: Pair) {
    let _turn = alone();
    let manager = Manager::new();
    let addr = unused_address();
    let tcp = addr.to_string();
    let first = start(on, Some(&manager), Vec::new(), &[&tcp], &[]);
    first.ready(2);
    wait_for("the store", || (manager.stored().len() == 1).then_some(()));
    let mut second = None;
    let outcomes = under_load(addr, 4, || {
        wait_for("load", || (first.total("accepted_total") > 100).then_some(()));
        first.stop();
        let next = restart(on, &manager, &[&tcp]);
        wait_for("load", || (next.total("accepted_total") > 100).then_some(()));
        second = Some(next);
    });
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Ok(_))), "{outcomes:?}");
    second.unwrap().stop();
}

fn what_no_address_asks_for_is_closed(on: Pair) {
    let manager = Manager::new();
    let (old, new) = (unused_address(), unused_address());
    let first = start(on, Some(&manager), Vec::new(), &[&old.to_string()], &[]);
    first.ready(2);
    wait_for("the store", || (manager.stored().len() == 1).then_some(()));
    drop(first);
    let second = restart(on, &manager, &[&new.to_string()]);
    second.ready(2);
    let name = format!("roundel-{}", new.to_string().replace(':', "_"));
    wait_for("the store", || (manager.stored() == [name.as_str()]).then_some(()));
    assert_eq!(get(old, "/"), Outcome::Refused);
    assert!(matches!(get(new, "/"), Outcome::Ok(_)));
    second.stop();
}
