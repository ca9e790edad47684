//! `tandem check` as users and CI call it: arguments, exit codes, what goes where.

#![allow(clippy::unwrap_used, reason = "a test says best where it stands by panicking there")]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const GOOD: &str = "apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: api}
spec:
  scaleTargetRef: {name: api}
  triggers: [{type: kubernetes-workload, metadata: {podSelector: app=x, value: '1'}}]
";

fn check(arguments: &[&str], folder: &Path, stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails on its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn exit_codes() {
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    fs::create_dir(root.join("deploy")).unwrap();
    fs::write(root.join("deploy/good.yaml"), GOOD).unwrap();
    fs::write(root.join("warns.yaml"), GOOD.replace("spec:", "spec:\n  pollingIntervall: 5")).unwrap();
    fs::write(root.join("bad.yaml"), GOOD.replace("kubernetes-workload", "kubernetes-worklaod")).unwrap();
    fs::write(root.join("latin1.yaml"), b"name: caf\xe9\n").unwrap();
    for (arguments, stdin, code, stdout, stderr) in [
        (&["deploy"][..], "", 0, "1 object in 1 file: 0 errors, 0 warnings\n", ""),
        (&["warns.yaml"], "", 0, "warns.yaml:5: warning: ", ""),
        (&["bad.yaml"], "", 1, "bad.yaml:6: error: ", ""),
        (&["deploy", "bad.yaml"], "", 1, "2 objects in 2 files: 1 error, 0 warnings\n", ""),
        (&["-"], GOOD, 0, "1 object in 1 file", ""),
        (&["-"], "a: [", 1, "<stdin>:1: error: not YAML", ""),
        (&["missing.yaml", "bad.yaml"], "", 2, "bad.yaml:6: error: ", "error: cannot read missing.yaml: "),
        (&["latin1.yaml"], "", 2, "0 objects in 0 files", "error: cannot read latin1.yaml: "),
        (&[], "", 2, "", "<FILE>..."),
        (&["--output", "xml", "-"], "", 2, "", "[possible values: text, json]"),
    ] {
        let output = check(arguments, root, stdin);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains(stdout), "{arguments:?}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains(stderr), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn json_is_one_object() {
    let output = check(&["--output", "json", "-"], Path::new("."), &GOOD.replace("value", "valeu"));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["summary"]["files"], 1);
    assert_eq!(
        report["summary"]["errors"],
        report["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == "error").count()
    );
    let unknown = &report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["severity"] == "warning")
        .unwrap();
    assert_eq!(unknown["path"], "spec.triggers[0].metadata.valeu");
    assert_eq!(unknown["hint"], "did you mean \"value\"?");
    assert_eq!(unknown["line"], 6);
}
