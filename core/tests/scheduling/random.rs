//! Random small worlds, made of few names so that rules often meet.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity,
        PodAffinityTerm, PodAntiAffinity, Taint, Toleration, TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use tandem_core::scheduling::{
    Node, Pod, Resources, Surroundings,
    pod::{Disk, HostPort, Shape, Traits},
};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
const NODES: usize = 5;
const PODS: usize = 5;

/// What happens to a world.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Add(usize),
    Remove(usize),
    Bind(usize, usize),
    Unbind(usize, usize),
    Nominate(usize, usize),
    Find(usize),
}

/// Nodes, pods, and what happens to them; numbers in changes are places in the lists.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub(crate) nodes: Vec<Node>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) changes: Vec<Change>,
}

pub(crate) fn surroundings() -> Surroundings {
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    let namespaces = [("n1".into(), labels("x")), ("n2".into(), labels("y"))].into();
    Surroundings { namespaces, ..Surroundings::default() }
}

pub(crate) fn story() -> impl Strategy<Value = Story> {
    let nodes: Vec<_> = (0..NODES).map(node).collect();
    (nodes, vec(pod(), PODS), vec(change(), 0..40)).prop_map(|(nodes, pods, changes)| {
        let all = (0..NODES - 1).map(Change::Add).chain(changes).collect();
        Story { nodes, pods, changes: all }
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => (0..NODES).prop_map(Change::Add),
        1 => (0..NODES).prop_map(Change::Remove),
        6 => (0..PODS, 0..NODES).prop_map(|(pod, node)| Change::Bind(pod, node)),
        3 => (0..PODS, 0..NODES).prop_map(|(pod, node)| Change::Unbind(pod, node)),
        1 => (0..PODS, 0..NODES).prop_map(|(pod, node)| Change::Nominate(pod, node)),
        3 => (0..PODS).prop_map(Change::Find),
    ]
}

fn maybe(
    key: &'static str,
    values: &'static [&'static str],
) -> impl Strategy<Value = BTreeMap<String, String>> {
    option::weighted(0.7, select(values))
        .prop_map(move |value| value.map(|value| (key.to_owned(), value.to_owned())).into_iter().collect())
}

pub(crate) fn node(number: usize) -> impl Strategy<Value = Node> {
    let taint =
        (select(&["k1", "k2"][..]), select(&["1", "5"][..]), effect()).prop_map(|(key, value, effect)| {
            Taint {
                key: key.to_owned(),
                value: Some(value.to_owned()),
                effect: effect.to_owned(),
                time_added: None,
            }
        });
    let resources = (4..12_i64, 2..6_i64, option::of(0..3_i64)).prop_map(|(cpu, pods, devices)| {
        let other = devices.map(|devices| ("example.com/device".into(), devices)).into_iter().collect();
        Resources { cpu, pods, memory: 100, other, ..Resources::default() }
    });
    let labels = (maybe(ZONE, &["z1", "z2"]), maybe("size", &["1", "2", "3"]), maybe(HOST, &["x"]));
    let cordoned = prop::bool::weighted(0.1);
    (resources, labels, option::weighted(0.3, taint), cordoned).prop_map(
        move |(all, labels, taint, cordoned)| {
            let (mut labels, size, has_host) = labels;
            labels.extend(size);
            if !has_host.is_empty() {
                labels.insert(HOST.to_owned(), format!("node-{number}"));
            }
            Node {
                name: format!("node-{number}").into(),
                labels,
                taints: taint.into_iter().collect(),
                unschedulable: cordoned,
                allocatable: all,
                ..Node::default()
            }
        },
    )
}

fn effect() -> impl Strategy<Value = &'static str> {
    select(&["NoSchedule", "NoExecute", "PreferNoSchedule"][..])
}

fn text(texts: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    option::of(select(texts).prop_map(str::to_owned))
}

fn toleration() -> impl Strategy<Value = Toleration> {
    let operator = text(&["Exists", "Equal", "Lt", "Gt"]);
    (text(&["k1", "k2"]), operator, text(&["1", "3"]), text(&["NoSchedule", "NoExecute"])).prop_map(
        |(key, operator, value, effect)| Toleration {
            key,
            operator,
            value,
            effect,
            toleration_seconds: None,
        },
    )
}

fn label_selector() -> impl Strategy<Value = Option<LabelSelector>> {
    let operator = select(&["In", "NotIn", "Exists", "DoesNotExist"][..]);
    let expression =
        (select(&["app", "version"][..]), operator, vec(select(&["a", "b", "1", "2"][..]), 1..3)).prop_map(
            |(key, operator, values)| LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: Some(values.into_iter().map(str::to_owned).collect()),
            },
        );
    let selector = (maybe("app", &["a", "b"]), vec(expression, 0..2)).prop_map(|(labels, expressions)| {
        LabelSelector { match_labels: Some(labels), match_expressions: Some(expressions) }
    });
    option::weighted(0.9, selector)
}

fn keys() -> impl Strategy<Value = Option<Vec<String>>> {
    option::weighted(0.2, Just(vec!["version".to_owned()]))
}

