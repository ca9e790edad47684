//! From samples to demand: what the HPA is about to read is known here before it does
//! (`src/controllers/scaled_object/demand.rs`).

use tandem_core::{
    hpa::{Observation, Reading, Scale, Selector},
    nodes::demand::{Forecast, counts_ready_pods},
};

use super::{super::Instant, Actor, hpa::Value};
use crate::compile::{Origin, Scaled};

/// What the node loops hear of an object.
pub(crate) enum Outlook {
    /// What its HPA is about to ask for.
    Offered(Forecast),
    /// It asks for nothing any more.
    Withdrawn,
}

impl Actor<'_> {
    /// What the node loops are to hear since the last call.
    pub(crate) fn take_outlook(&mut self) -> Option<Outlook> {
        self.outlook.take()
    }

    /// Works out what the HPA will make of the latest samples.
    pub(super) fn foresee(&mut self, scaled: &Scaled, active: bool, now: Instant) {
        if !self.looks_ahead {
            return;
        }
        let Some(autoscaler) = self.spec.autoscaler.as_ref().filter(|_| active && self.replicas > 0) else {
            // What an object that idles asked for is no matter any more.
            self.outlook = self.history.take().map(|_| Outlook::Withdrawn);
            return;
        };
        let values: Vec<Value> =
            self.spec.origins.iter().map(|origin| self.will_read(scaled, origin)).collect();
        let readings: Vec<Reading<'_>> = values.iter().map(Value::reading).collect();
        let replicas = self.current();
        let seen = |ready_pods| Observation {
            now: self.clock.time(now),
            scale: Ok(Scale {
                spec_replicas: replicas,
                status_replicas: replicas,
                selector: Selector::Valid,
            }),
            readings: &readings,
            ready_pods,
            update_error: None,
        };
        let mut history = self.history.take().unwrap_or_default();
        let before = counts_ready_pods(autoscaler).then(|| history.clone());
        let mut forecast = history.foresee(autoscaler, self.settings, &seen(Some(self.replicas)));
        if let Some(before) = before.filter(|_| forecast.rises()) {
            history = before;
            forecast = history.foresee(autoscaler, self.settings, &seen(Some(self.pods.counts().ready)));
        }
        self.history = Some(history);
        self.outlook = Some(Outlook::Offered(forecast));
    }

    /// What the HPA will read of one of its metrics: those that Tandem serves.
    fn will_read(&self, scaled: &Scaled, origin: &Origin) -> Value {
        match origin {
            Origin::Slot(index) => self.served(scaled, *index),
            Origin::Composite => self.composed(scaled),
            Origin::Value(_) | Origin::Usage(..) => Value::Failed("Tandem does not serve it".to_owned()),
        }
    }
}
