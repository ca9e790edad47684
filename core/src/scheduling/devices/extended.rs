//! Extended resources that a `DeviceClass` stands for (`example.com/gpu: 2`): where no device plugin offers one, the scheduler
//! makes a claim for it.
//!
//! Source: kube-scheduler, `plugins/dynamicresources/extendeddynamicresources.go`.

use std::{borrow::Cow, sync::Arc};

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::{Alternative, ClaimSpec, Count, DeviceClass, Objects, PodClaim, Request, demand::Need};
use crate::scheduling::{Resources, fleet::NodeInfo, pod::Pod, snapshot::Snapshot};

/// Before the name of a class: the resource that stands for it without having been given a name.
const OF_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// What a pod may ask of devices by naming an extended resource: a request of the claim that the scheduler would make.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtendedRequest {
    /// Its name, `container-INDEX-request-INDEX`: requests are met in the order of names.
    pub name: Box<str>,
    /// The resource.
    pub resource: Box<str>,
    /// How many devices.
    pub count: i64,
}

/// What a class of pods asks for by the names of resources that have a `DeviceClass`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Extended {
    /// The ordinal of the resource of each request.
    resources: Box<[u32]>,
    /// The claim where no device plugin offers any of them.
    need: Need,
}

impl ExtendedRequest {
    /// What the containers of a pod ask for.
    ///
    /// Each container and sidecar has devices of its own. An init container takes those of them that start after it, and
    /// what any of them needs beyond that is there for all.
    pub fn of_pod(spec: &PodSpec) -> Box<[Self]> {
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let containers: Vec<_> = init.iter().chain(&spec.containers).collect();
        let mut resources: Vec<_> = containers.iter().flat_map(|container| extended_of(container)).collect();
        resources.sort_unstable();
        resources.dedup();
        let is_brief = |at: usize| at < init.len() && init[at].restart_policy.as_deref() != Some("Always");
        let of_resource = |resource| Self::of_resource(&containers, is_brief, resource);
        let mut requests: Vec<_> = resources.into_iter().flat_map(of_resource).collect();
        requests.sort_unstable();
        requests.into()
    }

    fn of_resource(
        containers: &[&Container],
        is_brief: impl Fn(usize) -> bool,
        resource: &str,
    ) -> impl Iterator<Item = Self> {
        let (mut brief, mut lasting) = (Vec::new(), Vec::new());
        for (at, container) in containers.iter().enumerate() {
            let Some(request) = Self::of_container(at, container, resource) else { continue };
            if is_brief(at) { brief.push((at, request)) } else { lasting.push((at, request)) }
        }
        for (at, request) in &mut brief {
            let later = lasting.iter().filter(|(other, _)| other > at);
            request.count -= later.map(|(_, request)| request.count).sum::<i64>();
        }
        let beyond = brief.into_iter().filter(|(_, request)| request.count > 0);
        // Of those that need as much the first.
        let most = beyond.reduce(|most, next| if next.1.count > most.1.count { next } else { most });
        most.into_iter().chain(lasting).map(|(_, request)| request)
    }

    fn of_container(at: usize, container: &Container, resource: &str) -> Option<Self> {
        let requests = container.resources.as_ref()?.requests.as_ref()?;
        let number = requests.keys().position(|name| name == resource)?;
        let count = Resources::from_list(requests).get(resource);
        let name = format!("container-{at}-request-{number}").into();
        (count > 0).then(|| Self { name, resource: resource.into(), count })
    }
}

fn extended_of(container: &Container) -> impl Iterator<Item = &str> {
    let requests = container.resources.iter().flat_map(|resources| resources.requests.iter().flatten());
    requests.map(|(name, _)| name.as_str()).filter(|name| is_extended(name))
}

/// Whether it may be a resource that devices give.
fn is_extended(resource: &str) -> bool {
    resource.starts_with(OF_CLASS) || is_foreign(resource)
}

/// Whether it is a resource of which Kubernetes itself knows nothing.
pub(in crate::scheduling) fn is_foreign(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/") && !resource.starts_with("requests.")
}

impl Objects {
    /// The class that an extended resource stands for: of several the newest, of those as new the first by name.
    fn class_of(&self, resource: &str) -> Option<(&Arc<str>, &Arc<DeviceClass>)> {
        if let Some(name) = resource.strip_prefix(OF_CLASS) {
            return self.classes.get_key_value(name);
        }
        let named =
            self.classes.iter().filter(|(_, class)| class.extended_resource.as_deref() == Some(resource));
        named.rev().max_by_key(|(_, class)| class.created)
    }
}

impl Extended {
    /// The claim on a node; `None` where device plugins offer everything.
    pub(super) fn on(&self, node: &NodeInfo) -> Option<Cow<'_, Need>> {
        let mut lacking = self.resources.iter().map(|resource| !node.offers(*resource));
        if lacking.clone().all(|lacks| lacks) {
            return Some(Cow::Borrowed(&self.need));
        }
        let Need { spec, classes, .. } = &self.need;
        let both = spec.requests.iter().zip(classes);
        let left = both.filter(|_| lacking.next() == Some(true));
        let (requests, classes): (Vec<_>, Vec<_>) =
            left.map(|(request, classes)| (request.clone(), classes.clone())).unzip();
        let spec = Arc::new(ClaimSpec { requests, constraints: Vec::new() });
        (!classes.is_empty()).then(|| Cow::Owned(Need { claim: None, spec, classes: classes.into() }))
    }

    /// Whether devices do for a resource.
    pub(super) fn is_about(&self, resource: u32) -> bool {
        self.resources.contains(&resource)
    }

    /// Whether a node has a resource only as devices.
    pub(super) fn is_device(&self, resource: u32, node: &NodeInfo) -> bool {
        self.is_about(resource) && !node.offers(resource)
    }
}

impl Snapshot {
    /// What a pod asks of devices by the names of resources.
    pub(super) fn extended(&mut self, pod: &Pod, objects: &Objects) -> Option<Extended> {
        let (mut resources, mut requests, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        for request in &pod.shape.extended {
            let Some((name, class)) = objects.class_of(&request.resource) else { continue };
            resources.push(self.resource(&request.resource));
            requests.push(Request::plain(request, name));
            classes.push([class.clone()].into());
        }
        let spec = Arc::new(ClaimSpec { requests, constraints: Vec::new() });
        let need = Need { claim: None, spec, classes: classes.into() };
        (!resources.is_empty()).then(|| Extended { resources: resources.into(), need })
    }
}

impl Request {
    /// For so many devices of a class, and nothing else.
    fn plain(request: &ExtendedRequest, class: &Arc<str>) -> Self {
        let alternative = Alternative {
            name: Box::default(),
            class: class.clone(),
            selectors: Vec::new(),
            count: Count::Exactly(usize::try_from(request.count).unwrap_or(usize::MAX)),
            tolerations: Vec::new(),
            is_admin: false,
            capacity: super::Requested::default(),
            unknown: None,
        };
        Self { name: request.name.clone(), alternatives: vec![alternative] }
    }
}

impl PodClaim {
    /// The name of the claim, if it is made.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Named(name) | Self::Extended(name) => Some(name),
            Self::Own { name, .. } => name.as_ref(),
        }
    }
}
