//! A program that can be replaced by one that fails.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use roundel_tests::programs::observe::unused_address;

use crate::harness::temp_dir;
use crate::pair::{Adapter, Pair};

/// What the next worker does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Good,
    /// It ends at once.
    Crashes,
    /// It ends when it has served for less than `--ready-hold`.
    EndsSoon,
    NeverListens,
    /// It listens on another address.
    ListensElsewhere,
    /// It listens on the first of two addresses.
    LacksOne,
    /// It listens after so many seconds.
    Boots(f32),
    /// It listens once [`Switched::open`] is called.
    Gated,
}

pub(super) struct Switched {
    dir: PathBuf,
    on: Pair,
    elsewhere: SocketAddr,
}

impl Switched {
    pub(super) fn new(on: Pair) -> Switched {
        let it = Switched { dir: temp_dir(), on, elsewhere: unused_address() };
        it.set(Mode::Good);
        it
    }

    /// The command line.
    pub(super) fn program(&self) -> Vec<String> {
        ["sh", self.dir.join("app").to_str().unwrap()].map(str::to_owned).into()
    }

    /// Has the next workers do this.
    pub(super) fn set(&self, mode: Mode) {
        let quoted = |words: Vec<String>| -> String {
            words.iter().map(|word| format!(" '{word}'")).collect()
        };
        let good = quoted(self.on.demo_worker());
        let is_node = self.on.worker == Adapter::Node;
        let (ip, port) = (self.elsewhere.ip(), self.elsewhere.port());
        let script = match mode {
            Mode::Good => format!("exec{good}"),
            Mode::Crashes => "exit 9".into(),
            Mode::EndsSoon => format!("(sleep 0.4; kill -9 $$) &\nexec{good}"),
            Mode::NeverListens => "exec sleep 1000".into(),
            Mode::ListensElsewhere if is_node => {
                format!("unset SECOND_PORT\nHOST={ip} PORT={port} exec{good}")
            }
            Mode::ListensElsewhere => {
                let at = self.elsewhere.to_string();
                format!("exec{}", quoted(self.on.test_worker(&["listen", &at])))
            }
            Mode::LacksOne if is_node => format!("unset SECOND_PORT\nexec{good}"),
            Mode::LacksOne => format!("exec{}", quoted(self.on.one().demo_worker())),
            Mode::Boots(seconds) => format!("sleep {seconds}\nexec{good}"),
            Mode::Gated => {
                let gate = self.dir.join("open");
                let _ = fs::remove_file(&gate);
                format!("until [ -e '{}' ]; do sleep 0.01; done\nexec{good}", gate.display())
            }
        };
        // As a whole: a worker may just be reading the old one.
        fs::write(self.dir.join("next"), script + "\n").unwrap();
        fs::rename(self.dir.join("next"), self.dir.join("app")).unwrap();
    }

    /// Lets workers go on that wait to be let.
    pub(super) fn open(&self) {
        fs::write(self.dir.join("open"), "").unwrap();
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
