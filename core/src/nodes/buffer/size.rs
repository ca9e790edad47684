//! For how many pods a buffer keeps room, and what is wrong with one that does not say.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

use crate::{
    api::autoscaling::{CapacityBufferSpec, ScalableReference},
    scheduling::Resources,
};

/// The most pods that one buffer stands for: a limit in the wrong unit must not fill the memory.
pub const MOST_REPLICAS: u32 = 10_000;

/// What a buffer's pods look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// As this PodTemplate has it.
    Template(&'a str),
    /// As the pods of this workload.
    Scalable(&'a ScalableReference),
}

impl<'a> Source<'a> {
    /// Reads what a buffer refers to.
    ///
    /// # Errors
    /// It refers to both, or to nothing.
    pub fn of(spec: &'a CapacityBufferSpec) -> Result<Self, Problem> {
        match (&spec.pod_template_ref, &spec.scalable_ref) {
            (Some(template), None) => Ok(Self::Template(&template.name)),
            (None, Some(scalable)) => Ok(Self::Scalable(scalable)),
            (None, None) => Err(Problem::Neither),
            (Some(template), Some(scalable)) => Err(Problem::Both {
                template: template.name.clone(),
                scalable: format!("{} {}", scalable.kind, scalable.name),
            }),
        }
    }
}

/// Why no room can be kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// Two sources.
    #[error("podTemplateRef {template} and scalableRef {scalable} are both set; remove one of them")]
    Both {
        /// The PodTemplate.
        template: String,
        /// Kind and name of the workload.
        scalable: String,
    },
    /// No source.
    #[error(
        "neither podTemplateRef nor scalableRef is set; write podTemplateRef: {{name: NAME}} for a PodTemplate or \
         scalableRef: {{apiGroup: apps, kind: Deployment, name: NAME}} for a workload"
    )]
    Neither,
    /// The PodTemplate is not there.
    #[error(
        "there is no PodTemplate {name} in namespace {namespace}; create it, or correct podTemplateRef.name"
    )]
    NoTemplate {
        /// Where it was looked for.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The workload is not there.
    #[error("there is no {kind} {name} in namespace {namespace}; create it, or correct scalableRef")]
    NoScalable {
        /// Where it was looked for.
        namespace: String,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The workload cannot be read, or scaled.
    #[error(
        "scalableRef {reference} cannot be used: {why}; write a kind with a scale subresource and a pod template, such as \
         apiGroup: apps, kind: Deployment"
    )]
    Unscalable {
        /// Group, kind and name as written.
        reference: String,
        /// What was seen.
        why: String,
    },
    /// Nothing says how many.
    #[error(
        "nothing says for how many pods: replicas and limits are not set, and percentage counts for a scalableRef only; \
         write replicas: 1"
    )]
    NoSize,
    /// Limits alone are to say how many, and bound nothing that the pods ask for.
    #[error(
        "limits name {limits} and the pods request {requests}; name one of these in limits, or write replicas"
    )]
    LimitsBindNothing {
        /// What the limits name.
        limits: String,
        /// What a pod requests.
        requests: String,
    },
}

impl Problem {
    /// The reason in the condition (Karpenter, `pkg/controllers/capacitybuffer/constants.go`).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoTemplate { .. } => "PodTemplateNotFound",
            Self::NoScalable { .. } => "ScalableRefNotFound",
            _ => "ResolutionFailed",
        }
    }
}

/// For how many pods a buffer keeps room: the greater of `replicas` and `percentage`, as far as `limits` go; as many as fit
/// into `limits` if they are all that is said (Karpenter, `computeReplicas`). `requests` are those of one pod, `scalable` the
/// replicas of the workload, if it is room for one.
///
/// # Errors
/// Nothing says how many.
pub fn replicas(
    spec: &CapacityBufferSpec,
    requests: &Resources,
    scalable: Option<i32>,
) -> Result<u32, Problem> {
    let fixed = spec.replicas.map(|replicas| u32::try_from(replicas).unwrap_or(0));
    let share = spec.percentage.zip(scalable).map(|(percentage, of)| share(percentage, of));
    let wanted = fixed.max(share);
    let bound = spec.limits.as_ref().map(|limits| (limits, within(limits, requests)));
    let replicas = match (wanted, bound) {
        (None, None) => return Err(Problem::NoSize),
        (None, Some((limits, None))) => {
            let limits: Vec<_> = limits.keys().map(String::as_str).collect();
            let requests: Vec<_> = requests.iter().map(|(name, _)| name).collect();
            return Err(Problem::LimitsBindNothing {
                limits: limits.join(", "),
                requests: requests.join(", "),
            });
        }
        (Some(wanted), None | Some((_, None))) => wanted,
        (wanted, Some((_, Some(bound)))) => wanted.map_or(bound, |wanted| wanted.min(bound)),
    };
    Ok(replicas.min(MOST_REPLICAS))
}

