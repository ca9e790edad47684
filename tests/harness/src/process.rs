//! A child process that cannot outlive us, with its output in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// How long [`Process::stop`] waits for an orderly end before it kills.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How many lines of a log an error message quotes.
const QUOTED_LINES: usize = 20;

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program` with an environment that holds PATH, HOME and `environment` only; both outputs are appended
    /// to `<logs>/<name>.log`.
    ///
    /// `setpriv --pdeathsig` makes the kernel kill the child when the thread that started it ends, whatever ended
    /// it. That thread must therefore live as long as we do: a worker of the runtime does, the thread that a test
    /// framework runs a test on does not, hence the task.
    pub async fn start(
        name: &str,
        logs: &Path,
        program: &Path,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .env_clear()
            .envs(["PATH", "HOME"].into_iter().filter_map(|key| Some((key, std::env::var_os(key)?))))
            .envs(environment)
            .current_dir(logs)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = tokio::spawn(async move { command.spawn() })
            .await?
            .context("cannot start setpriv (Debian: apt-get install util-linux)")?;
        Ok(Self { name: name.to_owned(), log, child })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if the process has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Polls `ready` until it succeeds; fails at once, with the end of the log, when the process ends before.
    pub async fn wait_until_ready<F>(&mut self, timeout: Duration, mut ready: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let what = format!("{} to be ready", self.name);
        let readiness = wait::until(&what, timeout, || {
            let ended = self.ended();
            let check = ready();
            async move {
                match ended {
                    Some(status) => Ok(Err(status)),
                    None => check.await.map(Ok),
                }
            }
        });
        match readiness.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => anyhow::bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
            Err(error) => Err(error.context(format!("log of {}:\n{}", self.name, self.log_tail()))),
        }
    }

    /// The whole log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }

    /// Asks the process to end (SIGTERM) and waits until it has; kills it after 20 s. Returns its exit status.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        // The shell's kill: no crate and no `unsafe` for one system call.
        Command::new("sh").args(["-c", &format!("kill -TERM {}", self.id())]).status()?;
        let what = format!("{} to stop", self.name);
        let ended = wait::until(&what, STOP_TIMEOUT, || {
            let status = self.ended();
            async move { status.context("still running") }
        })
        .await;
        match ended {
            Ok(status) => Ok(status),
            Err(_) => self.kill(),
        }
    }

    /// Ends the process at once (SIGKILL). Returns its exit status.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Waiting makes sure that the port is closed and that nothing writes into the temporary folder any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
