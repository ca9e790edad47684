//! `instance_selection`: which instance types new nodes are asked for as.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{api::core::v1 as k8s, apimachinery::pkg::api::resource::Quantity};
use serde::Deserialize;
use serde_json::Value;
use tandem_core::{
    nodes::pools::{
        instance_type::{InstanceType, Offering},
        launch::MinValuesPolicy,
        requirements::{
            Requirement, Requirements, WellKnownLabels,
            labels::{CAPACITY_TYPE, ZONE},
        },
        select::{Claim, Packing, Pool, pack},
        solver,
    },
    nodes::told::Told,
    scheduling::{Pod, Resources, Snapshot},
};

use super::{Differences, Verdict, read, requirements::requirements};

/// Labels that the provider of the cases adds to the well-known ones.
const OF_PROVIDER: [&str; 3] = ["size", "special", "integer"];

/// An instance type as cases word it.
#[derive(Deserialize)]
struct Worded {
    name: String,
    requirements: Value,
    capacity: BTreeMap<String, Quantity>,
    overhead: BTreeMap<String, Quantity>,
    offerings: Value,
}

/// Terms as cases word them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terms {
    capacity_type: String,
    zone: String,
    price: f64,
    available: bool,
}

/// Offerings as cases list them.
pub(super) fn offerings(list: &Value) -> Vec<Offering> {
    let offering = |terms: Terms| Offering {
        requirements: terms_of(&terms.capacity_type, &terms.zone),
        price: terms.price,
        available: terms.available,
        reservation: None,
    };
    read::<Vec<Terms>>(list).into_iter().map(offering).collect()
}

fn terms_of(capacity_type: &str, zone: &str) -> Requirements {
    [Requirement::is(CAPACITY_TYPE, capacity_type), Requirement::is(ZONE, zone)].into_iter().collect()
}

/// Instance types as a case or a catalog lists them.
fn instance_types(list: &Value) -> Vec<Arc<InstanceType>> {
    let instance_type = |worded: Worded| {
        Arc::new(InstanceType::new(
            &worded.name,
            requirements(&worded.requirements),
            Resources::from_list(&worded.capacity),
            Resources::from_list(&worded.overhead),
            offerings(&worded.offerings),
        ))
    };
    read::<Vec<Worded>>(list).into_iter().map(instance_type).collect()
}

/// Runs a case; `meta` has the catalogs that cases share.
pub(super) fn judge(case: &Value, meta: &Value) -> Verdict {
    let well_known = WellKnownLabels::default().with(OF_PROVIDER);
    let mut differences = Differences::default();
    let mut types = match case["catalog"].as_str() {
        Some(catalog) => instance_types(&meta["catalogs"][catalog]),
        None => instance_types(&case["instanceTypes"]),
    };
    let excluded: Option<BTreeMap<String, String>> = read(&case["excludeTypes"]);
    if let Some(excluded) = excluded {
        types.retain(|one| !excluded.iter().all(|(key, value)| has(one, key, value)));
    }
    if let Some(wanted) = case["expectedTypesLeft"].as_u64() {
        differences.same("types left", types.len() as u64, wanted);
    }
    let pods: Vec<Pod> =
        read::<Vec<k8s::Pod>>(&case["pods"]).iter().map(|pod| Pod::read(pod, Arc::new)).collect();
    let pool = Pool {
        requirements: requirements(&case["nodePoolRequirements"]),
        types: &types,
        daemons: Resources::default(),
        min_values: MinValuesPolicy::Strict,
        most_types: read(&case["maxInstanceTypes"]),
        well_known: &well_known,
    };
    let got = pack(&pool, &pods);
    compare(case, &got, pods.len(), &well_known, &mut differences);
    solved(&pool, &pods, &got, &mut differences);
    differences.verdict()
}

/// The solver, which packs better, places the same pods, and one alone on the same instance types.
fn solved(pool: &Pool<'_>, pods: &[Pod], packed: &Packing, differences: &mut Differences) {
    let solver_pool = solver::Pool {
        name: "pool".into(),
        weight: 0,
        requirements: pool.requirements.clone(),
        taints: Vec::new(),
        types: pool.types,
        daemons: &[],
        told: Told::default(),
        outfits: None,
        remaining: BTreeMap::new(),
    };
    let options = solver::Options {
        min_values: pool.min_values,
        most_types: pool.most_types,
        well_known: pool.well_known.clone(),
        ..solver::Options::default()
    };
    let solution = solver::solve(&mut Snapshot::default(), &[solver_pool], pods, options);
    let (left_out, most) = (solution.failures.len(), packed.unschedulable.len());
    differences.holds(left_out <= most, || format!("the solver left out {left_out}, wanted {most} at most"));
    differences.holds(pods.len() > 1 || left_out == most, || "the solver placed it".to_owned());
    if let ([solved], [packed], [_]) = (&solution.claims[..], &packed.claims[..], pods) {
        let names =
            |types: &[Arc<InstanceType>]| types.iter().map(|one| one.name.clone()).collect::<BTreeSet<_>>();
        differences.same("types of the solver", names(&solved.types), names(&packed.types));
    }
}

