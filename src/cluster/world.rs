//! What decisions about nodes read: pods, nodes and what is around them, each in a small form of its own.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1 as k8s};
use kube::{Client, ResourceExt};
use tandem_core::scheduling::{Node, Pod};
use tokio::sync::{Notify, watch};

use super::{mirror::Mirror, shapes::Shapes};

/// The cluster as decisions about nodes see it.
pub struct World {
    /// All pods that have not ended.
    pub pods: Arc<Mirror<Pod>>,
    /// All nodes.
    pub nodes: Arc<Mirror<Node>>,
    /// A pod of each DaemonSet, bound to no node.
    pub daemon_sets: Arc<Mirror<Pod>>,
    /// Wakes who waits for the cluster to change.
    pub changed: Arc<Notify>,
    /// Counts up with every change, for any number of subscribers.
    pub changes: watch::Sender<u64>,
}

impl World {
    /// Starts the watches.
    pub fn start(client: &Client) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        let changes = watch::Sender::new(0);
        let notify = {
            let (changed, changes) = (changed.clone(), changes.clone());
            move || {
                let (changed, changes) = (changed.clone(), changes.clone());
                move || {
                    changed.notify_one();
                    changes.send_modify(|count| *count += 1);
                }
            }
        };
        let shapes = Arc::new(Shapes::default());
        let shared = shapes.clone();
        Arc::new(Self {
            pods: Mirror::start(
                client,
                move |pod: &k8s::Pod| Pod::read(pod, |shape| shared.share(shape)),
                notify(),
            ),
            nodes: Mirror::start(client, Node::read, notify()),
            daemon_sets: Mirror::start(
                client,
                move |set: &DaemonSet| Pod::read(&pod_of(set), |shape| shapes.share(shape)),
                notify(),
            ),
            changed,
            changes,
        })
    }

    /// Waits for the first listing of every kind.
    pub async fn synced(&self) {
        tokio::join!(self.pods.synced(), self.nodes.synced(), self.daemon_sets.synced());
    }
}

/// A pod as the DaemonSet would make it.
fn pod_of(set: &DaemonSet) -> k8s::Pod {
    let template = &set.spec.template;
    let mut pod = k8s::Pod {
        metadata: template.metadata.clone().unwrap_or_default(),
        spec: template.spec.clone(),
        ..k8s::Pod::default()
    };
    pod.metadata.name = Some(set.name_any());
    pod.metadata.namespace = set.namespace();
    pod.metadata.owner_references =
        Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "DaemonSet".to_owned(),
            name: set.name_any(),
            uid: set.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]);
    pod
}
