//! ProvisioningRequests: room that is asked for as a whole before its pods are made, and kept for them for a while.
//!
//! What a request stands for are pods that only the decisions about nodes see, as those of buffers. [`look`] reads a request,
//! a pass over node groups answers it ([`Answer`]), and [`said`] is what its conditions say of that. What outlives a restart
//! is in the conditions: room is booked from the time at which `Provisioned` became true.
//!
//! Source: Cluster Autoscaler, `provisioningrequest/` and `processors/provreq/`.

mod conditions;
mod look;
pub mod reasons;
mod terms;

use std::sync::Arc;

pub use conditions::{BOOKED, SCHEDULABLE_POD_SETS, said};
pub use look::{Sight, look};
pub use terms::{MOST_PODS, Problem, VALID};

use super::pass::Refusal;
use crate::scheduling::{
    Pod,
    pod::{Owner, Shape},
};

/// The API group of requests.
pub const API_GROUP: &str = "autoscaling.x-k8s.io";
/// Their kind.
pub const KIND: &str = "ProvisioningRequest";

/// The annotation that names the request whose room a pod takes, and the one that it was before.
const CONSUME: [&str; 2] = [
    "autoscaling.x-k8s.io/consume-provisioning-request",
    "cluster-autoscaler.kubernetes.io/consume-provisioning-request",
];

/// How room is found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `check-capacity.autoscaling.x-k8s.io`: it is there, or it is not.
    CheckCapacity(Option<Partial>),
    /// `best-effort-atomic-scale-up.autoscaling.x-k8s.io`: groups grow for all of it, or for none.
    BestEffortAtomic,
}

/// What becomes of a request whose pod sets do not all fit (the parameter `partialCapacityCheck`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// Room is kept for the sets that fit.
    Book,
    /// They are named.
    CheckOnly,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It asks for room.
    Open,
    /// Its room is kept.
    Booked,
}

/// Pods of a request that are alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Pods {
    /// The PodTemplate that they are as.
    pub template: Arc<str>,
    /// They.
    pub pods: Vec<Arc<Pod>>,
}

/// A request, as a pass sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
    /// How room is found or made.
    pub class: Class,
    /// Where it stands.
    pub stage: Stage,
    /// What it is room for.
    pub sets: Vec<Pods>,
}

/// What a pass makes of a request that asks for room.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// `NAMESPACE/NAME`.
    pub request: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
    /// What is made of it.
    pub answer: Answer,
}

/// What is made of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// All of its pods, those of these templates, fit what is there or on its way.
    Found(Vec<Arc<str>>),
    /// These groups grow for it.
    Provisioned(Vec<Arc<str>>),
    /// The pods of these templates fit, others do not.
    PartlyFound(Vec<Arc<str>>, Partial),
    /// There is no room, and none can be made.
    NotFound(Shortage),
}

impl Answer {
    /// Whether room is kept from now on.
    pub fn books(&self) -> bool {
        match self {
            Self::Found(_) | Self::Provisioned(_) => true,
            Self::PartlyFound(_, partial) => *partial == Partial::Book,
            Self::NotFound(_) => false,
        }
    }
}

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shortage {
    /// So many pods would have a place.
    pub fit: u32,
    /// Of so many.
    pub pods: u32,
    /// Why groups cannot help the others.
    pub refusals: Vec<Refusal>,
}

impl Request {
    /// The names of its templates.
    pub(super) fn templates(&self) -> Vec<Arc<str>> {
        self.sets.iter().map(|set| set.template.clone()).collect()
    }

    /// All of its pods.
    pub(super) fn pods(&self) -> Vec<Arc<Pod>> {
        self.sets.iter().flat_map(|set| set.pods.iter().cloned()).collect()
    }
}

/// The request whose room a pod takes, by name; it is of the pod's namespace.
pub fn consumed_by(pod: &Pod) -> Option<&str> {
    let annotations = &pod.shape.annotations;
    CONSUME.iter().find_map(|key| annotations.get(*key)).map(String::as_str).filter(|name| !name.is_empty())
}

/// The pods that stand for a set. Their volumes are left out: no claims are there for them.
fn pods(namespace: &str, request: &str, (set, template): (usize, &Shape), count: u32) -> Vec<Arc<Pod>> {
    let mut shape = template.clone();
    shape.annotations.insert(CONSUME[0].to_owned(), request.to_owned());
    shape.namespace = namespace.into();
    let api_version = format!("{API_GROUP}/v1").into();
    shape.owner = Some(Owner { kind: KIND.into(), name: request.into(), uid: "".into(), api_version });
    let shape = Arc::new(shape);
    let pod = |number| {
        let name: Arc<str> = format!("{request}-{set}-{number}").into();
        let uid = format!("{namespace}/{name}").into();
        Arc::new(Pod { uid, name, shape: shape.clone(), ..Pod::default() })
    };
    (0..count).map(pod).collect()
}
