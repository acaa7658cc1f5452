//! The port of Node's debugger, which must differ from worker to worker.

use std::ffi::{OsStr, OsString};

use roundel_core::Slot;

use super::node::NodeArgs;
use roundel_runtime::unix::process::Program;

/// The default port of Node's debugger.
const DEFAULT_PORT: u16 = 9229;
/// The port with which Node's `cluster` continues after the last port.
const FIRST_PORT: u32 = 1024;

/// The variable with options for Node.
pub(super) const NODE_OPTIONS: &str = "NODE_OPTIONS";

/// Its value for a program: what is added for it goes before what it inherits.
pub(super) fn node_options(program: &Program) -> OsString {
    let added = program.env.iter().rev().find(|(name, _)| name == NODE_OPTIONS);
    let added = added.map(|(_, value)| value.clone());
    added.or_else(|| std::env::var_os(NODE_OPTIONS)).unwrap_or_default()
}

/// A debugger that the command line, or `NODE_OPTIONS`, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inspect {
    port: u16,
    /// The index in the arguments at which the port is inserted; `None` means into `NODE_OPTIONS`.
    at: Option<usize>,
}

impl Inspect {
    /// The debugger that a program asks for. `node` is true if it is Node itself, and `inherited`
    /// is `NODE_OPTIONS` in the environment.
    pub(crate) fn of(program: &Program, node: bool, inherited: &OsStr) -> Option<Inspect> {
        let options: Vec<OsString> =
            inherited.to_string_lossy().split_whitespace().map(OsString::from).collect();
        let environment = NodeArgs::read(&options);
        let args = if node { NodeArgs::read(&program.args) } else { NodeArgs::default() };
        let (mut port, mut at, mut asked) = (DEFAULT_PORT, None, false);
        // The arguments override the environment.
        for (read, own) in [(&environment, false), (&args, true)] {
            for (name, value, behind) in &read.options {
                if !is_inspector(name) {
                    continue;
                }
                asked = true;
                if own {
                    at = Some(*behind);
                }
                port = value.as_deref().and_then(port_of).unwrap_or(port);
            }
        }
        // With port 0 the kernel chooses a different one for each worker.
        (asked && port != 0).then_some(Inspect { port, at })
    }

    /// The port of a slot: the same for each new worker in it.
    fn port(self, slot: Slot) -> u32 {
        let port = u32::from(self.port) + slot.0;
        let last = u32::from(u16::MAX);
        if port <= last { port } else { FIRST_PORT + (port - last - 1) % (last - FIRST_PORT + 1) }
    }

    /// Makes the worker in this slot listen on a port of its own.
    pub(crate) fn apply(self, program: &mut Program, slot: Slot, inherited: &OsStr) {
        let option = format!("--inspect-port={}", self.port(slot));
        match self.at {
            Some(at) => program.args.insert(at.min(program.args.len()), option.into()),
            None => {
                let mut all = inherited.to_owned();
                all.push(" ");
                all.push(option);
                program.env.push((NODE_OPTIONS.into(), all));
            }
        }
    }
}

fn is_inspector(name: &str) -> bool {
    matches!(
        name,
        "--inspect" | "--inspect-brk" | "--inspect-wait" | "--inspect-port" | "--debug-port"
    ) || name == "--inspect-brk-node"
}

/// The port in `[HOST:]PORT`; `None` if there is only a host.
fn port_of(value: &OsStr) -> Option<u16> {
    let text = value.to_str()?;
    text.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(line: &str) -> Program {
        let args = line.split_whitespace().map(OsString::from).collect();
        Program { path: "node".into(), args, ..Program::default() }
    }

    /// The arguments, or `NODE_OPTIONS`, of the worker in a slot.
    fn started(line: &str, environment: &str, slot: u32) -> String {
        let mut program = program(line);
        let environment = OsStr::new(environment);
        if let Some(inspect) = Inspect::of(&program, true, environment) {
            inspect.apply(&mut program, Slot(slot), environment);
        }
        let words: Vec<_> = program.args.iter().map(|it| it.to_str().unwrap()).collect();
        let options = program.env.iter().map(|(_, value)| value.to_str().unwrap());
        words.into_iter().chain(options).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_slot_has_its_port() {
        assert_eq!(started("--inspect a.js", "", 0), "--inspect --inspect-port=9229 a.js");
        assert_eq!(started("--inspect=92 a.js", "", 2), "--inspect=92 --inspect-port=94 a.js");
        let host = started("--inspect-brk=[::1]:5000 a.js --inspect", "", 1);
        assert_eq!(host, "--inspect-brk=[::1]:5000 --inspect-port=5001 a.js --inspect");
        let host = started("--inspect=localhost a.js", "", 1);
        assert_eq!(host, "--inspect=localhost --inspect-port=9230 a.js");
        let apart = started("--inspect-port 7000 --inspect a.js", "", 3);
        assert_eq!(apart, "--inspect-port 7000 --inspect --inspect-port=7003 a.js");
        assert_eq!(
            started("--inspect=65535 a.js", "", 1),
            "--inspect=65535 --inspect-port=1024 a.js"
        );
    }

    #[test]
    fn the_environment_asks_too() {
        assert_eq!(started("a.js", "--inspect=7000", 1), "a.js --inspect=7000 --inspect-port=7001");
        let both = started("--inspect-port=8000 a.js", "--inspect=7000", 1);
        assert_eq!(both, "--inspect-port=8000 --inspect-port=8001 a.js");
    }

    #[test]
    fn nothing_changes_where_nobody_asks_or_the_kernel_chooses() {
        for line in
            ["a.js --inspect", "--inspect=0 a.js", "--inspect --inspect-port=0 a.js", "a.js"]
        {
            assert_eq!(started(line, "", 1), line);
        }
        assert_eq!(
            started("--inspect-publish-uid=http a.js", "", 1),
            "--inspect-publish-uid=http a.js"
        );
    }
}
