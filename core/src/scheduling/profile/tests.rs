use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::NodeAffinity, apimachinery::pkg::apis::meta::v1::LabelSelector};
use serde_json::{Value, json};

use super::*;
use crate::scheduling::{Node, Pod, Reason, Resources, Snapshot, pod::Owner};

/// A configuration with one profile.
fn with(profile: &Value) -> Value {
    json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": [profile]})
}

fn args(plugin: &str, args: &Value) -> Value {
    with(&json!({"pluginConfig": [{"name": plugin, "args": args}]}))
}

fn read(configuration: &Value) -> Configuration {
    Configuration::read(&configuration.to_string()).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn owner(api_version: &str, kind: &str) -> Owner {
    Owner { kind: kind.into(), name: "web".into(), uid: "".into(), api_version: api_version.into() }
}

/// Pods of the scheduler without a name of its own.
fn traits() -> Traits {
    Traits { scheduler: "default-scheduler".into(), namespace: "shop".into(), ..Traits::default() }
}

#[test]
fn the_like_of_a_pod_is_what_its_services_and_its_controller_select() {
    let selector = |value: Value| Arc::new(serde_json::from_value::<LabelSelector>(value).unwrap());
    let shop: Arc<str> = "shop".into();
    let services: Vec<_> =
        [&[("app", "web")][..], &[("app", "web"), ("tier", "front")], &[("app", "api")], &[]]
            .into_iter()
            .map(|pairs| Arc::new(labels(pairs)))
            .collect();
    let controllers = [
        (Controller::ReplicationController, json!({"matchLabels": {"app": "rc"}})),
        (
            Controller::ReplicaSet,
            json!({"matchLabels": {"hash": "1"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}),
        ),
        (Controller::StatefulSet, json!({"matchLabels": {"app": "web"}})),
    ];
    let controllers = controllers.map(|(kind, it)| ((kind, shop.clone(), "web".into()), selector(it)));
    let workloads = Workloads {
        services: [(shop.clone(), services)].into(),
        controllers: controllers.into_iter().collect(),
    };
    let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let table = [
        ("no label that a Service wants", &[("x", "y")][..], None, json!(null)),
        ("one Service", &[("app", "web"), ("x", "y")], None, json!({"matchLabels": {"app": "web"}})),
        (
            "two Services",
            &[("app", "web"), ("tier", "front")],
            None,
            json!({"matchLabels": {"app": "web", "tier": "front"}}),
        ),
        (
            "both hold",
            &[("app", "web")],
            Some(owner("apps/v1", "ReplicaSet")),
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [is("hash", "1"), {"key": "x", "operator": "Exists"}]}),
        ),
        (
            "no Service",
            &[],
            Some(owner("apps/v1", "StatefulSet")),
            json!({"matchExpressions": [is("app", "web")]}),
        ),
        (
            "its own labels are over those of Services",
            &[("app", "web")],
            Some(owner("v1", "ReplicationController")),
            json!({"matchLabels": {"app": "rc"}}),
        ),
        ("another group of the API", &[], Some(owner("extensions/v1beta1", "ReplicaSet")), json!(null)),
        ("a controller of another kind", &[], Some(owner("apps/v1", "DaemonSet")), json!(null)),
        (
            "a controller that is gone",
            &[],
            Some(Owner { name: "gone".into(), ..owner("apps/v1", "ReplicaSet") }),
            json!(null),
        ),
    ];
    for (name, own, owner, expected) in table {
        let traits = Traits { labels: labels(own), owner, ..traits() };
        let expected: Option<LabelSelector> = serde_json::from_value(expected).unwrap();
        assert_eq!(workloads.selector(&traits), expected, "{name}");
    }
    let elsewhere = Traits { namespace: "other".into(), labels: labels(&[("app", "web")]), ..traits() };
    assert_eq!(workloads.selector(&elsewhere), None);
}

#[test]
fn what_is_disabled_refuses_nobody_unless_it_is_enabled_again() {
    use Plugin::{NodeAffinity, NodePorts, TaintToleration};
    let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    let table = [
        (json!({}), [false; 3]),
        (json!({"multiPoint": {"disabled": named(&["NodePorts"])}}), [false, false, true]),
        (json!({"filter": {"disabled": named(&["NodePorts", "NodeAffinity"])}}), [false, true, true]),
        (json!({"multiPoint": {"disabled": named(&["*"])}}), [true; 3]),
        (
            json!({"multiPoint": {"disabled": named(&["*"]), "enabled": named(&["NodeAffinity"])}}),
            [true, false, true],
        ),
        (
            json!({"filter": {"disabled": named(&["*"]), "enabled": named(&["NodeAffinity"])}}),
            [true, false, true],
        ),
        (
            json!({"multiPoint": {"disabled": named(&["*"])}, "filter": {"enabled": named(&["NodePorts"])}}),
            [true, true, false],
        ),
        (
            json!({"multiPoint": {"enabled": named(&["NodePorts"])}, "filter": {"disabled": named(&["*"])}}),
            [true; 3],
        ),
        (json!({"score": {"disabled": named(&["*"])}, "preFilter": {"disabled": named(&["*"])}}), [false; 3]),
    ];
    for (plugins, expected) in table {
        let profile = read(&with(&json!({"plugins": plugins}))).profile;
        let missing = [TaintToleration, NodeAffinity, NodePorts].map(|plugin| profile.lacks(plugin));
        assert_eq!(missing, expected, "{plugins}");
    }
}

