//! Plans, each feature by a case; the solver has its own tests.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
};
use kube::ResourceExt as _;
use proptest::prelude::*;

use super::*;
use crate::{
    api::karpenter::RequirementWithMinValues,
    nodes::buffer,
    nodes::pools::{
        launch::MinValuesPolicy,
        requirements::{
            Operator, Requirement,
            labels::{INSTANCE_TYPE, ZONE},
        },
        solver::Preferences,
        testing::{ZONES, add_node, claim, cluster, limit, pod, pool, spread, with},
    },
    scheduling::{
        pod::{HostPort, Owner, Scheduled},
        profile::{Configuration, Workloads},
        surroundings::{self, Surroundings},
    },
};

fn plan(cluster: &mut Cluster, pods: Vec<Pod>, options: Options) -> Plan {
    cluster.pods.extend(pods.into_iter().map(Arc::new));
    let pods = cluster.needy();
    provision(&Input { cluster, pods: &pods, options })
}

/// A node that has one of these values.
fn of_values(key: &str, values: &[&str]) -> NodeSelector {
    let values = Some(values.iter().map(|value| (*value).to_owned()).collect());
    let requirement = NodeSelectorRequirement { key: key.to_owned(), operator: "In".to_owned(), values };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), ..NodeSelectorTerm::default() };
    NodeSelector { node_selector_terms: vec![term] }
}

fn zones(plan: &Plan) -> Vec<String> {
    let zone = |claim: &Claim| claim.requirements.get(ZONE).map(ToString::to_string).unwrap_or_default();
    let mut zones: Vec<_> = plan.claims.iter().map(zone).collect();
    zones.sort();
    zones
}

