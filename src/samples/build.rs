//! From a ScaledObject as written to triggers that can be asked.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::ResourceExt;
use scalers::{Context, Input, Metric, Offline};
use tandem_core::{
    api::keda::{ScaleTrigger, ScaledObject},
    pods::{
        formula,
        hpa::{Target as MetricTarget, TriggerMetric},
    },
};
use tokio::sync::Notify;

use super::{
    object::{ObjectSamples, Trigger},
    slot::Slot,
    stand_in,
    traffic::{Durations, Traffic},
};
use crate::cluster::{
    Cluster, Key,
    auth::{Authentication, EnvSource},
    env::Sources,
};

/// How long a trigger may take to say its metrics; only external scalers need any time for it.
const METRICS_DEADLINE: Duration = Duration::from_secs(5);

/// What building needs to know of the process.
pub struct Builder<'a> {
    /// Where references resolve.
    pub cluster: &'a Cluster,
    /// What scalers may use.
    pub cx: &'a Context,
    /// Where the duration of requests goes.
    pub durations: &'a Durations,
    /// Deadline of one request to a source.
    pub http_timeout: Duration,
}

/// Builds every trigger of `object` as far as it goes: one that cannot be built is its own error and leaves the others
/// alone. What `before` learned (failures, the reader's rhythm) is kept.
pub async fn build(
    builder: &Builder<'_>,
    object: &Arc<ScaledObject>,
    before: Option<&ObjectSamples>,
    wake: Arc<Notify>,
) -> ObjectSamples {
    let key = Key::of(&**object);
    let mut sources = Sources::default();
    let reference = &object.spec.scale_target_ref;
    let target =
        builder.cluster.scale.target(&key.namespace, reference).await.map_err(|error| error.to_string());
    let env = EnvSource { target: &target, container: reference.env_source_container_name.as_deref() };

    let mut triggers = Vec::with_capacity(object.spec.triggers.len());
    for (index, trigger) in object.spec.triggers.iter().enumerate() {
        let resolved = resolve(builder, object, index, trigger, &env, &mut sources).await;
        triggers.push(build_trigger(builder, object, trigger, resolved).await);
    }
    let slots: Vec<_> = triggers.iter().flat_map(|trigger| slots(trigger, builder.durations)).collect();
    for slot in slots.iter().filter(|slot| triggers[slot.trigger].scaler.is_none()) {
        if let Some(earlier) = before.and_then(|before| before.slot(&slot.metric)) {
            slot.inherit(earlier);
        }
    }
    let authentications = authentications(object, &key.namespace);
    let health = match before {
        Some(before) => before.health(),
        None => object.status.as_ref().map(|status| status.health.clone()).unwrap_or_default(),
    };
    let rhythm = before.map(ObjectSamples::rhythm).unwrap_or_default();
    ObjectSamples::new(
        super::object::Parts {
            key,
            formula: formula::compile(object).map_err(|error| error.to_string()),
            target,
            triggers,
            slots,
            sources,
            authentications,
            timeout: builder.http_timeout,
        },
        object.clone(),
        health,
        rhythm,
        wake,
    )
}

fn authentications(object: &ScaledObject, namespace: &str) -> Vec<Key> {
    let references = object.spec.triggers.iter().filter_map(|trigger| trigger.authentication_ref.as_ref());
    references
        .map(|reference| Key::new(if reference.is_cluster() { "" } else { namespace }, &reference.name))
        .collect()
}

/// A trigger with its references resolved, as far as they can be.
pub(super) struct Resolved {
    pub input: Input,
    /// What could not be had.
    pub unseen: Offline,
    /// Why not.
    pub problem: Option<String>,
}

async fn resolve(
    builder: &Builder<'_>,
    object: &ScaledObject,
    index: usize,
    trigger: &ScaleTrigger,
    env: &EnvSource<'_>,
    sources: &mut Sources,
) -> Resolved {
    let namespace = object.namespace().unwrap_or_default();
    let authentication = match &trigger.authentication_ref {
        Some(reference) => {
            let found = builder.cluster.authentication(&namespace, reference, env, sources).await;
            found.map_err(|error| error.to_string())
        }
        None => Ok(Authentication::default()),
    };
    let resolved_env = if trigger.metadata.keys().any(|name| name.ends_with("FromEnv")) {
        environment(builder, env, sources).await
    } else {
        Ok(BTreeMap::new())
    };
    let metric_type = triggers::metric_type(trigger).map_err(|error| error.to_string());
    let unseen = Offline { auth: authentication.is_err(), env: resolved_env.is_err() };
    let problem = [authentication.as_ref().err(), resolved_env.as_ref().err(), metric_type.as_ref().err()]
        .into_iter()
        .flatten()
        .next()
        .cloned();
    let authentication = authentication.unwrap_or_default();
    let input = Input {
        auth_params: authentication.params,
        resolved_env: resolved_env.unwrap_or_default(),
        pod_identity: authentication.identity,
        metric_type: metric_type.unwrap_or_default(),
        http_timeout: builder.http_timeout,
        ..triggers::input(object, index, trigger)
    };
    Resolved { input, unseen, problem }
}

