//! HTTPS: what the first worker puts beside its query reaches the others, so that a client resumes
//! on one worker the session that another one gave it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::client::assert_even;
use crate::harness::*;

/// A key and a certificate for `localhost`, in files in `dir`. `None` where there is no OpenSSL.
pub(crate) fn certificate(dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let (key, cert) = (dir.join("key.pem"), dir.join("cert.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    openssl
        .args(["-days", "2", "-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert);
    match openssl.output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(_) => {
            skip("no openssl");
            return None;
        }
    }
    Some((key, cert))
}

fn sessions_resume(version: &str) {
    let Some(setup) = fixture("https.js") else { return };
    let Some((key, cert)) = certificate(&setup.dir) else { return };
    let cluster = setup.workers(4).variable("KEY", &key).variable("CERT", &cert).start();
    let port = cluster.addr(0).port().to_string();
    let mut client = Command::new(node().unwrap());
    client.arg(fixture_path("tls-client.js")).args([&port, "19", version]).env("CERT", &cert);
    let output = client.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines[0]["resumed"].as_bool().unwrap());
    assert!(lines[1..].iter().all(|line| line["resumed"] == true), "{text}");
    let mut counts = std::collections::BTreeMap::new();
    for line in &lines {
        *counts.entry(line["pid"].as_i64().unwrap() as i32).or_default() += 1;
    }
    assert_even(&counts, &cluster.ready(4), 5);
    cluster.stop();
}

#[test]
fn tls_1_2_sessions_resume_on_all_workers() {
    sessions_resume("TLSv1.2");
}

#[test]
fn tls_1_3_sessions_resume_on_all_workers() {
    sessions_resume("TLSv1.3");
}
