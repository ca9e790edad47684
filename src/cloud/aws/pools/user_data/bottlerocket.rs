//! Bottlerocket's settings, in TOML: those of the class, with the cluster's put in.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use toml::{Table, Value};

use super::Bootstrap;

/// What is mounted on disks of the machine's own.
const MOUNTED: [&str; 3] = ["/var/lib/containerd", "/var/lib/kubelet", "/var/log/pods"];

/// The settings.
pub(super) fn settings(bootstrap: &Bootstrap<'_>) -> Result<String, String> {
    let mut all: Table = bootstrap.own.parse().map_err(|error| format!("it is no TOML: {error}"))?;
    let settings = table(&mut all, "settings")?;
    // Nodes of pools are in no Auto Scaling group, whose hook the kubelet would wait for.
    if let Some(wait) =
        settings.get_mut("autoscaling").and_then(Value::as_table_mut).and_then(|it| it.get_mut("should-wait"))
    {
        *wait = false.into();
    }
    kubernetes(table(settings, "kubernetes")?, bootstrap)?;
    if bootstrap.raid {
        let bind = ["apiclient", "ephemeral-storage", "bind", "--dirs"].into_iter().chain(MOUNTED);
        let command = |words: Vec<&str>| Value::from(words);
        let mut mount = Table::new();
        let commands = vec![command(vec!["apiclient", "ephemeral-storage", "init"]), command(bind.collect())];
        mount.insert("commands".to_owned(), Value::Array(commands));
        mount.insert("essential".to_owned(), true.into());
        mount.insert("mode".to_owned(), "always".into());
        table(settings, "bootstrap-commands")?.insert("000-mount-instance-storage".to_owned(), mount.into());
    }
    toml::to_string(&all).map_err(|error| error.to_string())
}

fn kubernetes(settings: &mut Table, bootstrap: &Bootstrap<'_>) -> Result<(), String> {
    let kubelet = &bootstrap.kubelet;
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            settings.insert(name.to_owned(), value);
        }
    };
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty()).map(Value::from);
    set("cluster-name", text(bootstrap.cluster));
    set("api-server", text(bootstrap.endpoint));
    set("cluster-certificate", text(bootstrap.authority));
    set("cluster-dns-ip", kubelet.cluster_dns.iter().flatten().next().and_then(|dns| text(dns)));
    if let Some(IntOrString::Int(most)) = kubelet.max_pods {
        set("max-pods", Some(i64::from(most).into()));
    }
    let map = |map: Option<&BTreeMap<String, String>>| {
        let of = |(key, value): (&String, &String)| (key.clone(), Value::from(value.clone()));
        map.map(|map| Value::Table(map.iter().map(of).collect()))
    };
    set("system-reserved", map(kubelet.system_reserved.as_ref()));
    set("kube-reserved", map(kubelet.kube_reserved.as_ref()));
    set("eviction-hard", map(kubelet.eviction_hard.as_ref()));
    set("eviction-soft", map(kubelet.eviction_soft.as_ref()));
    set("eviction-soft-grace-period", map(kubelet.eviction_soft_grace_period.as_ref()));
    let number = |number: Option<i32>| number.map(|number| Value::from(i64::from(number)));
    set("eviction-max-pod-grace-period", number(kubelet.eviction_max_pod_grace_period));
    // These two are texts there.
    let percent = |number: Option<i32>| number.map(|number| Value::from(number.to_string()));
    set("image-gc-high-threshold-percent", percent(kubelet.image_gc_high_threshold_percent));
    set("image-gc-low-threshold-percent", percent(kubelet.image_gc_low_threshold_percent));
    set("cpu-cfs-quota-enforced", kubelet.cpu_cfs_quota.map(Value::from));
    let mut taints: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for taint in &bootstrap.taints {
        let value = taint.value.as_deref().unwrap_or_default();
        taints.entry(&taint.key).or_default().push(format!("{value}:{}", taint.effect).into());
    }
    let taints = taints.into_iter().map(|(key, values)| (key.to_owned(), Value::Array(values)));
    set("node-taints", Some(Value::Table(taints.collect())));
    let labels = table(settings, "node-labels")?;
    labels.extend(bootstrap.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())));
    Ok(())
}

/// The table of this name, made if there is none.
fn table<'a>(of: &'a mut Table, name: &str) -> Result<&'a mut Table, String> {
    let entry = of.entry(name).or_insert_with(|| Table::new().into());
    entry.as_table_mut().ok_or_else(|| format!("{name:?} in it is no table"))
}
