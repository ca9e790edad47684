//! A solution as it is handed out.

use std::collections::BTreeSet;

use super::{
    Claim, Place, Solution,
    claim::{Held, Open},
    failure::{Failure, Refusal},
    kind::Kind,
    run::Run,
};
use crate::{
    nodes::pools::{
        launch::{MinValuesPolicy, needed_for_min_values},
        requirements::{Operator, Requirement, labels::ZONE},
    },
    scheduling::{Resources, devices::Trial},
};

impl Run<'_, '_> {
    /// Claims with their instance types, and reasons for the pods that have no place.
    pub(super) fn finish(self) -> Solution {
        let mut solution = Solution { gave_up: self.gave_up, ..Solution::default() };
        let failing: Vec<(usize, Vec<usize>)> = self
            .groups
            .iter()
            .filter(|group| group.next < group.pods.len() && !self.gave_up)
            .filter_map(|group| Some((*group.levels.last()?, group.pods[group.next..].to_vec())))
            .collect();
        for (plan, pods) in failing {
            let reasons = self.refusals(plan);
            let failure = |pod| Failure { pod, reasons: reasons.clone(), gang: None };
            solution.failures.extend(pods.into_iter().map(failure));
        }
        let mut places = vec![None; self.claims.len()];
        for (at, open) in self.claims.iter().enumerate() {
            match self.claim(open) {
                Ok(claim) => {
                    places[at] = Some(solution.claims.len());
                    solution.claims.push(claim);
                }
                Err(refusal) => {
                    let pool = self.catalog.markets[open.market].pool.name.clone();
                    solution.failures.extend(open.pods.iter().map(|held| Failure {
                        pod: held.pod,
                        reasons: vec![(pool.clone(), refusal.clone())],
                        gang: None,
                    }));
                }
            }
        }
        solution.placements = self
            .placements
            .iter()
            .filter_map(|(pod, place)| match place {
                Place::Claim(claim) => Some((*pod, Place::Claim(places[*claim]?))),
                node @ Place::Node(_) => Some((*pod, *node)),
            })
            .collect();
        solution.failures.sort_by_key(|failure| failure.pod);
        solution
    }

    fn kind(&self, held: &Held) -> &Kind {
        &self.catalog.kinds[self.plans[held.plan].kind]
    }

    fn has_placed_volumes(&self, plan: usize) -> bool {
        self.snapshot.has_placed_volumes(self.catalog.kinds[self.plans[plan].kind].class)
    }

    /// A claim as it is asked for.
    fn claim(&self, open: &Open) -> Result<Claim, Refusal> {
        let market = &self.catalog.markets[open.market];
        let options = &self.catalog.options;
        let mut requirements = market.pool.requirements.clone();
        let plans: BTreeSet<usize> = open.pods.iter().map(|held| held.plan).collect();
        for plan in plans {
            let plan = &self.plans[plan];
            requirements.extend(self.catalog.kinds[plan.kind].requirements.clone());
            for rules in &plan.rules.by_key {
                let key = &self.catalog.keys[rules.key];
                let value = open.known[rules.key].map(|at| Requirement::is(&key.name, &key.values[at].name));
                requirements.extend(value);
            }
        }
        if open.pods.iter().any(|held| self.has_placed_volumes(held.plan)) {
            requirements.add(Requirement::new(ZONE, Operator::In, market.zones(&open.offers)));
        }
        let mut types = market.types(&open.offers);
        types.truncate(options.most_types);
        if requirements.has_min_values()
            && let Err(unmet) = needed_for_min_values(&types, &requirements)
        {
            if options.min_values == MinValuesPolicy::Strict {
                return Err(Refusal::min_values(unmet));
            }
            unmet.found.iter().for_each(|(key, found)| requirements.relax_min_values(key, *found));
        }
        // What devices stand for no node offers by its name.
        let mut other = open.others.clone();
        other.retain(|name, _| {
            let as_device = |held: &Held| self.kind(held).as_devices.contains(name);
            !open.pods.iter().any(as_device) || open.offers.is_within(market.roomy_of(name, 1))
        });
        let [cpu, memory, storage, pods] = open.sum;
        #[allow(clippy::cast_precision_loss, reason = "below 2^52 millionths")]
        Ok(Claim {
            pool: market.pool.name.clone(),
            requirements,
            types,
            pods: open.pods.iter().map(|held| held.pod).collect(),
            requests: Resources { cpu, memory, storage, pods, other },
            price: market.price(open.cheapest) as f64 / 1e6,
            presumes_devices: open.trials.values().any(Trial::presumes),
        })
    }
}
