//! What is said of a buffer in its status, as Karpenter and Cluster Autoscaler have it
//! (Karpenter, `pkg/controllers/provisioning/buffers.go`; Cluster Autoscaler, `capacitybuffer/common`).

use super::{Allotment, Problem};

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its type.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in words.
    pub message: String,
}

/// Where a buffer's pods would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placement {
    /// On nodes that are there or on their way.
    pub there: u32,
    /// On nodes that have to be made.
    pub new: u32,
    /// Nowhere.
    pub nowhere: u32,
}

impl Placement {
    /// All of its pods.
    pub fn pods(&self) -> u32 {
        self.there + self.new + self.nowhere
    }
}

/// Whether it is known what room to keep.
pub fn ready(problem: Option<&Problem>) -> Said {
    let kind = "ReadyForProvisioning";
    match problem {
        None => {
            let message = "Pod template resolved successfully".to_owned();
            Said { kind, holds: true, reason: "Resolved", message }
        }
        Some(problem) => Said { kind, holds: false, reason: problem.reason(), message: problem.to_string() },
    }
}

/// Whether ResourceQuotas leave a buffer less than it wants.
pub fn limited(wanted: u32, allotment: &Allotment) -> Said {
    let (kind, reason) = ("LimitedByQuotas", "ResourceQuotasAllocated");
    let Allotment { replicas, by } = allotment;
    let message = if *replicas < wanted {
        format!("Buffer replicas limited from {wanted} to {replicas} due to quotas: {}", by.join(", "))
    } else {
        String::new()
    };
    Said { kind, holds: *replicas < wanted, reason, message }
}

/// Whether the room is there. `replicas` are absent if it is not known what room to keep; `None` if no loop has looked yet.
pub fn provisioning(replicas: Option<u32>, placement: Option<Placement>) -> Option<Said> {
    let said = |holds, reason, message: String| Some(Said { kind: "Provisioning", holds, reason, message });
    match (replicas, placement) {
        (None, _) => said(false, "NotReadyForProvisioning", "Buffer is not ReadyForProvisioning".to_owned()),
        (Some(0), _) => said(false, "BufferEmpty", "Buffer has zero desired replicas".to_owned()),
        (Some(_), None) => None,
        (Some(replicas), Some(Placement { new: 0, nowhere: 0, .. })) => {
            let message = format!("All {replicas} virtual pods fit on existing capacity");
            said(true, "FitsExistingCapacity", message)
        }
        (Some(replicas), Some(Placement { new, nowhere, .. })) => {
            let message = format!("{new}/{replicas} virtual pods required new capacity, {nowhere} failed");
            said(false, "RequiresNewCapacity", message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_whether_the_room_is_there() {
        let placed = |there, new, nowhere| Some(Placement { there, new, nowhere });
        let says = |replicas, placement| {
            provisioning(replicas, placement).map(|said| (said.holds, said.reason, said.message))
        };
        let cases = [
            (None, None, false, "NotReadyForProvisioning", "Buffer is not ReadyForProvisioning"),
            (Some(0), placed(2, 0, 0), false, "BufferEmpty", "Buffer has zero desired replicas"),
            (
                Some(3),
                placed(3, 0, 0),
                true,
                "FitsExistingCapacity",
                "All 3 virtual pods fit on existing capacity",
            ),
            (
                Some(3),
                placed(1, 2, 0),
                false,
                "RequiresNewCapacity",
                "2/3 virtual pods required new capacity, 0 failed",
            ),
            (
                Some(3),
                placed(0, 1, 2),
                false,
                "RequiresNewCapacity",
                "1/3 virtual pods required new capacity, 2 failed",
            ),
        ];
        for (replicas, placement, holds, reason, message) in cases {
            assert_eq!(says(replicas, placement), Some((holds, reason, message.to_owned())));
        }
        assert_eq!(says(Some(3), None), None, "nobody has looked yet");
    }

    #[test]
    fn quotas_are_named() {
        let all = limited(3, &Allotment { replicas: 3, by: vec![] });
        assert_eq!((all.holds, all.message.as_str()), (false, ""));
        let some = limited(3, &Allotment { replicas: 1, by: vec!["cpu".into(), "pods".into()] });
        assert_eq!(some.message, "Buffer replicas limited from 3 to 1 due to quotas: cpu, pods");
    }
}
