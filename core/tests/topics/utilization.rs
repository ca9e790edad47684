//! `utilization`: how much of a node is requested.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1 as k8s,
    resource::v1::{ResourceClaim, ResourceSlice},
};
use serde_json::Value;
use tandem_core::{
    nodes::utilization::{DevicePools, Ignored, device_pools, node_utilization},
    scheduling::{
        Node, Pod,
        devices::{Allocation, Claim, Slice},
    },
};

use super::{Differences, Verdict, read, unknown_kind};

pub(super) fn judge(case: &Value) -> Verdict {
    match case["kind"].as_str() {
        Some("nodeUtilization") => node(case),
        Some("devicePools") => pools(case),
        _ => unknown_kind(case),
    }
}

fn slices(case: &Value) -> Vec<Arc<Slice>> {
    let slices: Vec<ResourceSlice> = read(&case["resourceSlices"]);
    slices.iter().map(|slice| Arc::new(Slice::read(slice))).collect()
}

fn claims(case: &Value) -> Vec<Option<Arc<Allocation>>> {
    let claims: Vec<Vec<ResourceClaim>> = read(&case["podClaims"]);
    claims.iter().flatten().map(|claim| Claim::read(claim).allocation).collect()
}

/// The node's extended resource, unless its accelerators come as devices.
fn gpu(case: &Value) -> Option<&str> {
    case["gpuConfig"]["extendedResourceName"].as_str()
}

fn node(case: &Value) -> Verdict {
    let node = Node::read(&read::<k8s::Node>(&case["node"]));
    let pods: Vec<k8s::Pod> = read(&case["pods"]);
    let pods: Vec<Arc<Pod>> = pods.iter().map(|pod| Arc::new(Pod::read(pod, Arc::new))).collect();
    let ignored =
        Ignored { daemon_sets: read(&case["skipDaemonSetPods"]), mirrors: read(&case["skipMirrorPods"]) };
    let (slices, claims) = (slices(case), claims(case));
    let devices = DevicePools { slices: &slices, claims: &claims };
    let devices = (case["draEnabled"] == true).then_some(&devices);
    let now: Timestamp = read(&case["now"]);
    let got = node_utilization(&node, &pods, ignored, gpu(case), devices, now);
    let mut differences = Differences::default();
    differences.same("error", got.is_err(), read(&case["expectedError"]));
    if let Ok(got) = got {
        same_share(&mut differences, "utilization", got.share, &case["expectedUtilization"]);
        same_share(&mut differences, "cpu", got.cpu, &case["expectedCpuUtilization"]);
        same_share(&mut differences, "devices", got.devices, &case["expectedDynamicResourceUtilization"]);
        if let Some(wanted) = case["expectedResource"].as_str() {
            differences.same("resource", &*got.resource, wanted);
        }
    }
    differences.verdict()
}

/// Shares are the same up to the last bits; what is null was not asserted.
fn same_share(differences: &mut Differences, what: &str, got: f64, wanted: &Value) {
    if let Some(wanted) = wanted.as_f64() {
        let near = (got - wanted).abs() <= 1e-9 * wanted.abs().max(1.0);
        differences.holds(near, || format!("{what}: got {got}, wanted {wanted}"));
    }
}

fn pools(case: &Value) -> Verdict {
    let (slices, claims) = (slices(case), claims(case));
    let devices = DevicePools { slices: &slices, claims: &claims };
    let mut differences = Differences::default();
    let shares = device_pools(&devices);
    differences.same("error", shares.is_err(), read(&case["expectedError"]));
    let Ok(shares) = shares else { return differences.verdict() };
    let wanted: BTreeMap<String, BTreeMap<String, Value>> = read(&case["expectedPoolUtilization"]);
    differences.same("pools", shares.len(), wanted.values().map(BTreeMap::len).sum());
    for share in &shares {
        let wanted = wanted.get(&share.driver).and_then(|pools| pools.get(&share.pool));
        differences.holds(wanted.is_some(), || format!("nothing wanted of {}", share.name()));
        same_share(&mut differences, &share.name(), share.share, wanted.unwrap_or(&Value::Null));
    }
    let Some(name) = case["expectedHighest"]["name"].as_str().filter(|name| !name.is_empty()) else {
        return differences.verdict();
    };
    let node = Node::read(&read::<k8s::Node>(&case["node"]));
    let pods: [Arc<Pod>; 0] = [];
    match node_utilization(&node, &pods, Ignored::default(), None, Some(&devices), read(&case["now"])) {
        Ok(got) => {
            differences.same("fullest", &*got.resource, name);
            same_share(&mut differences, "fullest", got.share, &case["expectedHighest"]["value"]);
        }
        Err(problem) => differences.holds(false, || problem.to_string()),
    }
    differences.verdict()
}
