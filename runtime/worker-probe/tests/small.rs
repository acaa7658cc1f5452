//! The crates that a program compiles if it is only a worker, and a check that it is one.

use std::collections::BTreeSet;
use std::process::{Command, Output};

/// The crates compiled for a package, itself included.
fn compiled(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}"])
        .args(["--edges", "normal,build", "--package", package])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let words = text.lines().filter_map(|line| line.split_whitespace().next());
    words.map(str::to_owned).collect()
}

/// Runs a program outside a cluster, apart from these variables.
fn run(program: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    for name in ["ROUNDEL_CHANNEL_FD", "NODE_CHANNEL_FD", "NODE_UNIQUE_ID"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

const PROGRAMS: [&str; 2] = [env!("CARGO_BIN_EXE_mio"), env!("CARGO_BIN_EXE_smol")];

#[test]
fn a_worker_compiles_only_what_it_needs() {
    for (package, most) in
        [("roundel-core", 10), ("roundel-runtime", 18), ("roundel-mio", 21), ("roundel-smol", 32)]
    {
        let crates = compiled(package);
        println!("{package}: {} crates", crates.len());
        for needless in ["clap", "httparse", "serde_json", "smol"] {
            assert!(!crates.contains(needless), "{package} compiles {needless}");
        }
        assert!(crates.contains(package) && crates.len() <= most, "{package}: {crates:?}");
    }
}

#[test]
fn it_serves_by_itself() {
    for program in PROGRAMS {
        let output = run(program, &[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"listens\n");
    }
}

/// It must not serve by itself there, beside its siblings.
#[test]
fn under_node_it_says_what_is_missing() {
    for program in PROGRAMS {
        let output = run(program, &[("NODE_CHANNEL_FD", "3"), ("NODE_UNIQUE_ID", "1")]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
        assert!(said.contains("feature `node`"), "{said}");
    }
}
