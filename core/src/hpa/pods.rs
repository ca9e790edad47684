//! Which of a target's pods count for a metric, and with what.
//!
//! The rules are those of `groupPods` and `calculateRequests` in Kubernetes
//! (`pkg/controller/podautoscaler/replica_calculator.go`).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;
use thiserror::Error;

use super::{Settings, requests, spec::Metric, spec::Source, spec::Target};

/// The resource whose samples from starting pods mislead.
const CPU: &str = "cpu";

/// One pod's value of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Name of the pod.
    pub pod: String,
    /// In milli-units; for a resource of pods the sum over their containers, see [`pod_usage`].
    pub value: i64,
    /// When it was taken.
    pub at: Timestamp,
    /// Time over which it was taken; the controller takes 60 s for custom metrics that do not say.
    pub window: SignedDuration,
}

/// The usage of a pod from that of its containers, in milli-units: of the one named, or of all.
///
/// `None` when that container, or any, has no value: then the pod has no sample.
pub fn pod_usage(usage: &[(&str, Option<i64>)], container: Option<&str>) -> Option<i64> {
    match container {
        Some(container) => usage.iter().find(|(name, _)| *name == container)?.1,
        None if usage.is_empty() => None,
        None => usage.iter().try_fold(0_i64, |sum, (_, value)| Some(sum.saturating_add((*value)?))),
    }
}

/// What samples and pods amount to. Counts of pods; usage and requests in milli-units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pods whose samples count.
    pub ready: u32,
    /// Their usage.
    pub usage: i64,
    /// What they request.
    pub requests: i64,
    /// Samples of pods that the target does not select, which averages include all the same.
    pub stray: u32,
    /// Their usage.
    pub stray_usage: i64,
    /// Pods too young for their samples to count.
    pub unready: u32,
    /// What they request.
    pub unready_requests: i64,
    /// Pods without a sample.
    pub missing: u32,
    /// What they request.
    pub missing_requests: i64,
    /// What they are taken to use when others use too little: all that they request, or the target if that is more.
    pub missing_usage: i64,
}

impl Tally {
    /// Pods that are alike, all of them ready: `usage` and `requests` are those of one.
    pub fn alike(pods: u32, usage: i64, requests: i64) -> Self {
        let all = |each: i64| each.saturating_mul(i64::from(pods));
        Self { ready: pods, usage: all(usage), requests: all(requests), ..Self::default() }
    }

    pub(super) fn measured(&self) -> u32 {
        self.ready.saturating_add(self.stray)
    }
}

/// Why samples and pods amount to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TallyError {
    /// The target selects no pods.
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    /// A container without a request has no utilization.
    #[error("missing request for {resource} in container {container} of Pod {pod}")]
    NoRequest {
        /// The resource.
        resource: String,
        /// The container.
        container: String,
        /// The pod.
        pod: String,
    },
    /// A pod that requests as a whole does not request this.
    #[error("missing pod-level request for {resource} in Pod {pod}")]
    NoPodRequest {
        /// The resource.
        resource: String,
        /// The pod.
        pod: String,
    },
    /// The pod has no such container.
    #[error("container {container} not found in Pod {pod}")]
    NoContainer {
        /// The container.
        container: String,
        /// The pod.
        pod: String,
    },
    /// What a pod requests is no quantity.
    #[error("request for {resource} of Pod {pod}: {source}")]
    Quantity {
        /// The resource.
        resource: String,
        /// The pod.
        pod: String,
        /// What is wrong with it.
        source: crate::quantity::QuantityError,
    },
}

/// What happens to a pod's sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// It counts.
    Ready,
    /// The pod is too young for it.
    Unready,
    /// There is none.
    Missing,
    /// The pod does not count at all.
    Ignored,
}

