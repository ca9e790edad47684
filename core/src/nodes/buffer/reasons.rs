//! Events of buffers, on the CapacityBuffer: Cluster Autoscaler's (`processors/capacitybuffer/pod_list_processor.go`).

use crate::{
    nodes::{
        action::Increase,
        pass::Refusal,
        reasons::{NOT_TRIGGER_SCALE_UP, TRIGGERED_SCALE_UP, plan_text, refusals_text},
    },
    pods::reasons::Event,
};

/// Every reason: its types and when it is given. The documentation is written from this table.
pub const EVENTS: &[(&str, &str, &str)] = &[
    (TRIGGERED_SCALE_UP, "Normal", "groups grow to keep its room"),
    (
        NOT_TRIGGER_SCALE_UP,
        "Normal",
        "no group can keep all of its room, with the reasons counted over the groups",
    ),
];

/// Groups grow for so many of a buffer's pods.
pub fn triggered_scale_up(pods: u32, increases: &[Increase]) -> Event {
    Event {
        type_: "Normal",
        reason: TRIGGERED_SCALE_UP,
        message: format!("capacity buffer {pods} fake pods triggered scale-up: {}", plan_text(increases)),
    }
}

/// No group can help so many of a buffer's pods.
pub fn not_trigger_scale_up(pods: u32, refusals: &[Refusal]) -> Event {
    let why = refusals_text(refusals);
    Event {
        type_: "Normal",
        reason: NOT_TRIGGER_SCALE_UP,
        message: format!("capacity buffer {pods} fake pods didn't trigger scale-up: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_peers() {
        let increase = Increase { group: "a".into(), from: 1, to: 2, max: 9 };
        assert_eq!(
            triggered_scale_up(2, &[increase]).message,
            "capacity buffer 2 fake pods triggered scale-up: [{a 1->2 (max: 9)}]"
        );
        let refusal = Refusal { group: "a".into(), reason: "Insufficient cpu".to_owned() };
        assert_eq!(
            not_trigger_scale_up(2, &[refusal]).message,
            "capacity buffer 2 fake pods didn't trigger scale-up: 1 Insufficient cpu"
        );
    }
}
