//! The built-in worker of `roundel-smol demo`: a task for each client.

mod board;
#[cfg(test)]
mod tests;
mod visit;

use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use roundel_runtime::demo::{self, Client, Identity};
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
    // Two, as who accepts starts visits.
    let visits = LocalExecutor::new();
    let services = LocalExecutor::new();
    let served = services.run(async {
        let _time = services.spawn(board.keep_time());
        let _leaving = services.spawn(async {
            let reason = worker.leaving().await;
            board.leave();
            reason
        });
        let mut accepting = Vec::new();
        for listener in listeners {
            accepting.push(services.spawn(accept(listener, &board, &visits)));
        }
        for task in accepting {
            task.await?;
        }
        board.empty().await;
        io::Result::Ok(())
    });
    visits.run(served).await?;
    drop(services);
    Ok(worker.finish().await)
}

/// Takes connections until there will be no more, and serves each at once as far as possible.
async fn accept(
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
    Ok(())
}
