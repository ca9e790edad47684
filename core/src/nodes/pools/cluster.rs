//! The cluster as node pools see it: what is there, what is on its way, and what can be had.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use kube::ResourceExt as _;

use super::{
    devices::Outfits,
    instance_type::InstanceType,
    names::condition,
    node_claim::{self, expected_node, holds, is_deleting, pool_of},
    pods::{is_provisionable, moves},
    requirements::{
        Requirement, Requirements, WellKnownLabels,
        labels::{CAPACITY_TYPE, INSTANCE_TYPE, NODE_POOL, ZONE},
    },
    solver::{self, NODES},
};
use crate::{
    api::karpenter::{NodeClaim, NodePoolSpec, RequirementWithMinValues},
    nodes::told::Told,
    scheduling::{Node, NodeId, Pod, Resources, Snapshot, Surroundings},
};

/// A pool, and what can be had of it.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// What it says.
    pub spec: NodePoolSpec,
    /// All instance types of its node class, those that are sold out included.
    pub types: Vec<Arc<InstanceType>>,
    /// Whether nodes may be launched of it: it is ready, and nobody deletes it.
    pub is_usable: bool,
    /// What its nodes told of themselves.
    pub told: Told,
}

/// Labels that every node of a pool has because the pool says so.
pub fn labels_of(name: &str, spec: &NodePoolSpec) -> BTreeMap<String, String> {
    let metadata = spec.template.metadata.as_ref();
    let mut labels = metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(NODE_POOL.to_owned(), name.to_owned());
    let class = &spec.template.spec.node_class_ref;
    labels.insert(format!("{}/{}", class.group, class.kind.to_lowercase()), class.name.clone());
    labels
}

impl Pool {
    /// What the labels of its nodes have to be.
    pub fn requirements(&self) -> Requirements {
        let mut requirements = RequirementWithMinValues::read_all(&self.spec.template.spec.requirements);
        let labels = labels_of(&self.name, &self.spec);
        requirements.extend(labels.iter().map(|(key, value)| Requirement::is(key, value)));
        requirements
    }

    /// What its nodes together may not exceed, by resource, in the units of [`Resources`]; [`NODES`] counts them.
    pub fn limits(&self) -> BTreeMap<Box<str>, i64> {
        let limits = self.spec.limits.iter().flatten();
        limits
            .map(|(name, quantity)| {
                let one = BTreeMap::from([(name.clone(), quantity.clone())]);
                (name.as_str().into(), Resources::from_list(&one).get(name))
            })
            .collect()
    }
}

/// The cluster as node pools see it.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// All NodeClaims.
    pub claims: Vec<Arc<NodeClaim>>,
    /// All pods.
    pub pods: Vec<Arc<Pod>>,
    /// A pod of each DaemonSet.
    pub daemon_sets: Vec<Arc<Pod>>,
    /// What else the scheduler reads.
    pub surroundings: Arc<Surroundings>,
    /// All pools.
    pub pools: Vec<Pool>,
    /// Pods that stand for the room of buffers; they are on no node.
    pub buffers: Vec<Arc<Pod>>,
    /// NodeClaims, by name, that will be deleted: their pods need room elsewhere, and nothing is put on their nodes.
    pub leaving: BTreeSet<Arc<str>>,
    /// Labels that a node will have although nobody asks for them.
    pub well_known: WellKnownLabels,
    /// Nodes of pools, by name, whose drivers may yet publish devices; `None` if claims of devices get no new nodes.
    pub settling: Option<BTreeSet<Arc<str>>>,
}

/// A node that is there, or on its way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Target {
    /// The name of its claim, if it has one.
    pub claim: Option<Arc<str>>,
    /// Its name, if it is there.
    pub node: Option<Arc<str>>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.claim, &self.node) {
            (Some(claim), Some(node)) => write!(f, "nodeclaim/{claim}, node/{node}"),
            (Some(claim), None) => write!(f, "nodeclaim/{claim}"),
            (None, Some(node)) => write!(f, "node/{node}"),
            (None, None) => f.write_str("nowhere"),
        }
    }
}

/// A claim with its node.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) claim: Arc<NodeClaim>,
    pub(super) name: Arc<str>,
    pub(super) node: Option<Arc<Node>>,
}

/// Nodes with their pods, to try things on.
pub(super) struct Layout {
    pub(super) snapshot: Snapshot,
    pub(super) targets: BTreeMap<NodeId, Target>,
    /// Nodes that are on their way.
    pub(super) uninitialized: BTreeSet<NodeId>,
}

