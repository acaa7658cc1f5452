//! The command line of Node: its options, its script, and the kinds of script that it can read.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Refusal;

/// How long Node may take to print its version: it does so at once, unless the machine is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// Options whose value is the next word, as `node --help` shows them (Node 18 to 26).
const WITH_VALUE: [&str; 90] = [
    "-C",
    "-e",
    "-p",
    "-pe",
    "-r",
    "--allow-fs-read",
    "--allow-fs-write",
    "--bench-isolation",
    "--bench-name-pattern",
    "--bench-reporter",
    "--bench-reporter-destination",
    "--bench-samples",
    "--bench-warmup",
    "--build-sea",
    "--build-snapshot-config",
    "--conditions",
    "--cpu-prof-dir",
    "--cpu-prof-interval",
    "--cpu-prof-name",
    "--debug-port",
    "--diagnostic-dir",
    "--disable-proto",
    "--disable-warning",
    "--dns-result-order",
    "--env-file",
    "--env-file-if-exists",
    "--eval",
    "--experimental-config-file",
    "--experimental-default-type",
    "--experimental-loader",
    "--experimental-package-map",
    "--experimental-policy",
    "--experimental-sea-config",
    "--experimental-test-isolation",
    "--heap-prof-dir",
    "--heap-prof-interval",
    "--heap-prof-name",
    "--heapsnapshot-near-heap-limit",
    "--heapsnapshot-signal",
    "--icu-data-dir",
    "--import",
    "--input-type",
    "--inspect-port",
    "--inspect-publish-uid",
    "--loader",
    "--localstorage-file",
    "--max-http-header-size",
    "--max-old-space-size-percentage",
    "--network-family-autoselection-attempt-timeout",
    "--openssl-config",
    "--policy-integrity",
    "--redirect-warnings",
    "--report-dir",
    "--report-directory",
    "--report-filename",
    "--report-signal",
    "--require",
    "--run",
    "--secure-heap",
    "--secure-heap-min",
    "--snapshot-blob",
    "--test-concurrency",
    "--test-coverage-branches",
    "--test-coverage-exclude",
    "--test-coverage-functions",
    "--test-coverage-include",
    "--test-coverage-lines",
    "--test-global-setup",
    "--test-isolation",
    "--test-name-pattern",
    "--test-random-seed",
    "--test-reporter",
    "--test-reporter-destination",
    "--test-rerun-failures",
    "--test-shard",
    "--test-skip-pattern",
    "--test-timeout",
    "--title",
    "--tls-cipher-list",
    "--tls-keylog",
    "--trace-event-categories",
    "--trace-event-file-pattern",
    "--trace-require-module",
    "--unhandled-rejections",
    "--use-largepages",
    "--v8-pool-size",
    "--vfs-load",
    "--vfs-mount",
    "--watch-kill-signal",
    "--watch-path",
];

/// Extensions that Node tries after a script's name, or that loaders may substitute.
const EXTENSIONS: [&str; 10] =
    ["js", "json", "node", "mjs", "cjs", "ts", "mts", "cts", "tsx", "jsx"];

/// The files by which a directory is loaded.
const INDEXES: [&str; 4] = ["package.json", "index.js", "index.json", "index.node"];

/// Node's arguments as Node reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeArgs {
    /// The index of the script.
    pub(super) script: Option<usize>,
    /// The options with their values, and the index after each.
    pub(super) options: Vec<(String, Option<OsString>, usize)>,
}

impl NodeArgs {
    /// `args` are the words after `node`.
    pub(super) fn read(args: &[OsString]) -> NodeArgs {
        let mut read = NodeArgs::default();
        let mut at = 0;
        while let Some(arg) = args.get(at) {
            let bytes = arg.as_bytes();
            if bytes == b"--" {
                read.script = (at + 1 < args.len()).then_some(at + 1);
                break;
            }
            // A single dash means a script on standard input.
            if !bytes.starts_with(b"-") || bytes == b"-" {
                read.script = Some(at);
                break;
            }
            let split = bytes.iter().position(|byte| *byte == b'=');
            let (name, value) = bytes.split_at(split.unwrap_or(bytes.len()));
            let mut name = String::from_utf8_lossy(name).into_owned();
            if name.starts_with("--") {
                name = name.replace('_', "-");
            }
            let mut value = value.get(1..).map(|value| OsStr::from_bytes(value).to_owned());
            at += 1;
            if value.is_none() && WITH_VALUE.contains(&name.as_str()) {
                value = args.get(at).cloned();
                at += 1;
            }
            read.options.push((name, value, at));
        }
        // The code is given by an option, so the words after it are its arguments.
        if read.has(&["-e", "-p", "-pe", "--eval", "--print", "--run", "--test"]) {
            read.script = None;
        }
        read
    }

