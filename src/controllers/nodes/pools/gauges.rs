//! What there is, under Karpenter's names (core, `pkg/controllers/metrics`): read at each scrape, so that a series lives exactly
//! as long as its object.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
};
use tandem_core::{
    nodes::pools::requirements::labels::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, NODE_POOL, OS, REGION, ZONE},
    scheduling::{Node, Pod, Resources, pod::Phase},
};

use super::{Pools, transitions};
use crate::telemetry::metrics::gauges;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    resource_type: String,
    nodepool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNode {
    resource_type: String,
    node_name: String,
    nodepool: String,
    capacity_type: String,
    instance_type: String,
    zone: String,
    region: String,
    arch: String,
    os: String,
    node_phase: &'static str,
    managed: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lifetime {
    node_name: String,
    nodepool: String,
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
    goarch: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResource {
    resource_type: String,
}

/// No labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Nothing {}

/// The objects of node pools, as a collector.
pub struct Gauges(pub Arc<Pools>);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let build = Build { version: env!("CARGO_PKG_VERSION"), goarch: std::env::consts::ARCH };
        gauges(&mut encoder, "karpenter_build_info", "Version of the running binary", [(build, 1.0)])?;
        let pools = &self.0;
        let nodes = pools.world.nodes.all();
        let pods = pools.world.pods.all();
        of_pools(&mut encoder, pools)?;
        of_nodes(&mut encoder, &nodes, &pods)?;
        of_pods(&mut encoder, &nodes, &pods)?;
        transitions::encode(&mut encoder, pools)?;
        let synced = pools.node_pools.is_synced() && pools.claims.is_synced();
        let help = "Whether NodePools and NodeClaims have been read";
        let synced = [(Nothing {}, f64::from(u8::from(synced)))];
        gauges(&mut encoder, "karpenter_cluster_state_synced", help, synced)?;
        let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let help = "Nodes of the cluster";
        gauges(&mut encoder, "karpenter_cluster_state_node_count", help, [(Nothing {}, f64::from(count))])
    }
}

/// Amounts by resource: cores, and bytes or numbers of everything else.
fn amounts(resources: &Resources) -> impl Iterator<Item = (String, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    let float = |(name, amount): (&str, i64)| {
        let amount = amount as f64;
        (name.to_owned(), if name == "cpu" { amount / 1000.0 } else { amount })
    };
    resources.iter().map(float)
}

