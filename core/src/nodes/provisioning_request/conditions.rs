//! What is said of a request in its conditions, in Cluster Autoscaler's words (`provisioningrequest/conditions`).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Answer, Partial, Problem, Shortage, terms::Terms};
use crate::nodes::{buffer::Said, reasons::refusals_text};

/// So long room is kept for pods that do not come (Cluster Autoscaler's `defaultReservationTime`).
pub const BOOKED: SignedDuration = SignedDuration::from_mins(10);
/// The detail that names the pod templates for which there is room, as a JSON list.
pub const SCHEDULABLE_POD_SETS: &str = "schedulablePodSets";

pub(super) const ACCEPTED: &str = "Accepted";
pub(super) const PROVISIONED: &str = "Provisioned";
pub(super) const BOOKING_EXPIRED: &str = "BookingExpired";
pub(super) const FAILED: &str = "Failed";

pub(super) const PARTLY_FOUND: &str = "PartialCapacityIsFound";
const FOUND: &str = "Capacity is found in the cluster";

/// What the conditions of a request say already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Former<'a>(pub(super) &'a [Condition]);

impl<'a> Former<'a> {
    pub(super) fn find(self, kind: &str, status: &str) -> Option<&'a Condition> {
        self.0.iter().find(|condition| condition.type_ == kind && condition.status == status)
    }

    pub(super) fn is_over(self) -> bool {
        self.find(FAILED, "True").or_else(|| self.find(BOOKING_EXPIRED, "True")).is_some()
    }

    /// Since when its room is kept, and whether that is all that it asked for.
    pub(super) fn booked(self) -> Option<(Timestamp, bool)> {
        let provisioned = self.find(PROVISIONED, "True")?;
        Some((provisioned.last_transition_time.0, provisioned.reason != PARTLY_FOUND))
    }

    /// Whether it was told once that it cannot have what it asks for.
    pub(super) fn was_refused(self) -> bool {
        self.find(PROVISIONED, "False").or_else(|| self.find(ACCEPTED, "False")).is_some()
    }
}

fn condition(kind: &'static str, holds: bool, reason: &'static str, message: String) -> Said {
    Said { kind, holds, reason, message }
}

/// Its spec is understood.
pub(super) fn accepted(terms: &Terms) -> Said {
    let accepted = "ProvisioningRequest is accepted by ClusterAutoscaler";
    let message = match terms.ignored.as_slice() {
        [] => accepted.to_owned(),
        ignored => format!("{accepted}; parameters are left out: {}", ignored.join(", ")),
    };
    condition(ACCEPTED, true, "Accepted", message)
}

/// Nobody can tell what it asks for.
pub(super) fn wrong(problem: &Problem, booked: bool) -> Said {
    match (booked, problem.passes()) {
        (true, _) => condition(FAILED, true, "FailedToBookCapacity", problem.to_string()),
        (false, true) => condition(ACCEPTED, false, "PodTemplateNotFound", problem.to_string()),
        (false, false) => condition(FAILED, true, "FailedToCreatePods", problem.to_string()),
    }
}

/// It has waited for as long as its author wanted.
pub(super) fn expired() -> Said {
    condition(FAILED, true, "Expired", "ProvisioningRequest is expired".to_owned())
}

/// Its room is kept no longer.
pub(super) fn booking_expired() -> Said {
    let message = "Capacity reservation time is expired".to_owned();
    condition(BOOKING_EXPIRED, true, "CapacityReservationTimeExpired", message)
}

/// Its pods are there.
pub(super) fn consumed() -> Said {
    let message = "All pods of the ProvisioningRequest are scheduled".to_owned();
    condition(BOOKING_EXPIRED, true, "CapacityBookingConsumed", message)
}

/// What a pass made of a request: a condition, and the templates for which there is room. One that does not retry fails.
pub fn said(answer: &Answer, retries: bool) -> (Said, Vec<Arc<str>>) {
    let provisioned = |holds, reason, message| condition(PROVISIONED, holds, reason, message);
    match answer {
        Answer::Found(templates) => {
            (provisioned(true, "CapacityIsFound", FOUND.to_owned()), templates.clone())
        }
        Answer::Provisioned(_) => (provisioned(true, "CapacityIsProvisioned", FOUND.to_owned()), Vec::new()),
        Answer::PartlyFound(templates, partial) => {
            let message = format!(
                "Partial capacity is found in the cluster. Schedulable podsets: {}",
                templates.join(",")
            );
            (provisioned(*partial == Partial::Book, PARTLY_FOUND, message), templates.clone())
        }
        Answer::NotFound(shortage) => {
            let (reason, why) = ("CapacityIsNotFound", why(shortage));
            let said = if retries {
                let message = format!("Capacity is not found, CA will try to find it later: {why}");
                provisioned(false, reason, message)
            } else {
                condition(FAILED, true, reason, format!("CA could not find requested capacity: {why}"))
            };
            (said, Vec::new())
        }
    }
}

/// `3 of 5 pods fit; 1 Insufficient cpu`.
fn why(Shortage { fit, pods, refusals }: &Shortage) -> String {
    let fitting = format!("{fit} of {pods} pods fit");
    if refusals.is_empty() { fitting } else { format!("{fitting}; {}", refusals_text(refusals)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::pass::Refusal;

    #[test]
    fn answers_are_said_in_the_peers_words() {
        let refusals = vec![Refusal { group: "a".into(), reason: "Insufficient cpu".to_owned() }];
        let short = || Answer::NotFound(Shortage { fit: 3, pods: 5, refusals: refusals.clone() });
        let found = "Capacity is found in the cluster";
        let part = "Partial capacity is found in the cluster. Schedulable podsets: a,b";
        let partly = |partial| Answer::PartlyFound(vec!["a".into(), "b".into()], partial);
        for (answer, retries, wanted) in [
            (Answer::Found(vec![]), true, ("Provisioned", true, "CapacityIsFound", found)),
            (Answer::Provisioned(vec![]), true, ("Provisioned", true, "CapacityIsProvisioned", found)),
            (partly(Partial::Book), true, ("Provisioned", true, "PartialCapacityIsFound", part)),
            (partly(Partial::CheckOnly), true, ("Provisioned", false, "PartialCapacityIsFound", part)),
            (
                short(),
                true,
                (
                    "Provisioned",
                    false,
                    "CapacityIsNotFound",
                    "Capacity is not found, CA will try to find it later: 3 of 5 pods fit; 1 Insufficient cpu",
                ),
            ),
            (
                short(),
                false,
                (
                    "Failed",
                    true,
                    "CapacityIsNotFound",
                    "CA could not find requested capacity: 3 of 5 pods fit; 1 Insufficient cpu",
                ),
            ),
        ] {
            let Said { kind, holds, reason, message } = said(&answer, retries).0;
            assert_eq!((kind, holds, reason, message.as_str()), wanted);
        }
    }
}
