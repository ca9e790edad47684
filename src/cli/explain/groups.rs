//! Node groups as the running process sees them, read without a trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tandem_core::nodes::{
    action::TO_BE_DELETED,
    pass::{Input, Memory, PassSettings},
    told::Learned,
};

use super::{OfNodes, buffers};
use crate::{
    cloud::provider,
    cluster::world::World,
    controllers::nodes::{
        capacity_quota::CapacityQuotas,
        groups::{
            injection::Injection,
            look::{groups, look},
            settings,
            status_map::remembered,
        },
        provisioning_request::{Requests, requests},
    },
};

/// What a pass would see now.
pub(super) struct Groups {
    pub(super) input: Input,
    pub(super) memory: Memory,
    pub(super) settings: PassSettings,
}

/// Looks at the provider that `--cloud-provider` names; `None` if it names none.
pub(super) async fn read(
    of: &OfNodes,
    client: &Client,
    world: &Arc<World>,
) -> anyhow::Result<Option<Groups>> {
    let Some(name) = of.nodes.provider() else { return Ok(None) };
    let settings = of.nodes.provider_settings();
    let provider = provider::connect(name, &settings, client.clone()).await?;
    let nodes = world.nodes();
    let (groups, problems) = groups(&*provider).await.context("the provider's node groups cannot be read")?;
    for problem in &problems {
        tracing::error!("{problem}");
    }
    let passing = settings::passing_taints(&of.nodes);
    let mut input =
        look(world, &*provider, &passing, &mut Learned::default(), of.nodes.force_ds, (nodes, groups)).await;
    // Whoever removes a node has put its taint on first.
    let leaves = |node: &&Arc<_>| -> bool {
        let node: &tandem_core::scheduling::Node = node;
        node.taint(TO_BE_DELETED).is_some()
    };
    input.removing =
        input.nodes.iter().filter(leaves).map(|node| (node.name.clone(), true)).collect::<BTreeMap<_, _>>();
    let buffers = buffers::read(of.nodes.capacity_buffer_pod_injection_enabled, client, world).await?;
    let pass = settings::pass(&of.nodes, &*provider);
    if let Some(mut injection) = Injection::new(&of.nodes) {
        input.expected = injection.expected(&input, &BTreeSet::new(), &pass.pending, world);
    }
    input.expected.extend(buffers.map(|buffers| buffers.pods()).unwrap_or_default());
    if of.nodes.enable_provisioning_requests {
        let instance = &of.nodes.check_capacity_processor_instance;
        let all = Requests::start(client, world, instance, false).await?;
        all.synced().await;
        input.requests = requests(&all.look(&input.pods, input.now));
    }
    if of.nodes.capacity_quotas_enabled {
        let quotas = CapacityQuotas::start(client, world, false).await?;
        quotas.synced().await;
        input.quotas = quotas.look(&input.nodes).await;
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &of.tandem_namespace);
    let memory = remembered(&maps, &of.nodes.status_config_map_name).await;
    Ok(Some(Groups { input, memory, settings: pass }))
}
