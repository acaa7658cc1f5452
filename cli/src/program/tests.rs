//! The program that is started for a command line, in directories made for the test.

mod find;
mod launchers;
mod managers;
mod node;
mod surroundings;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// The directory of a test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("roundel-program-{}-{count}", std::process::id());
        let dir = std::env::temp_dir().canonicalize().unwrap().join(name);
        fs::create_dir_all(dir.join("bin")).unwrap();
        let dir = Dir(dir);
        // It need not be Node while nothing runs it.
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
        let around = Surroundings::new(self.0.clone(), variables);
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
