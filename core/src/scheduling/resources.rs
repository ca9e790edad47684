//! Amounts of resources, and what a pod asks of a node.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodCondition, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::quantity::parse_milli;

/// Amounts by resource, as integers in the unit that Kubernetes schedules by.
///
/// A quantity that does not parse counts as zero: the API server lets none through.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources {
    /// Processor, thousandths of a core.
    pub cpu: i64,
    /// Memory, bytes.
    pub memory: i64,
    /// Ephemeral storage, bytes.
    pub storage: i64,
    /// Pods. Of a pod always 1, of a node how many it may run.
    pub pods: i64,
    /// Every other resource by its name: huge pages in bytes, devices in pieces.
    pub other: BTreeMap<Box<str>, i64>,
}

impl Resources {
    /// Reads a Kubernetes resource list.
    pub fn from_list(list: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            resources.set(name, amount(name, quantity));
        }
        resources
    }

    /// As [`Resources::from_list`], nothing if there is no list.
    pub fn from_optional(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        list.map(Self::from_list).unwrap_or_default()
    }

    /// The amount of a resource by its Kubernetes name; cpu in thousandths.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.storage,
            "pods" => self.pods,
            _ => self.other.get(name).copied().unwrap_or(0),
        }
    }

    /// Sets the amount of a resource by its Kubernetes name; cpu in thousandths.
    pub fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.cpu = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.storage = amount,
            "pods" => self.pods = amount,
            _ => {
                self.other.insert(name.into(), amount);
            }
        }
    }

    /// Names and amounts, the four known ones first, without those that are zero.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        [("cpu", self.cpu), ("memory", self.memory), ("ephemeral-storage", self.storage), ("pods", self.pods)]
            .into_iter()
            .chain(self.other.iter().map(|(name, amount)| (&**name, *amount)))
            .filter(|(_, amount)| *amount != 0)
    }

    /// Adds another amount, resource by resource.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes another amount off, resource by resource; may go below zero.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// The greater amount of each resource.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    /// The lesser amount of each resource; one that either lacks is left out.
    pub fn lower_to(&mut self, other: &Self) {
        self.cpu = self.cpu.min(other.cpu);
        self.memory = self.memory.min(other.memory);
        self.storage = self.storage.min(other.storage);
        self.pods = self.pods.min(other.pods);
        self.other.retain(|name, amount| {
            other.other.get(name).map(|least| *amount = (*amount).min(*least)).is_some()
        });
    }

    /// This amount `times` over.
    #[must_use]
    pub fn times(&self, times: i64) -> Self {
        let mut product = self.clone();
        product.cpu = product.cpu.saturating_mul(times);
        product.memory = product.memory.saturating_mul(times);
        product.storage = product.storage.saturating_mul(times);
        product.pods = product.pods.saturating_mul(times);
        for amount in product.other.values_mut() {
            *amount = amount.saturating_mul(times);
        }
        product
    }

    /// Whether it fits into what is free; a resource of which nothing is asked always fits.
    pub fn fits(&self, free: &Self) -> bool {
        self.iter().all(|(name, amount)| amount <= 0 || amount <= free.get(name))
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.cpu = with(self.cpu, other.cpu);
        self.memory = with(self.memory, other.memory);
        self.storage = with(self.storage, other.storage);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.other {
            let mine = self.other.entry(name.clone()).or_default();
            *mine = with(*mine, *amount);
        }
    }
}

/// A quantity in the unit that [`Resources`] keeps of this resource, rounded up.
fn amount(name: &str, quantity: &Quantity) -> i64 {
    let milli = parse_milli(&quantity.0).unwrap_or(0);
    if name == "cpu" { milli } else { milli.div_euclid(1000) + i64::from(milli.rem_euclid(1000) != 0) }
}

/// What a pod asks of the node that runs it: containers and sidecars, or the init container that needs most, then the
/// pod's own resources, then its overhead; one pod.
///
/// Of a pod that is resized in place the most counts of what is asked for, allocated and in force, so that room is held until
/// the resize is over; what no node of its size could ever give ([`is_infeasible`]) is not asked for.
///
/// Source: component-helpers `resource.PodRequests` with `UseStatusResources`.
pub fn pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources { pods: 1, ..Resources::default() } };
    let is_infeasible = is_infeasible(pod);
    let mut requests = aggregate(spec, |container| {
        let asked = listed(container, |resources| resources.requests.as_ref());
        settled(asked, held_by(pod, container), is_infeasible)
    });
    if let Some(asked) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let status = pod.status.as_ref().filter(|status| status.resources.is_some());
        let held = status.map(|status| Held {
            allocated: status.allocated_resources.as_ref(),
            in_force: status.resources.as_ref().and_then(|resources| resources.requests.as_ref()),
        });
        replace(&mut requests, asked, &settled(Resources::from_list(asked), held, is_infeasible));
    }
    requests.add(&Resources::from_optional(spec.overhead.as_ref()));
    requests.pods = 1;
    requests
}

/// What the kubelet says that a container, or a pod as a whole, has.
#[derive(Clone, Copy)]
struct Held<'a> {
    allocated: Option<&'a ResourceList>,
    in_force: Option<&'a ResourceList>,
}

type ResourceList = BTreeMap<String, Quantity>;