    pub(super) fn has(&self, names: &[&str]) -> bool {
        self.options.iter().any(|(name, ..)| names.contains(&name.as_str()))
    }
}

/// True if this is Node itself, by its name.
pub(super) fn is_node(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == "node" || name == "nodejs")
}

/// True if a file is written in TypeScript, or needs a loader in any case (`tsx`).
pub(super) fn is_typescript(script: &OsStr) -> bool {
    extension(script).is_some_and(|ext| matches!(ext, "ts" | "mts" | "cts" | "tsx"))
}

/// True if Node can run a file directly.
pub(super) fn is_javascript(script: &OsStr) -> bool {
    extension(script).is_some_and(|ext| matches!(ext, "js" | "mjs" | "cjs"))
}

fn extension(script: &OsStr) -> Option<&str> {
    Path::new(script).extension().and_then(OsStr::to_str)
}

/// Checks that the files exist that Node must load first and run, except where a loader may resolve
/// the name in another way.
///
/// # Errors
/// A line that names the missing file.
pub(super) fn check_files(args: &[OsString], read: &NodeArgs, cwd: &Path) -> Result<(), Refusal> {
    for (name, value, _) in &read.options {
        let required = matches!(name.as_str(), "-r" | "--require" | "--import");
        let Some(value) = value.as_deref().filter(|_| required) else { continue };
        let by_path =
            ["./", "../", "/"].iter().any(|it| value.as_bytes().starts_with(it.as_bytes()));
        if by_path && !exists(&cwd.join(value)) {
            let shown = Path::new(value).display();
            return Err(Refusal::missing(format!("{shown}: no such file (node {name})")));
        }
    }
    let Some(script) = read.script.and_then(|at| args.get(at)).filter(|it| *it != "-") else {
        return Ok(());
    };
    let shown = Path::new(script).display();
    // A loader may know scripts by addresses that are not paths.
    if script.as_bytes().contains(&b':') {
        return Ok(());
    }
    let path = cwd.join(script);
    // After an unknown option, this word may be the value of that option.
    let is_plain = read.script.is_some_and(|at| at == 0 || is_known(read));
    let is_sure = is_plain || is_javascript(script) || is_typescript(script);
    if !exists(&path) && !is_sure {
        return Ok(());
    }
    if !exists(&path) {
        return Err(Refusal::missing(format!("{shown}: no such file")));
    }
    let is_loaded = |index: &str| path.join(index).exists();
    if path.is_dir() && beside(&path).is_none() && !INDEXES.iter().any(|it| is_loaded(it)) {
        let words = format!("{shown}: is a directory without package.json or index.js");
        return Err(Refusal::barred(words));
    }
    if path.is_file()
        && let Err(error) = std::fs::File::open(&path)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return Err(Refusal::barred(format!("{shown}: cannot be read: {error}")));
    }
    Ok(())
}

/// True if the last option certainly takes no value from the next word.
fn is_known(read: &NodeArgs) -> bool {
    let bare =
        ["--inspect", "--no-", "--enable-", "--experimental-", "--trace-", "--use-", "--expose-"];
    read.options.last().is_none_or(|(name, value, _)| {
        value.is_some() || bare.iter().any(|it| name.starts_with(it))
    })
}

/// True if there is a file that Node, or a loader, may use for this name.
fn exists(path: &Path) -> bool {
    path.exists() || beside(path).is_some()
}

/// Finds the file if its extension is left out or differs from the one written: a loader for
/// TypeScript uses `x.ts` for `x.js`.
fn beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    EXTENSIONS.iter().find_map(|ext| {
        let mut longer = name.to_owned();
        longer.push(".");
        longer.push(ext);
        let candidates = [path.with_file_name(longer), path.with_extension(ext)];
        candidates.into_iter().find(|it| it.is_file())
    })
}

/// How a TypeScript script is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Types {
    /// Node strips the types.
    Stripped,
    /// With `--import` before the script; the value is where tsx is.
    Loaded(OsString),
}

