//! `taints_hostports_volume`: taints, ports of nodes, requests of pods, and attached volumes.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{self as k8s, Taint},
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::{Value, json};
use tandem_core::{
    nodes::{
        estimator::{Limiter, Limits, estimate},
        group::Template,
    },
    scheduling::{
        Node, NodeId, Pod, Reason, Resources, Snapshot, Surroundings,
        resources::{pod_limits, pod_requests},
        surroundings::{Claim, Volume},
        taints::is_ephemeral,
    },
};

use super::{Differences, Verdict, object, read, unknown_kind};

pub(super) fn judge(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    match case["kind"].as_str() {
        Some("podCeiling") => pod_ceiling(case, &mut differences),
        Some("toleration") => toleration(case, &mut differences),
        Some("ephemeralTaint") => {
            let taint: Option<Taint> = read(&case["taint"]);
            differences.same("ephemeral", taint.as_ref().is_some_and(is_ephemeral), read(&case["expected"]));
        }
        Some("hostPortsMatch") => host_ports_match(case, &mut differences),
        Some("hostPortUsage") => host_port_usage(case, &mut differences),
        Some("hostPortSpread") => host_port_spread(case, &mut differences),
        Some("maxResources") => resources(case, &mut differences, Resources::raise_to),
        Some("minResources") => resources(case, &mut differences, Resources::lower_to),
        Some("volumeLimit") => volume_limit(case, &mut differences),
        Some("volumeSpread") => volume_spread(case, &mut differences),
        _ => return unknown_kind(case),
    }
    differences.verdict()
}

fn list(value: &Value) -> Resources {
    Resources::from_list(&read::<BTreeMap<String, Quantity>>(value))
}

fn pod_ceiling(case: &Value, differences: &mut Differences) {
    let pod: k8s::Pod = object(&case["pod"]);
    if !case["expectedRequests"].is_null() {
        let wanted = Resources { pods: 1, ..list(&case["expectedRequests"]) };
        differences.same("requests", pod_requests(&pod), wanted);
    }
    if !case["expectedLimits"].is_null() {
        let wanted = Resources { pods: 1, ..list(&case["expectedLimits"]) };
        let spec = pod.spec.as_ref().expect("a spec");
        differences.same("limits", pod_limits(spec), wanted);
    }
}

fn resources(case: &Value, differences: &mut Differences, with: impl Fn(&mut Resources, &Resources)) {
    let combined = case["inputs"].as_array().expect("inputs").iter().map(list).reduce(|mut one, other| {
        with(&mut one, &other);
        one
    });
    differences.same("resources", combined.unwrap_or_default(), list(&case["expected"]));
}

/// A node with room for everything.
fn spacious(name: &str) -> Node {
    let allocatable = Resources { pods: 1_000_000, ..Resources::default() };
    Node { name: name.into(), allocatable, ..Node::default() }
}

fn read_pod(mut spec: Value) -> Pod {
    spec.as_object_mut().expect("a spec").entry("containers").or_insert_with(|| json!([]));
    Pod::read(&object::<k8s::Pod>(&json!({"metadata": {"namespace": "default"}, "spec": spec})), Arc::new)
}

/// Startup taints are gone before a pod comes, so that nobody needs to tolerate them.
fn toleration(case: &Value, differences: &mut Differences) {
    let mut snapshot = Snapshot::default();
    let node = snapshot.add_node(&Node { taints: read(&case["nodePoolTaints"]), ..spacious("node") });
    let class = snapshot.class(&read_pod(json!({"tolerations": case["tolerations"]})));
    differences.same("schedulable", snapshot.check(class, node).is_ok(), read(&case["expected"]));
}

fn with_ports(ports: &[Value]) -> Pod {
    let ports: Vec<_> = ports
        .iter()
        .map(|port| {
            json!({"containerPort": 80, "hostIP": port["hostIP"], "hostPort": port["hostPort"], "protocol": port["protocol"]})
        })
        .collect();
    read_pod(json!({"containers": [{"name": "main", "ports": ports}]}))
}

/// Whether a pod cannot come to a node that has the others, for its ports.
fn ports_collide(there: &[Pod], new: &Pod) -> bool {
    let mut snapshot = Snapshot::default();
    let node = snapshot.add_node(&spacious("node"));
    for pod in there {
        let class = snapshot.class(pod);
        snapshot.bind(class, node);
    }
    let class = snapshot.class(new);
    snapshot.check(class, node) == Err(Reason::Ports)
}

