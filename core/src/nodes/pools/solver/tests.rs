//! Solutions, each feature by a case, and all together before a judge who reads the pods' own words.

mod devices;
mod judge;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity,
        PodAffinityTerm, PodAntiAffinity, PreferredSchedulingTerm, Taint, Toleration,
        TopologySpreadConstraint, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::*;
use crate::{
    nodes::{
        pools::{
            instance_type::Offering,
            requirements::{
                Operator, Requirement,
                labels::{
                    ARCH, CAPACITY_TYPE, HOSTNAME, INSTANCE_TYPE, NODE_POOL, ON_DEMAND, OS, SPOT, ZONE,
                },
            },
            testing::{ZONES, offerings},
        },
        told::Learned,
    },
    scheduling::{
        Declared, Node, Surroundings,
        devices::{DeviceClass, ExtendedRequest, Objects},
        pod::{HostPort, Shape, Traits},
    },
};

/// So many cores at a dollar each, half of that on spot, in every zone; 2 GiB and ten pods a core.
fn instance_type(cores: i64, arch: &str) -> Arc<InstanceType> {
    let name = format!("{arch}-{cores}");
    let requirements = Requirements::from_iter([
        Requirement::is(INSTANCE_TYPE, &name),
        Requirement::is(ARCH, arch),
        Requirement::new(OS, Operator::In, ["linux", "windows"]),
        Requirement::new(ZONE, Operator::In, ZONES),
        Requirement::new(CAPACITY_TYPE, Operator::In, [SPOT, ON_DEMAND]),
    ]);
    let capacity =
        Resources { cpu: cores * 1_000, memory: cores << 31, pods: cores * 10, ..Resources::default() };
    Arc::new(InstanceType::new(&name, requirements, capacity, Resources::default(), offerings(cores)))
}

fn types() -> Vec<Arc<InstanceType>> {
    [1, 2, 4, 8]
        .into_iter()
        .flat_map(|cores| [instance_type(cores, "amd64"), instance_type(cores, "arm64")])
        .collect()
}

fn pool<'a>(name: &str, types: &'a [Arc<InstanceType>]) -> Pool<'a> {
    Pool {
        name: name.into(),
        weight: 0,
        requirements: Requirements::from_iter([Requirement::is("team", name)]),
        taints: Vec::new(),
        types,
        daemons: &[],
        remaining: BTreeMap::new(),
        told: Told::default(),
        outfits: None,
    }
}

/// A pod of so many thousandths of a core, labelled `app=APP`.
fn with(mut shape: Shape, change: impl FnOnce(&mut Traits)) -> Shape {
    change(&mut shape);
    shape
}

fn shape(app: &str, cpu: i64) -> Shape {
    let requests = Resources { cpu, memory: 1 << 20, pods: 1, ..Resources::default() };
    let labels = [("app".to_owned(), app.to_owned())].into();
    Shape::new(requests, Traits { namespace: "default".into(), labels, ..Traits::default() })
}

fn pods(shape: Shape, count: usize) -> Vec<Pod> {
    let shape = Arc::new(shape);
    (0..count).map(|_| Pod { shape: shape.clone(), ..Pod::default() }).collect()
}

fn selector(app: &str) -> LabelSelector {
    let match_labels = Some([("app".to_owned(), app.to_owned())].into());
    LabelSelector { match_labels, ..LabelSelector::default() }
}

fn spread(app: &str, key: &str, max_skew: i32, unless: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew,
        topology_key: key.to_owned(),
        when_unsatisfiable: unless.to_owned(),
        label_selector: Some(selector(app)),
        ..TopologySpreadConstraint::default()
    }
}

fn term(app: &str, key: &str) -> PodAffinityTerm {
    PodAffinityTerm {
        label_selector: Some(selector(app)),
        topology_key: key.to_owned(),
        ..PodAffinityTerm::default()
    }
}

fn near(app: &str, key: &str) -> Box<Affinity> {
    let pod_affinity = PodAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![term(app, key)]),
        ..PodAffinity::default()
    };
    Box::new(Affinity { pod_affinity: Some(pod_affinity), ..Affinity::default() })
}

