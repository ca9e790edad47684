//! The cluster as decisions about pools see it, read from the caches.

use std::sync::Arc;

use jiff::Timestamp;
use tandem_core::nodes::{
    pools::{
        cluster::{self, Cluster},
        solver::{Options, Preferences},
    },
    told::devices::settling,
};

use super::Pools;
use crate::cli::pools::PreferencePolicy;

/// What is there, what is on its way, and what can be had. Pools whose instance types cannot be told are left out.
pub(super) async fn observe(pools: &Pools, now: Timestamp) -> Cluster {
    let (nodes, surroundings) = (pools.world.nodes(), Arc::new(pools.world.surroundings()));
    let all = pools.pools();
    {
        let mut told = pools.told.lock();
        told.learn(&nodes, &surroundings, now);
        told.retain_pools(|name| all.iter().any(|pool| pool.name == name));
    }
    let mut served = Vec::new();
    for (pool, types) in pools.catalogue().await {
        served.push(cluster::Pool {
            name: pool.name.as_str().into(),
            spec: pool.spec.clone(),
            types: pools.sold_out.lock().mask(&types, now),
            is_usable: pool.is_ready && !pool.is_deleting,
            told: pools.told.lock().of(&pool.name),
        });
    }
    Cluster {
        settling: (!pools.settings.ignore_dra_requests).then(|| settling(&nodes, now)),
        nodes,
        daemon_sets: pools.world.daemon_sets.all(),
        surroundings,
        pools: served,
        well_known: pools.provider.well_known().clone(),
        ..present(pools)
    }
}

/// Nodes, claims, pods and room alone.
pub(super) fn present(pools: &Pools) -> Cluster {
    Cluster {
        nodes: pools.world.nodes.all(),
        claims: pools.claims_of(None),
        pods: pools.world.pods.all(),
        buffers: pools.buffers.as_ref().map(|buffers| buffers.pods()).unwrap_or_default(),
        leaving: pools.leaving.lock().clone(),
        ..Cluster::default()
    }
}

/// How nodes are found for pods, as the flags say.
pub(super) fn options(pools: &Pools) -> Options {
    Options {
        preferences: match pools.settings.preference_policy {
            PreferencePolicy::Respect => Preferences::Respect,
            PreferencePolicy::Ignore => Preferences::Ignore,
        },
        min_values: pools.settings.min_values_policy.into(),
        well_known: pools.provider.well_known().clone(),
        ..Options::default()
    }
}
