//! The built-in worker of `roundel-smol demo`: a task for each client.

mod board;
#[cfg(test)]
mod tests;
mod visit;

use std::future::poll_fn;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::Poll;

use roundel_runtime::demo::{self, Client, Identity};
use roundel_runtime::worker::Standing;
use smol::LocalExecutor;
use smol::future;

use crate::{Listener, Worker};
use board::Board;
use visit::Visit;

/// Connections taken in a row before others have their turn.
const IN_A_ROW: u32 = 16;

/// Is a demo worker on the first `listeners` listeners of the operator, until it is told to leave.
pub fn run(listeners: u32) -> ExitCode {
    demo::end(Worker::join().and_then(|worker| {
        worker.suicide_on_panic();
        async_io::block_on(async {
            let mut all = Vec::new();
            for nth in 0..listeners {
                all.push(worker.listen_nth(nth).await?);
            }
            serve(worker, &all).await
        })
    }))
}

async fn serve(worker: Worker, listeners: &[Listener]) -> io::Result<ExitCode> {
    let board = Rc::new(Board::default());
    let visits = LocalExecutor::new();
    let serving = async {
        all(listeners.iter().map(|listener| accept(&worker, listener, &board, &visits))).await?;
        board.empty().await;
        io::Result::Ok(())
    };
    let keeping_time = async {
        board.keep_time().await;
        io::Result::Ok(())
    };
    visits.run(future::or(serving, keeping_time)).await?;
    Ok(worker.finish().await)
}

/// Waits for all, or for the first error.
async fn all(
    futures: impl Iterator<Item = impl Future<Output = io::Result<()>>>,
) -> io::Result<()> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|cx| {
        let mut result = Ok(());
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                result = Err(error);
                false
            }
            Poll::Pending => true,
        });
        if result.is_ok() && !futures.is_empty() { Poll::Pending } else { Poll::Ready(result) }
    })
    .await
}

/// Takes connections until there will be no more, and serves each at once as far as possible.
async fn accept(
    worker: &Worker,
    listener: &Listener,
    board: &Rc<Board>,
    visits: &LocalExecutor<'static>,
) -> io::Result<()> {
    let who = Identity::own();
    for count in 1_u32.. {
        if board.is_full() {
            let gives_back = async { listener.decline().await.map(Some) };
            let has_room = async {
                board.departure().await;
                Ok(None)
            };
            if future::or(gives_back, has_room).await? == Some(false) {
                break;
            }
            continue;
        }
        match listener.accept().await {
            Ok(Some(connection)) => {
                if worker.standing() != Standing::Serving {
                    board.leave();
                }
                let client = Client::new(connection.into_inner(), std::time::Instant::now());
                // Mostly the request is there already, and sometimes that is all.
                if let Some(visit) = Visit::begin(client, who, board) {
                    visits.spawn(visit.go_on()).detach();
                }
            }
            Ok(None) => break,
            // For want of descriptors, where this process accepts by itself.
            Err(_) => board.departure().await,
        }
        if count % IN_A_ROW == 0 {
            future::yield_now().await;
        }
    }
    board.leave();
    Ok(())
}