fn apart(app: &str, key: &str) -> Box<Affinity> {
    let pod_anti_affinity = PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![term(app, key)]),
        ..PodAntiAffinity::default()
    };
    Box::new(Affinity { pod_anti_affinity: Some(pod_anti_affinity), ..Affinity::default() })
}

fn one_of(key: &str, values: &[&str]) -> NodeSelectorTerm {
    let expression = NodeSelectorRequirement {
        key: key.to_owned(),
        operator: "In".to_owned(),
        values: Some(values.iter().map(ToString::to_string).collect()),
    };
    NodeSelectorTerm { match_expressions: Some(vec![expression]), ..NodeSelectorTerm::default() }
}

fn on(terms: Vec<NodeSelectorTerm>, preferred: Option<NodeSelectorTerm>) -> Box<Affinity> {
    let required = (!terms.is_empty()).then_some(NodeSelector { node_selector_terms: terms });
    let preferred = preferred.map(|preference| vec![PreferredSchedulingTerm { weight: 1, preference }]);
    let node_affinity = NodeAffinity {
        required_during_scheduling_ignored_during_execution: required,
        preferred_during_scheduling_ignored_during_execution: preferred,
    };
    Box::new(Affinity { node_affinity: Some(node_affinity), ..Affinity::default() })
}

/// The cheapest instance type and the number of pods of each claim.
fn summary(solution: &Solution) -> Vec<String> {
    let claim = |claim: &Claim| format!("{} {}", claim.types[0].name, claim.pods.len());
    solution.claims.iter().map(claim).collect()
}

