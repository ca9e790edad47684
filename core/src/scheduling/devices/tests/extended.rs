//! Devices by the names of extended resources.

use super::*;
use crate::scheduling::devices::{DeviceClass, ExtendedRequest, PodClaim};

const GPU: &str = "example.com/gpu";

impl Cluster {
    /// A class that stands for an extended resource, created in this second.
    fn class(mut self, name: &str, second: u8, resource: &str, driver: &str) -> Self {
        let class: resource::DeviceClass = serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"extendedResourceName": resource,
                     "selectors": [{"cel": {"expression": format!("device.driver == '{driver}'")}}]},
        }))
        .unwrap();
        self.objects.classes.insert(name.into(), Arc::new(DeviceClass::read(&class)));
        self
    }

    /// A node whose device plugin offers so many.
    fn plugged(self, name: &str, count: i64) -> Self {
        let mut cluster = self.node(name);
        cluster.nodes.last_mut().unwrap().allocatable.set(GPU, count);
        cluster
    }
}

fn container(requests: &Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests}})
}

/// A pod that asks for so many of a resource.
fn naming(resource: &str, count: u8) -> Pod {
    let pod: core::Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": NAMESPACE, "uid": "p"},
        "spec": {"containers": [container(&json!({resource: count.to_string()}))]},
    }))
    .unwrap();
    Pod::read(&pod, Arc::new)
}

/// A name, init containers, containers, and what they ask for.
type Case<'a> = (&'a str, Vec<Value>, Vec<Value>, &'a [(&'a str, i64)]);

