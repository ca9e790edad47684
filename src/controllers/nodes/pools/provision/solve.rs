//! Where pods could run: on nodes that are there or on their way, else on new ones.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::pools::{instance_type::InstanceType, requirements::labels::INSTANCE_TYPE},
    scheduling::{NodeId, Pod, Resources, Snapshot},
};

use super::super::{
    Pools,
    claim::{self, expected_node, holds, is_deleting},
    names::{DISRUPTED, condition},
    pack::{NewNode, Source, Terms, daemons, pack},
    view::Pool,
};

/// Where pods go.
#[derive(Debug)]
pub(in super::super) struct Solution {
    /// The pods, in the order in which they were thought about.
    pub(in super::super) pods: Vec<Arc<Pod>>,
    /// Places of pods with the names of nodes, or of claims that are no nodes yet.
    pub(in super::super) placed: Vec<(usize, String)>,
    /// New nodes for others.
    pub(in super::super) nodes: Vec<NewNode>,
    /// Places of pods that run nowhere, and why.
    pub(in super::super) unschedulable: Vec<(usize, String)>,
}

/// Finds nodes for pods, none of them one of the claims `except`.
pub(in super::super) async fn solve(
    pools: &Pools,
    mut pods: Vec<Arc<Pod>>,
    except: &HashSet<String>,
    now: Timestamp,
) -> Solution {
    pods.sort_by_cached_key(|pod| {
        let requests = &pod.shape.requests;
        (Reverse(requests.cpu), Reverse(requests.memory), pod.created, pod.uid.clone())
    });
    let served = served(pools, now).await;
    let moving: HashSet<Arc<str>> = pods.iter().map(|pod| pod.uid.clone()).collect();
    let (mut snapshot, names) = snapshot(pools, &served, &moving, except);
    let mut placed = Vec::new();
    let mut left = Vec::new();
    for (place, pod) in pods.iter().enumerate() {
        let class = snapshot.class(pod);
        match snapshot.find(class, None) {
            Some(node) => {
                snapshot.bind(class, node);
                placed.extend(names.get(&node).map(|name| (place, name.clone())));
            }
            None => left.push(place),
        }
    }
    let mut sources = sources(pools, &served);
    let terms = Terms {
        well_known: pools.provider.well_known(),
        min_values: pools.settings.min_values_policy.into(),
    };
    let waiting: Vec<Arc<Pod>> = left.iter().map(|place| pods[*place].clone()).collect();
    let mut packing = pack(&mut snapshot, &mut sources, terms, &waiting);
    for node in &mut packing.nodes {
        node.pods.iter_mut().for_each(|place| *place = left[*place]);
    }
    let unschedulable = packing.unschedulable.into_iter().map(|(place, why)| (left[place], why)).collect();
    Solution { pods, placed, nodes: packing.nodes, unschedulable }
}

/// Pools with what can be had of them, in the order in which they are tried: by weight, the later name first.
type Served = Vec<(Arc<Pool>, Vec<Arc<InstanceType>>)>;

async fn served(pools: &Pools, now: Timestamp) -> Served {
    let mut served = Vec::new();
    for pool in pools.pools() {
        match pools.provider.instance_types(&pool.class).await {
            Ok(types) => served.push((pool, pools.sold_out.mask(&types, now))),
            Err(error) => tracing::warn!(pool = pool.name, %error, "its instance types cannot be told"),
        }
    }
    served.sort_by_key(|(pool, _)| (Reverse(pool.spec.weight()), Reverse(pool.name.clone())));
    served
}

/// Pools that new nodes may be of.
fn sources(pools: &Pools, served: &Served) -> Vec<Source> {
    let daemon_sets = pools.world.daemon_sets.all();
    let usable =
        served.iter().filter(|(pool, _)| pool.is_ready && !pool.is_deleting && !pool.spec.is_static());
    usable
        .map(|(pool, types)| Source {
            pool: pool.clone(),
            left: limits_left(pools, pool, types),
            daemons: daemons(pool, &daemon_sets, pools.provider.well_known()),
            types: types.clone(),
        })
        .collect()
}

