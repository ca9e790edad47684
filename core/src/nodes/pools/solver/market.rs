//! What one pool can have: every offering of every instance type as a bit, the cheapest first.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Pool, mask::Mask};
use crate::{
    nodes::pools::{
        instance_type::InstanceType,
        requirements::{Requirement, Requirements, WellKnownLabels, labels::add_aliases},
    },
    scheduling::Resources,
};

/// Cpu, memory, ephemeral storage, pods.
pub(super) const FIXED: usize = 4;
/// Amounts of the resources that every node has.
pub(super) type Amounts = [i64; FIXED];

/// Prices are added up in millionths of a dollar.
const MILLIONTHS: f64 = 1e6;
/// What an offering costs whose price nobody knows, or that costs more than this.
const DEAREST: i64 = 1_000_000_000_000;

/// An offering of an instance type, by places in the pool's lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) of: usize,
    pub(super) offering: usize,
    /// Millionths of a dollar an hour.
    pub(super) price: i64,
}

/// Offers that have at least some amount, for each amount that one has.
#[derive(Debug, Clone, Default)]
struct Ladder {
    amounts: Vec<i64>,
    at_least: Vec<Mask>,
}

impl Ladder {
    fn new(amounts: &[i64]) -> Self {
        let mut steps = amounts.to_vec();
        steps.sort_unstable();
        steps.dedup();
        let at_least = steps.iter().map(|step| Mask::of(amounts.len(), |at| amounts[at] >= *step)).collect();
        Self { amounts: steps, at_least }
    }

    fn at_least(&self, amount: i64) -> Option<&Mask> {
        self.at_least.get(self.amounts.partition_point(|step| *step < amount))
    }

    /// The most that one of these offers has.
    fn most(&self, offers: &Mask) -> i64 {
        let reached = self.at_least.partition_point(|at_least| at_least.meets(offers));
        reached.checked_sub(1).map_or(0, |step| self.amounts[step].max(0))
    }
}

/// Values that offers have of a label, or may have.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    /// Each with the offers that have it; `None` stands for offers that say nothing of the label.
    pub(super) distinct: Vec<(Option<Requirement>, Mask)>,
}

/// Offers that a requirement admits, and whether they have to be held to it: they may have other values too.
#[derive(Debug, Clone)]
struct Admitted {
    requirement: Requirement,
    offers: Mask,
    loose: bool,
}

/// What one pool can have.
#[derive(Debug, Clone)]
pub(super) struct Market<'a> {
    pub(super) pool: &'a Pool<'a>,
    pub(super) offers: Vec<Offer>,
    /// Offers that can be had and satisfy the pool's requirements.
    pub(super) all: Mask,
    /// What pods may use of each offer, DaemonSets taken off.
    pub(super) room: Vec<Amounts>,
    ladders: [Ladder; FIXED],
    others: BTreeMap<Box<str>, Ladder>,
    /// Nothing asked of a resource that no offer has.
    nothing: Mask,
    values: BTreeMap<Arc<str>, Values>,
    admitted: BTreeMap<Arc<str>, Vec<Admitted>>,
    /// Values of labels of which the pool insists on some choice, and on how many.
    pub(super) choices: Vec<(u32, Vec<Mask>)>,
}

pub(super) fn fixed(resources: &Resources) -> Amounts {
    [resources.cpu, resources.memory, resources.storage, resources.pods]
}

fn millionths(price: f64) -> i64 {
    #[allow(clippy::cast_possible_truncation, reason = "within ± 10^12")]
    if price.is_nan() { DEAREST } else { (price * MILLIONTHS).round().clamp(0.0, 1e12) as i64 }
}

impl<'a> Market<'a> {
    /// The market of a pool; `takes` says what DaemonSets take of a node, by a mask of offers each.
    pub(super) fn new(pool: &'a Pool<'a>, strict: bool, well_known: &WellKnownLabels) -> Self {
        let mut offers: Vec<Offer> = Vec::new();
        for (of, instance_type) in pool.types.iter().enumerate() {
            let offerings = instance_type.offerings.iter().enumerate();
            offers.extend(offerings.map(|(offering, it)| Offer {
                of,
                offering,
                price: millionths(it.price),
            }));
        }
        offers.sort_by(|left, right| {
            let (one, other) = (&pool.types[left.of], &pool.types[right.of]);
            (left.price, one.allocatable(), &one.name, left.offering).cmp(&(
                right.price,
                other.allocatable(),
                &other.name,
                right.offering,
            ))
        });
        let suits: Vec<bool> =
            pool.types.iter().map(|it| it.requirements.intersects(&pool.requirements)).collect();
        let all = Mask::of(offers.len(), |at| {
            let Offer { of, offering, .. } = offers[at];
            let offering = &pool.types[of].offerings[offering];
            suits[of]
                && offering.available
                && pool.requirements.is_compatible(&offering.requirements, well_known)
        });
        let nothing = Mask::none(offers.len());
        let mut market = Self {
            pool,
            all,
            room: Vec::new(),
            ladders: Default::default(),
            others: BTreeMap::new(),
            nothing,
            values: BTreeMap::new(),
            admitted: BTreeMap::new(),
            choices: Vec::new(),
            offers,
        };
        if strict {
            market.choices = pool.requirements.iter().filter_map(|it| market.choice(it)).collect();
        }
        market
    }

