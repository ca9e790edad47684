//! Static pools: so many nodes, whatever pods there are (core, `pkg/controllers/static`; gate `StaticCapacity`).

use std::{collections::HashMap, sync::Arc};

use super::{
    cluster::{Cluster, Member, Pool},
    costs::disruption_cost,
    launch::order_by_price,
    names::condition,
    node_claim::{holds, pool_of},
    pods::moves,
    provision::with_daemons,
    requirements::WellKnownLabels,
    solver::{Claim, NODES, Options},
};
use crate::scheduling::{Pod, Resources};

/// What static pools lack, and what they have too many of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    /// New nodes.
    pub create: Vec<Claim>,
    /// Claims to delete, by name.
    pub delete: Vec<Arc<str>>,
}

/// Compares static pools with what they say: new nodes within their limits; of too many those go that never were ready, then
/// those that cost least to disrupt.
pub fn difference(cluster: &Cluster, options: &Options) -> Difference {
    let mut difference = Difference::default();
    let members = cluster.members();
    for pool in cluster.pools.iter().filter(|pool| pool.is_usable) {
        let Some(wanted) = pool.spec.replicas.and_then(|replicas| usize::try_from(replicas).ok()) else {
            continue;
        };
        let of_pool = members.iter().filter(|member| pool_of(&member.claim) == Some(&*pool.name));
        let staying: Vec<&Member> = of_pool.filter(|member| !cluster.is_leaving(&member.claim)).collect();
        if staying.len() < wanted {
            let missing = (wanted - staying.len()).min(nodes_left(cluster, pool));
            let claim = claim(cluster, pool, options);
            difference.create.extend(claim.into_iter().flat_map(|claim| std::iter::repeat_n(claim, missing)));
        } else {
            difference.delete.extend(dispensable(cluster, staying, wanted));
        }
    }
    difference
}

/// How many more nodes a pool may have.
pub(super) fn nodes_left(cluster: &Cluster, pool: &Pool) -> usize {
    let left = cluster.remaining(pool).get(NODES).copied();
    left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(0))
}

/// A node of a pool for no pod in particular; none if there is nothing to be had.
pub(super) fn claim(cluster: &Cluster, pool: &Pool, options: &Options) -> Option<Claim> {
    let requirements = pool.requirements();
    let well_known: &WellKnownLabels = &options.well_known;
    let mut types = pool.types.clone();
    types.retain(|it| {
        it.requirements.intersects(&requirements) && it.cheapest(&requirements, well_known).is_some()
    });
    order_by_price(&mut types, &requirements, well_known);
    types.truncate(options.most_types);
    let price = types.first()?.cheapest(&requirements, well_known)?.price;
    let name = pool.name.clone();
    let mut claim = Claim {
        pool: name,
        requirements,
        types,
        pods: Vec::new(),
        requests: Resources::default(),
        price,
        presumes_devices: false,
    };
    with_daemons(&mut claim, cluster, well_known);
    Some(claim)
}

/// Those that a pool can do without best.
fn dispensable(cluster: &Cluster, mut staying: Vec<&Member>, wanted: usize) -> Vec<Arc<str>> {
    let mut pods_on: HashMap<&str, Vec<&Pod>> = HashMap::new();
    for pod in cluster.pods.iter().filter(|pod| moves(pod)) {
        if let Some(node) = &pod.node {
            pods_on.entry(node).or_default().push(pod);
        }
    }
    let cost = |member: &Member| {
        let pods = member.node.as_ref().and_then(|node| pods_on.get(&*node.name));
        disruption_cost(pods.into_iter().flatten().map(|pod| &*pod.shape))
    };
    staying.sort_by(|left, right| {
        let ready = |member: &Member| holds(&member.claim, condition::INITIALIZED);
        let by_cost = || cost(left).total_cmp(&cost(right));
        ready(left).cmp(&ready(right)).then_with(by_cost).then_with(|| left.name.cmp(&right.name))
    });
    let surplus = staying.len() - wanted;
    staying.into_iter().take(surplus).map(|member| member.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::pools::testing::{add_node, claim as launched, cluster, limit, pod};

    /// A static pool of so many, with a node in use, an empty one, and one on its way.
    fn of(replicas: i64, most: &str) -> Difference {
        let mut cluster = cluster();
        cluster.pools[0].spec.replicas = Some(replicas);
        limit(&mut cluster.pools[0], "nodes", most);
        add_node(&mut cluster, "a-used", 1, "zone-1", vec![pod("p", "p", 100)]);
        add_node(&mut cluster, "b-empty", 1, "zone-1", vec![]);
        cluster.claims.push(Arc::new(launched("c-soon", 1, "zone-1", "on-demand")));
        difference(&cluster, &Options::default())
    }

    #[test]
    fn a_pool_has_as_many_nodes_as_it_says_and_its_limit_allows() {
        for (replicas, most, created, deleted) in [
            (3, "9", 0, ""),
            (5, "9", 2, ""),
            (5, "4", 1, ""),
            (5, "2", 0, ""),
            (2, "9", 0, "c-soon"),
            (1, "9", 0, "c-soon b-empty"),
            (0, "9", 0, "c-soon b-empty a-used"),
        ] {
            let found = of(replicas, most);
            let names: Vec<&str> = found.delete.iter().map(|name| &**name).collect();
            assert_eq!((found.create.len(), names.join(" ")), (created, deleted.to_owned()), "{replicas}");
            assert!(found.create.iter().all(|claim| &*claim.types[0].name == "cores-01"));
        }
    }
}
