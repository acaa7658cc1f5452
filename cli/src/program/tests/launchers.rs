//! Programs that start another one: those that only set variables, and those that are refused.

use super::*;

#[test]
fn variables_are_set_without_the_launcher() {
    let dir = Dir::new();
    dir.file("app.js", "");
    for line in [
        "cross-env A=1 B=x=y node app.js",
        "env A=1 B=x=y node app.js",
        "npx cross-env A=1 B=x=y node app.js",
    ] {
        let resolved = dir.resolve(line).unwrap_or_else(|it| panic!("{line}: {it:?}"));
        assert_eq!(resolved.program.args, ["app.js"]);
        assert_eq!((value(&resolved, "A"), value(&resolved, "B")), (Some("1"), Some("x=y")));
    }
    assert_eq!(dir.refuses("cross-env A=1").0, 2);
    assert_eq!(dir.refuses("cross-env A=$B node app.js").0, 2);
    // Then env itself is the program that runs.
    dir.script("bin/env", "#!/bin/sh\n");
    assert_eq!(dir.starts("env -i node app.js"), ["env", "-i", "node", "app.js"]);
}

#[test]
fn launchers_are_refused_with_the_form_that_works() {
    let dir = Dir::new();
    dir.file("app.js", "");
    dir.file("app.ts", "");
    for name in ["tsx", "nodemon", "dotenv", "ts-node-dev", "concurrently", "pm2", "ts-node"] {
        dir.script(&format!("node_modules/.bin/{name}"), "#!/usr/bin/env node\n");
    }
    dir.file("node_modules/tsx/dist/cli.mjs", "");
    dir.package(&[("start", "tsx watch app.ts")]);
    let via = "starts the program in a separate process that does not get the channel";
    for (line, says) in [
        ("npx tsx app.ts -x", format!("tsx: {via}; run: roundel run node --import tsx app.ts -x")),
        ("node_modules/.bin/tsx watch --clear-screen=false app.ts", format!("tsx: {via}; run: roundel run node --import tsx app.ts")),
        ("npm start", format!("tsx: {via}; run: roundel run node --import tsx app.ts")),
        ("node node_modules/tsx/dist/cli.mjs app.ts", format!("tsx: {via}; run: roundel run node --import tsx app.ts")),
        ("npx nodemon --watch src app.js 1", format!("nodemon: {via}; run: roundel run node app.js 1")),
        ("npx nodemon", format!("nodemon: {via}; run: roundel run node SCRIPT")),
        ("npx ts-node-dev --respawn app.ts", format!("ts-node-dev: {via}; run: roundel run node --import tsx app.ts")),
        ("npx dotenv -e .env.prod -- node app.js", format!("dotenv: {via}; run: roundel run node --env-file=.env.prod app.js")),
        ("npx concurrently a b", format!("concurrently: {via}; start each server under its own primary: roundel run node SCRIPT")),
        ("npx pm2 start app.js", "pm2: restarts the program, which roundel already does; run: roundel run node app.js".into()),
        ("npx ts-node --esm app.ts", format!("ts-node-esm: {via}; run: roundel run node --import tsx app.ts")),
        ("node --max-old-space-size=9 --watch-path=src app.js x", "node --watch: starts the script in a separate process that does not get the channel; run: roundel run node --max-old-space-size=9 app.js x".into()),
        ("node --watch app.js", "node --watch: starts the script in a separate process that does not get the channel; run: roundel run node app.js".into()),
        ("node -e code()", "node -e: Node runs code as a cluster worker only if an argument follows it; run: roundel run node -e 'code()' worker".into()),
        ("node -r ./a.js --print=code --", "node --print: Node runs code as a cluster worker only if an argument follows it; run: roundel run node -r ./a.js --print=code -- worker".into()),
        ("node inspect app.js", "node inspect: starts the script in a separate process that does not get the channel; run: roundel run node --inspect app.js".into()),
    ] {
        assert_eq!(dir.refuses(line), (2, says), "{line}");
    }
    // These stay within one process.
    dir.starts("npx ts-node app.ts");
    dir.starts("node -e code() worker");
    // A program with that name that is not a script is the operator's own.
    fs::copy("/proc/self/exe", dir.0.join("supervisor")).unwrap();
    dir.starts("./supervisor");
    dir.script("forever", "#!/bin/sh\n");
    dir.starts("./forever app.js");
}
