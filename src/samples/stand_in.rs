//! What a fallback stands on where a trigger could not be built: the metrics that its manifest tells, or else those that
//! its HPA asks for.

use std::panic::AssertUnwindSafe;

use scalers::Metric;
use tandem_core::{
    api::keda::ScaledObject,
    pods::hpa::{self, Target, TargetKind},
};

use super::build::{Builder, Resolved};
use crate::cluster::{Key, scaled_object_owner};

/// The metrics of a trigger that could not be built, and whether their targets are for the whole workload.
pub(super) struct StandIn {
    pub metrics: Vec<Metric>,
    pub value_target: bool,
}

/// `None` where the object has no fallback, or neither manifest nor HPA tells a target.
pub(super) fn find(builder: &Builder<'_>, object: &ScaledObject, resolved: &Resolved) -> Option<StandIn> {
    object.spec.fallback.as_ref()?;
    let index = resolved.input.trigger_index;
    let outline = || scalers::outline(&resolved.input, resolved.unseen, builder.cx);
    // What panicked while it was built may panic again.
    let outlined = std::panic::catch_unwind(AssertUnwindSafe(outline)).ok().flatten();
    if let Some(metrics) = outlined {
        let value_target = resolved.input.metric_type == Some(scalers::MetricType::Value);
        return Some(StandIn { metrics, value_target });
    }
    let key = Key::of(object);
    let hpa = builder.cluster.hpas.get(&key.namespace, &hpa::hpa_name(object));
    let hpa = hpa.filter(|hpa| scaled_object_owner(hpa).as_ref() == Some(&key));
    let asked = match hpa {
        // Its one metric is the composite, whose own target is the one that counts.
        Some(_) if object.spec.scaling_modifiers().is_some() => composed(object),
        Some(hpa) => hpa::external_metrics(&hpa),
        None => Vec::new(),
    };
    let own: Vec<_> = asked
        .into_iter()
        .filter_map(|(name, target)| Some((scalers::without_index(index, &name).ok()?.to_owned(), target)))
        .collect();
    let value_target = own.first()?.1.kind == TargetKind::Value;
    let metrics =
        own.into_iter().map(|(name, target)| Metric::External { name, target_milli: target.milli }).collect();
    Some(StandIn { metrics, value_target })
}

/// The parts of the composite metric, by the names that the status holds.
fn composed(object: &ScaledObject) -> Vec<(String, Target)> {
    let names = object.status.iter().flat_map(|status| &status.external_metric_names);
    names.map(|name| (name.clone(), Target::default())).collect()
}
