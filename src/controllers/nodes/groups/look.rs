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
                let devices = slices.get(&node.name).map(|own| own.as_slice().into());
                let fresh = fresh(node);
                told.note(&group.id, ONE_TYPE, &fresh.declared, now);
                (Node { slices: devices, ..fresh }, Vec::new())
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
        templates.insert(group.id.clone(), template::with_daemon_pods(node, pods, &daemon_sets, force_ds));
    }
    told.forget(now);
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