fn solved(pools: &[Pool<'_>], pods: &[Pod]) -> Solution {
    let solution = solve(&mut Snapshot::default(), pools, pods, Options::default());
    judge::judge(pools, pods, &solution).unwrap();
    solution
}

/// Name, pods and how many, claims, and of what key each pod's claim has how many values on the whole.
type Case = (&'static str, Shape, usize, usize, Option<&'static str>, usize);

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn pods_share_nodes_as_their_rules_allow() {
    let types = types();
    let pool = pool("default", &types);
    let zone = Some(ZONE);
    let cases: [Case; 12] = [
        ("together", shape("a", 1_000), 8, 1, None, 1),
        ("at most the largest", shape("a", 1_000), 9, 2, None, 1),
        (
            "spread over zones",
            with(shape("a", 100), |shape| shape.spread = vec![spread("a", ZONE, 1, "DoNotSchedule")]),
            6,
            3,
            zone,
            3,
        ),
        (
            "spread over nodes",
            with(shape("a", 100), |shape| shape.spread = vec![spread("a", HOSTNAME, 1, "DoNotSchedule")]),
            4,
            4,
            None,
            1,
        ),
        (
            "two on a node",
            with(shape("a", 100), |shape| shape.spread = vec![spread("a", HOSTNAME, 2, "DoNotSchedule")]),
            4,
            2,
            None,
            1,
        ),
        (
            "spread of others",
            with(shape("a", 100), |shape| shape.spread = vec![spread("b", HOSTNAME, 1, "DoNotSchedule")]),
            4,
            1,
            None,
            1,
        ),
        (
            "spread over what they may have",
            with(shape("a", 100), |shape| {
                shape.spread = vec![spread("a", ZONE, 1, "DoNotSchedule")];
                shape.affinity = Some(on(vec![one_of(ZONE, &["zone-1", "zone-2"])], None));
            }),
            6,
            2,
            zone,
            2,
        ),
        (
            "spread among two architectures",
            with(shape("a", 100), |shape| {
                shape.spread = vec![spread("a", ZONE, 1, "DoNotSchedule")];
                shape.affinity = Some(on(vec![one_of(ARCH, &["amd64", "arm64"])], None));
            }),
            6,
            3,
            zone,
            3,
        ),
        (
            "near each other",
            with(shape("a", 3_000), |shape| shape.affinity = Some(near("a", ZONE))),
            4,
            2,
            zone,
            1,
        ),
        (
            "near each other on a node",
            with(shape("a", 100), |shape| shape.affinity = Some(near("a", HOSTNAME))),
            4,
            1,
            None,
            1,
        ),
        (
            "apart on nodes",
            with(shape("a", 100), |shape| shape.affinity = Some(apart("a", HOSTNAME))),
            4,
            4,
            None,
            1,
        ),
        (
            "apart in zones",
            with(shape("a", 100), |shape| shape.affinity = Some(apart("a", ZONE))),
            3,
            3,
            zone,
            3,
        ),
    ];
    for (name, shape, count, claims, key, domains) in cases {
        let solution = solved(std::slice::from_ref(&pool), &pods(shape, count));
        assert_eq!(solution.failures, [], "{name}");
        assert_eq!(solution.claims.len(), claims, "{name}: {:?}", summary(&solution));
        if let Some(key) = key {
            let mut values: Vec<_> =
                solution.claims.iter().map(|claim| claim.requirements.get(key)).collect();
            values.dedup();
            assert!(values.iter().all(|value| value.is_some_and(|value| value.len() == 1)), "{name}");
            assert_eq!(values.len(), domains, "{name}");
        }
    }
}

#[test]
fn pods_are_spread_over_what_a_provider_tells_apart() {
    const PART: &str = "provider.test/part";
    let parts = |one: &Arc<InstanceType>| {
        let mut one = InstanceType::clone(one);
        one.requirements.add(Requirement::new(PART, Operator::In, ["1", "2", "3"]));
        let part = |offering: &Offering, part: &str| {
            let mut offering = offering.clone();
            offering.requirements.add(Requirement::is(PART, part));
            offering
        };
        one.offerings =
            one.offerings.iter().flat_map(|all| ["1", "2", "3"].map(|of| part(all, of))).collect();
        Arc::new(one)
    };
    let types: Vec<_> = types().iter().map(parts).collect();
    let rule = vec![spread("a", PART, 1, "DoNotSchedule")];
    let pods = pods(with(shape("a", 100), |shape| shape.spread = rule), 6);
    let options = Options { well_known: WellKnownLabels::default().with([PART]), ..Options::default() };
    let solution = solve(&mut Snapshot::default(), &[pool("default", &types)], &pods, options);
    assert_eq!(solution.failures, []);
    let part = |claim: &Claim| claim.requirements.get(PART).and_then(Requirement::any);
    let seen: BTreeSet<_> = solution.claims.iter().map(part).collect();
    assert_eq!((solution.claims.len(), seen.len()), (3, 3), "{:?}", summary(&solution));
}

#[test]
fn who_fits_nowhere_is_told_why() {
    let types = types();
    let plain = pool("default", &types);
    let tainted = Pool { taints: vec![taint("NoSchedule")], ..plain.clone() };
    let none_left = Pool { remaining: [("nodes".into(), 0)].into(), ..plain.clone() };
    let no_cpu = Pool { remaining: [("cpu".into(), 500)].into(), ..plain.clone() };
    for (pool, shape, wanted) in [
        (&tainted, shape("a", 100), "did not tolerate taint (taint=dedicated=x:NoSchedule)"),
        (&none_left, shape("a", 100), "node limits have been exhausted for nodepool"),
        (&no_cpu, shape("a", 100), "all available instance types exceed limits for nodepool"),
        (
            &plain,
            with(shape("a", 100), |shape| shape.affinity = Some(near("b", ZONE))),
            "unsatisfiable topology constraint, key=topology.kubernetes.io/zone",
        ),
        (
            &plain,
            shape("a", 9_000),
            "no instance type has enough resources, requirements=team In [default], resources={\"cpu\":\"9\",\"memory\":\"1048576\",\"pods\":\"1\"}",
        ),
        (
            &plain,
            with(shape("a", 100), |shape| {
                shape.node_selector = [("disk".to_owned(), "ssd".to_owned())].into();
            }),
            "incompatible requirements, label \"disk\" does not have known values",
        ),
    ] {
        let solution = solved(std::slice::from_ref(pool), &pods(shape, 1));
        assert_eq!(solution.claims, []);
        assert_eq!(solution.failures[0].reasons[0].1.to_string(), wanted);
    }
}

fn taint(effect: &str) -> Taint {
    Taint {
        key: "dedicated".to_owned(),
        value: Some("x".to_owned()),
        effect: effect.to_owned(),
        ..Taint::default()
    }
}

#[test]
fn preferences_count_until_they_cannot_be_met() {
    let types = types();
    let plain = pool("default", &types);
    let avoided = Pool { taints: vec![taint("PreferNoSchedule")], ..pool("avoided", &types) };
    let preferring =
        with(shape("a", 100), |shape| shape.affinity = Some(on(Vec::new(), Some(one_of(ZONE, &["zone-2"])))));
    let dreaming =
        with(shape("a", 100), |shape| shape.affinity = Some(on(Vec::new(), Some(one_of(ZONE, &["zone-9"])))));
    let either = on(vec![one_of(ZONE, &["zone-9"]), one_of(ZONE, &["zone-3"])], None);
    let either = with(shape("a", 100), |shape| shape.affinity = Some(either));
    let weighted = WeightedPodAffinityTerm { weight: 1, pod_affinity_term: term("a", HOSTNAME) };
    let anti = PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(vec![weighted]),
        ..PodAntiAffinity::default()
    };
    let anti = Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() };
    let lonely = with(shape("a", 100), |shape| shape.affinity = Some(Box::new(anti)));
    let anyway =
        with(shape("a", 100), |shape| shape.spread = vec![spread("a", HOSTNAME, 1, "ScheduleAnyway")]);
    let limited = Pool { remaining: [("nodes".into(), 2)].into(), ..plain.clone() };
    for (name, pool, shape, ignored, claims, zone) in [
        ("met", &plain, &preferring, false, 1, Some("zone-2")),
        ("ignored", &plain, &preferring, true, 1, None),
        ("cannot be met", &plain, &dreaming, false, 1, None),
        ("the second alternative", &plain, &either, false, 1, Some("zone-3")),
        ("apart if possible", &plain, &lonely, false, 4, None),
        ("apart as long as possible", &limited, &lonely, false, 2, None),
        ("together if it does not count", &plain, &lonely, true, 1, None),
        ("spread if possible", &plain, &anyway, false, 4, None),
        ("avoided, but all there is", &avoided, &anyway, true, 1, None),
    ] {
        let preferences = if ignored { Preferences::Ignore } else { Preferences::Respect };
        let options = Options { preferences, ..Options::default() };
        let pods = pods(shape.clone(), 4);
        let solution = solve(&mut Snapshot::default(), std::slice::from_ref(pool), &pods, options);
        assert_eq!(solution.failures, [], "{name}");
        assert_eq!(solution.claims.len(), claims, "{name}");
        if let Some(zone) = zone {
            assert_eq!(
                solution.claims[0].requirements.get(ZONE),
                Some(&Requirement::is(ZONE, zone)),
                "{name}"
            );
        }
    }
    let both = [plain.clone(), Pool { weight: 10, ..avoided }];
    assert_eq!(&*solved(&both, &pods(shape("a", 100), 1)).claims[0].pool, "default");
}

