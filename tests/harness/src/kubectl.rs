//! kubectl, run as a user runs it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;

/// kubectl answers within a second; `kubectl wait` and `rollout` have a limit of their own, which is shorter.
const TIMEOUT: Duration = Duration::from_secs(150);

/// A kubectl and the cluster it talks to.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// The kubeconfig; without one kubectl looks where it always does.
    pub kubeconfig: Option<PathBuf>,
    /// The context; without one, the kubeconfig's current one.
    pub context: Option<String>,
}

impl Kubectl {
    /// Runs it with `input` on its standard input; returns what it printed on both outputs, or fails with it.
    pub async fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.program);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        let mut kubectl = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if let Some(mut stdin) = kubectl.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = tokio::time::timeout(TIMEOUT, kubectl.wait_with_output())
            .await
            .with_context(|| format!("kubectl {} did not end", arguments.join(" ")))??;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), printed.trim());
        Ok(printed)
    }
}
