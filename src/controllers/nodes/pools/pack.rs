//! Which new nodes pods need, and of which pools.
//!
//! [`pack`] is the one way in. Requirements, sizes and prices are decided by [`select::pack`]; the scheduling simulation then
//! says which of the pods the node would really take, since spread and affinity are not part of that.

use std::{collections::BTreeMap, sync::Arc};

use tandem_core::{
    nodes::pools::{
        instance_type::InstanceType,
        launch::{MOST_INSTANCE_TYPES, MinValuesPolicy},
        requirements::{Requirements, WellKnownLabels},
        select,
    },
    scheduling::{NodeId, Pod, Resources, Snapshot, taints::untolerated},
};

use super::{claim::imagined_node, view::Pool};

/// A pool that new nodes may be of.
#[derive(Debug)]
pub(super) struct Source {
    /// The pool.
    pub(super) pool: Arc<Pool>,
    /// What can be had.
    pub(super) types: Vec<Arc<InstanceType>>,
    /// What its limits leave, by resource.
    pub(super) left: BTreeMap<String, i64>,
    /// What DaemonSets take of each node.
    pub(super) daemons: Resources,
}

/// What holds for all pools.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Labels that nodes have although nobody asks for them.
    pub(super) well_known: &'a WellKnownLabels,
    /// What becomes of pods if there is less choice than their pool asks for.
    pub(super) min_values: MinValuesPolicy,
}

/// A node to be asked for.
#[derive(Debug)]
pub(super) struct NewNode {
    /// Its pool.
    pub(super) pool: Arc<Pool>,
    /// What it has to be.
    pub(super) claim: select::Claim,
    /// Its pods, as places in the list that was packed.
    pub(super) pods: Vec<usize>,
}

/// Where pods went.
#[derive(Debug, Default)]
pub(super) struct Packing {
    /// New nodes.
    pub(super) nodes: Vec<NewNode>,
    /// Pods that no new node can take, as places in the list that was packed, and why.
    pub(super) unschedulable: Vec<(usize, String)>,
}

/// Packs pods on new nodes of the first pool that will do; new nodes are in the snapshot afterwards.
pub(super) fn pack(
    snapshot: &mut Snapshot,
    sources: &mut [Source],
    terms: Terms<'_>,
    pods: &[Arc<Pod>],
) -> Packing {
    let mut packer = Packer { snapshot, terms, pods, reasons: BTreeMap::new(), packing: Packing::default() };
    let mut left: Vec<usize> = (0..pods.len()).collect();
    for source in sources {
        left = packer.fill(source, left);
    }
    let Packer { mut packing, reasons, .. } = packer;
    packing.unschedulable = left
        .into_iter()
        .map(|place| {
            let why = reasons.get(&place).map(|reasons| reasons.join("; "));
            (place, why.unwrap_or_else(|| "there is no NodePool that is ready".to_owned()))
        })
        .collect();
    packing
}

struct Packer<'a> {
    snapshot: &'a mut Snapshot,
    terms: Terms<'a>,
    pods: &'a [Arc<Pod>],
    reasons: BTreeMap<usize, Vec<String>>,
    packing: Packing,
}

