//! Node pools, as Karpenter's users know them, with the pods loop beside them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{IstioExporter, Prometheus, wait};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
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

/// The same as users of Karpenter v1 have it.
pub(crate) const NODE_POOL: &str = r#"
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {name: default}
spec:
  amiSelectorTerms: [{alias: al2023@latest}]
  role: chris-nodes
  subnetSelectorTerms: [{tags: {kubernetes.io/cluster/chris: '*'}}]
  securityGroupSelectorTerms: [{tags: {kubernetes.io/cluster/chris: '*'}}]
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  template:
    spec:
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
      requirements:
      - {key: karpenter.sh/capacity-type, operator: In, values: ["on-demand"]}
      - {key: karpenter.k8s.aws/instance-category, operator: In, values: [c, m, r]}
      - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      expireAfter: 720h
  limits: {cpu: 1000, memory: 1000Gi}
  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: 30s}
"#;

pub(crate) const NGINX: &str = r#"
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
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) async fn nodes(world: &World, label: &str) -> Result<Vec<Node>> {
    let nodes: Api<Node> = Api::all(world.client());
    Ok(nodes.list(&ListParams::default().labels(label)).await?.items)
}

/// What a walk-through is told.
struct Walk {
    /// Flags of node pools.
    flags: &'static [&'static str],
    /// The pool.
    pool: &'static str,
    /// A label that all its nodes have.
    label: &'static str,
    /// The family of its nodes' machines, where there are such.
    family: Option<&'static str>,
}

/// Walk-through B on kwok's machines.
pub(crate) async fn walk_through(world: Arc<World>) -> Result<()> {
    let walk = Walk {
        flags: &["--node-pools-provider=kwok", "--batch-idle-duration=500ms"],
        pool: PROVISIONER,
        label: "karpenter.sh/provisioner-name=default",
        family: None,
    };
    load_comes_and_goes(&world, &walk).await
}

pub(crate) const AWS_FLAGS: &[&str] =
    &["--node-pools-provider=aws", "--node-pools-cluster-name=chris", "--batch-idle-duration=500ms"];
pub(crate) const ZONES: [&str; 2] = ["eu-central-1a", "eu-central-1b"];
pub(crate) const NETWORK_TAG: (&str, &str) = ("kubernetes.io/cluster/chris", "owned");

/// Walk-through B on EC2, by the Provisioner of old.
pub(crate) async fn walk_through_aws_provisioner(world: Arc<World>) -> Result<()> {
    world.moto.create_network(&ZONES, &[NETWORK_TAG]).await?;
    let walk = Walk {
        flags: AWS_FLAGS,
        pool: PROVISIONER,
        label: "karpenter.sh/provisioner-name=default",
        // The cheapest for pods of a core that the webhooks' defaults (c, m, r; newer than 2; amd64) leave.
        family: Some("c5"),
    };
    load_comes_and_goes(&world, &walk).await
}

/// Walk-through B on EC2, as users of Karpenter v1 have it.
pub(crate) async fn walk_through_aws(world: Arc<World>) -> Result<()> {
    world.moto.create_network(&ZONES, &[NETWORK_TAG]).await?;
    world.moto.create_role("chris-nodes").await?;
    let walk = Walk {
        flags: AWS_FLAGS,
        pool: NODE_POOL,
        label: "karpenter.sh/nodepool=default",
        family: Some("c5"),
    };
    load_comes_and_goes(&world, &walk).await?;
    let classes = world.kubectl("get ec2nodeclasses", "").await?;
    ensure!(classes.lines().nth(1).is_some_and(|line| line.contains("True")), "{classes}");
    let pools = world.kubectl("get nodepools", "").await?;
    let columns: Vec<_> = pools.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(columns == ["NAME", "NODECLASS", "NODES", "READY", "AGE"], "{pools}");
    Ok(())
}

