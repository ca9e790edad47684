use k8s_openapi::api::resource::v1::{self as resource, ResourceClaimTemplate, ResourceSlice};
use serde_json::json;

use super::*;
use crate::scheduling::devices::{ClaimSpec, DeviceClass, Objects, PodClaim, Slice};

/// The slice of a node with two devices.
fn slice(node: &str) -> Arc<Slice> {
    let devices: Vec<_> = (0..2).map(|number| json!({"name": format!("gpu-{number}")})).collect();
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "gpu.test", "pool": pool, "nodeName": node, "devices": devices});
    let slice: ResourceSlice =
        serde_json::from_value(json!({"metadata": {"name": node}, "spec": spec})).unwrap();
    Arc::new(Slice::read(&slice))
}

/// A cluster of a group whose nodes, and those to come, have two devices each; pods may ask for one.
fn with_devices(count: u32) -> Cluster {
    let mut cluster = Cluster::default().group("a", (0, 9), count);
    let mut objects = Objects::default();
    let class: resource::DeviceClass =
        serde_json::from_value(json!({"metadata": {"name": "gpu"}, "spec": {}})).unwrap();
    objects.classes.insert("gpu".into(), Arc::new(DeviceClass::read(&class)));
    let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu"}});
    let template = json!({"metadata": {}, "spec": {"spec": {"devices": {"requests": [request]}}}});
    let template: ResourceClaimTemplate = serde_json::from_value(template).unwrap();
    let namespace = pod("p", 1).shape.namespace.clone();
    objects.templates.insert((namespace, "one".into()), Arc::new(ClaimSpec::of_template(&template)));
    for number in 0..count {
        let name: Arc<str> = format!("a-{number}").into();
        objects.slices.insert(name.clone(), slice(&name));
    }
    cluster.input.surroundings =
        Arc::new(Surroundings { devices: Some(Arc::new(objects)), ..Surroundings::default() });
    cluster.input.templates.get_mut("a").unwrap().node.slices = Some([slice("a-0")].into());
    cluster
}

/// The pods from this one on ask for a device each.
fn asking(mut cluster: Cluster, from: usize) -> Cluster {
    for pod in &mut cluster.input.pods[from..] {
        Arc::make_mut(pod).device_claims = vec![PodClaim::Own { template: "one".into(), name: None }];
    }
    cluster
}

#[test]
fn a_group_grows_by_the_devices_of_its_nodes() {
    let mut cluster = asking(with_devices(1).waiting(7, 10), 0);
    let outcome = cluster.pass(&mut Memory::default(), 1, &settings());
    assert_eq!(grown(&outcome), [("a", 4)], "two go to the node that is there");
}

#[test]
fn nothing_grows_for_devices_that_no_new_node_has() {
    let mut cluster = asking(with_devices(0).waiting(1, 10), 0);
    cluster.input.templates.get_mut("a").unwrap().node.slices = None;
    let outcome = cluster.pass(&mut Memory::default(), 1, &settings());
    assert_eq!(grown(&outcome), []);
    let why: Vec<_> = outcome.plan.refused[0].1.iter().map(|refusal| &*refusal.reason).collect();
    assert_eq!(why, ["cannot allocate all claims"]);
}

#[test]
fn nothing_grows_for_claims_that_cannot_be_read() {
    let mut cluster = asking(with_devices(1).waiting(1, 10), 0);
    cluster.input.surroundings = Arc::default();
    let outcome = cluster.pass(&mut Memory::default(), 1, &settings());
    assert_eq!(grown(&outcome), []);
    assert!(outcome.plan.refused[0].1[0].reason.starts_with("cannot be judged"));
}

#[test]
fn a_node_goes_if_others_have_the_devices_for_its_pods() {
    let pods = |more: usize| {
        let mut cluster = with_devices(2).running("a-0", 10, |_| ());
        for _ in 0..more {
            cluster = cluster.running("a-1", 10, |_| ());
        }
        // What its claims have is what the API says: nothing yet, so its pools count as in use by nobody.
        asking(cluster, 0)
    };
    let removed = |more, label: &str| {
        let mut cluster = pods(more);
        let objects = cluster.input.surroundings.devices.clone().unwrap();
        let mut objects = (*objects).clone();
        for (number, pod) in cluster.input.pods.iter_mut().enumerate() {
            let node = pod.node.clone().unwrap();
            let (name, device) = (format!("claim-{number}"), format!("gpu-{}", number.max(1) - 1));
            let results = json!([{"request": "r", "driver": "gpu.test", "pool": *node, "device": device}]);
            let claim = serde_json::from_value(json!({
                "metadata": {}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}},
                "status": {"allocation": {"devices": {"results": results}},
                           "reservedFor": [{"resource": "pods", "name": "p", "uid": *pod.uid}]},
            }))
            .unwrap();
            let claim = Arc::new(crate::scheduling::devices::Claim::read(&claim));
            objects.claims.insert((pod.shape.namespace.clone(), name.as_str().into()), claim);
            Arc::make_mut(pod).device_claims =
                vec![PodClaim::Own { template: "one".into(), name: Some(name.into()) }];
        }
        cluster.input.surroundings =
            Arc::new(Surroundings { devices: Some(Arc::new(objects)), ..Surroundings::default() });
        for node in &mut cluster.input.nodes {
            Arc::make_mut(node).labels.insert("accelerator".to_owned(), "a100".to_owned());
        }
        let (mut memory, mut settings) = (Memory::default(), settings());
        label.clone_into(&mut settings.scale_down.gpu_label);
        cluster.pass(&mut memory, 1, &settings);
        let outcome = cluster.pass(&mut memory, 60, &settings);
        let stays = outcome.unremovable.iter().map(|it| (&*it.node, it.text.clone())).collect::<Vec<_>>();
        (removals(&outcome).len(), format!("{stays:?}"))
    };
    // That the provider calls them GPUs says nothing of nodes without a device plugin for them.
    for label in ["", "accelerator"] {
        let (count, stays) = removed(1, label);
        assert_eq!(count, 1, "{stays}");
        let (count, stays) = removed(2, label);
        assert_eq!(count, 0);
        assert!(stays.contains("fits on no other node"), "{stays}");
        assert!(stays.contains("gpu.test/a-1 requested (100%"), "{stays}");
    }
}