impl Packer<'_> {
    /// Puts on new nodes of a pool what it can take; returns the rest.
    fn fill(&mut self, source: &mut Source, places: Vec<usize>) -> Vec<usize> {
        let taints = source.pool.spec.template.spec.taints.clone().unwrap_or_default();
        let mut refused = Vec::new();
        let mut left = Vec::new();
        for place in places {
            match untolerated(&taints, &self.pods[place].shape.tolerations) {
                Some(taint) => {
                    let taint = format!("did not tolerate taint (taint={}:{})", taint.key, taint.effect);
                    self.refuse(&source.pool, place, &taint);
                    refused.push(place);
                }
                None => left.push(place),
            }
        }
        // What the simulation takes off a node goes on the next one, as long as each takes some.
        while !left.is_empty() {
            let before = left.len();
            let (again, hopeless) = self.round(source, &left);
            refused.extend(hopeless);
            left = again;
            if left.len() == before {
                break;
            }
        }
        refused.extend(left);
        refused.sort_unstable();
        refused
    }

    fn refuse(&mut self, pool: &Pool, place: usize, why: &str) {
        let why = format!("incompatible with nodepool {:?}, {why}", pool.name);
        let reasons = self.reasons.entry(place).or_default();
        if !reasons.contains(&why) {
            reasons.push(why);
        }
    }

    /// One packing: pods to try again, and pods that this pool cannot take.
    fn round(&mut self, source: &mut Source, places: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let (mut again, mut hopeless) = (Vec::new(), Vec::new());
        let packed = self.select(source, places);
        for (place, why) in packed.unschedulable {
            self.refuse(&source.pool, places[place], &why.to_string());
            hopeless.push(places[place]);
        }
        for claim in packed.claims {
            let wanted: Vec<usize> = claim.pods.iter().map(|place| places[*place]).collect();
            let Some(claim) = within_limits(source, claim) else {
                for place in wanted {
                    self.refuse(
                        &source.pool,
                        place,
                        "all available instance types exceed limits for nodepool",
                    );
                    hopeless.push(place);
                }
                continue;
            };
            let Some((node, taken)) = self.try_on(source, &claim, &wanted) else {
                again.extend(wanted);
                continue;
            };
            again.extend(wanted.iter().filter(|place| !taken.contains(place)));
            let kept =
                if taken.len() == wanted.len() { Some(claim) } else { self.shrink(source, &taken, node) };
            match kept {
                Some(claim) => {
                    spend(source, &claim);
                    self.packing.nodes.push(NewNode { pool: source.pool.clone(), claim, pods: taken });
                }
                None => again.extend(taken),
            }
        }
        (again, hopeless)
    }

    fn select(&self, source: &Source, places: &[usize]) -> select::Packing {
        let pool = select::Pool {
            requirements: source.pool.requirements(),
            types: &source.types,
            daemons: source.daemons.clone(),
            min_values: self.terms.min_values,
            most_types: MOST_INSTANCE_TYPES,
            well_known: self.terms.well_known,
        };
        let pods: Vec<Pod> = places.iter().map(|place| (*self.pods[*place]).clone()).collect();
        select::pack(&pool, &pods)
    }

    /// Puts pods on the node that a claim would become; `None` if it takes none of them.
    fn try_on(
        &mut self,
        source: &Source,
        claim: &select::Claim,
        places: &[usize],
    ) -> Option<(NodeId, Vec<usize>)> {
        let name = format!("{}/{}", source.pool.name, self.packing.nodes.len());
        let mut node = imagined_node(&source.pool, claim, &name, self.terms.well_known)?;
        node.allocatable.subtract(&source.daemons);
        let id = self.snapshot.add_node(&node);
        let mut taken = Vec::new();
        for place in places {
            let class = self.snapshot.class(&self.pods[*place]);
            match self.snapshot.check(class, id) {
                Ok(()) => {
                    self.snapshot.bind(class, id);
                    taken.push(*place);
                }
                Err(why) => self.refuse(&source.pool, *place, &why.to_string()),
            }
        }
        if taken.is_empty() {
            self.snapshot.remove_node(id);
            return None;
        }
        Some((id, taken))
    }

    /// The claim for those pods alone that the node really takes: it was made for more.
    fn shrink(&mut self, source: &Source, taken: &[usize], node: NodeId) -> Option<select::Claim> {
        let mut packed = self.select(source, taken);
        let claim =
            packed.claims.pop().filter(|claim| packed.claims.is_empty() && claim.pods.len() == taken.len());
        let claim = claim.and_then(|claim| within_limits(source, claim));
        if claim.is_none() {
            self.snapshot.remove_node(node);
        }
        claim
    }
}

/// The claim without the instance types that the limits of its pool do not allow; `None` if none is left.
fn within_limits(source: &Source, mut claim: select::Claim) -> Option<select::Claim> {
    let allowed = |instance_type: &Arc<InstanceType>| {
        source.left.iter().all(|(name, left)| match name.as_str() {
            "nodes" => *left >= 1,
            name => instance_type.capacity.get(name) <= *left,
        })
    };
    claim.types.retain(allowed);
    (!claim.types.is_empty()).then_some(claim)
}

/// Takes off the limits the most that a claim may become.
fn spend(source: &mut Source, claim: &select::Claim) {
    let mut most = Resources::default();
    for instance_type in &claim.types {
        most.raise_to(&instance_type.capacity);
    }
    for (name, left) in &mut source.left {
        *left -= if name == "nodes" { 1 } else { most.get(name) };
    }
}

