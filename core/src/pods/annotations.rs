//! What annotations ask for: pauses, forced activation, ownership.
//!
//! Names and reading are those of KEDA (`apis/keda/v1alpha1/scaledobject_types.go`): a switch that does not read as
//! a bool is on, so that a typo never unpauses anything.

use std::collections::BTreeMap;

use thiserror::Error;

/// Pauses an object: its HPA goes, its loop stops.
pub const PAUSED: &str = "autoscaling.keda.sh/paused";
/// Pauses a ScaledObject and sets its target to a count; stronger than [`PAUSED`].
pub const PAUSED_REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";
/// No fewer replicas while it is on.
pub const PAUSED_SCALE_IN: &str = "autoscaling.keda.sh/paused-scale-in";
/// No more replicas while it is on.
pub const PAUSED_SCALE_OUT: &str = "autoscaling.keda.sh/paused-scale-out";
/// Treats a ScaledObject as active while it is on.
pub const FORCE_ACTIVATION: &str = "autoscaling.keda.sh/force-activation";
/// Lets a ScaledObject take over the HPA that its `advanced` section names; `"true"` only.
pub const TRANSFER_HPA_OWNERSHIP: &str = "scaledobject.keda.sh/transfer-hpa-ownership";
/// Labels of a ScaledObject that its HPA does not get, joined by commas.
pub const HPA_EXCLUDED_LABELS: &str = "scaledobject.keda.sh/hpa-excluded-labels";
/// Labels of a ScaledJob that its Jobs do not get, joined by commas.
pub const JOB_EXCLUDED_LABELS: &str = "scaledjob.keda.sh/job-excluded-labels";
/// The generation of the ScaledJob that made a Job, on the Job.
pub const JOB_GENERATION: &str = "scaledjob.keda.sh/generation";
/// `"false"` on an HPA takes it out of the ownership checks at admission.
pub const VALIDATE_HPA_OWNERSHIP: &str = "validations.keda.sh/hpa-ownership";
/// Label, on a ScaledObject and in the selectors of its metrics: the object's name.
pub const SCALED_OBJECT_LABEL: &str = "scaledobject.keda.sh/name";
/// Label on a Job: the name of its ScaledJob.
pub const SCALED_JOB_LABEL: &str = "scaledjob.keda.sh/name";
/// Finalizer of all objects of the group.
pub const FINALIZER: &str = "finalizer.keda.sh";

/// Why an annotation means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnnotationError {
    /// The count of [`PAUSED_REPLICAS`] is none.
    #[error("annotation {PAUSED_REPLICAS} is {0:?}, expected a number of replicas such as \"5\"")]
    PausedReplicas(String),
}

/// What is paused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pause {
    /// Everything: no HPA, no loop.
    pub full: bool,
    /// The count to hold, with `full`; none holds what is there.
    pub replicas: Option<i32>,
    /// Scaling in.
    pub scale_in: bool,
    /// Scaling out.
    pub scale_out: bool,
}

impl Pause {
    /// What the annotations of an object pause. A count that does not read pauses at the present count.
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        Self {
            full: annotations.contains_key(PAUSED_REPLICAS) || switch(annotations, PAUSED),
            replicas: paused_replicas(annotations).ok().flatten(),
            scale_in: switch(annotations, PAUSED_SCALE_IN),
            scale_out: switch(annotations, PAUSED_SCALE_OUT),
        }
    }

    /// Whether anything is paused, as the Paused condition says it.
    pub fn any(self) -> bool {
        self.full || self.scale_in || self.scale_out
    }
}

/// The count of [`PAUSED_REPLICAS`], if it is there.
pub fn paused_replicas(annotations: &BTreeMap<String, String>) -> Result<Option<i32>, AnnotationError> {
    let count = annotations.get(PAUSED_REPLICAS);
    count.map(|text| text.parse().map_err(|_| AnnotationError::PausedReplicas(text.clone()))).transpose()
}

/// Whether the object counts as active whatever its triggers say.
pub fn force_activation(annotations: &BTreeMap<String, String>) -> bool {
    switch(annotations, FORCE_ACTIVATION)
}

/// Whether the annotation is there and does not read as false (Go's `strconv.ParseBool`).
fn switch(annotations: &BTreeMap<String, String>, name: &str) -> bool {
    let off = |text: &String| matches!(text.as_str(), "0" | "f" | "F" | "false" | "FALSE" | "False");
    annotations.get(name).is_some_and(|text| !off(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_switch_is_on_unless_it_reads_as_false() {
        for (text, on) in [
            ("true", true),
            ("", true),
            ("no", true),
            ("FALSE", false),
            ("0", false),
            ("f", false),
            ("false", false),
            ("fAlse", true),
        ] {
            assert_eq!(Pause::of(&annotations(&[(PAUSED, text)])).full, on, "{text:?}");
            assert_eq!(force_activation(&annotations(&[(FORCE_ACTIVATION, text)])), on, "{text:?}");
        }
        assert_eq!(Pause::of(&annotations(&[])), Pause::default());
    }

    #[test]
    fn a_count_pauses_over_paused_false() {
        let pause = |text| Pause::of(&annotations(&[(PAUSED, "false"), (PAUSED_REPLICAS, text)]));
        assert_eq!(pause("5"), Pause { full: true, replicas: Some(5), ..Pause::default() });
        assert_eq!(pause("five"), Pause { full: true, replicas: None, ..Pause::default() });
    }

    #[test]
    fn one_way_pauses_stand_alone() {
        let pause = Pause::of(&annotations(&[(PAUSED_SCALE_IN, "true"), (PAUSED_SCALE_OUT, "false")]));
        assert_eq!(pause, Pause { scale_in: true, ..Pause::default() });
        assert!(pause.any());
    }
}
