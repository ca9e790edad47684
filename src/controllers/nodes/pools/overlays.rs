//! NodeOverlays (gate `NodeOverlay`): which there are, what they make of what pools offer, and whether they hold.
//!
//! What they come to is worked out when somebody asks for the instance types, again if an overlay, a pool or what the provider
//! offers has changed since: no decision is made upon an overlay that has changed, or without one that is there.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tandem_core::{
    api::karpenter::{NodeClaim, NodeOverlay},
    nodes::pools::{
        instance_type::InstanceType,
        node_claim::pool_of,
        overlay::{Evaluation, Offers, Problem, evaluate},
        requirements::WellKnownLabels,
    },
};

use super::{
    Pools,
    conditions::{self, Status},
    view::Pool,
    write,
};
use crate::{
    cloud::{CloudError, pools::Class},
    cluster::cache::{Cache, watch_cluster_once_served},
};

/// The gate.
pub(super) const GATE: &str = "NodeOverlay";
/// What comes within this time is looked at together.
const CALM: Duration = Duration::from_millis(500);
/// Between two looks at what no event tells: what a provider offers.
const PERIOD: Duration = Duration::from_mins(1);

const VALIDATION_SUCCEEDED: &str = "ValidationSucceeded";

/// All instance types of a pool.
type Types = Arc<[Arc<InstanceType>]>;
/// A pool with what it offers.
type Offer = (Arc<Pool>, Types);

/// The overlays, and what they last came to.
pub(super) struct Overlays {
    objects: Arc<Cache<NodeOverlay>>,
    last: Mutex<Option<Arc<Evaluated>>>,
}

/// What overlays and pools came to.
struct Evaluated {
    overlays: Vec<Arc<NodeOverlay>>,
    pools: Vec<Offer>,
    evaluation: Evaluation,
}

impl Overlays {
    /// Watches them; without their CRD there are none.
    pub(super) fn start(client: &Client, changed: impl Fn() + Send + Sync + 'static) -> Self {
        let objects = watch_cluster_once_served::<NodeOverlay>(client, move |_, _| changed());
        Self { objects, last: Mutex::default() }
    }

    /// Waits until it is known which there are.
    pub(super) async fn synced(&self) {
        self.objects.synced().await;
    }

    /// What they make of what these pools offer.
    async fn apply(&self, pools: Vec<Offer>, well_known: &WellKnownLabels) -> Arc<Evaluated> {
        let overlays = self.objects.list("");
        let last = self.last.lock().clone();
        if let Some(last) = last.filter(|last| last.is_of(&overlays, &pools)) {
            return last;
        }
        let well_known = well_known.clone();
        let think = move || Arc::new(Evaluated::new(overlays, pools, &well_known));
        match tokio::task::spawn_blocking(think).await {
            Ok(evaluated) => self.last.lock().insert(evaluated).clone(),
            Err(error) => {
                tracing::error!(%error, "it is not known what NodeOverlays come to: no node is made");
                Arc::new(Evaluated::new(Vec::new(), Vec::new(), &WellKnownLabels::none()))
            }
        }
    }
}

impl Evaluated {
    fn new(overlays: Vec<Arc<NodeOverlay>>, pools: Vec<Offer>, well_known: &WellKnownLabels) -> Self {
        let offers: Vec<_> =
            pools.iter().map(|(pool, types)| Offers { pool: &pool.name, spec: &pool.spec, types }).collect();
        let evaluation = evaluate(&overlays, &offers, well_known);
        Self { overlays, pools, evaluation }
    }

    /// Whether nothing has changed since. Caches and providers hand out the same object until it is another.
    fn is_of(&self, overlays: &[Arc<NodeOverlay>], pools: &[Offer]) -> bool {
        let same_overlays = self.overlays.len() == overlays.len()
            && self.overlays.iter().zip(overlays).all(|(old, new)| Arc::ptr_eq(old, new));
        let is_same = |((old, old_types), (new, new_types)): (&Offer, &Offer)| {
            Arc::ptr_eq(old_types, new_types) && old == new
        };
        same_overlays && self.pools.len() == pools.len() && self.pools.iter().zip(pools).all(is_same)
    }

    /// Pools with their instance types as they are now.
    fn catalogue(&self) -> Vec<Offer> {
        let types = |pool: &Arc<Pool>| self.evaluation.types.get(&pool.name).cloned();
        self.pools.iter().filter_map(|(pool, _)| Some((pool.clone(), types(pool)?))).collect()
    }
}

impl Pools {
    /// Every pool with all instance types of its node class, as overlays have them. Pools whose instance types cannot be told
    /// are left out.
    pub(super) async fn catalogue(&self) -> Vec<Offer> {
        let offered = self.offered().await;
        match &self.overlays {
            Some(overlays) => overlays.apply(offered, self.provider.well_known()).await.catalogue(),
            None => offered,
        }
    }

    /// The instance types that a claim may become a machine of, as overlays have them.
    pub(super) async fn types_of(&self, claim: &NodeClaim, class: &Class) -> Result<Types, CloudError> {
        if self.overlays.is_some()
            && let Some(name) = pool_of(claim)
            && let Some((_, types)) = self.catalogue().await.into_iter().find(|(pool, _)| pool.name == name)
        {
            return Ok(types);
        }
        self.provider.instance_types(class).await
    }