/// What DaemonSets take of each node of a pool: of those that may run there.
pub(super) fn daemons(pool: &Pool, daemon_sets: &[Arc<Pod>], well_known: &WellKnownLabels) -> Resources {
    let required = pool.requirements();
    let taints = pool.spec.template.spec.taints.clone().unwrap_or_default();
    let mut total = Resources::default();
    for pod in daemon_sets {
        let affinity = pod.shape.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let asked = Requirements::of_pod(&pod.shape.node_selector, affinity, false);
        let fits = asked.iter().any(|asked| required.is_compatible(asked, well_known));
        if fits && untolerated(&taints, &pod.shape.tolerations).is_none() {
            total.add(&pod.shape.requests);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::{Affinity, PodAffinityTerm, PodAntiAffinity, Taint},
        apimachinery::pkg::apis::meta::v1::LabelSelector,
    };
    use tandem_core::{
        api::karpenter::NodePool,
        nodes::pools::{
            instance_type::Offering,
            requirements::{
                Requirement,
                labels::{CAPACITY_TYPE, HOSTNAME, INSTANCE_TYPE, ON_DEMAND, ZONE},
            },
        },
        scheduling::pod::Shape,
    };

    use super::*;

    fn instance_type(cores: i64) -> Arc<InstanceType> {
        let name = format!("cores-{cores}");
        let terms = [Requirement::is(ZONE, "z"), Requirement::is(CAPACITY_TYPE, ON_DEMAND)];
        #[allow(clippy::cast_precision_loss, reason = "a few cores")]
        let price = cores as f64;
        let offering =
            Offering { requirements: terms.into_iter().collect(), price, available: true, reservation: None };
        let capacity = Resources { cpu: cores * 1000, pods: 110, ..Resources::default() };
        let requirements = [Requirement::is(INSTANCE_TYPE, &name)].into_iter().collect();
        Arc::new(InstanceType::new(&name, requirements, capacity, Resources::default(), vec![offering]))
    }

    fn source(cpu_left: i64) -> Source {
        Source {
            pool: Arc::new(Pool::of_node_pool(&NodePool::default())),
            types: [1, 2, 4, 8].map(instance_type).to_vec(),
            left: BTreeMap::from([("cpu".to_owned(), cpu_left)]),
            daemons: Resources::default(),
        }
    }

    fn pods(count: usize, shape: &Shape) -> Vec<Arc<Pod>> {
        let shape = Arc::new(shape.clone());
        let pod = |number| {
            let uid = format!("{number:03}");
            Arc::new(Pod {
                name: uid.as_str().into(),
                uid: uid.into(),
                shape: shape.clone(),
                ..Pod::default()
            })
        };
        (0..count).map(pod).collect()
    }

    fn shape(cpu: i64) -> Shape {
        let labels = [("app".to_owned(), "a".to_owned())].into();
        Shape { labels, requests: Resources { cpu, pods: 1, ..Resources::default() }, ..Shape::default() }
    }

    fn run(source: Source, pods: &[Arc<Pod>]) -> Packing {
        let well_known = WellKnownLabels::default();
        let terms = Terms { well_known: &well_known, min_values: MinValuesPolicy::Strict };
        pack(&mut Snapshot::default(), &mut [source], terms, pods)
    }

    #[test]
    fn pods_share_a_node() {
        let packing = run(source(1_000_000), &pods(4, &shape(900)));
        assert_eq!(packing.nodes.len(), 1);
        assert_eq!(&*packing.nodes[0].claim.types[0].name, "cores-4");
        assert_eq!(packing.unschedulable, []);
    }

    #[test]
    fn who_wants_to_be_alone_gets_a_node_of_the_right_size() {
        let selector = LabelSelector {
            match_labels: Some([("app".to_owned(), "a".to_owned())].into()),
            ..LabelSelector::default()
        };
        let term = PodAffinityTerm {
            label_selector: Some(selector),
            topology_key: HOSTNAME.to_owned(),
            ..PodAffinityTerm::default()
        };
        let apart = PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        };
        let affinity = Affinity { pod_anti_affinity: Some(apart), ..Affinity::default() };
        let packing =
            run(source(1_000_000), &pods(3, &Shape { affinity: Some(Box::new(affinity)), ..shape(900) }));
        assert_eq!(packing.nodes.len(), 3);
        assert!(packing.nodes.iter().all(|node| &*node.claim.types[0].name == "cores-1"));
    }

    #[test]
    fn limits_hold_over_all_nodes() {
        let packing = run(source(8_000), &pods(2, &shape(5_000)));
        assert_eq!(packing.nodes.len(), 1);
        assert_eq!(
            packing.unschedulable,
            [(
                1,
                "incompatible with nodepool \"\", all available instance types exceed limits for nodepool"
                    .to_owned()
            )]
        );
    }

    #[test]
    fn taints_of_the_pool_keep_pods_off() {
        let mut pool = NodePool::default();
        pool.spec.template.spec.taints =
            Some(vec![Taint { key: "t".into(), effect: "NoSchedule".into(), ..Taint::default() }]);
        let source = Source { pool: Arc::new(Pool::of_node_pool(&pool)), ..source(8_000) };
        let packing = run(source, &pods(1, &shape(100)));
        assert!(packing.nodes.is_empty());
        assert!(packing.unschedulable[0].1.contains("did not tolerate taint (taint=t:NoSchedule)"));
    }
}
