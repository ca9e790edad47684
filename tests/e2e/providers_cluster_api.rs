//! Cluster API's kinds on the real API server, with CRDs that hold what the provider reads. No controller of Cluster
//! API runs: the scenario plays it.

use anyhow::{Context, Result, ensure};
use harness::wait;
use kube::{Api, Client, api::DynamicObject};
use serde_json::{Value, json};
use tandem::cloud::{
    CloudError, CloudProvider, NodeRef,
    cluster_api::{ClusterApi, DEFAULT_ARCHITECTURE, DEFAULT_GROUP, Options, discovery::Discovery},
};
use tandem_core::nodes::group::InstanceState;

use crate::{
    case::{Case, SOON},
    providers::{group, restricted, states},
};

const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
const VERSION: &str = "cluster.x-k8s.io/v1beta2";

/// Groups are found by annotations, grow by their scale, and shrink by the machine that is chosen.
pub(crate) async fn cluster_api(case: &Case<'_>) -> Result<()> {
    crds(case).await?;
    objects(case).await?;
    let namespace = case.namespace.as_str();
    let client = restricted(case, &["node-groups", "provider-cluster-api"]).await?;
    let provider = connect(case, &client, None).await?;
    let (groups, left_out) = provider.groups().await?;
    let id = |kind: &str, name: &str| format!("{kind}/{namespace}/{name}");
    let ids: Vec<_> = groups.iter().map(|group| group.id.to_string()).collect();
    let wanted = [id("MachineDeployment", "web"), id("MachinePool", "pool"), id("MachineSet", "lone")];
    ensure!(ids == wanted, "{ids:?}");
    let left_out: Vec<_> = left_out.iter().map(|(id, error)| format!("{id}: {error}")).collect();
    ensure!(left_out.len() == 2, "{left_out:?}");
    ensure!(left_out[0].contains("broken") && left_out[0].contains("no number of nodes"), "{left_out:?}");
    ensure!(left_out[1].contains("mute") && left_out[1].contains("annotate it with"), "{left_out:?}");

    let web = group(&groups, &wanted[0])?;
    ensure!((web.min, web.max, web.target) == (1, 3, 2), "{web:?}");
    ensure!(web.options.utilization_threshold == Some(0.25), "{web:?}");
    let pending = format!("pending-machine-{namespace}_web-b");
    let seen = states(web);
    let wanted_states =
        [("test:///z/web-a", &InstanceState::Running), (&*pending, &InstanceState::Creating(None))];
    ensure!(seen == wanted_states, "{seen:?}");
    ensure!(states(group(&groups, &wanted[1])?) == [("test:///z/pool-a", &InstanceState::Running)]);

    let by_id = NodeRef { provider_id: "other:///web-a".into(), ..NodeRef::default() };
    ensure!(provider.group_of(&by_id, &groups).await?.as_deref() == Some(&*wanted[0]));
    let annotation = |key: &str, value: &str| (format!("{DEFAULT_GROUP}/{key}"), value.to_owned());
    let annotations = [annotation("machine", "web-b"), annotation("cluster-namespace", namespace)].into();
    let by_annotation = NodeRef { annotations, ..NodeRef::default() };
    ensure!(provider.group_of(&by_annotation, &groups).await?.as_deref() == Some(&*wanted[0]));
    ensure!(provider.group_of(&NodeRef::default(), &groups).await?.is_none());

    let template = provider.template(&wanted[2]).await?.context("lone has a machine template")?;
    ensure!((template.node.capacity.cpu, template.node.capacity.memory) == (2_000, 4 << 30), "{template:?}");
    ensure!(template.node.labels["kubernetes.io/arch"] == "arm64", "{template:?}");
    sizes(case, &provider, &wanted[0], &by_id).await?;
    versions(case, &client).await
}

