//! Programs that start Node instead of being it.

use nix::sys::signal::Signal;
use roundel_tests::programs::optional::full_matrix;

use crate::client::*;
use crate::harness::*;

/// Two workers that are a shell which starts Node.
fn behind_a_shell() -> Option<Cluster> {
    if beyond_node("it starts Node itself") {
        return None;
    }
    let script = format!("node {} & wait", fixture_path("http.js").display());
    Some(fixture("http.js")?.program(&["sh", "-c", &script]).start())
}

#[test]
fn a_shell_that_starts_node() {
    let Some(cluster) = behind_a_shell() else { return };
    let addr = cluster.addr(0);
    let answers: Vec<Answer> = (0..20).map(|_| get(addr, "/")).collect();
    let pids: Vec<i32> = spread(&answers).into_keys().collect();
    assert_even(&spread(&answers), &pids, 10);
    assert_eq!(pids.len(), 2);
    cluster.stop();
}

/// Node lives on with the channel; the primary ends it by that.
#[test]
fn a_shell_that_is_killed_leaves_nothing() {
    let Some(cluster) = behind_a_shell() else { return };
    let (shell, addr) = (cluster.ready(2)[0], cluster.addr(0));
    let before = cluster.processes().len();
    signal(shell, Signal::SIGKILL);
    let answers = plain_load(&[addr], 2, 200);
    let exited = cluster.exit_of(shell);
    // Node ends at once when its channel does; what it had accepted until then is lost with it.
    let lost: Vec<&Answer> = answers.iter().filter(|it| !matches!(it, Answer::Ok { .. })).collect();
    let accepted = cluster.events("accepted");
    let accepted = accepted.iter().filter(|it| it["worker"] == exited["worker"]).count();
    assert!(
        lost.len() <= accepted.min(2),
        "{lost:?}, {accepted} accepted by the one that was killed"
    );
    cluster.ready(2);
    eventually("as many processes as before", || {
        (cluster.processes().len() == before).then_some(())
    });
    cluster.stop();
}

/// What a worker has started in its process group ends with it, also where it does not mind
/// SIGTERM.
#[test]
fn helpers_end_with_their_worker() {
    if beyond_node("it ends no groups") {
        return;
    }
    for helper in ["sleep 1000", "(trap '' TERM; exec sleep 1000)"] {
        let Some(setup) = fixture("http.js") else { return };
        let script = format!("{helper} & exec node {}", fixture_path("http.js").display());
        let cluster = setup.program(&["sh", "-c", &script]).start();
        let first = cluster.ready(2)[0];
        eventually("workers and helpers", || (cluster.processes().len() == 5).then_some(()));
        let before = cluster.processes();
        signal(first, Signal::SIGKILL);
        cluster.exit_of(first);
        eventually("a worker with its helper in place of the first ones", || {
            let now = cluster.processes();
            let stayed = now.iter().filter(|pid| before.contains(pid)).count();
            (now.len() == 5 && stayed == 3).then_some(())
        });
        cluster.stop();
    }
}

/// The Node versions that starting depends on: what `NODE` says, or these from the cache.
fn on_versions(check: impl Fn(Setup)) {
    let wanted = match std::env::var_os("NODE") {
        Some(_) => vec![node()],
        None => match full_matrix() {
            true => [20, 24, 26].map(version).into(),
            false => versions(),
        },
    };
    for version in wanted {
        let Some(version) = version else { return };
        let Some(modules) = cached("packages/node_modules") else { return };
        let Some(setup) = fixture("http.js") else { return };
        let setup = setup.on(version);
        std::os::unix::fs::symlink(modules, setup.dir.join("node_modules")).unwrap();
        for name in ["http.js", "app.ts"] {
            std::fs::copy(fixture_path(name), setup.dir.join(name)).unwrap();
        }
        let dir = setup.dir.clone();
        check(setup);
        // It may have gone with its cluster.
        let _ = std::fs::remove_dir_all(dir);
    }
}