fn of_pools(encoder: &mut DescriptorEncoder<'_>, pools: &Pools) -> fmt::Result {
    let pools = pools.node_pools.list("");
    let mut usage = Vec::new();
    let mut limits = Vec::new();
    for pool in &pools {
        let of = |series: &mut Vec<_>, resources: &Resources| {
            let nodepool = pool.name_any();
            series.extend(amounts(resources).map(|(resource_type, amount)| {
                (OfPool { resource_type, nodepool: nodepool.clone() }, amount)
            }));
        };
        if let Some(used) = pool.status.as_ref().and_then(|status| status.resources.as_ref()) {
            of(&mut usage, &Resources::from_list(used));
        }
        if let Some(most) = &pool.spec.limits {
            of(&mut limits, &Resources::from_list(most));
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

fn of_node(node: &Node, resource_type: String) -> OfNode {
    let nodepool = label(Some(node), NODE_POOL);
    OfNode {
        resource_type,
        node_name: node.name.to_string(),
        managed: yes(!nodepool.is_empty()),
        nodepool,
        capacity_type: label(Some(node), CAPACITY_TYPE),
        instance_type: label(Some(node), INSTANCE_TYPE),
        zone: label(Some(node), ZONE),
        region: label(Some(node), REGION),
        arch: label(Some(node), ARCH),
        os: label(Some(node), OS),
        node_phase: if node.deleting.is_some() { "Terminated" } else { "Running" },
    }
}

fn of_nodes(encoder: &mut DescriptorEncoder<'_>, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> fmt::Result {
    let mut requested: BTreeMap<&str, (Resources, Resources)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.is_terminal()) {
        let Some(node) = pod.node.as_deref() else { continue };
        let (all, of_daemons) = requested.entry(node).or_default();
        all.add(&pod.shape.requests);
        if pod.is_of_daemon_set() {
            of_daemons.add(&pod.shape.requests);
        }
    }
    let none = (Resources::default(), Resources::default());
    let of = |node: &Node| requested.get(&*node.name).unwrap_or(&none).clone();
    let mut overhead = |node: &Node| {
        let mut kept = node.capacity.clone();
        kept.subtract(&node.allocatable);
        kept
    };
    let mut series = |name: &str, help: &str, what: &mut dyn FnMut(&Node) -> Resources| {
        let each = nodes.iter().flat_map(|node| {
            let node: &Node = node;
            let amounts: Vec<_> = amounts(&what(node)).collect();
            amounts.into_iter().map(move |(resource, amount)| (of_node(node, resource), amount))
        });
        gauges(encoder, &format!("karpenter_nodes_{name}"), help, each)
    };
    series("allocatable", "What pods may use of a node", &mut |node| node.allocatable.clone())?;
    series("total_pod_requests", "What the pods of a node request", &mut |node| of(node).0)?;
    series("total_daemon_requests", "What the DaemonSets' pods of a node request", &mut |node| of(node).1)?;
    series("system_overhead", "What the kubelet and the system keep of a node", &mut overhead)?;
    let now = Timestamp::now();
    let ages = nodes.iter().filter_map(|node| {
        let labels = Lifetime { node_name: node.name.to_string(), nodepool: label(Some(node), NODE_POOL) };
        Some((labels, now.duration_since(node.created?).as_secs_f64()))
    });
    gauges(encoder, "karpenter_nodes_current_lifetime_seconds", "How long a node has been there", ages)?;
    let (mut all, mut used) = (Resources::default(), Resources::default());
    for node in nodes {
        all.add(&node.allocatable);
        used.add(&of(node).0);
    }
    let all: BTreeMap<_, _> = amounts(&all).collect();
    let shares = amounts(&used).filter_map(|(resource_type, used)| {
        let share = used / all.get(&resource_type).copied().filter(|all| *all > 0.0)? * 100.0;
        Some((OfResource { resource_type }, share))
    });
    let help = "How much of all nodes pods request, percent";
    gauges(encoder, "karpenter_cluster_utilization_percent", help, shares)
}

fn of_pods(encoder: &mut DescriptorEncoder<'_>, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> fmt::Result {
    let nodes: BTreeMap<&str, &Node> = nodes.iter().map(|node| (&*node.name, &**node)).collect();
    let series = pods.iter().map(|pod| {
        let node = pod.node.as_deref().and_then(|name| nodes.get(name).copied());
        let owner = pod.shape.owner.as_ref();
        let nodepool = label(node, NODE_POOL);
        let labels = OfPod {
            name: pod.name.to_string(),
            namespace: pod.shape.namespace.to_string(),
            owner: owner.map(|owner| format!("{}/{}", owner.kind, owner.name)).unwrap_or_default(),
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
    use tandem_core::scheduling::pod::{Owner, Shape, Traits};

    use super::*;
    use crate::telemetry::metrics::text;

    #[derive(Debug)]
    struct Of(Vec<Arc<Node>>, Vec<Arc<Pod>>);

    impl Collector for Of {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            of_nodes(&mut encoder, &self.0, &self.1)?;
            of_pods(&mut encoder, &self.0, &self.1)
        }
    }

    #[test]
    fn nodes_and_their_pods_are_shown() {
        let resources = |cpu, memory| Resources { cpu, memory, ..Resources::default() };
        let labels = [(NODE_POOL, "default"), (ZONE, "a"), (CAPACITY_TYPE, "spot")];
        let node = Node {
            name: "n".into(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            capacity: resources(4000, 100),
            allocatable: resources(3500, 100),
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
            let shape = Arc::new(Shape::new(resources(cpu, 0), traits));
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
        let cpu = &[r#"resource_type="cpu""#, r#"node_name="n""#, r#"nodepool="default""#, r#"zone="a""#][..];
        for (name, with, wanted) in [
            ("karpenter_nodes_allocatable{", cpu, "3.5"),
            ("karpenter_nodes_system_overhead{", cpu, "0.5"),
            ("karpenter_nodes_total_pod_requests{", cpu, "0.7"),
            ("karpenter_nodes_total_daemon_requests{", cpu, "0.2"),
            ("karpenter_cluster_utilization_percent{", &[r#"resource_type="cpu""#], "20.0"),
            (
                "karpenter_pods_state{",
                &[r#"name="a""#, r#"phase="Running""#, r#"capacity_type="spot""#],
                "1.0",
            ),
        ] {
            assert_eq!(value(name, with).as_deref(), Some(wanted), "{name}\n{text}");
        }
    }
}
