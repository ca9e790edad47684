//! EKS: what nodes of managed node groups carry beside the group's tags, and how a cluster is reached.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;

use super::{
    action::{DESCRIBE_CLUSTER, DESCRIBE_NODEGROUP},
    client::Client,
    form::segment,
};
use crate::cloud::CloudError;

/// A managed node group.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Nodegroup {
    /// Its name.
    pub nodegroup_name: String,
    /// Kubernetes' version.
    pub version: Option<String>,
    /// `ON_DEMAND`, `SPOT` or `CAPACITY_BLOCK`.
    pub capacity_type: Option<String>,
    /// Such as `AL2023_x86_64_STANDARD`.
    pub ami_type: Option<String>,
    /// In GiB; absent if a launch template gives it.
    pub disk_size: Option<i64>,
    /// Labels of its nodes.
    pub labels: Option<BTreeMap<String, String>>,
    /// Taints of its nodes.
    pub taints: Option<Vec<NodegroupTaint>>,
    /// Its own tags, which say what the group's say.
    pub tags: Option<BTreeMap<String, String>>,
}

/// A taint as EKS writes it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct NodegroupTaint {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Option<String>,
    /// `NO_SCHEDULE`, `NO_EXECUTE` or `PREFER_NO_SCHEDULE`.
    pub effect: String,
}

impl Nodegroup {
    /// Labels of its nodes: its own, and those that Cluster Autoscaler makes of its other properties
    /// (`managed_nodegroup_cache.go`).
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone().unwrap_or_default();
        let properties = [
            ("amiType", self.ami_type.clone()),
            ("diskSize", self.disk_size.map(|size| size.to_string())),
            ("k8sVersion", self.version.clone()),
            ("eks.amazonaws.com/capacityType", self.capacity_type.clone()),
            ("eks.amazonaws.com/nodegroup", Some(self.nodegroup_name.clone())),
        ];
        let known = properties.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        labels.extend(known);
        labels
    }

    /// Taints of its nodes.
    pub fn taints(&self) -> Vec<Taint> {
        let taint = |taint: &NodegroupTaint| Taint {
            key: taint.key.clone(),
            value: taint.value.clone(),
            effect: match taint.effect.as_str() {
                "NO_SCHEDULE" => "NoSchedule",
                "NO_EXECUTE" => "NoExecute",
                "PREFER_NO_SCHEDULE" => "PreferNoSchedule",
                other => other,
            }
            .to_owned(),
            ..Taint::default()
        };
        self.taints.iter().flatten().map(taint).collect()
    }
}

/// A cluster of EKS.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cluster {
    /// `https://…` of its API server.
    pub endpoint: String,
    /// The API server's authority.
    pub certificate_authority: Authority,
    /// Addresses of Services.
    pub kubernetes_network_config: NetworkConfig,
}

/// An authority.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Authority {
    /// Its certificate, base64.
    pub data: String,
}

/// Addresses of a cluster.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkConfig {
    /// Of Services.
    pub service_ipv4_cidr: Option<String>,
    /// Of Services, where they have IPv6.
    pub service_ipv6_cidr: Option<String>,
}

impl Cluster {
    /// Addresses of Services; of a cluster of IPv6 those.
    pub fn service_cidr(&self) -> &str {
        let network = &self.kubernetes_network_config;
        let found = network.service_ipv6_cidr.as_deref().or(network.service_ipv4_cidr.as_deref());
        found.unwrap_or_default()
    }
}

/// Reads a cluster.
pub async fn cluster(client: &Client, name: &str) -> Result<Cluster, CloudError> {
    #[derive(Deserialize)]
    struct Page {
        cluster: Cluster,
    }
    let path = format!("/clusters/{}", segment(name));
    client.get::<Page>(&DESCRIBE_CLUSTER, &path).await.map(|page| page.cluster)
}

/// Reads a managed node group.
pub async fn nodegroup(client: &Client, cluster: &str, name: &str) -> Result<Nodegroup, CloudError> {
    #[derive(Deserialize)]
    struct Page {
        nodegroup: Nodegroup,
    }
    let path = format!("/clusters/{}/node-groups/{}", segment(cluster), segment(name));
    client.get::<Page>(&DESCRIBE_NODEGROUP, &path).await.map(|page| page.nodegroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints_of_a_nodegroup() {
        let nodegroup: Nodegroup = serde_json::from_value(serde_json::json!({
            "nodegroupName": "web", "version": "1.37", "capacityType": "SPOT", "amiType": "AL2023_x86_64_STANDARD",
            "labels": { "team": "a" }, "taints": [{ "key": "k", "value": "v", "effect": "NO_EXECUTE" }], "status": "ACTIVE",
        }))
        .unwrap();
        let labels = nodegroup.labels();
        assert_eq!((labels["team"].as_str(), labels["k8sVersion"].as_str()), ("a", "1.37"));
        assert_eq!(labels["eks.amazonaws.com/nodegroup"], "web");
        assert_eq!(labels["eks.amazonaws.com/capacityType"], "SPOT");
        assert!(!labels.contains_key("diskSize"));
        assert_eq!(nodegroup.taints()[0].effect, "NoExecute");
    }
}
