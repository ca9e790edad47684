//! The statuses and ends of node classes that are objects of the API, whether or not a pool names them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::{NodeClaim, NodeClassReference},
    pods::reasons::Event,
};

use super::Pools;
use crate::cloud::{CloudError, pools::Class};

/// Between two looks at what no event tells: what selectors find in the cloud changes without one (aws, `nodeclass`).
const PERIOD: Duration = Duration::from_mins(1);
/// The shortest time between two looks.
const CALM: Duration = Duration::from_secs(1);
/// Claims that an event names: more say no more.
const NAMED: usize = 5;

/// What was said of classes, by name.
type Said = BTreeMap<String, Event>;

/// Keeps the statuses of node classes right, and ends those that are deleted, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let mut said = Said::new();
    loop {
        if pools.leads() {
            for class in pools.provider.classes() {
                let event = look(&pools, &class).await;
                tell(&pools, &class.reference, event, &mut said).await;
            }
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

/// What keeps a class from being used, or from going.
async fn look(pools: &Pools, class: &Class) -> Option<Event> {
    let not_ready = |message| Event { type_: "Warning", reason: "NodeClassNotReady", message };
    match pools.provider.class_state(class).await {
        Ok(state) if state.is_ending => end(pools, class).await,
        Ok(state) => {
            if let Err(error) = pools.provider.tidy_class(class, &claims_of(pools, class)).await {
                let class = &class.reference.name;
                tracing::warn!(class, %error, "what was made for the node class before is still there");
            }
            state.not_ready.map(|(_, why)| not_ready(why))
        }
        Err(CloudError::NotFound(_)) => None,
        Err(error) => Some(not_ready(error.to_string())),
    }
}

/// A class that is deleted goes when no claim is left that was made with it (aws, `pkg/controllers/nodeclass`).
async fn end(pools: &Pools, class: &Class) -> Option<Event> {
    let users: Vec<_> = claims_of(pools, class).iter().map(|claim| claim.name_any()).collect();
    if !users.is_empty() {
        let message = format!("Waiting on NodeClaim termination for {}", shortened(&users));
        return Some(Event { type_: "Normal", reason: "WaitingOnNodeClaimTermination", message });
    }
    let error = pools.provider.end_class(class).await.err()?;
    let message = format!("what was made for it is still there: {error}");
    Some(Event { type_: "Warning", reason: "TerminationFailed", message })
}

/// The claims that were made with a class.
fn claims_of(pools: &Pools, class: &Class) -> Vec<Arc<NodeClaim>> {
    let claims = pools.claims_of(None).into_iter();
    claims.filter(|claim| claim.spec.node_class_ref == class.reference).collect()
}

/// The first of them, and how many more there are.
fn shortened(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} other(s)"),
    }
}

/// Says what is the matter with a class, once, until that is something else.
async fn tell(pools: &Pools, class: &NodeClassReference, event: Option<Event>, said: &mut Said) {
    let Some(event) = event else {
        said.remove(&class.name);
        return;
    };
    if said.get(&class.name) == Some(&event) {
        return;
    }
    tracing::warn!(class = class.name, reason = event.reason, "node class: {}", event.message);
    let about = ObjectReference {
        api_version: Some(format!("{}/v1", class.group)),
        kind: Some(class.kind.clone()),
        name: Some(class.name.clone()),
        ..ObjectReference::default()
    };
    pools.events.publish(&about, &event).await;
    said.insert(class.name.clone(), event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_claims_are_named() {
        let names: Vec<_> = (1..=7).map(|number| format!("c{number}")).collect();
        assert_eq!(shortened(&names[..2]), "c1, c2");
        assert_eq!(shortened(&names), "c1, c2, c3, c4, c5 and 2 other(s)");
    }
}