#[test]
fn containers_ask_as_the_scheduler_has_it() {
    let gpus = |count: u8| container(&json!({"cpu": "1", GPU: count.to_string()}));
    let sidecar = |count| {
        let mut sidecar = gpus(count);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    };
    let none =
        || container(&json!({"cpu": "1", "memory": "1Gi", "kubernetes.io/x": "1", "hugepages-2Mi": "2Mi"}));
    let nics = container(&json!({"example.com/nic": "3", GPU: "1"}));
    let cases: [Case<'_>; 9] = [
        ("nothing", vec![none()], vec![none()], &[]),
        ("zero", vec![], vec![gpus(0)], &[]),
        (
            "each its own",
            vec![],
            vec![gpus(2), none(), gpus(1)],
            &[("container-0-request-1", 2), ("container-2-request-1", 1)],
        ),
        (
            "by the order of names",
            vec![],
            vec![nics],
            &[("container-0-request-0", 1), ("container-0-request-1", 3)],
        ),
        (
            "what starts later is there",
            vec![gpus(2)],
            vec![gpus(1), gpus(1)],
            &[("container-1-request-1", 1), ("container-2-request-1", 1)],
        ),
        (
            "what is beyond that",
            vec![gpus(5)],
            vec![gpus(2)],
            &[("container-0-request-1", 3), ("container-1-request-1", 2)],
        ),
        (
            "the most of those before",
            vec![gpus(3), gpus(4), gpus(4)],
            vec![gpus(2)],
            &[("container-1-request-1", 2), ("container-3-request-1", 2)],
        ),
        (
            "a sidecar before runs beside",
            vec![sidecar(2), gpus(3)],
            vec![gpus(1)],
            &[("container-0-request-1", 2), ("container-1-request-1", 2), ("container-2-request-1", 1)],
        ),
        (
            "a sidecar after is not there yet",
            vec![gpus(3), sidecar(2)],
            vec![none()],
            &[("container-0-request-1", 1), ("container-1-request-1", 2)],
        ),
    ];
    for (name, init, containers, expected) in cases {
        let spec: core::PodSpec =
            serde_json::from_value(json!({"initContainers": init, "containers": containers})).unwrap();
        let found = ExtendedRequest::of_pod(&spec);
        let found: Vec<_> = found.iter().map(|request| (&*request.name, request.count)).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_device_plugin_is_judged_by_what_it_offers_and_other_nodes_by_their_devices() {
    let cluster = || {
        Cluster::new()
            .class("named", 0, GPU, "gpu.test")
            .plugged("plugin", 3)
            .equipped("devices", &plain(5))
            .node("nothing")
    };
    for (resource, expected) in
        [(GPU, 3), ("deviceclass.resource.kubernetes.io/named", 2), ("other.com/gpu", 0)]
    {
        let (mut snapshot, nodes) = cluster().snapshot();
        let class = snapshot.class(&naming(resource, 2));
        let before = snapshot.checkpoint();
        assert_eq!(fill(&mut snapshot, class), expected, "{resource}");
        assert!(snapshot.device_holders().iter().all(|count| *count == 1));
        snapshot.rollback(before);
        assert!(snapshot.device_holders().is_empty());
        let reasons =
            [0, 2].map(|at| snapshot.check(class, nodes[at]).err().map(|reason| reason.to_string()));
        let short = || Some(format!("Insufficient {resource}"));
        let none = || Some("cannot allocate all claims".to_owned());
        let wanted = match resource {
            GPU => [None, none()],
            "other.com/gpu" => [short(), short()],
            _ => [none(), none()],
        };
        assert_eq!(reasons, wanted, "{resource}");
    }
}

#[test]
fn of_classes_with_the_same_resource_the_newest_counts() {
    let equipped = || Cluster::new().equipped("n", &plain(1));
    let cases = [
        ("newer", equipped().class("a", 1, GPU, "other.test").class("b", 2, GPU, "gpu.test"), 1),
        ("older", equipped().class("a", 1, GPU, "gpu.test").class("b", 2, GPU, "other.test"), 0),
        ("as new", equipped().class("a", 1, GPU, "gpu.test").class("b", 1, GPU, "other.test"), 1),
    ];
    for (name, cluster, expected) in cases {
        let (mut snapshot, _) = cluster.snapshot();
        let class = snapshot.class(&naming(GPU, 1));
        assert_eq!(fill(&mut snapshot, class), expected, "{name}");
    }
}

#[test]
fn a_running_pod_has_what_the_scheduler_claimed_for_it_until_it_moves() {
    let status = json!({
        "reservedFor": [{"resource": "pods", "name": "p", "uid": "p"}],
        "allocation": {"devices": {"results": [
            {"request": "container-0-request-0", "driver": "gpu.test", "pool": "n", "device": "gpu-0"}]}},
    });
    let asked =
        json!({"requests": [{"name": "container-0-request-0", "exactly": {"deviceClassName": "named"}}]});
    let cluster = Cluster::new().class("named", 0, GPU, "gpu.test").equipped("n", &plain(2));
    let (mut snapshot, nodes) = cluster.claim("made", &asked, &status).snapshot();
    let waiting = snapshot.class(&naming(GPU, 1));
    let mut running = naming(GPU, 1);
    running.device_claims = vec![PodClaim::Extended("made".into())];
    let class = snapshot.class(&running);
    assert_eq!(class, waiting, "elsewhere it would ask for the same");
    snapshot.settle(&running, class, nodes[0]);
    assert_eq!(fill(&mut snapshot, waiting), 1);
    snapshot.unsettle(&running, class, nodes[0]);
    assert_eq!(fill(&mut snapshot, waiting), 1, "the device is free");
    assert_eq!(fill(&mut snapshot, waiting), 0);
}

#[test]
fn a_node_to_come_that_is_known_to_offer_a_resource_takes_no_device_of_others() {
    let everywhere = json!({"allNodes": true, "devices": plain(1)});
    let cluster = Cluster::new().class("named", 0, GPU, "gpu.test").slice("s", ("net", 1), &everywhere);
    let (mut snapshot, _) = cluster.snapshot();
    let class = snapshot.class(&naming(GPU, 1));
    let closed = snapshot.add_closed(&Node { name: "new".into(), ..Node::default() }, &[]);
    snapshot.bind(class, closed);
    assert!(snapshot.device_holders().is_empty());
}
