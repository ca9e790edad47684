//! What objects say of themselves, and how long: operatorpkg's metrics, of each kind that is here (awslabs/operatorpkg,
//! `status/controller.go`, `status/metrics.go`), with the labels that Karpenter has it add (core, `pkg/controllers/controllers.go`).
//!
//! Each metric has the kind in its name; those of Karpenter's own kinds are there once more with the kind as a label, as they
//! were called before.

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
    encoding::DescriptorEncoder,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tandem_core::{
    api::karpenter::{EC2NodeClass, NodeClaim, NodePool},
    nodes::pools::{names::INITIALIZED, requirements::labels::NODE_POOL},
    scheduling::{Node, node},
};

use super::Pools;
use crate::telemetry::metrics::gauges;

/// What comes within this time is looked at together: of two transitions within it the first is not seen.
const CALM: Duration = Duration::from_secs(1);
/// The longest time between two looks.
const PERIOD: Duration = Duration::from_mins(1);

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

/// A kind of objects.
struct Kind {
    /// How metrics name it.
    name: &'static str,
    objects: Objects,
    /// Labels of objects that their series have, too, with those that name a node class.
    labels: Option<&'static [&'static str]>,
    /// Group and kind, where there are series under the former names.
    former: Option<(&'static str, &'static str)>,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "nodepool",
        objects: |pools| pools.node_pools.list("").into_iter().map(Object::Pool).collect(),
        labels: None,
        former: Some(("karpenter.sh", "NodePool")),
    },
    Kind {
        name: "nodeclaim",
        objects: |pools| pools.claims.list("").into_iter().map(Object::Claim).collect(),
        labels: Some(&[NODE_POOL]),
        former: Some(("karpenter.sh", "NodeClaim")),
    },
    Kind {
        name: "node",
        objects: |pools| pools.world.nodes.all().into_iter().map(Object::Node).collect(),
        labels: Some(&[NODE_POOL, INITIALIZED]),
        former: None,
    },
    Kind {
        name: "ec2nodeclass",
        objects: |pools| pools.provider.node_classes().into_iter().map(Object::Class).collect(),
        labels: None,
        former: Some(("karpenter.k8s.aws", "EC2NodeClass")),
    },
];

impl Kind {
    /// Labels of objects that its series have, too.
    fn labels(&self, pools: &Pools) -> Vec<String> {
        let Some(labels) = self.labels else { return Vec::new() };
        let class =
            |kind: &crate::cloud::pools::ClassKind| format!("{}/{}", kind.group, kind.kind.to_lowercase());
        let classes = pools.provider.kinds().iter().map(class);
        classes.chain(labels.iter().map(|label| (*label).to_owned())).collect()
    }
}

/// The labels of a series.
type Labels = Vec<(String, String)>;

fn labels<const N: usize>(labels: [(&str, &str); N]) -> Labels {
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// A condition, whatever it is of.
struct Said<'o> {
    kind: &'o str,
    status: &'o str,
    reason: &'o str,
    since: Option<Timestamp>,
}

impl<'o> Said<'o> {
    fn of(condition: &'o Condition) -> Self {
        let since = Some(condition.last_transition_time.0);
        Self { kind: &condition.type_, status: &condition.status, reason: &condition.reason, since }
    }

