//! The variables of KEDA's environment, as its charts hand them to the process.

#![allow(clippy::unwrap_used, reason = "a test says best where it stands by panicking there")]

use std::process::{Command, Output};

use clap::Args;
use tandem::cli::run::RunArgs;

/// `tandem run` up to where it looks for a cluster, of which there is none.
fn run(environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.args(["run", "--kubeconfig", "/no/such/kubeconfig"]).env_clear();
    command.envs(environment.iter().copied()).output().unwrap()
}

fn log(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn an_empty_variable_is_none() {
    let command = RunArgs::augment_args(clap::Command::new("run"));
    let read: Vec<_> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .map(|name| (name, ""))
        .collect();
    assert!(read.iter().any(|(name, _)| *name == "KEDA_HTTP_DEFAULT_TIMEOUT"));
    let output = run(&read);
    // What the arguments or the environment have wrong ends with 2.
    assert_eq!(output.status.code(), Some(1), "{}", log(&output));
    assert!(log(&output).contains("/no/such/kubeconfig"), "{}", log(&output));

    let wrong = run(&[("KEDA_HTTP_DEFAULT_TIMEOUT", "soon")]);
    assert_eq!(wrong.status.code(), Some(2), "{}", log(&wrong));
}

#[test]
fn a_variable_without_effect_is_said_once() {
    let output =
        run(&[("KEDA_HTTP_TLS_CIPHER_LIST", "x"), ("OPERATOR_NAME", "keda"), ("RAW_METRICS_MODE", "")]);
    for (name, times) in [("KEDA_HTTP_TLS_CIPHER_LIST", 1), ("OPERATOR_NAME", 1), ("RAW_METRICS_MODE", 0)] {
        assert_eq!(log(&output).matches(name).count(), times, "{name}: {}", log(&output));
    }
}