/// A machine of a pool is taken back: its pods move to another, and the notice is deleted.
pub(crate) async fn spot_is_taken_back(world: Arc<World>) -> Result<()> {
    world.moto.create_network(&ZONES, &[NETWORK_TAG]).await?;
    world.moto.create_role("chris-nodes").await?;
    let queue = world.moto.create_queue("notices").await?;
    install(&world).await?;
    let flags: Vec<_> = AWS_FLAGS.iter().copied().chain(["--interruption-queue=notices"]).collect();
    world.start_tandem(&flags).await?;
    world.kubectl("apply -f -", &NODE_POOL.replace(r#"["on-demand"]"#, r#"["spot"]"#)).await?;
    world.kubectl("apply -f -", &NGINX.replace("on-demand", "spot")).await?;
    let label = "karpenter.sh/nodepool=default";
    let first = wait::until("a pod to run on a node of the pool", PATIENCE, || async {
        ensure!(world.running("nginx").await? == 1, "none runs");
        nodes(&world, label).await?.into_iter().next().context("no node")
    })
    .await?;
    world.moto.send(&queue, "garbage").await?;
    let id = first.spec.as_ref().and_then(|spec| spec.provider_id.clone()).context("no provider id")?;
    let machine = id.rsplit('/').next().unwrap_or_default();
    let notice = serde_json::json!({
        "id": "1", "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning",
        "time": jiff::Timestamp::now().to_string(),
        "detail": {"instance-id": machine, "instance-action": "terminate"},
    });
    world.moto.send(&queue, &notice.to_string()).await?;
    wait::until("the pod to run on another node", PATIENCE, || async {
        let nodes = nodes(&world, label).await?;
        let names: Vec<_> = nodes.iter().map(kube::ResourceExt::name_any).collect();
        ensure!(!names.is_empty() && !names.contains(&first.name_any()), "the nodes are {names:?}");
        ensure!(world.running("nginx").await? == 1, "the pod does not run");
        Ok(())
    })
    .await?;
    wait::until("the notice to be deleted", PATIENCE, || async {
        let messages = world.moto.messages(&queue).await?;
        ensure!(messages == 0, "{messages} messages are there");
        Ok(())
    })
    .await?;
    world.logged("a message of the queue of notices is thrown away").await?;
    let events = world.kubectl("get events -A", "").await?;
    ensure!(events.contains("SpotInterrupted"), "{events}");
    class_goes_last(&world).await
}

/// A class waits for the claims that were made with it; the instance profile that was made for it goes with it.
async fn class_goes_last(world: &World) -> Result<()> {
    let profiles = || async { world.moto.ask("iam", "ListInstanceProfiles", &[]).await };
    let class = || world.kubectl("get ec2nodeclasses --output=name", "");
    world.kubectl("delete ec2nodeclass default --wait=false", "").await?;
    wait::until("the class to say what it waits for", PATIENCE, || async {
        let events = world.kubectl("get events -A", "").await?;
        let text = "Waiting on NodeClaim termination for default-";
        ensure!(events.contains(text), "no event says {text:?}:\n{events}");
        Ok(())
    })
    .await?;
    ensure!(class().await?.contains("default"), "the class is gone before its nodes");
    ensure!(
        profiles().await?.contains("<InstanceProfileName>chris_"),
        "the profile is gone before the nodes"
    );
    world.kubectl("delete deployment,nodepool --all --namespace=default --wait=false", "").await?;
    wait::until("the class and its profile to be gone", PATIENCE, || async {
        let (class, profiles) = (class().await?, profiles().await?);
        ensure!(class.is_empty(), "{class} is there");
        ensure!(!profiles.contains("<InstanceProfileName>"), "{profiles}");
        Ok(())
    })
    .await
}

/// What node pools want of the cluster.
pub(crate) async fn install(world: &World) -> Result<()> {
    for folder in ["crds", "manifests/node-pools.yaml"] {
        let path = harness::source_tree().join(folder);
        world.kubectl(&format!("apply --server-side -f {}", path.display()), "").await?;
    }
    Ok(())
}

/// Load comes, pods come, nodes come; load goes, pods go, and nodes 30 s after they are empty.
async fn load_comes_and_goes(world: &World, walk: &Walk) -> Result<()> {
    let istio = IstioExporter::start().await?;
    let prometheus =
        Prometheus::start(world.control_plane.folder(), "prometheus", &[istio.address()]).await?;
    istio.set_total("nginx", 0);
    install(world).await?;
    world.start_tandem(walk.flags).await?;
    world.kubectl("apply -f -", walk.pool).await?;
    world.kubectl("apply -f -", NGINX).await?;
    wait::until("the ScaledObject to be admitted", PATIENCE, || async {
        world.kubectl("apply -f -", &SCALED_OBJECT.replace("SERVER", &prometheus.url())).await.map(drop)
    })
    .await?;

    istio.set_total("nginx", 60);
    wait::until("six pods to run on nodes of the pool", PATIENCE, || async {
        let (running, nodes) = (world.running("nginx").await?, nodes(world, walk.label).await?.len());
        ensure!(running == 6 && nodes > 0, "{running} of 6 run on {nodes} nodes");
        Ok(())
    })
    .await?;
    if let Some(wanted) = walk.family {
        for node in nodes(world, walk.label).await? {
            let seen = node.labels().get("karpenter.k8s.aws/instance-family").cloned();
            ensure!(seen.as_deref() == Some(wanted), "a node of {seen:?}, {wanted} is the cheapest");
        }
    }
    let claims = world.kubectl("get nodeclaims", "").await?;
    let header = claims.lines().next().unwrap_or_default();
    let columns: Vec<_> = header.split_whitespace().collect();
    ensure!(columns == ["NAME", "TYPE", "CAPACITY", "ZONE", "NODE", "READY", "AGE"], "{claims}");
    ensure!(claims.contains("on-demand") && claims.contains("True"), "{claims}");

    istio.set_total("nginx", 0);
    wait::until("the pods to go", PATIENCE, || async {
        let running = world.running("nginx").await?;
        ensure!(running == 0, "{running} still run");
        Ok(())
    })
    .await?;
    wait::until("the empty nodes to go", PATIENCE, || async {
        let nodes = nodes(world, walk.label).await?.len();
        ensure!(nodes == 0, "{nodes} are still there");
        Ok(())
    })
    .await
}
