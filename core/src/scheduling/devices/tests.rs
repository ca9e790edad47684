//! Devices on nodes, through the snapshot.

mod extended;

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1 as core,
    resource::v1::{self as resource, ResourceClaim, ResourceClaimTemplate, ResourceSlice},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Claim, ClaimSpec, DeviceClass, Objects, Slice};
use crate::scheduling::{ClassId, Node, NodeId, Pod, Reason, Resources, Snapshot, Surroundings};

const NAMESPACE: &str = "default";

/// What drivers and users say.
#[derive(Default)]
struct Cluster {
    objects: Objects,
    nodes: Vec<Node>,
}

impl Cluster {
    /// A cluster with the classes `gpu`, of one driver, and `any`.
    fn new() -> Self {
        let mut cluster = Self::default();
        for (name, selectors) in
            [("gpu", json!([{"cel": {"expression": "device.driver == 'gpu.test'"}}])), ("any", json!([]))]
        {
            let class: resource::DeviceClass =
                serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"selectors": selectors}}))
                    .unwrap();
            cluster.objects.classes.insert(name.into(), Arc::new(DeviceClass::read(&class)));
        }
        cluster
    }

    fn node(mut self, name: &str) -> Self {
        let allocatable = Resources { cpu: 64_000, pods: 110, ..Resources::default() };
        self.nodes.push(Node { name: name.into(), allocatable, ready: true, ..Node::default() });
        self
    }

    /// Publishes a slice; `spec` has what it says beside driver and pool.
    fn slice(mut self, name: &str, (pool, count): (&str, i64), spec: &Value) -> Self {
        let slice = slice(name, (pool, count), spec);
        self.objects.slices.insert(name.into(), slice);
        self
    }

    /// A node with devices of its own.
    fn equipped(self, node: &str, devices: &Value) -> Self {
        let spec = json!({"nodeName": node, "devices": devices});
        self.node(node).slice(node, (node, 1), &spec)
    }

    fn template(mut self, name: &str, devices: &Value) -> Self {
        let template: ResourceClaimTemplate =
            serde_json::from_value(json!({"metadata": {}, "spec": {"spec": {"devices": devices}}})).unwrap();
        let spec = Arc::new(ClaimSpec::of_template(&template));
        self.objects.templates.insert((NAMESPACE.into(), name.into()), spec);
        self
    }

    fn claim(mut self, name: &str, devices: &Value, status: &Value) -> Self {
        let claim: ResourceClaim =
            serde_json::from_value(json!({"metadata": {}, "spec": {"devices": devices}, "status": status}))
                .unwrap();
        self.objects.claims.insert((NAMESPACE.into(), name.into()), Arc::new(Claim::read(&claim)));
        self
    }

    fn snapshot(self) -> (Snapshot, Vec<NodeId>) {
        let devices = Some(Arc::new(self.objects));
        let mut snapshot = Snapshot::new(Arc::new(Surroundings { devices, ..Surroundings::default() }));
        let nodes = self.nodes.iter().map(|node| snapshot.add_node(node)).collect();
        (snapshot, nodes)
    }
}

fn slice(name: &str, (pool, count): (&str, i64), spec: &Value) -> Arc<Slice> {
    let mut spec = spec.clone();
    spec["driver"] = json!("gpu.test");
    spec["pool"] = json!({"name": pool, "generation": 1, "resourceSliceCount": count});
    let slice: ResourceSlice =
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    Arc::new(Slice::read(&slice))
}

/// A pod with a claim: one by name, or one of its own made from a template.
fn pod(name: &str, reference: &Value) -> Pod {
    let mut reference = reference.clone();
    reference["name"] = json!("devices");
    let pod: core::Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": name},
        "spec": {"containers": [], "resourceClaims": [reference]},
    }))
    .unwrap();
    Pod::read(&pod, Arc::new)
}

fn own(template: &str) -> Pod {
    pod("own", &json!({"resourceClaimTemplateName": template}))
}

fn named(name: &str, claim: &str) -> Pod {
    pod(name, &json!({"resourceClaimName": claim}))
}

/// Some plain devices.
fn plain(count: usize) -> Value {
    (0..count).map(|number| json!({"name": format!("gpu-{number}")})).collect()
}

fn one() -> Value {
    json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]})
}