#[test]
fn what_cannot_be_had_together_is_kept_apart() {
    let types = types();
    let pool = pool("default", &types);
    let os = |os: &str| {
        with(shape(os, 100), |shape| shape.node_selector = [(OS.to_owned(), os.to_owned())].into())
    };
    let mixed = [pods(os("linux"), 2), pods(os("windows"), 2)].concat();
    assert_eq!(solved(std::slice::from_ref(&pool), &mixed).claims.len(), 2);
    let port = HostPort { ip: "".into(), protocol: "TCP".into(), port: 80 };
    let serving = with(shape("a", 100), |shape| shape.ports = vec![port]);
    assert_eq!(solved(std::slice::from_ref(&pool), &pods(serving.clone(), 3)).claims.len(), 3);
    let daemons = pods(serving.clone(), 1);
    let pool = Pool { daemons: &daemons, ..pool };
    assert_eq!(solved(std::slice::from_ref(&pool), &pods(serving, 3)).failures.len(), 3);
    // A daemon of a tenth of a core leaves no room for a pod of a whole one beside it.
    assert_eq!(summary(&solved(&[pool], &pods(shape("a", 1_000), 1))), ["amd64-2 1"]);
}

#[test]
fn pools_are_taken_by_weight_then_by_name() {
    let types = types();
    let pools = [
        pool("a", &types),
        pool("b", &types),
        Pool { weight: 1, remaining: [("nodes".into(), 1)].into(), ..pool("c", &types) },
    ];
    let solution = solved(&pools, &pods(shape("a", 8_000), 3));
    let taken: Vec<&str> = solution.claims.iter().map(|claim| &*claim.pool).collect();
    assert_eq!(taken, ["c", "b", "b"]);
}

