//! What a pass sees: the provider's groups, and the cluster around them. Nothing is written.

use std::{collections::BTreeMap, sync::Arc};

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

/// Nodes of a group are all alike: what they tell is kept without their instance type.
const ONE_TYPE: &str = "";

/// The cluster, and what new nodes of these groups would look like. What only the running process knows is left empty:
/// expected pods, and removals under way. `force_ds` says what becomes of DaemonSets that are too large for a node.
pub async fn look(
    world: &World,
    provider: &dyn CloudProvider,
    passing: &PassingTaints,
    told: &mut Learned,
    force_ds: bool,
    groups: Vec<NodeGroup>,
) -> Input {
    let now = Timestamp::now();
    let mut nodes: Vec<_> = world.nodes().into_iter().map(|node| passing.unready(node)).collect();
    let surroundings = Arc::new(world.surroundings());
    let slices = surroundings.devices.as_ref().map(|devices| devices.by_node()).unwrap_or_default();
    let daemon_sets = world.daemon_sets.all();
    let mut templates = BTreeMap::new();
    for group in &groups {
        let of_group =
            |node: &&Arc<Node>| group.instances.iter().any(|instance| instance.id == node.provider_id);
        let fresh = |node: &Node| template::fresh(node, &group.id, passing, &surroundings);
        let (node, pods) = match template::model(nodes.iter().filter(of_group), &slices, now) {
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
                    if let Some(first) = nodes.iter().find(|node| node.ready && of_group(node)) {
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
        await_devices(&mut nodes, &groups, &templates, &slices, now);
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
    groups: &[NodeGroup],
    templates: &BTreeMap<Arc<str>, Template>,
    slices: &BTreeMap<Arc<str>, Vec<Arc<Slice>>>,
    now: Timestamp,
) {
    for group in groups {
        let template = templates.get(&group.id).filter(|template| template.node.slices.is_some());
        let Some(Template { node: template, .. }) = template else { continue };
        let own = nodes.iter_mut().filter(|node| {
            node.ready && group.instances.iter().any(|instance| instance.id == node.provider_id)
        });
        for node in own {
            let published = slices.get(&node.name).map_or(&[][..], Vec::as_slice);
            if template::awaits_devices(template, node, published, now) {
                *node = Arc::new(Node { ready: false, ..(**node).clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tandem_core::nodes::group::GroupOptions;

    use super::*;
    use crate::cloud::NodeRef;

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