/// How many pods of a class find a node, one after the other.
fn fill(snapshot: &mut Snapshot, class: ClassId) -> usize {
    let mut count = 0;
    while let Some(node) = snapshot.find(class, None) {
        snapshot.bind(class, node);
        count += 1;
    }
    count
}

#[test]
fn as_many_pods_fit_as_there_are_devices_for() {
    let exactly = |more: Value| {
        let mut exactly = json!({"deviceClassName": "gpu"});
        for (key, value) in more.as_object().unwrap() {
            exactly[key] = value.clone();
        }
        json!({"requests": [{"name": "r", "exactly": exactly}]})
    };
    let on = |numa: i64, name: &str| json!({"name": name, "attributes": {"numa": {"int": numa}}});
    let numa = json!([on(0, "a"), on(0, "b"), on(1, "c"), on(1, "d"), on(1, "e")]);
    let constrained = |rule: &str| {
        let mut asked = exactly(json!({"count": 2}));
        asked["constraints"] = json!([{rule: "gpu.test/numa"}]);
        asked
    };
    let tainted = json!([{"name": "a"}, {"name": "b", "taints": [{"key": "k", "effect": "NoSchedule"}]}]);
    let tolerant = exactly(json!({"tolerations": [{"key": "k", "operator": "Exists"}]}));
    let shared =
        json!([{"name": "a", "allowMultipleAllocations": true, "capacity": {"memory": {"value": "80Gi"}}}]);
    let cases = [
        ("one each", plain(3), one(), 3),
        ("two each", plain(5), exactly(json!({"count": 2})), 2),
        ("all", plain(5), exactly(json!({"allocationMode": "All"})), 1),
        ("of one NUMA node", numa.clone(), constrained("matchAttribute"), 2),
        ("of different NUMA nodes", numa, constrained("distinctAttribute"), 2),
        ("not tainted", tainted.clone(), one(), 1),
        ("tainted", tainted, tolerant, 2),
        ("a look", plain(1), exactly(json!({"adminAccess": true, "count": 2})), 0),
        ("shares", shared.clone(), exactly(json!({"capacity": {"requests": {"memory": "30Gi"}}})), 2),
        ("the whole unless it says", shared, one(), 1),
        ("too many at once", plain(40), exactly(json!({"count": 33})), 0),
        (
            "what is second best",
            plain(3),
            json!({"requests": [{"name": "r", "firstAvailable": [
                {"name": "two", "deviceClassName": "gpu", "count": 2},
                {"name": "one", "deviceClassName": "gpu"}]}]}),
            2,
        ),
    ];
    for (name, devices, asked, expected) in cases {
        let (mut snapshot, _) = Cluster::new().equipped("n", &devices).template("t", &asked).snapshot();
        let class = snapshot.class(&own("t"));
        assert_eq!(fill(&mut snapshot, class), expected, "{name}");
    }
}

#[test]
fn nodes_refuse_for_kube_schedulers_reasons() {
    let ask = |class: &str, expression: &str| {
        json!({"requests": [{"name": "r", "exactly": {
            "deviceClassName": class, "selectors": [{"cel": {"expression": expression}}]}}]})
    };
    let all =
        json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "any", "allocationMode": "All"}}]});
    let cluster = || {
        Cluster::new()
            .equipped("n", &plain(1))
            .slice("half", ("half", 2), &json!({"nodeName": "n", "devices": plain(4)}))
            .template("b", &ask("gpu", "device.driver =="))
            .template("fails", &ask("gpu", "device.attributes['gpu.test'].absent == 1"))
            .template("absent", &ask("absent", "true"))
            .template("other", &ask("gpu", "device.driver == 'other.test'"))
            .template("all", &all)
    };
    let cases = [
        (own("none"), "resourceclaimtemplate \"none\" not found"),
        (named("p", "none"), "resourceclaim \"none\" not found"),
        (own("absent"), "request r: device class absent does not exist"),
        (own("b"), "request r: selector \"device.driver ==\": CEL compile error"),
        (
            own("fails"),
            "request r: selector \"device.attributes['gpu.test'].absent == 1\": CEL runtime error: No such key: absent",
        ),
        (own("other"), "cannot allocate all claims"),
        (own("all"), "request r: asks for all devices, but a resource pool is currently being updated"),
    ];
    for (pod, expected) in cases {
        let (mut snapshot, nodes) = cluster().snapshot();
        let class = snapshot.class(&pod);
        let reason = snapshot.check(class, nodes[0]).unwrap_err();
        assert!(reason.to_string().starts_with(expected), "{reason}");
        assert!(reason.is_unresolvable(), "{reason}");
    }
    let mut unread = Snapshot::new(Arc::new(Surroundings::default()));
    let class = unread.class(&own("t"));
    let node = unread.add_node(&Node::default());
    assert_eq!(unread.check(class, node), Err(Reason::DevicesUnknown));
}