    fn of_node(kind: &'o str, condition: &'o node::Condition) -> Self {
        let status = match condition.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        Self { kind, status, reason: &condition.reason, since: condition.since }
    }
}

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

    fn conditions(&self) -> Vec<Said<'_>> {
        let conditions = match self {
            Self::Pool(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::Claim(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::Class(object) => object.status.as_ref().map(|status| &status.conditions),
            Self::Node(node) => {
                let said = node.conditions.iter().map(|(kind, condition)| Said::of_node(kind, condition));
                return said.collect();
            }
        };
        conditions.into_iter().flatten().map(Said::of).collect()
    }

    /// Those of its labels, by the names that metrics have for them; empty where it has none.
    fn labelled(&self, keys: &[String]) -> Labels {
        let none = BTreeMap::new();
        let own = match self {
            Self::Pool(object) => object.metadata.labels.as_ref().unwrap_or(&none),
            Self::Claim(object) => object.metadata.labels.as_ref().unwrap_or(&none),
            Self::Class(object) => object.metadata.labels.as_ref().unwrap_or(&none),
            Self::Node(node) => &node.labels,
        };
        let label =
            |key: &String| (key.replace(['/', '.', '-'], "_"), own.get(key).cloned().unwrap_or_default());
        keys.iter().map(label).collect()
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

/// From half a second to more than two hours.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.5, 2.0, 15))
}

/// What objects of one kind did.
#[derive(Debug, Clone)]
struct OfKind {
    transitions: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
    terminations: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Default for OfKind {
    fn default() -> Self {
        Self {
            transitions: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            terminations: Family::new_with_constructor(histogram),
        }
    }
}

impl OfKind {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "status_condition_transitions",
            "Conditions that came or changed",
            self.transitions.clone(),
        );
        registry.register(
            "status_condition_transition_seconds",
            "How long a condition had said what it said before it changed",
            self.seconds.clone(),
        );
        registry.register(
            "termination_duration_seconds",
            "From the deletion of an object to its end",
            self.terminations.clone(),
        );
    }
}

/// What objects did, by kind, and under the former names. Neither names nor messages are labels, so that series are as many as
/// there are reasons.
#[derive(Debug, Clone, Default)]
pub(super) struct Transitions {
    kinds: [OfKind; KINDS.len()],
    former: OfKind,
}

impl Transitions {
    /// Makes them part of `/metrics`.
    pub(super) fn register(&self, registry: &mut Registry) {
        for (kind, of_kind) in KINDS.iter().zip(&self.kinds) {
            of_kind.register(registry.sub_registry_with_prefix(format!("operator_{}", kind.name)));
        }
        self.former.register(registry.sub_registry_with_prefix("operator"));
    }
}

/// Where what objects of one kind do is counted.
struct Counted<'m> {
    own: &'m OfKind,
    former: &'m OfKind,
    kind: &'m Kind,
    /// Labels of objects that series have, too.
    keys: Vec<String>,
}

impl Counted<'_> {
    /// Counts something of an object, with its labels, and under the former name.
    fn count(&self, object: &Object, labels: Labels, count: impl Fn(&OfKind, &Labels)) {
        if let Some((group, kind)) = self.kind.former {
            count(self.former, &[labels.clone(), self::labels([("group", group), ("kind", kind)])].concat());
        }
        count(self.own, &[labels, object.labelled(&self.keys)].concat());
    }
}

/// One gauge of objects: its name behind that of the kind, and what it tells.
struct Gauge {
    name: &'static str,
    help: &'static str,
    /// Labels beside those of the object, and the value.
    series: fn(&Object, Timestamp) -> Vec<(Labels, f64)>,
}

const GAUGES: [Gauge; 3] = [
    Gauge {
        name: "status_condition_count",
        help: "Conditions of each object",
        series: |object, _| object.conditions().iter().map(|said| (of_condition(said), 1.0)).collect(),
    },
    Gauge {
        name: "status_condition_current_status_seconds",
        help: "How long a condition has said what it says",
        series: |object, now| {
            let conditions = object.conditions();
            let since =
                |said: &Said<'_>| Some((of_condition(said), now.duration_since(said.since?).as_secs_f64()));
            conditions.iter().filter_map(since).collect()
        },
    },
    Gauge {
        name: "termination_current_time_seconds",
        help: "How long an object has been being deleted",
        series: |object, now| {
            let deleted = object.deleted().into_iter();
            deleted.map(|deleted| (Vec::new(), now.duration_since(deleted).as_secs_f64())).collect()
        },
    },
];

fn of_condition(said: &Said<'_>) -> Labels {
    labels([("type", said.kind), ("status", said.status), ("reason", said.reason)])
}

/// Objects of a kind, and their labels that series have, too.
type OfOneKind<'k> = (&'k Kind, Vec<String>, Vec<Object>);

