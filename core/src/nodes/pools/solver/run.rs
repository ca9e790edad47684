//! One solution in the making.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use super::{
    NODES, Order, Place, Solution,
    claim::{Held, Open, cheapest_with, narrowed, plus},
    devices::Trials,
    domains::Rules,
    kind::Catalog,
    market::{FIXED, certain},
    mask::Mask,
    places::{Entry, View},
    relax::Levels,
};
use crate::{
    nodes::{
        buffer::is_virtual,
        pools::requirements::{Requirements, labels::HOSTNAME},
    },
    scheduling::{Node, NodeId, Pod, Snapshot, devices::Trial, rules::Selector},
};

/// What a kind is in one solution.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) kind: usize,
    pub(super) rules: Rules,
    pub(super) views: Vec<View>,
    /// It found no place when counts had last changed then; for ever, if no count can help.
    failed: Option<u64>,
}

/// Millionths of a dollar: what is compared comes of three prices, each up to half of one off. What costs
/// the same goes to fewer nodes.
const ROUNDING: i64 = 1;

/// Pods that nothing tells apart.
#[derive(Debug)]
pub(super) struct Group {
    /// Plans from the one with all wishes on.
    pub(super) levels: Vec<usize>,
    pub(super) pods: Vec<usize>,
    /// Pods before it have a place.
    pub(super) next: usize,
}

/// What the limits of a pool leave.
#[derive(Debug)]
struct Allowance {
    remaining: BTreeMap<Box<str>, i64>,
    /// Offers that alone exceed none of them.
    offers: Mask,
}

/// One solution in the making.
pub(super) struct Run<'r, 'a> {
    pub(super) catalog: &'r mut Catalog<'a>,
    pub(super) snapshot: &'r mut Snapshot,
    pub(super) pods: &'r [Pod],
    pub(super) plans: Vec<Plan>,
    pub(super) groups: Vec<Group>,
    pub(super) claims: Vec<Open>,
    /// Claims in the order of their changes.
    pub(super) changes: Vec<usize>,
    allowances: Vec<Allowance>,
    /// Whether a node is on its way, by market, that will tell what devices it has.
    pub(super) tried: Vec<bool>,
    /// Selectors by which spread rules tell which nodes count, with the offers that satisfy them by market.
    selectors: Vec<(Selector, Vec<Mask>)>,
    /// Cpu and memory that pods without a place ask for.
    left: [i64; 2],
    /// Bytes of memory that are as much as a thousandth of a core.
    pub(super) bytes_per_milli: i64,
    pub(super) placements: Vec<(usize, Place)>,
    pub(super) gave_up: bool,
}

impl<'r, 'a> Run<'r, 'a> {
    pub(super) fn new(
        catalog: &'r mut Catalog<'a>,
        snapshot: &'r mut Snapshot,
        pods: &'r [Pod],
        order: Order,
    ) -> Self {
        let mut run = Self {
            catalog,
            snapshot,
            pods,
            plans: Vec::new(),
            groups: Vec::new(),
            claims: Vec::new(),
            changes: Vec::new(),
            allowances: Vec::new(),
            tried: Vec::new(),
            selectors: Vec::new(),
            left: [0; 2],
            bytes_per_milli: 1,
            placements: Vec::new(),
            gave_up: false,
        };
        run.sort_pods();
        run.read_rules();
        run.sort_groups(order);
        run.read_limits();
        run
    }

