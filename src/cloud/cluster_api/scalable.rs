//! What MachineDeployments, MachineSets, MachinePools and Machines say, without asking anybody.
//!
//! Source: Cluster Autoscaler, `clusterapi_controller.go` and `clusterapi_utils.go`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    ResourceExt,
    api::DynamicObject,
    core::{Selector, SelectorExt},
};
use serde_json::Value;
use tandem_core::nodes::group::{GroupOptions, Instance, InstanceError, InstanceState};

use super::capacity::strings;
use crate::cloud::spec::duration;

/// The names of annotations and labels, which the API group is part of (environment variable `CAPI_GROUP`).
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) min: String,
    pub(super) max: String,
    pub(super) options: String,
    pub(super) paused: String,
    pub(super) delete_machine: String,
    pub(super) machine: String,
    pub(super) cluster_namespace: String,
    pub(super) cluster_name: String,
}

impl Keys {
    pub(super) fn of(group: &str) -> Self {
        Self {
            min: format!("{group}/cluster-api-autoscaler-node-group-min-size"),
            max: format!("{group}/cluster-api-autoscaler-node-group-max-size"),
            options: format!("{group}/autoscaling-options-"),
            paused: format!("{group}/paused"),
            delete_machine: format!("{group}/delete-machine"),
            machine: format!("{group}/machine"),
            cluster_namespace: format!("{group}/cluster-namespace"),
            cluster_name: format!("{group}/cluster-name"),
        }
    }

    /// The bounds of a group; `None` if the object is not meant to be one. With one of the two annotations the other
    /// is 0, and a maximum of 0 is no group.
    pub(super) fn bounds(&self, object: &DynamicObject) -> Result<Option<(u32, u32)>, String> {
        let annotations = object.annotations();
        let size = |key: &str| match annotations.get(key) {
            Some(text) => text
                .parse::<u32>()
                .map_err(|_| format!("annotation {key} is {text:?}, which is no number of nodes")),
            None => Ok(0),
        };
        let (min, max) = (size(&self.min)?, size(&self.max)?);
        if max < min {
            return Err(format!("annotation {} {max} is below {} {min}", self.max, self.min));
        }
        Ok((max > 0).then_some((min, max)))
    }

    /// What of the flags is different for a group, and the annotations of this kind that do not read.
    pub(super) fn options(&self, object: &DynamicObject) -> (GroupOptions, Vec<String>) {
        let mut unread = Vec::new();
        let mut annotations =
            OptionReader { annotations: object.annotations(), prefix: &self.options, unread: &mut unread };
        let share = |text: &str| text.parse().ok().filter(|share: &f64| share.is_finite());
        let options = GroupOptions {
            utilization_threshold: annotations.read("scaledownutilizationthreshold", share),
            gpu_utilization_threshold: annotations.read("scaledowngpuutilizationthreshold", share),
            unneeded_time: annotations.read("scaledownunneededtime", duration),
            unready_time: annotations.read("scaledownunreadytime", duration),
            max_provision_time: annotations.read("maxnodeprovisiontime", duration),
            max_startup_time: annotations.read("maxnodestartuptime", duration),
            ..GroupOptions::default()
        };
        (options, unread)
    }

    /// The cluster that an object is part of.
    pub(super) fn cluster<'a>(&self, object: &'a DynamicObject) -> &'a str {
        let named = object.data["spec"]["clusterName"].as_str();
        named.or_else(|| object.labels().get(&self.cluster_name).map(String::as_str)).unwrap_or_default()
    }
}

struct OptionReader<'a> {
    annotations: &'a BTreeMap<String, String>,
    prefix: &'a str,
    unread: &'a mut Vec<String>,
}

impl OptionReader<'_> {
    fn read<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let key = format!("{}{name}", self.prefix);
        let text = self.annotations.get(&key)?;
        let value = parse(text);
        if value.is_none() {
            self.unread.push(format!("{key}: {text:?}"));
        }
        value
    }
}

/// The kinds whose objects may be groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Deployment,
    Pool,
    Set,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deployment => "MachineDeployment",
            Self::Set => "MachineSet",
            Self::Pool => "MachinePool",
        }
    }
}

