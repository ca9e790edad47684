//! What a class of pods asks of devices.

use std::sync::Arc;

use super::{
    Objects, PodClaim,
    claim::{ClaimSpec, DeviceClass, Request},
    extended::Extended,
};
use crate::scheduling::{ids::Symbol, pod::Pod, reason::Reason, snapshot::Snapshot};

/// An interned [`Demand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::scheduling) struct DemandId(pub(super) u32);

/// What a class of pods asks of devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Demand {
    /// Why no node will do.
    pub(super) impossible: Option<Reason>,
    pub(super) needs: Box<[Need]>,
    /// What else it asks for where no device plugin offers it.
    pub(super) extended: Option<Extended>,
}

/// A claim of a class of pods.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Need {
    /// The claim that pods of the class share; `None` if each has one of its own that has no devices yet.
    pub(super) claim: Option<Symbol>,
    pub(super) spec: Arc<ClaimSpec>,
    /// The class of each alternative of each request.
    pub(super) classes: Box<[Box<[Arc<DeviceClass>]>]>,
}

impl Demand {
    /// Whether pods of the class may use the same devices.
    pub(super) fn shares(&self) -> bool {
        self.needs.iter().any(|need| need.claim.is_some())
    }
}

impl Snapshot {
    /// What a pod asks of devices.
    pub(in crate::scheduling) fn demand(&mut self, pod: &Pod) -> Option<DemandId> {
        if pod.device_claims.is_empty() && pod.shape.extended.is_empty() {
            return None;
        }
        let demand = match self.surroundings.devices.clone() {
            None if pod.device_claims.is_empty() => return None,
            None => Demand { impossible: Some(Reason::DevicesUnknown), ..Demand::default() },
            Some(objects) => self.read_demand(pod, &objects),
        };
        if pod.device_claims.is_empty() && demand.extended.is_none() {
            return None;
        }
        Some(DemandId(self.devices.demands.intern(demand).0))
    }

    fn read_demand(&mut self, pod: &Pod, objects: &Objects) -> Demand {
        let mut needs = Vec::with_capacity(pod.device_claims.len());
        for claim in &pod.device_claims {
            match self.need(pod, claim, objects) {
                Ok(need) => needs.extend(need),
                Err(reason) => return Demand { impossible: Some(reason), ..Demand::default() },
            }
        }
        Demand { impossible: None, needs: needs.into(), extended: self.extended(pod, objects) }
    }

    /// What a claim stands for; `None` of one that the scheduler made, which says what it asks for otherwise.
    fn need(&mut self, pod: &Pod, claim: &PodClaim, objects: &Objects) -> Result<Option<Need>, Reason> {
        let of = |name: &Arc<str>| objects.claims.get(&(pod.shape.namespace.clone(), name.clone()));
        let (claim, spec) = match claim {
            PodClaim::Named(name) => {
                let claim = of(name).ok_or_else(|| Reason::DeviceClaimNotFound(name.clone()))?;
                if claim.is_deleting {
                    let text = format!("resourceclaim \"{name}\" is being deleted");
                    return Err(Reason::DeviceRequest(text.into()));
                }
                (Some(self.claim_key(&pod.shape.namespace, name)), &claim.spec)
            }
            PodClaim::Own { name: Some(name), template } => match of(name) {
                // A pod that goes elsewhere gets another claim there; one that is not there yet is bound to what its claim has.
                Some(claim) if claim.allocation.is_some() && !pod.is_placed() => {
                    (Some(self.claim_key(&pod.shape.namespace, name)), &claim.spec)
                }
                Some(claim) => (None, &claim.spec),
                None => (None, template_of(pod, template, objects)?),
            },
            PodClaim::Own { name: None, template } => (None, template_of(pod, template, objects)?),
            PodClaim::Extended(_) => return Ok(None),
        };
        let classes = spec.requests.iter().map(|request| classes(request, objects));
        Ok(Some(Need { claim, spec: spec.clone(), classes: classes.collect::<Result<_, _>>()? }))
    }

    /// The interned name of a claim.
    pub(super) fn claim_key(&mut self, namespace: &str, name: &str) -> Symbol {
        self.strings.intern(&format!("{namespace}/{name}"))
    }
}

fn template_of<'a>(
    pod: &Pod,
    template: &Arc<str>,
    objects: &'a Objects,
) -> Result<&'a Arc<ClaimSpec>, Reason> {
    let found = objects.templates.get(&(pod.shape.namespace.clone(), template.clone()));
    let text = || format!("resourceclaimtemplate \"{template}\" not found");
    found.ok_or_else(|| Reason::DeviceRequest(text().into()))
}

fn classes(request: &Request, objects: &Objects) -> Result<Box<[Arc<DeviceClass>]>, Reason> {
    if request.alternatives.is_empty() {
        let text = format!("request {}: unknown request type", request.name);
        return Err(Reason::DeviceRequest(text.into()));
    }
    let class = |alternative: &super::Alternative| {
        let missing = || {
            let separator = if alternative.name.is_empty() { "" } else { "/" };
            let (request, name, class) = (&request.name, &alternative.name, &alternative.class);
            let text = format!("request {request}{separator}{name}: device class {class} does not exist");
            Reason::DeviceRequest(text.into())
        };
        objects.classes.get(&alternative.class).cloned().ok_or_else(missing)
    };
    request.alternatives.iter().map(class).collect()
}
