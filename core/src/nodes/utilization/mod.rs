//! How much of a node is requested, by which scale-down judges it.
//!
//! Source: Cluster Autoscaler, `simulator/utilization/info.go`.

mod devices;

use jiff::Timestamp;
use thiserror::Error;

use super::drain::is_long_terminating;
use crate::scheduling::{Node, Pod};

pub use devices::{DeviceError, DevicePools, PoolShare, device_pools};

/// How much of a node is requested.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Utilization {
    /// Of its cpu, a share of one; 0 where another resource decides.
    pub cpu: f64,
    /// Of its memory, a share of one; 0 where another resource decides.
    pub memory: f64,
    /// Of its accelerators, a share of one; 0 if it has none.
    pub gpu: f64,
    /// Of its fullest pool of devices, a share of one; 0 if it has none.
    pub devices: f64,
    /// The resource that decides: `cpu`, `memory`, that of the accelerators, or `DRIVER/POOL`.
    pub resource: String,
    /// Of the resource that decides, a share of one.
    pub share: f64,
}

/// Why a node's utilization is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UtilizationError {
    /// The node has nothing of it.
    #[error("node {node} has no allocatable {resource}")]
    NothingAllocatable {
        /// The node.
        node: String,
        /// The resource.
        resource: String,
    },
    /// Its devices are not known.
    #[error("devices of node {node}: {error}")]
    Devices {
        /// The node.
        node: String,
        /// Why.
        error: DeviceError,
    },
}

/// Which pods count neither as requests nor as room on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignored {
    /// Those of DaemonSets (`--ignore-daemonsets-utilization`).
    pub daemon_sets: bool,
    /// Those that the kubelet made from files (`--ignore-mirror-pods-utilization`).
    pub mirrors: bool,
}

/// How much of a node its pods request: of its accelerators if it has an extended resource `gpu`, else of the fullest of
/// its pools of devices, else the greater of cpu and memory.
///
/// A node whose accelerators are not there yet counts as empty, so that one where they never come can go.
pub fn node_utilization(
    node: &Node,
    pods: &[impl AsRef<Pod>],
    ignored: Ignored,
    gpu: Option<&str>,
    devices: Option<&DevicePools<'_>>,
    now: Timestamp,
) -> Result<Utilization, UtilizationError> {
    if let Some(resource) = gpu {
        let share = share(node, pods, ignored, resource, now).unwrap_or(0.0);
        return Ok(Utilization {
            gpu: share,
            resource: resource.to_owned(),
            share,
            ..Utilization::default()
        });
    }
    if let Some(devices) = devices.filter(|devices| !devices.slices.is_empty()) {
        let shares = device_pools(devices)
            .map_err(|error| UtilizationError::Devices { node: node.name.to_string(), error })?;
        let Some(fullest) = devices::fullest(&shares) else { return Ok(Utilization::default()) };
        let (resource, share) = (fullest.name(), fullest.share);
        return Ok(Utilization { devices: share, resource, share, ..Utilization::default() });
    }
    let cpu = share(node, pods, ignored, "cpu", now)?;
    let memory = share(node, pods, ignored, "memory", now)?;
    let (resource, share) = if cpu > memory { ("cpu", cpu) } else { ("memory", memory) };
    Ok(Utilization { cpu, memory, resource: resource.to_owned(), share, ..Utilization::default() })
}

/// What pods request of a resource over what the node has of it.
#[allow(clippy::cast_precision_loss, reason = "a ratio of amounts: 53 bits are plenty")]
fn share(
    node: &Node,
    pods: &[impl AsRef<Pod>],
    ignored: Ignored,
    resource: &str,
    now: Timestamp,
) -> Result<f64, UtilizationError> {
    let mut room = node.allocatable.get(resource);
    if room == 0 {
        return Err(UtilizationError::NothingAllocatable {
            node: node.name.to_string(),
            resource: resource.to_owned(),
        });
    }
    let mut requested = 0;
    for pod in pods.iter().map(AsRef::as_ref) {
        let amount = pod.shape.requests.get(resource);
        if (ignored.daemon_sets && pod.is_of_daemon_set()) || (ignored.mirrors && pod.is_mirror()) {
            room = room.saturating_sub(amount);
        } else if !is_long_terminating(pod, now) {
            requested = amount.saturating_add(requested);
        }
    }
    // Pods that leave no room for others leave nothing to be used either.
    Ok(if room <= 0 && requested == 0 { 0.0 } else { requested as f64 / room as f64 })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scheduling::{
        Resources,
        pod::{Owner, Shape, Traits},
    };

    fn pod(cpu: i64, owner: &str) -> Arc<Pod> {
        let owner =
            Owner { kind: owner.into(), name: "o".into(), uid: "u".into(), api_version: "apps/v1".into() };
        let requests = Resources { cpu, memory: 1, ..Resources::default() };
        Arc::new(Pod {
            shape: Arc::new(Shape::new(requests, Traits { owner: Some(owner), ..Traits::default() })),
            ..Pod::default()
        })
    }

    fn node(cpu: i64) -> Node {
        Node { allocatable: Resources { cpu, memory: 100, ..Resources::default() }, ..Node::default() }
    }

    #[test]
    fn ignored_daemons_take_room_from_the_node() {
        let pods = [pod(500, "DaemonSet"), pod(500, "ReplicaSet")];
        let of = |daemon_sets| {
            let ignored = Ignored { daemon_sets, mirrors: false };
            node_utilization(&node(2000), &pods, ignored, None, None, Timestamp::UNIX_EPOCH).unwrap()
        };
        assert_eq!((of(false).share, &*of(false).resource), (0.5, "cpu"));
        assert!((of(true).share - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_node_full_of_daemons_is_empty() {
        let ignored = Ignored { daemon_sets: true, mirrors: false };
        let utilization = node_utilization(
            &node(500),
            &[pod(500, "DaemonSet")],
            ignored,
            None,
            None,
            Timestamp::UNIX_EPOCH,
        );
        assert!(utilization.unwrap().cpu.abs() < 1e-9);
    }

    #[test]
    fn a_node_without_cpu_is_an_error_and_one_without_its_accelerators_empty() {
        let of = |gpu| {
            let pods: [Arc<Pod>; 0] = [];
            node_utilization(&node(0), &pods, Ignored::default(), gpu, None, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(of(None).unwrap_err().to_string(), "node  has no allocatable cpu");
        assert!(of(Some("nvidia.com/gpu")).unwrap().share.abs() < 1e-9);
    }
}
