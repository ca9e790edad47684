//! Nodes where topology wants them, and fewer of them where they are not needed: `cargo test --test pools consolidation`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use harness::wait;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use tandem_core::api::karpenter::NodeClaim;

use crate::bed::{self, Bed, PATIENCE, SOON, only_one};

const POOL: &str = "
apiVersion: karpenter.kwok.sh/v1alpha1
kind: KWOKNodeClass
metadata: {name: default}
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: thrifty}
spec:
  template:
    spec:
      requirements:
      - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      - {key: kubernetes.io/os, operator: In, values: [linux]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
      - {key: topology.kubernetes.io/zone, operator: In, values: [test-zone-a, test-zone-b, test-zone-c]}
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}
  disruption:
    consolidationPolicy: WhenEmpty
    consolidateAfter: 2s
    budgets: [{nodes: 100%}]
";

/// What was told of which object.
const EVENTS: [&str; 5] = [
    "get",
    "events",
    "--all-namespaces",
    "--output",
    "jsonpath={range .items[*]}{.involvedObject.name} {.reason} {.message}{\"\\n\"}{end}",
];
const DISABLED: &str = "NodePool \"thrifty\" has non-empty consolidation disabled";

/// A Deployment on nodes of the pool, spread like this.
fn deployment(name: &str, replicas: i32, cpu: &str, spread: &Value) -> Value {
    let mut deployment = bed::deployment(name, replicas, cpu, &json!({"karpenter.sh/nodepool": "thrifty"}));
    deployment["spec"]["template"]["spec"]["topologySpreadConstraints"] = spread.clone();
    deployment
}

/// One control plane serves both: the second begins where the first has left nothing.
#[tokio::test(flavor = "multi_thread")]
async fn consolidation() -> Result<()> {
    let _only = only_one().await;
    let bed = Bed::start().await?;
    let running = bed.run().await?;
    bed.kubectl(&["apply", "-f", "-"], POOL).await?;
    spread(&bed).await.context("spread over zones")?;
    half_used(&bed).await.context("half-used nodes")?;
    let text = running.metrics()?;
    for series in [
        "karpenter_voluntary_disruption_decisions_total\
         {decision=\"replace\",reason=\"underutilized\",consolidation_type=\"multi\"} 1",
        "karpenter_consolidation_moves_total\
         {decision=\"approved\",nodepool=\"thrifty\",policy=\"WhenEmptyOrUnderutilized\"}",
        "karpenter_nodeclaims_disrupted_total{reason=\"underutilized\",nodepool=\"thrifty\",capacity_type=\"on-demand\",\
         consolidation_policy=\"when_empty_or_underutilized\",termination_mode=\"graceful\"} 2",
        "karpenter_pods_disruption_initiated_total{reason=\"underutilized\",nodepool=\"thrifty\",capacity_type=\"on-demand\",\
         consolidation_policy=\"when_empty_or_underutilized\",termination_mode=\"graceful\"} 2",
        "karpenter_pods_drained_total{reason=\"Underutilized\"} 2",
        "karpenter_pods_eviction_requests_total{code=\"200\"}",
        "karpenter_pods_startup_duration_seconds{quantile=\"0.5\"}",
    ] {
        ensure!(text.contains(series), "{series}\n{text}");
    }
    running.stop();
    Ok(())
}

/// Pods that are to be spread over zones get a node in each.
async fn spread(bed: &Bed) -> Result<()> {
    let over_zones = json!([{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}},
    }]);
    bed.apply(&deployment("spread", 3, "500m", &over_zones)).await?;
    bed.running("spread", 3).await?;
    let claims = bed.claims_of("thrifty").await?;
    let zone = |claim: &NodeClaim| claim.labels().get("topology.kubernetes.io/zone").cloned();
    let zones: BTreeSet<String> = claims.iter().filter_map(zone).collect();
    ensure!(claims.len() == 3 && zones.len() == 3, "{} nodes in {zones:?}", claims.len());
    bed.scale("spread", 0).await?;
    bed.gone("thrifty").await
}

/// Two nodes that were full and are a quarter used by now become one that costs less: it comes first, then the pods move, then
/// the two go.
async fn half_used(bed: &Bed) -> Result<()> {
    let none = json!([]);
    for side in ["left", "right"] {
        let stays = deployment(side, 1, "800m", &none);
        let goes = deployment(&format!("{side}-more"), 1, "2800m", &none);
        let both = json!({"apiVersion": "v1", "kind": "List", "items": [stays, goes]});
        bed.apply(&both).await?;
        bed.running(side, 1).await?;
        bed.running(&format!("{side}-more"), 1).await?;
    }
    let old: BTreeSet<String> = bed.claims_of("thrifty").await?.iter().map(NodeClaim::name_any).collect();
    ensure!(old.len() == 2, "{old:?}");
    let more = ["scale", "deployment/left-more", "deployment/right-more", "--replicas=0"];
    bed.kubectl(&more, "").await?;
    // That their pool is what keeps them is told when nothing else does.
    wait::until("both nodes to be calm", SOON, || async {
        let events = bed.kubectl(&EVENTS, "").await?;
        let told = |claim: &&String| events.contains(&format!("{claim} Unconsolidatable {DISABLED}"));
        ensure!(old.iter().filter(told).count() == 2, "{events}");
        Ok(())
    })
    .await?;
    let before: BTreeSet<String> = uids(bed).await?;
    let policy =
        json!({"spec": {"disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized"}}}).to_string();
    bed.kubectl(&["patch", "nodepool", "thrifty", "--type=merge", "--patch", &policy], "").await?;

    wait::until("the two nodes to go", PATIENCE, || async {
        let claims = bed.claims_of("thrifty").await?;
        let staying = claims
            .iter()
            .filter(|claim| old.contains(&claim.name_any()) && claim.metadata.deletion_timestamp.is_none());
        let is_ready = claims.iter().any(|it| !old.contains(&it.name_any()) && holds(it, "Initialized"));
        // What is read is a moment in which nothing may have gone before what replaces it was ready.
        assert!(staying.count() == 2 || is_ready, "a node goes and nothing has taken its place");
        ensure!(claims.iter().all(|claim| !old.contains(&claim.name_any())), "{} are there", claims.len());
        Ok(())
    })
    .await?;
    bed.running("left", 1).await?;
    bed.running("right", 1).await?;
    ensure!(uids(bed).await?.is_disjoint(&before), "the pods were evicted");
    let claims = bed.claims_of("thrifty").await?;
    let types: Vec<_> =
        claims.iter().filter_map(|it| it.labels().get("node.kubernetes.io/instance-type")).collect();
    ensure!(types == ["c-2x-amd64-linux"], "{types:?}");
    let events =
        bed.kubectl(&["get", "events", "-A", "-o", "custom-columns=R:.reason,M:.message"], "").await?;
    for wanted in ["DisruptionLaunching", "DisruptionTerminating", "Disrupting NodeClaim: Underutilized"] {
        ensure!(events.contains(wanted), "{wanted} is not among {events}");
    }
    Ok(())
}

async fn uids(bed: &Bed) -> Result<BTreeSet<String>> {
    let mut pods: Vec<Pod> = bed.pods("left").await?;
    pods.extend(bed.pods("right").await?);
    Ok(pods.iter().filter_map(ResourceExt::uid).collect())
}

fn holds(claim: &NodeClaim, kind: &str) -> bool {
    tandem_core::nodes::pools::node_claim::holds(claim, kind)
}
