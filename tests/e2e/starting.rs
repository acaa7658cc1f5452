//! What a primary makes of the program that it is to run, and what its workers are started with.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::pty::openpty;

use crate::cells::{on_all, on_both};
use crate::harness::*;
use crate::pair::{Adapter, Pair};

on_all! {
    workers_may_print_to_a_terminal_that_stops_background_jobs,
}

on_both! {
    "no worker ever runs", one listener "nobody listens":
    a_program_that_cannot_run_is_named_at_once,
    one_that_cannot_be_loaded_is_named_at_once,
    launchers_are_told_from_programs,
    without_a_thread_nothing_starts,
}

on_both! {
    "the worker is a shell", one listener "the worker listens to nothing":
    the_slot_has_the_name_that_it_is_given,
    descriptors_above_two_are_inherited,
    a_script_of_a_package_is_run_directly,
}

on_both! {
    "no matter what the workers are":
    a_primary_says_its_own_name,
}

on_both! {
    "no matter what the workers are", one listener "the listener is given":
    standard_input_may_be_what_is_listened_on,
    an_interface_may_be_named,
}

/// Runs a primary to its end; its exit code and what it says.
fn refusal(on: Pair, dir: &Path, program: &[&str]) -> (i32, String) {
    let mut command = Command::new(on.binary());
    command.current_dir(dir).args(["run", "-w", "2", "--control"]).arg(dir.join("control"));
    command.arg("--events").arg(dir.join("events")).args(program);
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn name_of(on: Pair) -> String {
    on.binary().file_name().unwrap().to_str().unwrap().to_owned()
}

fn a_program_that_cannot_run_is_named_at_once(on: Pair) {
    let dir = temp_dir();
    fs::write(dir.join("plain"), "#!/bin/sh\n").unwrap();
    script(&dir.join("text"), "no shebang\n");
    script(&dir.join("lost"), "#!/no/such\n");
    script(&dir.join("ok"), "#!/bin/sh\n");
    symlink("/no/such", dir.join("link")).unwrap();
    for (program, code, named) in [
        (&["./plain"][..], 126, "./plain: is not executable"),
        (&["."], 126, ".: is a directory"),
        (&["ok"], 127, "ok: not found in PATH (to run the one in this directory: ./ok)"),
        (&["./"], 126, "./: is a directory"),
        (&["/tmp"], 126, "/tmp: is a directory"),
        (&["./ok/"], 126, "./ok/: cannot be executed: Not a directory"),
        (&["./text"], 126, "text: is neither a binary nor a script"),
        (&["./lost"], 127, "lost: its interpreter /no/such does not exist"),
        (&["./link"], 127, "./link: no such program: it is a link to /no/such"),
        (&["./gone"], 127, "./gone: no such program"),
        (&["no-program-has-this-name"], 127, "no-program-has-this-name: not found in PATH"),
        (&["gone.js"], 127, "gone.js: no such file"),
        (&["node", "gone.js"], 127, "gone.js: no such file"),
        (&["node", "-r", "./gone", "-e", "1", "x"], 127, "./gone: no such file"),
    ] {
        // Without Node the line names that.
        if program.join(" ").contains(".js") && roundel_tests::programs::optional::node().is_none()
        {
            continue;
        }
        let (exit, said) = refusal(on, &dir, program);
        assert_eq!(exit, code, "{program:?}: {said}");
        assert!(said.starts_with(&format!("{}: ", name_of(on))), "{said}");
        assert!(said.contains(named) && said.lines().count() == 1, "{program:?}: {said}");
        // At once: nothing was started, so nothing was logged.
        assert!(!dir.join("events").exists(), "{program:?}");
    }
    let mut command = Command::new(on.binary());
    command.args(["run", "node", "x.js"]).env("PATH", "").stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(127), "{said}");
    assert!(said.contains("node: not found: PATH is empty"), "{said}");
    fs::remove_dir_all(dir).unwrap();
}

/// What only the kernel finds out: a binary whose loader is missing.
fn one_that_cannot_be_loaded_is_named_at_once(on: Pair) {
    let dir = temp_dir();
    let own = fs::read(on.binary()).unwrap();
    let loader = b"/ld-linux";
    let Some(at) = own.windows(loader.len()).position(|bytes| bytes == loader) else {
        return crate::cells::pass_over("the binary has no loader of the C library");
    };
    let mut bytes = own;
    bytes[at + 1] = b'X';
    let program = dir.join("program");
    fs::write(&program, bytes).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let (exit, said) = refusal(on, &dir, &["./program"]);
    assert_eq!(exit, 127, "{said}");
    assert!(said.contains("program: its interpreter or loader does not exist"), "{said}");
    let events = fs::read_to_string(dir.join("events")).unwrap();
    assert!(!events.contains("respawn_delayed"), "{events}");
    fs::remove_dir_all(dir).unwrap();
}

