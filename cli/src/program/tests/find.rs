//! The files that names refer to, and why some can't be run.

use super::*;

#[test]
fn missing_programs_are_named() {
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
    let says = "node: not found in PATH (needed to run real.js)";
    assert_eq!(dir.refuses("real.js"), (127, says.into()));
    let empty = dir.resolve_with(&["node", "real.js"], &[("PATH", "")]).unwrap_err();
    assert_eq!(empty.words, "node: not found: PATH is empty");
}

#[test]
fn programs_that_cannot_be_executed_are_named() {
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
            "DIR/./text: is neither a binary nor a script whose first line names an \
             interpreter (example: #!/bin/sh)",
        ),
        ("./lost", 127, "DIR/./lost: its interpreter /no/such/thing does not exist"),
        (
            "./cr",
            127,
            "DIR/./cr: its first line ends with a carriage return, so its interpreter is not found",
        ),
        ("./env", 127, "DIR/./env: its interpreter no-such-language is not found in PATH"),
        ("./dirs", 126, "DIR/./dirs: its interpreter /tmp cannot be executed"),
        ("/dev/null", 126, "/dev/null: is not a regular file"),
    ] {
        assert_eq!(dir.refuses(line), (code, says.into()), "{line}");
    }
    // A name that can't be run in one directory may be fine in the next.
    dir.file("other/tool", "");
    dir.script("bin/tool", "#!/bin/sh\n");
    let path = format!("{}:{}", dir.0.join("other").display(), dir.0.join("bin").display());
    let found = dir.resolve_with(&["tool"], &[("PATH", &path)]).unwrap();
    assert_eq!(found.program.path, dir.0.join("bin/tool"));
    let path = dir.0.join("other").into_os_string().into_string().unwrap();
    let barred = dir.resolve_with(&["tool"], &[("PATH", &path)]).unwrap_err();
    assert_eq!(barred.exit, Exit::NotExecutable);
}