    /// Groups pods in the order in which they are placed: those that ask for most first, then the oldest; what only stands
    /// for room comes last.
    fn sort_pods(&mut self) {
        let pods = self.pods;
        let mut order: Vec<usize> = (0..pods.len()).collect();
        order.sort_by_cached_key(|place| {
            let pod = &pods[*place];
            let requests = &pod.shape.requests;
            let size = (Reverse(requests.cpu), Reverse(requests.memory));
            (is_virtual(pod), size, pod.created, pod.uid.clone(), *place)
        });
        let mut levels = Levels::default();
        let mut plan_of = HashMap::new();
        let mut group_of: HashMap<Vec<usize>, usize> = HashMap::new();
        let (mut cpu, mut memory) = (0_i64, 0_i64);
        for place in order {
            let pod = &pods[place];
            cpu = cpu.saturating_add(pod.shape.requests.cpu);
            memory = memory.saturating_add(pod.shape.requests.memory);
            let levels: Vec<usize> = levels
                .of(&pod.shape, |traits| self.catalog.levels(self.snapshot, traits))
                .iter()
                .map(|level| {
                    let kind = self.catalog.kind(self.snapshot, pod, level);
                    *plan_of.entry(kind).or_insert_with(|| {
                        let rules = Rules::default();
                        self.plans.push(Plan { kind, rules, views: Vec::new(), failed: None });
                        self.plans.len() - 1
                    })
                })
                .collect();
            let group = *group_of.entry(levels).or_insert_with_key(|levels| {
                self.groups.push(Group { levels: levels.clone(), pods: Vec::new(), next: 0 });
                self.groups.len() - 1
            });
            self.groups[group].pods.push(place);
        }
        self.left = [cpu, memory];
        self.bytes_per_milli = memory.checked_div(cpu).unwrap_or(1).max(1);
    }

    /// Puts groups into another order than Karpenter's.
    fn sort_groups(&mut self, order: Order) {
        let Self { groups, plans, pods, bytes_per_milli, .. } = self;
        groups.sort_by_cached_key(|group| {
            let requests = &pods[group.pods[0]].shape.requests;
            let (cpu, memory) = (requests.cpu.saturating_mul(*bytes_per_milli), requests.memory);
            let apart = group.levels.iter().any(|plan| plans[*plan].rules.keeps_apart());
            let size = match (order.by_size, order.by_larger) {
                (true, _) => cpu.saturating_add(memory),
                (_, true) => cpu.max(memory),
                _ => 0,
            };
            (is_virtual(&pods[group.pods[0]]), order.apart_first && !apart, Reverse(size))
        });
    }

    /// Reads topology rules once all classes are known.
    fn read_rules(&mut self) {
        let mut attract = BTreeSet::new();
        for plan in &self.plans {
            let rules = self.snapshot.rules(self.catalog.kinds[plan.kind].class);
            attract.extend(rules.near.into_iter().chain(rules.apart));
        }
        for plan in &mut self.plans {
            let attracts = |counter| attract.contains(&counter);
            plan.rules = Rules::read(self.catalog, self.snapshot, plan.kind, attracts);
            let kind = &self.catalog.kinds[plan.kind];
            let Some(selector) = kind.selector.filter(|_| plan.rules.spreads()) else { continue };
            if self.selectors.iter().all(|(known, _)| *known != selector) {
                let markets = kind.fits.iter().zip(&self.catalog.markets);
                let offers = markets.map(|(fit, market)| {
                    fit.as_ref().map_or_else(|| Mask::none(market.offers.len()), |fit| fit.offers.clone())
                });
                self.selectors.push((selector, offers.collect()));
            }
        }
    }

    fn read_limits(&mut self) {
        for market in 0..self.catalog.markets.len() {
            let remaining = self.catalog.markets[market].pool.remaining.clone();
            let offers = self.within(market, &remaining);
            let outfits = self.catalog.markets[market].pool.outfits.as_ref();
            self.tried.push(outfits.is_some_and(|outfits| outfits.is_tried));
            self.allowances.push(Allowance { remaining, offers });
        }
    }

    /// Offers that alone exceed no limit.
    fn within(&self, market: usize, remaining: &BTreeMap<Box<str>, i64>) -> Mask {
        let market = &self.catalog.markets[market];
        if remaining.is_empty() {
            return market.all.clone();
        }
        if remaining.get(NODES).is_some_and(|nodes| *nodes < 1) {
            return Mask::none(market.offers.len());
        }
        let fits: Vec<bool> = market
            .pool
            .types
            .iter()
            .map(|it| remaining.iter().all(|(name, left)| &**name == NODES || it.capacity.get(name) <= *left))
            .collect();
        Mask::of(market.offers.len(), |at| market.all.has(at) && fits[market.offers[at].of])
    }

