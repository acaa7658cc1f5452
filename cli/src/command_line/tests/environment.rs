//! Values from environment variables.

use std::os::unix::ffi::OsStringExt;

use super::*;

#[test]
fn node_says_the_policy_where_no_option_does() {
    let policy = |option: &str, variable: &str| {
        let line = format!("roundel demo {option}");
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let environment = Environment { workers: None, policy: Some(variable.into()) };
        match load(args, environment) {
            Ok(Effective { options, .. }) => Ok(options.config.build().unwrap().policy()),
            Err(early) => Err(early.text),
        }
    };
    assert_eq!(policy("", "none"), Ok(Policy::Shared));
    assert_eq!(policy("", "rr"), Ok(Policy::RoundRobin));
    assert_eq!(policy("", ""), Ok(Policy::RoundRobin));
    assert_eq!(policy("--policy round-robin", "none"), Ok(Policy::RoundRobin));
    let line = "roundel: NODE_CLUSTER_SCHED_POLICY: \"best\" is neither rr nor none\n";
    assert_eq!(policy("", "best"), Err(line.into()));
}

#[test]
fn workers_come_from_the_option_or_the_variable() {
    let workers = |line: &str, variable: Option<&str>| {
        let args = line.split(' ').map(OsString::from);
        let environment = Environment { workers: variable.map(OsString::from), policy: None };
        match load(args, environment) {
            Ok(Effective { options, .. }) => Ok(options.config.build().unwrap().workers()),
            Err(early) => Err(early.text),
        }
    };
    let auto = values::workers("auto").unwrap();
    assert_eq!(workers("roundel demo", Some("3")), Ok(3));
    assert_eq!(workers("roundel demo", Some("auto")), Ok(auto));
    assert_eq!(workers("roundel demo", Some("")), Ok(auto));
    assert_eq!(workers("roundel demo", None), Ok(auto));
    assert_eq!(workers("roundel demo -w 2", Some("3")), Ok(2));
    assert_eq!(workers("roundel demo -w 2", Some("many")), Ok(2));
    let line = "roundel: WEB_CONCURRENCY: \"many\" is neither auto nor a whole number from 1 to \
                10000\n";
    assert_eq!(workers("roundel demo", Some("many")), Err(line.into()));
    let bytes = Some(OsString::from_vec(vec![0xff]));
    let args = ["roundel", "demo"].map(OsString::from);
    let early = load(args, Environment { workers: bytes, policy: None }).unwrap_err();
    assert_eq!(early.text, "roundel: WEB_CONCURRENCY: \"\\xFF\" is not valid UTF-8\n");
}