/// The group of a pod. `resource` is `cpu`, `memory`, or empty for custom metrics; of them only cpu looks at readiness.
pub fn group(
    pod: &core::Pod,
    sample: Option<&Sample>,
    resource: &str,
    settings: &Settings,
    now: Timestamp,
) -> Group {
    let phase = phase(pod);
    let terminal = phase == "Failed" || (phase == "Succeeded" && settings.gates.ignores_succeeded_pods());
    if pod.metadata.deletion_timestamp.is_some() || terminal {
        return Group::Ignored;
    }
    if phase == "Pending" {
        return Group::Unready;
    }
    match sample {
        None => Group::Missing,
        Some(sample) if resource == CPU && is_starting(pod, sample, settings, now) => Group::Unready,
        Some(_) => Group::Ready,
    }
}

/// Whether a sample of cpu usage shows how a pod starts rather than how it works.
fn is_starting(pod: &core::Pod, sample: &Sample, settings: &Settings, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (ready_condition(pod), started) else { return true };
    // The API server always writes the time; a pod that somebody made up without one has been ready for ever.
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let unready = ready.status == "False";
    if now.duration_since(started.0) < settings.cpu_initialization_period {
        unready || sample.at.duration_since(changed) < sample.window
    } else {
        unready && changed.duration_since(started.0) < settings.initial_readiness_delay
    }
}

fn phase(pod: &core::Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn ready_condition(pod: &core::Pod) -> Option<&core::PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "Ready")
}

/// The pods that are running and ready; `None` when there are no pods. Those that terminate count while they are ready.
pub fn ready_pods(pods: &[core::Pod]) -> Option<u32> {
    let is_ready = |pod: &&core::Pod| {
        phase(pod) == "Running" && ready_condition(pod).is_some_and(|ready| ready.status == "True")
    };
    let ready = pods.iter().filter(is_ready).count();
    (!pods.is_empty()).then(|| u32::try_from(ready).unwrap_or(u32::MAX))
}

/// Sums up samples of a metric over the pods that the target selects. Of several samples of a pod the last counts.
pub fn tally(
    metric: &Metric,
    pods: &[core::Pod],
    samples: &[Sample],
    settings: &Settings,
    now: Timestamp,
) -> Result<Tally, TallyError> {
    if pods.is_empty() {
        return Err(TallyError::NoPods);
    }
    let (resource, container) = match &metric.source {
        Source::Resource { resource } => (resource.as_str(), None),
        Source::ContainerResource { resource, container } => (resource.as_str(), Some(container.as_str())),
        _ => ("", None),
    };
    let mut by_pod: BTreeMap<&str, &Sample> =
        samples.iter().map(|sample| (sample.pod.as_str(), sample)).collect();
    let mut tally = Tally::default();
    let mut first_error = None;
    for pod in pods {
        let name = pod.name_any();
        let sample = by_pod.remove(name.as_str());
        let group = group(pod, sample, resource, settings, now);
        let request = match metric.target {
            Target::Utilization(_) => requests::of_pod(pod, container, resource, settings.gates),
            _ => Ok(0),
        };
        let request = request.unwrap_or_else(|error| {
            first_error.get_or_insert(error);
            0
        });
        tally.add(group, sample.map_or(0, |sample| sample.value), request, metric.target);
    }
    for stray in by_pod.into_values() {
        tally.stray += 1;
        tally.stray_usage = tally.stray_usage.saturating_add(stray.value);
    }
    // Without a sample that counts the controller does not get as far as requests.
    match first_error {
        Some(error) if tally.measured() > 0 => Err(error),
        _ => Ok(tally),
    }
}

impl Tally {
    fn add(&mut self, group: Group, usage: i64, request: i64, target: Target) {
        match group {
            Group::Ready => {
                self.ready += 1;
                self.usage = self.usage.saturating_add(usage);
                self.requests = self.requests.saturating_add(request);
            }
            Group::Unready => {
                self.unready += 1;
                self.unready_requests = self.unready_requests.saturating_add(request);
            }
            Group::Missing => {
                let Target::Utilization(percent) = target else {
                    self.missing += 1;
                    return;
                };
                self.missing += 1;
                self.missing_requests = self.missing_requests.saturating_add(request);
                let full = request.saturating_mul(i64::from(percent.max(100))) / 100;
                self.missing_usage = self.missing_usage.saturating_add(full);
            }
            Group::Ignored => {}
        }
    }
}
