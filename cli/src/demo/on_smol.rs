//! The demo worker in tasks: one for each listener and each client.

use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use roundel_smol::{Listener, Standing, Worker};
use smol::Timer;
use smol::channel::{Receiver, bounded};

use super::{PAUSE, Tasks, client::serve};

/// Serves the first `count` listeners of the operator until the worker must leave and no client is
/// left.
///
/// # Errors
/// As in the worker API.
pub fn run(count: u32) -> io::Result<ExitCode> {
    let (worker, tasks) = (Worker::join()?, Rc::new(Tasks::new()));
    worker.replace_on_panic();
    // Nothing is sent over this channel: dropping its sender is the signal.
    let (stays, leaves) = bounded(1);
    let comes = async {
        for nth in 0..count {
            let listener = match worker.listen_nth(nth).await {
                Ok(listener) => listener,
                // A client of the listener before may have asked for a crash.
                Err(_) if worker.standing() != Standing::Serving => break,
                Err(error) => return Err(error),
            };
            let accepting = accept(listener, Rc::clone(&tasks), leaves.clone());
            let closed = worker.all_closed();
            // Until the last client has left, the primary is told how many there are.
            tasks.spawn(async { (accepting.await, closed.await) }).detach();
        }
        worker.ready();
        worker.leaving().await.map(drop)
    };
    smol::block_on(async {
        tasks.run(comes).await?;
        drop(stays);
        while !tasks.is_empty() {
            tasks.tick().await;
        }
        Ok::<(), io::Error>(())
    })?;
    Ok(smol::block_on(worker.finish()))
}

/// Serves the clients of a listener until nothing more will come.
async fn accept(listener: Listener, tasks: Rc<Tasks>, leaves: Receiver<()>) {
    loop {
        match listener.accept().await {
            Ok(Some(connection)) => tasks.spawn(serve(connection, leaves.clone())).detach(),
            Ok(None) => return,
            Err(_) => _ = Timer::after(PAUSE).await,
        }
    }
}
