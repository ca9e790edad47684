//! Scripts that call what EKS' images have for joining a cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Bootstrap, mime, pairs};

/// A MIME archive with what the class says, then a script that calls `bootstrap.sh`.
pub(super) fn bash(bootstrap: &Bootstrap<'_>) -> Result<String, String> {
    let mut parts = mime::parts(bootstrap.own, |_| mime::SHELL)?;
    parts.push(mime::Part::new(mime::SHELL, bootstrap_sh(bootstrap)));
    Ok(mime::archive(&parts))
}

fn bootstrap_sh(bootstrap: &Bootstrap<'_>) -> String {
    let Bootstrap { cluster, endpoint, authority, kubelet, .. } = bootstrap;
    // bootstrap.sh takes no equals sign between a parameter and its value.
    let mut call = vec![format!("/etc/eks/bootstrap.sh '{cluster}' --apiserver-endpoint '{endpoint}'")];
    if !authority.is_empty() {
        call.push(format!("--b64-cluster-ca '{authority}'"));
    }
    if let Some(dns) = kubelet.cluster_dns.iter().flatten().next() {
        if dns.contains(':') {
            call.push("--ip-family ipv6".to_owned());
        }
        call.push(format!("--dns-cluster-ip '{dns}'"));
    }
    if kubelet.max_pods.is_some() {
        call.push("--use-max-pods false".to_owned());
    }
    call.push(format!("--kubelet-extra-args '{}'", kubelet_flags(bootstrap)));
    if bootstrap.raid {
        call.push("--local-disks raid0".to_owned());
    }
    let log = "exec > >(tee /var/log/user-data.log|logger -t user-data -s 2>/dev/console) 2>&1";
    format!("#!/bin/bash -xe\n{log}\n{}", call.join(" \\\n"))
}

/// User data of Windows: what the class says, then a call of `Start-EKSBootstrap.ps1`.
pub(super) fn powershell(bootstrap: &Bootstrap<'_>) -> String {
    let Bootstrap { cluster, endpoint, authority, own, kubelet, .. } = bootstrap;
    let own = if own.is_empty() { String::new() } else { format!("{own}\n") };
    let script = r"$env:ProgramFiles\Amazon\EKS\Start-EKSBootstrap.ps1";
    let authority =
        if authority.is_empty() { String::new() } else { format!(" -Base64ClusterCA '{authority}'") };
    let dns = kubelet.cluster_dns.iter().flatten().next();
    let dns = dns.map_or_else(String::new, |dns| format!(" -DNSClusterIP '{dns}'"));
    format!(
        "<powershell>\n{own}[string]$EKSBootstrapScriptFile = \"{script}\"\n& $EKSBootstrapScriptFile -EKSClusterName \
         '{cluster}' -APIServerEndpoint '{endpoint}'{authority} -KubeletExtraArgs '{}'{dns}\n</powershell>",
        kubelet_flags(bootstrap)
    )
}

/// Settings of the kubelet as its flags.
fn kubelet_flags(bootstrap: &Bootstrap<'_>) -> String {
    let kubelet = &bootstrap.kubelet;
    let mut flags = Vec::new();
    if !bootstrap.labels.is_empty() {
        flags.push(format!("--node-labels=\"{}\"", pairs(&bootstrap.labels, "=")));
    }
    if !bootstrap.taints.is_empty() {
        let taints = bootstrap.taints.iter().map(|taint| {
            format!("{}={}:{}", taint.key, taint.value.as_deref().unwrap_or_default(), taint.effect)
        });
        flags.push(format!("--register-with-taints=\"{}\"", taints.collect::<Vec<_>>().join(",")));
    }
    if let Some(IntOrString::Int(most)) = kubelet.max_pods {
        flags.push(format!("--max-pods={most}"));
    }
    let mut number = |name: &str, value: Option<i32>| {
        flags.extend(value.map(|value| format!("--{name}={value}")));
    };
    number("pods-per-core", kubelet.pods_per_core);
    number("eviction-max-pod-grace-period", kubelet.eviction_max_pod_grace_period);
    number("image-gc-high-threshold", kubelet.image_gc_high_threshold_percent);
    number("image-gc-low-threshold", kubelet.image_gc_low_threshold_percent);
    let mut map = |name: &str, map: Option<&BTreeMap<String, String>>, between: &str| {
        let map = map.filter(|map| !map.is_empty());
        flags.extend(map.map(|map| format!("--{name}=\"{}\"", pairs(map, between))));
    };
    map("system-reserved", kubelet.system_reserved.as_ref(), "=");
    map("kube-reserved", kubelet.kube_reserved.as_ref(), "=");
    map("eviction-hard", kubelet.eviction_hard.as_ref(), "<");
    map("eviction-soft", kubelet.eviction_soft.as_ref(), "<");
    map("eviction-soft-grace-period", kubelet.eviction_soft_grace_period.as_ref(), "=");
    flags.extend(kubelet.cpu_cfs_quota.map(|quota| format!("--cpu-cfs-quota={quota}")));
    flags.join(" ")
}
