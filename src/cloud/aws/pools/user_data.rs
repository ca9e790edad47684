//! What a machine is told at its first start: which cluster it joins, and as what.
//!
//! Source: karpenter-provider-aws, `pkg/providers/amifamily/bootstrap`; nodeadm's `NodeConfig`; Bottlerocket's settings.

mod bottlerocket;
mod mime;
mod script;

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Taint;
use serde_json::{Map, Value, json};
use tandem_core::api::karpenter::KubeletConfiguration;

use super::family::Family;
use crate::cloud::CloudError;

/// Most bytes that EC2 takes of user data, before base64.
const MOST: usize = 16 * 1024;

/// What a machine has to know.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Bootstrap<'a> {
    /// The cluster's name.
    pub(super) cluster: &'a str,
    /// `https://…` of the API server.
    pub(super) endpoint: &'a str,
    /// The API server's authority, base64.
    pub(super) authority: &'a str,
    /// Addresses of Services; Amazon Linux 2023 wants to know them.
    pub(super) service_cidr: &'a str,
    /// Settings of the kubelet, with the most pods.
    pub(super) kubelet: KubeletConfiguration,
    /// Taints that the node has from the first moment on.
    pub(super) taints: Vec<Taint>,
    /// Labels that it has from the first moment on.
    pub(super) labels: BTreeMap<String, String>,
    /// What the class says of its own.
    pub(super) own: &'a str,
    /// Whether disks of the machine's own become one for pods' files.
    pub(super) raid: bool,
}

/// The user data of this family, base64.
///
/// # Errors
/// What the class says cannot be merged, or there is more than EC2 takes.
pub(super) fn user_data(family: Family, bootstrap: &Bootstrap<'_>) -> Result<String, CloudError> {
    let wrong = |problem: String| CloudError::configuration("userData", problem);
    let text = match family {
        Family::Al2 => script::bash(bootstrap).map_err(wrong)?,
        Family::Al2023 => node_config(bootstrap).map_err(wrong)?,
        Family::Bottlerocket => bottlerocket::settings(bootstrap).map_err(wrong)?,
        Family::Windows(_) => script::powershell(bootstrap),
        Family::Custom => bootstrap.own.to_owned(),
    };
    if text.len() > MOST {
        return Err(wrong(format!("{} bytes with what is added; EC2 takes {MOST}", text.len())));
    }
    Ok(STANDARD.encode(text))
}

/// A MIME archive with a `NodeConfig`, then what the class says.
fn node_config(bootstrap: &Bootstrap<'_>) -> Result<String, String> {
    let mut kubelet = match serde_json::to_value(&bootstrap.kubelet) {
        Ok(Value::Object(kubelet)) => kubelet,
        _ => Map::new(),
    };
    if !bootstrap.taints.is_empty() {
        kubelet.insert("registerWithTaints".to_owned(), json!(bootstrap.taints));
    }
    let mut kubelet = json!({ "config": kubelet });
    if !bootstrap.labels.is_empty() {
        kubelet["flags"] = json!([format!("--node-labels=\"{}\"", pairs(&bootstrap.labels, "="))]);
    }
    let mut spec = json!({
        "cluster": {
            "name": bootstrap.cluster,
            "apiServerEndpoint": bootstrap.endpoint,
            "certificateAuthority": bootstrap.authority,
            "cidr": bootstrap.service_cidr,
        },
        "kubelet": kubelet,
    });
    if bootstrap.raid {
        spec["instance"] = json!({"localStorage": {"strategy": "RAID0"}});
    }
    // JSON is YAML.
    let config = json!({"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig", "spec": spec});
    let mut parts = vec![mime::Part::new(mime::NODE_CONFIG, format!("{config:#}"))];
    parts.extend(mime::parts(bootstrap.own, |own| {
        let is_config = serde_saphyr::from_str::<BTreeMap<String, Value>>(own).is_ok();
        if is_config { mime::NODE_CONFIG } else { mime::SHELL }
    })?);
    Ok(mime::archive(&parts))
}

/// `a=1,b=2`.
fn pairs(map: &BTreeMap<String, String>, between: &str) -> String {
    map.iter().map(|(key, value)| format!("{key}{between}{value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
