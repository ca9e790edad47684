//! Places: the claims that could take a pod, the best first.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    claim::{cheapest_with, needs_dearer, plus},
    domains::Allowed,
    market::Amounts,
    mask::Mask,
    run::{Plan, Run},
};

/// The claims that could take a pod of a kind while the same domains are allowed.
#[derive(Debug)]
pub(super) struct View {
    allowed: Vec<Allowed>,
    /// Offers that do, by market.
    pub(super) offers: Vec<Option<Mask>>,
    /// The best place first; entries of claims that have changed since are void.
    pub(super) places: BinaryHeap<Reverse<Entry>>,
    /// Claims, with their versions, that would need a dearer offer: what that costs is worked out when no other place is
    /// left.
    dearer: Vec<(usize, u32)>,
    /// How much of the list of changes has been heeded.
    seen: usize,
}

/// A claim that could take one more pod: by what that would cost, and by what would be left unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) rise: i64,
    waste: i64,
    pub(super) claim: usize,
    version: u32,
    /// The cheapest offer that it would have then.
    pub(super) offer: usize,
}

/// How many sets of allowed domains a kind keeps views of.
const VIEWS_KEPT: usize = 8;

impl Run<'_, '_> {
    /// The view of the domains that are allowed now.
    pub(super) fn view(&mut self, plan: usize) -> usize {
        let allowed = self.plans[plan].rules.allowed(self.snapshot, &self.catalog.keys);
        if let Some(view) = self.plans[plan].views.iter().position(|view| view.allowed == allowed) {
            return view;
        }
        let kind = &self.catalog.kinds[self.plans[plan].kind];
        let markets = kind.fits.iter().enumerate();
        let offers = markets.map(|(market, fit)| {
            let mut offers = fit.as_ref()?.offers.clone();
            for (rules, allowed) in self.plans[plan].rules.by_key.iter().zip(&allowed) {
                let mut named = Mask::none(self.catalog.markets[market].offers.len());
                let values = &self.catalog.keys[rules.key].values;
                for (at, value) in values.iter().enumerate() {
                    if allowed.values.has(at) != allowed.or_none {
                        named.join(&value.offers[market]);
                    }
                }
                // What is forbidden goes, if a node without any value will do; else what is allowed stays.
                if allowed.or_none { offers.drop_all(&named) } else { offers.keep(&named) }
            }
            (!offers.is_empty()).then_some(offers)
        });
        let view = View {
            offers: offers.collect(),
            allowed,
            places: BinaryHeap::new(),
            dearer: Vec::new(),
            seen: 0,
        };
        let views = &mut self.plans[plan].views;
        if views.len() == VIEWS_KEPT {
            views.remove(0);
        }
        views.push(view);
        views.len() - 1
    }

    /// The best claim for a pod of a plan.
    pub(super) fn best(&mut self, plan: usize, view: usize) -> Option<Entry> {
        self.heed_changes(plan, view);
        loop {
            let places = &mut self.plans[plan].views[view].places;
            while let Some(Reverse(entry)) = places.peek() {
                if self.claims[entry.claim].version == entry.version {
                    return Some(*entry);
                }
                places.pop();
            }
            let dearer = std::mem::take(&mut self.plans[plan].views[view].dearer);
            if dearer.is_empty() {
                return None;
            }
            for (claim, version) in dearer {
                if self.claims[claim].version == version
                    && let Some(entry) = self.entry(plan, view, claim)
                {
                    self.plans[plan].views[view].places.push(Reverse(entry));
                }
            }
        }
    }

    /// Enters claims that have changed since the view was last used.
    fn heed_changes(&mut self, plan: usize, view: usize) {
        let seen = std::mem::replace(&mut self.plans[plan].views[view].seen, self.changes.len());
        if seen == 0 || self.changes.len() - seen > self.claims.len() {
            let of = &mut self.plans[plan].views[view];
            of.places.clear();
            of.dearer.clear();
            (0..self.claims.len()).for_each(|claim| self.enter(plan, view, claim));
            return;
        }
        for change in seen..self.changes.len() {
            self.enter(plan, view, self.changes[change]);
        }
    }

    /// Enters a claim as a place for pods of a plan.
    fn enter(&mut self, plan: usize, view: usize, claim: usize) {
        let open = &self.claims[claim];
        let Plan { kind, views, .. } = &self.plans[plan];
        let Some(mask) = &views[view].offers[open.market] else { return };
        if needs_dearer(&self.catalog.markets[open.market], open, &self.catalog.kinds[*kind], mask) {
            self.plans[plan].views[view].dearer.push((claim, self.claims[claim].version));
        } else if let Some(entry) = self.entry(plan, view, claim) {
            self.plans[plan].views[view].places.push(Reverse(entry));
        }
    }

    /// What it would cost to let a claim take a pod, if it can.
    fn entry(&mut self, plan: usize, view: usize, claim: usize) -> Option<Entry> {
        let equipped = if self.asks_for_devices(plan) {
            Some(self.equipped(&self.claims[claim].clone(), plan, view)?.0)
        } else {
            None
        };
        let open = &self.claims[claim];
        let Plan { kind, rules, views, .. } = &self.plans[plan];
        let kind = &self.catalog.kinds[*kind];
        let mask = equipped.as_ref().or(views[view].offers[open.market].as_ref())?;
        let market = &mut self.catalog.markets[open.market];
        let offer = cheapest_with(market, open, kind, mask)?;
        if rules.looks_at_nodes() && !rules.admits(self.snapshot, Some(open.node)) {
            return None;
        }
        if !rules.admits_settling(self.snapshot, &self.catalog.keys, open, offer) {
            return None;
        }
        if kind.has_holds && !self.snapshot.holds_free_on(kind.class, open.node) {
            return None;
        }
        let rise = market.price(offer) - market.price(open.cheapest);
        let sum = plus(&open.sum, &kind.requests);
        let waste = waste(&market.room[offer], &sum, self.bytes_per_milli);
        Some(Entry { rise, waste, claim, version: open.version, offer })
    }
}

/// What is left unused of an offer, in bytes of memory; cpu counts as much as memory on the whole.
fn waste(room: &Amounts, sum: &Amounts, bytes_per_milli: i64) -> i64 {
    let cpu = room[0].saturating_sub(sum[0]).saturating_mul(bytes_per_milli);
    cpu.saturating_add(room[1].saturating_sub(sum[1]))
}
