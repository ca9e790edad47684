//! Node pools in a dry run: the loops that decide run, what they come to goes to the record, and no NodeClaim of whoever runs
//! the pools is touched.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tandem_core::nodes::pools::{
    disrupt::Command, fixed::Difference, node_claim::pool_of, requirements::labels::NODE_POOL, solver,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{Pools, claim::is_deleting};
use crate::dry_run::{
    Recorder,
    record::{Intent, NodeKind, Nodes},
};

/// Between two looks at what is in memory: as exactly the record knows when others acted.
const LOOK: Duration = Duration::from_secs(1);

/// Who wants nodes to come or go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Pods,
    Static,
    Disruption,
}

/// Nodes that would come, or go, by pool.
type Changes = BTreeMap<Arc<str>, i64>;

/// What the loops last came to.
pub(super) struct Rehearsal {
    recorder: Arc<Recorder>,
    changes: Mutex<BTreeMap<Source, Changes>>,
}

impl Rehearsal {
    pub(super) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, changes: Mutex::default() }
    }

    /// Nodes that pods would have got; none if none wait.
    pub(super) fn would_provision(&self, claims: &[solver::Claim]) {
        self.would_create(claims);
        self.set(Source::Pods, counted(claims, 1));
    }

    /// What a static pool lacks, and what it has too much.
    pub(super) fn would_level(&self, pools: &Pools, difference: &Difference) {
        self.would_create(&difference.create);
        let mut changes = counted(&difference.create, 1);
        for name in &difference.delete {
            self.intent("delete", "nodeclaims", name, "its static pool has one too many".to_owned());
            add(&mut changes, pool(pools, name), -1);
        }
        self.set(Source::Static, changes);
    }

    /// Nodes that would have gone, their replacements first.
    pub(super) fn would_disrupt(&self, pools: &Pools, command: &Command) {
        self.would_create(&command.replacements);
        let mut changes = counted(&command.replacements, 1);
        for name in &command.claims {
            self.intent("delete", "nodeclaims", name, command.to_string());
            add(&mut changes, pool(pools, name), -1);
        }
        self.set(Source::Disruption, changes);
    }

    /// No node would go.
    pub(super) fn would_disrupt_none(&self) {
        self.set(Source::Disruption, Changes::new());
    }

    fn would_create(&self, claims: &[solver::Claim]) {
        for (number, claim) in claims.iter().enumerate() {
            let types: Vec<&str> = claim.types.iter().take(5).map(|it| &*it.name).collect();
            let more = if claim.types.len() > types.len() { ", …" } else { "" };
            let change = format!(
                "number {} for {} pods, one of {}{more}",
                number + 1,
                claim.pods.len(),
                types.join(", ")
            );
            self.intent("create", "nodeclaims", &claim.pool, change);
        }
    }

    fn intent(&self, verb: &str, resource: &str, name: &str, change: String) {
        self.recorder.intent(Intent {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
            change,
        });
    }

    fn set(&self, source: Source, changes: Changes) {
        self.changes.lock().insert(source, changes);
    }

    /// Nodes that a pool with `actual` claims would have.
    fn wanted(&self, pool: &str, actual: u32) -> u32 {
        let changes = self.changes.lock();
        let change: i64 = changes.values().filter_map(|changes| changes.get(pool)).sum();
        u32::try_from((i64::from(actual) + change).max(0)).unwrap_or(u32::MAX)
    }
}

/// Sees what others do to the pools, for ever.
pub(super) async fn watch(pools: &Pools, rehearsal: &Rehearsal) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let mut actual: BTreeMap<String, u32> =
            pools.pools().iter().map(|pool| (pool.name.clone(), 0)).collect();
        for claim in pools.claims_of(None).iter().filter(|claim| !is_deleting(claim)) {
            if let Some(count) = pool_of(claim).and_then(|pool| actual.get_mut(pool)) {
                *count += 1;
            }
        }
        let mut ready: BTreeMap<&str, u32> = BTreeMap::new();
        let nodes = pools.world.nodes.all();
        for pool in nodes.iter().filter(|node| node.ready).filter_map(|node| node.labels.get(NODE_POOL)) {
            *ready.entry(pool).or_default() += 1;
        }
        for (pool, count) in &actual {
            if let Some(before) = last.get(pool).filter(|before| *before != count) {
                let message = format!("from {before} to {count} NodeClaims");
                rehearsal.recorder.observed(format!("node pool {pool}"), "Resized", message);
            }
            rehearsal.recorder.nodes(Nodes {
                kind: NodeKind::Pool,
                name: pool.clone(),
                wanted: rehearsal.wanted(pool, *count),
                actual: *count,
                ready: ready.get(pool.as_str()).copied().unwrap_or_default(),
            });
        }
        last = actual;
    }
}

/// The pool of a claim.
fn pool(pools: &Pools, claim: &str) -> Option<Arc<str>> {
    pools.claims.get("", claim).and_then(|claim| pool_of(&claim).map(Arc::from))
}

fn counted(claims: &[solver::Claim], each: i64) -> Changes {
    let mut changes = Changes::new();
    for claim in claims {
        add(&mut changes, Some(claim.pool.clone()), each);
    }
    changes
}

fn add(changes: &mut Changes, pool: Option<Arc<str>>, nodes: i64) {
    if let Some(pool) = pool {
        *changes.entry(pool).or_default() += nodes;
    }
}