    /// What the provider offers each pool.
    async fn offered(&self) -> Vec<Offer> {
        let mut offered = Vec::new();
        for pool in self.pools() {
            match self.provider.instance_types(&pool.class).await {
                Ok(types) => offered.push((pool, types)),
                Err(error) => tracing::warn!(pool = pool.name, %error, "its instance types cannot be told"),
            }
        }
        offered
    }
}

/// Keeps the statuses of overlays right, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let Some(overlays) = &pools.overlays else { return };
    let mut changes = pools.world.changes.subscribe();
    loop {
        if pools.leads() {
            let evaluated = overlays.apply(pools.offered().await, pools.provider.well_known()).await;
            for overlay in &evaluated.overlays {
                let name = overlay.name_any();
                match say(&pools, overlay, evaluated.evaluation.problems.get(&name)).await {
                    Err(error) if write::is_outdated(&error) || write::is_gone(&error) => {}
                    Err(error) => {
                        tracing::warn!(overlay = name, %error, "the overlay's status could not be written");
                    }
                    Ok(()) => {}
                }
            }
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

/// Writes whether an overlay holds, if its status says something else.
async fn say(pools: &Pools, overlay: &NodeOverlay, problem: Option<&Problem>) -> Result<(), kube::Error> {
    let mut status = overlay.status.clone().unwrap_or_default();
    judge(&mut status.conditions, problem, Timestamp::now());
    if overlay.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<NodeOverlay> = Api::all(pools.client.clone());
    write::status(&api, overlay, &status).await?;
    if let Some(problem) = problem {
        tracing::warn!(overlay = overlay.name_any(), %problem, "the NodeOverlay does not hold");
    }
    Ok(())
}

/// Reasons are Karpenter's (core, `pkg/controllers/nodeoverlay`).
fn judge(conditions: &mut Vec<Condition>, problem: Option<&Problem>, now: Timestamp) {
    let (status, reason, message) = match problem {
        None => (Status::True, "", String::new()),
        Some(problem @ Problem::Conflict { .. }) => (Status::False, "Conflict", problem.to_string()),
        Some(problem) => (Status::False, "RuntimeValidation", problem.to_string()),
    };
    conditions::set(conditions, VALIDATION_SUCCEEDED, status, (reason, &message), now);
    conditions::set_ready(conditions, &[VALIDATION_SUCCEEDED], now);
}

#[cfg(test)]
mod tests {
    use tandem_core::{api::karpenter::NodePool, nodes::pools::catalogue::built_in};

    use super::*;

    fn overlay(price: &str) -> Arc<NodeOverlay> {
        let mut overlay = NodeOverlay::default();
        overlay.metadata.name = Some("cheap".to_owned());
        overlay.spec.price = Some(price.to_owned());
        Arc::new(overlay)
    }

    fn pool(weight: Option<i32>) -> Arc<Pool> {
        let mut object = NodePool::default();
        object.metadata.name = Some("general".to_owned());
        object.spec.weight = weight;
        Arc::new(Pool::of_node_pool(&object))
    }

    #[test]
    fn whatever_changes_is_evaluated_again() {
        let (overlays, types): (_, Types) = (vec![overlay("1")], built_in().into());
        let pools = vec![(pool(None), types.clone())];
        let evaluated = Evaluated::new(overlays.clone(), pools.clone(), &WellKnownLabels::default());
        let same = [(pool(None), types.clone())];
        assert!(evaluated.is_of(&overlays, &same), "a pool that reads the same is the same");
        assert!(!evaluated.is_of(&[], &same));
        assert!(!evaluated.is_of(&[overlay("1")], &same), "it was written");
        assert!(!evaluated.is_of(&overlays, &[(pool(Some(3)), types)]));
        assert!(!evaluated.is_of(&overlays, &[(pool(None), built_in().into())]), "new prices");
        assert!(!evaluated.is_of(&overlays, &[]));
        let catalogue = evaluated.catalogue();
        let offerings = catalogue[0].1.iter().flat_map(|one| &one.offerings);
        assert!(offerings.clone().count() > 0);
        assert!(offerings.clone().all(|offering| (offering.price - 1.0).abs() < f64::EPSILON));
    }

    #[test]
    fn conditions_say_why_an_overlay_does_not_hold() {
        let conflict = Problem::Conflict {
            with: "b".to_owned(),
            weight: 0,
            what: "the price".to_owned(),
            instance_type: "c".to_owned(),
            pool: "p".to_owned(),
        };
        for (problem, status, reason, message) in [
            (None, "True", "ValidationSucceeded", ""),
            (Some(Problem::TwoPrices), "False", "RuntimeValidation", "spec.price and spec.priceAdjustment"),
            (Some(conflict), "False", "Conflict", "conflict with another overlay: \"b\""),
        ] {
            let mut all = Vec::new();
            judge(&mut all, problem.as_ref(), Timestamp::UNIX_EPOCH);
            let validated = conditions::find(&all, VALIDATION_SUCCEEDED).unwrap();
            assert_eq!((&*validated.status, &*validated.reason), (status, reason));
            assert!(validated.message.starts_with(message), "{}", validated.message);
            let ready = conditions::find(&all, "Ready").unwrap();
            assert_eq!(ready.status, status);
            assert!(ready.message.contains(message), "{}", ready.message);
        }
    }
}
