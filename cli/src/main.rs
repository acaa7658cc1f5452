//! The binary `roundel`: a cluster primary on mio.

use std::process::ExitCode;

use roundel_cli::launch::{self, Adapter};

fn main() -> ExitCode {
    launch::main(Adapter {
        name: "roundel",
        prepare: || Ok(()),
        run: roundel_mio::reactor::run,
        demo_worker: roundel_cli::demo::on_mio::run,
    })
}