/// An object that is a group.
#[derive(Debug, Clone)]
pub(super) struct Scalable {
    /// `KIND/NAMESPACE/NAME`.
    pub(super) id: Arc<str>,
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// It never gets smaller, in nodes.
    pub(super) min: u32,
    /// It never gets larger, in nodes.
    pub(super) max: u32,
    /// The size that it is asked for, in nodes.
    pub(super) replicas: u32,
    pub(super) options: GroupOptions,
    /// The whole object, for its template.
    pub(super) object: Value,
    cluster: String,
    /// Of machines; of a MachinePool none.
    selector: Option<Selector>,
}

impl Scalable {
    /// Reads an object; `None` if it is not meant to be a group.
    pub(super) fn read(kind: Kind, object: &DynamicObject, keys: &Keys) -> Result<Option<Self>, String> {
        let Some((min, max)) = keys.bounds(object)? else { return Ok(None) };
        let replicas =
            object.data["spec"]["replicas"].as_u64().and_then(|replicas| u32::try_from(replicas).ok());
        let selector = match kind {
            Kind::Pool => None,
            Kind::Deployment | Kind::Set => Some(selector(&object.data["spec"]["selector"])?),
        };
        let (options, unread) = keys.options(object);
        if !unread.is_empty() {
            tracing::warn!(group = id(kind, object), ?unread, "annotations do not read: the flags hold");
        }
        Ok(Some(Self {
            id: id(kind, object).into(),
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            min,
            max,
            replicas: replicas.ok_or("spec.replicas is not set")?,
            options,
            cluster: keys.cluster(object).to_owned(),
            selector,
            object: serde_json::to_value(object).map_err(|error| error.to_string())?,
        }))
    }

    /// Whether a machine is of this group.
    pub(super) fn has(&self, machine: &Machine) -> bool {
        machine.namespace == self.namespace
            && machine.cluster == self.cluster
            && match &self.selector {
                Some(selector) => selector.matches(&machine.labels),
                None => machine.pool.as_deref() == Some(&*self.name),
            }
    }

    /// The instances of a MachinePool, of which there need not be machines.
    pub(super) fn pool_instances(&self) -> impl Iterator<Item = Instance> + '_ {
        let listed = self.object["spec"]["providerIDList"].as_array().filter(|_| self.kind == Kind::Pool);
        let ids = listed.into_iter().flatten().filter_map(Value::as_str);
        ids.map(|id| Instance { id: id.into(), state: InstanceState::Running })
    }
}

/// `KIND/NAMESPACE/NAME`, as Cluster Autoscaler calls groups.
pub(super) fn id(kind: Kind, object: &DynamicObject) -> String {
    format!("{}/{}/{}", kind.name(), object.namespace().unwrap_or_default(), object.name_any())
}

fn selector(value: &Value) -> Result<Selector, String> {
    if value.is_null() {
        return Err("spec.selector is not set".to_owned());
    }
    let read: LabelSelector =
        serde_json::from_value(value.clone()).map_err(|error| format!("spec.selector: {error}"))?;
    read.try_into().map_err(|error| format!("spec.selector: {error}"))
}

/// A Machine.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) namespace: String,
    pub(super) name: String,
    /// `spec.providerID`.
    pub(super) provider_id: Option<String>,
    /// Being deleted.
    pub(super) deleting: bool,
    /// Marked as the one to delete next.
    pub(super) marked: bool,
    /// The node that it has become, if it has.
    pub(super) node: Option<String>,
    failure: Option<String>,
    labels: BTreeMap<String, String>,
    cluster: String,
    /// The MachinePool that owns it.
    pool: Option<String>,
}

impl Machine {
    pub(super) fn read(object: &DynamicObject, keys: &Keys) -> Self {
        let (spec, status) = (&object.data["spec"], &object.data["status"]);
        let owners = object.owner_references();
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            provider_id: spec["providerID"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
            deleting: object.metadata.deletion_timestamp.is_some(),
            marked: object.annotations().contains_key(&keys.delete_machine),
            node: status["nodeRef"]["name"].as_str().map(str::to_owned),
            failure: failure(status),
            labels: object.labels().clone(),
            cluster: keys.cluster(object).to_owned(),
            pool: owners.iter().find(|owner| owner.kind == "MachinePool").map(|owner| owner.name.clone()),
        }
    }

