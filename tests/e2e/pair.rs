//! What a scenario runs on: each is written once, and run on every pair of a primary and workers.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Cluster, built};

/// A primary, and the workers that it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) primary: Adapter,
    pub(crate) worker: Adapter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adapter {
    Mio,
    Smol,
}

impl Adapter {
    pub(crate) fn binary(self) -> PathBuf {
        match self {
            Adapter::Mio => built("roundel", "runtime-mio"),
            Adapter::Smol => built("roundel-smol", "runtime-smol"),
        }
    }
}

impl Pair {
    pub(crate) const fn new(primary: Adapter, worker: Adapter) -> Pair {
        Pair { primary, worker }
    }

    /// The binary of the primary.
    pub(crate) fn binary(self) -> PathBuf {
        self.primary.binary()
    }

    /// The command line of a demo worker.
    pub(crate) fn demo_worker(self) -> [String; 3] {
        let binary = self.worker.binary().to_str().unwrap().to_owned();
        [binary, "demo-worker".into(), "1".into()]
    }

    /// `roundel demo ARGS`, or the same with the other adapter's demo workers.
    pub(crate) fn demo(self, args: &[&str]) -> Cluster {
        self.start_demo(Command::new(self.binary()), args)
    }

    /// As [`demo`](Pair::demo), where the command runs the binary under certain conditions.
    pub(crate) fn start_demo(self, command: Command, args: &[&str]) -> Cluster {
        if self.primary == self.worker {
            return Cluster::start(command, "demo", args, &[]);
        }
        let program = self.demo_worker();
        let program = program.each_ref().map(String::as_str);
        Cluster::start(command, "run", args, &program)
    }

    /// `roundel run ARGS PROGRAM`.
    pub(crate) fn run(self, args: &[&str], program: &[&str]) -> Cluster {
        Cluster::start(Command::new(self.binary()), "run", args, program)
    }

    /// A worker with habits.
    pub(crate) fn test_worker(self) -> &'static str {
        match self.worker {
            Adapter::Mio => env!("CARGO_BIN_EXE_test_worker"),
            Adapter::Smol => env!("CARGO_BIN_EXE_test_worker_smol"),
        }
    }

    /// A worker whose HTTP is a library's.
    pub(crate) fn hyper_server() -> PathBuf {
        built("examples/hyper_server", "runtime-smol")
    }

    /// An example that is its own primary.
    pub(crate) fn single_binary(self) -> PathBuf {
        match self.primary {
            Adapter::Mio => built("examples/single_binary", "runtime-mio"),
            Adapter::Smol => built("examples/single_binary_smol", "runtime-smol"),
        }
    }
}

/// Tests of scenarios, `scenario::primary::worker` by name, on all pairs.
macro_rules! on_all {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::pair::{Adapter::*, Pair};

            mod roundel {
                use super::*;
                #[test]
                fn mio() {
                    super::super::$name(Pair::new(Mio, Mio));
                }
                #[test]
                fn smol() {
                    super::super::$name(Pair::new(Mio, Smol));
                }
            }

            mod roundel_smol {
                use super::*;
                #[test]
                fn mio() {
                    super::super::$name(Pair::new(Smol, Mio));
                }
                #[test]
                fn smol() {
                    super::super::$name(Pair::new(Smol, Smol));
                }
            }
        }
    )+};
}

/// The same with each primary's own workers alone: for scenarios that take long, and for those in
/// which the workers are none of an adapter.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::pair::{Adapter::*, Pair};

            #[test]
            fn roundel() {
                super::$name(Pair::new(Mio, Mio));
            }
            #[test]
            fn roundel_smol() {
                super::$name(Pair::new(Smol, Smol));
            }
        }
    )+};
}

pub(crate) use {on_all, on_both};