/// Finds out how Node can run a TypeScript script.
///
/// # Errors
/// A line that says what would be needed.
pub(super) fn types(
    node: &Path,
    script: &OsStr,
    cwd: &Path,
    node_options: &str,
) -> Result<Types, Refusal> {
    let shown = Path::new(script).display();
    let version = version(node).map_err(|why| {
        Refusal::usage(format!("{shown}: {} --version gives no version: {why}", node.display()))
    })?;
    // JSX elements are not types: Node never strips them.
    let elements = extension(script) == Some("tsx");
    if !elements && strips(version, node_options) {
        return Ok(Types::Stripped);
    }
    if let Some(tsx) = find_tsx(&cwd.join(script), cwd) {
        return Ok(Types::Loaded(tsx));
    }
    let (major, minor, patch) = version;
    let can = if elements {
        "no version of Node runs .tsx files"
    } else {
        "only Node 22.18 and later strips types"
    };
    Err(Refusal::usage(format!(
        "{shown}: Node {major}.{minor}.{patch} cannot run it ({can}) and tsx is not installed beside it (npm install tsx)"
    )))
}

/// True if this version strips types, with these options in the environment.
fn strips((major, minor, _): (u32, u32, u32), node_options: &str) -> bool {
    let says = |option: &str| node_options.split_whitespace().any(|word| word == option);
    let asked = says("--experimental-strip-types") || says("--experimental-transform-types");
    let refused = says("--no-experimental-strip-types") || says("--no-strip-types");
    let by_itself = (major == 22 && minor >= 18) || (major == 23 && minor >= 6) || major >= 24;
    let if_asked = (major == 22 && minor >= 6) || major >= 23;
    !refused && (by_itself || (asked && if_asked))
}

/// Runs `node --version`, which runs no script.
fn version(node: &Path) -> Result<(u32, u32, u32), String> {
    let mut child = Command::new(node)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    // The output is so short that it fits into the pipe.
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("no answer within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut text = String::new();
    if let Some(output) = child.stdout {
        let _ = output.take(64).read_to_string(&mut text);
    }
    parse_version(&text).ok_or_else(|| format!("it prints {:?}", text.trim_end()))
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.trim().strip_prefix('v')?.split(['.', '-']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

/// The value for `--import`, if tsx is installed for this script.
fn find_tsx(script: &Path, cwd: &Path) -> Option<OsString> {
    let installed = |from: &Path| {
        let mut dirs = from.ancestors().map(|dir| dir.join("node_modules/tsx"));
        dirs.find(|dir| dir.join("package.json").is_file())
    };
    let found = installed(script.parent()?)?;
    // Node looks for a bare name from the working directory.
    if installed(cwd).as_ref() == Some(&found) {
        return Some("tsx".into());
    }
    let text = std::fs::read_to_string(found.join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    let exports = package.get("exports")?;
    let main = exports.get(".").unwrap_or(exports);
    let file = main.as_str().or_else(|| main.get("import")?.as_str())?;
    Some(file_url(&found.join(file.trim_start_matches("./"))))
}

/// A file URL: spaces and percent signs in the path are escaped.
fn file_url(path: &Path) -> OsString {
    let mut url = String::from("file://");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~@+".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn script(line: &str) -> Option<usize> {
        NodeArgs::read(&args(line)).script
    }

    #[test]
    fn the_script_is_found_behind_the_options() {
        assert_eq!(script("app.js --watch"), Some(0));
        assert_eq!(script("--max-old-space-size=512 app.js"), Some(1));
        assert_eq!(script("-r ./a --import b --inspect-port 0 app.js -r"), Some(6));
        assert_eq!(script("--inspect app.js"), Some(1));
        assert_eq!(script("-- app.js"), Some(1));
        assert_eq!(script("- app.js"), Some(0));
        for none in ["", "-e code app.js", "--run start", "-p 1 x", "--", "-r"] {
            assert_eq!(script(none), None, "{none}");
        }
        let read = NodeArgs::read(&args("--inspect_port=1 --import=tsx a.ts"));
        assert_eq!(read.options[0], ("--inspect-port".into(), Some("1".into()), 1));
        assert!(read.has(&["--import"]) && !read.has(&["--watch"]));
    }

    #[test]
    fn versions_that_strip_types() {
        let parsed = |text| parse_version(text).unwrap();
        for (version, options, does) in [
            ("v20.20.2\n", "", false),
            ("v22.17.1", "", false),
            ("v22.18.0", "", true),
            ("v23.5.0", "", false),
            ("v23.6.0", "", true),
            ("v24.0.0-nightly20250101", "", true),
            ("v26.1.0", "--no-experimental-strip-types", false),
            ("v22.7.0", "--inspect --experimental-strip-types", true),
            ("v20.0.0", "--experimental-strip-types", false),
        ] {
            assert_eq!(strips(parsed(version), options), does, "{version} {options}");
        }
        assert_eq!(parse_version("20.1.1"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn a_path_with_odd_letters_is_a_url() {
        assert_eq!(file_url(Path::new("/a b/100%#/x.mjs")), "file:///a%20b/100%25%23/x.mjs");
    }
}