fn launchers_are_told_from_programs(on: Pair) {
    let dir = temp_dir();
    let bin = dir.join("node_modules/.bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["tsx", "nodemon"] {
        script(&bin.join(name), "#!/bin/sh\nexit 1\n");
    }
    let scripts = r#"{"scripts": {"start": "npx tsx app.ts", "build": "tsc && node app.js"}}"#;
    fs::write(dir.join("package.json"), scripts).unwrap();
    for (program, works) in [
        (&["npx", "tsx", "app.ts"][..], "run: roundel run node --import tsx app.ts"),
        (&["npm", "start"], "run: roundel run node --import tsx app.ts"),
        (&["node_modules/.bin/nodemon", "app.js"], "run: roundel run node app.js"),
        (&["npm", "run", "build"], "then: roundel run node app.js"),
        (&["yarn", "gone"], "no script \"gone\""),
    ] {
        let (exit, said) = refusal(on, &dir, program);
        assert_eq!((exit, said.lines().last().unwrap().contains(works)), (2, true), "{said}");
        assert!(!dir.join("events").exists(), "{program:?}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// A shell that notes its environment, by its slot, and becomes a demo worker.
fn noting(on: Pair, dir: &Path, note: &str) -> Vec<String> {
    let script = format!("{note} >>'{}'/$ROUNDEL_SLOT; exec \"$@\"", dir.display());
    let shell = ["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()];
    shell.into_iter().chain(on.demo_worker()).collect()
}

fn the_slot_has_the_name_that_it_is_given(on: Pair) {
    let dir = temp_dir();
    let program = noting(on, &dir, "env");
    let environment = |slot: usize| fs::read_to_string(dir.join(slot.to_string())).unwrap();
    let cluster = on.run(&["-w", "2", "--instance-var", "MY_NUMBER"], &program);
    let first = cluster.ready(2)[0];
    for slot in 0..2 {
        let line = format!("\nMY_NUMBER={slot}\n");
        assert!(format!("\n{}", environment(slot)).contains(&line), "{}", environment(slot));
        assert!(!environment(slot).contains("NODE_APP_INSTANCE"));
    }
    // The next one of a slot has the same number.
    let slot = cluster.status()["workers"].as_array().unwrap().iter().find_map(|worker| {
        (worker["pid"] == first).then(|| worker["slot"].as_u64().unwrap() as usize)
    });
    let slot = slot.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::SIGKILL).unwrap();
    let line = format!("MY_NUMBER={slot}\n");
    wait_for("the next one", || (environment(slot).matches(&line).count() == 2).then_some(()));
    cluster.ready(2);
    cluster.stop();
    // Nobody asked for it: no such variable.
    for slot in 0..2 {
        fs::remove_file(dir.join(slot.to_string())).unwrap();
    }
    let cluster = on.run(&["-w", "2"], &program);
    cluster.ready(2);
    assert!(environment(0).contains("ROUNDEL_SLOT=0\n"));
    assert!(!environment(0).contains("NODE_APP_INSTANCE") && !environment(0).contains("MY_NUMBER"));
    cluster.stop();
    fs::remove_dir_all(dir).unwrap();
}

fn descriptors_above_two_are_inherited(on: Pair) {
    let dir = temp_dir();
    fs::write(dir.join("secret"), "swordfish").unwrap();
    let program = noting(on, &dir, "{ ls /proc/$$/fd; readlink /proc/$$/fd/0; cat <&7; }");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new("sh");
    let script = "exec 9<&0 7<\"$SECRET\" 0</dev/null; exec \"$0\" run -b fd:9 \"$@\"";
    command.args(["-c", script]).arg(on.binary()).env("SECRET", dir.join("secret"));
    command.args(["-w", "1", "--control"]).arg(dir.join("control"));
    command.arg("--events").arg(dir.join("events")).args(&program);
    let log = File::create(dir.join("log")).unwrap();
    command.stdin(OwnedFd::from(listener)).stdout(log.try_clone().unwrap()).stderr(log);
    mark(&mut command, &dir);
    let cluster = Cluster::adopt(command.spawn().unwrap(), dir.clone());
    cluster.ready(1);
    let noted = fs::read_to_string(dir.join("0")).unwrap();
    let channel = fs::read_to_string(format!("/proc/{}/environ", cluster.ready(1)[0])).unwrap();
    let channel = channel.split('\0').find_map(|it| it.strip_prefix("ROUNDEL_CHANNEL_FD="));
    let mut expected = vec!["0", "1", "2", "7", channel.unwrap()];
    expected.sort_by_key(|number| number.parse::<i32>().unwrap());
    let mut lines: Vec<&str> = noted.lines().collect();
    assert_eq!(lines.pop(), Some("swordfish"), "{noted}");
    assert_eq!(lines.pop(), Some("/dev/null"), "{noted}");
    lines.sort_by_key(|number| number.parse::<i32>().unwrap());
    // The shell keeps copies of what it redirects from 10 on.
    lines.retain(|number| expected.contains(number) || number.parse::<i32>().unwrap() < 10);
    assert_eq!(lines, expected, "the listener is the primary's alone");
    assert_eq!(cluster.get("/").pid(), cluster.ready(1)[0]);
    cluster.stop();
}

/// The limit counts all processes and threads of a user, which has to be one that nobody else is.
fn without_a_thread_nothing_starts(on: Pair) {
    if !nix::unistd::geteuid().is_root() {
        return crate::cells::pass_over("only root can be another user");
    }
    let dir = temp_dir();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let binary = dir.join(on.binary().file_name().unwrap());
    fs::copy(on.binary(), &binary).unwrap();
    let user = 1_000_000 + std::process::id() * 2 + u32::from(on.primary == Adapter::Smol);
    let limited = |limit: u32, args: &[&str]| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={limit}")).args(["setpriv", "--clear-groups"]);
        command.args([format!("--reuid={user}"), format!("--regid={user}")]).arg(&binary);
        command.args(args).args(["-w", "1", "-b", "127.0.0.1:0", "--control"]);
        command.arg(dir.join("control")).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    // The thread that writes to standard error, and the one that async-io has for itself.
    let threads = if on.primary == Adapter::Smol { 2 } else { 1 };
    for limit in 1..=threads {
        let (code, said) = limited(limit, &["demo"]);
        let line = format!("{}: cannot start a thread: Resource temporarily", name_of(on));
        assert!(said.starts_with(&line) && said.lines().count() == 1, "{limit}: {said}");
        assert_eq!(code, Some(1), "{limit}");
    }
    if on.primary == Adapter::Smol {
        // There is room for the process of a worker, and not for its thread.
        let (code, said) = limited(threads + 2, &["demo", "--restart-intensity", "0/10"]);
        let line = "roundel demo worker: cannot start a thread: Resource temporarily";
        assert!(said.lines().any(|it| it.starts_with(line)), "{said}");
        assert_eq!((code, said.contains("panicked")), (Some(3), false), "{said}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// As inetd(8) starts what is to wait for connections, or systemd with `StandardInput=socket`.
fn standard_input_may_be_what_is_listened_on(on: Pair) {
    let dir = temp_dir();
    let program = noting(on, &dir, "readlink /proc/$$/fd/0");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut command = Command::new(on.binary());
    command.args(["run", "-b", "fd:0", "-w", "1", "--control"]).arg(dir.join("control"));
    command.arg("--events").arg(dir.join("events")).args(&program);
    let log = File::create(dir.join("log")).unwrap();
    command.stdin(OwnedFd::from(listener)).stdout(log.try_clone().unwrap()).stderr(log);
    mark(&mut command, &dir);
    let cluster = Cluster::adopt(command.spawn().unwrap(), dir.clone());
    let pids = cluster.ready(1);
    assert_eq!(get(addr, "/").pid(), pids[0]);
    assert_eq!(fs::read_to_string(dir.join("0")).unwrap(), "/dev/null\n");
    cluster.stop();
}

fn an_interface_may_be_named(on: Pair) {
    if TcpListener::bind("[::1]:0").is_err() {
        return crate::cells::pass_over("no IPv6");
    }
    let args = ["run", "-w", "1", "-b", "[::1%lo]:0"];
    let cluster = Cluster::start(Command::new(on.binary()), &args, &on.demo_worker());
    assert_eq!(cluster.get("/").pid(), cluster.ready(1)[0]);
    cluster.stop();
}

/// In the directory of the package, with what is installed there, after what comes before.
fn a_script_of_a_package_is_run_directly(on: Pair) {
    let dir = temp_dir();
    let bin = dir.join("node_modules/.bin");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir(dir.join("deeper")).unwrap();
    script(
        &bin.join("serve"),
        "#!/bin/sh\n{ pwd; echo $npm_lifecycle_event $MODE $1; } >>$npm_package_name; shift; exec \"$@\"\n",
    );
    let line = format!("MODE=x serve 'a b' {}", on.demo_worker().join(" "));
    let package = serde_json::json!({"name": "noted", "scripts":
        {"start": line, "prestart": "echo built >>noted"}});
    fs::write(dir.join("package.json"), package.to_string()).unwrap();
    let mut command = Command::new(on.binary());
    command.current_dir(dir.join("deeper"));
    let program = ["npm", "start"].map(str::to_owned);
    let cluster = Cluster::start(command, &["run", "-b", "127.0.0.1:0", "-w", "1"], &program);
    let pids = cluster.ready(1);
    assert_eq!(cluster.get("/").pid(), pids[0]);
    let noted = fs::read_to_string(dir.join("noted")).unwrap();
    assert_eq!(noted, format!("built\n{}\nstart x a b\n", dir.canonicalize().unwrap().display()));
    let said = format!("{}: npm start: runs serve 'a b' ", name_of(on));
    wait_for("what is said of it", || cluster.log().contains(&said).then_some(()));
    cluster.stop();
    fs::remove_dir_all(dir).unwrap();
}

fn a_primary_says_its_own_name(on: Pair) {
    let mut cluster = on.demo(&["-w", "1"]);
    cluster.ready(1);
    cluster.signal(nix::sys::signal::Signal::SIGHUP);
    let name = name_of(on);
    cluster.said("Ctrl-C");
    cluster.said(&format!("  {name} status "));
    cluster.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(cluster.wait(), 0);
    let log = cluster.log();
    let spoken: Vec<&str> = log.lines().filter(|line| line.starts_with("roundel")).collect();
    assert!(spoken.len() > 3, "{log}");
    assert!(spoken.iter().all(|line| line.starts_with(&format!("{name}: "))), "{log}");
}

fn workers_may_print_to_a_terminal_that_stops_background_jobs(on: Pair) {
    let dir = temp_dir();
    let terminal = openpty(None, None).unwrap();
    let mut program = on.demo_worker();
    if program[0].ends_with("node") {
        // Node sets all signals anew before it runs this.
        fs::write(dir.join("print.js"), "console.log(`printed by ${process.pid}`)").unwrap();
        let preload = dir.join("print.js").to_str().unwrap().to_owned();
        program.splice(1..1, ["-r".to_owned(), preload]);
    } else {
        let shell = ["sh", "-c", "echo printed by $$; exec \"$@\"", "sh"].map(str::to_owned);
        program.splice(0..0, shell);
    }
    let mut command = Command::new("setsid");
    // It waits, since a group that nobody leads any more may not be stopped at all.
    let script = "stty tostop -echo; \"$@\"; echo ended $?";
    command.args(["--ctty", "sh", "-c", script, "sh"]).arg(on.binary()).arg("run");
    let bind = on.bind_options(&mut command);
    command.args(bind).args(["-w", "2", "--control"]).arg(dir.join("control"));
    command.arg("--events").arg(dir.join("events")).args(&program);
    command.stdin(terminal.slave.try_clone().unwrap());
    command.stdout(terminal.slave.try_clone().unwrap()).stderr(terminal.slave);
    mark(&mut command, &dir);
    let child = command.spawn().unwrap();
    drop(command);
    let shown = Arc::new(Mutex::new(String::new()));
    let mut screen = File::from(terminal.master.try_clone().unwrap());
    let all = shown.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        // EIO is the end of a terminal that nobody has open any more.
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            all.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    });
    let cluster = Cluster::adopt_all(child, dir, on.listeners);
    let pids = cluster.ready(2);
    for pid in &pids {
        let line = format!("printed by {pid}\r\n");
        wait_for("what it prints", || shown.lock().unwrap().contains(&line).then_some(()));
    }
    // Ctrl-C reaches the primary alone: the workers leave as they are told to.
    File::from(terminal.master).write_all(b"\x03").unwrap();
    wait_for("the end", || (cluster.events_named("exited").len() == 2).then_some(()));
    let exits = cluster.events_named("exited");
    assert!(exits.iter().all(|exit| exit["class"] == "voluntary"), "{exits:?}");
    cluster.expect_nothing_left();
}