#[test]
fn what_cannot_be_simulated_is_named() {
    let mut configuration = with(&json!({"plugins": {
        "multiPoint": {"enabled": [{"name": "Coscheduling"}, {"name": "NodePorts"}]},
        "filter": {"enabled": [{"name": "Capacity"}, {"name": "Coscheduling"}]},
        "score": {"enabled": [{"name": "Trimaran"}]},
    }}));
    configuration["extenders"] = json!([
        {"urlPrefix": "http://a", "filterVerb": "filter", "managedResources": [{"name": "example.com/a", "ignoredByScheduler": true}, {"name": "example.com/b"}]},
        {"urlPrefix": "http://b", "prioritizeVerb": "prioritize"},
    ]);
    let Configuration { profile, unknown } = read(&configuration);
    assert_eq!(unknown, ["plugin Capacity", "plugin Coscheduling", "extender http://a"]);
    assert!(profile.ignores("example.com/a") && !profile.ignores("example.com/b"));
}

#[test]
fn only_foreign_resources_are_ignored() {
    let fit = json!({"ignoredResources": ["example.com/a", "cpu"], "ignoredResourceGroups": ["other.com"]});
    let profile = read(&args("NodeResourcesFit", &fit)).profile;
    for (resource, expected) in [
        ("example.com/a", true),
        ("example.com/b", false),
        ("other.com/b", true),
        ("sub.other.com/b", false),
        ("cpu", false),
    ] {
        assert_eq!(profile.ignores(resource), expected, "{resource}");
    }
}

#[expect(clippy::needless_pass_by_value, reason = "reads better")]
fn constraints(list: Value) -> Value {
    args("PodTopologySpread", &json!({"defaultingType": "List", "defaultConstraints": list}))
}

#[expect(clippy::needless_pass_by_value, reason = "reads better")]
fn required_terms(terms: Value) -> Value {
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    args("NodeAffinity", &json!({"addedAffinity": required}))
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let rule = |when: &str| json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when});
    let mut old = with(&json!({}));
    old["apiVersion"] = json!("kubescheduler.config.k8s.io/v1beta3");
    old["profiles"] = json!([{}, {}]);
    let table = [
        (json!("text"), vec!["document: it is \"text\", no mapping; write KEY: VALUE"]),
        (
            json!({}),
            vec!["apiVersion: it is missing; write kubescheduler", "kind: it is missing; write KubeSched"],
        ),
        (
            old,
            vec![
                "apiVersion: \"kubescheduler.config.k8s.io/v1beta3\" is not known; write",
                "profiles: there are 2, and",
            ],
        ),
        (
            constraints(json!([
                {"maxSkew": 0, "topologyKey": "a b", "whenUnsatisfiable": "Maybe", "labelSelector": {}},
            ])),
            vec![
                "[0].maxSkew: 0; write 1",
                "[0].topologyKey: \"a b\"",
                "[0].whenUnsatisfiable: \"Maybe\"",
                "[0].labelSelector: it is deduced",
            ],
        ),
        (
            constraints(json!([rule("DoNotSchedule"), rule("ScheduleAnyway"), rule("DoNotSchedule")])),
            vec!["[2].topologyKey: zone and DoNotSchedule are there twice; leave one out (the other is [0])"],
        ),
        (
            args("PodTopologySpread", &json!({"defaultConstraints": [rule("DoNotSchedule")]})),
            vec!["defaultConstraints: of the type System"],
        ),
        (
            args("PodTopologySpread", &json!({"defaultingType": "Some", "defaultConstraint": []})),
            vec![
                "args.defaultConstraint: there is no such field",
                "defaultingType: \"Some\"; write List or System",
            ],
        ),
        (required_terms(json!([])), vec!["nodeSelectorTerms: no term"]),
        (
            required_terms(json!([
                {"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "-", "operator": "Is"}]},
                {"matchFields": [{"key": "metadata.namespace", "operator": "In", "values": ["a"]}]},
            ])),
            vec![
                "[0].matchExpressions[0]: operator In with 0 values; write the values",
                "[1].key: \"-\"",
                "[1]: operator Is",
                "[1].matchFields[0]: metadata.namespace",
            ],
        ),
        (
            args(
                "NodeResourcesFit",
                &json!({"ignoredResources": ["a/b/c"], "ignoredResourceGroups": ["a/b"]}),
            ),
            vec!["ignoredResources[0]: \"a/b/c\"", "ignoredResourceGroups[0]: \"a/b\""],
        ),
        (with(&json!({"plugins": 3})), vec!["profiles[0]: invalid type"]),
    ];
    for (configuration, expected) in table {
        let Invalid(problems) = Configuration::read(&configuration.to_string()).unwrap_err();
        let said: Vec<_> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(said.len(), expected.len(), "{configuration}: {said:#?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.contains(expected), "{said} does not say {expected}");
        }
    }
    assert!(Configuration::read("{").unwrap_err().to_string().starts_with("document: no YAML"));
}

