//! What a new node of a group would look like, as annotations and the machine template tell.
//!
//! Source: Cluster Autoscaler, `clusterapi_unstructured.go` and `clusterapi_utils.go`.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Taint, apimachinery::pkg::api::resource::Quantity};
use serde_json::Value;
use tandem_core::{
    quantity::parse_milli,
    scheduling::{Node, Resources, node::Condition},
};

const PREFIX: &str = "capacity.cluster-autoscaler.kubernetes.io/";

/// Pods of a node that does not say how many it runs.
const DEFAULT_MAX_PODS: &str = "110";

/// Labels of a Machine that Cluster API copies to its node: those of these names and of names below them.
const COPIED_LABELS: [&str; 2] = ["node-restriction.kubernetes.io", "node.cluster.x-k8s.io"];

/// Likewise.
const COPIED_ROLE: &str = "node-role.kubernetes.io/";

/// The node that an object's annotations and its machine template describe; `None` if they do not say how much
/// processor and memory it has.
///
/// `object` is the MachineDeployment, MachineSet or MachinePool, `infrastructure` the machine template that it refers to.
///
/// # Errors
/// An annotation does not read; the text says which.
pub(super) fn template(
    name: &str,
    object: &Value,
    infrastructure: Option<&Value>,
    default_architecture: &str,
) -> Result<Option<Node>, String> {
    let annotations = strings(&object["metadata"]["annotations"]);
    let capacity = capacity(&annotations, infrastructure)?;
    if !capacity.contains_key("cpu") || !capacity.contains_key("memory") {
        return Ok(None);
    }
    let resources = Resources::from_list(&capacity);
    let mut node = Node {
        name: name.into(),
        labels: labels(name, object, &annotations, infrastructure, default_architecture),
        taints: taints(object, &annotations)?,
        allocatable: resources.clone(),
        capacity: resources,
        ready: true,
        ..Node::default()
    };
    node.conditions.insert("Ready".into(), Condition::new(true, None));
    for (driver, limit) in volume_limits(&annotations)? {
        node.volume_limits.insert(driver.into(), limit);
    }
    Ok(Some(node))
}

/// Annotations go before the machine template.
fn capacity(
    annotations: &BTreeMap<String, String>,
    infrastructure: Option<&Value>,
) -> Result<BTreeMap<String, Quantity>, String> {
    let status = infrastructure.map(|object| strings(&object["status"]["capacity"])).unwrap_or_default();
    let mut capacity: BTreeMap<_, _> =
        status.into_iter().filter(|(_, text)| parse_milli(text).is_ok()).collect();
    capacity.insert("pods".to_owned(), DEFAULT_MAX_PODS.to_owned());
    let gpu_type = annotation(annotations, "gpu-type").unwrap_or_default();
    let keys = [
        ("cpu", "cpu"),
        ("memory", "memory"),
        ("ephemeral-disk", "ephemeral-storage"),
        ("maxPods", "pods"),
        ("gpu-count", gpu_type),
    ];
    for (key, resource) in keys {
        let Some(text) = annotation(annotations, key).filter(|_| !resource.is_empty()) else { continue };
        let amount = parse_milli(text).map_err(|error| format!("annotation {PREFIX}{key}: {error}"))?;
        if amount > 0 {
            capacity.insert(resource.to_owned(), text.to_owned());
        }
    }
    Ok(capacity.into_iter().map(|(name, text)| (name, Quantity(text))).collect())
}

fn labels(
    name: &str,
    object: &Value,
    annotations: &BTreeMap<String, String>,
    infrastructure: Option<&Value>,
    default_architecture: &str,
) -> BTreeMap<String, String> {
    let info = infrastructure.map(|object| strings(&object["status"]["nodeInfo"])).unwrap_or_default();
    let info = |key: &str, default: &str| {
        info.get(key).filter(|value| !value.is_empty()).map_or(default, String::as_str).to_owned()
    };
    let mut labels = BTreeMap::from([
        ("kubernetes.io/arch".to_owned(), info("architecture", default_architecture)),
        ("kubernetes.io/os".to_owned(), info("operatingSystem", "linux")),
        ("kubernetes.io/hostname".to_owned(), name.to_owned()),
    ]);
    let of_machines = strings(&object["spec"]["template"]["metadata"]["labels"]);
    labels.extend(of_machines.into_iter().filter(|(key, _)| is_copied(key)));
    let written = annotation(annotations, "labels").unwrap_or_default().split(',');
    let pairs = written.filter_map(|pair| pair.split_once('='));
    labels.extend(pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())));
    labels
}

fn is_copied(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let below =
        |name: &str| domain.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    label.starts_with(COPIED_ROLE) || COPIED_LABELS.iter().any(|name| below(name))
}

/// Taints of the machines, and those of the annotation in place of what has the same key and effect.
fn taints(object: &Value, annotations: &BTreeMap<String, String>) -> Result<Vec<Taint>, String> {
    let of_machines = object["spec"]["template"]["spec"]["taints"].as_array();
    let mut taints: Vec<Taint> = of_machines.into_iter().flatten().map(taint_of_machine).collect();
    let written = annotation(annotations, "taints").unwrap_or_default().split(',').map(str::trim);
    for text in written.filter(|text| !text.is_empty()) {
        let taint = taint(text)
            .ok_or_else(|| format!("annotation {PREFIX}taints: {text:?} should be KEY=VALUE:EFFECT"))?;
        taints.retain(|other| (&other.key, &other.effect) != (&taint.key, &taint.effect));
        taints.push(taint);
    }
    Ok(taints)
}