fn reasons(plan: &Plan) -> Vec<String> {
    plan.unschedulable.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_that_are_spread_get_a_node_in_each_zone() {
    let mut cluster = cluster();
    let pods = (0..3).map(|number| {
        let pod = pod(&format!("web-{number}"), "web", 500);
        with(pod, |shape| shape.spread = vec![spread("web", ZONE, "DoNotSchedule")])
    });
    let plan = plan(&mut cluster, pods.collect(), Options::default());
    let wanted = ZONES.map(|zone| Requirement::is(ZONE, zone).to_string());
    assert_eq!(zones(&plan), wanted);
    assert_eq!(plan.unschedulable, []);
    assert_eq!(&*plan.claims[0].types[0].name, "cores-01", "cheapest first");
}

#[test]
fn pods_that_wait_are_told_by_the_zones_that_they_are_bound_to() {
    let mut cluster = cluster();
    let web = |name: &str| {
        with(pod(name, "web", 500), |shape| shape.spread = vec![spread("web", ZONE, "DoNotSchedule")])
    };
    for zone in &ZONES[..2] {
        add_node(&mut cluster, zone, 1, zone, vec![web(zone)]);
    }
    let affinity = Some(of_values(ZONE, &["zone-2"]));
    let volume = surroundings::Volume { node_affinity: affinity, ..surroundings::Volume::default() };
    let bound = surroundings::Claim { volume: Some("pv".into()), ..surroundings::Claim::default() };
    let mut surroundings = Surroundings::default();
    surroundings.volumes.insert("pv".into(), volume);
    surroundings.claims.insert(("default".into(), "data".into()), bound);
    cluster.surroundings = Arc::new(surroundings);
    let in_zone = |pod: Pod, zone: &str| {
        with(pod, |shape| _ = shape.node_selector.insert(ZONE.to_owned(), zone.to_owned()))
    };
    let of_volume = |name: &str| Pod { claims: vec!["data".into()], ..pod(name, "db", 600) };
    let waiting = vec![
        web("third"),
        in_zone(web("of-those-that-are-spread-over-one-zone"), "zone-1"),
        in_zone(pod("a", "a", 700), "zone-1"),
        of_volume("db"),
        in_zone(of_volume("not-where-its-volume-is"), "zone-1"),
        pod("anywhere", "b", 800),
        pod("anywhere-else", "c", 800),
        Pod { scheduled: Scheduled::NotTried, ..pod("only-expected", "d", 800) },
    ];
    cluster.pods.extend(waiting.iter().cloned().map(Arc::new));
    let pods: Vec<_> = waiting.into_iter().map(Arc::new).collect();
    let told = |tells_zones| {
        let options = Options { tells_zones, ..Options::default() };
        let plan = provision(&Input { cluster: &cluster, pods: &pods, options });
        plan.zones.iter().map(|(zone, count)| format!("{}: {count}", zone.label())).collect::<Vec<_>>()
    };
    assert_eq!(told(true), ["zone-1: 2", "zone-2: 1", "zone-3: 1", "flexible: 2", "none: 1"]);
    assert!(told(false).is_empty());
}

#[test]
fn nodes_that_are_there_come_before_those_on_their_way_and_these_before_new_ones() {
    let mut cluster = cluster();
    add_node(&mut cluster, "zz", 2, "zone-1", vec![pod("old", "old", 1_000)]);
    cluster.claims.push(Arc::new(claim("aa", 2, "zone-1", "on-demand")));
    let mut ended = claim("ended", 20, "zone-1", "on-demand");
    ended.metadata.deletion_timestamp = ended.metadata.creation_timestamp.clone();
    cluster.claims.push(Arc::new(ended));
    let pods = ["a", "b", "c"].map(|name| pod(name, "new", 1_000));
    let more = [pod("d", "new", 900)];
    let plan = plan(&mut cluster, pods.into_iter().chain(more).collect(), Options::default());
    let targets: Vec<String> = plan.nominations.iter().map(|(_, target)| target.to_string()).collect();
    assert_eq!(targets, ["nodeclaim/zz, node/zz", "nodeclaim/aa", "nodeclaim/aa"]);
    assert_eq!(plan.claims.len(), 1);
}

#[test]
fn who_wants_a_node_by_its_name_gets_no_new_one() {
    for (operator, wanted) in [("In", 0), ("NotIn", 1)] {
        let mut cluster = cluster();
        add_node(&mut cluster, "full", 1, "zone-1", vec![pod("old", "old", 1_000)]);
        let field = NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: operator.to_owned(),
            values: Some(vec!["full".to_owned()]),
        };
        let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
        let required = NodeSelector { node_selector_terms: vec![term] };
        let node_affinity = NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(required),
            ..NodeAffinity::default()
        };
        let affinity = Affinity { node_affinity: Some(node_affinity), ..Affinity::default() };
        let picky = with(pod("picky", "new", 500), |shape| shape.affinity = Some(Box::new(affinity)));
        let plan = plan(&mut cluster, vec![picky], Options::default());
        assert_eq!((plan.claims.len(), plan.unschedulable.len()), (wanted, 1 - wanted), "{operator}");
    }
}

#[test]
fn pods_of_nodes_that_go_need_room_elsewhere() {
    let mut cluster = cluster();
    add_node(&mut cluster, "goes", 4, "zone-1", vec![pod("moves", "old", 3_000)]);
    assert_eq!(cluster.needy(), []);
    cluster.leaving.insert("goes".into());
    let plan = plan(&mut cluster, vec![pod("waits", "new", 1_000)], Options::default());
    assert_eq!((plan.nominations.len(), plan.claims.len()), (0, 1));
    assert_eq!((&*plan.claims[0].types[0].name, plan.claims[0].pods.len()), ("cores-04", 2));
}