async fn sizes(case: &Case<'_>, provider: &ClusterApi, web: &str, node: &NodeRef) -> Result<()> {
    let deployments = case.api(VERSION, "MachineDeployment").await?;
    let machines = case.api(VERSION, "Machine").await?;
    let refused = |result: Result<(), CloudError>| matches!(result, Err(CloudError::Refused { .. }));
    for _ in 0..2 {
        provider.delete_nodes(web, std::slice::from_ref(node)).await?;
        ensure!(replicas(&deployments, "web").await? == 1, "once, however often it is asked for");
    }
    let machine = machines.get("web-a").await?;
    let annotations = machine.metadata.annotations.unwrap_or_default();
    ensure!(annotations.contains_key("cluster.x-k8s.io/delete-machine"), "{annotations:?}");
    let pending = format!("pending-machine-{}_web-b", case.namespace);
    let other = NodeRef { provider_id: pending.into(), ..NodeRef::default() };
    ensure!(refused(provider.delete_nodes(web, &[other]).await), "below the minimum");
    let stranger = NodeRef { provider_id: "test:///z/nobody".into(), ..NodeRef::default() };
    let error = provider.delete_nodes(web, &[stranger]).await;
    ensure!(matches!(error, Err(CloudError::NotFound(_))), "{error:?}");

    provider.increase(web, 1, 1).await?;
    ensure!(replicas(&deployments, "web").await? == 2);
    provider.increase(web, 1, 1).await?;
    ensure!(replicas(&deployments, "web").await? == 2, "the same decision twice");
    ensure!(refused(provider.increase(web, 2, 2).await), "above the maximum");
    provider.decrease_target(web, 2, 1).await?;
    ensure!(replicas(&deployments, "web").await? == 1);
    ensure!(refused(provider.decrease_target(web, 1, 1).await), "an existing node");
    Ok(())
}

async fn versions(case: &Case<'_>, client: &Client) -> Result<()> {
    let old = connect(case, client, Some("v1beta1")).await?;
    ensure!(old.groups().await?.0.len() == 3, "v1beta1 is served as well");
    let error = connect(case, client, Some("v9")).await.err().context("v9 is not served")?.to_string();
    ensure!(error.contains("version v9 is not served, but") && error.contains("v1beta2"), "{error}");
    let options = Options { group: "nobody.example".to_owned(), ..options(case, None)? };
    let error = ClusterApi::connect(client.clone(), client.clone(), options).await;
    let error = error.err().context("a group that is not served")?.to_string();
    ensure!(error.contains("is Cluster API installed"), "{error}");
    Ok(())
}

fn options(case: &Case<'_>, version: Option<&str>) -> Result<Options> {
    Ok(Options {
        group: DEFAULT_GROUP.to_owned(),
        version: version.map(str::to_owned),
        architecture: DEFAULT_ARCHITECTURE.to_owned(),
        discoveries: vec![Discovery::read(&format!("clusterapi:namespace={}", case.namespace))?],
    })
}

async fn connect(case: &Case<'_>, client: &Client, version: Option<&str>) -> Result<ClusterApi> {
    let options = options(case, version)?;
    Ok(ClusterApi::connect(client.clone(), client.clone(), options).await?)
}

async fn replicas(api: &Api<DynamicObject>, name: &str) -> Result<i32> {
    api.get_scale(name).await?.spec.and_then(|spec| spec.replicas).context("no replicas")
}

async fn crds(case: &Case<'_>) -> Result<()> {
    let kinds = ["Cluster", "Machine", "MachineDeployment", "MachineSet", "MachinePool"];
    for kind in kinds {
        let scales = !matches!(kind, "Cluster" | "Machine");
        case.kubectl_apply(&crd(DEFAULT_GROUP, kind, scales, &["v1beta1", "v1beta2"])).await?;
    }
    case.kubectl_apply(&crd(INFRASTRUCTURE, "DockerMachineTemplate", false, &["v1"])).await?;
    wait::until("Cluster API's kinds to be served", SOON, || async {
        for kind in kinds {
            case.api(VERSION, kind).await?;
        }
        case.api(&format!("{INFRASTRUCTURE}/v1"), "DockerMachineTemplate").await?;
        Ok(())
    })
    .await
}

