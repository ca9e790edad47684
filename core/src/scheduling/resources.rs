//! Amounts of resources, and what a pod asks of a node.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
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
/// Of a running pod what the kubelet has allocated counts if it is more, so that a resize under way is held room for.
/// Source: component-helpers `resource.PodRequests`.
pub fn pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources { pods: 1, ..Resources::default() } };
    let allocated = |container: &Container| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?;
        status.iter().find(|status| status.name == container.name)?.allocated_resources.as_ref()
    };
    let mut requests = aggregate(spec, |container| {
        let mut asked = listed(container, |resources| resources.requests.as_ref());
        asked.raise_to(&Resources::from_optional(allocated(container)));
        asked
    });
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    finish(&mut requests, spec, of_pod);
    requests
}

/// The limits of a whole pod, by the same rule as [`pod_requests`]; a resource without a limit is absent.
pub fn pod_limits(spec: &PodSpec) -> Resources {
    let mut limits = aggregate(spec, |container| listed(container, |resources| resources.limits.as_ref()));
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    finish(&mut limits, spec, of_pod);
    limits
}

fn listed(
    container: &Container,
    list: impl Fn(&k8s_openapi::api::core::v1::ResourceRequirements) -> Option<&BTreeMap<String, Quantity>>,
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
        if container.restart_policy.as_deref() == Some("Always") {
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

/// A pod's own resources replace the sum of its containers' (cpu, memory and huge pages can be set so).
fn finish(total: &mut Resources, spec: &PodSpec, of_pod: Option<&BTreeMap<String, Quantity>>) {
    for (name, quantity) in of_pod.into_iter().flatten() {
        if name == "cpu" || name == "memory" || name.starts_with("hugepages-") {
            total.set(name, amount(name, quantity));
        }
    }
    total.add(&Resources::from_optional(spec.overhead.as_ref()));
    total.pods = 1;
}
