//! Nodes of machines that moto runs: what kubelets and the cloud controller manager do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use tokio::task::JoinHandle;

use crate::moto::{Moto, REGION};
use crate::xml;

/// Between two looks at moto: short against a pass of an autoscaler (10 s), long against a look (20 ms).
const PERIOD: Duration = Duration::from_millis(500);

/// Tags that a machine's start script turns into labels and taints.
const LABEL_TAG: &str = "k8s.io/cluster-autoscaler/node-template/label/";
const TAINT_TAG: &str = "k8s.io/cluster-autoscaler/node-template/taint/";

/// Keeps the nodes of a control plane as moto's machines are, until it is dropped. kwok makes them ready.
#[derive(Debug)]
pub struct AwsNodes {
    following: JoinHandle<()>,
}

/// A machine of moto.
#[derive(Debug, PartialEq)]
struct Machine {
    provider_id: String,
    name: String,
    zone: String,
    instance_type: String,
    tags: BTreeMap<String, String>,
}

impl AwsNodes {
    /// Follows moto's machines.
    pub fn start(moto: Arc<Moto>, client: Client) -> Self {
        let following = tokio::spawn(async move {
            let mut shapes = BTreeMap::new();
            loop {
                if let Err(error) = follow(&moto, &client, &mut shapes).await {
                    eprintln!("nodes of moto's machines: {error:#}");
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
        Self { following }
    }
}

impl Drop for AwsNodes {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// What a type has, and its architecture.
type Shape = (BTreeMap<String, Quantity>, String);

async fn follow(moto: &Moto, client: &Client, shapes: &mut BTreeMap<String, Shape>) -> Result<()> {
    let running = moto
        .ask(
            "ec2",
            "DescribeInstances",
            &[("Filter.1.Name", "instance-state-name"), ("Filter.1.Value.1", "running")],
        )
        .await?;
    let machines = machines(&running);
    let nodes: Api<Node> = Api::all(client.clone());
    let mut known = BTreeSet::new();
    for node in nodes.list(&ListParams::default()).await? {
        let id = node.spec.as_ref().and_then(|spec| spec.provider_id.clone()).unwrap_or_default();
        // Nodes of other providers are not ours to judge.
        if id.starts_with("aws:///") && machines.iter().all(|machine| machine.provider_id != id) {
            let _ = nodes.delete(&node.name_any(), &DeleteParams::default()).await;
        }
        known.insert(id);
    }
    for machine in machines.iter().filter(|machine| !known.contains(&machine.provider_id)) {
        if !shapes.contains_key(&machine.instance_type) {
            shapes.insert(machine.instance_type.clone(), shape(moto, &machine.instance_type).await?);
        }
        let shape = shapes.get(&machine.instance_type).context("no shape")?;
        nodes.create(&PostParams::default(), &machine.node(shape)).await?;
    }
    Ok(())
}

fn machines(answer: &str) -> Vec<Machine> {
    let reservations = xml::children(answer, "reservationSet", "item");
    let items =
        reservations.into_iter().flat_map(|reservation| xml::children(reservation, "instancesSet", "item"));
    items
        .map(|item| {
            let tags = xml::children(item, "tagSet", "item").into_iter();
            let zone = xml::text(item, "availabilityZone").to_owned();
            let outside = item.rfind("<instanceId>").map_or(item, |at| &item[at..]);
            Machine {
                provider_id: format!("aws:///{zone}/{}", xml::text(outside, "instanceId")),
                name: xml::text(outside, "privateDnsName").to_owned(),
                zone,
                instance_type: xml::text(item, "instanceType").to_owned(),
                tags: tags
                    .map(|tag| (xml::text(tag, "key").to_owned(), xml::text(tag, "value").to_owned()))
                    .collect(),
            }
        })
        .collect()
}

/// Asks moto what a type has; pods as the addresses of its interfaces allow.
async fn shape(moto: &Moto, instance_type: &str) -> Result<Shape> {
    let answer = moto.ask("ec2", "DescribeInstanceTypes", &[("InstanceType.1", instance_type)]).await?;
    let item = xml::content(&answer, "instanceTypeSet").context("no type in the answer")?;
    let number = |xml: &str, name: &str| xml::text(xml, name).parse::<i64>().unwrap_or(0);
    let memory = number(xml::text(item, "memoryInfo"), "sizeInMiB");
    let pods = number(item, "maximumNetworkInterfaces") * (number(item, "ipv4AddressesPerInterface") - 1) + 2;
    let mut resources = BTreeMap::from([
        ("cpu".to_owned(), Quantity(number(item, "defaultVCpus").to_string())),
        ("memory".to_owned(), Quantity(format!("{memory}Mi"))),
        ("pods".to_owned(), Quantity(pods.to_string())),
        ("ephemeral-storage".to_owned(), Quantity("20Gi".to_owned())),
    ]);
    let gpus: i64 = xml::children(item, "gpus", "item").iter().map(|gpu| number(gpu, "count")).sum();
    if gpus > 0 {
        resources.insert("nvidia.com/gpu".to_owned(), Quantity(gpus.to_string()));
    }
    let arm = xml::text(item, "supportedArchitectures").contains("arm64");
    Ok((resources, if arm { "arm64" } else { "amd64" }.to_owned()))
}

impl Machine {
    fn node(&self, (resources, architecture): &Shape) -> Node {
        let own = [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture),
            ("node.kubernetes.io/instance-type", &self.instance_type),
            ("topology.kubernetes.io/zone", &self.zone),
            ("topology.kubernetes.io/region", REGION),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let tagged = self
            .tags
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(LABEL_TAG)?.to_owned(), value.clone())));
        let taint = |(key, value): (&String, &String)| {
            let (value, effect) = value.rsplit_once(':')?;
            let key = key.strip_prefix(TAINT_TAG)?.to_owned();
            Some(Taint { key, value: Some(value.to_owned()), effect: effect.to_owned(), ..Taint::default() })
        };
        let status = NodeStatus {
            capacity: Some(resources.clone()),
            allocatable: Some(resources.clone()),
            ..NodeStatus::default()
        };
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(own.chain(tagged).collect()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                provider_id: Some(self.provider_id.clone()),
                taints: Some(self.tags.iter().filter_map(taint).collect()),
                ..NodeSpec::default()
            }),
            status: Some(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_read_from_reservations() {
        let answer = "<R><reservationSet><item><instancesSet><item><networkInterfaceSet><item><privateDnsName>eth\
            </privateDnsName></item></networkInterfaceSet><tagSet><item><key>k</key><value>v</value></item></tagSet>\
            <instanceId>i-1</instanceId><privateDnsName>ip-1.internal</privateDnsName><instanceType>m5.large</instanceType>\
            <placement><availabilityZone>r-1a</availabilityZone></placement></item></instancesSet></item></reservationSet></R>";
        let wanted = Machine {
            provider_id: "aws:///r-1a/i-1".to_owned(),
            name: "ip-1.internal".to_owned(),
            zone: "r-1a".to_owned(),
            instance_type: "m5.large".to_owned(),
            tags: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        };
        assert_eq!(machines(answer), [wanted]);
    }
}
