//! Kinds: classes of pods at one level of their preferences, with what each pool has for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Options, Pool, Preferences, Refusal,
    devices::Equipment,
    market::{Amounts, Market, fixed},
    mask::Mask,
    relax::{PREFER_NO_SCHEDULE, levels},
};
use crate::{
    nodes::pools::{
        launch::MinValuesPolicy,
        requirements::{Requirements, labels::HOSTNAME},
    },
    scheduling::{
        ClassId, Node, Pod, Snapshot,
        pod::{Shape, Traits},
        rules::{Selector, Value},
        taints::tolerates,
    },
};

/// What one pool has for a kind.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    /// Offers that do.
    pub(super) offers: Mask,
    /// Requirements that a claim has to keep, since offers admit other values too.
    pub(super) kept: Requirements,
}

/// Pods that nothing tells apart, at one level of their preferences.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    /// What they are judged as.
    pub(super) class: ClassId,
    /// What they are bound as: without preferences.
    pub(super) bound: ClassId,
    /// What they ask of a node.
    pub(super) shape: Arc<Shape>,
    pub(super) requests: Amounts,
    pub(super) requirements: Requirements,
    /// By market; none where taints or requirements stand against it.
    pub(super) fits: Vec<Option<Fit>>,
    pub(super) selector: Option<Selector>,
    pub(super) has_holds: bool,
    /// Whether they ask for devices, of nodes that get any.
    pub(super) asks_for_devices: bool,
    /// Resources for which devices do, too.
    pub(super) as_devices: Box<[Box<str>]>,
}

/// A label whose values are domains of topology rules.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) name: Arc<str>,
    pub(super) values: Vec<DomainValue>,
}

/// A value of such a label.
#[derive(Debug, Clone)]
pub(super) struct DomainValue {
    pub(super) name: Arc<str>,
    pub(super) value: Value,
    /// Offers that have it, by market.
    pub(super) offers: Vec<Mask>,
}

/// What outlives a single solution: the markets, and what was read of pods.
#[derive(Debug)]
pub(super) struct Catalog<'a> {
    pub(super) options: Options,
    /// In the order in which they are tried.
    pub(super) markets: Vec<Market<'a>>,
    pub(super) kinds: Vec<Kind>,
    pub(super) keys: Vec<Key>,
    by_class: HashMap<(ClassId, ClassId), usize>,
    /// What no node of a market has that pods of a class need.
    pub(super) lacking: BTreeMap<(ClassId, usize), Refusal>,
    /// Classes for whose claims of devices a market has only what nobody knows.
    pub(super) presuming: BTreeSet<(ClassId, usize)>,
    /// The devices of what a market offers, once somebody asks for any.
    pub(super) equipment: Vec<Option<Vec<Equipment>>>,
    /// Daemons that take ports or disks, by market, with the offers on which they run.
    holds: Vec<Vec<(ClassId, Mask)>>,
    prefer_no_schedule: bool,
}