/// What is there at a scrape: one series a condition, and one an object that is being deleted.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, pools: &Pools) -> fmt::Result {
    let all: Vec<_> = KINDS.iter().map(|kind| (kind, kind.labels(pools), (kind.objects)(pools))).collect();
    encode_all(encoder, &all, Timestamp::now())
}

fn encode_all(encoder: &mut DescriptorEncoder<'_>, all: &[OfOneKind<'_>], now: Timestamp) -> fmt::Result {
    for Gauge { name, help, series } in &GAUGES {
        let mut former = Vec::new();
        for (kind, keys, objects) in all {
            let mut own = Vec::new();
            for object in objects {
                let named = labels([("namespace", ""), ("name", object.name())]);
                for (labels, value) in series(object, now) {
                    let labels = [named.clone(), labels].concat();
                    if let Some((group, kind)) = kind.former {
                        let more = self::labels([("group", group), ("kind", kind)]);
                        former.push(([labels.clone(), more].concat(), value));
                    }
                    own.push(([labels, object.labelled(keys)].concat(), value));
                }
            }
            gauges(encoder, &format!("operator_{}_{name}", kind.name), help, own)?;
        }
        gauges(encoder, &format!("operator_{name}"), help, former)?;
    }
    Ok(())
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
            let Transitions { kinds, former } = &pools.metrics.transitions;
            for ((kind, own), seen) in KINDS.iter().zip(kinds).zip(&mut seen) {
                let counted = Counted { own, former, kind, keys: kind.labels(&pools) };
                look(seen, (kind.objects)(&pools), &counted, now);
            }
        } else {
            seen = Default::default();
        }
        pools.changed(&mut changes, CALM, PERIOD).await;
    }
}

fn look(seen: &mut Seen, objects: Vec<Object>, metrics: &Counted<'_>, now: Timestamp) {
    let names: BTreeSet<_> = objects.iter().map(Object::name).collect();
    seen.retain(|name, object| {
        let is_there = names.contains(name.as_str());
        if let (false, Some(deleted)) = (is_there, object.deleted()) {
            let seconds = now.duration_since(deleted).as_secs_f64();
            metrics.count(object, Vec::new(), |metrics, labels| {
                metrics.terminations.get_or_create(labels).observe(seconds);
            });
        }
        is_there
    });
    for object in objects {
        match seen.get_mut(object.name()) {
            Some(before) if before.is(&object) => {}
            Some(before) => {
                changed(Some(before), &object, metrics);
                *before = object;
            }
            None => {
                changed(None, &object, metrics);
                seen.insert(object.name().to_owned(), object);
            }
        }
    }
}

