//! What is started for what is asked, in directories made for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A directory of a test; gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("roundel-program-{}-{count}", std::process::id());
        let dir = std::env::temp_dir().canonicalize().unwrap().join(name);
        fs::create_dir_all(dir.join("bin")).unwrap();
        let dir = Dir(dir);
        // As long as nothing runs it, it need not be Node.
        dir.script("bin/node", "#!/bin/sh\necho v20.1.2\n");
        dir
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn package(&self, scripts: &[(&str, &str)]) {
        let scripts: serde_json::Map<_, _> =
            scripts.iter().map(|(name, line)| ((*name).into(), (*line).into())).collect();
        let json = serde_json::json!({"name": "shop", "version": "1.2.3", "scripts": scripts,
            "config": {"port": 8080}});
        self.file("package.json", &json.to_string());
    }

    fn resolve_with(&self, line: &[&str], variables: &[(&str, &str)]) -> Result<Resolved, Refusal> {
        let path = (OsString::from("PATH"), self.0.join("bin").into_os_string());
        let more = variables.iter().map(|(name, value)| (name.into(), value.into()));
        let variables = std::iter::once(path).chain(more).collect();
        let around = Surroundings { cwd: self.0.clone(), variables };
        resolve(line.iter().map(OsString::from).collect(), around)
    }

    fn resolve(&self, line: &str) -> Result<Resolved, Refusal> {
        self.resolve_with(&line.split_whitespace().collect::<Vec<_>>(), &[])
    }

    /// The words that are executed, the first as the program sees it.
    fn starts(&self, line: &str) -> Vec<String> {
        let program = self.resolve(line).unwrap_or_else(|it| panic!("{line}: {it:?}")).program;
        let words = program.argv0.into_iter().chain(program.args);
        words.map(|word| word.into_string().unwrap()).collect()
    }

    /// The line that refuses it, with the directory as `DIR`.
    fn refuses(&self, line: &str) -> (u8, String) {
        let refusal = self.resolve(line).map(|it| it.program).expect_err(line);
        assert!(!refusal.words.contains('\n'), "{refusal:?}");
        (refusal.exit.code(), refusal.words.replace(self.0.to_str().unwrap(), "DIR"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn value<'a>(resolved: &'a Resolved, name: &str) -> Option<&'a str> {
    let all = resolved.program.env.iter().rev();
    all.into_iter().find(|(other, _)| other == name).and_then(|(_, value)| value.to_str())
}

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
fn what_is_not_there_is_named() {
    let dir = Dir::new();
    dir.file("real.js", "");
    for (line, says) in [
        ("nothing", "nothing: not found in PATH"),
        ("./nothing", "./nothing: no such program"),
        ("/no/such x", "/no/such: no such program"),
        ("gone.js", "gone.js: no such file"),
        ("node gone.js", "gone.js: no such file"),
        ("node --inspect gone", "gone: no such file"),
        ("node -r ./gone real.js", "./gone: no such file (node -r)"),
        ("node --import=./gone.mjs real.js", "./gone.mjs: no such file (node --import)"),
    ] {
        assert_eq!(dir.refuses(line), (127, says.into()), "{line}");
    }
    std::os::unix::fs::symlink("/no/such", dir.0.join("link")).unwrap();
    let says = "./link: no such program: it is a link to /no/such, which does not exist";
    assert_eq!(dir.refuses("./link"), (127, says.into()));
    fs::remove_file(dir.0.join("bin/node")).unwrap();
    let says = "node: not found in PATH, which is to run real.js";
    assert_eq!(dir.refuses("real.js"), (127, says.into()));
    let empty = dir.resolve_with(&["node", "real.js"], &[("PATH", "")]).unwrap_err();
    assert_eq!(empty.words, "node: not found: PATH is empty");
}

#[test]
fn what_node_would_find_is_not_missed() {
    let dir = Dir::new();
    dir.file("a.js", "");
    dir.file("dir/index.js", "");
    dir.file("only.ts", "");
    for line in [
        "node a",
        "node dir",
        "node -e code",
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
fn what_cannot_be_executed_is_named() {
    let dir = Dir::new();
    dir.file("plain", "#!/bin/sh\n");
    dir.script("text", "echo hello\n");
    dir.script("lost", "#!/no/such/thing -x\n");
    dir.script("cr", "#!/bin/sh\r\n");
    dir.script("env", "#!/usr/bin/env no-such-language\n");
    dir.script("dirs", "#!/tmp\n");
    for (line, code, says) in [
        ("./plain", 126, "./plain: is not executable (chmod +x, or name the program that runs it)"),
        ("./bin", 126, "./bin: is a directory, not a program"),
        ("/", 126, "/: is a directory, not a program"),
        ("./plain/", 126, "./plain/: cannot be executed: Not a directory"),
        (
            "./text",
            126,
            "DIR/./text: is neither a binary nor a script that names its interpreter \
             (#!/bin/sh as the first line)",
        ),
        ("./lost", 127, "DIR/./lost: its interpreter /no/such/thing does not exist"),
        (
            "./cr",
            127,
            "DIR/./cr: its first line ends with a carriage return, so its interpreter is not found",
        ),
        ("./env", 127, "DIR/./env: its interpreter no-such-language is not found in PATH"),
        ("./dirs", 126, "DIR/./dirs: its interpreter /tmp cannot be executed"),
        ("/dev/null", 126, "/dev/null: is no regular file"),
    ] {
        assert_eq!(dir.refuses(line), (code, says.into()), "{line}");
    }
    // A name that is barred in one directory may be fine in the next.
    dir.file("other/tool", "");
    dir.script("bin/tool", "#!/bin/sh\n");
    let path = format!("{}:{}", dir.0.join("other").display(), dir.0.join("bin").display());
    let found = dir.resolve_with(&["tool"], &[("PATH", &path)]).unwrap();
    assert_eq!(found.program.path, dir.0.join("bin/tool"));
    let path = dir.0.join("other").into_os_string().into_string().unwrap();
    let barred = dir.resolve_with(&["tool"], &[("PATH", &path)]).unwrap_err();
    assert_eq!(barred.exit, Exit::NotExecutable);
}

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
        "npm start: runs node server.js --port 1 of DIR/package.json directly\n\
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
    let around = Surroundings { cwd: dir.0.join("deep/er"), variables };
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
    // What npm does without the script.
    dir.file("package.json", "{}");
    dir.file("server.js", "");
    assert_eq!(dir.starts("npm start"), ["node", "server.js"]);
}

#[test]
fn what_a_manager_cannot_start_is_refused() {
    let dir = Dir::new();
    let (code, words) = dir.refuses("npm start");
    assert_eq!((code, &*words), (2, "npm start: there is no package.json in DIR or above it"));
    dir.file("node_modules/.bin/next", "");
    dir.package(&[
        ("start", "tsc && node dist/app.js"),
        ("next", "A=b tsc; C=d next start"),
        ("piped", "node app.js | pino"),
        ("loop", "npm run loop"),
        ("empty", "A=b"),
        ("watch", "nodemon app.js"),
    ]);
    for (line, says) in [
        (
            "npm start",
            "npm start: the script \"start\" needs a shell (&&), through which no channel reaches \
             Node; run what comes before it first, then: roundel run node dist/app.js",
        ),
        (
            "npm run next",
            "npm run next: the script \"next\" needs a shell (;), through which no channel reaches \
             Node; run what comes before it first, then: C=d roundel run npx next start",
        ),
        (
            "yarn piped",
            "yarn piped: the script \"piped\" needs a shell (|), through which no channel reaches \
             Node; type it behind roundel run in a shell: roundel run node app.js | pino",
        ),
        (
            "pnpm run gone",
            "pnpm run gone: no script \"gone\" in DIR/package.json: it has empty, loop, next, piped, \
             start, watch",
        ),
        ("npm run loop", "npm run loop: starts itself again and again"),
        ("npm run empty", "npm run empty: the script \"empty\" runs no program: \"A=b\""),
        ("npm run", "npm run: the name of a script is missing"),
        ("npm install", "npm: starts no program: npm start, npm run NAME or npm exec NAME"),
        (
            "npm start --port 1",
            "npm start: --port is npm's own; what is the script's stands behind --",
        ),
        (
            "npm -w shop start",
            "npm: -w can't be followed here; run the program itself, in its directory",
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
        "gone: not found in PATH: npx would download it: install it first (npm install gone)";
    assert_eq!(dir.refuses("npx gone"), (127, says.into()));
    assert_eq!(dir.refuses("npx serve@2").0, 2);
}

#[test]
fn variables_are_set_without_who_sets_them() {
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
    // It is itself what runs, then.
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
    let via = "starts what it runs as a process of its own, which no channel reaches";
    for (line, says) in [
        ("npx tsx app.ts -x", format!("tsx: {via}; run: roundel run node --import tsx app.ts -x")),
        ("node_modules/.bin/tsx watch --clear-screen=false app.ts", format!("tsx: {via}; run: roundel run node --import tsx app.ts")),
        ("npm start", format!("tsx: {via}; run: roundel run node --import tsx app.ts")),
        ("node node_modules/tsx/dist/cli.mjs app.ts", format!("tsx: {via}; run: roundel run node --import tsx app.ts")),
        ("npx nodemon --watch src app.js 1", format!("nodemon: {via}; run: roundel run node app.js 1")),
        ("npx nodemon", format!("nodemon: {via}; run: roundel run node SCRIPT")),
        ("npx ts-node-dev --respawn app.ts", format!("ts-node-dev: {via}; run: roundel run node --import tsx app.ts")),
        ("npx dotenv -e .env.prod -- node app.js", format!("dotenv: {via}; run: roundel run node --env-file=.env.prod app.js")),
        ("npx concurrently a b", format!("concurrently: {via}; start each server with a primary of its own: roundel run node SCRIPT")),
        ("npx pm2 start app.js", "pm2: restarts what it runs, as roundel does itself; run: roundel run node app.js".into()),
        ("npx ts-node --esm app.ts", format!("ts-node-esm: {via}; run: roundel run node --import tsx app.ts")),
        ("node --max-old-space-size=9 --watch-path=src app.js x", "node --watch: starts Node anew as a process of its own, which no channel reaches; run: roundel run node --max-old-space-size=9 app.js x".into()),
        ("node --watch app.js", "node --watch: starts Node anew as a process of its own, which no channel reaches; run: roundel run node app.js".into()),
        ("node inspect app.js", "node inspect: starts Node as a process of its own, which no channel reaches; run: roundel run node --inspect app.js".into()),
    ] {
        assert_eq!(dir.refuses(line), (2, says), "{line}");
    }
    // Within one process.
    dir.starts("npx ts-node app.ts");
    // A program of that name that is no script is somebody's own.
    fs::copy("/proc/self/exe", dir.0.join("supervisor")).unwrap();
    dir.starts("./supervisor");
    dir.script("forever", "#!/bin/sh\n");
    dir.starts("./forever app.js");
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
    let old = "Node strips types from 22.18 on";
    for name in ["app.ts", "app.mts", "app.cts"] {
        assert_eq!(dir.refuses(name), (2, says(name, old)));
    }
    assert_eq!(dir.refuses("node app.ts"), (2, says("app.ts", old)));
    assert_eq!(dir.refuses("app.tsx"), (2, says("app.tsx", "no Node runs it by itself")));
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
    // Where the working directory has none, the script's is named.
    dir.file("deep/app.ts", "");
    fs::rename(dir.0.join("node_modules"), dir.0.join("deep/node_modules")).unwrap();
    let url = format!("file://{}/deep/node_modules/tsx/dist/loader.mjs", dir.0.display());
    assert_eq!(dir.starts("deep/app.ts"), ["node", "--import", &url, "deep/app.ts"]);
    dir.script("bin/node", "#!/bin/sh\nexit 1\n");
    let (code, words) = dir.refuses("app.ts");
    assert!(code == 2 && words.contains("--version tells nothing"), "{words}");
}
