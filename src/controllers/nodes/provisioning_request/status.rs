//! The status of a request, written on change.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::json;
use tandem_core::{
    api::autoscaling::{ProvisioningRequest, ProvisioningRequestStatus},
    nodes::{
        buffer::Said,
        pass::Refusal,
        provisioning_request::{Answer, SCHEDULABLE_POD_SETS, Shortage, Sight, said},
    },
};

use crate::cluster::conditions::{self, Status};

/// Why a group that was to grow did not.
const REFUSED: &str = "failed to grow";

/// What is to be said. A request whose groups did not grow has no room.
pub(super) fn of(
    object: &ProvisioningRequest,
    sight: &Sight,
    answer: Option<&Answer>,
    failed: &BTreeSet<Arc<str>>,
    now: Timestamp,
) -> ProvisioningRequestStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let answer = answer.map(|answer| unless_failed(answer, sight, failed));
    let (answered, templates) = answer.map(|answer| said(&answer, sight.retries)).unzip();
    for Said { kind, holds, reason, message } in sight.said.iter().chain(&answered) {
        let holds = if *holds { Status::True } else { Status::False };
        conditions::set(&mut status.conditions, kind, holds, (reason, message), now);
    }
    match templates {
        Some(templates) if templates.is_empty() => {
            status.provisioning_class_details.remove(SCHEDULABLE_POD_SETS);
        }
        Some(templates) => {
            let names: Vec<&str> = templates.iter().map(|name| &**name).collect();
            let details = json!(names).to_string();
            status.provisioning_class_details.insert(SCHEDULABLE_POD_SETS.to_owned(), details);
        }
        None => {}
    }
    status
}

fn unless_failed(answer: &Answer, sight: &Sight, failed: &BTreeSet<Arc<str>>) -> Answer {
    let Answer::Provisioned(groups) = answer else { return answer.clone() };
    let refusal = |group: &Arc<str>| Refusal { group: group.clone(), reason: REFUSED.to_owned() };
    let refusals: Vec<_> = groups.iter().filter(|group| failed.contains(*group)).map(refusal).collect();
    if refusals.is_empty() {
        return answer.clone();
    }
    let pods =
        sight.request.iter().flat_map(|request| &request.sets).map(|set| set.pods.len()).sum::<usize>();
    Answer::NotFound(Shortage {
        pods: u32::try_from(pods).unwrap_or(u32::MAX),
        refusals,
        ..Shortage::default()
    })
}

/// Writes a status to the object that it was decided upon.
pub(super) async fn write(
    client: &Client,
    kind: &ApiResource,
    object: &ProvisioningRequest,
    status: &ProvisioningRequestStatus,
) -> Result<(), kube::Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, kind);
    // A detail that is absent is taken away.
    let detail = status.provisioning_class_details.get(SCHEDULABLE_POD_SETS);
    let patch = json!({
        "metadata": {"resourceVersion": object.resource_version()},
        "status": {
            "conditions": status.conditions,
            "provisioningClassDetails": {SCHEDULABLE_POD_SETS: detail},
        },
    });
    match api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        // It has changed or gone meanwhile: its watch tells.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight() -> Sight {
        let message = "ProvisioningRequest is accepted by ClusterAutoscaler".to_owned();
        let accepted = Said { kind: "Accepted", holds: true, reason: "Accepted", message };
        Sight { said: vec![accepted], request: None, retries: true }
    }

    #[test]
    fn a_status_says_what_was_answered_and_changes_with_it_alone() {
        let (now, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let failed = BTreeSet::from([Arc::from("b")]);
        let mut object = ProvisioningRequest::default();
        let reasons = |status: &ProvisioningRequestStatus| {
            let of = |it: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
                format!("{} {} {}", it.type_, it.status, it.reason)
            };
            status.conditions.iter().map(of).collect::<Vec<_>>()
        };
        let grown = |group: &str| Answer::Provisioned(vec!["a".into(), group.into()]);
        let lost = of(&object, &sight(), Some(&grown("b")), &failed, now);
        assert_eq!(reasons(&lost), ["Accepted True Accepted", "Provisioned False CapacityIsNotFound"]);
        assert!(lost.conditions[1].message.ends_with("1 failed to grow"), "{}", lost.conditions[1].message);
        object.status = Some(lost.clone());
        assert_eq!(of(&object, &sight(), None, &failed, later), lost, "who was not tried says nothing");

        let won = of(&object, &sight(), Some(&grown("c")), &failed, later);
        assert_eq!(reasons(&won)[1], "Provisioned True CapacityIsProvisioned");
        assert_eq!(won.conditions[1].last_transition_time.0, later, "room is kept from now on");

        let found = of(&object, &sight(), Some(&Answer::Found(vec!["x".into()])), &failed, later);
        assert_eq!(found.provisioning_class_details[SCHEDULABLE_POD_SETS], r#"["x"]"#);
        object.status = Some(found);
        let lost = of(&object, &sight(), Some(&Answer::NotFound(Shortage::default())), &failed, later);
        assert!(lost.provisioning_class_details.is_empty());
    }
}