/// A condition that was not there counts as one that nobody knows.
fn changed(before: Option<&Object>, now: &Object, metrics: &Counted<'_>) {
    let before = before.map(Object::conditions).unwrap_or_default();
    for said in now.conditions() {
        let was = before.iter().find(|was| was.kind == said.kind);
        if was.map_or("Unknown", |was| was.status) == said.status {
            continue;
        }
        metrics.count(now, of_condition(&said), |metrics, labels| {
            metrics.transitions.get_or_create(labels).inc();
        });
        if let Some(was) = was
            && let (Some(until), Some(since)) = (said.since, was.since)
        {
            let seconds = until.duration_since(since).as_secs_f64();
            let labels = labels([("type", was.kind), ("status", was.status)]);
            metrics.count(now, labels, |metrics, labels| {
                metrics.seconds.get_or_create(labels).observe(seconds);
            });
        }
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

    const CLASS: &str = "karpenter.k8s.aws/ec2nodeclass";

    fn keys() -> Vec<String> {
        vec![CLASS.to_owned(), NODE_POOL.to_owned()]
    }

    fn claim(conditions: &[(&str, &str, i64)], deleted: Option<i64>) -> Object {
        let mut claim = NodeClaim::default();
        claim.metadata.name = Some("a".to_owned());
        let labels = [(NODE_POOL, "general"), (CLASS, "default")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        claim.metadata.labels = Some(labels.into());
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
        let (own, former) = (&transitions.kinds[1], &transitions.former);
        let metrics = &Counted { own, former, kind: &KINDS[1], keys: keys() };
        let first = claim(&[("Launched", "True", 10), ("Ready", "Unknown", 10)], None);
        look(&mut seen, vec![first.clone()], metrics, at(20));
        look(&mut seen, vec![first], metrics, at(25));
        let ready = [("Launched", "True", 10), ("Ready", "True", 50)];
        look(&mut seen, vec![claim(&ready, None)], metrics, at(60));
        look(&mut seen, vec![claim(&ready, Some(100))], metrics, at(101));
        look(&mut seen, Vec::new(), metrics, at(130));
        look(&mut seen, Vec::new(), metrics, at(140));
        let text = text(&registry).unwrap();
        let own = r#"karpenter_k8s_aws_ec2nodeclass="default",karpenter_sh_nodepool="general""#;
        let former = r#"group="karpenter.sh",kind="NodeClaim""#;
        for (prefix, more) in [("operator_nodeclaim", own), ("operator", former)] {
            let of = format!("{prefix}_status_condition_transitions_total{{type=");
            for line in [
                format!(r#"{of}"Launched",status="True",reason="Why",{more}}} 1"#),
                format!(r#"{of}"Ready",status="True",reason="Why",{more}}} 1"#),
                format!(
                    r#"{prefix}_status_condition_transition_seconds_sum{{type="Ready",status="Unknown",{more}}} 40.0"#
                ),
                format!("{prefix}_termination_duration_seconds_sum{{{more}}} 30.0"),
                format!("{prefix}_termination_duration_seconds_count{{{more}}} 1"),
            ] {
                assert!(text.lines().any(|it| it == line), "{line}\n{text}");
            }
            assert_eq!(text.matches(&of).count(), 2, "{text}");
        }
    }

    #[derive(Debug)]
    struct Scrape;

    impl Collector for Scrape {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let since = Some(at(10));
            let pressed = node::Condition { holds: None, since, reason: "NodeStatusUnknown".into() };
            let node = Node {
                name: "n".into(),
                labels: [(NODE_POOL.to_owned(), "general".to_owned())].into(),
                conditions: [("MemoryPressure".into(), pressed)].into(),
                ..Node::default()
            };
            let claims = vec![claim(&[("Ready", "True", 10)], Some(100))];
            let nodes = vec![Object::Node(Arc::new(node))];
            let of_node = vec![NODE_POOL.to_owned(), INITIALIZED.to_owned()];
            let all = [(&KINDS[1], keys(), claims), (&KINDS[2], of_node, nodes)];
            encode_all(&mut encoder, &all, at(130))
        }
    }

    #[test]
    fn what_is_there_is_shown_with_its_age() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape));
        let text = text(&registry).unwrap();
        let own = r#"karpenter_k8s_aws_ec2nodeclass="default",karpenter_sh_nodepool="general""#;
        let former = r#"group="karpenter.sh",kind="NodeClaim""#;
        let ready = r#"namespace="",name="a",type="Ready",status="True",reason="Why""#;
        let of_node = r#"namespace="",name="n",type="MemoryPressure",status="Unknown",reason="NodeStatusUnknown",karpenter_sh_nodepool="general",karpenter_sh_initialized="""#;
        for line in [
            format!("operator_nodeclaim_status_condition_count{{{ready},{own}}} 1.0"),
            format!("operator_status_condition_count{{{ready},{former}}} 1.0"),
            format!("operator_nodeclaim_status_condition_current_status_seconds{{{ready},{own}}} 120.0"),
            format!("operator_node_status_condition_count{{{of_node}}} 1.0"),
            format!("operator_node_status_condition_current_status_seconds{{{of_node}}} 120.0"),
            format!(
                r#"operator_nodeclaim_termination_current_time_seconds{{namespace="",name="a",{own}}} 30.0"#
            ),
            format!(r#"operator_termination_current_time_seconds{{namespace="",name="a",{former}}} 30.0"#),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