fn taint_of_machine(taint: &Value) -> Taint {
    let text = |key: &str| taint[key].as_str().unwrap_or_default().to_owned();
    let value = Some(text("value")).filter(|value| !value.is_empty());
    Taint { key: text("key"), value, effect: text("effect"), time_added: None }
}

/// `KEY[=VALUE]:EFFECT`.
fn taint(text: &str) -> Option<Taint> {
    let (pair, effect) = text.split_once(':')?;
    let (key, value) = match pair.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned()).filter(|value| !value.is_empty())),
        None => (pair, None),
    };
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    (known && !key.is_empty()).then(|| Taint {
        key: key.to_owned(),
        value,
        effect: effect.to_owned(),
        time_added: None,
    })
}

/// `DRIVER=LIMIT,…`; a limit of 0 is none.
fn volume_limits(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, i64)>, String> {
    let written = annotation(annotations, "csi-driver").unwrap_or_default().split(',').map(str::trim);
    let mut limits = Vec::new();
    for text in written.filter(|text| !text.is_empty()) {
        let limit = text.split_once('=').and_then(|(driver, limit)| {
            let limit = limit.trim().parse::<u32>().ok()?;
            (!driver.trim().is_empty()).then(|| (driver.trim().to_owned(), i64::from(limit)))
        });
        match limit {
            Some(limit) => limits.push(limit),
            None => return Err(format!("annotation {PREFIX}csi-driver: {text:?} should be DRIVER=LIMIT")),
        }
    }
    limits.retain(|(_, limit)| *limit > 0);
    Ok(limits)
}

fn annotation<'a>(annotations: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    annotations.get(&format!("{PREFIX}{key}")).map(String::as_str).filter(|value| !value.is_empty())
}

/// The texts and numbers of a map.
pub(super) fn strings(map: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(annotations: &[(&str, &str)]) -> Value {
        let annotations: BTreeMap<_, _> =
            annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), *value)).collect();
        json!({
            "metadata": {"annotations": annotations},
            "spec": {"template": {
                "metadata": {"labels": {
                    "node-role.kubernetes.io/web": "", "x.node.cluster.x-k8s.io/a": "b", "other": "c",
                    "my-node.cluster.x-k8s.io/no": "d",
                }},
                "spec": {"taints": [{"key": "a", "value": "1", "effect": "NoSchedule"}]},
            }},
        })
    }

    #[test]
    fn annotations_describe_a_node() {
        let object = object(&[
            ("cpu", "16"),
            ("memory", "128Gi"),
            ("ephemeral-disk", "100Gi"),
            ("maxPods", "200"),
            ("gpu-type", "nvidia.com/gpu"),
            ("gpu-count", "2"),
            ("labels", "zone=a,bare,tier=db"),
            ("taints", "a=2:NoSchedule,b:NoExecute"),
            ("csi-driver", "ebs.csi.aws.com=25, other=0"),
        ]);
        let node = template("n", &object, None, "arm64").unwrap().unwrap();
        let amounts: BTreeMap<_, _> = node.allocatable.iter().collect();
        let gibi = 1 << 30;
        let wanted = [
            ("cpu", 16_000),
            ("ephemeral-storage", 100 * gibi),
            ("memory", 128 * gibi),
            ("nvidia.com/gpu", 2),
            ("pods", 200),
        ];
        assert_eq!(amounts, BTreeMap::from(wanted));
        assert_eq!(node.capacity, node.allocatable);
        let labels: Vec<_> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let wanted = [
            "kubernetes.io/arch=arm64",
            "kubernetes.io/hostname=n",
            "kubernetes.io/os=linux",
            "node-role.kubernetes.io/web=",
            "tier=db",
            "x.node.cluster.x-k8s.io/a=b",
            "zone=a",
        ];
        assert_eq!(labels, wanted);
        let taints: Vec<_> = node.taints.iter().map(|t| (&*t.key, t.value.as_deref(), &*t.effect)).collect();
        assert_eq!(taints, [("a", Some("2"), "NoSchedule"), ("b", None, "NoExecute")]);
        assert_eq!(node.volume_limits, BTreeMap::from([("ebs.csi.aws.com".into(), 25)]));
        assert!(node.ready);
    }

    #[test]
    fn annotations_go_before_the_machine_template() {
        let infrastructure = json!({"status": {
            "capacity": {"cpu": 4, "memory": "8Gi", "nonsense": "much"},
            "nodeInfo": {"architecture": "arm64", "operatingSystem": "windows"},
        }});
        let node =
            template("n", &object(&[("cpu", "500m")]), Some(&infrastructure), "amd64").unwrap().unwrap();
        assert_eq!((node.capacity.cpu, node.capacity.memory, node.capacity.pods), (500, 8 << 30, 110));
        assert_eq!(node.labels["kubernetes.io/arch"], "arm64");
        assert_eq!(node.labels["kubernetes.io/os"], "windows");
    }

    #[test]
    fn without_processor_or_memory_there_is_no_template() {
        for annotations in
            [&[][..], &[("cpu", "1")], &[("memory", "1Gi")], &[("cpu", "0"), ("memory", "1Gi")]]
        {
            assert_eq!(template("n", &object(annotations), None, "amd64"), Ok(None), "{annotations:?}");
        }
    }

    #[test]
    fn an_annotation_that_does_not_read_is_named() {
        for (key, value) in [
            ("cpu", "lots"),
            ("maxPods", "many"),
            ("taints", "a=b"),
            ("taints", "a=b:Never"),
            ("csi-driver", "ebs"),
            ("csi-driver", "ebs=x"),
        ] {
            let object = object(&[("memory", "1Gi"), ("cpu", "1"), (key, value)]);
            let error = template("n", &object, None, "amd64").unwrap_err();
            assert!(error.contains(&format!("{PREFIX}{key}")), "{error}");
        }
    }
}
