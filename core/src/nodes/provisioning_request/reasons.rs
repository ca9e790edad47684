//! Conditions and events of requests, as tables that the documentation is written from.

use crate::{nodes::reasons::NOT_TRIGGER_SCALE_UP, pods::reasons::Event};

/// Every condition: type, status, reason, and when it is said.
pub const CONDITIONS: &[(&str, &str, &str, &str)] = &[
    ("Accepted", "True", "Accepted", "it is understood; parameters that are left out are named"),
    ("Accepted", "False", "PodTemplateNotFound", "a PodTemplate is missing, which may still come"),
    ("Provisioned", "True", "CapacityIsFound", "all of its pods fit what is there or on its way"),
    ("Provisioned", "True", "CapacityIsProvisioned", "groups grow for all of its pods"),
    (
        "Provisioned",
        "True or False",
        "PartialCapacityIsFound",
        "some of its pod sets fit; room is kept for them with `partialCapacityCheck: bookPartial`",
    ),
    ("Provisioned", "False", "CapacityIsNotFound", "there is no room, and it is tried again later"),
    ("BookingExpired", "True", "CapacityReservationTimeExpired", "its room was kept for 10 minutes"),
    ("BookingExpired", "True", "CapacityBookingConsumed", "its pods have nodes"),
    ("Failed", "True", "CapacityIsNotFound", "there is no room, with `noRetry: \"true\"`"),
    ("Failed", "True", "Expired", "there was no room for `ValidUntilSeconds` (a week if it is not said)"),
    ("Failed", "True", "FailedToCreatePods", "its pod sets cannot be read"),
    ("Failed", "True", "FailedToBookCapacity", "a PodTemplate went while its room was kept"),
];

/// Every event: reason, types and when it is given.
pub const EVENTS: &[(&str, &str, &str)] =
    &[(NOT_TRIGGER_SCALE_UP, "Normal", "on a pod that consumes a request and fits nowhere")];

/// On a pod: no group grows for it, since its request asks for its room.
pub fn consuming(namespace: &str, request: &str) -> Event {
    Event {
        type_: "Normal",
        reason: NOT_TRIGGER_SCALE_UP,
        message: format!(
            "Unschedulable pod didn't trigger scale-up, because it's consuming ProvisioningRequest {namespace}/{request}"
        ),
    }
}
