//! What there is, under Karpenter's names (core, `pkg/controllers/metrics`): read at each scrape, so that a series lives exactly
//! as long as its object.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder},
};
use tandem_core::{
    nodes::pools::requirements::{
        WellKnownLabels,
        labels::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, NODE_POOL, ZONE},
    },
    scheduling::{
        Node, Pod, Resources,
        pod::{Owner, Phase},
    },
};
use tokio::time::Instant;

use super::{Pools, startups::Waits, transitions};
use crate::telemetry::metrics::gauges;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    resource_type: String,
    nodepool: String,
}

/// The labels of one node's series.
type NodeLabels = Arc<[(String, String)]>;

#[derive(Clone, Debug)]
struct OfNode {
    of: NodeLabels,
    resource_type: Option<String>,
}

impl EncodeLabelSet for OfNode {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.of.iter().try_for_each(|label| label.encode(encoder.encode_label()))?;
        self.resource_type
            .iter()
            .try_for_each(|kind| ("resource_type", kind.as_str()).encode(encoder.encode_label()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPod {
    name: String,
    namespace: String,
    owner: String,
    node: String,
    scheduled: &'static str,
    nodepool: String,
    zone: String,
    arch: String,
    capacity_type: String,
    instance_type: String,
    phase: &'static str,
    ready: &'static str,
    managed: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    goversion: &'static str,
    goarch: &'static str,
    commit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResource {
    resource_type: String,
}

/// No labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Nothing {}

/// The objects of node pools, as a collector.
pub struct Gauges {
    pools: Arc<Pools>,
    /// Its watches began then.
    since: Instant,
}

impl Gauges {
    /// Of these pools, whose watches have just begun.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { pools, since: Instant::now() }
    }

    fn of_state(&self, encoder: &mut DescriptorEncoder<'_>, nodes: &[Arc<Node>]) -> fmt::Result {
        let synced = self.pools.node_pools.is_synced() && self.pools.claims.is_synced();
        let help = "Whether NodePools and NodeClaims have been read";
        let is = [(Nothing {}, f64::from(u8::from(synced)))];
        gauges(encoder, "karpenter_cluster_state_synced", help, is)?;
        let help = "How long NodePools and NodeClaims have been waited for";
        let waited = if synced { 0.0 } else { self.since.elapsed().as_secs_f64() };
        gauges(encoder, "karpenter_cluster_state_unsynced_time_seconds", help, [(Nothing {}, waited)])?;
        let known: HashSet<&str> = nodes.iter().map(|node| &*node.provider_id).collect();
        let to_come = self.pools.claims.list("").into_iter().filter(|claim| {
            let id = claim.status.as_ref().and_then(|status| status.provider_id.as_deref());
            id.is_some_and(|id| !id.is_empty() && !known.contains(id))
        });
        let count = u32::try_from(nodes.len() + to_come.count()).unwrap_or(u32::MAX);
        let help = "Nodes of the cluster, machines that have yet to become one included";
        gauges(encoder, "karpenter_cluster_state_node_count", help, [(Nothing {}, f64::from(count))])
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let build = Build {
            version: env!("CARGO_PKG_VERSION"),
            goversion: concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
            goarch: std::env::consts::ARCH,
            commit: option_env!("GIT_COMMIT").unwrap_or("unknown"),
        };
        gauges(&mut encoder, "karpenter_build_info", "Version of the running binary", [(build, 1.0)])?;
        let pools = &self.pools;
        let nodes = pools.world.nodes.all();
        let pods = pools.world.pods.all();
        of_pools(&mut encoder, pools)?;
        of_nodes(&mut encoder, &nodes, &pods, pools.provider.well_known())?;
        of_pods(&mut encoder, &nodes, &pods)?;
        of_waits(&mut encoder, pools.startups.waits(&pods, Timestamp::now()))?;
        let help = "How long the search for nodes that goes on has taken so far";
        let unfinished = pools.metrics.scheduling.unfinished();
        gauges(&mut encoder, "karpenter_scheduler_unfinished_work_seconds", help, unfinished)?;
        transitions::encode(&mut encoder, pools)?;
        self.of_state(&mut encoder, &nodes)
    }
}

/// An amount of a resource as metrics have it: cores, and bytes or numbers of everything else.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn amount((name, amount): (&str, i64)) -> (String, f64) {
    let unit = if name == "cpu" { 1000.0 } else { 1.0 };
    (name.to_lowercase().replace('-', "_"), amount as f64 / unit)
}

fn amounts(resources: &Resources) -> impl Iterator<Item = (String, f64)> {
    resources.iter().map(amount)
}

fn of_pools(encoder: &mut DescriptorEncoder<'_>, pools: &Pools) -> fmt::Result {
    let pools = pools.node_pools.list("");
    let (mut usage, mut limits) = (Vec::new(), Vec::new());
    for pool in &pools {
        // What there is none of is said, too: a share of a limit is 0 then.
        let of = |series: &mut Vec<_>, list: &BTreeMap<String, Quantity>| {
            let (nodepool, resources) = (pool.name_any(), Resources::from_list(list));
            series.extend(list.keys().map(|name| {
                let (resource_type, amount) = amount((name, resources.get(name)));
                (OfPool { resource_type, nodepool: nodepool.clone() }, amount)
            }));
        };
        if let Some(used) = pool.status.as_ref().and_then(|status| status.resources.as_ref()) {
            of(&mut usage, used);
        }
        if let Some(most) = &pool.spec.limits {
            of(&mut limits, most);
        }
    }
    gauges(encoder, "karpenter_nodepools_usage", "What the nodes of a pool have together", usage)?;
    gauges(encoder, "karpenter_nodepools_limit", "Most that the nodes of a pool may have together", limits)
}

fn label(node: Option<&Node>, key: &str) -> String {
    node.and_then(|node| node.labels.get(key).cloned()).unwrap_or_default()
}

fn yes(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

/// What tells a node, with the well-known labels by the part of their names behind the slash, as `instance_type`.
fn of_node(node: &Node, well_known: &WellKnownLabels) -> NodeLabels {
    let part = |key: &str| key.split_once('/').map(|(_, part)| part.to_lowercase().replace('-', "_"));
    let named = well_known.iter().filter_map(|key| Some((part(key)?, label(Some(node), key))));
    let mut labels: BTreeMap<String, String> = named.collect();
    labels.insert("node_name".to_owned(), node.name.to_string());
    labels.insert("managed".to_owned(), yes(node.labels.contains_key(NODE_POOL)).to_owned());
    // No kubelet has said it for years.
    labels.insert("phase".to_owned(), String::new());
    labels.into_iter().collect()
}

/// What the pods of a node ask for, and may use.
#[derive(Default)]
struct Used {
    requests: Resources,
    limits: Resources,
    daemon_requests: Resources,
    daemon_limits: Resources,
}

fn used<'p>(pods: &'p [Arc<Pod>]) -> BTreeMap<&'p str, Used> {
    let mut used: BTreeMap<&'p str, Used> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.is_terminal()) {
        let Some(node) = pod.node.as_deref() else { continue };
        let of_node = used.entry(node).or_default();
        of_node.requests.add(&pod.shape.requests);
        of_node.limits.add(&pod.shape.limits);
        if pod.is_of_daemon_set() {
            of_node.daemon_requests.add(&pod.shape.requests);
            of_node.daemon_limits.add(&pod.shape.limits);
        }
    }
    used
}