impl<'a> Catalog<'a> {
    pub(super) fn new(snapshot: &mut Snapshot, pools: &'a [Pool<'a>], options: Options) -> Self {
        let mut order: Vec<&Pool<'_>> = pools.iter().collect();
        order.sort_by(|left, right| (right.weight, &right.name).cmp(&(left.weight, &left.name)));
        let prefer = |pool: &Pool<'_>| pool.taints.iter().any(|taint| taint.effect == PREFER_NO_SCHEDULE);
        let strict = options.min_values == MinValuesPolicy::Strict;
        let market = |pool| Market::new(pool, strict, &options.well_known);
        let mut catalog = Self {
            prefer_no_schedule: pools.iter().any(prefer),
            markets: order.into_iter().map(market).collect(),
            kinds: Vec::new(),
            keys: Vec::new(),
            by_class: HashMap::new(),
            lacking: BTreeMap::new(),
            presuming: BTreeSet::new(),
            equipment: Vec::new(),
            holds: Vec::new(),
            options,
        };
        for market in 0..catalog.markets.len() {
            catalog.settle(snapshot, market);
        }
        catalog
    }

    /// Takes what DaemonSets need off the offers of a market.
    fn settle(&mut self, snapshot: &mut Snapshot, market: usize) {
        let daemons: &[Pod] = self.markets[market].pool.daemons;
        let (mut taken, mut holds) = (Vec::new(), Vec::new());
        for pod in daemons {
            let class = snapshot.class(pod);
            let asked = snapshot.surroundings().as_asked(&pod.shape).into_owned();
            let affinity = asked.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
            let mut offers = Mask::none(self.markets[market].offers.len());
            for requirements in Requirements::of_pod(&asked.node_selector, affinity, false) {
                // Their controller tolerates what keeps others away only for a time; a preference keeps no daemon away.
                if let Some(fit) = self.fit(market, &asked, &requirements, true) {
                    offers.join(&fit.offers);
                }
            }
            if snapshot.has_holds(class) {
                holds.push((class, offers.clone()));
            }
            taken.push((offers, pod.shape.requests.clone()));
        }
        self.markets[market].settle(&taken);
        self.holds.push(holds);
    }

    fn fit(
        &mut self,
        market: usize,
        shape: &Shape,
        requirements: &Requirements,
        ignores_preference: bool,
    ) -> Option<Fit> {
        let market = &mut self.markets[market];
        let tolerated = market.pool.taints.iter().all(|taint| {
            (ignores_preference && taint.effect == PREFER_NO_SCHEDULE)
                || shape.tolerations.iter().any(|toleration| tolerates(toleration, taint))
        });
        if !tolerated || !market.pool.requirements.is_compatible(requirements, &self.options.well_known) {
            return None;
        }
        let (offers, kept) = market.admit(requirements);
        (!offers.is_empty()).then_some(Fit { offers, kept })
    }

    /// The levels of a pod's preferences, what its scheduler adds to them included.
    pub(super) fn levels(&self, snapshot: &Snapshot, traits: &Arc<Traits>) -> Vec<Arc<Traits>> {
        let traits = snapshot.surroundings().with_defaults(traits);
        levels(&traits, self.options.preferences == Preferences::Respect, self.prefer_no_schedule)
    }

    /// The kind of a pod at one level of its preferences.
    pub(super) fn kind(&mut self, snapshot: &mut Snapshot, pod: &Pod, level: &Arc<Shape>) -> usize {
        let bound = snapshot.class(pod);
        let class = if Arc::ptr_eq(level, &pod.shape) {
            bound
        } else {
            let relaxed = Pod { shape: level.clone(), deleting: pod.deleting, ..Pod::default() };
            let (claims, device_claims) = (pod.claims.clone(), pod.device_claims.clone());
            snapshot.class(&Pod { claims, device_claims, node: pod.node.clone(), ..relaxed })
        };
        if let Some(kind) = self.by_class.get(&(class, bound)) {
            return *kind;
        }
        let asked = snapshot.surroundings().as_asked(level).into_owned();
        let affinity = asked.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let all = Requirements::of_pod(&asked.node_selector, affinity, false);
        let requirements = all.into_iter().next().unwrap_or_default();
        let markets = 0..self.markets.len();
        let asks_for_devices = snapshot.asks_for_devices(class)
            && self.markets.iter().any(|market| market.pool.outfits.is_some());
        let others = asked.requests.other.keys().filter(|_| asks_for_devices);
        let as_devices: Box<[_]> =
            others.filter(|name| snapshot.may_be_device(class, name)).cloned().collect();
        let kind = Kind {
            class,
            bound,
            requests: fixed(&asked.requests),
            fits: markets
                .map(|market| self.fit_of(snapshot, market, class, (&asked, &as_devices), &requirements))
                .collect(),
            shape: asked,
            selector: snapshot.selector_of(class),
            has_holds: snapshot.has_holds(class),
            asks_for_devices,
            as_devices,
            requirements,
        };
        let place = self.kinds.len();
        self.by_class.insert((class, bound), place);
        self.kinds.push(kind);
        place
    }

    /// What a market has for a kind: ports and disks that DaemonSets take, and the places of volumes considered.
    fn fit_of(
        &mut self,
        snapshot: &mut Snapshot,
        place: usize,
        class: ClassId,
        (shape, as_devices): (&Shape, &[Box<str>]),
        requirements: &Requirements,
    ) -> Option<Fit> {
        let mut fit = self.fit(place, shape, requirements, false)?;
        if snapshot.impossible(class).is_some() {
            return None;
        }
        for (daemon, offers) in &self.holds[place] {
            if snapshot.holds_conflict(class, *daemon) {
                fit.offers.drop_all(offers);
            }
        }
        let market = &mut self.markets[place];
        for (name, amount) in &shape.requests.other {
            fit.offers.keep(&market.roomy_or_devices(name, *amount, as_devices));
        }
        if snapshot.asks_of_nodes(class) {
            let mut served = Mask::none(market.offers.len());
            let mut lacking = None;
            for at in fit.offers.iter() {
                let labels = market.labels(at);
                let declared = market.pool.told.of_node(&labels);
                let node = Node { labels, declared, ..Node::default() };
                let mold = snapshot.mold(&node);
                match snapshot.lacks(class, mold.info()) {
                    None => served.set(at),
                    Some(reason) => lacking = lacking.or(Some(reason)),
                }
            }
            fit.offers = served;
            if let Some(reason) = lacking.filter(|_| fit.offers.is_empty()) {
                self.lacking.insert((class, place), Refusal::Volume(reason));
            }
        }
        if snapshot.asks_for_devices(class) && !fit.offers.is_empty() {
            match self.equipped(snapshot, place, class, &fit.offers) {
                Ok(offers) => fit.offers = offers,
                Err(reason) => {
                    self.lacking.insert((class, place), Refusal::Devices(reason));
                    return None;
                }
            }
        }
        (!fit.offers.is_empty()).then_some(fit)
    }

    /// The place of a topology key; none stands for single nodes.
    pub(super) fn key(&mut self, snapshot: &mut Snapshot, name: &Arc<str>) -> Option<usize> {
        if &**name == HOSTNAME {
            return None;
        }
        if let Some(place) = self.keys.iter().position(|key| key.name == *name) {
            return Some(place);
        }
        let mut values: BTreeMap<Arc<str>, Vec<Mask>> = BTreeMap::new();
        let nothing: Vec<Mask> = self.markets.iter().map(|market| Mask::none(market.offers.len())).collect();
        for (place, market) in self.markets.iter_mut().enumerate() {
            for (value, offers) in market.by_value(name) {
                values.entry(value).or_insert_with(|| nothing.clone())[place] = offers;
            }
        }
        let values = values
            .into_iter()
            .map(|(name, offers)| DomainValue { value: snapshot.value(&name), name, offers })
            .collect();
        self.keys.push(Key { name: name.clone(), values });
        Some(self.keys.len() - 1)
    }
}
