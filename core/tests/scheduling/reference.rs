//! The reference: every question is answered from the list of pods, with loops and strings.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{NodeSelectorRequirement, PodAffinityTerm, Taint, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use tandem_core::scheduling::{Node, Pod, Reason, Resources, Surroundings};

type Labels = BTreeMap<String, String>;

/// Nodes that may be there, and the pods on them.
#[derive(Debug, Clone)]
pub(crate) struct World {
    nodes: Vec<Node>,
    present: BTreeSet<usize>,
    namespaces: BTreeMap<String, Labels>,
    pub(crate) bound: Vec<(Pod, usize)>,
    pub(crate) nominated: Vec<(Pod, usize)>,
}

impl World {
    pub(crate) fn new(nodes: Vec<Node>, surroundings: &Surroundings) -> Self {
        let namespaces =
            surroundings.namespaces.iter().map(|(name, labels)| (name.to_string(), labels.clone())).collect();
        Self { nodes, present: BTreeSet::new(), namespaces, bound: Vec::new(), nominated: Vec::new() }
    }

    pub(crate) fn add(&mut self, node: usize) {
        self.present.insert(node);
    }

    /// Adds a node that was not foreseen, and returns its place.
    pub(crate) fn add_new(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.present.insert(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// The places of the nodes that are there.
    pub(crate) fn present(&self) -> Vec<usize> {
        self.present.iter().copied().collect()
    }

    pub(crate) fn remove(&mut self, node: usize) {
        self.present.remove(&node);
        self.bound.retain(|(_, at)| *at != node);
        self.nominated.retain(|(_, at)| *at != node);
    }

    pub(crate) fn used(&self, node: usize) -> Resources {
        let mut used = Resources::default();
        for (pod, _) in self.bound.iter().filter(|(_, at)| *at == node) {
            used.add(&pod.shape.requests);
        }
        used.other.retain(|_, amount| *amount != 0);
        used
    }

    /// Twice if pods of the same or a higher priority are expected on the node: without them, and with them.
    pub(crate) fn check(&self, pod: &Pod, node: usize) -> Result<(), Reason> {
        self.filters(pod, node)?;
        let priority = |pod: &Pod| pod.shape.priority.unwrap_or(0);
        let expected =
            self.nominated.iter().filter(|(other, at)| *at == node && priority(other) >= priority(pod));
        let mut with = self.clone();
        with.bound.extend(expected.cloned());
        with.filters(pod, node)
    }

    fn filters(&self, pod: &Pod, at: usize) -> Result<(), Reason> {
        let node = &self.nodes[at];
        let shape = &pod.shape;
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        if node.unschedulable && !shape.tolerations.iter().any(|toleration| tolerates(toleration, &cordon)) {
            return Err(Reason::Unschedulable);
        }
        if !taints_tolerated(pod, node) {
            return Err(Reason::Taint);
        }
        if !selects(pod, node) {
            return Err(Reason::NodeAffinity);
        }
        let here = || self.bound.iter().filter(|(_, other)| *other == at).map(|(pod, _)| pod);
        let every = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        let collides = here().flat_map(|pod| &pod.shape.ports).any(|taken| {
            shape.ports.iter().any(|port| {
                port.port == taken.port && (every(&port.ip) || every(&taken.ip) || port.ip == taken.ip)
            })
        });
        if collides {
            return Err(Reason::Ports);
        }
        self.resources(pod, at)?;
        let is_taken = here().flat_map(|pod| &pod.shape.disks).any(|taken| {
            shape.disks.iter().any(|disk| disk.id == taken.id && !(disk.is_shared && taken.is_shared))
        });
        if is_taken {
            return Err(Reason::Disk);
        }
        self.spread(pod, at)?;
        self.neighbours(pod, at)
    }

    fn resources(&self, pod: &Pod, at: usize) -> Result<(), Reason> {
        let node = &self.nodes[at];
        let used = self.used(at);
        let mut resources = Vec::new();
        let mut beyond_capacity = false;
        for name in ["pods", "cpu", "memory", "example.com/device"] {
            let (request, all) = (pod.shape.requests.get(name), node.allocatable.get(name));
            if request > 0 && request > all - used.get(name) {
                resources.push(name.into());
                beyond_capacity |= request > all;
            }
        }
        if resources.is_empty() {
            Ok(())
        } else {
            Err(Reason::Insufficient { resources: resources.into(), beyond_capacity })
        }
    }

    fn spread(&self, pod: &Pod, at: usize) -> Result<(), Reason> {
        let hard: Vec<_> =
            pod.shape.spread.iter().filter(|rule| rule.when_unsatisfiable == "DoNotSchedule").collect();
        for rule in &hard {
            let selector = with_own(rule.label_selector.as_ref(), rule.match_label_keys.as_ref(), None, pod);
            let is_empty = selector.as_ref().is_some_and(|selector| {
                selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
                    && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
            });
            // By an empty selector kube-scheduler counts no pod that is there.
            let counted = |other: &Pod| {
                !is_empty
                    && other.deleting.is_none()
                    && other.shape.namespace == pod.shape.namespace
                    && matches(selector.as_ref(), &other.shape.labels)
            };
            let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
            for node in &self.present {
                if let Some(domain) = self.counts(pod, rule, &hard, *node) {
                    let pods = self.bound.iter().filter(|(other, on)| on == node && counted(other));
                    *counts.entry(domain).or_default() += u32::try_from(pods.count()).expect("few");
                }
            }
            let Some(domain) = self.nodes[at].labels.get(&rule.topology_key) else {
                return Err(Reason::SpreadLabel);
            };
            let enough = counts.len() >= usize::try_from(rule.min_domains.unwrap_or(1)).expect("few");
            let least = if enough { counts.values().min().copied().unwrap_or(0) } else { 0 };
            let itself = u32::from(matches(selector.as_ref(), &pod.shape.labels));
            let there = counts.get(domain.as_str()).copied().unwrap_or(0);
            if there + itself > least + u32::try_from(rule.max_skew).expect("few") {
                return Err(Reason::Spread);
            }
        }
        Ok(())
    }

    /// The domain that a node counts in, if it counts for the rule.
    fn counts(
        &self,
        pod: &Pod,
        rule: &TopologySpreadConstraint,
        hard: &[&TopologySpreadConstraint],
        node: usize,
    ) -> Option<&str> {
        let node = &self.nodes[node];
        let honors_affinity = rule.node_affinity_policy.as_deref() != Some("Ignore");
        let honors_taints = rule.node_taints_policy.as_deref() == Some("Honor");
        let counts = hard.iter().all(|rule| node.labels.contains_key(&rule.topology_key))
            && (!honors_affinity || selects(pod, node))
            && (!honors_taints || taints_tolerated(pod, node));
        if counts { node.labels.get(&rule.topology_key).map(String::as_str) } else { None }
    }

    fn neighbours(&self, pod: &Pod, at: usize) -> Result<(), Reason> {
        let node = &self.nodes[at];
        let near = near(pod);
        let every_term = |other: &Pod| near.iter().all(|term| self.means(term, pod, other));
        let same_domain = |term: &PodAffinityTerm, other: usize| {
            let key = &term.topology_key;
            node.labels.contains_key(key) && node.labels.get(key) == self.nodes[other].labels.get(key)
        };
        if near.iter().any(|term| !node.labels.contains_key(&term.topology_key)) {
            return Err(Reason::PodAffinity);
        }
        let there = |term: &PodAffinityTerm| {
            self.bound.iter().any(|(other, on)| every_term(other) && same_domain(term, *on))
        };
        if !near.iter().all(there) {
            let anywhere = self.bound.iter().any(|(other, on)| {
                every_term(other)
                    && near.iter().any(|term| self.nodes[*on].labels.contains_key(&term.topology_key))
            });
            if anywhere || !every_term(pod) {
                return Err(Reason::PodAffinity);
            }
        }
        for term in apart(pod) {
            if self.bound.iter().any(|(other, on)| self.means(term, pod, other) && same_domain(term, *on)) {
                return Err(Reason::PodAntiAffinity);
            }
        }
        for (other, on) in &self.bound {
            if apart(other).iter().any(|term| self.means(term, other, pod) && same_domain(term, *on)) {
                return Err(Reason::ExistingAntiAffinity);
            }
        }
        Ok(())
    }

    /// Whether a term of a pod's affinity means another pod.
    fn means(&self, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
        let namespace = other.shape.namespace.to_string();
        let listed = term.namespaces.as_deref().unwrap_or_default();
        let own = listed.is_empty() && term.namespace_selector.is_none();
        let selected = term
            .namespace_selector
            .as_ref()
            .is_some_and(|it| matches(Some(it), &self.namespaces[&namespace]));
        let (keys, not) = (term.match_label_keys.as_ref(), term.mismatch_label_keys.as_ref());
        let selector = with_own(term.label_selector.as_ref(), keys, not, owner);
        (listed.contains(&namespace) || selected || (own && other.shape.namespace == owner.shape.namespace))
            && matches(selector.as_ref(), &other.shape.labels)
    }
}

fn near(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.shape.affinity.as_ref().and_then(|all| all.pod_affinity.as_ref());
    affinity
        .and_then(|it| it.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

fn apart(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.shape.affinity.as_ref().and_then(|all| all.pod_anti_affinity.as_ref());
    affinity
        .and_then(|it| it.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

/// A selector with what `matchLabelKeys` and `mismatchLabelKeys` add.
fn with_own(
    selector: Option<&LabelSelector>,
    keys: Option<&Vec<String>>,
    not: Option<&Vec<String>>,
    pod: &Pod,
) -> Option<LabelSelector> {
    let mut selector = selector?.clone();
    let mut add = |key: &String, operator: &str| {
        if let Some(value) = pod.shape.labels.get(key) {
            selector.match_expressions.get_or_insert_default().push(
                k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                },
            );
        }
    };
    keys.into_iter().flatten().for_each(|key| add(key, "In"));
    not.into_iter().flatten().for_each(|key| add(key, "NotIn"));
    Some(selector)
}

fn matches(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return false };
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|one| holds(labels.get(&one.key), &one.operator, one.values.as_deref().unwrap_or_default()))
}

fn holds(value: Option<&String>, operator: &str, values: &[String]) -> bool {
    let number = |text: &String| text.parse::<i64>().ok();
    let compare = |than: fn(&i64, &i64) -> bool| {
        let (Some(value), Some(bound)) = (value.and_then(number), values.first().and_then(number)) else {
            return false;
        };
        than(&value, &bound)
    };
    match operator {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

fn selects(pod: &Pod, node: &Node) -> bool {
    let required = pod
        .shape
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.name.to_string();
    let of = |one: &NodeSelectorRequirement, value| {
        holds(value, &one.operator, one.values.as_deref().unwrap_or_default())
    };
    pod.shape.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| {
                let expressions = term.match_expressions.as_deref().unwrap_or_default();
                let fields = term.match_fields.as_deref().unwrap_or_default();
                !(expressions.is_empty() && fields.is_empty())
                    && expressions.iter().all(|one| of(one, node.labels.get(&one.key)))
                    && fields.iter().all(|one| of(one, Some(&name)))
            })
        })
}

fn taints_tolerated(pod: &Pod, node: &Node) -> bool {
    node.taints
        .iter()
        .filter(|taint| taint.effect != "PreferNoSchedule")
        .all(|taint| pod.shape.tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let of_taint = taint.value.as_deref().unwrap_or_default();
    let numbers = of_taint.parse::<i64>().ok().zip(value.parse::<i64>().ok());
    if toleration.effect.as_ref().is_some_and(|effect| *effect != taint.effect)
        || !(key.is_empty() || key == taint.key)
    {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        Some("Lt") => numbers.is_some_and(|(taint, bound)| taint < bound),
        Some("Gt") => numbers.is_some_and(|(taint, bound)| taint > bound),
        _ => !key.is_empty() && value == of_taint,
    }
}
