//! What objects say of themselves, and how long: operatorpkg's metrics, of each kind that is here (awslabs/operatorpkg,
//! `status/controller.go`, `status/metrics.go`).
//!
//! Of nodes only their end is told: what is kept of them does not tell a condition that is false from one that nobody knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use tandem_core::{
    api::karpenter::{EC2NodeClass, NodeClaim, NodePool},
    scheduling::Node,
};

use super::Pools;
use crate::telemetry::metrics::gauges;

/// What comes within this time is looked at together: of two transitions within it the first is not seen.
const CALM: Duration = Duration::from_secs(1);
/// The longest time between two looks.
const PERIOD: Duration = Duration::from_mins(1);
/// From a second to an hour.
const BUCKETS: [f64; 10] = [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// An object of one of the kinds.
#[derive(Clone)]
enum Object {
    Pool(Arc<NodePool>),
    Claim(Arc<NodeClaim>),
    Node(Arc<Node>),
    Class(Arc<EC2NodeClass>),
}

/// Where the objects of a kind are.
type Objects = fn(&Pools) -> Vec<Object>;

/// The kinds: how metrics name them, and where their objects are.
const KINDS: [(&str, Objects); 4] = [
    ("nodepool", |pools| pools.node_pools.list("").into_iter().map(Object::Pool).collect()),
    ("nodeclaim", |pools| pools.claims.list("").into_iter().map(Object::Claim).collect()),
    ("node", |pools| pools.world.nodes.all().into_iter().map(Object::Node).collect()),
    ("ec2nodeclass", |pools| pools.provider.node_classes().into_iter().map(Object::Class).collect()),
];

fn deleted(object: &impl Resource) -> Option<Timestamp> {
    object.meta().deletion_timestamp.as_ref().map(|time| time.0)
}

impl Object {
    fn name(&self) -> &str {
        let name = match self {
            Self::Pool(object) => &object.metadata.name,
            Self::Claim(object) => &object.metadata.name,
            Self::Class(object) => &object.metadata.name,
            Self::Node(node) => return &node.name,
        };
        name.as_deref().unwrap_or_default()
    }

    fn deleted(&self) -> Option<Timestamp> {
        match self {
            Self::Pool(object) => deleted(&**object),
            Self::Claim(object) => deleted(&**object),
            Self::Class(object) => deleted(&**object),
            Self::Node(node) => node.deleting,
        }
    }

    fn conditions(&self) -> &[Condition] {
        let conditions = match self {
            Self::Pool(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::Claim(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::Class(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::Node(_) => None,
        };
        conditions.map_or(&[], |conditions| conditions)
    }

    /// Whether nothing has changed.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pool(one), Self::Pool(other)) => Arc::ptr_eq(one, other),
            (Self::Claim(one), Self::Claim(other)) => Arc::ptr_eq(one, other),
            (Self::Node(one), Self::Node(other)) => Arc::ptr_eq(one, other),
            (Self::Class(one), Self::Class(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCondition {
    namespace: &'static str,
    name: String,
    r#type: String,
    status: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfObject {
    namespace: &'static str,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    r#type: String,
    status: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    r#type: String,
    status: String,
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// What objects of one kind did.
#[derive(Debug, Clone)]
struct OfKind {
    transitions: Family<To, Counter>,
    seconds: Family<From, Histogram, fn() -> Histogram>,
    terminations: Histogram,
}

/// What objects did, by kind. Neither names nor messages are labels, so that series are as many as there are reasons.
#[derive(Debug, Clone)]
pub(super) struct Transitions([OfKind; KINDS.len()]);

impl Default for Transitions {
    fn default() -> Self {
        Self(KINDS.map(|_| OfKind {
            transitions: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            terminations: histogram(),
        }))
    }
}

impl Transitions {
    /// Makes them part of `/metrics`.
    pub(super) fn register(&self, registry: &mut Registry) {
        for ((kind, _), of_kind) in KINDS.iter().zip(&self.0) {
            let registry = registry.sub_registry_with_prefix(format!("operator_{kind}"));
            if *kind != "node" {
                registry.register(
                    "status_condition_transitions",
                    "Conditions that came or changed",
                    of_kind.transitions.clone(),
                );
                registry.register(
                    "status_condition_transition_seconds",
                    "How long a condition had said what it said before it changed",
                    of_kind.seconds.clone(),
                );
            }
            registry.register(
                "termination_duration_seconds",
                "From the deletion of an object to its end",
                of_kind.terminations.clone(),
            );
        }
    }
}

/// What is there at a scrape: one series a condition, and one an object that is being deleted.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, pools: &Pools) -> fmt::Result {
    let now = Timestamp::now();
    KINDS.iter().try_for_each(|(kind, objects)| encode_kind(encoder, kind, &objects(pools), now))
}

fn encode_kind(
    encoder: &mut DescriptorEncoder<'_>,
    kind: &str,
    objects: &[Object],
    now: Timestamp,
) -> fmt::Result {
    let all: Vec<_> = objects
        .iter()
        .flat_map(|object| {
            object.conditions().iter().map(move |condition| {
                let labels = OfCondition {
                    namespace: "",
                    name: object.name().to_owned(),
                    r#type: condition.type_.clone(),
                    status: condition.status.clone(),
                    reason: condition.reason.clone(),
                };
                (labels, now.duration_since(condition.last_transition_time.0).as_secs_f64())
            })
        })
        .collect();
    if kind != "node" {
        let name = format!("operator_{kind}_status_condition_count");
        let each = all.iter().map(|(labels, _)| (labels.clone(), 1.0));
        gauges(encoder, &name, "Conditions of each object", each)?;
        let name = format!("operator_{kind}_status_condition_current_status_seconds");
        gauges(encoder, &name, "How long a condition has said what it says", all)?;
    }
    let ending = objects.iter().filter_map(|object| {
        let labels = OfObject { namespace: "", name: object.name().to_owned() };
        Some((labels, now.duration_since(object.deleted()?).as_secs_f64()))
    });
    let name = format!("operator_{kind}_termination_current_time_seconds");
    gauges(encoder, &name, "How long an object has been being deleted", ending)
}

/// Objects of one kind at the last look, by name.
type Seen = BTreeMap<String, Object>;

/// Counts what objects do, for ever. As for operatorpkg, whoever takes the lead counts conditions anew that there are.
pub(super) async fn run(pools: Arc<Pools>) {
    let mut changes = pools.world.changes.subscribe();
    let mut seen: [Seen; KINDS.len()] = Default::default();
    loop {
        if pools.leads() {
            let now = Timestamp::now();
            let metrics = &pools.metrics.transitions.0;
            for (((_, objects), of_kind), seen) in KINDS.iter().zip(metrics).zip(&mut seen) {
                look(seen, objects(&pools), of_kind, now);
            }
        } else {
            seen = Default::default();
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

fn look(seen: &mut Seen, objects: Vec<Object>, metrics: &OfKind, now: Timestamp) {
    let names: BTreeSet<_> = objects.iter().map(Object::name).collect();
    seen.retain(|name, object| {
        let is_there = names.contains(name.as_str());
        if let (false, Some(deleted)) = (is_there, object.deleted()) {
            metrics.terminations.observe(now.duration_since(deleted).as_secs_f64());
        }
        is_there
    });
    for object in objects {
        match seen.get_mut(object.name()) {
            Some(before) if before.is(&object) => {}
            Some(before) => {
                changed(before.conditions(), object.conditions(), metrics);
                *before = object;
            }
            None => {
                changed(&[], object.conditions(), metrics);
                seen.insert(object.name().to_owned(), object);
            }
        }
    }
}

/// A condition that was not there counts as one that nobody knows.
fn changed(before: &[Condition], now: &[Condition], metrics: &OfKind) {
    for condition in now {
        let was = before.iter().find(|was| was.type_ == condition.type_);
        if was.map_or("Unknown", |was| &was.status) == condition.status {
            continue;
        }
        let (r#type, status) = (condition.type_.clone(), condition.status.clone());
        let reason = condition.reason.clone();
        metrics.transitions.get_or_create(&To { r#type, status, reason }).inc();
        let Some(was) = was else { continue };
        let lasted = condition.last_transition_time.0.duration_since(was.last_transition_time.0);
        let from = From { r#type: was.type_.clone(), status: was.status.clone() };
        metrics.seconds.get_or_create(&from).observe(lasted.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use prometheus_client::collector::Collector;

    use super::*;
    use crate::telemetry::metrics::text;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn claim(conditions: &[(&str, &str, i64)], deleted: Option<i64>) -> Object {
        let mut claim = NodeClaim::default();
        claim.metadata.name = Some("a".to_owned());
        claim.metadata.deletion_timestamp = deleted.map(|second| Time(at(second)));
        let condition = |(type_, status, since): &(&str, &str, i64)| Condition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: "Why".to_owned(),
            message: String::new(),
            last_transition_time: Time(at(*since)),
            observed_generation: None,
        };
        claim.status.get_or_insert_default().conditions = conditions.iter().map(condition).collect();
        Object::Claim(Arc::new(claim))
    }

    #[test]
    fn transitions_are_counted_and_timed_and_so_is_the_end() {
        let (transitions, mut registry, mut seen) =
            (Transitions::default(), Registry::default(), Seen::default());
        transitions.register(&mut registry);
        let metrics = &transitions.0[1];
        let first = claim(&[("Launched", "True", 10), ("Ready", "Unknown", 10)], None);
        look(&mut seen, vec![first.clone()], metrics, at(20));
        look(&mut seen, vec![first], metrics, at(25));
        let ready = [("Launched", "True", 10), ("Ready", "True", 50)];
        look(&mut seen, vec![claim(&ready, None)], metrics, at(60));
        look(&mut seen, vec![claim(&ready, Some(100))], metrics, at(101));
        look(&mut seen, Vec::new(), metrics, at(130));
        look(&mut seen, Vec::new(), metrics, at(140));
        let text = text(&registry).unwrap();
        let of = "operator_nodeclaim_status_condition_transitions_total{type=";
        for line in [
            format!(r#"{of}"Launched",status="True",reason="Why"}} 1"#),
            format!(r#"{of}"Ready",status="True",reason="Why"}} 1"#),
            r#"operator_nodeclaim_status_condition_transition_seconds_sum{type="Ready",status="Unknown"} 40.0"#
                .to_owned(),
            "operator_nodeclaim_termination_duration_seconds_sum 30.0".to_owned(),
            "operator_nodeclaim_termination_duration_seconds_count 1".to_owned(),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert_eq!(text.matches(of).count(), 2, "{text}");
    }

    #[derive(Debug)]
    struct Scrape;

    impl Collector for Scrape {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let objects = [claim(&[("Ready", "True", 10)], Some(100))];
            encode_kind(&mut encoder, "nodeclaim", &objects, at(130))
        }
    }

    #[test]
    fn what_is_there_is_shown_with_its_age() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape));
        let text = text(&registry).unwrap();
        let ready = r#"{namespace="",name="a",type="Ready",status="True",reason="Why"}"#;
        for line in [
            format!("operator_nodeclaim_status_condition_count{ready} 1.0"),
            format!("operator_nodeclaim_status_condition_current_status_seconds{ready} 120.0"),
            r#"operator_nodeclaim_termination_current_time_seconds{namespace="",name="a"} 30.0"#.to_owned(),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