async fn environment(
    builder: &Builder<'_>,
    env: &EnvSource<'_>,
    sources: &mut Sources,
) -> Result<BTreeMap<String, String>, String> {
    let target = env.target.as_ref().map_err(Clone::clone)?;
    let found = builder.cluster.environment(target, env.container, sources).await;
    found.map_err(|error| error.to_string())
}

async fn build_trigger(
    builder: &Builder<'_>,
    object: &ScaledObject,
    trigger: &ScaleTrigger,
    resolved: Resolved,
) -> Trigger {
    let index = resolved.input.trigger_index;
    let built = match &resolved.problem {
        Some(problem) => Err(problem.clone()),
        None => std::panic::catch_unwind(AssertUnwindSafe(|| scalers::build(&resolved.input)))
            .map_err(|_| "the scaler panicked while it was built".to_owned())
            .and_then(|built| built.map_err(|error| error.to_string())),
    };
    let scaler: Result<Arc<dyn scalers::Scaler>, String> = built.map(Arc::from);
    let metrics = match &scaler {
        Ok(scaler) => metrics(scaler.as_ref(), builder.cx).await,
        Err(error) => Err(error.clone()),
    };
    let mut value_target = trigger.metric_type.as_deref() == Some("Value");
    let (metrics, problem) = match metrics {
        Ok(metrics) => (Some(metrics), None),
        Err(problem) => {
            let stand_in = stand_in::find(builder, object, &resolved);
            value_target = stand_in.as_ref().map_or(value_target, |stand_in| stand_in.value_target);
            (stand_in.map(|stand_in| stand_in.metrics), Some(problem))
        }
    };
    Trigger {
        index,
        trigger_type: trigger.type_.clone(),
        name: trigger.name.clone().filter(|name| !name.is_empty()),
        use_cached: trigger.use_cached_metrics.unwrap_or(false),
        value_target,
        scaler: scaler.ok(),
        metrics,
        problem,
    }
}

async fn metrics(scaler: &dyn scalers::Scaler, cx: &Context) -> Result<Vec<Metric>, String> {
    let asked = AssertUnwindSafe(scaler.metrics(cx)).catch_unwind();
    match tokio::time::timeout(METRICS_DEADLINE, asked).await {
        Ok(Ok(metrics)) => metrics.map_err(|error| error.to_string()),
        Ok(Err(_)) => Err("the scaler panicked".to_owned()),
        Err(_) => Err(format!("the scaler did not say its metrics within {} s", METRICS_DEADLINE.as_secs())),
    }
}

fn slots(trigger: &Trigger, durations: &Durations) -> Vec<Slot> {
    let external = trigger.metrics.iter().flatten().filter_map(|metric| match metric {
        Metric::External { name, target_milli } => Some((name, *target_milli)),
        Metric::Resource { .. } => None,
    });
    external
        .map(|(name, milli)| {
            let kind = triggers::target_kind(trigger.value_target);
            let metric = scalers::metric_name(trigger.index, name);
            let target = MetricTarget { kind, milli };
            let traffic = Traffic::new(&trigger.trigger_type, durations.clone());
            Slot::new(metric, name.clone(), trigger.index, trigger.name.clone(), target, traffic)
        })
        .collect()
}

/// The metrics of all triggers, for the HPA.
pub(super) fn trigger_metrics(triggers: &[Trigger]) -> Result<Vec<TriggerMetric>, String> {
    let mut all = Vec::new();
    for trigger in triggers {
        let unknown = || trigger.broken().unwrap_or_default();
        let metrics = trigger.metrics.as_ref().ok_or_else(unknown)?;
        all.extend(metrics.iter().map(|metric| TriggerMetric {
            trigger_index: trigger.index,
            trigger_type: trigger.trigger_type.clone(),
            trigger_name: trigger.name.clone(),
            metric: triggers::hpa_metric(trigger.index, trigger.value_target, metric),
        }));
    }
    Ok(all)
}
