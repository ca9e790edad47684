//! What a pass sees: the provider's groups, and the cluster around them. Nothing is written.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use jiff::Timestamp;
use tandem_core::{
    nodes::{
        group::{NodeGroup, Template},
        pass::Input,
        template::{self, PassingTaints},
        told::Learned,
    },
    scheduling::{Node, devices::Slice},
};

use crate::{
    cloud::{CloudError, CloudProvider},
    cluster::world::World,
};

/// The provider's groups, in order of name, each once; and what is wrong with others, which are left alone.
///
/// # Errors
/// The provider does not say.
pub async fn groups(provider: &dyn CloudProvider) -> Result<(Vec<NodeGroup>, Vec<String>), CloudError> {
    let (mut groups, unreadable) = provider.groups().await?;
    let text = |(group, error)| format!("node group {group} cannot be read and is left alone: {error}");
    let mut problems: Vec<_> = unreadable.into_iter().map(text).collect();
    groups.sort_by(|one, other| one.id.cmp(&other.id));
    groups.dedup_by(|one, other| {
        let twice = one.id == other.id;
        if twice {
            problems.push(format!("the provider lists node group {} twice; the first counts", one.id));
        }
        twice
    });
    problems.sort();
    problems.dedup();
    Ok((groups, problems))
}

/// The places of each group's nodes among `nodes`.
pub(super) fn by_group(nodes: &[Arc<Node>], groups: &[NodeGroup]) -> HashMap<Arc<str>, Vec<usize>> {
    let group_of: HashMap<&str, &Arc<str>> = groups
        .iter()
        .flat_map(|group| group.instances.iter().map(|instance| (&*instance.id, &group.id)))
        .collect();
    let mut places: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
    for (place, node) in nodes.iter().enumerate() {
        if let Some(group) = group_of.get(&*node.provider_id) {
            places.entry((*group).clone()).or_default().push(place);
        }
    }
    places
}

/// Nodes of no group, by name, as the last pass saw them.
#[derive(Debug, Default)]
pub struct Strangers(BTreeSet<Arc<str>>);

impl Strangers {
    /// Whether one has come while a group waits for nodes: it may be one of them whose machine was not there when groups were
    /// read, and would count twice, as itself and as one that is on its way.
    pub(super) fn come(&mut self, nodes: &[Arc<Node>], groups: &[NodeGroup]) -> bool {
        let by_group = by_group(nodes, groups);
        let known: BTreeSet<usize> = by_group.values().flatten().copied().collect();
        let strangers = nodes.iter().enumerate().filter(|(place, _)| !known.contains(place));
        let now = strangers.map(|(_, node)| node.name.clone()).collect();
        let before = mem::replace(&mut self.0, now);
        let waits = |group: &NodeGroup| {
            let there = by_group.get(&group.id).map_or(0, Vec::len);
            usize::try_from(group.target).is_ok_and(|target| target > there)
        };
        !self.0.is_subset(&before) && groups.iter().any(waits)
    }
}

/// Nodes of a group are all alike: what they tell is kept without their instance type.
const ONE_TYPE: &str = "";

/// The cluster, and what new nodes of these groups would look like. What only the running process knows is left empty:
/// expected pods, and removals under way. `force_ds` says what becomes of DaemonSets that are too large for a node. The nodes
/// are those that were there before the groups were read: one that has come since is on its way as far as these know.
pub async fn look(
    world: &World,
    provider: &dyn CloudProvider,
    passing: &PassingTaints,
    told: &mut Learned,
    force_ds: bool,
    (nodes, groups): (Vec<Arc<Node>>, Vec<NodeGroup>),
) -> Input {
    let now = Timestamp::now();
    let mut nodes: Vec<_> = nodes.into_iter().map(|node| passing.unready(node)).collect();
    let surroundings = Arc::new(world.surroundings());
    let slices = surroundings.devices.as_ref().map(|devices| devices.by_node()).unwrap_or_default();
    let daemon_sets = world.daemon_sets.all();
    let mut templates = BTreeMap::new();
    let by_group = by_group(&nodes, &groups);
    for group in &groups {
        let mut own = by_group.get(&group.id).into_iter().flatten().map(|place| &nodes[*place]);
        let fresh = |node: &Node| template::fresh(node, &group.id, passing, &surroundings);
        let (node, pods) = match template::model(own.clone(), &slices, now) {
            Some(node) => {
                let published: Option<Arc<[_]>> = slices.get(&node.name).map(|own| own.as_slice().into());
                told.note_devices(&group.id, node, published.as_ref(), now);
                let fresh = fresh(node);
                told.note(&group.id, ONE_TYPE, &fresh.declared, now);
                (Node { slices: told.devices_of(&group.id).cloned(), ..fresh }, Vec::new())
            }
            None => match provider.template(&group.id).await {
                Ok(Some(Template { node, pods })) => {
                    // The first that runs tells at once what the provider cannot.
                    if let Some(first) = own.find(|node| node.ready) {
                        told.note(&group.id, ONE_TYPE, &fresh(first).declared, now);
                    }
                    let mut node = fresh(&node);
                    if let Some(declared) = told.of(&group.id).known(ONE_TYPE) {
                        node.declared = declared.clone();
                    }
                    node.slices = told.devices_of(&group.id).cloned();
                    (node, pods)
                }
                Ok(None) => continue,
                Err(error) => {
                    let group = &group.id;
                    tracing::warn!(%group, %error, "it is not known what nodes of this group look like; it cannot grow");
                    continue;
                }
            },
        };
        let template = template::with_daemon_pods(node, pods, &daemon_sets, force_ds, &surroundings);
        templates.insert(group.id.clone(), template);
    }
    told.forget(now);
    told.retain_groups(|id| groups.iter().any(|group| *group.id == *id));
    if !slices.is_empty() {
        await_devices(&mut nodes, &by_group, &templates, &slices, now);
    }
    Input {
        now,
        nodes,
        pods: world.pods.all(),
        expected: Vec::new(),
        requests: Vec::new(),
        daemon_sets,
        budgets: world.budgets(),
        owners: Some(world.owners()),
        surroundings,
        groups,
        templates,
        removing: BTreeMap::new(),
        quotas: Vec::new(),
    }
}

