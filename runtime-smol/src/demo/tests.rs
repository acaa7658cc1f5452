use std::net::SocketAddr;
use std::thread;

use roundel_core::SockName;

use super::*;
use crate::worker::tests::fake_primary::{self, FakePrimary};

#[path = "../../../tests/support/demo_scenarios.rs"]
mod scenarios;

/// A demo worker outside a cluster; its thread ends with the tests.
fn demo() -> SocketAddr {
    let worker = Worker::join().unwrap();
    let web = async_io::block_on(worker.listen("127.0.0.1:0")).unwrap();
    let SockName::Ip(address) = *web.sockname() else { panic!("no IP address") };
    thread::spawn(|| serve(worker, &[web]));
    address
}

/// A demo worker under a primary, and the thread that it runs on.
fn under_primary() -> (FakePrimary, thread::JoinHandle<io::Result<ExitCode>>) {
    let (mut primary, driver) = FakePrimary::new();
    let worker = Worker::over(driver).unwrap();
    let demo = thread::spawn(|| {
        let web = async_io::block_on(worker.listen_nth(0))?;
        serve(worker, &[web])
    });
    primary.grant_first();
    (primary, demo)
}