/// What of a node's use one metric shows.
type Share = fn(&Used) -> &Resources;

fn of_nodes(
    encoder: &mut DescriptorEncoder<'_>,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    well_known: &WellKnownLabels,
) -> fmt::Result {
    let (used, none) = (used(pods), Used::default());
    let of = |node: &Node| used.get(&*node.name).unwrap_or(&none);
    let labelled: Vec<_> = nodes.iter().map(|node| (&**node, of_node(node, well_known))).collect();
    let mut series = |name: &str, help: &str, what: &dyn Fn(&Node) -> Vec<(String, f64)>| {
        let each = labelled.iter().flat_map(|(node, of)| {
            let amounts = what(node);
            let labels = |kind| OfNode { of: of.clone(), resource_type: Some(kind) };
            amounts.into_iter().map(move |(kind, amount)| (labels(kind), amount))
        });
        gauges(encoder, &format!("karpenter_nodes_{name}"), help, each)
    };
    series("allocatable", "What pods may use of a node", &|node| amounts(&node.allocatable).collect())?;
    let shares: [(&str, &str, Share); 4] = [
        ("total_pod_requests", "What the pods of a node request", |used| &used.requests),
        ("total_pod_limits", "The most that the pods of a node may use", |used| &used.limits),
        ("total_daemon_requests", "What the DaemonSets' pods of a node request", |used| {
            &used.daemon_requests
        }),
        ("total_daemon_limits", "The most that the DaemonSets' pods of a node may use", |used| {
            &used.daemon_limits
        }),
    ];
    for (name, help, share) in shares {
        series(name, help, &|node| amounts(share(of(node))).collect())?;
    }
    series("system_overhead", "What the kubelet and the system keep of a node", &|node| {
        let kept = |(name, all)| amount((name, all - node.allocatable.get(name)));
        node.capacity.iter().map(kept).collect()
    })?;
    let now = Timestamp::now();
    let ages = labelled.iter().filter_map(|(node, of)| {
        let labels = OfNode { of: of.clone(), resource_type: None };
        Some((labels, now.duration_since(node.created?).as_secs_f64()))
    });
    gauges(encoder, "karpenter_nodes_current_lifetime_seconds", "How long a node has been there", ages)?;
    let (mut all, mut requested) = (Resources::default(), Resources::default());
    for node in nodes {
        all.add(&node.allocatable);
        requested.add(&of(node).requests);
    }
    let requested: BTreeMap<_, _> = amounts(&requested).collect();
    let shares = amounts(&all).filter(|(_, all)| *all > 0.0).map(|(resource_type, all)| {
        let share = requested.get(&resource_type).copied().unwrap_or_default() / all * 100.0;
        (OfResource { resource_type }, share)
    });
    let help = "How much of all nodes pods request, percent";
    gauges(encoder, "karpenter_cluster_utilization_percent", help, shares)
}