#[test]
fn a_shared_claim_keeps_its_pods_together_until_the_last_one_leaves() {
    let cluster = Cluster::new().equipped("n0", &plain(1)).equipped("n1", &plain(1));
    let (mut snapshot, nodes) = cluster.claim("shared", &one(), &json!({})).snapshot();
    let class = snapshot.class(&named("p", "shared"));
    let before = snapshot.checkpoint();
    snapshot.bind(class, nodes[1]);
    assert_eq!(snapshot.check(class, nodes[0]), Err(Reason::DevicesElsewhere));
    assert_eq!(snapshot.find(class, None), Some(nodes[1]));
    snapshot.bind(class, nodes[1]);
    snapshot.unbind(class, nodes[1]);
    assert_eq!(snapshot.check(class, nodes[0]), Err(Reason::DevicesElsewhere), "one still uses it");
    snapshot.unbind(class, nodes[1]);
    assert_eq!(snapshot.check(class, nodes[0]), Ok(()));
    snapshot.rollback(before);
    assert!(snapshot.device_holders().is_empty());
}

#[test]
fn what_a_pod_has_is_free_once_it_moves() {
    let status = json!({
        "reservedFor": [{"resource": "pods", "name": "p", "uid": "p"}],
        "allocation": {
            "devices": {"results": [{"request": "r", "driver": "gpu.test", "pool": "n0", "device": "gpu-0"}]},
            "nodeSelector": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n0"]}]}]},
        },
    });
    let cluster = Cluster::new().equipped("n0", &plain(1)).equipped("n1", &plain(1)).template("t", &one());
    let (mut snapshot, nodes) = cluster.claim("p-claim", &one(), &status).snapshot();
    let mut running = own("t");
    running.device_claims = vec![super::PodClaim::Own { template: "t".into(), name: Some("p-claim".into()) }];
    let waiting = snapshot.class(&running);
    assert_eq!(snapshot.check(waiting, nodes[1]), Err(Reason::DevicesElsewhere), "it has not moved yet");
    (running.node, running.uid) = (Some("n0".into()), "p".into());
    let class = snapshot.class(&running);
    for _ in 0..2 {
        snapshot.settle(&running, class, nodes[0]);
        assert_eq!(snapshot.check(class, nodes[0]).unwrap_err().to_string(), "cannot allocate all claims");
        snapshot.unsettle(&running, class, nodes[0]);
        assert_eq!(snapshot.check(class, nodes[0]), Ok(()), "the device is free");
    }
    snapshot.settle(&running, class, nodes[0]);
    let before = snapshot.checkpoint();
    snapshot.remove_node(nodes[0]);
    snapshot.bind(class, nodes[1]);
    assert_eq!(snapshot.device_holders(), [1]);
    snapshot.rollback(before);
    assert_eq!(snapshot.check(class, nodes[0]).unwrap_err().to_string(), "cannot allocate all claims");
    assert_eq!(snapshot.check(class, nodes[1]), Ok(()));
}

#[test]
fn every_imagined_node_has_devices_of_its_own() {
    let (mut snapshot, _) = Cluster::new().equipped("n", &plain(2)).template("t", &one()).snapshot();
    let slices: Arc<[_]> = [slice("n", ("n", 1), &json!({"nodeName": "n", "devices": plain(2)}))].into();
    let class = snapshot.class(&own("t"));
    assert_eq!(fill(&mut snapshot, class), 2, "the real one");
    for number in 0..3 {
        let allocatable = Resources { cpu: 1_000, pods: 110, ..Resources::default() };
        let name = format!("new-{number}").into();
        snapshot.add_node(&Node { name, allocatable, slices: Some(slices.clone()), ..Node::default() });
    }
    assert_eq!(fill(&mut snapshot, class), 6);
    assert!(snapshot.device_holders().iter().all(|count| *count == 1));
}

