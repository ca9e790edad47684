//! Clusters for tests: pools of machines with so many cores, at a dollar a core, half of that on spot, in three zones.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::TopologySpreadConstraint,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, LabelSelector, Time},
    },
};
use serde_json::json;

use super::{
    cluster::{Cluster, Pool, labels_of},
    instance_type::{InstanceType, Offering},
    names::condition,
    requirements::{
        Operator, Requirement, Requirements,
        labels::{CAPACITY_TYPE, HOSTNAME, INSTANCE_TYPE, ON_DEMAND, SPOT, ZONE},
    },
};
use crate::{
    api::karpenter::{NodeClaim, NodePoolSpec, RequirementWithMinValues},
    scheduling::{
        Node, Pod, Resources,
        devices::{
            Access, Claim, ClaimSpec, Device, DeviceClass, ExtendedRequest, Objects, PodClaim, Selector,
            Slice,
        },
        pod::{Owner, Scheduled, Shape, Traits},
    },
};

pub(super) const ZONES: [&str; 3] = ["zone-1", "zone-2", "zone-3"];

/// What a machine of so many cores has.
pub(super) fn capacity(cores: i64) -> Resources {
    Resources { cpu: cores * 1_000, memory: cores << 32, pods: 100, ..Resources::default() }
}

/// A dollar a core, half of that on spot, in every zone.
pub(super) fn offerings(cores: i64) -> Vec<Offering> {
    let offering = |zone: &str, capacity_type: &str, share: f64| Offering {
        requirements: Requirements::from_iter([
            Requirement::is(ZONE, zone),
            Requirement::is(CAPACITY_TYPE, capacity_type),
        ]),
        #[allow(clippy::cast_precision_loss, reason = "a few cores")]
        price: cores as f64 * share,
        available: true,
        reservation: None,
    };
    ZONES.iter().flat_map(|zone| [offering(zone, SPOT, 0.5), offering(zone, ON_DEMAND, 1.0)]).collect()
}

pub(super) fn instance_type(cores: i64) -> Arc<InstanceType> {
    let name = format!("cores-{cores:02}");
    let requirements = Requirements::from_iter([
        Requirement::is(INSTANCE_TYPE, &name),
        Requirement::new(ZONE, Operator::In, ZONES),
        Requirement::new(CAPACITY_TYPE, Operator::In, [SPOT, ON_DEMAND]),
    ]);
    Arc::new(InstanceType::new(&name, requirements, capacity(cores), Resources::default(), offerings(cores)))
}

/// A pool of on-demand machines of 1 to 20 cores.
pub(super) fn pool(name: &str) -> Pool {
    let mut spec = NodePoolSpec::default();
    spec.template.spec.requirements =
        vec![RequirementWithMinValues::new(CAPACITY_TYPE, Operator::In, &[ON_DEMAND])];
    spec.template.spec.node_class_ref.kind = "Class".to_owned();
    spec.disruption.budgets = Some(vec![crate::api::karpenter::Budget::of("100%")]);
    Pool {
        name: name.into(),
        spec,
        types: (1..=20).map(instance_type).collect(),
        is_usable: true,
        told: crate::nodes::told::Told::default(),
    }
}

/// A cluster of one pool, `general`, and nothing else.
pub(super) fn cluster() -> Cluster {
    Cluster { pools: vec![pool("general")], ..Cluster::default() }
}

pub(super) fn limit(pool: &mut Pool, name: &str, amount: &str) {
    let limits = pool.spec.limits.get_or_insert_default();
    limits.insert(name.to_owned(), Quantity(amount.to_owned()));
}

/// A pod of so many thousandths of a core that fits nowhere, labelled `app=APP`.
pub(super) fn pod(name: &str, app: &str, cpu: i64) -> Pod {
    let requests = Resources { cpu, memory: 1 << 20, pods: 1, ..Resources::default() };
    let labels = [("app".to_owned(), app.to_owned())].into();
    let owner = Owner {
        kind: "ReplicaSet".into(),
        name: app.into(),
        uid: format!("uid-of-{app}").into(),
        api_version: "apps/v1".into(),
    };
    let namespace = "default".into();
    Pod {
        name: name.into(),
        uid: format!("uid-of-{name}").into(),
        shape: Arc::new(Shape::new(
            requests,
            Traits { namespace, labels, owner: Some(owner), ..Traits::default() },
        )),
        scheduled: Scheduled::Unschedulable(Timestamp::UNIX_EPOCH),
        ..Pod::default()
    }
}

pub(super) fn spread(app: &str, key: &str, unless: &str) -> TopologySpreadConstraint {
    let match_labels = Some([("app".to_owned(), app.to_owned())].into());
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: unless.to_owned(),
        label_selector: Some(LabelSelector { match_labels, ..LabelSelector::default() }),
        ..TopologySpreadConstraint::default()
    }
}

/// The same pod with another shape.
pub(super) fn with(pod: Pod, change: impl FnOnce(&mut Shape)) -> Pod {
    let mut shape = (*pod.shape).clone();
    change(&mut shape);
    Pod { shape: Arc::new(shape), ..pod }
}

pub(super) fn set(claim: &mut NodeClaim, kind: &str) {
    let conditions = &mut claim.status.get_or_insert_default().conditions;
    conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: kind.to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    });
}

