//! Reloads of Node programs whose new version fails.

use std::fs;
use std::process::Command;

use crate::client::*;
use crate::harness::*;

/// In all five ways: nobody notices but the one who asked for the reload.
#[test]
fn new_code_that_fails_in_any_way_leaves_the_old_one_serving() {
    if beyond_node("it does not reload") {
        return;
    }
    for version in main_versions() {
        let (Some(node), Some(setup)) = (version, fixture("reload.js")) else { continue };
        let ports = [(); 2].map(|()| unused_address().port());
        let host = unused_address().ip();
        let addrs = ports.map(|port| (host, port).into());
        let mode = setup.dir.join("mode");
        fs::write(&mode, "good").unwrap();
        let [first, second] = ports.map(|port| port.to_string());
        let options = ["--ready-hold", "500ms", "--ready-timeout", "1500ms"];
        let cluster = setup
            .on(node)
            .options(&options)
            // Node programs that don't listen live on until then.
            .options(&["--reload-batch", "all", "--drain-timeout", "4s"])
            .variable("HOST", host.to_string())
            .variable("PORT", first)
            .variable("SECOND_PORT", second)
            .variable("MODE", &mode)
            .start();
        let old = cluster.ready(2);
        let last = format!("did not listen on {}", addrs[1]);
        let cases = [
            ("throws", "ended (crashed, code 1)"),
            ("ends", "ended (crashed, code 3)"),
            ("silent", "did not listen on"),
            ("elsewhere", "did not listen on"),
            ("one", &last),
            ("good", ""),
        ];
        let mut said = Vec::new();
        // Nothing is judged while clients ask: they would go on for ever.
        let answers = load(&addrs, 2, 1_000_000, || {
            let Some((how, _)) = cases.get(said.len()) else { return Load::Enough };
            fs::write(&mode, how).unwrap();
            let mut command = Command::new(binary("roundel"));
            command.args(["reload", "--control"]).arg(cluster.dir.join("control"));
            let output = command.output().unwrap();
            let is_old = old.iter().all(|pid| is_alive(*pid));
            said.push((output.status.code(), String::from_utf8(output.stderr).unwrap(), is_old));
            Load::GoOn
        });
        for ((how, cause), (code, said, is_old)) in cases.iter().zip(&said) {
            let expected = if *how == "good" { 0 } else { 1 };
            assert_eq!(*code, Some(expected), "{how}: {said}");
            assert!(said.contains(cause) && (*is_old || expected == 0), "{how}: {said}");
        }
        // None of them failed.
        assert!(spread(&answers).values().sum::<usize>() > 100);
        eventually("the old ones' end", || old.iter().all(|pid| !is_alive(*pid)).then_some(()));
        cluster.stop();
    }
}