#[test]
fn daemon_sets_take_their_part_of_nodes_new_and_expected() {
    let mut cluster = cluster();
    let owner = |kind: &str| {
        Some(Owner { kind: kind.into(), name: "d".into(), uid: "d".into(), api_version: "apps/v1".into() })
    };
    let daemon = with(pod("d", "d", 500), |shape| shape.owner = owner("DaemonSet"));
    cluster.daemon_sets = vec![Arc::new(daemon.clone())];
    add_node(&mut cluster, "new", 1, "zone-1", vec![]);
    add_node(&mut cluster, "old", 1, "zone-1", vec![Pod { uid: "d-1".into(), ..daemon }]);
    cluster.claims.push(Arc::new(claim("soon", 1, "zone-1", "on-demand")));
    let plan =
        plan(&mut cluster, ["a", "b", "c", "d"].map(|name| pod(name, "a", 500)).into(), Options::default());
    let targets: Vec<String> = plan.nominations.iter().map(|(_, target)| target.to_string()).collect();
    assert_eq!(targets, ["nodeclaim/new, node/new", "nodeclaim/old, node/old", "nodeclaim/soon"]);
    assert_eq!(plan.claims[0].requests.cpu, 1_000);
    assert_eq!(&*plan.claims[0].types[0].name, "cores-01");
}

#[test]
fn pools_are_tried_by_weight_and_within_their_limits() {
    let mut cluster = cluster();
    let mut heavy = pool("heavy");
    heavy.spec.weight = Some(10);
    limit(&mut heavy, "cpu", "3");
    let mut off = pool("off");
    (off.spec.weight, off.is_usable) = (Some(99), false);
    let mut fixed = pool("static");
    (fixed.spec.weight, fixed.spec.replicas) = (Some(98), Some(1));
    cluster.pools.extend([heavy, off, fixed]);
    let pods = vec![pod("a", "a", 3_000), pod("b", "b", 3_000)];
    let plan = plan(&mut cluster, pods, Options::default());
    let pools: Vec<&str> = plan.claims.iter().map(|claim| &*claim.pool).collect();
    assert_eq!(pools, ["heavy", "general"]);
    assert_eq!(plan.claims[0].types.len(), 1, "no greater machine is within the limit");
}

#[test]
fn room_of_buffers_comes_after_all_pods() {
    let mut cluster = cluster();
    add_node(&mut cluster, "there", 4, "zone-1", vec![]);
    limit(&mut cluster.pools[0], "cpu", "8");
    let waiting = [pod("a", "web", 1_000), pod("b", "web", 3_000), pod("c", "web", 500)];
    cluster.pods.extend(waiting.map(Arc::new));
    let mut pods = cluster.needy();
    pods.extend(buffer::pods("ns", "spare", &pod("template", "spare", 3_500).shape, 3));
    let plan = provision(&Input { cluster: &cluster, pods: &pods, options: Options::default() });
    let nominated: Vec<_> = plan.nominations.iter().map(|(pod, _)| &*pods[*pod].name).collect();
    assert_eq!(nominated, ["b", "a"], "the greater pods of the buffer leave them their room");
    assert_eq!(plan.claims.len(), 1);
    assert_eq!(plan.claims[0].pods.iter().map(|pod| &*pods[*pod].name).next(), Some("c"));
    let placements = buffer::placements(&pods, &plan);
    let placement = buffer::Placement { there: 0, new: 1, nowhere: 2 };
    assert_eq!(placements.into_iter().collect::<Vec<_>>(), [("ns/spare".into(), placement)]);
}

/// Adds pods of a gang to a cluster that knows how many it takes.
fn gang(cluster: &mut Cluster, name: &str, needed: u32, cpus: &[i64]) -> Vec<Pod> {
    let surroundings = Arc::make_mut(&mut cluster.surroundings);
    surroundings.gangs.insert(("default".into(), name.into()), needed);
    let member = |(number, cpu): (usize, &i64)| Pod {
        gang: Some(name.into()),
        ..pod(&format!("{name}-{number}"), name, *cpu)
    };
    cpus.iter().enumerate().map(member).collect()
}

