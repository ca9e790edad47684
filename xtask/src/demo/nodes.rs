//! The whole chain: load, replicas, pending pods, nodes, and back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::source_tree;
use serde_json::Value;

use super::{Place, say, show_when};

/// A Provisioner as users of Karpenter have it; Tandem reads it as a NodePool.
const PROVISIONER: &str = include_str!("provisioner.yaml");
/// A Deployment that needs nodes of that pool, and its ScaledObject.
const CHECKOUT: &str = include_str!("checkout.yaml");
/// The app that requests go to.
pub(crate) const APP: &str = "checkout";
/// Nodes of the pool.
const OF_POOL: &str = "karpenter.sh/provisioner-name=default";

/// Up: the HPA looks every 15 s and doubles at most; then a node has to start.
const UP: Duration = Duration::from_mins(3);
/// Down: the rate's window, the HPA's patience, the cooldown, and the 30 s that an empty node waits.
const DOWN: Duration = Duration::from_mins(5);

/// What `tandem run` is started with.
pub(crate) const FLAGS: [&str; 2] = ["--node-pools-provider=kwok", "--batch-idle-duration=500ms"];

/// Shows it.
pub(crate) async fn run(place: &Place) -> Result<()> {
    let kubectl = &place.kubectl;
    say("1. A Provisioner as it is in use with Karpenter, a Deployment for its nodes, a ScaledObject");
    for path in ["crds", "manifests/node-pools.yaml"] {
        let path = source_tree().join(path);
        let path = path.to_str().context("the path is no text")?;
        kubectl.run(&["apply", "--server-side", "-f", path], "").await?;
    }
    kubectl.run(&["create", "namespace", "web"], "").await?;
    apply(place, PROVISIONER).await?;
    apply(place, &CHECKOUT.replace("http://prometheus-operated.monitoring:9090", &place.prometheus)).await?;

    say("2. 55 requests a second over a target of 10: replicas, pending pods, nodes");
    place.traffic.set_rps(APP, 55.0).await?;
    let mut watch = Watch::new();
    watch.until(place, UP, |seen| seen.running == 6 && seen.pending == 0).await?;
    show_when(place, &["get", "provisioners,nodeclaims"], "on-demand", UP).await?;
    show_when(place, &["get", "nodes", "-l", OF_POOL, "-L", "node.kubernetes.io/instance-type"], "Ready", UP)
        .await?;

    say("3. No request: the pods go, and each node 30 s after it is empty");
    place.traffic.set_rps(APP, 0.0).await?;
    watch.until(place, DOWN, |seen| *seen == Seen::default()).await
}

async fn apply(place: &Place, manifest: &str) -> Result<()> {
    let printed = place.kubectl.run(&["apply", "-f", "-"], manifest).await?;
    eprintln!("$ kubectl apply -f …\n{}", printed.trim_end());
    Ok(())
}

/// What a look sees.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    replicas: i64,
    running: usize,
    pending: usize,
    /// Ready nodes of the pool by instance type.
    nodes: Vec<String>,
    /// NodeClaims without a ready node.
    starting: usize,
}

/// Prints what it sees whenever that changes.
pub(crate) struct Watch {
    started: Instant,
    seen: Option<Seen>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), seen: None }
    }

    /// One look.
    pub(crate) async fn look(&mut self, place: &Place) -> Result<()> {
        let now = look(place).await?;
        if self.seen.as_ref() != Some(&now) {
            let Seen { replicas, running, pending, nodes, starting } = &now;
            let names = if nodes.is_empty() { String::new() } else { format!(" ({})", nodes.join(", ")) };
            eprintln!(
                "  {:6.1} s  replicas {replicas}  running {running}  pending {pending}  nodes {}{names}  starting {starting}",
                self.started.elapsed().as_secs_f64(),
                nodes.len(),
            );
            self.seen = Some(now);
        }
        Ok(())
    }

    async fn until(&mut self, place: &Place, timeout: Duration, right: impl Fn(&Seen) -> bool) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            self.look(place).await?;
            if self.seen.as_ref().is_some_and(&right) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not there after {} s: {:?}", timeout.as_secs(), self.seen);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn look(place: &Place) -> Result<Seen> {
    let all = list(place, &["-n", "web", "get", "deployments"]).await?;
    let replicas = all.iter().find_map(|found| found["spec"]["replicas"].as_i64()).unwrap_or_default();
    let pods = list(place, &["-n", "web", "get", "pods"]).await?;
    let in_phase = |phase| pods.iter().filter(|pod| pod["status"]["phase"] == phase).count();
    let nodes = list(place, &["get", "nodes", "-l", OF_POOL]).await?;
    let claims = list(place, &["get", "nodeclaims"]).await?;
    let is_ready = |object: &&Value| {
        let conditions = object["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|each| each["type"] == "Ready" && each["status"] == "True")
    };
    let kind = |node: &Value| {
        node["metadata"]["labels"]["node.kubernetes.io/instance-type"].as_str().unwrap_or("?").to_owned()
    };
    Ok(Seen {
        replicas,
        running: in_phase("Running"),
        pending: in_phase("Pending"),
        nodes: nodes.iter().filter(is_ready).map(kind).collect(),
        starting: claims.iter().filter(|claim| !is_ready(claim)).count(),
    })
}

async fn list(place: &Place, words: &[&str]) -> Result<Vec<Value>> {
    let words: Vec<_> = words.iter().copied().chain(["-o", "json"]).collect();
    let mut found: Value = serde_json::from_str(&place.kubectl.run(&words, "").await?)?;
    Ok(found["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}