/// What pods that have yet to start wait for.
fn of_waits(encoder: &mut DescriptorEncoder<'_>, waits: Waits) -> fmt::Result {
    let Waits { unstarted, unbound, placed_unstarted, placed_unbound, undecided } = waits;
    for (name, help, series) in [
        ("unstarted_time", "Since the creation of a pod that is not ready yet", unstarted),
        ("unbound_time", "Since the creation of a pod that has no node yet", unbound),
        (
            "provisioning_unstarted_time",
            "Since there was first a place for a pod that is not ready yet",
            placed_unstarted,
        ),
        (
            "provisioning_unbound_time",
            "Since there was first a place for a pod that has no node yet",
            placed_unbound,
        ),
        (
            "provisioning_scheduling_undecided_time",
            "Since a pod was first seen to need a node that has not been thought about yet",
            undecided,
        ),
    ] {
        gauges(encoder, &format!("karpenter_pods_{name}_seconds"), help, series)?;
    }
    Ok(())
}

/// The path of the object that owns a pod.
fn owner(pod: &Pod) -> String {
    let path = |owner: &Owner| {
        let (version, namespace) = (&owner.api_version, &pod.shape.namespace);
        format!("/apis/{version}/namespaces/{namespace}/{}s/{}", owner.kind.to_lowercase(), owner.name)
    };
    pod.shape.owner.as_ref().map(path).unwrap_or_default()
}

