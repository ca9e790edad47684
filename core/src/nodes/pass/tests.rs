//! Passes over small clusters: what is decided, and what must never be.

mod buffers;
mod demand;
mod devices;
mod explain;
mod gangs;
mod gpus;
mod incremental;
mod pending;
mod properties;
mod quotas;
mod requests;
mod scale_down;
mod scale_up;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::*;
use crate::{
    nodes::{
        action::{Increase, Removal},
        drain::Budget,
        group::{GroupOptions, Instance, InstanceState},
    },
    scheduling::{
        HOSTNAME, Resources,
        pod::{Owner, Phase, Scheduled, Shape, Traits},
    },
};

/// Processor of every node, thousandths of a core.
const CPU: i64 = 4000;
/// The label that says which group a node is of.
const GROUP: &str = "group";

/// When a pass is made, minutes after the cluster was.
fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

/// The defaults, but nothing limits memory, several nodes are drained at once and none is only marked.
fn settings() -> PassSettings {
    let mut settings = PassSettings::default();
    settings.scale_up.max_memory = i64::MAX;
    settings.scale_down.drain_parallelism = 10;
    settings.scale_down.marks_at_once = 0;
    settings
}

/// A cluster in the making.
#[derive(Debug, Clone, Default)]
struct Cluster {
    input: Input,
    budgets: Vec<Budget>,
}

impl Cluster {
    /// Adds a group of `count` nodes that are ready.
    fn group(mut self, id: &str, (min, max): (u32, u32), count: u32) -> Self {
        let template = Template { node: node("template", Some(id)), pods: Vec::new() };
        self.input.templates.insert(id.into(), template);
        self.input.groups.push(NodeGroup {
            id: id.into(),
            min,
            max,
            target: 0,
            instances: Vec::new(),
            options: GroupOptions::default(),
        });
        for number in 0..count {
            self = self.instance(id, &format!("{id}-{number}"), true);
        }
        self
    }

    /// Adds an instance to a group, and its node if it has one.
    fn instance(mut self, group: &str, name: &str, has_node: bool) -> Self {
        for group in self.input.groups.iter_mut().filter(|other| &*other.id == group) {
            group.target += 1;
            group.instances.push(Instance { id: name.into(), state: InstanceState::Running });
        }
        if has_node {
            self.input.nodes.push(Arc::new(node(name, Some(group))));
        }
        self
    }

    /// Changes a node.
    fn with_node(mut self, name: &str, change: impl Fn(&mut Node)) -> Self {
        for node in self.input.nodes.iter_mut().filter(|node| &*node.name == name) {
            change(Arc::make_mut(node));
        }
        self
    }

    /// Adds pods of a size that wait for a node.
    fn waiting(mut self, count: usize, cpu: i64) -> Self {
        for _ in 0..count {
            let name = format!("waiting-{}", self.input.pods.len());
            let scheduled = Scheduled::Unschedulable(at(0));
            self.input.pods.push(Arc::new(Pod { scheduled, ..pod(&name, cpu) }));
        }
        self
    }

    /// Adds a pod that runs, after a change.
    fn running(mut self, node: &str, cpu: i64, change: impl Fn(&mut Shape)) -> Self {
        let name = format!("running-{}", self.input.pods.len());
        let mut running = Pod {
            node: Some(node.into()),
            scheduled: Scheduled::Bound,
            phase: Phase::Running,
            ready: true,
            ..pod(&name, cpu)
        };
        change(Arc::make_mut(&mut running.shape));
        self.input.pods.push(Arc::new(running));
        self
    }

    /// Changes the pod that was added last.
    fn last_pod(mut self, change: impl Fn(&mut Pod)) -> Self {
        self.input.pods.last_mut().into_iter().for_each(|pod| change(Arc::make_mut(pod)));
        self
    }

    /// Adds a budget for the pods of an app.
    fn budget(mut self, app: &str, allowed: i32) -> Self {
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        let selector = Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() });
        self.budgets.push(Budget { name: app.into(), selector, allowed, ..Budget::default() });
        self.input.budgets = Budgets::new(self.budgets.clone());
        self
    }

    /// A pass at a time, which chooses the first option.
    fn pass(&mut self, memory: &mut Memory, minute: i64, settings: &PassSettings) -> Outcome {
        self.input.now = at(minute);
        run(memory, &self.input, settings, &mut |_, options| (!options.is_empty()).then_some(0))
    }
}

fn node(name: &str, group: Option<&str>) -> Node {
    let capacity = Resources { cpu: CPU, memory: 16 << 30, pods: 110, ..Resources::default() };
    let hostname = (HOSTNAME.to_owned(), name.to_owned());
    let group = group.map(|group| (GROUP.to_owned(), group.to_owned()));
    Node {
        name: name.into(),
        provider_id: name.into(),
        labels: group.into_iter().chain([hostname]).collect(),
        allocatable: capacity.clone(),
        capacity,
        ready: true,
        created: Some(at(-600)),
        ..Node::default()
    }
}

fn pod(name: &str, cpu: i64) -> Pod {
    let owner = Owner {
        kind: "ReplicaSet".into(),
        name: "set".into(),
        uid: "set".into(),
        api_version: "apps/v1".into(),
    };
    let requests = Resources { cpu, memory: 1 << 20, pods: 1, ..Resources::default() };
    let shape = Shape::new(requests, Traits { owner: Some(owner), ..Traits::default() });
    Pod { name: name.into(), uid: name.into(), shape: Arc::new(shape), ..Pod::default() }
}

fn app(shape: &mut Shape, app: &str) {
    shape.labels.insert("app".to_owned(), app.to_owned());
}

/// The groups that grow, and to what size.
fn grown(outcome: &Outcome) -> Vec<(&str, u32)> {
    let increases = outcome.actions.iter().filter_map(|action| match action {
        Action::Increase(Increase { group, to, .. }) => Some((&**group, *to)),
        _ => None,
    });
    increases.collect()
}

fn removals(outcome: &Outcome) -> Vec<&Removal> {
    let removals = outcome.actions.iter().filter_map(|action| match action {
        Action::Remove(removal) => Some(removal),
        _ => None,
    });
    removals.collect()
}

/// The nodes that go.
fn removed(outcome: &Outcome) -> Vec<&str> {
    removals(outcome).into_iter().map(|removal| &*removal.node).collect()
}