#[test]
#[allow(clippy::float_cmp, reason = "whole dollars are exact")]
fn a_pool_costs_what_its_machines_do() {
    let mut cluster = cluster();
    add_node(&mut cluster, "four", 4, "zone-1", vec![]);
    cluster.claims.push(Arc::new(claim("three", 3, "zone-2", "on-demand")));
    let mut unknown = claim("unknown", 2, "zone-2", "on-demand");
    unknown.labels_mut().remove(INSTANCE_TYPE);
    cluster.claims.push(Arc::new(unknown));
    cluster.pools.push(pool("idle"));
    let costs: Vec<_> = cluster.costs().into_iter().collect();
    assert_eq!(costs, [("general".into(), 7.0), ("idle".into(), 0.0)]);
}

#[test]
fn a_gang_gets_nodes_whole_or_not_at_all() {
    let mut cluster = cluster();
    limit(&mut cluster.pools[0], "cpu", "8");
    let mut pods = gang(&mut cluster, "train", 3, &[3_000, 3_000, 3_000]);
    pods.push(pod("web", "web", 1_000));
    let plan = plan(&mut cluster, pods, Options::default());
    let placed: Vec<usize> = plan.claims.iter().flat_map(|claim| claim.pods.clone()).collect();
    assert_eq!(placed, [3], "the others get what they need");
    let told = reasons(&plan);
    assert_eq!(told[..2], ["gang group train: 2 of 3 pods fit", "gang group train: 2 of 3 pods fit"]);
    assert!(
        told[2].starts_with("gang group train: 2 of 3 pods fit; incompatible with nodepool"),
        "{}",
        told[2]
    );
}

#[test]
fn members_that_run_count() {
    let mut cluster = cluster();
    let running = Pod { gang: Some("train".into()), ..pod("train-x", "train", 500) };
    add_node(&mut cluster, "there", 1, "zone-1", vec![running]);
    let pods = gang(&mut cluster, "train", 3, &[2_000, 2_000]);
    let plan = plan(&mut cluster, pods, Options::default());
    assert_eq!((plan.unschedulable.len(), plan.claims.iter().map(|claim| claim.pods.len()).sum()), (0, 2));
}

#[test]
fn what_cannot_be_had_is_said_pool_by_pool() {
    type Change = fn(&mut Cluster);
    let cases: [(&str, Change, Pod, &str); 5] = [
        (
            "limits",
            |cluster| limit(&mut cluster.pools[0], "cpu", "1"),
            pod("a", "a", 1_500),
            "incompatible with nodepool \"general\", all available instance types exceed limits for nodepool",
        ),
        (
            "nodes",
            |cluster| limit(&mut cluster.pools[0], "nodes", "0"),
            pod("a", "a", 1_500),
            "incompatible with nodepool \"general\", node limits have been exhausted for nodepool",
        ),
        (
            "no pool",
            |cluster| cluster.pools.clear(),
            pod("a", "a", 1_500),
            "there is no NodePool that is ready",
        ),
        (
            "labels",
            |_| (),
            with(pod("a", "a", 1), |shape| {
                shape.node_selector.insert(ZONE.to_owned(), "moon".to_owned());
            }),
            "incompatible with nodepool \"general\", no instance type met the scheduling requirements or had a required offering",
        ),
        (
            "claims that are not there",
            |_| (),
            Pod { claims: vec!["data".into()], ..pod("a", "a", 1) },
            "incompatible with nodepool \"general\", persistentvolumeclaim \"data\" not found",
        ),
    ];
    for (name, change, pod, wanted) in cases {
        let mut cluster = cluster();
        change(&mut cluster);
        let plan = plan(&mut cluster, vec![pod], Options::default());
        assert_eq!(plan.claims, [], "{name}");
        let got = reasons(&plan);
        assert!(got.len() == 1 && got[0].starts_with(wanted), "{name}: {got:?}");
    }
}

/// A cluster with a bound volume that is in a zone, by a label.
fn with_volume(key: &str, zone: &str) -> Cluster {
    let mut cluster = cluster();
    let affinity = serde_json::from_value(serde_json::json!({
        "nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": [zone]}]}]
    }));
    let volume = surroundings::Volume { node_affinity: affinity.unwrap(), ..Default::default() };
    let bound = surroundings::Claim { volume: Some("pv".into()), ..Default::default() };
    cluster.surroundings = Arc::new(surroundings::Surroundings {
        claims: BTreeMap::from([(("default".into(), "data".into()), bound)]),
        volumes: BTreeMap::from([("pv".into(), volume)]),
        ..Default::default()
    });
    cluster
}