fn of_pods(encoder: &mut DescriptorEncoder<'_>, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> fmt::Result {
    let nodes: BTreeMap<&str, &Node> = nodes.iter().map(|node| (&*node.name, &**node)).collect();
    let series = pods.iter().map(|pod| {
        let node = pod.node.as_deref().and_then(|name| nodes.get(name).copied());
        let nodepool = label(node, NODE_POOL);
        let labels = OfPod {
            name: pod.name.to_string(),
            namespace: pod.shape.namespace.to_string(),
            owner: owner(pod),
            node: pod.node.as_deref().unwrap_or_default().to_owned(),
            scheduled: yes(pod.node.is_some()),
            managed: yes(!nodepool.is_empty()),
            nodepool,
            zone: label(node, ZONE),
            arch: label(node, ARCH),
            capacity_type: label(node, CAPACITY_TYPE),
            instance_type: label(node, INSTANCE_TYPE),
            phase: phase(pod.phase),
            ready: yes(pod.ready),
        };
        (labels, 1.0)
    });
    gauges(encoder, "karpenter_pods_state", "Each pod, and where it is", series)
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
        Phase::Unknown => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tandem_core::scheduling::pod::{Shape, Traits};

    use super::*;
    use crate::telemetry::metrics::text;

    #[derive(Debug)]
    struct Of(Vec<Arc<Node>>, Vec<Arc<Pod>>);

    impl Collector for Of {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            let well_known = WellKnownLabels::default().with(["karpenter.k8s.aws/instance-cpu"]);
            of_nodes(&mut encoder, &self.0, &self.1, &well_known)?;
            of_pods(&mut encoder, &self.0, &self.1)
        }
    }

    #[test]
    fn nodes_and_their_pods_are_shown() {
        let resources = |cpu, storage| Resources { cpu, storage, ..Resources::default() };
        let cpus = ("karpenter.k8s.aws/instance-cpu", "4");
        let labels = [(NODE_POOL, "default"), (ZONE, "a"), (CAPACITY_TYPE, "spot"), cpus];
        let node = Node {
            name: "n".into(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            capacity: resources(4000, 7),
            allocatable: resources(3500, 7),
            created: Some(Timestamp::UNIX_EPOCH),
            ..Node::default()
        };
        let pod = |name: &str, kind: &str, cpu| {
            let owner = Owner {
                kind: kind.into(),
                name: "web".into(),
                uid: "u".into(),
                api_version: "apps/v1".into(),
            };
            let traits = Traits { namespace: "ns".into(), owner: Some(owner), ..Traits::default() };
            let limits = resources(2 * cpu, 0);
            let shape = Arc::new(Shape { limits, ..Shape::new(resources(cpu, 0), traits) });
            let (node, phase) = (Some("n".into()), Phase::Running);
            Arc::new(Pod { name: name.into(), shape, node, phase, ..Pod::default() })
        };
        let pods = vec![pod("a", "ReplicaSet", 500), pod("b", "DaemonSet", 200)];
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Of(vec![Arc::new(node)], pods)));
        let text = text(&registry).unwrap();
        let value = |name: &str, with: &[&str]| {
            let line =
                text.lines().find(|line| line.starts_with(name) && with.iter().all(|it| line.contains(it)));
            line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
        };
        let of_node = [
            r#"node_name="n""#,
            r#"nodepool="default""#,
            r#"zone="a""#,
            r#"capacity_type="spot""#,
            r#"instance_cpu="4""#,
            r#"windows_build="""#,
            r#"managed="true""#,
            r#"phase="""#,
        ];
        let cpu = &[&of_node[..], &[r#"resource_type="cpu""#]].concat()[..];
        let storage = &[r#"resource_type="ephemeral_storage""#][..];
        for (name, with, wanted) in [
            ("karpenter_nodes_allocatable{", cpu, "3.5"),
            ("karpenter_nodes_system_overhead{", cpu, "0.5"),
            ("karpenter_nodes_system_overhead{", storage, "0.0"),
            ("karpenter_nodes_total_pod_requests{", cpu, "0.7"),
            ("karpenter_nodes_total_pod_limits{", cpu, "1.4"),
            ("karpenter_nodes_total_daemon_requests{", cpu, "0.2"),
            ("karpenter_nodes_total_daemon_limits{", cpu, "0.4"),
            ("karpenter_nodes_allocatable{", storage, "7.0"),
            ("karpenter_cluster_utilization_percent{", storage, "0.0"),
            ("karpenter_cluster_utilization_percent{", &[r#"resource_type="cpu""#], "20.0"),
            (
                "karpenter_pods_state{",
                &[
                    r#"name="a""#,
                    r#"phase="Running""#,
                    r#"capacity_type="spot""#,
                    r#"owner="/apis/apps/v1/namespaces/ns/replicasets/web""#,
                ],
                "1.0",
            ),
        ] {
            assert_eq!(value(name, with).as_deref(), Some(wanted), "{name}\n{text}");
        }
        assert!(value("karpenter_nodes_current_lifetime_seconds{", &of_node).is_some(), "{text}");
    }
}
