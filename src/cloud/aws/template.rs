//! What a new node of a group would look like.
//!
//! Labels and the order of sources are Cluster Autoscaler's (`aws_manager.go`, `buildNodeFromTemplate`).

use std::collections::{BTreeMap, HashMap};

use tandem_core::{
    quantity::parse_milli,
    scheduling::{Node, node::Condition},
};
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{
    autoscaling::{self, AutoScalingGroup, InstanceRequirements, LaunchTemplateSpecification, Tag},
    client::Client,
    eks::{self, Nodegroup},
    instance_types::{InstanceTypeInfo, InstanceTypes},
    launch_templates::{LaunchTemplateData, launch_template},
    tags::Tagged,
};
use crate::cloud::{CloudError, Template, kube_proxy::kube_proxy};

/// How long what a group launches is taken as it is (Cluster Autoscaler: 20 minutes).
const LAUNCHED_FRESH: Duration = Duration::from_mins(20);

/// How long a managed node group is taken as it is (Cluster Autoscaler: 6 minutes).
const NODEGROUP_FRESH: Duration = Duration::from_mins(6);

const GIBIBYTE: i64 = 1 << 30;

/// What a group launches.
#[derive(Debug, Clone, PartialEq)]
struct Launched {
    instance_type: InstanceTypeInfo,
    disk_gib: Option<i64>,
}

/// Makes templates, and remembers for a while what they are made from.
#[derive(Debug, Default)]
pub struct Templates {
    /// Whether tags that say what nodes have are believed without asking EC2.
    believes_tags: bool,
    types: InstanceTypes,
    launched: Mutex<HashMap<String, (Instant, Launched)>>,
    nodegroups: Mutex<HashMap<(String, String), (Instant, Nodegroup)>>,
}

impl Templates {
    /// Nothing is read yet.
    pub fn new(believes_tags: bool) -> Self {
        Self { believes_tags, ..Self::default() }
    }

    /// The template of a group.
    pub async fn of(&self, client: &Client, group: &AutoScalingGroup) -> Result<Template, CloudError> {
        let launched = self.launched(client, group).await?;
        let nodegroup = self.nodegroup(client, group).await?;
        let node = node(client.region(), group, &launched, nodegroup.as_ref());
        Ok(Template { node, pods: vec![kube_proxy(&group.name)] })
    }

    async fn launched(&self, client: &Client, group: &AutoScalingGroup) -> Result<Launched, CloudError> {
        let mut cache = self.launched.lock().await;
        if let Some((read, launched)) = cache.get(&group.name)
            && read.elapsed() < LAUNCHED_FRESH
        {
            return Ok(launched.clone());
        }
        let launched = self.read(client, group).await?;
        cache.insert(group.name.clone(), (Instant::now(), launched.clone()));
        Ok(launched)
    }

    async fn read(&self, client: &Client, group: &AutoScalingGroup) -> Result<Launched, CloudError> {
        let source = Source::of(group);
        let data = match source.launch_template {
            Some(specification) => Some(launch_template(client, specification).await?),
            None => None,
        };
        let disk_gib = data.as_ref().and_then(LaunchTemplateData::disk_gib);
        let name = match (source.instance_type, source.requirements, data, source.launch_configuration) {
            (Some(name), ..) => name.to_owned(),
            (None, Some(requirements), ..) => self.smallest(client, requirements).await?,
            (None, None, Some(LaunchTemplateData { instance_type: Some(name), .. }), _) => name,
            (None, None, Some(LaunchTemplateData { instance_requirements: Some(requirements), .. }), _) => {
                self.smallest(client, &requirements).await?
            }
            (None, None, _, Some(configuration)) => {
                autoscaling::launch_configuration(client, configuration).await?.instance_type
            }
            (None, None, _, None) => {
                return Err(CloudError::NotFound(format!(
                    "the instance type of group {}: neither its launch template nor its mixed instances policy names one",
                    group.name
                )));
            }
        };
        if self.believes_tags && says_capacity(&group.tags) {
            return Ok(Launched { instance_type: InstanceTypeInfo::unknown(name), disk_gib });
        }
        let found = self.types.of(client, std::slice::from_ref(&name)).await?;
        let instance_type = found.into_values().next().ok_or_else(|| {
            CloudError::NotFound(format!(
                "instance type {name} of group {} in {}",
                group.name,
                client.region()
            ))
        })?;
        Ok(Launched { instance_type, disk_gib })
    }

