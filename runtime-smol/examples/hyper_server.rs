//! An HTTP server with hyper as a worker: every connection is a task, and all of them finish when
//! the worker must leave.
//!
//! `roundel-smol run -b 127.0.0.1:8080 target/debug/examples/hyper_server`, or by itself, without a
//! cluster, on 127.0.0.1:8080.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use roundel_smol::{Connection, Worker};
use smol::channel::{Receiver, bounded};
use smol::{LocalExecutor, Timer, future};
use smol_hyper::rt::{FuturesIo, SmolTimer};

/// How long a leaving worker waits for a client's first request.
const GRACE: Duration = Duration::from_secs(1);

fn main() -> io::Result<ExitCode> {
    let worker = Worker::join()?;
    worker.replace_on_panic();
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(serve(worker, &executor)))
}

async fn serve(worker: Worker, executor: &LocalExecutor<'_>) -> io::Result<ExitCode> {
    let web = match worker.is_in_cluster() {
        true => worker.listen_nth(0).await?,
        false => worker.listen("127.0.0.1:8080").await?,
    };
    // Nothing is sent over this channel: it only shows that its sender is gone.
    let (stays, leaves) = bounded(1);
    let accepting = async {
        while let Some(connection) = web.accept().await? {
            let leaves = leaves.clone();
            let task = async {
                // A client that has left is no reason to stop.
                let _ = attend(connection, leaves).await;
            };
            executor.spawn(task).detach();
        }
        io::Result::Ok(())
    };
    let leaving = async {
        worker.leaving().await?;
        drop(stays);
        io::Result::Ok(())
    };
    future::try_zip(accepting, leaving).await?;
    worker.all_closed().await?;
    Ok(worker.finish().await)
}

/// Serves one client until it or the worker leaves.
async fn attend(connection: Connection, leaves: Receiver<()>) -> hyper::Result<()> {
    let io = FuturesIo::new(connection);
    let has_asked = Cell::new(false);
    let answer = service_fn(|request| {
        has_asked.set(true);
        hello(request)
    });
    let serving = http1::Builder::new().timer(SmolTimer::new()).serve_connection(io, answer);
    let mut serving = pin!(serving);
    let served = async { Some(serving.as_mut().await) };
    let is_to_leave = async {
        let _ = leaves.recv().await;
        // hyper closes a connection at once if it has read nothing, though a request may be on its
        // way.
        if !has_asked.get() {
            Timer::after(GRACE).await;
        }
        None
    };
    if let Some(served) = future::or(served, is_to_leave).await {
        return served;
    }
    serving.as_mut().graceful_shutdown();
    serving.await
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let who = roundel_smol::worker_id().unwrap_or(0);
    let words = format!("worker {who} pid {}\n", std::process::id());
    Ok(Response::new(Full::new(Bytes::from(words))))
}