    /// Takes the most that a new claim may turn out to have off the limits of its pool.
    fn charge(&mut self, market: usize, offers: &Mask) {
        if self.allowances[market].remaining.is_empty() {
            return;
        }
        let of = &self.catalog.markets[market];
        let mut seen = Mask::none(of.pool.types.len());
        offers.iter().for_each(|at| seen.set(of.offers[at].of));
        for (name, left) in &mut self.allowances[market].remaining {
            let most = if &**name == NODES {
                1
            } else {
                seen.iter().map(|it| of.pool.types[it].capacity.get(name)).max().unwrap_or(0)
            };
            *left = left.saturating_sub(most);
        }
        self.allowances[market].offers = self.within(market, &self.allowances[market].remaining);
    }

    pub(super) fn solve(mut self) -> Solution {
        let zones = if self.catalog.options.tells_zones { self.zones() } else { BTreeMap::new() };
        loop {
            let before = self.placements.len();
            for group in 0..self.groups.len() {
                while !self.gave_up && self.place_next(group) {}
            }
            let waiting = self.groups.iter().any(|group| group.next < group.pods.len());
            if self.gave_up || !waiting || self.placements.len() == before {
                break;
            }
        }
        Solution { zones, ..self.finish() }
    }

    /// Places the next pod of a group; `false` if there is none or no place for it.
    fn place_next(&mut self, group: usize) -> bool {
        let Some(&pod) = self.groups[group].pods.get(self.groups[group].next) else { return false };
        for level in 0..self.groups[group].levels.len() {
            let plan = self.groups[group].levels[level];
            let changed = self.plans[plan].rules.changed(self.snapshot);
            let hopeless = self.plans[plan]
                .failed
                .is_some_and(|then| then == changed || !self.plans[plan].rules.may_be_helped());
            if hopeless {
                continue;
            }
            if let Some(place) = self.place(pod, plan) {
                self.placements.push((pod, place));
                let requests = &self.pods[pod].shape.requests;
                let [cpu, memory] = self.left;
                self.left = [cpu.saturating_sub(requests.cpu), memory.saturating_sub(requests.memory)];
                self.groups[group].next += 1;
                return true;
            }
            if self.gave_up {
                return false;
            }
            self.plans[plan].failed = Some(changed);
        }
        false
    }

    /// Finds a pod a place: a node, a claim, or a new claim if that is cheaper than to let one grow.
    fn place(&mut self, pod: usize, plan: usize) -> Option<Place> {
        let kind = &self.catalog.kinds[self.plans[plan].kind];
        if let Some(node) = self.snapshot.find(kind.class, None) {
            self.snapshot.bind(kind.bound, node);
            return Some(Place::Node(node));
        }
        let view = self.view(plan);
        let mut fresh = None;
        while let Some(entry) = self.best(plan, view) {
            // The last claim grows as long as it can, whatever another would cost.
            if entry.rise > 0 && !self.is_last_claim_open() {
                fresh = fresh.or_else(|| self.fresh(plan, view));
                let fair = self.fair_rise(plan, &entry);
                if fresh.as_ref().is_some_and(|(price, _)| *price + ROUNDING < fair) {
                    break;
                }
            }
            self.plans[plan].views[view].places.pop();
            if self.is_still_admitted(plan, &entry) && self.join(pod, plan, view, entry.claim) {
                return Some(Place::Claim(entry.claim));
            }
        }
        let (_, market) = fresh.or_else(|| self.fresh(plan, view))?;
        self.open(pod, plan, view, market)
    }

    /// Whether rules still let a pod on a claim: who is the first of those that want to be near each other, and how many pods
    /// other domains have, changes without the claim.
    fn is_still_admitted(&self, plan: usize, entry: &Entry) -> bool {
        let (rules, open) = (&self.plans[plan].rules, &self.claims[entry.claim]);
        rules.admits(self.snapshot, Some(open.node))
            && rules.admits_settling(self.snapshot, &self.catalog.keys, open, entry.offer)
    }

