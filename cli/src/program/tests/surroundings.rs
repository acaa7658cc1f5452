//! A directory and variables that the configuration gives.

use super::*;

fn with(dir: &Dir, line: &str, env: &[(&str, &str)]) -> Result<Resolved, Refusal> {
    let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let own = Surroundings::new("/".into(), [("PATH".into(), "/nowhere".into())].into());
    resolve(line.split_whitespace().map(OsString::from).collect(), own.with(env, Some(&dir.0)))
}

#[test]
fn a_program_is_looked_up_in_them_and_started_in_them() {
    let dir = Dir::new();
    dir.script("here", "#!/bin/sh\n");
    dir.file("server.js", "");
    let bin = dir.0.join("bin").into_os_string().into_string().unwrap();
    let found = with(&dir, "./here", &[("A", "1")]).unwrap().program;
    assert_eq!((found.path, found.cwd.as_ref()), (dir.0.join("./here").into(), Some(&dir.0)));
    assert_eq!(found.env, [("A".into(), "1".into())]);
    let missing = with(&dir, "node server.js", &[]).unwrap_err();
    assert_eq!(missing.exit, Exit::ProgramMissing, "{missing:?}");
    let found = with(&dir, "node server.js", &[("PATH", &bin)]).unwrap().program;
    assert_eq!(found.path, dir.0.join("bin/node"));
    // A directory is relative to that of the primary.
    let around =
        Surroundings::new(dir.0.clone(), BTreeMap::new()).with(Vec::new(), Some("bin".as_ref()));
    let found = resolve(vec!["./node".into()], around).unwrap().program;
    assert_eq!(found.cwd, Some(dir.0.join("bin")));
    let around = Surroundings::new(dir.0.clone(), BTreeMap::new()).with(Vec::new(), None);
    assert_eq!(resolve(vec!["./here".into()], around).unwrap().program.cwd, None);
}

#[test]
fn what_comes_before_a_script_has_them_too() {
    let dir = Dir::new();
    dir.file("x.js", "");
    dir.package(&[("start", "A=2 node x.js"), ("prestart", "build")]);
    let path = dir.0.join("bin").into_os_string().into_string().unwrap();
    let resolved = with(&dir, "npm start", &[("PATH", &path), ("A", "1"), ("B", "3")]).unwrap();
    assert_eq!((value(&resolved, "A"), value(&resolved, "B")), (Some("2"), Some("3")));
    assert!(value(&resolved, "PATH").unwrap().ends_with(&path), "{resolved:?}");
    let hook = &resolved.hooks[0].env;
    assert!(hook.contains(&("A".into(), "1".into())) && hook.contains(&("B".into(), "3".into())));
}
