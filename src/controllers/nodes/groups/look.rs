//! What a pass sees: the provider's groups, and the cluster around them. Nothing is written.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use tandem_core::{
    nodes::{
        group::{NodeGroup, Template},
        pass::Input,
        template::{self, PassingTaints},
    },
    scheduling::Node,
};

use crate::{
    cloud::{CloudError, CloudProvider},
    cluster::world::World,
};

/// The provider's groups, in order of name, each once.
///
/// # Errors
/// The provider does not say.
pub async fn groups(provider: &dyn CloudProvider) -> Result<Vec<NodeGroup>, CloudError> {
    let (mut groups, unreadable) = provider.groups().await?;
    for (group, error) in &unreadable {
        tracing::warn!(group, %error, "node group cannot be read and is left alone");
    }
    groups.sort_by(|one, other| one.id.cmp(&other.id));
    groups.dedup_by(|one, other| {
        let twice = one.id == other.id;
        if twice {
            tracing::warn!(group = %one.id, "the provider lists this node group twice; the first counts");
        }
        twice
    });
    Ok(groups)
}

/// The cluster, and what new nodes of these groups would look like. What only the running process knows is left empty:
/// expected pods, and removals under way.
pub async fn look(
    world: &World,
    provider: &dyn CloudProvider,
    passing: &PassingTaints,
    groups: Vec<NodeGroup>,
) -> Input {
    let now = Timestamp::now();
    let nodes: Vec<_> = world.nodes().into_iter().map(|node| passing.unready(node)).collect();
    let daemon_sets = world.daemon_sets.all();
    let surroundings = Arc::new(world.surroundings());
    let mut templates = BTreeMap::new();
    for group in &groups {
        let of_group =
            |node: &&Arc<Node>| group.instances.iter().any(|instance| instance.id == node.provider_id);
        let model = nodes.iter().find(|node| template::is_model(node, now) && of_group(node));
        let fresh = |node: &Node| template::fresh(node, &group.id, passing, &surroundings);
        let (node, pods) = match model {
            Some(node) => (fresh(node), Vec::new()),
            None => match provider.template(&group.id).await {
                Ok(Some(Template { mut node, pods })) => {
                    // The first that runs tells at once what the provider cannot.
                    if let Some(first) = nodes.iter().find(|node| node.ready && of_group(node)) {
                        node.declared = first.declared.clone();
                    }
                    (fresh(&node), pods)
                }
                Ok(None) => continue,
                Err(error) => {
                    let group = &group.id;
                    tracing::warn!(%group, %error, "it is not known what nodes of this group look like; it cannot grow");
                    continue;
                }
            },
        };
        templates.insert(group.id.clone(), template::with_daemon_pods(node, pods, &daemon_sets));
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
    }
}