impl Cluster {
    /// Claims with their nodes, in order of the claims' names.
    pub(super) fn members(&self) -> Vec<Member> {
        let by_provider: HashMap<&str, &Arc<Node>> = self
            .nodes
            .iter()
            .filter(|node| !node.provider_id.is_empty())
            .map(|node| (&*node.provider_id, node))
            .collect();
        let member = |claim: &Arc<NodeClaim>| {
            let provider = claim.status.as_ref().and_then(|status| status.provider_id.as_deref());
            let node = provider.and_then(|id| by_provider.get(id)).map(|node| (*node).clone());
            Member { claim: claim.clone(), name: claim.name_any().into(), node }
        };
        let mut members: Vec<_> = self.claims.iter().map(member).collect();
        members.sort_by(|left, right| left.name.cmp(&right.name));
        members
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| &*pool.name == name)
    }

    /// What the machines of each pool cost, dollars an hour; one whose price nobody knows costs nothing.
    pub fn costs(&self) -> BTreeMap<Arc<str>, f64> {
        let mut costs: BTreeMap<_, _> = self.pools.iter().map(|pool| (pool.name.clone(), 0.0)).collect();
        for claim in &self.claims {
            let Some(pool) = pool_of(claim).and_then(|pool| self.pool(pool)) else { continue };
            let name = claim.labels().get(INSTANCE_TYPE);
            let of = name.and_then(|name| pool.types.iter().find(|it| *it.name == **name));
            let price =
                of.map(|it| it.price_of_node(&Requirements::of_labels(claim.labels()), &self.well_known));
            *costs.entry(pool.name.clone()).or_default() += price.unwrap_or(0.0);
        }
        costs
    }

    /// How many claims of each pool [`costs`](Self::costs) leaves out: what they are is known, but not what their pool offers.
    pub fn unpriced(&self) -> BTreeMap<Arc<str>, usize> {
        let mut unpriced = BTreeMap::new();
        for claim in &self.claims {
            let is_known =
                [INSTANCE_TYPE, CAPACITY_TYPE, ZONE].iter().all(|key| claim.labels().contains_key(*key));
            if let Some(pool) = pool_of(claim).filter(|pool| is_known && self.pool(pool).is_none()) {
                *unpriced.entry(pool.into()).or_default() += 1;
            }
        }
        unpriced
    }

    /// Whether a claim goes, or will.
    pub(super) fn is_leaving(&self, claim: &NodeClaim) -> bool {
        is_deleting(claim) || self.leaving.contains(claim.name_any().as_str())
    }

    /// Pods that need a node: those that fit on none, and those whose node goes.
    pub fn needy(&self) -> Vec<Arc<Pod>> {
        let leaving: HashSet<Arc<str>> = self
            .members()
            .into_iter()
            .filter(|member| self.is_leaving(&member.claim))
            .filter_map(|member| Some(member.node?.name.clone()))
            .collect();
        let leaves = |pod: &Pod| pod.node.as_ref().is_some_and(|node| leaving.contains(node)) && moves(pod);
        self.pods.iter().filter(|pod| is_provisionable(pod) || leaves(pod)).cloned().collect()
    }

    /// Pools that new nodes may be of, as the solver has them.
    pub(super) fn offers<'a>(&'a self, daemons: &'a [Pod]) -> Vec<solver::Pool<'a>> {
        let usable = self.pools.iter().filter(|pool| pool.is_usable && !pool.spec.is_static());
        let mut equipped = self.outfits();
        usable
            .map(|pool| solver::Pool {
                outfits: self.settling.as_ref().map(|_| equipped.remove(&*pool.name).unwrap_or_default()),
                name: pool.name.clone(),
                weight: pool.spec.weight(),
                requirements: pool.requirements(),
                taints: pool.spec.template.spec.taints.clone().unwrap_or_default(),
                types: &pool.types,
                daemons,
                remaining: self.remaining(pool),
                told: pool.told.clone(),
            })
            .collect()
    }

    /// Which devices new nodes of pools have, by name; none as long as nobody can ask for any.
    fn outfits(&self) -> BTreeMap<&str, Outfits> {
        let is_class = self.surroundings.devices.as_ref().is_some_and(|devices| !devices.classes.is_empty());
        let Some(settling) = self.settling.as_ref().filter(|_| is_class) else { return BTreeMap::new() };
        let of_pool = |pool: &'_ Pool| Outfits::new(&pool.told.devices, &pool.types);
        let mut outfits: BTreeMap<_, _> =
            self.pools.iter().map(|pool| (&*pool.name, of_pool(pool))).collect();
        for Member { claim, node, .. } in self.members() {
            let named = claim.status.as_ref().and_then(|status| status.node_name.as_deref());
            let name = node.as_ref().map(|node| &*node.name).or(named);
            let settles = name.is_some_and(|name| settling.contains(name));
            if self.is_leaving(&claim) || holds(&claim, condition::INITIALIZED) && !settles {
                continue;
            }
            let Some(pool) = pool_of(&claim).and_then(|name| self.pool(name)) else { continue };
            let expected = expected_node(&claim, &pool.types, &self.well_known);
            let of_type = expected.as_ref().and_then(|node| node.labels.get(INSTANCE_TYPE));
            if let (Some(of_type), Some(outfits)) = (of_type, outfits.get_mut(&*pool.name)) {
                outfits.is_tried |= outfits.will_tell(of_type);
            }
        }
        outfits
    }

    /// What the limits of a pool leave. A claim without a machine counts as the greatest that it may become.
    pub(super) fn remaining(&self, pool: &Pool) -> BTreeMap<Box<str>, i64> {
        let mut remaining = pool.limits();
        if remaining.is_empty() {
            return remaining;
        }
        for claim in self.claims.iter().filter(|claim| pool_of(claim) == Some(&*pool.name)) {
            let used = node_claim::capacity(claim, &pool.types);
            for (name, left) in &mut remaining {
                *left = left.saturating_sub(if **name == *NODES { 1 } else { used.get(name) });
            }
        }
        remaining
    }

    /// The nodes that stay and those on their way, with their pods, those of `moving` (uids) excepted. Nodes that are there come
    /// first, then by name. A DaemonSet that has no pod yet on a node of a pool will have one.
    pub(super) fn lay_out(&self, moving: &HashSet<Arc<str>>) -> Layout {
        let outfits = self.outfits();
        let published = match &self.surroundings.devices {
            Some(devices) if !outfits.is_empty() => devices.by_node(),
            _ => BTreeMap::new(),
        };
        let complete = |node: &mut Node| {
            let outfits = node.labels.get(NODE_POOL).and_then(|pool| outfits.get(pool.as_str()));
            if let (Some(outfits), Some(of_type)) = (outfits, node.labels.get(INSTANCE_TYPE).cloned()) {
                outfits.complete(node, &of_type, &published);
            }
        };
        let settling = |name: &str| self.settling.as_ref().is_some_and(|settling| settling.contains(name));
        let mut hidden: HashSet<Arc<str>> = HashSet::new();
        let mut managed: Vec<NodeId> = Vec::new();
        let mut expected: Vec<(Target, Node)> = Vec::new();
        let mut claim_of: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        for Member { claim, name, node: real } in self.members() {
            let real_name = real.as_ref().map(|node| node.name.clone());
            if self.is_leaving(&claim) {
                hidden.extend(real_name);
            } else if holds(&claim, condition::INITIALIZED) {
                claim_of.extend(real_name.map(|node| (node, name)));
            } else {
                let types = pool_of(&claim).and_then(|pool| self.pool(pool)).map(|pool| &*pool.types);
                hidden.extend(real_name.clone());
                if let Some(mut node) = expected_node(&claim, types.unwrap_or_default(), &self.well_known) {
                    node.name = real_name.clone().unwrap_or(node.name);
                    complete(&mut node);
                    expected.push((Target { claim: Some(name), node: real_name }, node));
                }
            }
        }
        let mut layout = Layout {
            snapshot: Snapshot::new(self.surroundings.clone()),
            targets: BTreeMap::new(),
            uninitialized: BTreeSet::new(),
        };
        let mut by_name: HashMap<Arc<str>, NodeId> = HashMap::new();
        let mut there: Vec<&Arc<Node>> = self
            .nodes
            .iter()
            .filter(|node| node.deleting.is_none() && !hidden.contains(&node.name))
            .collect();
        there.sort_by(|left, right| left.name.cmp(&right.name));
        for node in there {
            let mut node = Cow::Borrowed(&**node);
            if settling(&node.name) {
                complete(node.to_mut());
            }
            let id = layout.snapshot.add_node(&node);
            by_name.insert(node.name.clone(), id);
            let claim = claim_of.get(&node.name).cloned();
            managed.extend(claim.is_some().then_some(id));
            layout.targets.insert(id, Target { claim, node: Some(node.name.clone()) });
        }
        for (target, node) in expected {
            let id = layout.snapshot.add_node(&node);
            by_name.insert(node.name.clone(), id);
            managed.push(id);
            layout.uninitialized.insert(id);
            layout.targets.insert(id, target);
        }
        let daemons = layout.bind(self, &by_name, moving);
        layout.expect_daemons(self, &managed, &daemons);
        layout
    }
}