#[test]
fn karpenters_document_has_constraints_alone() {
    let document = |rule: &str| format!("podTopologySpread: {{defaultConstraints: [{rule}]}}");
    let rule = "{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}";
    let own = Configuration::read_constraints(&document(rule)).unwrap();
    assert!(own.profile.reads_workloads() && own.profile.is_of(&Traits::default()));
    assert_eq!(Configuration::read_constraints(" ").unwrap(), Configuration::default());
    for (wrong, said) in [
        ("nodeResourcesFit: {}", "nodeResourcesFit: there is no such field; there are podTopologySpread"),
        ("podTopologySpread: {constraints: []}", "podTopologySpread.constraints: there is no such field"),
        (
            &document(
                "{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, matchLabelKeys: [a]}",
            ),
            "[0].matchLabelKeys",
        ),
    ] {
        let error = Configuration::read_constraints(wrong).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let file = read(&with(&json!({"schedulerName": "mine"})));
    let both = file.clone().with_constraints(own.clone()).unwrap();
    assert!(both.profile.reads_workloads() && !both.profile.is_of(&traits()));
    assert_eq!(both.clone().with_constraints(own.clone()), Ok(both.clone()));
    let other = Configuration::read_constraints(&document(&rule.replace('1', "2"))).unwrap();
    both.with_constraints(other).unwrap_err();
}

/// Nodes with these labels, and a pod that asks for a core and a device, as this profile has it.
fn judge(configuration: &Value, nodes: &[&[(&str, &str)]], pod: &Pod) -> Vec<Result<(), Reason>> {
    let profile = Some(Arc::new(read(configuration).profile));
    let services = [("shop".into(), vec![Arc::new(labels(&[("app", "web")]))])].into();
    let workloads = Arc::new(Workloads { services, ..Workloads::default() });
    let mut snapshot =
        Snapshot::new(Arc::new(Surroundings { profile, workloads, ..Surroundings::default() }));
    let ids: Vec<_> = nodes
        .iter()
        .map(|own| {
            let allocatable = Resources { cpu: 1_000, pods: 9, ..Resources::default() };
            snapshot.add_node(&Node { labels: labels(own), allocatable, ready: true, ..Node::default() })
        })
        .collect();
    let class = snapshot.class(pod);
    snapshot.bind(class, ids[0]);
    ids.into_iter().map(|id| snapshot.check(class, id)).collect()
}

fn pod(requests: &[(&str, i64)], change: impl FnOnce(&mut Traits)) -> Pod {
    let mut all = Resources { pods: 1, ..Resources::default() };
    for (name, amount) in requests {
        all.set(name, *amount);
    }
    let mut traits = Traits { labels: labels(&[("app", "web")]), ..traits() };
    change(&mut traits);
    Pod { shape: Arc::new(Shape::new(all, traits)), ..Pod::default() }
}

#[test]
fn pods_of_the_scheduler_are_judged_by_the_profile_and_others_are_not() {
    let zones: [&[_]; 2] = [&[("zone", "a")], &[("zone", "b")]];
    let rule = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
    let spread = args("PodTopologySpread", &json!({"defaultingType": "List", "defaultConstraints": [rule]}));
    let one_of =
        |zone: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
    let required =
        json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [one_of("b")]}});
    let added = args("NodeAffinity", &json!({"addedAffinity": required}));
    let ignored = args("NodeResourcesFit", &json!({"ignoredResources": ["example.com/device"]}));
    let unfitted = with(&json!({"plugins": {"filter": {"disabled": [{"name": "NodeResourcesFit"}]}}}));
    let own: NodeAffinity = serde_json::from_value(required.clone()).unwrap();
    let wants_b = |traits: &mut Traits| {
        traits.affinity =
            Some(Box::new(Affinity { node_affinity: Some(own.clone()), ..Affinity::default() }));
    };
    let short = |name: &str| {
        Err(Reason::Insufficient { resources: [name.into()].into(), beyond_capacity: name != "cpu" })
    };
    let (device, cores) = ([("example.com/device", 1)], [("cpu", 600)]);
    let table = [
        ("spread by default", &spread, pod(&[], |_| {}), [Err(Reason::Spread), Ok(())]),
        ("not its like", &spread, pod(&[], |it| it.labels.clear()), [Ok(()), Ok(())]),
        ("affinity is added", &added, pod(&[], |_| {}), [Err(Reason::NodeAffinity), Ok(())]),
        ("to its own", &added, pod(&[], wants_b), [Err(Reason::NodeAffinity), Ok(())]),
        ("ignored", &ignored, pod(&device, |_| {}), [Ok(()), Ok(())]),
        (
            "not ignored",
            &added,
            pod(&device, |_| {}),
            [Err(Reason::NodeAffinity), short("example.com/device")],
        ),
        ("cores are not", &ignored, pod(&cores, |_| {}), [short("cpu"), Ok(())]),
        ("unless nothing is asked", &unfitted, pod(&cores, |_| {}), [Ok(()), Ok(())]),
    ];
    for (name, configuration, pod, expected) in table {
        assert_eq!(judge(configuration, &zones, &pod), expected, "{name}");
        let mut others = pod.clone();
        Arc::make_mut(&mut others.shape).scheduler = "another".into();
        let plain = judge(&with(&json!({})), &zones, &pod);
        assert_eq!(judge(configuration, &zones, &others), plain, "{name}, of another scheduler");
    }
}