    /// What a claim's growth costs for a pod. Where the next offer is much larger, the pod pays for its share alone, if the pods
    /// that have no place yet could fill the rest.
    fn fair_rise(&self, plan: usize, entry: &Entry) -> i64 {
        let open = &self.claims[entry.claim];
        let kind = &self.catalog.kinds[self.plans[plan].kind];
        let market = &self.catalog.markets[open.market];
        let (old, new) = (market.room[open.cheapest], market.room[entry.offer]);
        let sum = plus(&open.sum, &kind.requests);
        // Cpu and memory: what the pod needs of what comes anew, in thousandths.
        let shares = [0, 1].map(|resource| {
            let needed = sum[resource].saturating_sub(old[resource]);
            let more = new[resource].saturating_sub(old[resource]);
            if needed <= 0 || more <= 0 {
                return (0, true);
            }
            let left = self.left[resource].saturating_sub(kind.requests[resource]);
            let fills = left >= new[resource].saturating_sub(sum[resource]);
            (i128::from(needed) * 1_000 / i128::from(more), fills)
        });
        let (share, fills) = shares[0].max(shares[1]);
        if !fills || share == 0 {
            return entry.rise;
        }
        i64::try_from(i128::from(entry.rise) * share / 1_000).unwrap_or(entry.rise)
    }

    /// What a new claim would cost, and of which pool: the first that can have one.
    fn fresh(&mut self, plan: usize, view: usize) -> Option<(i64, usize)> {
        if !self.plans[plan].rules.admits(self.snapshot, None) {
            return None;
        }
        (0..self.catalog.markets.len()).find_map(|market| {
            let open = self.blank(market)?;
            let equipped =
                if self.asks_for_devices(plan) { Some(self.equipped(&open, plan, view)?.0) } else { None };
            let Plan { kind, views, .. } = &self.plans[plan];
            let mask = equipped.as_ref().or(views[view].offers[market].as_ref())?;
            let market_of = &mut self.catalog.markets[market];
            let offer = cheapest_with(market_of, &open, &self.catalog.kinds[*kind], mask)?;
            Some((market_of.price(offer), market))
        })
    }

    /// A claim that holds nothing yet.
    fn blank(&self, market: usize) -> Option<Open> {
        let offers = self.allowances[market].offers.clone();
        let cheapest = offers.iter().next()?;
        Some(Open {
            market,
            cheapest,
            offers,
            sum: [0; FIXED],
            ceiling: [i64::MAX; 2],
            others: BTreeMap::new(),
            kept: Requirements::new(),
            node: NodeId::at(u32::MAX),
            pods: Vec::new(),
            known: vec![None; self.catalog.keys.len()],
            satisfied: vec![false; self.selectors.len()],
            trials: Trials::new(),
            version: 0,
        })
    }

    /// Whether there are as many new nodes as there may be.
    fn is_last_claim_open(&self) -> bool {
        self.catalog.options.most_claims.is_some_and(|most| self.claims.len() >= most)
    }

    /// Opens a claim for a pod.
    fn open(&mut self, pod: usize, plan: usize, view: usize, market: usize) -> Option<Place> {
        if self.is_last_claim_open() {
            self.gave_up = true;
            return None;
        }
        let blank = self.blank(market)?;
        let claim = self.claims.len();
        let grown = self.grown(&blank, plan, view)?;
        self.charge(market, &grown.offers);
        self.claims.push(grown);
        let node = self.node_of(claim);
        let verdicts = self.verdicts(claim);
        self.claims[claim].node = self.snapshot.add_closed(&node, &verdicts);
        self.hold(pod, plan, claim);
        Some(Place::Claim(claim))
    }

    /// Puts a pod on a claim; `false` if it does not go there after all.
    fn join(&mut self, pod: usize, plan: usize, view: usize, claim: usize) -> bool {
        let Some(grown) = self.grown(&self.claims[claim].clone(), plan, view) else { return false };
        let before = std::mem::replace(&mut self.claims[claim], grown);
        let after = &self.claims[claim];
        let is_alike = self.catalog.is_equipped_alike(&before, after);
        if before.known != after.known || before.satisfied != after.satisfied || !is_alike {
            let (node, verdicts) = (self.node_of(claim), self.verdicts(claim));
            self.claims[claim].node = self.snapshot.replace_closed(before.node, &node, &verdicts);
        }
        self.hold(pod, plan, claim);
        true
    }

