//! Scripts and commands that a package manager would start.

use super::*;

#[test]
fn scripts_of_a_package_are_run_directly() {
    let dir = Dir::new();
    dir.package(&[
        ("start", "NODE_ENV=production node server.js --port 1"),
        ("prestart", "tsc"),
        ("web", "node 'web server.js'"),
        ("again", "npm run web"),
        ("poststart", "true"),
    ]);
    dir.file("server.js", "");
    dir.file("web server.js", "");
    let expected = ["node", "server.js", "--port", "1"];
    for line in [
        "npm start",
        "pnpm start",
        "yarn start",
        "npm run start",
        "npm run-script start",
        "pnpm run start",
        "yarn run start",
        "node --run start",
        "node --run=start",
        "yarn run start --",
        "corepack yarn start",
        "npm -s start",
        "npm start --silent",
    ] {
        assert_eq!(dir.starts(line), expected, "{line}");
    }
    for (line, more) in [
        ("npm start -- --x y", &["--x", "y"][..]),
        ("npm start y", &["y"]),
        ("npm run start y -- --x", &["y", "--x"]),
        ("yarn start --x y", &["--x", "y"]),
        ("pnpm run start --x", &["--x"]),
        ("node --run start -- --x", &["--x"]),
    ] {
        assert_eq!(dir.starts(line), [&expected, more].concat(), "{line}");
    }
    assert_eq!(dir.starts("npm run web"), ["node", "web server.js"]);
    assert_eq!(dir.starts("npm run again"), ["node", "web server.js"]);
    let resolved = dir.resolve("npm start").unwrap();
    assert_eq!(value(&resolved, "NODE_ENV"), Some("production"));
    assert_eq!(value(&resolved, "npm_lifecycle_event"), Some("start"));
    assert_eq!(value(&resolved, "npm_package_name"), Some("shop"));
    assert_eq!(value(&resolved, "npm_package_version"), Some("1.2.3"));
    assert_eq!(value(&resolved, "npm_package_config_port"), Some("8080"));
    let bins = dir.0.join("node_modules/.bin").into_os_string().into_string().unwrap();
    assert!(value(&resolved, "PATH").unwrap().starts_with(&bins));
    let hooks: Vec<&str> = resolved.hooks.iter().map(|hook| hook.name.as_str()).collect();
    assert_eq!(hooks, ["prestart"]);
    let said = resolved.notes.join("\n").replace(dir.0.to_str().unwrap(), "DIR");
    assert_eq!(
        said,
        "npm start: runs node server.js --port 1 from DIR/package.json directly\n\
         npm start: the script \"poststart\" is not run"
    );
    assert!(dir.resolve("node --run start").unwrap().hooks.is_empty());
}

#[test]
fn a_package_is_found_where_the_manager_finds_it() {
    let dir = Dir::new();
    dir.package(&[("start", "node x.js")]);
    dir.file("x.js", "");
    dir.file("deep/er/.keep", "");
    let path = [("PATH", dir.0.join("bin").into_os_string().into_string().unwrap())];
    let variables = path.iter().map(|(n, v)| (n.into(), v.into())).collect();
    let around = Surroundings::new(dir.0.join("deep/er"), variables);
    let resolved = resolve(vec!["npm".into(), "start".into()], around).unwrap();
    assert_eq!(resolved.program.cwd.as_deref(), Some(&*dir.0));
    fs::rename(dir.0.join("package.json"), dir.0.join("deep/package.json")).unwrap();
    dir.file("deep/x.js", "");
    for line in [
        "npm --prefix deep start",
        "npm start --prefix deep",
        "npm run --prefix=deep start",
        "npm -C deep start",
        "pnpm -C deep start",
        "pnpm --dir deep run start",
        "yarn --cwd deep start",
    ] {
        let resolved = dir.resolve(line).unwrap_or_else(|it| panic!("{line}: {it:?}"));
        assert_eq!(resolved.program.cwd, Some(dir.0.join("deep")), "{line}");
    }
    // What npm does if there is no such script.
    dir.file("package.json", "{}");
    dir.file("server.js", "");
    assert_eq!(dir.starts("npm start"), ["node", "server.js"]);
}

