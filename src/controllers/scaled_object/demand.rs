//! From samples to demand: what the HPA is about to read is known here before it does.

use jiff::Timestamp;
use tandem_core::{
    api::keda::ScaledObject,
    hpa::{Autoscaler, Observation, Reading, Scale, Selector, spec},
    nodes::demand::{Forecast, Offer, counts_ready_pods},
    pods::{fallback::Resolved, hpa::COMPOSITE, status::Evaluation},
};

use super::Task;
use crate::{cluster::scale::Target, controllers::nodes::demand::Source, samples::object::ObjectSamples};

impl Task {
    /// Offers the node loops what the HPA will make of the latest samples.
    pub(super) async fn foresee(
        &mut self,
        object: &ScaledObject,
        samples: &ObjectSamples,
        evaluation: &Evaluation,
        (target, replicas): (&Target, i32),
    ) {
        let Some(demand) = self.shared.demand.clone() else { return };
        let hpa = self.hpa.as_ref().and_then(|name| self.shared.cluster.hpas.get(&self.key.namespace, name));
        let hpa = hpa.filter(|_| evaluation.active && replicas > 0);
        let Some(autoscaler) = hpa.and_then(|hpa| Autoscaler::compile(&hpa).ok()) else {
            // What an object that idles asked for is no matter any more.
            self.history = None;
            return demand.withdraw(&self.key);
        };
        let rules = demand.rules(samples.rhythm().period());
        let values: Vec<_> =
            autoscaler.metrics.iter().map(|metric| value(metric, samples, evaluation)).collect();
        let readings: Vec<_> = values
            .iter()
            .map(|value| match value {
                Some(milli) => Reading::Values(std::slice::from_ref(milli)),
                None => Reading::Failed("Tandem does not serve it"),
            })
            .collect();
        let now = Timestamp::now();
        let scale = Scale { spec_replicas: replicas, status_replicas: replicas, selector: Selector::Valid };
        let seen = |ready_pods| Observation {
            now,
            scale: Ok(scale),
            readings: &readings,
            ready_pods,
            update_error: None,
        };
        let mut history = self.history.take().unwrap_or_default();
        let before = history.clone();
        let mut forecast = history.foresee(&autoscaler, &rules, &seen(u32::try_from(replicas).ok()));
        if forecast.rises() && counts_ready_pods(&autoscaler) {
            // A total is divided among the pods that are ready, which is asked only where it makes a difference.
            let ready = self.shared.cluster.scale.ready_pods(target).await;
            let ready = ready.ok().and_then(|ready| u32::try_from(ready).ok());
            history = before;
            forecast = history.foresee(&autoscaler, &rules, &seen(ready));
        }
        self.history = Some(history);
        let of = Source { key: self.key.clone(), object: Self::reference(object), target: target.clone() };
        let offer =
            Offer { of, forecast: Forecast { from: replicas, ..forecast }, max: autoscaler.max, at: now };
        demand.offer(offer);
    }
}

/// What the HPA will read of a metric, milli-units; `None` of what others serve, or of what nobody can.
fn value(metric: &spec::Metric, samples: &ObjectSamples, evaluation: &Evaluation) -> Option<i64> {
    let spec::Source::External { name, .. } = &metric.source else { return None };
    if name.eq_ignore_ascii_case(COMPOSITE) {
        return evaluation.composite.as_ref()?.as_ref().ok().copied();
    }
    let place = samples.slots.iter().position(|slot| slot.metric.eq_ignore_ascii_case(name))?;
    match evaluation.metrics.get(place)?.as_ref()? {
        Resolved::Value(milli) | Resolved::Fallback { milli } => Some(*milli),
        Resolved::Nil | Resolved::Error(_) => None,
    }
}