fn serves(cluster: Cluster) -> Answer {
    let pids = cluster.ready(2);
    let answers: Vec<Answer> = (0..10).map(|_| get(cluster.addr(0), "/env")).collect();
    assert_even(&spread(&answers), &pids, 5);
    cluster.stop();
    answers[0].clone()
}

/// What a primary says that refuses to start.
fn refused(setup: Setup) -> String {
    let mut cluster = setup.start_without_waiting();
    assert_eq!(cluster.wait(), 2, "{}", cluster.output());
    let said = cluster.output();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// Each manager tells a program the same when it starts it and when the primary does in its place.
#[test]
fn programs_of_package_managers_are_started_directly() {
    if beyond_node("it starts Node itself") {
        return;
    }
    on_versions(|setup| {
        let dir = setup.dir.clone();
        let package = serde_json::json!({"name": "shop", "version": "1.2.3",
            "config": {"size": 7}, "scripts": {
            "start": "MODE=x node told.js one 'two three'", "web": "node http.js"}});
        std::fs::write(dir.join("package.json"), package.to_string()).unwrap();
        let told = "const names = ['MODE', 'npm_lifecycle_event', 'npm_package_name', \
            'npm_package_version'];
            const told = [process.argv.slice(2), process.cwd(), names.map((it) => process.env[it]), \
            process.env.PATH.split(':').includes(process.cwd() + '/node_modules/.bin')];
            require('fs').writeFileSync(process.env.TOLD, JSON.stringify(told));
            if (require('cluster').isWorker) require('./http.js');";
        std::fs::write(dir.join("told.js"), told).unwrap();
        let bin = dir.join("node_modules/.bin");
        for line in [
            "npm start",
            "npm run start -- -x y",
            "npm start y",
            "pnpm start -x y",
            "pnpm run start",
            "yarn start -x y",
            "yarn run start",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let (theirs, ours) = (dir.join("theirs"), dir.join("ours"));
            let mut command = std::process::Command::new(match words[0] {
                "npm" => "npm".into(),
                other => bin.join(other),
            });
            // The version that runs a manager is none of its script's business.
            command.args(&words[1..]).current_dir(&dir).env("TOLD", &theirs).env("CI", "1");
            let output = command.env_remove("NODE_UNIQUE_ID").output();
            let Ok(output) = output else { return skip("no npm") };
            assert!(output.status.success(), "{line}: {output:?}");
            let Some(again) = fixture("http.js") else { return };
            let again = again.on(setup.node.clone()).program(&words).within(&dir).workers(1);
            let cluster = again.variable("TOLD", &ours).start();
            let read = |path: &std::path::Path| -> serde_json::Value {
                serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
            };
            let (theirs, ours) = (read(&theirs), read(&ours));
            assert_eq!(ours, theirs, "{line}");
            eventually("what is said of it", || {
                cluster.output().contains("runs node told.js one 'two three'").then_some(())
            });
            cluster.stop();
        }
        let setup = setup.program(&["npx", "cross-env", "A=b", "npm", "run", "web"]).within(&dir);
        let environment = serves(setup.start()).more().to_owned();
        let environment: serde_json::Value = serde_json::from_str(&environment).unwrap();
        assert_eq!(environment["A"], "b");
        assert_eq!(environment["npm_package_config_size"], "7");
    });
}

/// The form that a launcher's refusal names is one that serves.
#[test]
fn the_form_that_is_named_works() {
    if beyond_node("it runs scripts of Node only") {
        return;
    }
    on_versions(|setup| {
        let dir = setup.dir.clone();
        let node = setup.node.clone();
        let again = || fixture("http.js").unwrap().on(node.clone()).within(&dir);
        for line in ["npx tsx app.ts", "node_modules/.bin/tsx watch app.ts", "node --watch http.js"]
        {
            let words: Vec<&str> = line.split(' ').collect();
            let said = refused(again().program(&words));
            let form = said.trim_end().split_once("run: roundel run ").unwrap().1.to_owned();
            let words: Vec<&str> = form.split(' ').collect();
            println!("{line}: {form}");
            serves(again().program(&words).start());
        }
        // Either Node knows types, or tsx is there.
        let cluster = setup.program(&["app.ts"]).within(&dir);
        serves(cluster.start());
    });
}

/// tsx listens on a pipe for what it starts. That is no serving.
#[test]
fn a_pipe_of_a_launcher_is_no_readiness() {
    if beyond_node("it takes it for serving") {
        return;
    }
    on_versions(|setup| {
        let dir = setup.dir.clone();
        // A shell hides it.
        let setup = setup.program(&["sh", "-c", "exec node_modules/.bin/tsx app.ts"]);
        let setup = setup.within(&dir).workers(1).options(&["--ready-timeout", "2s"]);
        let cluster = setup.start_without_waiting();
        let pipe = cluster.bound(0);
        assert!(pipe.starts_with("unix:/") && pipe.contains("/tsx-"), "{pipe}");
        cluster.event("not_listening", |_| true);
        assert_eq!((cluster.count("ready"), cluster.count("killing")), (0, 0));
        eventually("what is said of it", || {
            cluster.output().contains("launchers such as npm, tsx or nodemon").then_some(())
        });
    });
}

/// A program with such a pipe of its own serves once it listens for clients.
#[test]
fn a_pipe_beside_a_server_changes_nothing() {
    let Some(setup) = fixture("http.js") else { return };
    let program = setup.dir.join("both.js");
    let tmp = std::env::temp_dir().canonicalize().unwrap();
    let text = format!(
        "const pipe = require('net').createServer();
         pipe.listen('{}/both-' + process.pid + '.sock', () => require('{}'));",
        tmp.display(),
        fixture_path("http.js").display()
    );
    std::fs::write(&program, text).unwrap();
    let cluster = setup.program(&[program.to_str().unwrap()]).start();
    let address =
        cluster.event("bound", |it| !it["address"].as_str().unwrap().starts_with("unix:"));
    let addr = reachable(address["address"].as_str().unwrap());
    let answers: Vec<Answer> = (0..10).map(|_| get(addr, "/")).collect();
    assert_even(&spread(&answers), &cluster.ready(2), 5);
    cluster.stop();
}

/// Two ports beside each other that are free.
fn free_ports() -> u16 {
    eventually("two ports", || {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        std::net::TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok()?;
        Some(port)
    })
}

/// Waits until this process listens on a port (proc(5), `net/tcp`).
fn listens(pid: i32, port: u16) {
    eventually("the debugger", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let local = format!(":{port:04X}");
        let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = line.into_iter().find(|it| it[1].ends_with(&local) && it[3] == "0A")?;
        let socket = format!("socket:[{}]", line[9]);
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut links = open.filter_map(|it| std::fs::read_link(it.path()).ok());
        links.any(|link| link.as_os_str() == socket.as_str()).then_some(())
    });
}

#[test]
fn each_slot_has_a_debugger_of_its_own() {
    if beyond_node("it has the first port for itself") {
        return;
    }
    on_versions(|setup| {
        let dir = setup.dir.clone();
        let node = setup.node.clone();
        for in_environment in [false, true] {
            let port = free_ports();
            let option = format!("--inspect={port}");
            let again = fixture("http.js").unwrap().on(node.clone()).within(&dir);
            let again = match in_environment {
                true => again.program(&["http.js"]).variable("NODE_OPTIONS", &option),
                false => again.program(&["node", &option, "http.js"]),
            };
            let cluster = again.start();
            let pid_of = |slot: i32| {
                let spawned = cluster.events("spawned");
                let last = spawned.into_iter().rfind(|it| it["slot"] == slot).unwrap();
                last["pid"].as_i64().unwrap() as i32
            };
            cluster.ready(2);
            listens(pid_of(0), port);
            listens(pid_of(1), port + 1);
            let first = pid_of(1);
            signal(first, Signal::SIGKILL);
            cluster.exit_of(first);
            cluster.ready(2);
            // The slot has the same one again.
            listens(pid_of(1), port + 1);
            assert_ne!(pid_of(1), first);
            cluster.stop();
        }
    });
}
