//! Providers of nodes on the real API server: kwok's, Cluster API's, and nodes as bytes behind a gRPC server.

use anyhow::{Context, Result, ensure};
use harness::{source_tree, wait};
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::{
    Client,
    api::{Api, ListParams},
};
use serde_json::{Value, json};
use tandem::cloud::{CloudError, CloudProvider, NodeRef, kwok::Kwok};
use tandem_core::{
    nodes::group::{InstanceState, NodeGroup},
    scheduling::Node,
};

use crate::case::{Case, SOON};

/// The annotation that names the group of a node that kwok plays.
const KWOK_GROUP: &str = "cluster-autoscaler.kwok.nodegroup/name";

/// Groups come from a ConfigMap, and nodes come and go as they are asked for.
pub(crate) async fn kwok(case: &Case<'_>) -> Result<()> {
    let namespace = &case.namespace;
    let client = restricted(case, &["node-groups", "provider-kwok"]).await?;
    let missing = Kwok::connect(client.clone(), namespace, "kwok-provider-config").await;
    let missing = missing.err().context("a ConfigMap that is not there")?.to_string();
    ensure!(missing.contains("kwok-provider-config: it does not exist"), "{missing}");
    kwok_config(case).await?;
    let provider = Kwok::connect(client, namespace, "kwok-provider-config").await?;
    ensure!(provider.gpu_label() == "example.com/gpu");

    let (groups, left_out) = provider.groups().await?;
    let [group] = &groups[..] else { anyhow::bail!("{groups:?}") };
    ensure!((&*group.id, group.min, group.max, group.target) == ("e2e-small", 1, 3, 0), "{group:?}");
    ensure!(left_out.len() == 1 && left_out[0].1.to_string().contains("min-count"), "{left_out:?}");

    provider.increase("e2e-small", 0, 2).await?;
    provider.increase("e2e-small", 0, 2).await?;
    let nodes: Api<ApiNode> = Api::all(case.client());
    let made = wait::until("two ready nodes of the group", SOON, || async {
        let ready: Vec<Node> = made_nodes(&nodes).await?.into_iter().filter(|node| node.ready).collect();
        ensure!(ready.len() == 2, "{ready:?}");
        Ok(ready)
    })
    .await?;
    let error = provider.increase("e2e-small", 2, 2).await;
    ensure!(matches!(error, Err(CloudError::Refused { .. })), "{error:?}");

    let (groups, _) = provider.groups().await?;
    ensure!(groups[0].target == 2 && groups[0].instances.len() == 2, "{groups:?}");
    for node in &made {
        let of = provider.group_of(&NodeRef::from(node), &groups).await?;
        ensure!(of.as_deref() == Some("e2e-small"), "{node:?}");
        ensure!(node.taint("kwok-provider").is_some() && node.provider_id.starts_with("kwok:"), "{node:?}");
    }
    let template = provider.template("e2e-small").await?.context("no template")?;
    ensure!(template.node.allocatable.cpu == 3_000 && template.pods.len() == 1, "{template:?}");
    kwok_goes(&provider, &made).await?;
    ensure!(made_nodes(&nodes).await?.is_empty(), "cleanup left nodes");
    Ok(())
}

async fn kwok_goes(provider: &Kwok, made: &[Node]) -> Result<()> {
    let refused = |result: Result<(), CloudError>| matches!(result, Err(CloudError::Refused { .. }));
    let stranger = NodeRef { name: "node-0".into(), ..NodeRef::default() };
    ensure!(refused(provider.delete_nodes("e2e-small", &[stranger]).await), "a node that kwok does not play");
    let (one, other) = (NodeRef::from(&made[0]), NodeRef::from(&made[1]));
    let both = [one.clone(), other.clone()];
    ensure!(refused(provider.delete_nodes("e2e-small", &both).await), "below the minimum");
    provider.delete_nodes("e2e-small", std::slice::from_ref(&one)).await?;
    provider.delete_nodes("e2e-small", &[one]).await.context("a node that is gone is gone")?;
    let (groups, _) = provider.groups().await?;
    ensure!(groups[0].target == 1 && groups[0].instances[0].id == other.provider_id, "{groups:?}");
    ensure!(provider.decrease_target("e2e-small", 2, 1).await.is_ok(), "nothing to cancel");
    ensure!(refused(provider.decrease_target("e2e-small", 1, 1).await), "an existing node");
    provider.cleanup().await?;
    Ok(())
}