fn spread() -> impl Strategy<Value = TopologySpreadConstraint> {
    let policy = || text(&["Honor", "Ignore"]);
    let shape =
        (1..3_i32, select(&[ZONE, HOST][..]), option::weighted(0.3, 1..4_i32), prop::bool::weighted(0.9));
    (shape, label_selector(), policy(), policy(), keys()).prop_map(
        |((max_skew, key, min_domains, hard), selector, node_affinity_policy, node_taints_policy, keys)| {
            TopologySpreadConstraint {
                max_skew,
                topology_key: key.to_owned(),
                min_domains,
                when_unsatisfiable: if hard { "DoNotSchedule" } else { "ScheduleAnyway" }.to_owned(),
                label_selector: selector,
                node_affinity_policy,
                node_taints_policy,
                match_label_keys: keys,
            }
        },
    )
}

fn term() -> impl Strategy<Value = PodAffinityTerm> {
    let namespaces = option::weighted(0.3, Just(vec!["n2".to_owned()]));
    let of_namespaces = option::weighted(
        0.3,
        maybe("team", &["x", "y"])
            .prop_map(|labels| LabelSelector { match_labels: Some(labels), match_expressions: None }),
    );
    (select(&[ZONE, HOST][..]), label_selector(), namespaces, of_namespaces, keys(), keys()).prop_map(
        |(key, label_selector, namespaces, namespace_selector, match_label_keys, mismatch_label_keys)| {
            PodAffinityTerm {
                topology_key: key.to_owned(),
                label_selector,
                namespaces,
                namespace_selector,
                match_label_keys,
                mismatch_label_keys,
            }
        },
    )
}

fn node_affinity() -> impl Strategy<Value = NodeAffinity> {
    let operator = select(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"][..]);
    let expression = (select(&["size", ZONE][..]), operator, select(&["1", "2", "z1"][..])).prop_map(
        |(key, operator, value)| NodeSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: (!operator.ends_with("xist") && operator != "Exists").then(|| vec![value.to_owned()]),
        },
    );
    let field = select(&["node-0", "node-1"][..]).prop_map(|name| NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(vec![name.to_owned()]),
    });
    let term = (vec(expression, 0..3), option::weighted(0.2, field)).prop_map(|(expressions, field)| {
        NodeSelectorTerm {
            match_expressions: Some(expressions),
            match_fields: Some(field.into_iter().collect()),
        }
    });
    vec(term, 1..3).prop_map(|node_selector_terms| NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector { node_selector_terms }),
        preferred_during_scheduling_ignored_during_execution: None,
    })
}

fn affinity() -> impl Strategy<Value = Affinity> {
    let near = option::weighted(0.3, vec(term(), 1..3));
    let apart = option::weighted(0.4, vec(term(), 1..3));
    (option::weighted(0.2, node_affinity()), near, apart).prop_map(|(node_affinity, near, apart)| Affinity {
        node_affinity,
        pod_affinity: near.map(|terms| PodAffinity {
            required_during_scheduling_ignored_during_execution: Some(terms),
            ..PodAffinity::default()
        }),
        pod_anti_affinity: apart.map(|terms| PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(terms),
            ..PodAntiAffinity::default()
        }),
    })
}

fn pod() -> impl Strategy<Value = Pod> {
    let requests = (0..4_i64, option::weighted(0.2, 0..3_i64)).prop_map(|(cpu, devices)| {
        let other = devices.map(|devices| ("example.com/device".into(), devices)).into_iter().collect();
        Resources { cpu, memory: 1, pods: 1, other, ..Resources::default() }
    });
    let port = (select(&["", "0.0.0.0", "10.0.0.1", "10.0.0.2"][..]), 80..82_i32)
        .prop_map(|(ip, port)| HostPort { ip: ip.into(), protocol: "TCP".into(), port });
    let disk = (select(&["a", "b"][..]), any::<bool>())
        .prop_map(|(id, is_shared)| Disk { id: id.into(), is_shared });
    let labels = (maybe("app", &["a", "b"]), maybe("version", &["1", "2"])).prop_map(|(mut labels, more)| {
        labels.extend(more);
        labels
    });
    let place = (select(&["n1", "n2"][..]), -1..2_i32, prop::bool::weighted(0.1));
    let rules = (
        option::weighted(0.6, affinity()),
        vec(spread(), 0..3),
        option::weighted(0.1, maybe("size", &["1", "2"])),
        vec(toleration(), 0..2),
        (option::weighted(0.2, port), option::weighted(0.2, disk)),
    );
    (requests, labels, place, rules).prop_map(|(requests, labels, (namespace, priority, deleting), rules)| {
        let (affinity, spread, selector, tolerations, (port, disk)) = rules;
        let shape = Shape::new(
            requests,
            Traits {
                namespace: namespace.into(),
                labels,
                priority: Some(priority),
                affinity: affinity.map(Box::new),
                spread,
                node_selector: selector.unwrap_or_default(),
                tolerations,
                ports: port.into_iter().collect(),
                disks: disk.into_iter().collect(),
                ..Traits::default()
            },
        );
        let deleting = deleting.then_some(Timestamp::UNIX_EPOCH);
        Pod { shape: Arc::new(shape), deleting, ..Pod::default() }
    })
}