/// What the limits of a pool leave. A claim without a machine counts as the greatest that it may become.
fn limits_left(
    pools: &Pools,
    pool: &Pool,
    types: &[Arc<InstanceType>],
) -> std::collections::BTreeMap<String, i64> {
    let mut left = pool.limits();
    if left.is_empty() {
        return left;
    }
    for claim in pools.claims_of(Some(&pool.name)) {
        let written = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
        let used = match written {
            Some(capacity) => Resources::from_list(capacity),
            None => most_of(&claim, types),
        };
        for (name, left) in &mut left {
            *left -= if name == "nodes" { 1 } else { used.get(name) };
        }
    }
    left
}

fn most_of(claim: &NodeClaim, types: &[Arc<InstanceType>]) -> Resources {
    let required = claim::requirements(claim);
    let mut most = Resources::default();
    for one in types.iter().filter(|one| required.allows(INSTANCE_TYPE, &one.name)) {
        most.raise_to(&one.capacity);
    }
    most
}

/// The cluster as it will be: nodes that stay with their pods, and claims that are no nodes yet. Pods that are to be placed
/// are nowhere in it. Returns the names of nodes, too: of those on their way, their claims'.
fn snapshot(
    pools: &Pools,
    served: &Served,
    moving: &HashSet<Arc<str>>,
    except: &HashSet<String>,
) -> (Snapshot, HashMap<NodeId, String>) {
    let mut snapshot = Snapshot::new(Arc::new(pools.world.surroundings()));
    let mut names = HashMap::new();
    let mut by_name: HashMap<Arc<str>, NodeId> = HashMap::new();
    // Nodes that are looked at as their claims, or not at all.
    let mut hidden: HashSet<Arc<str>> = HashSet::new();
    let mut expected: HashSet<NodeId> = HashSet::new();
    let daemon_sets = pools.world.daemon_sets.all();
    let well_known = pools.provider.well_known();
    for claim in pools.claims_of(None) {
        let name = claim.name_any();
        let real = pools.node_of(&claim);
        if is_deleting(&claim) || except.contains(&name) {
            hidden.extend(real.map(|node| node.name.clone()));
            continue;
        }
        if holds(&claim, condition::INITIALIZED) {
            continue;
        }
        let pool = super::super::pool_of(&claim);
        let found = served.iter().find(|(served, _)| Some(served.name.as_str()) == pool);
        let types = found.map(|(_, types)| types.as_slice()).unwrap_or_default();
        let Some(mut node) = expected_node(&claim, types, well_known) else { continue };
        if let Some((pool, _)) = found {
            node.allocatable.subtract(&daemons(pool, &daemon_sets, well_known));
        }
        let real_name = real.map_or_else(|| node.name.clone(), |real| real.name.clone());
        hidden.insert(real_name.clone());
        node.name = real_name.clone();
        let id = snapshot.add_node(&node);
        expected.insert(id);
        names.insert(id, name);
        by_name.insert(real_name, id);
    }
    for node in pools.world.nodes() {
        if !hidden.contains(&node.name) && node.deleting.is_none() && node.taint(DISRUPTED).is_none() {
            let id = snapshot.add_node(&node);
            names.insert(id, node.name.to_string());
            by_name.insert(node.name.clone(), id);
        }
    }
    for pod in pools.world.pods.all().iter().filter(|pod| !pod.is_terminal() && !moving.contains(&pod.uid)) {
        let on = pod.node.as_ref().and_then(|node| by_name.get(node));
        // What DaemonSets take of a node on its way is taken off it already.
        if let Some(id) = on.filter(|id| !(pod.is_of_daemon_set() && expected.contains(*id))) {
            let class = snapshot.class(pod);
            snapshot.bind(class, *id);
        }
    }
    (snapshot, names)
}