/// Nodes are not ready as long as their devices have yet to be published.
fn await_devices(
    nodes: &mut [Arc<Node>],
    by_group: &HashMap<Arc<str>, Vec<usize>>,
    templates: &BTreeMap<Arc<str>, Template>,
    slices: &BTreeMap<Arc<str>, Vec<Arc<Slice>>>,
    now: Timestamp,
) {
    for (group, template) in templates.iter().filter(|(_, template)| template.node.slices.is_some()) {
        for place in by_group.get(group).into_iter().flatten() {
            let node = &mut nodes[*place];
            let published = slices.get(&node.name).map_or(&[][..], Vec::as_slice);
            if node.ready && template::awaits_devices(&template.node, node, published, now) {
                *node = Arc::new(Node { ready: false, ..(**node).clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tandem_core::nodes::group::{GroupOptions, Instance, InstanceState};

    use super::*;
    use crate::cloud::NodeRef;

    #[test]
    fn a_node_of_no_group_may_be_one_that_a_group_waits_for() {
        let node = |name: &str| Node { name: name.into(), provider_id: name.into(), ..Node::default() };
        let nodes = ["a", "b", "c"].map(|name| Arc::new(node(name)));
        let with = |target: u32, members: &[&str]| {
            let of = |id: &&str| Instance { id: (*id).into(), state: InstanceState::Running };
            [NodeGroup { target, instances: members.iter().map(of).collect(), ..group("g", 5) }]
        };
        let mut strangers = Strangers::default();
        for (nodes, groups, come, why) in [
            (&nodes[..1], with(1, &["a"]), false, "it is the group's"),
            (&nodes[..2], with(1, &["a"]), false, "nobody waits for it"),
            (&nodes[..2], with(2, &["a"]), false, "it was there before anybody waited"),
            (&nodes[..], with(2, &["a"]), true, "it has come"),
            (&nodes[..], with(2, &["a"]), false, "it is known to be nobody's"),
            (&nodes[..], with(3, &["a", "b", "x"]), false, "one that was a stranger is the group's"),
        ] {
            assert_eq!(strangers.come(nodes, &groups), come, "{why}");
        }
        assert_eq!(by_group(&nodes, &with(3, &["c", "a"]))["g"], [0, 2]);
    }

    /// A provider that lists a group twice and cannot read another.
    struct Confused;

    fn group(id: &str, max: u32) -> NodeGroup {
        let (instances, options) = (Vec::new(), GroupOptions::default());
        NodeGroup { id: id.into(), min: 0, max, target: 0, instances, options }
    }

    #[async_trait]
    impl CloudProvider for Confused {
        fn name(&self) -> &'static str {
            "confused"
        }

        async fn groups(&self) -> Result<(Vec<NodeGroup>, Vec<(String, CloudError)>), CloudError> {
            let groups = vec![group("b", 1), group("a", 1), group("a", 2), group("a", 3)];
            Ok((groups, vec![("c".to_owned(), CloudError::NotFound("Auto Scaling group c".to_owned()))]))
        }

        async fn template(&self, _: &str) -> Result<Option<Template>, CloudError> {
            Ok(None)
        }

        async fn increase(&self, _: &str, _: u32, _: u32) -> Result<(), CloudError> {
            Ok(())
        }

        async fn delete_nodes(&self, _: &str, _: &[NodeRef]) -> Result<(), CloudError> {
            Ok(())
        }

        async fn decrease_target(&self, _: &str, _: u32, _: u32) -> Result<(), CloudError> {
            Ok(())
        }

        fn gpu_label(&self) -> &'static str {
            ""
        }
    }

    #[tokio::test]
    async fn each_group_counts_once_and_what_is_wrong_is_said() {
        let (groups, problems) = groups(&Confused).await.unwrap();
        let groups: Vec<_> = groups.iter().map(|group| (&*group.id, group.max)).collect();
        assert_eq!(groups, [("a", 1), ("b", 1)]);
        assert_eq!(
            problems,
            [
                "node group c cannot be read and is left alone: Auto Scaling group c does not exist",
                "the provider lists node group a twice; the first counts",
            ]
        );
    }
}
