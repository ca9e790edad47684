//! What scales a workload, in the form that the engine plays: a ScaledObject with its HPA, or an HPA alone.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{PodCondition, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use scalers::Scaler;
use tandem_core::{
    api::keda::ScaledObject,
    hpa::{
        Autoscaler,
        pods::{self, Tally, TallyError},
        spec::{Metric, Source, Target},
    },
    pods::{annotations::Pause, formula::Formula, hpa},
};

use super::{Compiler, Workload};
use crate::{history::History, input::Manifest, problem::Problem};

/// A workload and what scales it.
pub(crate) struct Object {
    pub namespace: String,
    pub name: String,
    /// `ScaledObject` or `HorizontalPodAutoscaler`.
    pub kind: &'static str,
    /// With creation and namespace filled in; `None` for an HPA alone.
    pub scaled: Option<Scaled>,
    /// The HPA's name.
    pub hpa_name: String,
    /// `None` while the object is paused.
    pub autoscaler: Option<Autoscaler>,
    /// Where the HPA's metrics come from, in order.
    pub origins: Vec<Origin>,
    pub workload: Workload,
    pub bounds: (i32, i32),
    /// What unserved load is measured by.
    pub primary: Option<Primary>,
}

impl Object {
    /// `NAMESPACE/NAME`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The part of a ScaledObject that Tandem plays itself.
pub(crate) struct Scaled {
    pub object: ScaledObject,
    pub target_kind: String,
    pub pause: Pause,
    pub formula: Option<Formula>,
    /// Its external metrics.
    pub slots: Vec<Slot>,
    pub resource_triggers: bool,
}

/// One external metric of a trigger.
pub(crate) struct Slot {
    /// `s0-prometheus`.
    pub metric: String,
    pub trigger: Option<String>,
    pub target: hpa::Target,
    pub scaler: Arc<dyn Scaler>,
    /// `None` for a scaler that follows the calendar.
    pub feed: Option<Feed>,
    pub use_cached: bool,
}

/// A history that is read.
#[derive(Clone)]
pub(crate) struct Feed(pub Arc<History>);

/// Where a metric of an HPA comes from.
pub(crate) enum Origin {
    /// A slot of the ScaledObject.
    Slot(usize),
    /// The formula of the ScaledObject.
    Composite,
    /// The value itself.
    Value(Feed),
    /// What all pods use, shared evenly among those that are ready; and what one requests, in thousandths.
    Usage(Feed, Result<i64, TallyError>),
}

/// What unserved load is measured by.
pub(crate) struct Primary {
    /// Its series among those of the object.
    pub series: usize,
    /// What a replica is meant to take, or what the whole is held at.
    pub target: f64,
    pub per_replica: bool,
}

/// An HPA that a user wrote.
pub(super) fn of_hpa(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    mut hpa: HorizontalPodAutoscaler,
) -> Option<Object> {
    hpa.metadata.namespace.get_or_insert_with(|| manifest.namespace().to_owned());
    let autoscaler = autoscaler(compiler, manifest, &hpa)?;
    let target = &hpa.spec.scale_target_ref;
    let workload = compiler.workload(manifest, &target.kind, &target.name);
    let mut origins = Vec::new();
    for (index, metric) in autoscaler.metrics.iter().enumerate() {
        origins.push(origin(compiler, manifest, &format!("spec.metrics[{index}]"), metric, &workload)?);
    }
    Some(Object {
        namespace: manifest.namespace().to_owned(),
        name: manifest.name().to_owned(),
        kind: "HorizontalPodAutoscaler",
        scaled: None,
        hpa_name: manifest.name().to_owned(),
        primary: autoscaler.metrics.first().and_then(|metric| primary(0, metric, origins.first()?)),
        bounds: (autoscaler.min, autoscaler.max),
        autoscaler: Some(autoscaler),
        origins,
        workload,
    })
}

/// An HPA in the form that steps read.
pub(super) fn autoscaler(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    hpa: &HorizontalPodAutoscaler,
) -> Option<Autoscaler> {
    let compiled = Autoscaler::compile(hpa);
    compiled
        .map_err(|error| compiler.problems.push(Problem::at(manifest.place("spec"), error.to_string())))
        .ok()
}

/// Where a metric comes from that is no trigger's.
pub(super) fn origin(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    path: &str,
    metric: &Metric,
    workload: &Workload,
) -> Option<Origin> {
    let name = match &metric.source {
        Source::Resource { resource } | Source::ContainerResource { resource, .. } => resource,
        Source::Pods { name } | Source::Object { name, .. } | Source::External { name, .. } => name,
        Source::Unknown(kind) => {
            let message = format!("{kind:?} is no type of metric");
            compiler.problems.push(Problem::at(manifest.place(path), message));
            return None;
        }
    };
    let requests = requests(compiler, metric, workload);
    let requested = requests.as_ref().copied().unwrap_or_default();
    let target = match metric.target {
        Target::Utilization(percent) => units(requested) * f64::from(percent) / 100.0,
        Target::AverageValue(milli) | Target::Value(milli) => units(milli),
        Target::Missing => 1.0,
    };
    let feed = Feed(compiler.history(manifest, path, &[name], target)?);
    Some(match metric.source {
        Source::Object { .. } | Source::External { .. } => Origin::Value(feed),
        _ => {
            if let (Err(error), Target::Utilization(_)) = (&requests, metric.target) {
                compiler.notes.push(format!("{} {}: {error}", manifest.kind(), manifest.key()));
            }
            Origin::Usage(feed, requests)
        }
    })
}

/// What one pod requests of a metric's resource, in thousandths, as the controller works it out.
fn requests(compiler: &Compiler<'_>, metric: &Metric, workload: &Workload) -> Result<i64, TallyError> {
    let mut pod = workload.pod.clone();
    // A pod that has been ready for long.
    let since = Time(Timestamp::UNIX_EPOCH);
    let ready = PodCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(since.clone()),
        ..PodCondition::default()
    };
    pod.status = Some(PodStatus {
        phase: Some("Running".to_owned()),
        start_time: Some(since),
        conditions: Some(vec![ready]),
        ..PodStatus::default()
    });
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
    let name = pod.metadata.name.clone().unwrap_or_default();
    let sample = pods::Sample { pod: name, value: 0, at: now, window: SignedDuration::ZERO };
    pods::tally(metric, &[pod], &[sample], &compiler.settings, now).map(|Tally { requests, .. }| requests)
}

/// What unserved load is measured by, if the metric of a series has a target.
pub(super) fn primary(series: usize, metric: &Metric, origin: &Origin) -> Option<Primary> {
    let (target, per_replica) = match (metric.target, origin) {
        (Target::Utilization(percent), Origin::Usage(_, Ok(requests))) => {
            (units(*requests) * f64::from(percent) / 100.0, true)
        }
        (Target::AverageValue(milli), _) => (units(milli), true),
        (Target::Value(milli), _) => (units(milli), false),
        _ => return None,
    };
    (target > 0.0).then_some(Primary { series, target, per_replica })
}

/// Thousandths as units.
#[allow(clippy::cast_precision_loss, reason = "values beyond 2^53 thousandths may lose their last digits")]
pub(crate) fn units(milli: i64) -> f64 {
    milli as f64 / 1000.0
}
