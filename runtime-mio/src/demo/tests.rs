use std::net::SocketAddr;
use std::thread;

use roundel_core::SockName;

use super::*;
use crate::worker::tests::fake_primary::{self, FakePrimary};

#[path = "../../../tests/support/demo_scenarios.rs"]
mod scenarios;

/// A demo worker outside a cluster; its thread ends with the tests.
fn demo() -> SocketAddr {
    let mut worker = Worker::join().unwrap();
    let web = worker.listen("127.0.0.1:0").unwrap();
    let SockName::Ip(address) = *web.sockname() else { panic!("no IP address") };
    thread::spawn(|| Demo::new(worker, vec![web]).and_then(Demo::serve));
    address
}

/// A demo worker under a primary, and the thread that it runs on.
fn under_primary() -> (FakePrimary, thread::JoinHandle<io::Result<ExitCode>>) {
    let (mut primary, driver) = FakePrimary::new();
    let mut worker = Worker::over(driver).unwrap();
    let demo = thread::spawn(move || {
        let web = worker.listen_nth(0)?;
        Demo::new(worker, vec![web])?.serve()
    });
    primary.grant_first();
    (primary, demo)
}
