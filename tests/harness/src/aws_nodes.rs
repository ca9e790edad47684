//! Nodes of machines that moto runs: what kubelets and the cloud controller manager do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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

/// The tag of machines whose kubelet is told by user data what its node is.
const CLAIM_TAG: &str = "karpenter.sh/nodeclaim";

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
        let mut node = machine.node(shape);
        if machine.tags.contains_key(CLAIM_TAG) {
            Told::read(&machine.user_data(moto).await?)?.shape(&mut node);
        }
        nodes.create(&PostParams::default(), &node).await?;
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

/// What user data tell a kubelet of its node.
#[derive(Debug, Default, PartialEq)]
struct Told {
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    pods: Option<String>,
}

impl Told {
    /// Reads a call of `bootstrap.sh` or a `NodeConfig`.
    fn read(user_data: &str) -> Result<Self> {
        let text = user_data.replace("\\\"", "\"");
        let flag =
            |name: &str| text.split(name).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = flag("--node-labels=\"").split(',').filter_map(pair).collect();
        let config = user_data.split("application/node.eks.aws\n\n").nth(1);
        let config = config.and_then(|rest| rest.split("\n--//").next());
        if let Some(config) = config {
            let config: serde_json::Value = serde_json::from_str(config).context("NodeConfig")?;
            let kubelet = &config["spec"]["kubelet"]["config"];
            let taints = serde_json::from_value(kubelet["registerWithTaints"].clone()).context("taints")?;
            let pods = kubelet["maxPods"].as_i64().map(|pods| pods.to_string());
            return Ok(Self { labels, taints, pods });
        }
        let taint = |text: &str| {
            let (pair, effect) = text.rsplit_once(':')?;
            let (key, value) = pair.split_once('=')?;
            let value = Some(value.to_owned()).filter(|value| !value.is_empty());
            Some(Taint { key: key.to_owned(), value, effect: effect.to_owned(), ..Taint::default() })
        };
        let taints = flag("--register-with-taints=\"").split(',').filter_map(taint).collect();
        let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect();
        Ok(Self { labels, taints, pods: text.split("--max-pods=").nth(1).map(digits) })
    }

    fn shape(self, node: &mut Node) {
        node.labels_mut().extend(self.labels);
        node.spec.get_or_insert_default().taints = Some(self.taints);
        if let (Some(pods), Some(status)) = (self.pods, &mut node.status) {
            for amounts in [&mut status.capacity, &mut status.allocatable] {
                amounts.get_or_insert_default().insert("pods".to_owned(), Quantity(pods.clone()));
            }
        }
    }
}

impl Machine {
    /// What the machine was told at its start.
    async fn user_data(&self, moto: &Moto) -> Result<String> {
        let id = self.provider_id.rsplit('/').next().unwrap_or_default();
        let attribute = [("InstanceId", id), ("Attribute", "userData")];
        let answer = moto.ask("ec2", "DescribeInstanceAttribute", &attribute).await?;
        let data = xml::text(xml::text(&answer, "userData"), "value");
        Ok(String::from_utf8(STANDARD.decode(data)?)?)
    }

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
    fn user_data_tell_what_a_node_is() {
        let unregistered = Taint { key: "k".to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() };
        let wanted = Told {
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            taints: vec![unregistered],
            pods: Some("29".to_owned()),
        };
        let script = "/etc/eks/bootstrap.sh 'c' --kubelet-extra-args '--node-labels=\"a=b\" --register-with-taints=\"k=:NoExecute\" --max-pods=29'";
        assert_eq!(Told::read(script).unwrap(), wanted);
        let config = r#"{"spec":{"kubelet":{"config":{"maxPods":29,"registerWithTaints":[{"key":"k","effect":"NoExecute"}]},
            "flags":["--node-labels=\"a=b\""]}}}"#;
        let config = format!("--//\nContent-Type: application/node.eks.aws\n\n{config}\n--//--\n");
        assert_eq!(Told::read(&config).unwrap(), wanted);
    }

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
