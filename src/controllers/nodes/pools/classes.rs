//! The statuses of node classes that are objects of the API, whether or not a pool names them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use tandem_core::{api::karpenter::NodeClassReference, pods::reasons::Event};

use super::Pools;
use crate::cloud::CloudError;

/// Between two looks at what no event tells: what selectors find in the cloud changes without one (aws, `nodeclass`).
const PERIOD: Duration = Duration::from_mins(1);
/// The shortest time between two looks.
const CALM: Duration = Duration::from_secs(1);

/// Keeps the statuses of node classes right, for ever.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let mut said = BTreeMap::new();
    loop {
        if pools.leads() {
            for class in pools.provider.classes() {
                let problem = match pools.provider.class_state(&class).await {
                    Ok(state) => state.not_ready.map(|(_, why)| why),
                    Err(CloudError::NotFound(_)) => None,
                    Err(error) => Some(error.to_string()),
                };
                tell(&pools, &class.reference, problem, &mut said).await;
            }
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

/// Says why a class is not ready, once, until that is another reason.
async fn tell(
    pools: &Pools,
    class: &NodeClassReference,
    problem: Option<String>,
    said: &mut BTreeMap<String, String>,
) {
    let Some(problem) = problem else {
        said.remove(&class.name);
        return;
    };
    if said.get(&class.name) == Some(&problem) {
        return;
    }
    tracing::warn!(class = class.name, problem, "the node class is not ready");
    let about = ObjectReference {
        api_version: Some(format!("{}/v1", class.group)),
        kind: Some(class.kind.clone()),
        name: Some(class.name.clone()),
        ..ObjectReference::default()
    };
    said.insert(class.name.clone(), problem.clone());
    let event = Event { type_: "Warning", reason: "NodeClassNotReady", message: problem };
    pools.events.publish(&about, &event).await;
}