#[test]
fn scripts_that_cannot_run_directly_are_refused() {
    let dir = Dir::new();
    let (code, words) = dir.refuses("npm start");
    assert_eq!((code, &*words), (2, "npm start: there is no package.json in DIR or its parents"));
    dir.file("node_modules/.bin/next", "");
    dir.package(&[
        ("start", "tsc && node dist/app.js"),
        ("next", "A=b tsc; C=d next start"),
        ("piped", "node app.js | pino"),
        ("told", "A=b node app.js && echo done; true"),
        ("loop", "npm run loop"),
        ("empty", "A=b"),
        ("watch", "nodemon app.js"),
    ]);
    for (line, says) in [
        (
            "npm start",
            "npm start: the script \"start\" needs a shell (&&), which does not pass the channel \
             on to Node; run the commands before it first, then: roundel run node dist/app.js",
        ),
        (
            "npm run next",
            "npm run next: the script \"next\" needs a shell (;), which does not pass the channel \
             on to Node; run the commands before it first, then: C=d roundel run npx next start",
        ),
        (
            "npm run told",
            "npm run told: the script \"told\" needs a shell (&&), which does not pass the channel \
             on to Node; run the commands before it first, then: A=b roundel run node app.js",
        ),
        (
            "yarn piped",
            "yarn piped: the script \"piped\" needs a shell (|), which does not pass the channel \
             on to Node; type in a shell: roundel run node app.js | pino",
        ),
        (
            "pnpm run gone",
            "pnpm run gone: no script \"gone\" in DIR/package.json: its scripts are empty, loop, next, \
             piped, start, told, watch",
        ),
        ("npm run loop", "npm run loop: starts itself in an endless loop"),
        ("npm run empty", "npm run empty: the script \"empty\" runs no program: \"A=b\""),
        ("npm run", "npm run: the name of a script is missing"),
        (
            "npm install",
            "npm: does not start a program; use npm start, npm run NAME or npm exec NAME",
        ),
        (
            "npm start --port 1",
            "npm start: --port is an option for npm; put the script's own options after --",
        ),
        (
            "npm -w shop start",
            "npm: -w is not supported here; run the program itself, in its directory",
        ),
        ("npx", "npx: the name of a program is missing"),
    ] {
        assert_eq!(dir.refuses(line), (2, says.into()), "{line}");
    }
    dir.file("package.json", "{ not json");
    let (code, words) = dir.refuses("npm start");
    assert!(code == 2 && words.starts_with("npm start: DIR/package.json: "), "{words}");
}

#[test]
fn commands_of_installed_packages_are_run_directly() {
    let dir = Dir::new();
    dir.script("node_modules/.bin/serve", "#!/usr/bin/env node\n");
    dir.script("node_modules/@scope/tool/cli.js", "#!/usr/bin/env node\n");
    dir.file("node_modules/@scope/tool/package.json", r#"{"bin": {"other": "./cli.js"}}"#);
    dir.package(&[]);
    for line in [
        "npx serve -p 1",
        "npx -y serve -p 1",
        "npm exec serve -- -p 1",
        "npm exec -- serve -p 1",
        "pnpm exec serve -p 1",
        "pnpm serve -p 1",
        "yarn serve -p 1",
        "yarn run serve -p 1",
        "pnpx serve -p 1",
    ] {
        let resolved = dir.resolve(line).unwrap_or_else(|it| panic!("{line}: {it:?}"));
        assert_eq!(resolved.program.path, dir.0.join("node_modules/.bin/serve"), "{line}");
        assert_eq!(resolved.program.args, ["-p", "1"], "{line}");
    }
    let scoped = dir.resolve("npx @scope/tool").unwrap();
    assert_eq!(scoped.program.args, [dir.0.join("node_modules/@scope/tool/cli.js")]);
    let says =
        "gone: not found in PATH: npx would download it; install it first (npm install gone)";
    assert_eq!(dir.refuses("npx gone"), (127, says.into()));
    assert_eq!(dir.refuses("npx serve@2").0, 2);
}