fn crd(group: &str, kind: &str, scales: bool, versions: &[&str]) -> Value {
    let singular = kind.to_lowercase();
    let scale =
        json!({"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}});
    let version = |name: &&str| {
        json!({
            "name": name, "served": true, "storage": *name == versions[0],
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            "subresources": if scales { scale.clone() } else { json!({}) },
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{singular}s.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "singular": singular, "plural": format!("{singular}s")},
            "versions": versions.iter().map(version).collect::<Vec<_>>(),
        },
    })
}

async fn objects(case: &Case<'_>) -> Result<()> {
    let by_web = json!([{"apiVersion": VERSION, "kind": "MachineDeployment", "name": "web", "uid": "0"}]);
    let capacity = |key: &str| format!("capacity.cluster-autoscaler.kubernetes.io/{key}");
    let infrastructure = json!({"apiGroup": INFRASTRUCTURE, "kind": "DockerMachineTemplate", "name": "t"});
    let mut lone = scalable("MachineSet", "lone", 0, "0", "2", "calm");
    lone["spec"]["template"] = json!({"spec": {"infrastructureRef": infrastructure}});
    let mut owned = scalable("MachineSet", "web-1", 2, "1", "3", "calm");
    owned["metadata"]["ownerReferences"] = by_web;
    let mut web = scalable("MachineDeployment", "web", 2, "1", "3", "calm");
    for (key, value) in [(capacity("cpu"), "2"), (capacity("memory"), "4Gi")] {
        web["metadata"]["annotations"][key] = json!(value);
    }
    web["metadata"]["annotations"]["cluster.x-k8s.io/autoscaling-options-scaledownutilizationthreshold"] =
        json!("0.25");
    let mut paused = scalable("MachineDeployment", "paused", 1, "1", "3", "calm");
    paused["metadata"]["annotations"]["cluster.x-k8s.io/paused"] = json!("");
    let mut pool = scalable("MachinePool", "pool", 1, "1", "2", "calm");
    pool["spec"]["providerIDList"] = json!(["test:///z/pool-a"]);
    for object in [
        object("Cluster", "calm", &json!({})),
        object("Cluster", "frozen", &json!({"paused": true})),
        json!({
            "apiVersion": &format!("{INFRASTRUCTURE}/v1"), "kind": "DockerMachineTemplate", "metadata": {"name": "t"},
            "status": {"capacity": {"cpu": "2", "memory": "4Gi"}, "nodeInfo": {"architecture": "arm64"}},
        }),
        web,
        owned,
        lone,
        paused,
        pool,
        scalable("MachineSet", "mute", 0, "0", "2", "calm"),
        scalable("MachineDeployment", "broken", 1, "1", "many", "calm"),
        scalable("MachineDeployment", "frozen", 1, "1", "3", "frozen"),
        machine("web-a", &json!({"clusterName": "calm", "providerID": "test:///z/web-a"})),
        machine("web-b", &json!({"clusterName": "calm"})),
    ] {
        case.apply(object).await?;
    }
    Ok(())
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn machine(name: &str, spec: &Value) -> Value {
    let mut machine = object("Machine", name, spec);
    machine["metadata"]["labels"] = json!({"pool": "web"});
    machine
}

fn scalable(kind: &str, name: &str, replicas: u32, min: &str, max: &str, cluster: &str) -> Value {
    let selector = json!({"matchLabels": {"pool": name}});
    let mut scalable =
        object(kind, name, &json!({"clusterName": cluster, "replicas": replicas, "selector": selector}));
    scalable["metadata"]["annotations"] = json!({
        "cluster.x-k8s.io/cluster-api-autoscaler-node-group-min-size": min,
        "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size": max,
    });
    scalable
}
