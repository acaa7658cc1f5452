//! A worker of tasks: an echo server. It sends back what a client sends, until the client has sent
//! everything.
//!
//! `roundel-smol run -b 127.0.0.1:8080 target/debug/examples/tasks`, or by itself, without a
//! cluster, on 127.0.0.1:8080.

use std::io;
use std::process::ExitCode;

use roundel_smol::{Connection, Worker};
use smol::LocalExecutor;
use smol::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> io::Result<ExitCode> {
    let worker = Worker::join()?;
    worker.replace_on_panic();
    let clients = LocalExecutor::new();
    let served = smol::block_on(clients.run(async {
        let web = match worker.is_in_cluster() {
            true => worker.listen_nth(0).await?,
            false => worker.listen("127.0.0.1:8080").await?,
        };
        // Ends when the worker must leave.
        while let Some(connection) = web.accept().await? {
            clients.spawn(echo(connection)).detach();
        }
        io::Result::Ok(())
    }));
    smol::block_on(async {
        // Clients that were accepted may not have sent anything yet, so wait for them.
        clients.run(worker.all_closed()).await?;
        let code = worker.finish().await;
        served.map(|()| code)
    })
}

async fn echo(mut connection: Connection) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = connection.read(&mut buffer).await {
        if connection.write_all(&buffer[..count]).await.is_err() {
            // The client has left, which is no reason to stop.
            return;
        }
    }
}
