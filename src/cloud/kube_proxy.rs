//! The pod that Cluster Autoscaler takes to run on every new node of a group.

use std::{collections::BTreeMap, sync::Arc};

use tandem_core::scheduling::{
    Pod, Resources,
    pod::{Phase, Shape, Traits},
};

/// What it asks for, in thousandths of a core (Cluster Autoscaler, `cloudprovider/util.go`).
const CPU_MILLI: i64 = 100;

/// A kube-proxy on a new node of `group`, as a mirror pod, which no decision moves.
pub fn kube_proxy(group: &str) -> Pod {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let shape = Shape::new(
        Resources { cpu: CPU_MILLI, pods: 1, ..Resources::default() },
        Traits {
            namespace: "kube-system".into(),
            labels: BTreeMap::from([pair("component", "kube-proxy"), pair("tier", "node")]),
            annotations: BTreeMap::from([pair("kubernetes.io/config.mirror", group)]),
            ..Traits::default()
        },
    );
    Pod {
        name: format!("kube-proxy-{group}").into(),
        shape: Arc::new(shape),
        phase: Phase::Running,
        ready: true,
        ..Pod::default()
    }
}
