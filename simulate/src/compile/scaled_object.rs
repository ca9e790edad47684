//! A ScaledObject: its triggers as scalers that judge history, its formula, and the HPA that Tandem makes of it.

use std::sync::{Arc, OnceLock};

use kube::ResourceExt;
use scalers::{Context, Metric, Offline, Replay};
use tandem_core::{
    api::keda::{ScaleTrigger, ScaledObject},
    hpa::{Autoscaler, spec::Source},
    pods::{
        annotations::Pause,
        formula,
        hpa::{self, COMPOSITE, MetricKind, ScaleTargetGvk, TriggerMetric},
        validate,
    },
};

use super::{
    Compiler, Feed, Object, Origin, Primary, Slot, Workload,
    object::{self, Scaled, units},
};
use crate::{input::Manifest, problem::Problem};

/// What a manifest names that is not in it is taken for right.
const OFFLINE: Offline = Offline { auth: true, env: true };

pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    mut object: ScaledObject,
) -> Option<Object> {
    object.metadata.namespace = Some(manifest.namespace().to_owned());
    let violations = validate::validate(&object);
    if !violations.is_empty() {
        let problem = |violation: validate::Violation| {
            Problem::at(manifest.place(&violation.field.unwrap_or_default()), violation.message)
        };
        compiler.problems.extend(violations.into_iter().map(problem));
        return None;
    }
    object.status = None;

    let gvk = gvk(&object);
    let pause = Pause::of(object.annotations());
    let mut workload = compiler.workload(manifest, &gvk.kind, &object.spec.scale_target_ref.name);
    if let Some(replicas) = pause.replicas.filter(|_| pause.full) {
        workload.replicas = u32::try_from(replicas).unwrap_or_default();
    }
    let formula = formula::compile(&object)
        .map_err(|error| {
            let place = manifest.place("spec.advanced.scalingModifiers");
            compiler.problems.push(Problem::at(place, error.to_string()));
        })
        .ok()?;
    let (slots, metrics) = triggers(compiler, manifest, &object)?;
    let generated = hpa::generate(&object, &gvk, &metrics, env!("CARGO_PKG_VERSION"))
        .map_err(|error| {
            compiler.problems.push(Problem::at(manifest.place("spec.triggers"), error.to_string()));
        })
        .ok()?;
    let autoscaler = object::autoscaler(compiler, manifest, &generated)?;
    let origins = origins(compiler, manifest, &autoscaler, &slots, &workload)?;
    let primary = primary(&slots, &autoscaler, &origins, formula.as_ref());
    Some(Object {
        namespace: manifest.namespace().to_owned(),
        name: manifest.name().to_owned(),
        kind: "ScaledObject",
        hpa_name: generated.name_any(),
        bounds: (object.spec.min_replicas(), object.spec.max_replicas()),
        autoscaler: (!pause.full).then_some(autoscaler),
        origins,
        workload,
        primary,
        scaled: Some(Scaled {
            target_kind: format!("{}.{}", gvk.api_version(), gvk.kind),
            pause,
            formula,
            slots,
            resource_triggers: object.spec.triggers.iter().any(ScaleTrigger::is_resource),
            object,
        }),
    })
}

/// The target's kind as the manifest has it; its plural is the API server's to know, and nothing here reads it.
fn gvk(object: &ScaledObject) -> ScaleTargetGvk {
    let target = &object.spec.scale_target_ref;
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let api_version = text(&target.api_version).unwrap_or_else(|| "apps/v1".to_owned());
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let kind = text(&target.kind).unwrap_or_else(|| "Deployment".to_owned());
    let resource = format!("{}s", kind.to_lowercase());
    ScaleTargetGvk { group: group.to_owned(), version: version.to_owned(), kind, resource }
}

/// The slots of all triggers, and the metrics of all for the HPA.
fn triggers(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    object: &ScaledObject,
) -> Option<(Vec<Slot>, Vec<TriggerMetric>)> {
    let (mut slots, mut all) = (Vec::new(), Vec::new());
    let mut complete = true;
    for (index, trigger) in object.spec.triggers.iter().enumerate() {
        let Some((scaler, metrics)) = replay(compiler, manifest, object, index, trigger) else {
            complete = false;
            continue;
        };
        let value_target = trigger.metric_type.as_deref() == Some("Value");
        for metric in &metrics {
            let kind = triggers::hpa_metric(index, value_target, metric);
            if let MetricKind::External { name, target } = &kind {
                let feed = match scaler.planned(jiff::Timestamp::UNIX_EPOCH) {
                    Some(_) => Some(None),
                    None => feed(compiler, manifest, (index, trigger), name, units(target.milli)).map(Some),
                };
                complete &= feed.is_some();
                slots.push(Slot {
                    metric: name.clone(),
                    trigger: trigger.name.clone().filter(|name| !name.is_empty()),
                    target: *target,
                    scaler: scaler.clone(),
                    feed: feed.flatten(),
                    use_cached: trigger.use_cached_metrics.unwrap_or(false),
                });
            }
            all.push(TriggerMetric {
                trigger_index: index,
                trigger_type: trigger.type_.clone(),
                trigger_name: trigger.name.clone(),
                metric: kind,
            });
        }
    }
    complete.then_some((slots, all))
}