/// What the kubelet says that a container has, once it says what is in force. Init containers end, sidecars aside.
fn held_by<'a>(pod: &'a Pod, container: &Container) -> Option<Held<'a>> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let is_init = spec.init_containers.iter().flatten().any(|init| init.name == container.name);
    let statuses = match (is_init, is_sidecar(container)) {
        (false, _) => &status.container_statuses,
        (true, true) => &status.init_container_statuses,
        (true, false) => return None,
    };
    let status = statuses.iter().flatten().find(|status| status.name == container.name)?;
    Some(Held {
        allocated: status.allocated_resources.as_ref(),
        in_force: status.resources.as_ref()?.requests.as_ref(),
    })
}

/// What counts of what is asked for and what is held.
fn settled(asked: Resources, held: Option<Held<'_>>, is_infeasible: bool) -> Resources {
    let Some(Held { allocated, in_force }) = held else { return asked };
    let mut most = if is_infeasible { Resources::default() } else { asked };
    most.raise_to(&Resources::from_optional(allocated));
    most.raise_to(&Resources::from_optional(in_force));
    most
}

/// Whether the kubelet says that a pod's resize will never fit its node.
fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let says_so = |condition: &PodCondition| {
        condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
    };
    conditions.into_iter().any(says_so)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The limits of a whole pod, by the same rule as [`pod_requests`]; a resource without a limit is absent, and its overhead
/// sets none.
pub fn pod_limits(spec: &PodSpec) -> Resources {
    let mut limits = aggregate(spec, |container| listed(container, |resources| resources.limits.as_ref()));
    if let Some(limited) = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()) {
        replace(&mut limits, limited, &Resources::from_list(limited));
    }
    for (name, amount) in Resources::from_optional(spec.overhead.as_ref()).iter() {
        let limit = limits.get(name);
        if limit > 0 {
            limits.set(name, limit.saturating_add(amount));
        }
    }
    limits.pods = 1;
    limits
}

fn listed(
    container: &Container,
    list: impl Fn(&k8s_openapi::api::core::v1::ResourceRequirements) -> Option<&ResourceList>,
) -> Resources {
    Resources::from_optional(container.resources.as_ref().and_then(list))
}

/// Containers and sidecars run together; an init container runs beside the sidecars that started before it.
fn aggregate(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut together = Resources::default();
    for container in &spec.containers {
        together.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut asked = of(container);
        if is_sidecar(container) {
            together.add(&asked);
            sidecars.add(&asked);
            peak.raise_to(&sidecars);
        } else {
            asked.add(&sidecars);
            peak.raise_to(&asked);
        }
    }
    together.raise_to(&peak);
    together
}

/// A pod's own resources, zero included, replace the sum of its containers' (cpu, memory and huge pages can be set so).
fn replace(total: &mut Resources, named: &ResourceList, by: &Resources) {
    for name in named.keys() {
        if name == "cpu" || name == "memory" || name.starts_with("hugepages-") {
            total.set(name, by.get(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requests(pod: &Value) -> Resources {
        pod_requests(&serde_json::from_value(pod.clone()).unwrap())
    }

    fn cpu(amount: &str) -> Value {
        json!({"requests": {"cpu": amount}})
    }

    /// A pod of a sidecar and a container that is resized from 1 to 3 cores: 2 are allocated, and one is in force.
    fn resized() -> Value {
        json!({
            "spec": {
                "initContainers": [
                    {"name": "first", "resources": cpu("1")},
                    {"name": "sidecar", "restartPolicy": "Always", "resources": cpu("100m")},
                ],
                "containers": [{"name": "app", "resources": cpu("3")}],
            },
            "status": {
                "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                    "allocatedResources": {"cpu": "2"}, "resources": cpu("1")}],
            },
        })
    }

    #[test]
    fn a_resize_holds_the_most_until_it_is_over() {
        let mut pod = resized();
        assert_eq!(requests(&pod).cpu, 3100, "what is asked for");
        pod["spec"]["containers"][0]["resources"] = cpu("500m");
        assert_eq!(requests(&pod).cpu, 2100, "what is allocated");
        pod["status"]["containerStatuses"][0]["resources"] = cpu("2500m");
        assert_eq!(requests(&pod).cpu, 2600, "what is in force");
        let mut sidecar = pod["status"]["containerStatuses"][0].clone();
        sidecar["name"] = json!("sidecar");
        let mut first = sidecar.clone();
        first["name"] = json!("first");
        first["resources"] = cpu("9");
        pod["status"]["initContainerStatuses"] = json!([first, sidecar]);
        assert_eq!(requests(&pod).cpu, 5000, "of a sidecar too, of other init containers not");
    }

    #[test]
    fn what_will_never_be_given_is_not_asked_for() {
        let mut pod = resized();
        pod["status"]["conditions"] =
            json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        assert_eq!(requests(&pod).cpu, 2100);
        pod["status"]["conditions"][0]["reason"] = json!("Deferred");
        assert_eq!(requests(&pod).cpu, 3100);
        pod["status"]["conditions"][0]["reason"] = json!("Infeasible");
        pod["status"].as_object_mut().unwrap().remove("containerStatuses");
        assert_eq!(requests(&pod).cpu, 3100, "the kubelet has not said what there is");
    }

    #[test]
    fn a_pod_is_resized_as_a_whole_likewise() {
        let mut pod = resized();
        pod["spec"]["resources"] = cpu("4");
        assert_eq!(requests(&pod).cpu, 4000, "it replaces the sum");
        pod["status"]["allocatedResources"] = json!({"cpu": "6"});
        pod["status"]["resources"] = cpu("5");
        assert_eq!(requests(&pod).cpu, 6000);
        pod["spec"]["resources"] = cpu("8");
        assert_eq!(requests(&pod).cpu, 8000);
        pod["status"]["conditions"] =
            json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        assert_eq!(requests(&pod).cpu, 6000);
    }
}
