//! The search for devices: the first that will do, in kube-scheduler's order, with backtracking.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    capacity::{Consumed, consumption},
    claim::{Alternative, Constraint, Count, Rule},
    demand::Need,
    ledger::{DeviceId, Given, Known, Ledger, Part, Reach},
    pools::{Pool, Unusable},
    selector::Verdict,
    slice::{Attribute, Device, DeviceTaint, TaintRule},
};
use crate::scheduling::{
    fleet::NodeInfo,
    ids::{NodeId, Strings},
    reason::Reason,
};

/// The most devices that a claim may have (API: `AllocationResultsMaxSize`).
const MOST_DEVICES: usize = 32;

/// Devices that are tried before the search on a node is given up: some fifty milliseconds, since it may be one of thousands.
/// kube-scheduler gives up after ten seconds; what is there to be found comes early.
const MOST_STEPS: u32 = 50_000;

/// Why the search goes no further.
#[derive(Debug)]
enum Stop {
    /// A claim would have too many devices.
    TooMany,
    /// The pod cannot be scheduled at all.
    Refused(Reason),
}

/// Where it is looked for devices.
pub(super) struct Place<'a> {
    pub(super) node: (NodeId, &'a NodeInfo),
    pub(super) pools: Vec<Pool<'a>>,
    pub(super) taint_rules: &'a [Arc<TaintRule>],
    pub(super) ledger: &'a Ledger,
    pub(super) strings: &'a Strings,
}

/// What each claim would get; the reason if not all of them get what they ask for.
pub(super) fn allocate(place: &Place<'_>, needs: &[&Need]) -> Result<Vec<Given>, Reason> {
    let mut search = Search::new(place, needs);
    let found = search.prepare().and_then(|()| search.claim(0));
    match found {
        Ok(true) => Ok(search.given()),
        Ok(false) | Err(Stop::TooMany) => Err(Reason::NoDevices {
            invalid_pools: place.pools.iter().any(|pool| pool.unusable == Some(Unusable::Invalid)),
        }),
        Err(Stop::Refused(reason)) => Err(reason),
    }
}

/// A device that might do.
struct Candidate<'a> {
    pool: usize,
    known: &'a Known,
    at: usize,
    device: &'a Device,
    id: DeviceId,
}

/// A device that has been chosen for now.
struct Chosen {
    candidate: usize,
    claim: usize,
    request: usize,
    alternative: usize,
    /// Whether its counters count.
    counts: bool,
    share: Option<Consumed>,
}

/// An alternative of a request of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    claim: usize,
    request: usize,
    alternative: usize,
}

struct Search<'a> {
    place: &'a Place<'a>,
    needs: &'a [&'a Need],
    candidates: Vec<Candidate<'a>>,
    /// Whether a candidate suits an alternative, as far as it is known.
    suits: BTreeMap<Asked, Vec<Option<bool>>>,
    /// The candidates of alternatives that ask for all.
    all: BTreeMap<Asked, Vec<usize>>,
    chosen: Vec<Chosen>,
    steps: u32,
}