fn feed(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    (index, trigger): (usize, &ScaleTrigger),
    metric: &str,
    target: f64,
) -> Option<Feed> {
    let place = index.to_string();
    let mut names = vec![metric, &place];
    if let Some(name) = trigger.name.as_deref().filter(|name| !name.is_empty()) {
        names.insert(0, name);
    }
    let path = format!("spec.triggers[{index}]");
    compiler.history(manifest, &path, &names, target).map(Feed)
}

/// A trigger as its own scaler reads it.
fn replay(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    object: &ScaledObject,
    index: usize,
    trigger: &ScaleTrigger,
) -> Option<(Arc<dyn scalers::Scaler>, Vec<Metric>)> {
    let path = format!("spec.triggers[{index}]");
    let mut refuse = |message: String| compiler.problems.push(Problem::at(manifest.place(&path), message));
    let metric_type = triggers::metric_type(trigger).map_err(|error| refuse(error.to_string())).ok()?;
    let input = scalers::Input { metric_type, ..triggers::input(object, index, trigger) };
    let context = context().as_ref().map_err(|error| refuse(error.clone())).ok()?;
    let Replay { scaler, metrics } =
        scalers::replay(&input, OFFLINE, context).map_err(|error| refuse(error.to_string())).ok()?;
    let metrics = match metrics {
        Some(metrics) => metrics,
        None => vec![told(compiler, manifest, &path, (index, trigger))?],
    };
    Some((Arc::from(scaler), metrics))
}

/// The metric of a trigger that only a remote process knows, with the target that the options give it.
fn told(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    path: &str,
    (index, trigger): (usize, &ScaleTrigger),
) -> Option<Metric> {
    let object = manifest.key();
    let place = index.to_string();
    let names = [trigger.name.as_deref(), Some(place.as_str())].into_iter().flatten();
    let mut keys = names.map(|name| format!("{object}:{name}"));
    let target = keys.find_map(|key| compiler.options.targets.get(&key));
    if let Some(target) = target {
        return Some(Metric::External { name: trigger.type_.clone(), target_milli: scalers::milli(*target) });
    }
    let message = format!(
        "only its server knows the metric and the target: give the target with --target {object}:{index}=VALUE, and write \
         what the server answered into a history"
    );
    compiler.problems.push(Problem::at(manifest.place(path), message));
    None
}

/// Where each metric of the generated HPA comes from.
fn origins(
    compiler: &mut Compiler<'_>,
    manifest: &Manifest,
    autoscaler: &Autoscaler,
    slots: &[Slot],
    workload: &Workload,
) -> Option<Vec<Origin>> {
    let mut origins = Vec::new();
    for metric in &autoscaler.metrics {
        let origin = match &metric.source {
            Source::External { name, .. } if name == COMPOSITE => Origin::Composite,
            Source::External { name, .. } => {
                Origin::Slot(slots.iter().position(|slot| slot.metric == *name)?)
            }
            _ => object::origin(compiler, manifest, "spec.triggers", metric, workload)?,
        };
        origins.push(origin);
    }
    Some(origins)
}

/// The composite metric, else the first that a load makes (no calendar does), as the series will be ordered: slots, then
/// what the HPA reads itself, then the composite.
fn primary(
    slots: &[Slot],
    autoscaler: &Autoscaler,
    origins: &[Origin],
    formula: Option<&formula::Formula>,
) -> Option<Primary> {
    let resources = origins.iter().filter(|origin| matches!(origin, Origin::Usage(..))).count();
    if let Some(formula) = formula {
        return Some(Primary {
            series: slots.len() + resources,
            target: units(formula.target_milli),
            per_replica: formula.target_kind == hpa::TargetKind::AverageValue,
        });
    }
    let slot = slots.iter().position(|slot| slot.feed.is_some()).map(|series| Primary {
        series,
        target: units(slots[series].target.milli),
        per_replica: slots[series].target.kind == hpa::TargetKind::AverageValue,
    });
    slot.or_else(|| {
        let own = autoscaler.metrics.iter().zip(origins);
        let (metric, origin) = own.into_iter().find(|(_, origin)| matches!(origin, Origin::Usage(..)))?;
        object::primary(slots.len(), metric, origin)
    })
}

/// A context whose connections nobody uses: metrics are told from the manifest.
fn context() -> &'static Result<Context, String> {
    static CONTEXT: OnceLock<Result<Context, String>> = OnceLock::new();
    CONTEXT.get_or_init(|| Context::without_cluster().map_err(|error| error.to_string()))
}