/// A claim of the pool `general` that has been launched.
pub(super) fn claim(name: &str, cores: i64, zone: &str, capacity_type: &str) -> NodeClaim {
    let mut claim = NodeClaim::default();
    claim.metadata.name = Some(name.to_owned());
    claim.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let mut labels = labels_of("general", &pool("general").spec);
    let instance_type = format!("cores-{cores:02}");
    for (key, value) in [(INSTANCE_TYPE, &*instance_type), (ZONE, zone), (CAPACITY_TYPE, capacity_type)] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    claim.metadata.labels = Some(labels);
    let status = claim.status.get_or_insert_default();
    status.provider_id = Some(format!("test://{name}"));
    let amounts = BTreeMap::from([
        ("cpu".to_owned(), Quantity(cores.to_string())),
        ("memory".to_owned(), Quantity((cores << 32).to_string())),
        ("pods".to_owned(), Quantity("100".to_owned())),
    ]);
    (status.capacity, status.allocatable) = (Some(amounts.clone()), Some(amounts));
    set(&mut claim, condition::LAUNCHED);
    claim
}

/// Puts a node of the pool `general` into the cluster, calm since long, with these pods on it.
pub(super) fn add_node(cluster: &mut Cluster, name: &str, cores: i64, zone: &str, pods: Vec<Pod>) {
    add_node_of(cluster, claim(name, cores, zone, ON_DEMAND), cores, pods);
}

/// Puts the node of a claim into the cluster.
pub(super) fn add_node_of(cluster: &mut Cluster, mut claim: NodeClaim, cores: i64, pods: Vec<Pod>) {
    let name = claim.metadata.name.clone().unwrap_or_default();
    for kind in [condition::REGISTERED, condition::INITIALIZED, condition::CONSOLIDATABLE] {
        set(&mut claim, kind);
    }
    let mut labels = claim.metadata.labels.clone().unwrap_or_default();
    labels.insert(HOSTNAME.to_owned(), name.clone());
    cluster.nodes.push(Arc::new(Node {
        name: name.as_str().into(),
        provider_id: format!("test://{name}").into(),
        labels,
        allocatable: capacity(cores),
        capacity: capacity(cores),
        ready: true,
        ..Node::default()
    }));
    cluster.claims.push(Arc::new(claim));
    for pod in pods {
        let node = Some(name.as_str().into());
        cluster.pods.push(Arc::new(Pod { node, scheduled: Scheduled::Bound, ..pod }));
    }
}

/// Devices of this node, as the driver `gpu.test` publishes them.
pub(in crate::nodes) fn slice(node: &str, devices: usize) -> Arc<Slice> {
    let device = |number: usize| Device { name: format!("gpu-{number}").into(), ..Device::default() };
    let mut slice = Slice::default();
    slice.name = format!("{node}-gpu.test").into();
    slice.pool = ("gpu.test".into(), node.into());
    (slice.generation, slice.slices) = (1, 1);
    slice.access = Some(Access::Node(node.into()));
    slice.devices = (0..devices).map(device).collect();
    Arc::new(slice)
}

/// The class `gpu`, the resource [`GPU`] that stands for it, the templates `gpus-1` to `gpus-8` of so many devices, and
/// the claim `shared` of one.
pub(in crate::nodes) fn devices() -> Objects {
    let mut objects = Objects::default();
    let class = DeviceClass {
        selectors: vec![Selector::new("device.driver == 'gpu.test'")],
        extended_resource: Some(GPU.into()),
        ..DeviceClass::default()
    };
    objects.classes.insert("gpu".into(), Arc::new(class));
    let of = |count: usize| -> ClaimSpec {
        let exactly = json!({"deviceClassName": "gpu", "count": count});
        let devices = json!({"requests": [{"name": "r", "exactly": exactly}]});
        let template = json!({"metadata": {}, "spec": {"spec": {"devices": devices}}});
        ClaimSpec::of_template(&serde_json::from_value(template).unwrap())
    };
    for count in 1..=8 {
        objects.templates.insert(("default".into(), format!("gpus-{count}").into()), Arc::new(of(count)));
    }
    let shared = Claim { spec: Arc::new(of(1)), ..Claim::default() };
    objects.claims.insert(("default".into(), "shared".into()), Arc::new(shared));
    objects
}

/// The resource that stands for a device.
pub(in crate::nodes) const GPU: &str = "example.com/gpu";

/// The same pod with a claim of its own of so many devices.
pub(super) fn with_gpus(pod: Pod, count: usize) -> Pod {
    let claim = PodClaim::Own { template: format!("gpus-{count}").into(), name: None };
    Pod { device_claims: vec![claim], ..pod }
}

/// The same pod with the claim that others have too.
pub(super) fn with_shared_gpu(pod: Pod) -> Pod {
    Pod { device_claims: vec![PodClaim::Named("shared".into())], ..pod }
}

/// The same pod, which names a device by its resource.
pub(super) fn naming_gpu(pod: Pod) -> Pod {
    with(pod, |shape| {
        shape.requests.set(GPU, 1);
        shape.extended = [ExtendedRequest { name: "r".into(), resource: GPU.into(), count: 1 }].into();
    })
}
