//! `cargo xtask demo`: Tandem at work, on a control plane of its own or on a cluster that the user has.

mod cluster;
mod local;
mod nodes;
mod tour;
mod traffic;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use harness::{Kubectl, wait};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use self::traffic::Traffic;

/// Flags of `cargo xtask demo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Requests a second to begin with, once the tour is over.
    #[arg(long, default_value_t = 0.0)]
    rps: f64,
    /// A context of your kubeconfig (kind, k3d, …): installs there by the manifests, instead of starting a control
    /// plane on this machine.
    #[arg(long)]
    context: Option<String>,
    /// The whole chain, with nodes: load, replicas, pending pods, nodes, and back.
    #[arg(long, conflicts_with = "context")]
    nodes: bool,
    /// Leave everything installed in that cluster.
    #[arg(long, requires = "context")]
    keep: bool,
    /// End after the tour instead of waiting for input; so does an input that is no terminal.
    #[arg(long)]
    exit: bool,
}

/// What the tour needs of a place, wherever it is.
pub(crate) struct Place {
    kubectl: Kubectl,
    traffic: Traffic,
    /// What triggers call `serverAddress`.
    prometheus: String,
    /// How the user's own shell reaches the cluster.
    access: String,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        match &args.context {
            // What was started ends with it.
            None => until_interrupted(Box::pin(here(args))).await,
            Some(context) => on_cluster(args, context).await,
        }
    })
}

/// Does `work` to its end, or to the first Ctrl-C.
async fn until_interrupted(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        // First come, first served.
        biased;
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nstopping");
            Ok(())
        }
        result = work => result,
    }
}

/// On a control plane of its own.
async fn here(args: &DemoArgs) -> Result<()> {
    let flags = if args.nodes { &nodes::FLAGS[..] } else { &[] };
    let local = local::Local::start(flags).await?;
    if args.nodes {
        nodes::run(local.place()).await?;
    } else {
        tour::run(local.place()).await?;
    }
    interact(args, local.place()).await
}

/// On a cluster of the user's, which is left as it was found, however far this came.
async fn on_cluster(args: &DemoArgs, context: &str) -> Result<()> {
    let kubectl = cluster::connect(context).await?;
    let shown = until_interrupted(async {
        let place = cluster::install(&kubectl, context).await?;
        tour::run(&place).await?;
        interact(args, &place).await
    });
    let shown = shown.await;
    if args.keep {
        return shown;
    }
    let removed = until_interrupted(cluster::remove(&kubectl)).await;
    shown.and(removed)
}

/// A numbered step of the demo.
pub(crate) fn say(text: &str) {
    eprintln!("\n\x1b[1m{text}\x1b[0m");
}

/// Lets the user turn the traffic of the second scenario, and shows what follows.
async fn interact(args: &DemoArgs, place: &Place) -> Result<()> {
    if args.exit || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    say("The cluster is yours. In another terminal:");
    eprintln!("{}", place.access);
    let (app, hpa) = if args.nodes {
        (nodes::APP, "get nodes,nodeclaims")
    } else {
        (tour::SHOP, "describe hpa keda-hpa-nginx")
    };
    for command in ["get hpa -w", hpa, "get scaledobject", "get events --sort-by=.lastTimestamp"] {
        eprintln!("  kubectl -n web {command}");
    }
    eprintln!(
        "Here: + and - turn the requests to `{app}` up and down, a number sets them (a second), q ends."
    );
    let mut rps = args.rps;
    place.traffic.set_rps(app, rps).await?;
    let mut lines = input();
    let (mut replicas, mut chain) = (Watch::new(), nodes::Watch::new());
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                match command(line.trim(), rps) {
                    Ok(None) => return Ok(()),
                    Ok(Some(next)) => {
                        rps = next;
                        place.traffic.set_rps(app, rps).await?;
                        eprintln!("{rps} requests a second");
                    }
                    Err(error) => eprintln!("{error}"),
                }
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if args.nodes { chain.look(place).await? } else { replicas.look(place, app).await? }
            }
        }
    }
}

/// The lines of the terminal. A thread reads them, since such a read cannot be called off; it ends with the process.
fn input() -> UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What a line of input means: the next rate, or nothing to end.
fn command(line: &str, rps: f64) -> Result<Option<f64>> {
    match line {
        "q" => Ok(None),
        "+" => Ok(Some(rps + 10.0)),
        "-" => Ok(Some((rps - 10.0).max(0.0))),
        number => match number.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(Some(rate)),
            _ => bail!("{number:?} is none of +, -, a number of requests a second, q"),
        },
    }
}

/// Prints the replicas of a Deployment whenever they change.
pub(crate) struct Watch {
    started: Instant,
    seen: Option<i32>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), seen: None }
    }

    /// One look.
    pub(crate) async fn look(&mut self, place: &Place, deployment: &str) -> Result<()> {
        let now = replicas(place, deployment).await?;
        if let Some(before) = self.seen.replace(now).filter(|before| *before != now) {
            eprintln!(
                "  {:6.1} s  {deployment}: {before} → {now} replicas",
                self.started.elapsed().as_secs_f64()
            );
        }
        Ok(())
    }

    /// Looks until there are so many.
    pub(crate) async fn until(
        &mut self,
        place: &Place,
        deployment: &str,
        timeout: Duration,
        right: impl Fn(i32) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            self.look(place, deployment).await?;
            if self.seen.is_some_and(&right) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{deployment} still has {:?} replicas after {} s", self.seen, timeout.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn replicas(place: &Place, deployment: &str) -> Result<i32> {
    let path = ["-n", "web", "get", "deployment", deployment, "-o", "jsonpath={.spec.replicas}"];
    Ok(place.kubectl.run(&path, "").await?.trim().parse()?)
}

/// Waits until kubectl's output contains `text`, then shows it.
pub(crate) async fn show_when(
    place: &Place,
    arguments: &[&str],
    text: &str,
    timeout: Duration,
) -> Result<()> {
    let shown = wait::until(&format!("{text:?} in kubectl {}", arguments.join(" ")), timeout, || async {
        let output = place.kubectl.run(arguments, "").await?;
        anyhow::ensure!(output.contains(text), "it prints:\n{output}");
        Ok(output)
    })
    .await?;
    eprintln!("$ kubectl {}\n{}", arguments.join(" "), shown.trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn lines_of_input() {
        let cases =
            [("+", Some(15.0)), ("-", Some(0.0)), ("40", Some(40.0)), ("0.5", Some(0.5)), ("q", None)];
        for (line, wanted) in cases {
            assert_eq!(command(line, 5.0).unwrap(), wanted, "{line}");
        }
        for line in ["", "x", "-3", "nan", "inf"] {
            assert!(command(line, 5.0).is_err(), "{line}");
        }
    }
}
