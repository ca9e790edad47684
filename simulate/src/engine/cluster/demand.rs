//! Demand: what objects are about to ask for, as the node loops hear it (`src/controllers/nodes/demand/`).

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tandem_core::{
    nodes::demand::{self, COOL_OFF, DemandSettings, Ledger, Offer, Offers, patience, reasons},
    scheduling::Pod,
};

use super::{Cluster, Due, Instant, pools::BATCH};
use crate::{compile::World, engine::actor::Outlook};

/// Samples of a thousand objects start no more than a pass a second.
const BETWEEN_PASSES: Duration = Duration::from_secs(1);

/// Offers by object, each with the place of its workload.
pub(super) struct Demand {
    settings: DemandSettings,
    offers: Offers<usize>,
    ledger: Ledger,
    /// `NAMESPACE/NAME` of each object.
    objects: Vec<Arc<str>>,
}

impl Demand {
    pub(super) fn new(world: &World) -> Self {
        let patience = patience(world.settings.sync_period.max(SignedDuration::from_secs(1)));
        Self {
            settings: DemandSettings {
                most: world.max_expected_pods,
                patience,
                cool_off: COOL_OFF,
                longest: COOL_OFF,
            },
            offers: Offers::default(),
            ledger: Ledger::default(),
            objects: world.objects.iter().map(|object| object.key().into()).collect(),
        }
    }

    /// Whether anything is expected, or may be in a moment.
    pub(super) fn is_any(&self) -> bool {
        !self.offers.is_empty()
    }
}

impl Cluster<'_> {
    /// Hears what an object is about to ask for. More than before wakes the loops.
    pub(crate) fn hear(&mut self, object: usize, outlook: Outlook, now: Instant) {
        let name = &self.demand.objects[object];
        let forecast = match outlook {
            Outlook::Withdrawn => return self.demand.offers.withdraw(name),
            Outlook::Offered(forecast) => forecast,
        };
        let max = self.world.objects[object].bounds.1;
        let offer = Offer { of: object, forecast, max, at: self.clock.time(now) };
        if self.demand.offers.take(name.clone(), offer) {
            self.want_pass(now.max(self.passed + BETWEEN_PASSES));
            self.want_provision(now + BATCH);
        }
    }

    /// What is expected now, beside the pods that there are.
    pub(super) fn expected(&mut self, time: Timestamp) -> Vec<Arc<Pod>> {
        if !self.demand.is_any() {
            return Vec::new();
        }
        let Demand { settings, offers, ledger, .. } = &mut self.demand;
        let (workloads, objects) = (&self.workloads, &self.world.objects);
        offers.retain(|offer| {
            let pause = objects[offer.of].scaled.as_ref().map(|scaled| &scaled.pause);
            let paused = pause.is_none_or(|pause| pause.full || pause.scale_out);
            let replicas = i32::try_from(workloads[offer.of].len()).ok();
            !paused && offer.stands(replicas, time, settings.patience)
        });
        let wanted: Vec<_> = offers
            .iter()
            .map(|(object, offer)| offer.wanted(object.clone(), workloads[offer.of].len() as usize))
            .collect();
        let expectations = ledger.update(&wanted, time, settings);
        let (mut pods, mut news) = (Vec::new(), Vec::new());
        for expectation in &expectations {
            let Some(offer) = offers.get(&expectation.object) else { continue };
            pods.extend(demand::pods(expectation, workloads[offer.of].shape()));
            news.extend(
                reasons::news(expectation, &offer.forecast).map(|event| (expectation.object.clone(), event)),
            );
        }
        offers.settle(&expectations);
        for (object, event) in news {
            self.tell(time, format!("ScaledObject {object}"), event);
        }
        pods
    }

    /// Pods that still are expected are thought about again.
    pub(super) fn want_provision(&mut self, at: Instant) {
        if !self.world.nodes.pools.is_empty() {
            self.want(Due::Provision, at);
        }
    }
}