#[test]
fn volumes_and_ports_decide_where() {
    let port = HostPort { ip: "".into(), protocol: "TCP".into(), port: 80 };
    let serving = |name: &str| with(pod(name, "web", 100), |shape| shape.ports = vec![port.clone()]);
    // The EBS driver's volumes know the zone by its own label.
    for key in [ZONE, "topology.ebs.csi.aws.com/zone"] {
        let with_data = Pod { claims: vec!["data".into()], ..pod("db", "db", 100) };
        let pods = vec![with_data, serving("a"), serving("b")];
        let plan = plan(&mut with_volume(key, "zone-3"), pods, Options::default());
        assert_eq!(plan.claims.len(), 2, "the ports keep two apart");
        let of_data = plan.claims.iter().find(|claim| claim.pods.contains(&0)).unwrap();
        let types = &of_data.types;
        assert!(of_data.requirements.allows(ZONE, "zone-3"), "{}", of_data.requirements);
        assert!(!of_data.requirements.allows(ZONE, "zone-1"), "{}", of_data.requirements);
        assert_eq!(&*types[0].name, "cores-01");
    }
}

#[test]
fn a_volume_finds_the_node_that_is_on_its_way() {
    for (zone, claims) in [("zone-1", 0), ("zone-3", 1)] {
        let mut cluster = with_volume("topology.ebs.csi.aws.com/zone", zone);
        cluster.claims.push(Arc::new(claim("soon", 4, "zone-1", "on-demand")));
        let with_data = Pod { claims: vec!["data".into()], ..pod("db", "db", 100) };
        let plan = plan(&mut cluster, vec![with_data], Options::default());
        assert_eq!((plan.claims.len(), plan.unschedulable.len()), (claims, 0), "{zone}");
    }
}

#[test]
fn preferences_are_respected_or_not() {
    for (preferences, claims) in [(Preferences::Respect, 3), (Preferences::Ignore, 1)] {
        let pods = (0..3).map(|number| {
            let pod = pod(&number.to_string(), "web", 100);
            with(pod, |shape| shape.spread = vec![spread("web", ZONE, "ScheduleAnyway")])
        });
        let options = Options { preferences, ..Options::default() };
        assert_eq!(plan(&mut cluster(), pods.collect(), options).claims.len(), claims, "{preferences:?}");
    }
}

/// A profile of the default scheduler, and a Service that selects `app=web`.
fn configured(profile: &serde_json::Value) -> Surroundings {
    let document = serde_json::json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": [profile],
    });
    let read = Configuration::read(&document.to_string()).unwrap();
    let web = Arc::new([("app".to_owned(), "web".to_owned())].into());
    let services = [("default".into(), vec![web])].into();
    let workloads = Arc::new(Workloads { services, ..Workloads::default() });
    Surroundings { profile: Some(Arc::new(read.profile)), workloads, ..Surroundings::default() }
}