fn host_ports_match(case: &Value, differences: &mut Differences) {
    let [a, b] = ["a", "b"].map(|name| with_ports(std::slice::from_ref(&case[name])));
    differences.same("a, then b", ports_collide(std::slice::from_ref(&a), &b), read(&case["expected"]));
    differences.same("b, then a", ports_collide(std::slice::from_ref(&b), &a), read(&case["expected"]));
}

/// A pod never collides with its own ports: it is not there when it is asked about.
fn host_port_usage(case: &Value, differences: &mut Differences) {
    let used = case["used"].as_array().expect("used").iter().filter(|used| used["pod"] != case["pod"]);
    let there: Vec<_> = used.map(|used| with_ports(std::slice::from_ref(used))).collect();
    let new = with_ports(case["ports"].as_array().expect("ports"));
    differences.same("conflict", ports_collide(&there, &new), read(&case["expectedConflict"]));
}

/// New nodes that so many like pods need.
fn new_nodes(snapshot: &mut Snapshot, pods: &[(tandem_core::scheduling::ClassId, u32)]) -> u32 {
    let template = Template { node: spacious("new"), pods: Vec::new() };
    let clock = || Timestamp::UNIX_EPOCH;
    estimate(snapshot, &template, pods, &mut Limiter::start(Limits::default(), &clock)).nodes
}

fn host_port_spread(case: &Value, differences: &mut Differences) {
    let mut snapshot = Snapshot::default();
    let class = snapshot.class(&with_ports(std::slice::from_ref(case)));
    let nodes = new_nodes(&mut snapshot, &[(class, read(&case["pods"]))]);
    differences.same("nodes", nodes, read(&case["expectedNodes"]));
}

/// Claims by these names, each bound to a volume of the driver.
fn surroundings(driver: &str, names: &[String]) -> Arc<Surroundings> {
    let mut surroundings = Surroundings::default();
    for name in names {
        let name: Arc<str> = name.as_str().into();
        let claim = Claim { volume: Some(name.clone()), ..Claim::default() };
        let volume = Volume { handle: Some((driver.into(), name.clone())), ..Volume::default() };
        surroundings.claims.insert(("default".into(), name.clone()), claim);
        surroundings.volumes.insert(name, volume);
    }
    Arc::new(surroundings)
}

fn with_claims(names: &[String]) -> Pod {
    let pod = read_pod(json!({}));
    Pod { claims: names.iter().map(|name| name.as_str().into()).collect(), ..pod }
}

fn limited(case: &Value, snapshot: &mut Snapshot) -> NodeId {
    let limits = case["limit"].as_i64().map(|limit| (read::<String>(&case["driver"]).into(), limit));
    snapshot.add_node(&Node { volume_limits: limits.into_iter().collect(), ..spacious("node") })
}

fn volume_limit(case: &Value, differences: &mut Differences) {
    let [used, new]: [Vec<String>; 2] = ["usedVolumes", "newVolumes"].map(|name| read(&case[name]));
    let driver: String = read(&case["driver"]);
    let mut snapshot = Snapshot::new(surroundings(&driver, &[used.clone(), new.clone()].concat()));
    let node = limited(case, &mut snapshot);
    let there = snapshot.class(&with_claims(&used));
    snapshot.bind(there, node);
    let class = snapshot.class(&with_claims(&new));
    let exceeds = snapshot.check(class, node) == Err(Reason::VolumeLimit);
    differences.same("exceeds", exceeds, read(&case["expectedExceeds"]));
}

/// Pods go to the nodes that are there as far as those can have their volumes attached, and then to new ones, whose limits
/// nobody knows yet.
fn volume_spread(case: &Value, differences: &mut Differences) {
    let per_pod: usize = read(&case["claimsPerPod"]);
    let shared: bool = read(&case["sharedClaims"]);
    let claims = |pod: usize| -> Vec<String> {
        let pod = if shared { 0 } else { pod };
        (0..per_pod).map(|claim| format!("claim-{pod}-{claim}")).collect()
    };
    let pods: Vec<_> = (0..read(&case["pods"])).map(claims).collect();
    let mut snapshot = Snapshot::new(surroundings(&read::<String>(&case["driver"]), &pods.concat()));
    let existing: u32 = read(&case["existingNodes"]);
    for _ in 0..existing {
        limited(case, &mut snapshot);
    }
    let mut left = Vec::new();
    for pod in &pods {
        let class = snapshot.class(&with_claims(pod));
        match snapshot.find(class, None) {
            Some(node) => snapshot.bind(class, node),
            None => left.push((class, 1)),
        }
    }
    let nodes = existing + new_nodes(&mut snapshot, &left);
    differences.same("nodes", nodes, read(&case["expectedNodes"]));
}
