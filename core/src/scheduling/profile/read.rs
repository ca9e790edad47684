//! Reads a `KubeSchedulerConfiguration`, and what Karpenter takes in its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, TopologySpreadConstraint,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use super::{Profile, plugins::points};

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// Whose pods a profile is for that does not say.
const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// The longest name of a label or a resource, without what stands before the slash.
const LONGEST_NAME: usize = 63;
/// The longest that may stand before the slash.
const LONGEST_PREFIX: usize = 253;

/// Something that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {text}")]
pub struct Problem {
    /// Where, such as `profiles[0].plugins`.
    pub place: String,
    /// What was seen, and what to write instead.
    pub text: String,
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
pub struct Invalid(pub Vec<Problem>);

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Configuration {
    /// What counts of it.
    pub profile: Profile,
    /// What may refuse pods as well and is not simulated, such as `plugin Coscheduling`, in order.
    pub unknown: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OfProfile {
    scheduler_name: Option<String>,
    plugins: Plugins,
    plugin_config: Vec<PluginConfig>,
}

/// `plugins`: the extension points that say where a pod may run.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Plugins {
    pub(super) multi_point: Set,
    pub(super) pre_filter: Set,
    pub(super) filter: Set,
}

/// An extension point.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Set {
    pub(super) enabled: Vec<Named>,
    pub(super) disabled: Vec<Named>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Extender {
    url_prefix: String,
    filter_verb: String,
    managed_resources: Vec<ManagedResource>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedResource {
    name: String,
    #[serde(default)]
    ignored_by_scheduler: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeAffinityArgs {
    added_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeResourcesFitArgs {
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodTopologySpreadArgs {
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Option<String>,
}

impl Configuration {
    /// Reads a `KubeSchedulerConfiguration` (`--scheduler-config-file`).
    ///
    /// Without profiles there is the one that kube-scheduler has without a configuration.
    ///
    /// Source: kubernetes, `pkg/scheduler/apis/config/v1/defaults.go`, `validation/validation.go` and
    /// `validation_pluginargs.go`; that there is one profile: kubernetes/autoscaler,
    /// `cluster-autoscaler/simulator/framework/handle.go`.
    ///
    /// # Errors
    /// It is no such configuration, has several profiles, or kube-scheduler would not take what it says.
    pub fn read(text: &str) -> Result<Self, Invalid> {
        let mut problems = Problems::default();
        let found = problems.document(text).map(|document| problems.configuration(&document));
        problems.or(found)
    }

    /// Reads default constraints as Karpenter takes them (`--scheduler-config`), which are for all pods.
    ///
    /// Source: kubernetes-sigs/karpenter, `designs/default-topology-spread-awareness.md`.
    ///
    /// # Errors
    /// It is no such document, or has what Karpenter does not take.
    pub fn read_constraints(text: &str) -> Result<Self, Invalid> {
        const SPREAD: &str = "podTopologySpread";
        const CONSTRAINTS: &str = "defaultConstraints";
        let mut problems = Problems::default();
        let found = problems.document(text).map(|document| {
            problems.only(&document, "", &[SPREAD]);
            let spread = document.get(SPREAD).cloned().unwrap_or_default();
            problems.only(&spread, SPREAD, &[CONSTRAINTS]);
            let place = format!("{SPREAD}.{CONSTRAINTS}");
            let list = spread.get(CONSTRAINTS).cloned().unwrap_or_default();
            let constraints: Vec<TopologySpreadConstraint> = problems.part(&list, &place);
            for (at, rule) in constraints.iter().enumerate() {
                if rule.match_label_keys.is_some() {
                    let text = "Karpenter takes none with default constraints; leave it out";
                    problems.add(format!("{place}[{at}].matchLabelKeys"), text);
                }
            }
            let spread = problems.constraints(constraints, &place);
            Self { profile: Profile { spread, ..Profile::default() }, unknown: Vec::new() }
        });
        problems.or(found)
    }

    /// This and the default constraints of another, if it has some.
    ///
    /// # Errors
    /// Both have some, and not the same.
    pub fn with_constraints(mut self, other: Self) -> Result<Self, Invalid> {
        let (own, others) = (&self.profile.spread, other.profile.spread);
        if own.is_empty() {
            self.profile.spread = others;
        } else if !others.is_empty() && *own != others {
            let text = "they are not those of --scheduler-config-file; leave them out, or write the same";
            let place = "podTopologySpread.defaultConstraints".to_owned();
            return Err(Invalid(vec![Problem { place, text: text.to_owned() }]));
        }
        Ok(self)
    }
}

/// What is wrong so far.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, place: impl Into<String>, text: impl Display) {
        self.0.push(Problem { place: place.into(), text: text.to_string() });
    }

    fn or<T>(self, found: Option<T>) -> Result<T, Invalid> {
        match found {
            Some(found) if self.0.is_empty() => Ok(found),
            _ => Err(Invalid(self.0)),
        }
    }

    /// The mapping that a text is.
    fn document(&mut self, text: &str) -> Option<Value> {
        match serde_saphyr::from_str(text) {
            Ok(Value::Null) => Some(Value::Object(serde_json::Map::new())),
            Ok(document @ Value::Object(_)) => Some(document),
            Ok(other) => {
                self.add("document", format!("it is {other}, no mapping; write KEY: VALUE"));
                None
            }
            Err(error) => {
                self.add("document", format!("no YAML: {error}"));
                None
            }
        }
    }

    /// A part of its own type; nothing of what it would be is missed if that cannot be read.
    fn part<T: DeserializeOwned + Default>(&mut self, value: &Value, place: &str) -> T {
        if value.is_null() {
            return T::default();
        }
        T::deserialize(value).unwrap_or_else(|error| {
            self.add(place, error);
            T::default()
        })
    }

    /// That a mapping has no other keys: one that is misspelt would do nothing.
    fn only(&mut self, value: &Value, place: &str, keys: &[&str]) {
        let unknown =
            value.as_object().into_iter().flatten().filter(|(key, _)| !keys.contains(&key.as_str()));
        let dot = if place.is_empty() { "" } else { "." };
        for (key, _) in unknown {
            let known = keys.join(", ");
            self.add(format!("{place}{dot}{key}"), format!("there is no such field; there are {known}"));
        }
    }

    fn configuration(&mut self, document: &Value) -> Configuration {
        for (key, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            match document.get(key).and_then(Value::as_str) {
                Some(value) if value == expected => {}
                Some(value) => self.add(key, format!("{value:?} is not known; write {expected}")),
                None => self.add(key, format!("it is missing; write {expected}")),
            }
        }
        let profiles: Vec<Value> = self.part(document.get("profiles").unwrap_or(&Value::Null), "profiles");
        if profiles.len() > 1 {
            let text = "pods of one scheduler are simulated; write the profile of those that nodes are for";
            self.add("profiles", format!("there are {}, and {text}", profiles.len()));
        }
        let mut unknown = Vec::new();
        let mut profile = Profile::default();
        for (at, value) in profiles.iter().enumerate() {
            let read: OfProfile = self.part(value, &format!("profiles[{at}]"));
            profile = self.profile(read, &format!("profiles[{at}].pluginConfig"), &mut unknown);
        }
        profile.scheduler.get_or_insert_with(|| DEFAULT_SCHEDULER.into());
        let extenders: Vec<Extender> =
            self.part(document.get("extenders").unwrap_or(&Value::Null), "extenders");
        for extender in extenders {
            if !extender.filter_verb.is_empty() {
                unknown.push(format!("extender {}", extender.url_prefix));
            }
            let ignored = extender.managed_resources.into_iter().filter(|it| it.ignored_by_scheduler);
            profile.ignored.extend(ignored.map(|resource| resource.name.into()));
        }
        Configuration { profile, unknown }
    }

    fn profile(&mut self, read: OfProfile, place: &str, unknown: &mut Vec<String>) -> Profile {
        let (points, foreign) = points(&read.plugins);
        unknown.extend(foreign.into_iter().map(|name| format!("plugin {name}")));
        let mut profile = Profile { points, ..Profile::default() };
        profile.scheduler = read.scheduler_name.filter(|name| !name.is_empty()).map(Into::into);
        let mut seen = BTreeSet::new();
        for (at, PluginConfig { name, args }) in read.plugin_config.into_iter().enumerate() {
            let place = format!("{place}[{at}].args");
            if !seen.insert(name.clone()) {
                self.add(&place, format!("{name} is configured twice; write all its arguments once"));
            }
            match &*name {
                "NodeAffinity" => profile.added = self.added(&args, &place),
                "NodeResourcesFit" => self.fit(&args, &place, &mut profile),
                "PodTopologySpread" => profile.spread = self.spread(&args, &place),
                _ => {}
            }
        }
        profile
    }

    fn fit(&mut self, args: &Value, place: &str, profile: &mut Profile) {
        self.only(
            args,
            place,
            &["apiVersion", "kind", "ignoredResources", "ignoredResourceGroups", "scoringStrategy"],
        );
        let fit: NodeResourcesFitArgs = self.part(args, place);
        for (at, name) in fit.ignored_resources.iter().enumerate() {
            if !is_qualified(name) {
                let text = format!("{name:?} is no name of a resource; write NAME or DOMAIN/NAME");
                self.add(format!("{place}.ignoredResources[{at}]"), text);
            }
        }
        for (at, group) in fit.ignored_resource_groups.iter().enumerate() {
            if !is_name(group, LONGEST_NAME) {
                let text = format!("{group:?} is no group of resources; write what stands before the slash");
                self.add(format!("{place}.ignoredResourceGroups[{at}]"), text);
            }
        }
        profile.ignored.extend(fit.ignored_resources.into_iter().map(Into::into));
        profile.ignored_groups.extend(fit.ignored_resource_groups.into_iter().map(Into::into));
    }

    fn spread(&mut self, args: &Value, place: &str) -> Box<[TopologySpreadConstraint]> {
        self.only(args, place, &["apiVersion", "kind", "defaultConstraints", "defaultingType"]);
        let spread: PodTopologySpreadArgs = self.part(args, place);
        match spread.defaulting_type.as_deref().unwrap_or("System") {
            "List" => {}
            "System" if spread.default_constraints.is_empty() => {}
            "System" => {
                let text =
                    "of the type System there are no constraints of one's own; write defaultingType: List";
                self.add(format!("{place}.defaultConstraints"), text);
            }
            other => {
                self.add(format!("{place}.defaultingType"), format!("{other:?}; write List or System"));
            }
        }
        let constraints = spread.default_constraints.into_iter();
        // kube-scheduler puts the selector that it deduces in place of what these keys would add to one.
        let without_keys = |rule| TopologySpreadConstraint { match_label_keys: None, ..rule };
        self.constraints(constraints.map(without_keys).collect(), &format!("{place}.defaultConstraints"))
    }

    fn constraints(
        &mut self,
        rules: Vec<TopologySpreadConstraint>,
        place: &str,
    ) -> Box<[TopologySpreadConstraint]> {
        let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (at, rule) in rules.iter().enumerate() {
            let place = |field: &str| format!("{place}[{at}].{field}");
            if rule.max_skew <= 0 {
                self.add(place("maxSkew"), format!("{}; write 1 or more", rule.max_skew));
            }
            if !is_qualified(&rule.topology_key) {
                let text = format!("{:?} is no label; write one of nodes", rule.topology_key);
                self.add(place("topologyKey"), text);
            }
            if !["DoNotSchedule", "ScheduleAnyway"].contains(&&*rule.when_unsatisfiable) {
                let text = format!("{:?}; write DoNotSchedule or ScheduleAnyway", rule.when_unsatisfiable);
                self.add(place("whenUnsatisfiable"), text);
            }
            if rule.label_selector.is_some() {
                let text = "it is deduced for each pod from its Services and its controller; leave it out";
                self.add(place("labelSelector"), text);
            }
            let key = (rule.topology_key.clone(), rule.when_unsatisfiable.clone());
            if let Some(first) = seen.insert(key, at) {
                let text = format!(
                    "{} and {} are there twice; leave one out",
                    rule.topology_key, rule.when_unsatisfiable
                );
                self.add(place("topologyKey"), format!("{text} (the other is [{first}])"));
            }
        }
        rules.into()
    }

    fn added(&mut self, args: &Value, place: &str) -> Box<[NodeSelectorTerm]> {
        self.only(args, place, &["apiVersion", "kind", "addedAffinity"]);
        let args: NodeAffinityArgs = self.part(args, place);
        let required =
            args.added_affinity.and_then(|added| added.required_during_scheduling_ignored_during_execution);
        let Some(required) = required else { return Box::default() };
        let place =
            format!("{place}.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            self.add(&place, "no term lets pods nowhere; write one, or leave it out");
        }
        for (at, term) in required.node_selector_terms.iter().enumerate() {
            let place = format!("{place}[{at}]");
            let expressions = term.match_expressions.iter().flatten().enumerate();
            for (at, expression) in expressions {
                self.expression(expression, &format!("{place}.matchExpressions[{at}]"));
            }
            for (at, field) in term.match_fields.iter().flatten().enumerate() {
                self.field(field, &format!("{place}.matchFields[{at}]"));
            }
        }
        required.node_selector_terms.into()
    }

    fn expression(&mut self, asked: &NodeSelectorRequirement, place: &str) {
        if !is_qualified(&asked.key) {
            self.add(format!("{place}.key"), format!("{:?} is no label; write one of nodes", asked.key));
        }
        let values = asked.values.as_deref().unwrap_or_default();
        let wrong = match &*asked.operator {
            "In" | "NotIn" if values.is_empty() => Some("write the values"),
            "Exists" | "DoesNotExist" if !values.is_empty() => Some("leave the values out"),
            "Gt" | "Lt" if !matches!(values, [one] if one.parse::<i64>().is_ok()) => {
                Some("write one whole number as its value")
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => None,
            _ => Some("write In, NotIn, Exists, DoesNotExist, Gt or Lt"),
        };
        if let Some(hint) = wrong {
            self.add(place, format!("operator {} with {} values; {hint}", asked.operator, values.len()));
        }
    }

    fn field(&mut self, asked: &NodeSelectorRequirement, place: &str) {
        let values = asked.values.as_deref().unwrap_or_default();
        let known = asked.key == "metadata.name" && matches!(&*asked.operator, "In" | "NotIn");
        if !known || values.len() != 1 {
            let text = format!("{} {} with {} values", asked.key, asked.operator, values.len());
            self.add(place, format!("{text}; write metadata.name, In or NotIn, and one value"));
        }
    }
}

/// Whether it is `NAME` or `DOMAIN/NAME`, as labels and resources are called.
fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_domain(prefix) && is_name(name, LONGEST_NAME),
        None => is_name(text, LONGEST_NAME),
    }
}

fn is_domain(text: &str) -> bool {
    let is_part = |part: &str| {
        is_name(part, LONGEST_PREFIX) && part.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    text.len() <= LONGEST_PREFIX && text.split('.').all(is_part)
}

fn is_name(text: &str, longest: usize) -> bool {
    let inside = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= longest
        && bytes.iter().all(|it| inside(*it))
        && ends.into_iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}
