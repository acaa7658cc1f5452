//! The binary `roundel-smol`: a cluster primary on async-io.

use std::process::ExitCode;

use roundel_cli::launch::{self, Adapter};

fn main() -> ExitCode {
    launch::main(Adapter {
        name: "roundel-smol",
        prepare: roundel_smol::reactor::prepare,
        run: roundel_smol::reactor::run,
        demo_worker: roundel_cli::demo::on_smol::run,
    })
}