impl<'a> Search<'a> {
    fn new(place: &'a Place<'a>, needs: &'a [&'a Need]) -> Self {
        let mut candidates = Vec::new();
        for (number, pool) in place.pools.iter().enumerate().filter(|(_, pool)| pool.unusable.is_none()) {
            for known in &pool.slices {
                for (at, device) in known.slice.devices.iter().enumerate() {
                    let id = DeviceId { home: pool.home, pool: pool.number, name: known.names[at] };
                    candidates.push(Candidate { pool: number, known, at, device, id });
                }
            }
        }
        Self {
            place,
            needs,
            candidates,
            suits: BTreeMap::new(),
            all: BTreeMap::new(),
            chosen: Vec::new(),
            steps: 0,
        }
    }

    fn asked(&self, asked: Asked) -> &'a Alternative {
        &self.needs[asked.claim].spec.requests[asked.request].alternatives[asked.alternative]
    }

    /// Refuses what cannot be had anywhere, and finds out what "all" is.
    fn prepare(&mut self) -> Result<(), Stop> {
        for (claim, need) in self.needs.iter().enumerate() {
            let mut least = 0;
            for (request, asks) in need.spec.requests.iter().enumerate() {
                let mut least_of = usize::MAX;
                for alternative in 0..asks.alternatives.len() {
                    least_of = least_of.min(self.devices(Asked { claim, request, alternative })?);
                }
                least += least_of;
            }
            if least > MOST_DEVICES {
                let text =
                    format!("number of requested devices {least} exceeds the claim limit of {MOST_DEVICES}");
                return Err(refused(&text));
            }
            if need.spec.constraints.iter().any(|constraint| constraint.rule == Rule::Unknown) {
                return Err(refused("empty constraint (unsupported constraint type?)"));
            }
        }
        Ok(())
    }

    /// How many devices an alternative takes.
    fn devices(&mut self, asked: Asked) -> Result<usize, Stop> {
        let alternative = self.asked(asked);
        let name = &self.needs[asked.claim].spec.requests[asked.request].name;
        if let Some(unknown) = alternative.unknown {
            return Err(refused(&format!("request {name}: {unknown}")));
        }
        if let Count::Exactly(count) = alternative.count {
            return Ok(count);
        }
        let unusable = self.place.pools.iter().find_map(|pool| pool.unusable);
        if let Some(unusable) = unusable {
            let state = if unusable == Unusable::Incomplete { "being updated" } else { "invalid" };
            let text =
                format!("request {name}: asks for all devices, but a resource pool is currently {state}");
            return Err(refused(&text));
        }
        let mut all = Vec::new();
        for candidate in 0..self.candidates.len() {
            if !self.suits(asked, candidate)? {
                continue;
            }
            let Candidate { device, known, .. } = &self.candidates[candidate];
            if consumption(device, &known.slice.pool.0, &alternative.capacity, &std::iter::empty()).is_some()
            {
                all.push(candidate);
            }
        }
        let count = all.len();
        self.all.insert(asked, all);
        Ok(count)
    }

    /// Allocates a claim and those after it.
    fn claim(&mut self, claim: usize) -> Result<bool, Stop> {
        if claim == self.needs.len() { Ok(true) } else { self.request(claim, 0) }
    }

    /// Allocates a request and all after it.
    fn request(&mut self, claim: usize, request: usize) -> Result<bool, Stop> {
        let Some(asks) = self.needs[claim].spec.requests.get(request) else {
            return match self.claim(claim + 1) {
                // With other devices before it, the claim may do with fewer.
                Err(Stop::TooMany) => Ok(false),
                other => other,
            };
        };
        let mut too_many = true;
        for alternative in 0..asks.alternatives.len() {
            match self.device(Asked { claim, request, alternative }, 0, 0) {
                Err(Stop::TooMany) => {}
                Ok(false) => too_many = false,
                other => return other,
            }
        }
        if too_many { Err(Stop::TooMany) } else { Ok(false) }
    }

    /// Allocates the device of this number of an alternative, and all that comes after it; of candidates only those from
    /// `from` on, since the order of devices of one request makes no difference.
    fn device(&mut self, asked: Asked, number: usize, from: usize) -> Result<bool, Stop> {
        let alternative = self.asked(asked);
        let all = self.all.get(&asked).cloned();
        let count = match (alternative.count, &all) {
            (Count::Exactly(count), _) => count,
            (Count::All, all) => all.as_ref().map_or(0, Vec::len),
        };
        if alternative.count == Count::All && count == 0 {
            return Ok(false);
        }
        if number >= count {
            return self.request(asked.claim, asked.request + 1);
        }
        let of_claim = self.chosen.iter().filter(|chosen| chosen.claim == asked.claim).count();
        if of_claim + count - number > MOST_DEVICES {
            return Err(Stop::TooMany);
        }
        if let Some(all) = all {
            if !self.choose(asked, all[number])? {
                return Ok(false);
            }
            return self.go_on(asked, number + 1, 0);
        }
        for candidate in from..self.candidates.len() {
            if self.is_free(asked, candidate)
                && self.suits(asked, candidate)?
                && self.choose(asked, candidate)?
                && self.go_on(asked, number + 1, candidate + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`Search::device`] after a device was chosen, which is given back if that leads nowhere.
    fn go_on(&mut self, asked: Asked, number: usize, from: usize) -> Result<bool, Stop> {
        let done = self.device(asked, number, from);
        if !matches!(done, Ok(true)) {
            self.chosen.pop();
        }
        done
    }

    /// Whether a candidate is not in use.
    fn is_free(&self, asked: Asked, candidate: usize) -> bool {
        let id = self.candidates[candidate].id;
        let mut chosen = self.chosen.iter().filter(|chosen| {
            let other = &self.candidates[chosen.candidate];
            other.id == id && !other.device.is_shared
        });
        if self.asked(asked).is_admin {
            return !chosen.any(|chosen| chosen.claim == asked.claim);
        }
        !self.place.ledger.is_taken(id) && chosen.next().is_none()
    }

    /// Whether a candidate is what an alternative asks for, whoever has it.
    fn suits(&mut self, asked: Asked, candidate: usize) -> Result<bool, Stop> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(Stop::Refused(Reason::DeviceRequest("timed out trying to allocate devices".into())));
        }
        let count = self.candidates.len();
        if let Some(suits) = self.suits.entry(asked).or_insert_with(|| vec![None; count])[candidate] {
            return Ok(suits);
        }
        let suits = self.is_selected(asked, candidate)? && self.is_reached(candidate);
        if let Some(known) = self.suits.get_mut(&asked) {
            known[candidate] = Some(suits);
        }
        Ok(suits)
    }

    /// Whether the selectors of the class and of the request all hold.
    fn is_selected(&self, asked: Asked, candidate: usize) -> Result<bool, Stop> {
        let Candidate { known, at, .. } = &self.candidates[candidate];
        let class = &self.needs[asked.claim].classes[asked.request][asked.alternative];
        for selector in class.selectors.iter().chain(&self.asked(asked).selectors) {
            let verdicts: Arc<[Verdict]> = selector.verdicts(&known.slice);
            match &verdicts[*at] {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    let name = &self.needs[asked.claim].spec.requests[asked.request].name;
                    return Err(refused(&format!(
                        "request {name}: selector {:?}: {error}",
                        selector.expression
                    )));
                }
            }
        }
        Ok(true)
    }

    fn is_reached(&self, candidate: usize) -> bool {
        let Candidate { known, at, .. } = &self.candidates[candidate];
        let (id, node) = self.place.node;
        known.reach.is_some() || known.reaches[*at].includes(id, node, self.place.strings)
    }

    /// Chooses a candidate for now; `false` if it is not to be had.
    fn choose(&mut self, asked: Asked, candidate: usize) -> Result<bool, Stop> {
        let alternative = self.asked(asked);
        let Candidate { device, id, known, .. } = &self.candidates[candidate];
        if !self.is_free(asked, candidate) {
            return Ok(false);
        }
        // What is shared takes its counters once.
        let shared_already = device.is_shared
            && (self.place.ledger.is_in_use(*id)
                || self.chosen.iter().any(|chosen| self.candidates[chosen.candidate].id == *id));
        let counts = !shared_already && !device.consumes.is_empty();
        if counts && !self.counters_suffice(candidate) {
            return Ok(false);
        }
        let tolerated = |taint: &DeviceTaint| {
            !taint.repels() || alternative.tolerations.iter().any(|toleration| toleration.tolerates(taint))
        };
        if !self.taints(candidate).all(tolerated) {
            return Ok(false);
        }
        if !self.constraints_hold(asked, candidate) {
            if alternative.count == Count::All {
                let name = &self.needs[asked.claim].spec.requests[asked.request].name;
                let text = format!(
                    "request {name}: cannot add device {} because a claim constraint would not be satisfied",
                    device.name
                );
                return Err(refused(&text));
            }
            return Ok(false);
        }
        let chosen = self.chosen.iter().filter(|chosen| self.candidates[chosen.candidate].id == *id);
        let others =
            self.place.ledger.shares(*id).iter().chain(chosen.filter_map(|chosen| chosen.share.as_ref()));
        let Some(consumed) = consumption(device, &known.slice.pool.0, &alternative.capacity, &others) else {
            return Ok(false);
        };
        let share = device.is_shared.then_some(consumed);
        let Asked { claim, request, alternative } = asked;
        self.chosen.push(Chosen { candidate, claim, request, alternative, counts, share });
        Ok(true)
    }

    /// The taints of a candidate, those included that a rule gives it.
    fn taints(&self, candidate: usize) -> impl Iterator<Item = &'a DeviceTaint> {
        let Candidate { device, known, id, .. } = &self.candidates[candidate];
        let (driver, pool) = &known.slice.pool;
        let pool = id.home.is_none().then_some(&**pool);
        let rules =
            self.place.taint_rules.iter().filter(move |rule| rule.selects(driver, pool, &device.name));
        device.taints.iter().chain(rules.map(|rule| &rule.taint))
    }

    /// Whether the counters of a pool have enough for one more device.
    fn counters_suffice(&self, candidate: usize) -> bool {
        let of_pool = self.candidates[candidate].pool;
        let pool = &self.place.pools[of_pool];
        let mut left: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for (set, counters) in &pool.counters {
            left.extend(counters.iter().map(|(counter, amount)| ((*set, &**counter), *amount)));
        }
        let mut take = |device: &'a Device| {
            for (set, counters) in &device.consumes {
                for (counter, amount) in counters {
                    if let Some(left) = left.get_mut(&(&**set, &**counter)) {
                        *left = left.saturating_sub(*amount);
                    }
                }
            }
        };
        for known in pool.slices.iter().chain(&pool.elsewhere) {
            for (name, device) in known.names.iter().zip(&known.slice.devices) {
                let id = DeviceId { home: pool.home, pool: pool.number, name: *name };
                if !device.consumes.is_empty() && self.place.ledger.is_in_use(id) {
                    take(device);
                }
            }
        }
        for chosen in self.chosen.iter().filter(|chosen| chosen.counts) {
            let other = &self.candidates[chosen.candidate];
            if other.pool == of_pool {
                take(other.device);
            }
        }
        take(self.candidates[candidate].device);
        left.values().all(|left| *left >= 0)
    }

    /// Whether a candidate has in common with the devices of its claim what it should, and nothing that it should not.
    fn constraints_hold(&self, asked: Asked, candidate: usize) -> bool {
        self.needs[asked.claim].spec.constraints.iter().all(|constraint| {
            if !self.is_about(constraint, asked) {
                return true;
            }
            let Some(value) = self.attribute(candidate, &constraint.attribute) else { return false };
            let mut others = self.chosen.iter().filter(|chosen| {
                let Chosen { claim, request, alternative, .. } = **chosen;
                claim == asked.claim && self.is_about(constraint, Asked { claim, request, alternative })
            });
            let is_same =
                |chosen: &Chosen| self.attribute(chosen.candidate, &constraint.attribute) == Some(value);
            match constraint.rule {
                Rule::Same => others.all(is_same),
                Rule::Distinct => !others.any(is_same),
                Rule::Unknown => false,
            }
        })
    }

    fn is_about(&self, constraint: &Constraint, asked: Asked) -> bool {
        let request = &self.needs[asked.claim].spec.requests[asked.request];
        let alternative = &request.alternatives[asked.alternative].name;
        constraint.requests.is_empty()
            || constraint.requests.iter().any(|name| match name.split_once('/') {
                Some((of, sub)) => *of == *request.name && *sub == **alternative,
                None => *name == request.name,
            })
    }

    fn attribute(&self, candidate: usize, name: &str) -> Option<&'a Attribute> {
        let (domain, name) = name.split_once('/')?;
        let attributes = &self.candidates[candidate].device.attributes;
        attributes.get(&(domain.into(), name.into())).filter(|value| **value != Attribute::Unknown)
    }

    /// What each claim gets.
    fn given(&self) -> Vec<Given> {
        let of_claim = |claim: usize| {
            let chosen = || self.chosen.iter().filter(move |chosen| chosen.claim == claim);
            let part = |chosen: &Chosen| Part {
                device: self.candidates[chosen.candidate].id,
                is_admin: self
                    .asked(Asked { claim, request: chosen.request, alternative: chosen.alternative })
                    .is_admin,
                share: chosen.share.clone(),
            };
            Given { parts: chosen().map(part).collect(), reach: self.reach(chosen()) }
        };
        (0..self.needs.len()).map(of_claim).collect()
    }

    /// Where all devices of a claim can be used.
    fn reach<'c>(&self, chosen: impl Iterator<Item = &'c Chosen>) -> Reach {
        let mut selectors = Vec::new();
        for chosen in chosen {
            let Candidate { known, at, device, .. } = &self.candidates[chosen.candidate];
            match known.reach.as_ref().unwrap_or_else(|| &known.reaches[*at]) {
                Reach::Nodes(of) if !device.binds_to_node => selectors.extend(of.iter().cloned()),
                Reach::All if !device.binds_to_node => {}
                _ => return Reach::Here(self.place.node.0),
            }
        }
        if selectors.is_empty() { Reach::All } else { Reach::Nodes(selectors.into()) }
    }
}

fn refused(text: &str) -> Stop {
    Stop::Refused(Reason::DeviceRequest(text.into()))
}
