use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::nodes::pools::{
    cluster::Pool,
    instance_type::{Offering, Overlaid},
    requirements::labels::{INSTANCE_TYPE, NODE_POOL, ZONE},
    testing,
};

/// An overlay of what it requires, as `(label, operator, values)`, and of the rest of its spec.
fn overlay(name: &str, requirements: &[(&str, &str, &[&str])], mut spec: Value) -> Arc<NodeOverlay> {
    spec["requirements"] = requirements
        .iter()
        .map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values}))
        .collect();
    let object = json!({
        "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": {"name": name}, "spec": spec,
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

/// Pools of machines of 1 to 4 cores, a dollar a core, half of that on spot.
fn pools(names: &[&str]) -> Vec<Pool> {
    let small = |name: &&str| {
        let mut pool = testing::pool(name);
        pool.types.truncate(4);
        pool
    };
    names.iter().map(small).collect()
}

fn evaluated(overlays: &[Arc<NodeOverlay>], pools: &[Pool]) -> Evaluation {
    let offers: Vec<_> =
        pools.iter().map(|pool| Offers { pool: &pool.name, spec: &pool.spec, types: &pool.types }).collect();
    evaluate(overlays, &offers, &WellKnownLabels::default())
}

/// The on-demand price of machines of so many cores in a zone.
fn price(evaluation: &Evaluation, pool: &str, cores: usize, zone: &str) -> f64 {
    let is_meant =
        |offering: &&Offering| offering.zone() == Some(zone) && offering.capacity_type() == Some(ON_DEMAND);
    evaluation.types[pool][cores - 1].offerings.iter().find(is_meant).unwrap().price
}

const TWO_CORES: (&str, &str, &[&str]) = (INSTANCE_TYPE, "In", &["cores-02"]);

#[test]
fn a_price_is_set_or_moved_and_never_below_nothing() {
    for (spec, wanted) in [
        (json!({}), 2.0),
        (json!({"price": "0.5"}), 0.5),
        (json!({"price": "7"}), 7.0),
        (json!({"priceAdjustment": "+0.25"}), 2.25),
        (json!({"priceAdjustment": "-.25"}), 1.75),
        (json!({"priceAdjustment": "-3"}), 0.0),
        (json!({"priceAdjustment": "+50%"}), 3.0),
        (json!({"priceAdjustment": "-12.5%"}), 1.75),
        (json!({"priceAdjustment": "-100%"}), 0.0),
    ] {
        let evaluation = evaluated(&[overlay("a", &[TWO_CORES], spec.clone())], &pools(&["general"]));
        assert_eq!(evaluation.problems, BTreeMap::new());
        let found = price(&evaluation, "general", 2, "zone-1");
        assert!((found - wanted).abs() < 1e-12, "{spec}: {found}");
        assert!((price(&evaluation, "general", 3, "zone-1") - 3.0).abs() < f64::EPSILON);
        let is_changed = spec != json!({});
        let overlaid = evaluation.types["general"][1].overlaid;
        assert_eq!(overlaid, Overlaid { price: is_changed, capacity: false }, "{spec}");
    }
}

#[test]
fn an_overlay_reaches_what_its_requirements_mean() {
    let mut pools = pools(&["general", "other"]);
    let labels = [("team".to_owned(), "blue".to_owned())];
    pools[1].spec.template.metadata.get_or_insert_default().labels = Some(labels.into());
    // How many offerings of the 24 of each pool.
    for (requirements, wanted) in [
        (&[][..], [24, 24]),
        (&[(ZONE, "In", &["zone-1"][..])], [8, 8]),
        (&[(ZONE, "NotIn", &["zone-1"])], [16, 16]),
        (&[(CAPACITY_TYPE, "In", &["spot"])], [12, 12]),
        (&[(CAPACITY_TYPE, "In", &["spot"]), (ZONE, "In", &["zone-1", "zone-2"])], [8, 8]),
        (&[(NODE_POOL, "In", &["other"])], [0, 24]),
        (&[("team", "In", &["blue"])], [0, 24]),
        (&[("team", "NotIn", &["blue"])], [24, 0]),
        (&[("team", "Exists", &[])], [0, 24]),
        (&[("nobody/has-it", "In", &["x"])], [0, 0]),
        (&[("nobody/has-it", "DoesNotExist", &[])], [24, 24]),
    ] {
        let evaluation = evaluated(&[overlay("a", requirements, json!({"price": "99"}))], &pools);
        let reached = |pool: &str| {
            let offerings = evaluation.types[pool].iter().flat_map(|one| &one.offerings);
            offerings.filter(|offering| (offering.price - 99.0).abs() < f64::EPSILON).count()
        };
        assert_eq!([reached("general"), reached("other")], wanted, "{requirements:?}");
    }
}

#[test]
fn resources_are_added_to_what_a_machine_has() {
    let spec = json!({"capacity": {"smarter-devices/fuse": "1", "hugepages-2Mi": "1Gi"}});
    let of_one_zone: (&str, &str, &[&str]) = (ZONE, "In", &["zone-1"]);
    let evaluation = evaluated(&[overlay("a", &[TWO_CORES, of_one_zone], spec)], &pools(&["general"]));
    let [one, two, ..] = &*evaluation.types["general"] else { panic!("{evaluation:?}") };
    assert_eq!(one, &testing::instance_type(1));
    assert_eq!(two.overlaid, Overlaid { price: false, capacity: true });
    assert_eq!(two.allocatable().get("smarter-devices/fuse"), 1);
    assert_eq!((two.capacity.memory, two.allocatable().memory), (2 << 32, (2 << 32) - (1 << 30)));
    assert_eq!(two.offerings, testing::offerings(2));
}

#[test]
fn the_greatest_weight_decides_each_price_and_each_resource() {
    let overlays = [
        overlay("light", &[], json!({"price": "1", "capacity": {"a/x": "1", "a/y": "1"}})),
        overlay("heavy", &[TWO_CORES], json!({"price": "9", "capacity": {"a/x": "9"}, "weight": 10})),
        overlay("middle", &[TWO_CORES], json!({"priceAdjustment": "+5", "weight": 5})),
    ];
    let evaluation = evaluated(&overlays, &pools(&["general"]));
    assert_eq!(evaluation.problems, BTreeMap::new());
    let prices = [1, 2, 3].map(|cores| price(&evaluation, "general", cores, "zone-2"));
    assert!(prices.iter().zip([1.0, 9.0, 1.0]).all(|(found, wanted)| (found - wanted).abs() < f64::EPSILON));
    let has = |cores: usize| {
        let capacity = &evaluation.types["general"][cores - 1].capacity;
        (capacity.get("a/x"), capacity.get("a/y"))
    };
    assert_eq!((has(1), has(2)), ((1, 1), (9, 1)));
}

#[test]
fn equals_that_decide_the_same_contradict_each_other() {
    type Table<'a> = (&'a str, &'a [(&'a str, &'a str, &'a [&'a str])], Value);
    let spot: (&str, &str, &[&str]) = (CAPACITY_TYPE, "In", &["spot"]);
    let on_demand: (&str, &str, &[&str]) = (CAPACITY_TYPE, "In", &["on-demand"]);
    let cases: [(&str, &[Table<'_>], &[&str]); 9] = [
        (
            "one price",
            &[("a", &[], json!({"price": "1"})), ("b", &[TWO_CORES], json!({"price": "2"}))],
            &["a"],
        ),
        ("even the same", &[("a", &[], json!({"price": "1"})), ("b", &[], json!({"price": "1"}))], &["a"]),
        (
            "no weight is none",
            &[("b", &[], json!({"price": "1", "weight": 1})), ("a", &[], json!({"price": "2"}))],
            &[],
        ),
        (
            "other offerings",
            &[("a", &[spot], json!({"price": "1"})), ("b", &[on_demand], json!({"price": "2"}))],
            &[],
        ),
        (
            "a price and a resource",
            &[("a", &[], json!({"price": "1"})), ("b", &[], json!({"capacity": {"a/x": "1"}}))],
            &[],
        ),
        (
            "other resources",
            &[("a", &[], json!({"capacity": {"a/y": "1"}})), ("b", &[], json!({"capacity": {"a/x": "1"}}))],
            &[],
        ),
        (
            "one resource, though by other offerings",
            &[
                ("a", &[spot], json!({"capacity": {"a/x": "1"}})),
                ("b", &[on_demand], json!({"capacity": {"a/x": "1"}})),
            ],
            &["a"],
        ),
        (
            "not only with the last",
            &[
                ("c", &[], json!({"capacity": {"a/x": "1"}})),
                ("b", &[], json!({"capacity": {"a/y": "1"}})),
                ("a", &[], json!({"capacity": {"a/x": "2"}})),
            ],
            &["a"],
        ),
        (
            "who does not hold stands in nobody's way",
            &[
                ("c", &[TWO_CORES], json!({"price": "1"})),
                ("b", &[], json!({"price": "2"})),
                ("a", &[(INSTANCE_TYPE, "In", &["cores-01"])], json!({"price": "3"})),
            ],
            &["b"],
        ),
    ];
    for (name, table, wanted) in cases {
        let overlays: Vec<_> = table.iter().map(|(name, of, spec)| overlay(name, of, spec.clone())).collect();
        let evaluation = evaluated(&overlays, &pools(&["general"]));
        let invalid: Vec<_> = evaluation.problems.keys().map(String::as_str).collect();
        assert_eq!(invalid, wanted, "{name}");
    }
}

#[test]
fn a_contradiction_in_one_pool_makes_an_overlay_void_in_all() {
    let overlays = [
        overlay("a", &[], json!({"price": "5", "weight": 3})),
        overlay("b", &[TWO_CORES, (NODE_POOL, "In", &["second"])], json!({"price": "6", "weight": 3})),
    ];
    let evaluation = evaluated(&overlays, &pools(&["second", "first"]));
    assert_eq!(
        evaluation.problems["a"].to_string(),
        "conflict with another overlay: \"b\" has the same weight, 3, and says the price of cores-02 in NodePool \"second\" \
         too; give one of them another weight"
    );
    let prices = [("first", 2), ("second", 2), ("second", 1)]
        .map(|(pool, cores)| price(&evaluation, pool, cores, "zone-1"));
    assert!(prices.iter().zip([2.0, 6.0, 1.0]).all(|(found, wanted)| (found - wanted).abs() < f64::EPSILON));
}

#[test]
fn what_cannot_be_meant_is_said() {
    for (requirement, spec, wanted) in [
        (
            None,
            json!({"price": "1", "priceAdjustment": "+1"}),
            "spec.price and spec.priceAdjustment are both set",
        ),
        (None, json!({"price": "cheap"}), "spec.price \"cheap\" is no price; write dollars an hour"),
        (None, json!({"price": "-1"}), "spec.price \"-1\" is no price"),
        (None, json!({"price": "inf"}), "spec.price \"inf\" is no price"),
        (None, json!({"priceAdjustment": "10%"}), "spec.priceAdjustment \"10%\" is no change of a price"),
        (None, json!({"priceAdjustment": "-101%"}), "spec.priceAdjustment \"-101%\" is no change"),
        (None, json!({"priceAdjustment": "+1e3"}), "spec.priceAdjustment \"+1e3\" is no change"),
        (None, json!({"capacity": {"cpu": "1"}}), "spec.capacity \"cpu\" is what the machine has"),
        (
            Some(("k", "Around", &["x"][..])),
            json!({}),
            "requirement \"k\": \"Around\" is no operator; write In,",
        ),
        (Some(("k", "In", &[])), json!({}), "requirement \"k\": operator In needs a value"),
        (Some(("k", "NotIn", &[])), json!({}), "requirement \"k\": operator NotIn needs a value"),
        (
            Some(("k", "Gt", &["-1"])),
            json!({}),
            "requirement \"k\": operator Gt needs one integer, not below zero",
        ),
        (Some(("k", "Lte", &["1", "2"])), json!({}), "requirement \"k\": operator Lte needs one integer"),
        (
            Some((CAPACITY_TYPE, "In", &["free"])),
            json!({}),
            "requirement \"karpenter.sh/capacity-type\": none of",
        ),
    ] {
        let requirements: Vec<_> = requirement.into_iter().collect();
        let evaluation = evaluated(&[overlay("a", &requirements, spec)], &pools(&["general"]));
        let found = evaluation.problems["a"].to_string();
        assert!(found.starts_with(wanted), "{found}");
        assert_eq!(evaluation.types["general"][1], testing::instance_type(2), "{found}");
    }
}

/// Overlays of any weight, of a few, that say anything about a few machines and zones.
fn any_overlays() -> impl Strategy<Value = Vec<Arc<NodeOverlay>>> {
    let price = prop_oneof![
        Just(json!({})),
        (0_u32..900).prop_map(|cents| json!({"price": format!("{}.{:02}", cents / 100, cents % 100)})),
        (-900_i32..900).prop_map(
            |hundredths| json!({"priceAdjustment": format!("{:+.2}", f64::from(hundredths) / 100.0)})
        ),
        (-99_i32..400).prop_map(|percent| json!({"priceAdjustment": format!("{percent:+}%")})),
    ];
    let zones = proptest::sample::subsequence(testing::ZONES.to_vec(), 1..=3);
    let types = proptest::sample::subsequence(vec!["cores-01", "cores-02", "cores-03", "cores-04"], 1..=4);
    let resource = proptest::option::of(("[ab]/[xy]", 1_u8..9));
    let one =
        (price, zones, types, resource, 0_i32..4).prop_map(|(mut spec, zones, types, resource, weight)| {
            if let Some((name, amount)) = resource {
                spec["capacity"] = json!({name: amount.to_string()});
            }
            if weight > 0 {
                spec["weight"] = json!(weight);
            }
            (spec, zones, types)
        });
    proptest::collection::vec(one, 0..8).prop_map(|all| {
        let named = all.into_iter().enumerate().map(|(at, (spec, zones, types))| {
            overlay(&format!("o{at}"), &[(ZONE, "In", &zones), (INSTANCE_TYPE, "In", &types)], spec)
        });
        named.collect()
    })
}

/// Whether an overlay means an offering, told from its text alone.
fn means(overlay: &NodeOverlay, name: &str, zone: &str) -> bool {
    overlay.spec.requirements.iter().all(|requirement| {
        let value = if requirement.key == ZONE { zone } else { name };
        requirement.values.iter().any(|one| one == value)
    })
}

fn weight(overlay: &NodeOverlay) -> i32 {
    overlay.spec.weight.unwrap_or(0)
}

proptest! {
    #[test]
    fn of_overlays_that_hold_the_heaviest_decides(overlays in any_overlays()) {
        let evaluation = evaluated(&overlays, &pools(&["general"]));
        let held: Vec<_> = overlays.iter().filter(|it| !evaluation.problems.contains_key(&it.name_any())).collect();
        for one in evaluation.types["general"].iter() {
            let before = testing::instance_type(one.name[6..].parse().unwrap());
            for (offering, before) in one.offerings.iter().zip(&before.offerings) {
                prop_assert!(offering.price >= 0.0);
                let zone = offering.zone().unwrap();
                let deciding = held.iter().filter(|it| {
                    means(it, &one.name, zone) && (it.spec.price.is_some() || it.spec.price_adjustment.is_some())
                });
                let heaviest = deciding.clone().map(|it| weight(it)).max();
                let heaviest: Vec<_> = deciding.filter(|it| Some(weight(it)) == heaviest).collect();
                prop_assert!(heaviest.len() <= 1, "two of one weight hold: {heaviest:?}");
                let wanted = match heaviest.first() {
                    Some(it) => PriceChange::read(&it.spec).unwrap().unwrap().apply(before.price),
                    None => before.price,
                };
                prop_assert!((offering.price - wanted).abs() < 1e-9, "{} is not {wanted}", offering.price);
            }
        }
    }

    #[test]
    fn the_order_in_which_overlays_and_pools_come_does_not_matter(
        (overlays, shuffled) in any_overlays().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        let straight = evaluated(&overlays, &pools(&["general", "other"]));
        prop_assert_eq!(straight, evaluated(&shuffled, &pools(&["other", "general"])));
    }

    #[test]
    fn who_does_not_hold_has_a_rival_that_does(overlays in any_overlays()) {
        let evaluation = evaluated(&overlays, &pools(&["general"]));
        for (name, problem) in &evaluation.problems {
            let Problem::Conflict { with, weight: of_both, .. } = problem else { panic!("{name}: {problem}") };
            prop_assert!(!evaluation.problems.contains_key(with), "{with} does not hold either");
            prop_assert!(with > name, "{with} comes first");
            let both = overlays.iter().filter(|it| [with, name].contains(&&it.name_any()));
            prop_assert!(both.clone().count() == 2 && both.clone().all(|it| weight(it) == *of_both));
        }
    }
}

#[test]
fn a_price_that_nobody_knows_is_not_made_nothing() {
    assert!(PriceChange::Percent(-50.0).apply(f64::NAN).is_nan());
}