#[test]
fn what_is_asked_of_a_new_node_is_what_the_pod_and_the_scheduler_ask() {
    let required = |zones: &[&str]| {
        let term =
            |zone: &&str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
        let terms: Vec<_> = zones.iter().map(term).collect();
        json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}})
    };
    let mut configuration = args("NodeAffinity", &json!({"addedAffinity": required(&["a", "b"])}));
    let profile = Some(Arc::new(read(&configuration).profile));
    let surroundings = Surroundings { profile, ..Surroundings::default() };
    let own: NodeAffinity = serde_json::from_value(required(&["c"])).unwrap();
    let pod = pod(&[("example.com/device", 1)], |traits| {
        traits.node_selector = labels(&[("disk", "ssd")]);
        traits.affinity = Some(Box::new(Affinity { node_affinity: Some(own), ..Affinity::default() }));
    });
    let asked = surroundings.as_asked(&pod.shape);
    let keys = |shape: &Shape| -> Vec<usize> {
        let terms = super::required(shape).unwrap_or_default();
        terms.iter().map(|term| term.match_expressions.iter().flatten().count()).collect()
    };
    assert_eq!(keys(&asked), [2, 2], "each of its terms with each that is added");
    assert_eq!(asked.requests, pod.shape.requests);
    let once = surroundings.with_defaults(&pod.shape.traits).into_owned();
    assert_eq!(surroundings.with_defaults(&once).as_ref(), &once, "twice makes no difference");

    let disabled = ["NodeAffinity", "NodeResourcesFit", "TaintToleration"].map(|name| json!({"name": name}));
    configuration["profiles"][0]["plugins"] = json!({"multiPoint": {"disabled": disabled}});
    let profile = Some(Arc::new(read(&configuration).profile));
    let asked = Surroundings { profile, ..Surroundings::default() };
    let asked = asked.as_asked(&pod.shape);
    assert!(asked.node_selector.is_empty() && keys(&asked).is_empty());
    assert_eq!((asked.requests.clone(), asked.tolerations.len()), (Resources::default(), 1));
}

#[test]
fn what_nothing_on_a_pod_tells_is_told() {
    let rule = json!({"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"});
    let spread = json!({"defaultingType": "List", "defaultConstraints": [rule]});
    let mut configuration = args("PodTopologySpread", &spread);
    let profile = &mut configuration["profiles"][0];
    let fit = json!({"name": "NodeResourcesFit", "args": {"ignoredResourceGroups": ["example.com"]}});
    profile["pluginConfig"].as_array_mut().unwrap().push(fit);
    profile["plugins"] = json!({"filter": {"disabled": [{"name": "NodePorts"}]}});
    let services = [("shop".into(), vec![Arc::new(labels(&[("app", "web")]))])].into();
    let workloads = Arc::new(Workloads { services, ..Workloads::default() });
    let profile = Some(Arc::new(read(&configuration).profile));
    let surroundings = Surroundings { profile, workloads, ..Surroundings::default() };
    assert_eq!(
        surroundings.unwritten(&pod(&[("example.com/device", 1)], |_| {})),
        [
            "topology spread by default over zone, maxSkew 2, ScheduleAnyway",
            "example.com/device need not be free",
            "the filter NodePorts is disabled",
        ]
    );
    assert_eq!(surroundings.unwritten(&pod(&[], |it| it.scheduler = "another".into())), [""; 0]);
}
