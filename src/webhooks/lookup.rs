//! What exists, out of the caches.

use std::sync::Arc;

use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, core::v1::LimitRange};
use tandem_core::{
    api::keda::{ClusterTriggerAuthentication, ScaledObject, TriggerAuthentication},
    pods::workload::Workload,
};

use crate::{check::Lookup, cluster::Cluster};

impl Lookup for Cluster {
    fn scaled_objects(&self, namespace: &str) -> Vec<Arc<ScaledObject>> {
        self.scaled_objects.list(namespace)
    }

    fn hpas(&self, namespace: &str) -> Vec<Arc<HorizontalPodAutoscaler>> {
        self.hpas.list(namespace)
    }

    fn limit_ranges(&self, namespace: &str) -> Vec<Arc<LimitRange>> {
        self.limit_ranges.list(namespace)
    }

    fn deployment(&self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        self.deployments.get(namespace, name)
    }

    fn stateful_set(&self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        self.stateful_sets.get(namespace, name)
    }

    fn trigger_authentication(&self, namespace: &str, name: &str) -> Option<Arc<TriggerAuthentication>> {
        self.authentications.get(namespace, name)
    }

    fn cluster_trigger_authentication(&self, name: &str) -> Option<Arc<ClusterTriggerAuthentication>> {
        self.cluster_authentications.get("", name)
    }
}
