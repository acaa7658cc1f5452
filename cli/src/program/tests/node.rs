//! Scripts that Node runs: JavaScript, and TypeScript if something can read it.

use super::*;

#[test]
fn scripts_of_node_are_run_with_it() {
    let dir = Dir::new();
    for name in ["a.js", "a.mjs", "a.cjs"] {
        dir.file(name, "");
        assert_eq!(dir.starts(&format!("{name} --x")), ["node", name, "--x"]);
    }
    let resolved = dir.resolve("a.js").unwrap();
    assert_eq!(resolved.program.path, dir.0.join("bin/node"), "as it was found at the start");
    assert_eq!((resolved.program.cwd, resolved.notes.len()), (None, 0));
    dir.script("app", "#!/usr/bin/env node\n");
    assert_eq!(dir.starts("./app x"), ["./app", "x"]);
    assert_eq!(dir.resolve("./app").unwrap().program.path, dir.0.join("./app"));
}

#[test]
fn files_are_resolved_as_node_does() {
    let dir = Dir::new();
    dir.file("a.js", "");
    dir.file("dir/index.js", "");
    dir.file("only.ts", "");
    for line in [
        "node a",
        "node dir",
        "node -e code x",
        "node -",
        "node --import tsx only.js",
        "node -r unknown a.js",
        "node --an-option-to-come value a.js",
        "node --trace-event-categories v8 a.js",
        "node",
    ] {
        dir.starts(line);
    }
    let (code, words) = dir.refuses("node bin");
    assert_eq!((code, &*words), (126, "bin: is a directory without package.json or index.js"));
}

#[test]
fn typescript_needs_somebody_who_knows_it() {
    let dir = Dir::new();
    for name in ["app.ts", "app.mts", "app.cts", "app.tsx"] {
        dir.file(name, "");
    }
    let says = |name: &str, why: &str| {
        format!(
            "{name}: Node 20.1.2 cannot run it ({why}) and tsx is not installed beside it (npm install tsx)"
        )
    };
    let old = "only Node 22.18 and later strips types";
    for name in ["app.ts", "app.mts", "app.cts"] {
        assert_eq!(dir.refuses(name), (2, says(name, old)));
    }
    assert_eq!(dir.refuses("node app.ts"), (2, says("app.ts", old)));
    assert_eq!(dir.refuses("app.tsx"), (2, says("app.tsx", "no version of Node runs .tsx files")));
    assert_eq!(dir.starts("node --import ts-loader app.ts")[3], "app.ts");
    dir.script("bin/node", "#!/bin/sh\necho v24.0.0\n");
    assert_eq!(dir.starts("app.ts x"), ["node", "app.ts", "x"]);
    assert_eq!(dir.refuses("app.tsx").0, 2);
    dir.script("bin/node", "#!/bin/sh\necho v22.17.9\n");
    dir.file("node_modules/tsx/package.json", r#"{"exports": {".": "./dist/loader.mjs"}}"#);
    assert_eq!(dir.starts("app.ts"), ["node", "--import", "tsx", "app.ts"]);
    assert_eq!(
        dir.starts("node --inspect app.mts"),
        ["node", "--inspect", "--import", "tsx", "app.mts"]
    );
    // If the working directory has none, the script's own is named.
    dir.file("deep/app.ts", "");
    fs::rename(dir.0.join("node_modules"), dir.0.join("deep/node_modules")).unwrap();
    let url = format!("file://{}/deep/node_modules/tsx/dist/loader.mjs", dir.0.display());
    assert_eq!(dir.starts("deep/app.ts"), ["node", "--import", &url, "deep/app.ts"]);
    dir.script("bin/node", "#!/bin/sh\nexit 1\n");
    let (code, words) = dir.refuses("app.ts");
    assert!(code == 2 && words.contains("--version gives no version"), "{words}");
}