#[test]
fn new_nodes_are_as_the_scheduler_is_configured() {
    use serde_json::json;
    let rule = |when: &str| {
        let rules = [json!({"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": when})];
        let args = json!({"defaultingType": "List", "defaultConstraints": rules});
        json!({"pluginConfig": [{"name": "PodTopologySpread", "args": args}]})
    };
    let added = |zones: &[&str]| {
        let term =
            |zone: &&str| json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]});
        let terms: Vec<_> = zones.iter().map(term).collect();
        let required =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        json!({"pluginConfig": [{"name": "NodeAffinity", "args": {"addedAffinity": required}}]})
    };
    let fit = json!({"pluginConfig": [{"name": "NodeResourcesFit", "args": {"ignoredResources": ["example.com/x"]}}]});
    let without = json!({"plugins": {"multiPoint": {"disabled": [{"name": "NodeAffinity"}]}}});
    let (respect, ignore) = (Preferences::Respect, Preferences::Ignore);
    let any = String::new();
    let only = |zone: &str| Requirement::is(ZONE, zone).to_string();
    let each: Vec<_> = ZONES.iter().map(|zone| only(zone)).collect();
    let nobody = BTreeMap::new();
    let moon = [(ZONE.to_owned(), "moon".to_owned())].into();
    let third = [(ZONE.to_owned(), "zone-3".to_owned())].into();
    let table = [
        ("plain", json!({}), respect, &nobody, Some(vec![any.clone()])),
        ("spread", rule("DoNotSchedule"), ignore, &nobody, Some(each.clone())),
        ("rather spread", rule("ScheduleAnyway"), respect, &nobody, Some(each)),
        ("or not", rule("ScheduleAnyway"), ignore, &nobody, Some(vec![any.clone()])),
        ("added", added(&["zone-2"]), respect, &nobody, Some(vec![only("zone-2")])),
        ("another way", added(&["moon", "zone-2", "zone-3"]), respect, &nobody, Some(vec![only("zone-2")])),
        ("beside its own", added(&["zone-2", "zone-3"]), respect, &third, Some(vec![only("zone-3")])),
        ("nowhere", added(&["moon"]), respect, &nobody, None),
        ("of no use", json!({}), respect, &moon, None),
        ("not even asked", without, respect, &moon, Some(vec![any.clone()])),
        ("ignored", fit, respect, &nobody, Some(vec![any])),
    ];
    for (name, profile, preferences, selector, expected) in table {
        let mut cluster = Cluster { surroundings: Arc::new(configured(&profile)), ..cluster() };
        let pods = (0..3).map(|number| {
            with(pod(&number.to_string(), "web", 100), |shape| {
                shape.scheduler = "default-scheduler".into();
                shape.node_selector.clone_from(selector);
                if name == "ignored" {
                    shape.requests.set("example.com/x", 1);
                }
            })
        });
        let options = Options { preferences, ..Options::default() };
        let plan = plan(&mut cluster, pods.collect(), options);
        let waiting = if expected.is_some() { 0 } else { 3 };
        assert_eq!(zones(&plan), expected.unwrap_or_default(), "{name}");
        assert_eq!(plan.unschedulable.len(), waiting, "{name}");
    }
}

#[test]
fn a_choice_that_cannot_be_had_makes_pods_wait_or_is_given_up() {
    for (min_values, wanted) in [(MinValuesPolicy::Strict, 0), (MinValuesPolicy::BestEffort, 1)] {
        let mut cluster = cluster();
        let mut names = RequirementWithMinValues::new(INSTANCE_TYPE, Operator::In, &["cores-01", "cores-02"]);
        names.min_values = Some(2);
        cluster.pools[0].spec.template.spec.requirements.push(names);
        let options = Options { min_values, ..Options::default() };
        let plan = plan(&mut cluster, vec![pod("a", "a", 1_500)], options);
        assert_eq!((plan.claims.len(), plan.unschedulable.len()), (wanted, 1 - wanted), "{min_values:?}");
    }
}

#[test]
fn a_claim_without_a_machine_counts_as_the_greatest_that_it_may_become() {
    let mut cluster = cluster();
    limit(&mut cluster.pools[0], "cpu", "24");
    let mut waiting = claim("waits", 20, "zone-1", "on-demand");
    waiting.status = None;
    waiting.spec.requirements =
        vec![RequirementWithMinValues::new(INSTANCE_TYPE, Operator::In, &["cores-04", "cores-20"])];
    waiting.labels_mut().remove(INSTANCE_TYPE);
    cluster.claims.push(Arc::new(waiting));
    let pods = vec![pod("a", "a", 4_000), pod("b", "b", 5_000)];
    let plan = plan(&mut cluster, pods, Options::default());
    assert_eq!(plan.nominations.len(), 1, "it may become one of four cores");
    assert_eq!(
        reasons(&plan),
        ["incompatible with nodepool \"general\", all available instance types exceed limits for nodepool"]
    );
}

