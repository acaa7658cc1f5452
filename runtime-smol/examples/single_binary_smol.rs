//! One executable that is primary and worker: a server whose answer names the worker.
//!
//! `cargo run --example single_binary_smol -- 127.0.0.1:8080`, then `nc 127.0.0.1 8080`. With
//! `ALONE=1` in the environment it serves by itself, without a cluster.

use std::process::ExitCode;

use roundel_smol::{Primary, Worker};
use smol::io::AsyncWriteExt;

fn main() -> std::io::Result<ExitCode> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    if roundel_smol::is_primary() && std::env::var_os("ALONE").is_none() {
        return Ok(Primary::new()?.workers(2).run()?.into());
    }
    let worker = Worker::join()?;
    worker.replace_on_panic();
    smol::block_on(async {
        let listener = worker.listen(&address).await?;
        if !worker.is_in_cluster() {
            println!("listening on {}", listener.sockname());
        }
        while let Some(mut connection) = listener.accept().await? {
            let who = roundel_smol::worker_id().unwrap_or(0);
            let words = format!("worker {who} pid {}\n", std::process::id());
            // A client that has left already is no reason to stop.
            let _ = connection.write_all(words.as_bytes()).await;
        }
        Ok(worker.finish().await)
    })
}