async fn made_nodes(nodes: &Api<ApiNode>) -> Result<Vec<Node>> {
    let all = nodes.list(&ListParams::default()).await?;
    let ours = |node: &Node| node.annotations.get(KWOK_GROUP).is_some_and(|group| group == "e2e-small");
    Ok(all.iter().map(Node::read).filter(ours).collect())
}

async fn kwok_config(case: &Case<'_>) -> Result<()> {
    let config = "
apiVersion: v1alpha1
readNodesFrom: configmap
nodegroups: {fromNodeLabelKey: pool}
nodes: {gpuConfig: {gpuLabelKey: example.com/gpu, availableGPUTypes: {k80: {}}}}
configmap: {name: kwok-provider-templates}
";
    let templates = "
apiVersion: v1
kind: List
items:
- kind: Node
  metadata:
    name: small
    labels: {pool: e2e-small, kubernetes.io/hostname: small}
    annotations:
      cluster-autoscaler.kwok.nodegroup/min-count: '1'
      cluster-autoscaler.kwok.nodegroup/max-count: '3'
  spec: {podCIDR: 10.244.2.0/24, podCIDRs: [10.244.2.0/24], providerID: kind://small}
  status: {capacity: {cpu: '4', memory: 8Gi, pods: '110'}, allocatable: {cpu: '3', memory: 7Gi, pods: '110'}}
- kind: Node
  metadata:
    name: odd
    labels: {pool: e2e-odd}
    annotations: {cluster-autoscaler.kwok.nodegroup/min-count: few}
";
    for (name, key, text) in
        [("kwok-provider-config", "config", config), ("kwok-provider-templates", "templates", templates)]
    {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: text},
        });
        case.apply(map).await?;
    }
    Ok(())
}

/// A client with the rights that these manifests grant beyond the install's, and no others.
pub(crate) async fn restricted(case: &Case<'_>, manifests: &[&str]) -> Result<Client> {
    let account = format!("{}-provider", case.namespace);
    let subject = json!({ "kind": "ServiceAccount", "name": account, "namespace": case.namespace });
    case.apply(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": account } }))
        .await?;
    for name in ["install"].iter().chain(manifests) {
        let file = std::fs::read_to_string(source_tree().join(format!("manifests/{name}.yaml")))?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&file)?;
        // Roles of the whole cluster, under names of their own: the Tandem of the other scenarios keeps what it has.
        for mut role in objects.into_iter().filter(|object| object["kind"] == "ClusterRole") {
            let name = format!("{account}-{}", role["metadata"]["name"].as_str().unwrap_or_default());
            let metadata = json!({ "name": name });
            role["metadata"] = metadata.clone();
            case.kubectl_apply(&role).await?;
            case.kubectl_apply(&json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata,
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
                "subjects": [subject],
            }))
            .await?;
        }
    }
    let kubeconfig = case.world.control_plane.kubeconfig_of(&case.namespace, &account).await?;
    let client = harness::control_plane::client(&kubeconfig).await?;
    // The API server learns of the binding that was made last a moment later.
    let nodes: Api<ApiNode> = Api::all(client.clone());
    wait::until("the rights", SOON, || async { Ok(nodes.list(&ListParams::default().limit(1)).await?) })
        .await?;
    Ok(client)
}

/// The group of this id.
pub(crate) fn group<'a>(groups: &'a [NodeGroup], id: &str) -> Result<&'a NodeGroup> {
    groups.iter().find(|group| *group.id == *id).with_context(|| format!("{id} is none of {groups:?}"))
}

/// The ids and states of a group's instances.
pub(crate) fn states(group: &NodeGroup) -> Vec<(&str, &InstanceState)> {
    group.instances.iter().map(|instance| (&*instance.id, &instance.state)).collect()
}
