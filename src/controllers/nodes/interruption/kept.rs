//! Pods that fail a drain where the user wants that, as for `kubectl drain`, by which aws-node-termination-handler drains.
//!
//! Source: kubernetes/kubectl, `pkg/drain/filters.go`.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};
use tandem_core::scheduling::Node;

use super::Interruptions;

/// A static pod, which is none of the API server's to take away.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Which pods are no hindrance (`DELETE_LOCAL_DATA`, `IGNORE_DAEMON_SETS`).
#[derive(Debug, Clone, Copy)]
struct Allowed {
    with_local_data: bool,
    of_daemon_sets: bool,
}

impl Interruptions {
    /// Pods of the node because of which nothing is evicted, each with the reason.
    pub(super) async fn kept(&self, node: &Node) -> Vec<String> {
        let args = &self.config.args;
        let allowed =
            Allowed { with_local_data: args.delete_local_data, of_daemon_sets: args.ignore_daemon_sets };
        if allowed.with_local_data && allowed.of_daemon_sets {
            return Vec::new();
        }
        let pods: Api<Pod> = Api::all(self.config.client.clone());
        let there = ListParams::default().fields(&format!("spec.nodeName={}", node.name));
        match pods.list(&there).await {
            Ok(pods) => pods.items.iter().filter_map(|pod| reason(pod, allowed)).collect(),
            Err(error) => vec![format!("the pods of the node cannot be read: {error}")],
        }
    }
}

/// Why a pod fails a drain, if it does.
fn reason(pod: &Pod, allowed: Allowed) -> Option<String> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let is_of_daemon_set = pod
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet");
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let why = if is_of_daemon_set {
        (!allowed.of_daemon_sets).then_some("it is of a DaemonSet, and IGNORE_DAEMON_SETS is false")?
    } else if pod.annotations().contains_key(MIRROR) {
        return None;
    } else {
        let is_kept = !allowed.with_local_data && volumes.any(|volume| volume.empty_dir.is_some());
        is_kept.then_some("it has local storage, and DELETE_LOCAL_DATA is false")?
    };
    Some(format!("{}/{}: {why}", pod.namespace().unwrap_or_default(), pod.name_any()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(kind: &str, phase: &str, volume: &Value) -> Pod {
        let owner = json!({"kind": kind, "name": "o", "uid": "u", "apiVersion": "v1", "controller": true});
        let pod = json!({
            "metadata": {"name": "a", "namespace": "ns", "ownerReferences": [owner]},
            "spec": {"containers": [], "volumes": [volume]},
            "status": {"phase": phase},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn pods_fail_a_drain_as_for_kubectl() {
        let (empty, host) =
            (json!({"name": "v", "emptyDir": {}}), json!({"name": "v", "hostPath": {"path": "/"}}));
        let local = "ns/a: it has local storage, and DELETE_LOCAL_DATA is false";
        let daemon = "ns/a: it is of a DaemonSet, and IGNORE_DAEMON_SETS is false";
        let mut mirror = pod("Node", "Running", &empty);
        mirror.annotations_mut().insert(MIRROR.to_owned(), "x".to_owned());
        // The pod; why it fails a drain if no local data, and if no DaemonSet is allowed.
        let table = [
            (pod("ReplicaSet", "Running", &empty), Some(local), None),
            (pod("ReplicaSet", "Running", &host), None, None),
            (pod("ReplicaSet", "Succeeded", &empty), None, None),
            (pod("DaemonSet", "Running", &empty), None, Some(daemon)),
            (pod("DaemonSet", "Failed", &empty), None, None),
            (mirror, None, None),
        ];
        for (at, (pod, without_local_data, without_daemon_sets)) in table.iter().enumerate() {
            let no_data = Allowed { with_local_data: false, of_daemon_sets: true };
            let no_daemons = Allowed { with_local_data: true, of_daemon_sets: false };
            assert_eq!(reason(pod, no_data).as_deref(), *without_local_data, "{at}");
            assert_eq!(reason(pod, no_daemons).as_deref(), *without_daemon_sets, "{at}");
        }
    }
}