proptest! {
    #[test]
    fn no_part_of_a_gang_gets_nodes(
        gangs in prop::collection::vec((1..5_u32, prop::collection::vec(500..6_000_i64, 1..5)), 1..4),
        (cores, there) in (0..20_i64, 0..6_i64),
    ) {
        let mut cluster = cluster();
        limit(&mut cluster.pools[0], "cpu", &cores.to_string());
        if there > 0 {
            add_node(&mut cluster, "there", there, "zone-1", vec![]);
        }
        let mut pods = Vec::new();
        for (name, (needed, cpus)) in ["a", "b", "c"].iter().zip(&gangs) {
            pods.extend(gang(&mut cluster, name, *needed, cpus));
        }
        let count = pods.len();
        let plan = plan(&mut cluster, pods, Options::default());
        let needy = cluster.needy();
        let mut placed: Vec<usize> = plan.nominations.iter().map(|(pod, _)| *pod).collect();
        placed.extend(plan.claims.iter().flat_map(|claim| &claim.pods));
        for (name, (needed, _)) in ["a", "b", "c"].iter().zip(&gangs) {
            let of_gang = placed.iter().filter(|pod| needy[**pod].gang.as_deref() == Some(*name)).count();
            prop_assert!(of_gang == 0 || of_gang >= *needed as usize, "{name}: {of_gang} of {needed}");
        }
        placed.extend(plan.unschedulable.iter().map(|failure| failure.pod));
        placed.sort_unstable();
        prop_assert_eq!(placed, (0..count).collect::<Vec<_>>(), "each is answered once");
    }

    #[test]
    fn limits_hold_and_every_pod_is_answered_once(
        cpus in prop::collection::vec(1i64..6_000, 0..20),
        nodes in prop::collection::vec((1i64..8, 0i64..4_000), 0..6),
        cores in 0i64..30,
        most_nodes in 0i64..8,
    ) {
        let mut cluster = cluster();
        limit(&mut cluster.pools[0], "cpu", &cores.to_string());
        limit(&mut cluster.pools[0], "nodes", &most_nodes.to_string());
        for (number, (cores, used)) in nodes.iter().enumerate() {
            let on_it = vec![pod(&format!("on-{number}"), "old", *used)];
            add_node(&mut cluster, &format!("node-{number}"), *cores, ZONES[number % 3], on_it);
        }
        let pods = cpus.iter().enumerate().map(|(number, cpu)| pod(&format!("p-{number}"), "new", *cpu));
        let plan = plan(&mut cluster, pods.collect(), Options::default());
        let mut answered: Vec<usize> = plan.nominations.iter().map(|(pod, _)| *pod).collect();
        answered.extend(plan.claims.iter().flat_map(|claim| &claim.pods));
        answered.extend(plan.unschedulable.iter().map(|failure| failure.pod));
        answered.sort_unstable();
        prop_assert_eq!(answered, (0..cpus.len()).collect::<Vec<_>>());
        if !plan.claims.is_empty() {
            let there: i64 = nodes.iter().map(|(cores, _)| cores * 1_000).sum();
            let most = |claim: &Claim| claim.types.iter().map(|it| it.capacity.cpu).max().unwrap_or(0);
            let more: i64 = plan.claims.iter().map(most).sum();
            prop_assert!(there + more <= cores * 1_000, "{} + {} > {}", there, more, cores * 1_000);
            prop_assert!(nodes.len() + plan.claims.len() <= usize::try_from(most_nodes).unwrap());
        }
        for claim in &plan.claims {
            let asked: i64 = claim.pods.iter().map(|pod| cpus[*pod]).sum();
            prop_assert!(claim.types.iter().all(|it| it.allocatable().cpu >= asked));
        }
    }
}
