//! The status of a buffer, written on change.

use jiff::Timestamp;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tandem_core::{
    api::autoscaling::{ACTIVE_CAPACITY, CapacityBuffer, CapacityBufferStatus, LocalObjectReference},
    nodes::buffer::{Placement, Problem, Said, limited, provisioning, ready},
};

use super::Kept;
use crate::cluster::conditions::{self, Status};

/// What is to be said. Of what was found wrong the problem is told; what no loop has looked at yet stays as it was.
pub(super) fn of(
    buffer: &CapacityBuffer,
    found: Result<&Kept, Option<&Problem>>,
    placement: Option<Placement>,
    now: Timestamp,
) -> CapacityBufferStatus {
    let former = buffer.status.clone().unwrap_or_default();
    let kept = found.ok();
    let template = kept.and_then(|kept| kept.template.as_ref());
    let replicas = kept.map(|kept| kept.allotment.replicas);
    let mut status = CapacityBufferStatus {
        pod_template_ref: template.map(|(name, _)| LocalObjectReference { name: name.clone() }),
        pod_template_generation: template.map(|(_, generation)| *generation),
        replicas: replicas.map(|replicas| i32::try_from(replicas).unwrap_or(i32::MAX)),
        provisioning_strategy: Some(ACTIVE_CAPACITY.to_owned()),
        conditions: former.conditions,
    };
    let said = [
        Some(ready(found.err().flatten())),
        kept.map(|kept| limited(kept.wanted, &kept.allotment)),
        provisioning(replicas, placement),
    ];
    for Said { kind, holds, reason, message } in said.into_iter().flatten() {
        let holds = if holds { Status::True } else { Status::False };
        conditions::set(&mut status.conditions, kind, holds, (reason, &message), now);
    }
    status
}

/// Writes a status to the object that it was decided upon.
pub(super) async fn write(
    api: &Api<CapacityBuffer>,
    buffer: &CapacityBuffer,
    status: &CapacityBufferStatus,
) -> Result<(), kube::Error> {
    // What is absent is taken away.
    let patch = json!({
        "metadata": {"resourceVersion": buffer.resource_version()},
        "status": {
            "podTemplateRef": status.pod_template_ref,
            "podTemplateGeneration": status.pod_template_generation,
            "replicas": status.replicas,
            "provisioningStrategy": status.provisioning_strategy,
            "conditions": status.conditions,
        },
    });
    match api.patch_status(&buffer.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        // It has changed or gone meanwhile: its watch tells.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tandem_core::{
        nodes::buffer::{Allotment, Traits},
        scheduling::pod::Shape,
    };

    use super::*;

    fn kept() -> Kept {
        Kept {
            shape: Arc::new(Shape::default()),
            traits: Traits::default(),
            wanted: 3,
            allotment: Allotment { replicas: 2, by: vec!["few".into()] },
            template: Some(("small".to_owned(), 7)),
            pods: Vec::new(),
        }
    }

    fn reasons(status: &CapacityBufferStatus) -> Vec<(&str, &str)> {
        status.conditions.iter().map(|it| (&*it.status, &*it.reason)).collect()
    }

    #[test]
    fn a_status_says_what_was_found_and_changes_with_it_alone() {
        let now = Timestamp::UNIX_EPOCH;
        let mut buffer = CapacityBuffer::default();
        let placement = Some(Placement { there: 1, new: 1, nowhere: 0 });
        let status = of(&buffer, Ok(&kept()), placement, now);
        assert_eq!((status.replicas, status.pod_template_generation), (Some(2), Some(7)));
        assert_eq!(
            reasons(&status),
            [("True", "Resolved"), ("True", "ResourceQuotasAllocated"), ("False", "RequiresNewCapacity")]
        );
        buffer.status = Some(status.clone());
        let later = Timestamp::from_second(60).unwrap();
        assert_eq!(of(&buffer, Ok(&kept()), placement, later), status, "nothing is new");
        assert_eq!(of(&buffer, Ok(&kept()), None, later), status, "who has not looked says nothing");

        let wrong = of(&buffer, Err(Some(&Problem::Neither)), None, later);
        assert_eq!((wrong.replicas, wrong.pod_template_ref.as_ref()), (None, None));
        assert_eq!(reasons(&wrong)[0], ("False", "ResolutionFailed"));
        assert_eq!(reasons(&wrong)[2], ("False", "NotReadyForProvisioning"));
        assert_eq!(wrong.conditions[0].last_transition_time.0, later);
    }
}