    /// `NAMESPACE/NAME`.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The machine as an instance; `nodes` gives the providerID of a node by its name, which stands in for that of a
    /// machine that has none. What will never be a node has an id of Cluster Autoscaler's making.
    pub(super) fn instance(&self, nodes: &BTreeMap<String, String>) -> Instance {
        let of_node = || self.node.as_ref().and_then(|node| nodes.get(node)).cloned();
        let made_up = |prefix: &str| format!("{prefix}-machine-{}_{}", self.namespace, self.name);
        let (id, state) = match (&self.failure, self.provider_id.clone().or_else(of_node)) {
            (Some(_), _) if self.deleting => (made_up("failed"), InstanceState::Deleting),
            (Some(message), _) if self.node.is_none() => {
                (made_up("failed"), InstanceState::Creating(Some(provisioning_failed(message))))
            }
            (Some(_), _) => (made_up("failed"), InstanceState::Running),
            (None, Some(id)) if self.deleting => (id, InstanceState::Deleting),
            (None, Some(id)) => (id, InstanceState::Running),
            (None, None) if self.deleting => (made_up("deleting"), InstanceState::Deleting),
            (None, None) => (made_up("pending"), InstanceState::Creating(None)),
        };
        Instance { id: id.into(), state }
    }
}

/// Where v1beta1 and v1beta2 say that a machine will never be a node.
fn failure(status: &Value) -> Option<String> {
    let message = status["failureMessage"].as_str();
    let message = message.or_else(|| status["deprecated"]["v1beta1"]["failureMessage"].as_str());
    let phase = || (status["phase"] == "Failed").then_some("the machine's phase is Failed");
    message.or_else(phase).map(str::to_owned)
}

fn provisioning_failed(message: &str) -> InstanceError {
    InstanceError {
        out_of_resources: false,
        code: "ProvisioningFailed".to_owned(),
        message: message.to_owned(),
    }
}

/// What of a providerID is compared: the end, since some providers write the front differently on nodes.
pub(super) fn normalized(provider_id: &str) -> &str {
    provider_id.rsplit('/').next().unwrap_or(provider_id)
}

/// The names and versions of the machine template that a group refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InfrastructureRef {
    pub(super) namespace: String,
    pub(super) group: String,
    /// Absent with v1beta2, which leaves it to discovery.
    pub(super) version: Option<String>,
    pub(super) kind: String,
    pub(super) name: String,
}

