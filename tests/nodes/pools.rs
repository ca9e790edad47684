//! Node pools, as Karpenter's users know them, with the pods loop beside them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{IstioExporter, Prometheus, wait};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};

use crate::world::World;

/// As a user of Karpenter v0.31 has it.
const PROVISIONER: &str = r#"
apiVersion: karpenter.sh/v1alpha5
kind: Provisioner
metadata: {name: default}
spec:
  requirements:
  - {key: karpenter.sh/capacity-type, operator: In, values: ["on-demand"]}
  limits: {resources: {cpu: 1000, memory: 1000Gi}}
  provider:
    subnetSelector: {kubernetes.io/cluster/chris: '*'}
    securityGroupSelector: {kubernetes.io/cluster/chris: '*'}
    instanceProfile: chris2022090904481313660000000c
  ttlSecondsAfterEmpty: 30
  ttlSecondsUntilExpired: 2592000
"#;

const NGINX: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: nginx, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      nodeSelector: {karpenter.sh/capacity-type: on-demand}
      containers:
      - name: nginx
        image: nginx
        resources: {requests: {cpu: "1", memory: 512Mi}}
"#;

/// The HPA gives back what it added as soon as the load is gone; the default waits five minutes.
const SCALED_OBJECT: &str = r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: nginx, namespace: default}
spec:
  scaleTargetRef: {kind: Deployment, name: nginx}
  minReplicaCount: 0
  maxReplicaCount: 10
  cooldownPeriod: 2
  pollingInterval: 1
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
  triggers:
  - type: prometheus
    metadata:
      serverAddress: SERVER
      query: sum(istio_requests_total{destination_app="nginx"})
      threshold: "10"
"#;

/// Well over the 30 s that an empty node waits, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn running(world: &World) -> Result<usize> {
    let pods: Api<Pod> = Api::namespaced(world.client(), "default");
    let pods = pods.list(&ListParams::default().labels("app=nginx")).await?;
    let runs = |pod: &&Pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
            && pod.metadata.deletion_timestamp.is_none()
    };
    Ok(pods.iter().filter(runs).count())
}

async fn nodes(world: &World) -> Result<usize> {
    let nodes: Api<Node> = Api::all(world.client());
    let of_pool = ListParams::default().labels("karpenter.sh/provisioner-name=default");
    Ok(nodes.list(&of_pool).await?.items.len())
}

/// Load comes, pods come, nodes come; load goes, pods go, and nodes 30 s after they are empty.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    let istio = IstioExporter::start().await?;
    let prometheus =
        Prometheus::start(world.control_plane.folder(), "prometheus", &[istio.address()]).await?;
    istio.set_total("nginx", 0);
    let crds = harness::source_tree().join("crds");
    world.kubectl(&format!("apply --server-side -f {}", crds.display()), "").await?;
    let rights = harness::source_tree().join("manifests/node-pools.yaml");
    world.kubectl(&format!("apply --server-side -f {}", rights.display()), "").await?;
    world.start_tandem(&["--node-pools-provider=kwok", "--batch-idle-duration=500ms"]).await?;
    world.kubectl("apply -f -", PROVISIONER).await?;
    world.kubectl("apply -f -", NGINX).await?;
    wait::until("the ScaledObject to be admitted", PATIENCE, || async {
        world.kubectl("apply -f -", &SCALED_OBJECT.replace("SERVER", &prometheus.url())).await.map(drop)
    })
    .await?;

    istio.set_total("nginx", 55);
    wait::until("six pods to run on nodes of the pool", PATIENCE, || async {
        let (running, nodes) = (running(&world).await?, nodes(&world).await?);
        ensure!(running == 6 && nodes > 0, "{running} of 6 run on {nodes} nodes");
        Ok(())
    })
    .await?;
    let claims = world.kubectl("get nodeclaims", "").await?;
    let header = claims.lines().next().unwrap_or_default();
    let columns: Vec<_> = header.split_whitespace().collect();
    ensure!(columns == ["NAME", "TYPE", "CAPACITY", "ZONE", "NODE", "READY", "AGE"], "{claims}");
    ensure!(claims.contains("on-demand") && claims.contains("True"), "{claims}");

    istio.set_total("nginx", 0);
    wait::until("the pods to go", PATIENCE, || async {
        let running = running(&world).await?;
        ensure!(running == 0, "{running} still run");
        Ok(())
    })
    .await?;
    wait::until("the empty nodes to go", PATIENCE, || async {
        let nodes = nodes(&world).await?;
        ensure!(nodes == 0, "{nodes} are still there");
        Ok(())
    })
    .await
}