#[test]
fn limits_count_the_most_that_a_claim_may_turn_out_to_have() {
    let types = types();
    // The first claim may become eight cores; then seven are left, and the second is of four at most.
    let limited = Pool { remaining: [("cpu".into(), 15_000)].into(), ..pool("default", &types) };
    let apart = with(shape("a", 100), |shape| shape.affinity = Some(apart("a", HOSTNAME)));
    let solution = solved(&[limited], &pods(apart, 5));
    assert_eq!(solution.claims.len(), 4);
    let largest: Vec<i64> = solution
        .claims
        .iter()
        .map(|claim| claim.types.iter().map(|it| it.capacity.cpu).max().unwrap() / 1_000)
        .collect();
    assert_eq!(largest, [8, 4, 2, 1]);
}

#[test]
fn some_choice_is_kept_or_done_without() {
    let types = types();
    let choice = Requirement::exists(INSTANCE_TYPE).with_min_values(Some(3));
    let pool = Pool { requirements: Requirements::from_iter([choice]), ..pool("default", &types) };
    // Three types have four cores and more than... two do: of three there have to be two cores at least.
    let solution = solved(std::slice::from_ref(&pool), &pods(shape("a", 2_000), 5));
    assert!(solution.claims.iter().all(|claim| claim.types.len() >= 3));
    let strict = solved(std::slice::from_ref(&pool), &pods(shape("a", 5_000), 1));
    assert_eq!(strict.failures.len(), 1);
    let options = Options { min_values: MinValuesPolicy::BestEffort, ..Options::default() };
    let solution = solve(&mut Snapshot::default(), &[pool], &pods(shape("a", 5_000), 1), options);
    assert_eq!(solution.claims[0].requirements.get(INSTANCE_TYPE).unwrap().min_values(), Some(2));
}

#[test]
fn nodes_that_are_there_come_first() {
    let types = types();
    let pool = pool("default", &types);
    let mut snapshot = Snapshot::default();
    let labels =
        BTreeMap::from([(ZONE.to_owned(), "zone-1".to_owned()), (HOSTNAME.to_owned(), "old".to_owned())]);
    let allocatable = Resources { cpu: 2_000, memory: 1 << 40, pods: 10, ..Resources::default() };
    let node = snapshot.add_node(&Node { name: "old".into(), labels, allocatable, ..Node::default() });
    let spread = with(shape("a", 1_000), |shape| shape.spread = vec![spread("a", ZONE, 1, "DoNotSchedule")]);
    let solution = solve(&mut snapshot, &[pool], &pods(spread, 4), Options::default());
    assert_eq!(solution.placements[0], (0, Place::Node(node)));
    assert_eq!(solution.failures, []);
    // Of four pods each zone has one, and one has two: the node has room for both.
    let there = solution.placements.iter().filter(|(_, place)| *place == Place::Node(node)).count();
    assert_eq!((there, solution.claims.len()), (2, 2));
    assert_eq!(snapshot.node(node).pod_count(), 0);
}