#[test]
fn rules_taint_the_devices_that_they_select() {
    let on = |driver: Option<&str>, pool: Option<&str>, device: Option<&str>| json!({"deviceSelector": {"driver": driver, "pool": pool, "device": device}});
    let effect = |effect: &str| json!({"taint": {"key": "k", "effect": effect}});
    // Of two devices of a node, and two of one to come like it.
    let cases = [
        ("every device", json!({}), 0, 0),
        ("by its driver", on(Some("gpu.test"), None, None), 0, 0),
        ("another driver", on(Some("nic.test"), None, None), 2, 2),
        ("by its pool, as no new node's will be called", on(None, Some("n"), None), 0, 2),
        ("by its name", on(Some("gpu.test"), None, Some("gpu-1")), 1, 1),
        ("all of these", on(Some("gpu.test"), Some("other"), Some("gpu-1")), 2, 2),
        ("an effect that repels nobody", effect("None"), 2, 2),
        ("one that evicts, too", effect("NoExecute"), 0, 0),
    ];
    for (name, mut spec, on_node, on_new) in cases {
        if spec["taint"].is_null() {
            spec["taint"] = json!({"key": "k", "effect": "NoSchedule"});
        }
        let rule: resource::DeviceTaintRule =
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let mut cluster = Cluster::new().equipped("n", &plain(2)).template("t", &one());
        cluster.objects.taint_rules.insert("r".into(), Arc::new(super::TaintRule::read(&rule)));
        let (mut snapshot, _) = cluster.snapshot();
        let class = snapshot.class(&own("t"));
        assert_eq!(fill(&mut snapshot, class), on_node, "{name}");
        let slices: Arc<[_]> = [slice("n", ("n", 1), &json!({"nodeName": "n", "devices": plain(2)}))].into();
        let allocatable = Resources { cpu: 1_000, pods: 110, ..Resources::default() };
        snapshot.add_node(&Node { name: "m".into(), allocatable, slices: Some(slices), ..Node::default() });
        assert_eq!(fill(&mut snapshot, class), on_new, "{name}, on a new node");
    }
}

/// A device that takes so many units of what the pool shares, or none; and how many devices a claim asks for.
fn pool() -> impl Strategy<Value = (Vec<u8>, u8, Vec<(u8, bool)>)> {
    (prop::collection::vec(0..4_u8, 1..7), 0..9_u8, prop::collection::vec((1..4_u8, any::<bool>()), 1..7))
}

proptest! {
    #[test]
    fn no_device_is_given_twice_and_no_counter_below_nothing((parts, units, asked) in pool()) {
        let devices: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(number, units)| {
                let mut device = json!({"name": format!("gpu-{number}"), "attributes": {"numa": {"int": number % 2}}});
                if *units > 0 {
                    device["consumesCounters"] =
                        json!([{"counterSet": "set", "counters": {"units": {"value": units.to_string()}}}]);
                }
                device
            })
            .collect();
        let counters = json!([{"name": "set", "counters": {"units": {"value": units.to_string()}}}]);
        let mut cluster = Cluster::new()
            .node("n")
            .slice("a", ("p", 2), &json!({"nodeName": "n", "devices": devices}))
            .slice("b", ("p", 2), &json!({"nodeName": "n", "sharedCounters": counters}));
        for (number, (count, same)) in asked.iter().enumerate() {
            let mut claim = json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}}]});
            if *same {
                claim["constraints"] = json!([{"matchAttribute": "gpu.test/numa"}]);
            }
            cluster = cluster.template(&number.to_string(), &claim);
        }
        let (mut snapshot, nodes) = cluster.snapshot();
        let before = snapshot.checkpoint();
        let mut wanted = 0;
        for (number, (count, _)) in asked.iter().enumerate() {
            let class = snapshot.class(&own(&number.to_string()));
            if snapshot.check(class, nodes[0]).is_ok() {
                snapshot.bind(class, nodes[0]);
                wanted += usize::from(*count);
            }
        }
        let holders = snapshot.device_holders();
        prop_assert!(holders.iter().all(|count| *count == 1));
        prop_assert_eq!(holders.len(), wanted, "who is let in gets what it asks for");
        prop_assert!(snapshot.units_in_use(&parts) <= usize::from(units));
        snapshot.rollback(before);
        prop_assert!(snapshot.device_holders().is_empty());
    }
}