impl InfrastructureRef {
    pub(super) fn of(scalable: &Scalable) -> Option<Self> {
        let fields = strings(&scalable.object["spec"]["template"]["spec"]["infrastructureRef"]);
        let (group, version) = match (fields.get("apiGroup"), fields.get("apiVersion")) {
            (Some(group), _) => (group.clone(), None),
            (None, Some(api_version)) => {
                let (group, version) = api_version.split_once('/')?;
                (group.to_owned(), Some(version.to_owned()))
            }
            (None, None) => return None,
        };
        let namespace = scalable.namespace.clone();
        Some(Self {
            namespace,
            group,
            version,
            kind: fields.get("kind")?.clone(),
            name: fields.get("name")?.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn keys() -> Keys {
        Keys::of("cluster.x-k8s.io")
    }

    fn annotated(annotations: &[(&str, &str)]) -> DynamicObject {
        let annotations: BTreeMap<_, _> =
            annotations.iter().map(|(key, value)| (format!("cluster.x-k8s.io/{key}"), *value)).collect();
        read(json!({"metadata": {"name": "md", "namespace": "ns", "annotations": annotations}}))
    }

    #[test]
    fn bounds_are_two_annotations() {
        const MIN: &str = "cluster-api-autoscaler-node-group-min-size";
        const MAX: &str = "cluster-api-autoscaler-node-group-max-size";
        for (annotations, wanted) in [
            (&[][..], Ok(None)),
            (&[(MIN, "1"), (MAX, "3")], Ok(Some((1, 3)))),
            (&[(MAX, "3")], Ok(Some((0, 3)))),
            (&[(MIN, "0"), (MAX, "0")], Ok(None)),
            (&[(MIN, "3"), (MAX, "3")], Ok(Some((3, 3)))),
            (&[(MIN, "1")], Err("is below")),
            (&[(MIN, "few"), (MAX, "3")], Err("min-size is \"few\", which is no number")),
            (&[(MAX, "-3")], Err("max-size is \"-3\"")),
        ] {
            match (keys().bounds(&annotated(annotations)), wanted) {
                (Ok(bounds), Ok(wanted)) => assert_eq!(bounds, wanted, "{annotations:?}"),
                (Err(problem), Err(part)) => assert!(problem.contains(part), "{problem}"),
                (result, _) => panic!("{annotations:?}: {result:?}"),
            }
        }
    }

    #[test]
    fn options_that_do_not_read_are_named_and_leave_the_others() {
        let object = annotated(&[
            ("autoscaling-options-scaledownutilizationthreshold", "0.7"),
            ("autoscaling-options-scaledowngpuutilizationthreshold", "half"),
            ("autoscaling-options-scaledownunneededtime", "10m0s"),
            ("autoscaling-options-maxnodestartuptime", "soon"),
        ]);
        let (options, unread) = keys().options(&object);
        let wanted = GroupOptions {
            utilization_threshold: Some(0.7),
            unneeded_time: Some(SignedDuration::from_mins(10)),
            ..GroupOptions::default()
        };
        assert_eq!(options, wanted);
        let prefix = "cluster.x-k8s.io/autoscaling-options-";
        let wanted = [
            format!("{prefix}scaledowngpuutilizationthreshold: \"half\""),
            format!("{prefix}maxnodestartuptime: \"soon\""),
        ];
        assert_eq!(unread, wanted);
    }

    #[test]
    fn a_machine_is_an_instance_in_every_state() {
        let nodes = BTreeMap::from([("n".to_owned(), "p://of-node".to_owned())]);
        let machine = |deleting: bool, spec: Value, status: Value| {
            let deletion = deleting.then_some("2026-01-01T00:00:00Z");
            let object = read(json!({
                "metadata": {"name": "m", "namespace": "ns", "deletionTimestamp": deletion},
                "spec": spec, "status": status,
            }));
            let Instance { id, state } = Machine::read(&object, &keys()).instance(&nodes);
            (id.to_string(), state)
        };
        let with_id = || json!({"providerID": "p://a/b"});
        let (node, failed) = (json!({"nodeRef": {"name": "n"}}), json!({"failureMessage": "quota"}));
        let failed_v2 = json!({"deprecated": {"v1beta1": {"failureMessage": "quota"}}});
        let quota = || InstanceState::Creating(Some(provisioning_failed("quota")));
        for (got, id, state) in [
            (machine(false, with_id(), json!({})), "p://a/b", InstanceState::Running),
            (machine(true, with_id(), json!({})), "p://a/b", InstanceState::Deleting),
            (machine(false, json!({}), json!({})), "pending-machine-ns_m", InstanceState::Creating(None)),
            (machine(true, json!({}), json!({})), "deleting-machine-ns_m", InstanceState::Deleting),
            (machine(false, json!({}), node), "p://of-node", InstanceState::Running),
            (machine(false, with_id(), failed.clone()), "failed-machine-ns_m", quota()),
            (machine(false, json!({}), failed_v2), "failed-machine-ns_m", quota()),
            (machine(true, with_id(), failed), "failed-machine-ns_m", InstanceState::Deleting),
            (
                machine(false, with_id(), json!({"phase": "Failed", "nodeRef": {"name": "n"}})),
                "failed-machine-ns_m",
                InstanceState::Running,
            ),
        ] {
            assert_eq!(got, (id.to_owned(), state));
        }
    }

    #[test]
    fn a_machine_template_is_referred_to_in_two_ways() {
        let of = |reference: Value| {
            let object = read(json!({
                "metadata": {"name": "md", "namespace": "ns",
                    "annotations": {"cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size": "1"}},
                "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"infrastructureRef": reference}}},
            }));
            let scalable = Scalable::read(Kind::Deployment, &object, &keys()).unwrap().unwrap();
            InfrastructureRef::of(&scalable).map(|found| (found.group, found.version, found.kind, found.name))
        };
        let wanted = |version: Option<&str>| {
            Some(("i.io".to_owned(), version.map(str::to_owned), "T".to_owned(), "t".to_owned()))
        };
        assert_eq!(of(json!({"apiVersion": "i.io/v1", "kind": "T", "name": "t"})), wanted(Some("v1")));
        assert_eq!(of(json!({"apiGroup": "i.io", "kind": "T", "name": "t"})), wanted(None));
        assert_eq!(of(json!({"kind": "T", "name": "t"})), None);
        assert_eq!(of(Value::Null), None);
    }
}