/// Of the types that a pod finds one has two GPUs, which a `DeviceClass` may stand for, too.
#[test]
fn a_resource_that_a_type_offers_asks_for_no_device() {
    const GPU: &str = "example.com/gpu";
    let mut offering = (*instance_type(4, "amd64")).clone();
    offering.capacity.set(GPU, 2);
    let InstanceType { name, requirements, capacity, offerings, .. } = offering;
    let offering = InstanceType::new(&name, requirements, capacity, Resources::default(), offerings);
    let (offers, none) = ([types(), vec![Arc::new(offering)]].concat(), types());
    let mut asking = shape("a", 100);
    asking.requests.set(GPU, 1);
    asking.extended = [ExtendedRequest { name: "r".into(), resource: GPU.into(), count: 1 }].into();
    let asking = pods(asking, 3);
    let mut objects = Objects::default();
    let class = DeviceClass { extended_resource: Some(GPU.into()), ..DeviceClass::default() };
    objects.classes.insert("gpu".into(), Arc::new(class));
    let devices = Some(Arc::new(objects));
    let mut snapshot = Snapshot::new(Arc::new(Surroundings { devices, ..Surroundings::default() }));
    let solution = solve(&mut snapshot, &[pool("default", &offers)], &asking, Options::default());
    assert_eq!((solution.claims.len(), solution.failures.len()), (2, 0));
    let solution = solve(&mut snapshot, &[pool("default", &none)], &asking, Options::default());
    assert_eq!((solution.claims.len(), solution.failures.len()), (0, 3));
}

#[test]
fn no_second_node_is_made_for_what_the_first_had_not() {
    let types = types();
    let asking = pods(with(shape("a", 100), |traits| traits.features = ["Feature"].into()), 1);
    let after = |told: usize| {
        let node = |of: &Arc<InstanceType>| {
            let labels = [(NODE_POOL, "default"), (INSTANCE_TYPE, &of.name)];
            let said = Declared {
                features: Some(BTreeSet::new()),
                drivers: Some(BTreeSet::new()),
                ..Declared::default()
            };
            Arc::new(Node {
                labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                declared: Arc::new(said),
                ..Node::default()
            })
        };
        let nodes: Vec<_> = types.iter().take(told).map(node).collect();
        let mut memory = Learned::default();
        memory.learn(&nodes, &Surroundings::default(), Timestamp::UNIX_EPOCH);
        let pool = Pool { told: memory.of("default"), ..pool("default", &types) };
        solve(&mut Snapshot::default(), &[pool], &asking, Options::default())
    };
    assert_eq!(after(0).claims[0].types.len(), types.len());
    assert_eq!(after(1).claims[0].types.len(), types.len() - 1);
    let nowhere = after(3);
    assert!(nowhere.claims.is_empty());
    let why = nowhere.failures[0].to_string();
    assert!(why.contains("node(s) didn't match Pod's required features"), "{why}");
}

#[test]
fn a_rounding_error_makes_no_second_node() {
    // A type of twice the cores costs twice as much; in whole millionths, one more or one less than that.
    for error in [-0.000_000_4, 0.000_000_4] {
        let priced = |cores| {
            let mut it = (*instance_type(cores, "amd64")).clone();
            #[allow(clippy::cast_precision_loss, reason = "a few cores")]
            for offering in &mut it.offerings {
                offering.price = cores as f64 * (0.5 + error);
            }
            Arc::new(it)
        };
        let types = [1, 2].map(priced);
        let solution = solved(&[pool("default", &types)], &pods(shape("a", 1_000), 2));
        assert_eq!(solution.claims.len(), 1, "{error}");
    }
}

#[test]
fn the_same_pods_go_the_same_way() {
    let types = types();
    let pools = [pool("default", &types)];
    let mixed = [pods(shape("a", 700), 9), pods(shape("b", 1_300), 7), pods(shape("c", 200), 30)].concat();
    assert_eq!(solved(&pools, &mixed), solved(&pools, &mixed));
}

fn toleration() -> Toleration {
    Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }
}