fn has(instance_type: &InstanceType, key: &str, value: &str) -> bool {
    instance_type.requirements.get(key).is_some_and(|requirement| requirement.has(value))
}

fn compare(
    case: &Value,
    got: &Packing,
    pods: usize,
    well_known: &WellKnownLabels,
    differences: &mut Differences,
) {
    let scheduled: Vec<bool> =
        (0..pods).map(|place| got.claims.iter().any(|claim| claim.pods.contains(&place))).collect();
    differences.same("scheduled", scheduled, read(&case["expectedScheduled"]));
    if let Some(wanted) = case["expectedNodes"].as_u64() {
        differences.same("nodes", got.claims.len() as u64, wanted);
    }
    let cheapest = got.claims.first().and_then(|claim| claim.cheapest(well_known));
    if let Some(wanted) = case["expectedPrice"].as_f64() {
        differences.same("price", cheapest.map(|(_, offering)| offering.price), Some(wanted));
    }
    if let Some(wanted) = case["derivedMinPrice"].as_f64() {
        differences.same("least price", cheapest.map(|(_, offering)| offering.price), Some(wanted));
    }
    if let Some(wanted) = case["expectedInstanceType"].as_str() {
        differences.same("type", cheapest.map(|(one, _)| &*one.name), Some(wanted));
    }
    if let Some(least) = case["expectedMinInstanceTypes"].as_u64() {
        let types = got.claims.first().map_or(0, |claim| claim.types.len() as u64);
        differences.holds(types >= least, || format!("{types} types, wanted {least}"));
    }
    if let Some(part) = case["expectedErrorContains"].as_str() {
        for (_, why) in &got.unschedulable {
            differences.holds(why.to_string().contains(part), || format!("{why} does not contain {part}"));
        }
        differences.holds(!got.unschedulable.is_empty(), || "nothing failed".to_owned());
    }
    if case["expectedClaims"].is_array() {
        differences.same("claims", claims(got), read(&case["expectedClaims"]));
    }
    for claim in &got.claims {
        of_all_types(&case["expectedAllTypes"], claim, well_known, differences);
    }
}

/// A claim as cases word it: pods by their places, and the names of instance types, each in order.
#[derive(Deserialize, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WordedClaim {
    pods: Vec<usize>,
    types: Vec<String>,
}

fn claims(got: &Packing) -> Vec<WordedClaim> {
    let worded = |claim: &Claim| {
        let mut pods = claim.pods.clone();
        let mut types: Vec<_> = claim.types.iter().map(|one| one.name.to_string()).collect();
        pods.sort_unstable();
        types.sort_unstable();
        WordedClaim { pods, types }
    };
    let mut claims: Vec<_> = got.claims.iter().map(worded).collect();
    claims.sort();
    claims
}

fn of_all_types(wanted: &Value, claim: &Claim, well_known: &WellKnownLabels, differences: &mut Differences) {
    let labels: BTreeMap<String, String> = read(&wanted["labels"]);
    for one in &claim.types {
        for (key, value) in &labels {
            differences.holds(has(one, key, value), || format!("{} has no {key}={value}", one.name));
        }
        if let (Some(capacity_type), Some(zone)) =
            (wanted["offering"]["capacityType"].as_str(), wanted["offering"]["zone"].as_str())
        {
            let terms = terms_of(capacity_type, zone);
            let offered = one.available(&terms, well_known).next().is_some();
            differences.holds(offered, || format!("{} is not to be had {terms}", one.name));
        }
        if wanted["capacityAboveRequestsPlusOverhead"] == true {
            let mut needed = claim.requests.clone();
            needed.add(&one.overhead);
            let above = needed.cpu < one.capacity.cpu && needed.memory < one.capacity.memory;
            differences.holds(above, || format!("{} has no room", one.name));
        }
    }
}