impl Layout {
    /// Puts pods on their nodes; returns which DaemonSets, by uid, have one where.
    fn bind(
        &mut self,
        cluster: &Cluster,
        by_name: &HashMap<Arc<str>, NodeId>,
        moving: &HashSet<Arc<str>>,
    ) -> HashSet<(NodeId, Arc<str>)> {
        let mut daemons = HashSet::new();
        for pod in cluster.pods.iter().filter(|pod| !pod.is_terminal() && !moving.contains(&pod.uid)) {
            let Some(&node) = pod.node.as_ref().and_then(|node| by_name.get(node)) else { continue };
            let class = self.snapshot.class(pod);
            self.snapshot.settle(pod, class, node);
            if let Some(owner) = pod.shape.owner.as_ref().filter(|_| pod.is_of_daemon_set()) {
                daemons.insert((node, owner.uid.clone()));
            }
        }
        daemons
    }

    fn expect_daemons(&mut self, cluster: &Cluster, managed: &[NodeId], there: &HashSet<(NodeId, Arc<str>)>) {
        for daemon in &cluster.daemon_sets {
            let class = self.snapshot.class(daemon);
            let uid = daemon.shape.owner.as_ref().map(|owner| owner.uid.clone()).unwrap_or_default();
            for node in managed {
                if !there.contains(&(*node, uid.clone())) && self.snapshot.check(class, *node).is_ok() {
                    self.snapshot.bind(class, *node);
                }
            }
        }
    }
}
