//! One executable that is primary and worker: a server whose answer names the worker.
//!
//! `cargo run --example single_binary -- 127.0.0.1:8080`, then `nc 127.0.0.1 8080`. With `ALONE=1`
//! in the environment it serves by itself, without a cluster.

use std::io::Write;
use std::process::ExitCode;

use roundel_mio::{Primary, Worker};

fn main() -> std::io::Result<ExitCode> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    if roundel_mio::is_primary() && std::env::var_os("ALONE").is_none() {
        return Ok(Primary::new()?.workers(2).run()?.into());
    }
    let worker = Worker::join()?;
    worker.replace_on_panic();
    let listener = worker.listen(&address)?;
    if !worker.is_in_cluster() {
        println!("listening on {}", listener.sockname());
    }
    while let Some(mut connection) = listener.accept()? {
        let who = roundel_mio::worker_id().unwrap_or(0);
        // A client that has left already is no reason to stop.
        let _ = writeln!(connection, "worker {who} pid {}", std::process::id());
    }
    Ok(worker.finish())
}