    /// The values that instance types may have of a label of which the pool asks for some choice.
    fn choice(&self, requirement: &Requirement) -> Option<(u32, Vec<Mask>)> {
        let mut by_value: BTreeMap<&str, Mask> = BTreeMap::new();
        let least = requirement.min_values()?;
        for at in self.all.iter() {
            let values = self.instance_type(at).requirements.get(requirement.key()).map(Requirement::values);
            for value in values.into_iter().flatten() {
                by_value.entry(value).or_insert_with(|| self.nothing.clone()).set(at);
            }
        }
        Some((least, by_value.into_values().collect()))
    }

    pub(super) fn instance_type(&self, offer: usize) -> &'a Arc<InstanceType> {
        &self.pool.types[self.offers[offer].of]
    }

    pub(super) fn price(&self, offer: usize) -> i64 {
        self.offers[offer].price
    }

    /// The labels that a node of an offer will have for certain.
    pub(super) fn labels(&self, offer: usize) -> BTreeMap<String, String> {
        let Offer { of, offering, .. } = self.offers[offer];
        let instance_type = &self.pool.types[of];
        let said = [
            &self.pool.requirements,
            &instance_type.requirements,
            &instance_type.offerings[offering].requirements,
        ];
        certain(said.into_iter().flat_map(Requirements::iter))
    }

    /// Takes what DaemonSets ask for off the offers that run them, and orders the offers by what is left.
    pub(super) fn settle(&mut self, daemons: &[(Mask, Resources)]) {
        let left: Vec<Resources> = (0..self.offers.len())
            .map(|at| {
                let mut left = self.instance_type(at).allocatable().clone();
                daemons.iter().filter(|(mask, _)| mask.has(at)).for_each(|(_, asked)| left.subtract(asked));
                left
            })
            .collect();
        self.room = left.iter().map(fixed).collect();
        self.ladders = std::array::from_fn(|resource| {
            let amounts: Vec<i64> = self.room.iter().map(|room| room[resource]).collect();
            Ladder::new(&amounts)
        });
        let names = left.iter().flat_map(|left| left.other.keys());
        for name in names {
            if !self.others.contains_key(name) {
                let amounts: Vec<i64> = left.iter().map(|left| left.get(name)).collect();
                self.others.insert(name.clone(), Ladder::new(&amounts));
            }
        }
    }

    /// Offers with room for this much of the resources that every node has.
    pub(super) fn roomy(&self, sum: &Amounts) -> Option<[&Mask; FIXED]> {
        let [cpu, memory, storage, pods] = &self.ladders;
        Some([
            asked(cpu, sum[0], &self.all)?,
            asked(memory, sum[1], &self.all)?,
            asked(storage, sum[2], &self.all)?,
            asked(pods, sum[3], &self.all)?,
        ])
    }

    /// The most cpu, and the most memory, that one of these offers has room for.
    pub(super) fn ceiling(&self, offers: &Mask) -> [i64; 2] {
        [self.ladders[0].most(offers), self.ladders[1].most(offers)]
    }

    /// Offers with so much of another resource.
    pub(super) fn roomy_of(&self, resource: &str, amount: i64) -> &Mask {
        if amount <= 0 {
            return &self.all;
        }
        self.others.get(resource).and_then(|ladder| ladder.at_least(amount)).unwrap_or(&self.nothing)
    }

    /// As [`Market::roomy_of`]; of the resources for which devices do, what does not offer any has devices or not.
    pub(super) fn roomy_or_devices(
        &self,
        resource: &str,
        amount: i64,
        as_devices: &[Box<str>],
    ) -> Cow<'_, Mask> {
        let roomy = self.roomy_of(resource, amount);
        if !as_devices.iter().any(|name| **name == *resource) {
            return Cow::Borrowed(roomy);
        }
        let mut offers = self.all.clone();
        offers.drop_all(self.roomy_of(resource, 1));
        offers.join(roomy);
        Cow::Owned(offers)
    }

    /// What offers say of a label.
    pub(super) fn values(&mut self, key: &Arc<str>) -> &Values {
        if !self.values.contains_key(key) {
            let values = self.read_values(key);
            self.values.insert(key.clone(), values);
        }
        &self.values[key]
    }

    fn read_values(&self, key: &str) -> Values {
        let mut places: BTreeMap<_, usize> = BTreeMap::new();
        let mut values = Values::default();
        let of_pool = self.pool.requirements.get(key);
        for at in self.all.iter() {
            let Offer { of, offering, .. } = self.offers[at];
            let instance_type = &self.pool.types[of];
            let said = [
                of_pool,
                instance_type.requirements.get(key),
                instance_type.offerings[offering].requirements.get(key),
            ];
            let all = said.into_iter().flatten().cloned().reduce(|one, other| one.intersection(&other));
            let text = all.as_ref().map(|it| (it.is_complement(), it.bounds(), it.values().clone()));
            let place = *places.entry(text).or_insert_with(|| {
                values.distinct.push((all, Mask::none(self.offers.len())));
                values.distinct.len() - 1
            });
            values.distinct[place].1.set(at);
        }
        values
    }

    /// Offers by the value of a label, those left out that have none or may have several.
    pub(super) fn by_value(&mut self, key: &Arc<str>) -> BTreeMap<Arc<str>, Mask> {
        let values = self.values(key).distinct.iter();
        let only = |(requirement, mask): &(Option<Requirement>, Mask)| {
            let requirement = requirement.as_ref().filter(|it| !it.is_complement() && it.len() == 1)?;
            Some((requirement.values().first()?.clone(), mask.clone()))
        };
        values.filter_map(only).collect()
    }

    /// Offers that requirements admit, and those of the requirements that a claim has to keep: for labels of which an admitted
    /// offer may have other values too.
    pub(super) fn admit(&mut self, requirements: &Requirements) -> (Mask, Requirements) {
        let mut offers = self.all.clone();
        let mut kept = Requirements::new();
        for requirement in requirements.iter() {
            let (admitted, loose) = self.admit_one(requirement);
            offers.keep(admitted);
            if loose {
                kept.add(requirement.clone());
            }
        }
        (offers, kept)
    }

    fn admit_one(&mut self, requirement: &Requirement) -> (&Mask, bool) {
        let key = requirement.key();
        let known =
            self.admitted.get(key).and_then(|list| list.iter().position(|it| it.requirement == *requirement));
        let place = known.unwrap_or_else(|| {
            let count = self.offers.len();
            let mut admitted =
                Admitted { requirement: requirement.clone(), offers: Mask::none(count), loose: false };
            for (value, offers) in &self.values(key).distinct {
                let Some(value) = value else {
                    admitted.offers.join(offers);
                    admitted.loose = true;
                    continue;
                };
                let absent = value.operator().allows_absence() && requirement.operator().allows_absence();
                if absent || value.intersects(requirement) {
                    admitted.offers.join(offers);
                    let named = !value.is_complement() && value.values().iter().all(|it| requirement.has(it));
                    admitted.loose |= !named;
                }
            }
            let list = self.admitted.entry(key.clone()).or_default();
            list.push(admitted);
            list.len() - 1
        });
        let admitted = &self.admitted[key][place];
        (&admitted.offers, admitted.loose)
    }

    /// Whether a set of offers is the choice that the pool asks for.
    pub(super) fn is_choice(&self, offers: &Mask) -> bool {
        self.choices.iter().all(|(least, values)| {
            values.iter().filter(|value| value.meets(offers)).take(*least as usize).count() >= *least as usize
        })
    }

    /// The zones of offers.
    pub(super) fn zones(&self, offers: &Mask) -> BTreeSet<&'a str> {
        let offering = |Offer { of, offering, .. }: Offer| &self.pool.types[of].offerings[offering];
        offers.iter().filter_map(|at| offering(self.offers[at]).zone()).collect()
    }

    /// The instance types of a set of offers, cheapest first.
    pub(super) fn types(&self, offers: &Mask) -> Vec<Arc<InstanceType>> {
        let mut taken = Mask::none(self.pool.types.len());
        let mut types = Vec::new();
        for of in offers.iter().map(|at| self.offers[at].of) {
            if !taken.has(of) {
                taken.set(of);
                types.push(self.pool.types[of].clone());
            }
        }
        types
    }
}

/// The labels of which requirements leave one value.
pub(super) fn certain<'r>(requirements: impl Iterator<Item = &'r Requirement>) -> BTreeMap<String, String> {
    let only = requirements.filter(|it| !it.is_complement() && it.len() == 1);
    let mut labels = only.filter_map(|it| Some((it.key().to_string(), it.any()?))).collect();
    add_aliases(&mut labels);
    labels
}

/// Offers with at least so much, all if nothing is asked for.
fn asked<'m>(ladder: &'m Ladder, amount: i64, all: &'m Mask) -> Option<&'m Mask> {
    if amount <= 0 { Some(all) } else { ladder.at_least(amount) }
}