/// So many percent of a workload's pods, rounded up: at least one, of a workload that has any.
fn share(percentage: i32, of: i32) -> u32 {
    let hundredths = i64::from(percentage.max(0)) * i64::from(of.max(0));
    u32::try_from(hundredths.div_euclid(100) + i64::from(hundredths % 100 != 0)).unwrap_or(u32::MAX)
}

/// How many pods fit into limits; `None` if these bound nothing that a pod requests.
fn within(limits: &BTreeMap<String, Quantity>, requests: &Resources) -> Option<u32> {
    let amounts = Resources::from_list(limits);
    let fitting = |name: &String| {
        let each = requests.get(name);
        (each > 0).then(|| u32::try_from(amounts.get(name).max(0) / each).unwrap_or(u32::MAX))
    };
    limits.keys().filter_map(fitting).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spec(spec: Value) -> CapacityBufferSpec {
        serde_json::from_value(spec).unwrap()
    }

    /// A pod of one core and 2 GiB.
    fn requests() -> Resources {
        Resources { cpu: 1_000, memory: 2 << 30, pods: 1, ..Resources::default() }
    }

    #[test]
    fn the_greater_of_replicas_and_percentage_counts_as_far_as_limits_go() {
        for (says, scalable, wanted) in [
            (json!({"replicas": 5}), None, 5),
            (json!({"replicas": 0}), None, 0),
            (json!({"percentage": 20}), Some(10), 2),
            (json!({"percentage": 25}), Some(10), 3),
            (json!({"percentage": 1}), Some(1), 1),
            (json!({"percentage": 0}), Some(10), 0),
            (json!({"percentage": 300}), Some(2), 6),
            (json!({"percentage": 50}), Some(0), 0),
            (json!({"replicas": 5, "percentage": 80}), Some(10), 8),
            (json!({"replicas": 5, "percentage": 20}), Some(10), 5),
            (json!({"replicas": 5, "percentage": 80, "limits": {"cpu": "4"}}), Some(10), 4),
            (json!({"replicas": 10, "limits": {"cpu": "3500m"}}), None, 3),
            (json!({"limits": {"cpu": "5", "memory": "8Gi"}}), None, 4),
            (json!({"limits": {"cpu": "500m"}}), None, 0),
            (json!({"limits": {"pods": "7"}}), None, 7),
            (json!({"percentage": 50, "limits": {"cpu": "4"}}), Some(0), 0),
            (json!({"replicas": 2, "limits": {"nvidia.com/gpu": "1"}}), None, 2),
            (json!({"limits": {"cpu": "1000000"}}), None, MOST_REPLICAS),
        ] {
            assert_eq!(
                replicas(&spec(says.clone()), &requests(), scalable),
                Ok(wanted),
                "{says} {scalable:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_seen_and_what_to_write() {
        let scalable = json!({"apiGroup": "apps", "kind": "Deployment", "name": "web"});
        let template = json!({"name": "small"});
        for (says, wanted) in [
            (json!({}), "neither podTemplateRef nor scalableRef is set; write podTemplateRef: {name: NAME}"),
            (
                json!({"podTemplateRef": template, "scalableRef": scalable}),
                "podTemplateRef small and scalableRef Deployment web are both set; remove one of them",
            ),
        ] {
            let problem = Source::of(&spec(says)).unwrap_err();
            assert!(problem.to_string().starts_with(wanted), "{problem}");
            assert_eq!(problem.reason(), "ResolutionFailed");
        }
        for (says, scalable, wanted) in [
            (json!({"podTemplateRef": template, "percentage": 20}), None, "nothing says for how many pods"),
            (json!({"scalableRef": scalable}), Some(3), "nothing says for how many pods"),
            (
                json!({"podTemplateRef": template, "limits": {"nvidia.com/gpu": "1"}}),
                None,
                "limits name nvidia.com/gpu and the pods request cpu, memory, pods; name one of these",
            ),
        ] {
            let problem = replicas(&spec(says), &requests(), scalable).unwrap_err();
            assert!(problem.to_string().starts_with(wanted), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn the_size_is_within_what_is_said(
            fixed in prop::option::of(0..9_000_i32),
            percentage in prop::option::of(0..400_i32),
            scalable in prop::option::of(0..2_000_i32),
            cores in prop::option::of(0..5_000_i64),
        ) {
            let limits = cores.map(|cores| json!({"cpu": cores.to_string()}));
            let says = spec(json!({"replicas": fixed, "percentage": percentage, "limits": limits}));
            let size = replicas(&says, &requests(), scalable);
            prop_assert_eq!(size.is_err(), fixed.is_none() && cores.is_none() && percentage.zip(scalable).is_none());
            let Ok(size) = size else { return Ok(()) };
            prop_assert!(cores.is_none_or(|cores| i64::from(size) <= cores));
            let bound = cores.and_then(|cores| u32::try_from(cores).ok()).unwrap_or(u32::MAX).min(MOST_REPLICAS);
            prop_assert!(fixed.is_none_or(|fixed| size >= u32::try_from(fixed).unwrap().min(bound)));
        }
    }
}