    /// The smallest type that meets requirements: whatever comes has at least as much.
    async fn smallest(
        &self,
        client: &Client,
        requirements: &InstanceRequirements,
    ) -> Result<String, CloudError> {
        let mut names = self.types.matching(client, requirements, "x86_64").await?;
        if names.is_empty() {
            names = self.types.matching(client, requirements, "arm64").await?;
        }
        let types = self.types.of(client, &names).await?;
        let smallest = types
            .into_values()
            .min_by_key(|info| (info.vcpu_info.default_vcpus, info.memory_mib(), info.name.clone()));
        smallest
            .map(|info| info.name)
            .ok_or_else(|| CloudError::NotFound(format!("an instance type that meets {requirements:?}")))
    }

    async fn nodegroup(
        &self,
        client: &Client,
        group: &AutoScalingGroup,
    ) -> Result<Option<Nodegroup>, CloudError> {
        let tag = |key: &str| group.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.clone());
        let Some(key) = tag("eks:cluster-name").zip(tag("eks:nodegroup-name")) else { return Ok(None) };
        let mut cache = self.nodegroups.lock().await;
        if let Some((read, nodegroup)) = cache.get(&key)
            && read.elapsed() < NODEGROUP_FRESH
        {
            return Ok(Some(nodegroup.clone()));
        }
        match eks::nodegroup(client, &key.0, &key.1).await {
            Ok(nodegroup) => {
                cache.insert(key, (Instant::now(), nodegroup.clone()));
                Ok(Some(nodegroup))
            }
            // A role of Cluster Autoscaler may lack the permission: tags are then all there is, as there.
            Err(error @ (CloudError::Denied { .. } | CloudError::NotFound(_))) => {
                tracing::warn!(group = group.name, %error, "labels and taints of the managed node group are not known");
                cache.insert(key, (Instant::now(), Nodegroup::default()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Where it is written what a group launches.
#[derive(Debug, Default, PartialEq)]
struct Source<'a> {
    instance_type: Option<&'a str>,
    requirements: Option<&'a InstanceRequirements>,
    launch_template: Option<&'a LaunchTemplateSpecification>,
    launch_configuration: Option<&'a str>,
}

impl<'a> Source<'a> {
    /// A mixed instances policy's first override wins, which may bring its own launch template.
    fn of(group: &'a AutoScalingGroup) -> Self {
        let mixed = group.mixed_instances_policy.as_ref().and_then(|policy| policy.launch_template.as_ref());
        let Some(mixed) = mixed else {
            return Self {
                launch_template: group.launch_template.as_ref(),
                launch_configuration: group.launch_configuration_name.as_deref(),
                ..Self::default()
            };
        };
        let first = mixed.overrides.first();
        let own = first.and_then(|first| first.launch_template_specification.as_ref());
        Self {
            instance_type: first.and_then(|first| first.instance_type.as_deref()),
            requirements: first.and_then(|first| first.instance_requirements.as_ref()),
            launch_template: own.or(mixed.launch_template_specification.as_ref()),
            launch_configuration: None,
        }
    }
}

/// Whether tags say how much processor and memory a node has, without which it would have none.
fn says_capacity(tags: &[Tag]) -> bool {
    let said = Tagged::read(tags).options.extra_resources;
    ["cpu", "memory"].iter().all(|resource| said.contains_key(*resource))
}

fn node(region: &str, group: &AutoScalingGroup, launched: &Launched, nodegroup: Option<&Nodegroup>) -> Node {
    let own = nodegroup.iter().flat_map(|nodegroup| nodegroup.tags.iter().flatten());
    let own = own.map(|(key, value)| Tag { key: key.clone(), value: value.clone() });
    let tagged = Tagged::read(&own.chain(group.tags.iter().cloned()).collect::<Vec<_>>());
    let name = format!("{}-template", group.name);
    let mut capacity = launched.instance_type.capacity();
    let disk = launched.disk_gib.or_else(|| nodegroup.and_then(|nodegroup| nodegroup.disk_size));
    capacity.storage = disk.unwrap_or(0) * GIBIBYTE;
    for (resource, quantity) in &tagged.options.extra_resources {
        let milli = parse_milli(quantity).unwrap_or(0);
        capacity.set(resource, if resource == "cpu" { milli } else { milli / 1000 });
    }
    let mut labels = generic_labels(region, group, &launched.instance_type, &name);
    labels.extend(nodegroup.map(Nodegroup::labels).unwrap_or_default());
    labels.extend(tagged.labels);
    let mut taints = nodegroup.map(Nodegroup::taints).unwrap_or_default();
    taints.retain(|taint| {
        !tagged.taints.iter().any(|other| (&other.key, &other.effect) == (&taint.key, &taint.effect))
    });
    taints.extend(tagged.taints);
    Node {
        name: name.into(),
        labels,
        taints,
        // Cluster Autoscaler sets nothing aside for the system either.
        allocatable: capacity.clone(),
        capacity,
        ready: true,
        conditions: BTreeMap::from([("Ready".into(), Condition::new(true, None))]),
        ..Node::default()
    }
}

fn generic_labels(
    region: &str,
    group: &AutoScalingGroup,
    instance_type: &InstanceTypeInfo,
    name: &str,
) -> BTreeMap<String, String> {
    let zone = group.availability_zones.first().map_or("", String::as_str);
    let pairs = [
        ("kubernetes.io/arch", instance_type.architecture()),
        ("beta.kubernetes.io/arch", instance_type.architecture()),
        ("kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", name),
        ("node.kubernetes.io/instance-type", &instance_type.name),
        ("beta.kubernetes.io/instance-type", &instance_type.name),
        ("topology.kubernetes.io/region", region),
        ("failure-domain.beta.kubernetes.io/region", region),
        ("topology.kubernetes.io/zone", zone),
        ("failure-domain.beta.kubernetes.io/zone", zone),
        // What the EBS driver adds to its nodes: without it a pod with a volume finds no node in an empty group.
        ("topology.ebs.csi.aws.com/zone", zone),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::{
        answer::xml,
        autoscaling::{MixedInstancesPolicy, MixedLaunchTemplate, Override},
        eks::NodegroupTaint,
    };

    fn group(tags: &[(&str, &str)]) -> AutoScalingGroup {
        let tag = |(key, value): &(&str, &str)| Tag { key: (*key).into(), value: (*value).into() };
        AutoScalingGroup {
            name: "web".into(),
            min_size: 0,
            max_size: 3,
            desired_capacity: 0,
            launch_configuration_name: None,
            launch_template: Some(specification("group")),
            mixed_instances_policy: None,
            capacity_rebalance: false,
            availability_zones: vec!["r-1a".into(), "r-1b".into()],
            instances: vec![],
            tags: tags.iter().map(tag).collect(),
        }
    }

    fn specification(name: &str) -> LaunchTemplateSpecification {
        LaunchTemplateSpecification {
            launch_template_name: Some(name.into()),
            ..LaunchTemplateSpecification::default()
        }
    }

    fn launched() -> Launched {
        let body = "<R><instanceType>m6g.large</instanceType><processorInfo><supportedArchitectures><item>arm64</item>\
                    </supportedArchitectures></processorInfo><vCpuInfo><defaultVCpus>2</defaultVCpus></vCpuInfo><memoryInfo>\
                    <sizeInMiB>8192</sizeInMiB></memoryInfo><networkInfo><maximumNetworkInterfaces>3\
                    </maximumNetworkInterfaces><ipv4AddressesPerInterface>10</ipv4AddressesPerInterface></networkInfo></R>";
        Launched { instance_type: xml(body.as_bytes(), "X").unwrap(), disk_gib: Some(50) }
    }

    #[test]
    fn a_node_looks_as_its_type_zone_and_tags_say() {
        let prefix = "k8s.io/cluster-autoscaler/node-template";
        let tags = [
            (format!("{prefix}/label/team"), "a"),
            (format!("{prefix}/taint/dedicated"), "web:NoSchedule"),
            (format!("{prefix}/resources/pods"), "110"),
            (format!("{prefix}/resources/cpu"), "1900m"),
            (format!("{prefix}/resources/example.com/card"), "1"),
        ];
        let tags: Vec<_> = tags.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let node = node("r-1", &group(&tags), &launched(), None);
        assert_eq!((node.capacity.cpu, node.capacity.pods, node.capacity.storage), (1900, 110, 50 << 30));
        assert_eq!(node.capacity.get("example.com/card"), 1);
        assert_eq!(node.allocatable, node.capacity);
        for (label, value) in [
            ("kubernetes.io/arch", "arm64"),
            ("node.kubernetes.io/instance-type", "m6g.large"),
            ("topology.kubernetes.io/zone", "r-1a"),
            ("topology.kubernetes.io/region", "r-1"),
            ("team", "a"),
        ] {
            assert_eq!(node.labels[label], value, "{label}");
        }
        assert_eq!(node.taint("dedicated").map(|taint| &*taint.effect), Some("NoSchedule"));
    }

    #[test]
    fn a_managed_node_group_adds_and_tags_win() {
        let nodegroup = Nodegroup {
            nodegroup_name: "ng".into(),
            labels: Some(BTreeMap::from([("team".into(), "b".into()), ("tier".into(), "web".into())])),
            taints: Some(vec![NodegroupTaint {
                key: "k".into(),
                value: Some("n".into()),
                effect: "NO_SCHEDULE".into(),
            }]),
            ..Nodegroup::default()
        };
        let tags = [
            ("k8s.io/cluster-autoscaler/node-template/label/team", "a"),
            ("k8s.io/cluster-autoscaler/node-template/taint/k", "t:NoSchedule"),
        ];
        let node = node("r-1", &group(&tags), &launched(), Some(&nodegroup));
        assert_eq!((&*node.labels["team"], &*node.labels["tier"]), ("a", "web"));
        assert_eq!(node.labels["eks.amazonaws.com/nodegroup"], "ng");
        let values: Vec<_> = node.taints.iter().map(|taint| taint.value.as_deref()).collect();
        assert_eq!(values, [Some("t")]);
    }

    #[test]
    fn the_first_override_wins() {
        let plain = group(&[]);
        assert_eq!(Source::of(&plain).launch_template, Some(&specification("group")));
        let mixed = |overrides: Vec<Override>| AutoScalingGroup {
            launch_template: None,
            mixed_instances_policy: Some(MixedInstancesPolicy {
                launch_template: Some(MixedLaunchTemplate {
                    launch_template_specification: Some(specification("mixed")),
                    overrides,
                }),
            }),
            ..group(&[])
        };
        let typed = |name: &str| Override { instance_type: Some(name.into()), ..Override::default() };
        let two = mixed(vec![typed("a"), typed("b")]);
        let source = Source::of(&two);
        assert_eq!(
            (source.instance_type, source.launch_template),
            (Some("a"), Some(&specification("mixed")))
        );
        let own =
            mixed(vec![Override { launch_template_specification: Some(specification("own")), ..typed("a") }]);
        assert_eq!(Source::of(&own).launch_template, Some(&specification("own")));
        let none = mixed(vec![]);
        assert_eq!(
            (Source::of(&none).instance_type, Source::of(&none).launch_template),
            (None, Some(&specification("mixed")))
        );
    }
}