    fn hold(&mut self, pod: usize, plan: usize, claim: usize) {
        let kind = &self.catalog.kinds[self.plans[plan].kind];
        let open = &mut self.claims[claim];
        open.pods.push(Held { pod, plan });
        open.version += 1;
        self.tried[open.market] |= open.trials.values().any(Trial::presumes);
        self.snapshot.bind(kind.bound, open.node);
        self.changes.push(claim);
    }

    /// A claim with one more pod of a plan: what is still possible, and what has become certain.
    fn grown(&mut self, claim: &Open, plan: usize, view: usize) -> Option<Open> {
        let equipped =
            if self.asks_for_devices(plan) { Some(self.equipped(claim, plan, view)?) } else { None };
        let Plan { kind, rules, views, .. } = &self.plans[plan];
        let kind = &self.catalog.kinds[*kind];
        let market = &mut self.catalog.markets[claim.market];
        let mask = equipped.as_ref().map(|(mask, _)| mask).or(views[view].offers[claim.market].as_ref())?;
        let mut offers = narrowed(market, claim, kind, mask)?;
        let cheapest = offers.iter().next()?;
        for rules in rules.by_key.iter().filter(|rules| rules.decides) {
            let mut values = self.catalog.keys[rules.key].values.iter();
            if let Some(value) = values.find(|value| value.offers[claim.market].has(cheapest)) {
                offers.keep(&value.offers[claim.market]);
            }
        }
        if !market.is_choice(&offers) {
            return None;
        }
        let mut grown = claim.clone();
        grown.sum = plus(&claim.sum, &kind.requests);
        for (name, amount) in &kind.shape.requests.other {
            let sum = grown.others.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
        if let Some(fit) = kind.fits[claim.market].as_ref().filter(|fit| !fit.kept.is_empty()) {
            grown.kept = grown.kept.and(fit.kept.clone());
        }
        for (key, known) in self.catalog.keys.iter().zip(&mut grown.known).filter(|(_, it)| it.is_none()) {
            let value = key.values.iter().position(|value| value.offers[claim.market].has(cheapest));
            *known = value.filter(|at| offers.is_within(&key.values[*at].offers[claim.market]));
        }
        for ((_, masks), satisfied) in self.selectors.iter().zip(&mut grown.satisfied) {
            *satisfied = *satisfied || offers.is_within(&masks[claim.market]);
        }
        if let Some((_, trials)) = equipped {
            grown.trials = trials;
        }
        grown.ceiling = market.ceiling(&offers);
        (grown.offers, grown.cheapest) = (offers, cheapest);
        Some(grown)
    }

    /// Whether a limit of nodes leaves a pool none.
    pub(super) fn is_exhausted(&self, market: usize) -> bool {
        self.allowances[market].remaining.get(NODES).is_some_and(|nodes| *nodes < 1)
    }

    /// What stands for a claim in the snapshot. No real node has a name with a space.
    fn node_of(&self, claim: usize) -> Node {
        let open = &self.claims[claim];
        let pool = self.catalog.markets[open.market].pool;
        let name = format!("new node {claim}");
        let mut labels = certain(pool.requirements.iter());
        for (key, known) in self.catalog.keys.iter().zip(&open.known) {
            let value = known.map(|at| (key.name.to_string(), key.values[at].name.to_string()));
            labels.extend(value);
        }
        labels.insert(HOSTNAME.to_owned(), name.clone());
        let mut node = Node { name: name.into(), labels, taints: pool.taints.clone(), ..Node::default() };
        self.catalog.equip(open, &mut node);
        node
    }

    fn verdicts(&self, claim: usize) -> Vec<(Selector, bool)> {
        let satisfied = self.claims[claim].satisfied.iter();
        self.selectors.iter().zip(satisfied).map(|((selector, _), it)| (*selector, *it)).collect()
    }
}
