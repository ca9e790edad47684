//! What is asked of devices: `ResourceClaim`s, `ResourceClaimTemplate`s and `DeviceClass`es.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::NodeSelector,
        resource::v1::{self as k8s, ResourceClaim, ResourceClaimTemplate},
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    capacity::Requested,
    selector::Selector,
    slice::{DeviceTaint, PoolName, amount},
};

/// A `DeviceClass`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct DeviceClass {
    /// What its devices have to be.
    pub selectors: Vec<Selector>,
    /// The extended resource that stands for one of them.
    pub extended_resource: Option<Box<str>>,
    /// Created then: of classes with the same resource the newest counts.
    pub created: Option<Timestamp>,
}

/// What a claim asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ClaimSpec {
    /// All of these.
    pub requests: Vec<Request>,
    /// What their devices have in common, or have not.
    pub constraints: Vec<Constraint>,
}

/// A request: the first of its alternatives that can be had.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Request {
    /// Its name.
    pub name: Box<str>,
    /// What will do, the best first; one alone unless they have names (`firstAvailable`). None if it is of a kind that is not
    /// known here.
    pub alternatives: Vec<Alternative>,
}

/// Some devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Alternative {
    /// Its name among several; empty if it is the only one.
    pub name: Box<str>,
    /// The class of the devices.
    pub class: Arc<str>,
    /// What they have to be beside that.
    pub selectors: Vec<Selector>,
    /// How many.
    pub count: Count,
    /// Taints that they may have.
    pub tolerations: Vec<DeviceToleration>,
    /// Whether it only looks at them, whoever else has them.
    pub is_admin: bool,
    /// What it takes of their capacities.
    pub capacity: Requested,
    /// What this version does not know, and so refuses: `derivedAttributes`, selectors that are not CEL.
    pub unknown: Option<&'static str>,
}

/// How many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    /// So many.
    Exactly(usize),
    /// Every device that will do, at least one.
    All,
}

/// A toleration of taints of devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceToleration {
    key: Box<str>,
    /// `None` for any.
    value: Option<Box<str>>,
    effect: Box<str>,
}

/// What devices have to have in common, or must not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// Requests that it is about, as `REQUEST` or `REQUEST/ALTERNATIVE`; empty means all.
    pub requests: Vec<Box<str>>,
    /// The attribute, as `DOMAIN/NAME`.
    pub attribute: Box<str>,
    /// What its values have to be.
    pub rule: Rule,
}

/// What the values of an attribute have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// All the same.
    Same,
    /// All different.
    Distinct,
    /// Something that is not known here.
    Unknown,
}

/// A `ResourceClaim`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// What it asks for.
    pub spec: Arc<ClaimSpec>,
    /// What it has.
    pub allocation: Option<Arc<Allocation>>,
    /// The uids of who may use it now.
    pub reserved: Vec<Arc<str>>,
    /// Being deleted.
    pub is_deleting: bool,
}

/// What a claim has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allocation {
    /// Its devices.
    pub devices: Vec<Allocated>,
    /// The nodes where they can be used; absent means all.
    pub nodes: Option<Box<NodeSelector>>,
}

/// A device that a claim has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocated {
    /// Its pool.
    pub pool: PoolName,
    /// Its name.
    pub device: Arc<str>,
    /// Whether it only looks at the device.
    pub is_admin: bool,
    /// What it has of a device that is shared, in thousandths; `None` of one that is its own.
    pub share: Option<Requested>,
}

impl DeviceClass {
    /// Reads a class of the API.
    pub fn read(class: &k8s::DeviceClass) -> Self {
        let Some(spec) = &class.spec else { return Self::default() };
        let (selectors, _) = selectors(spec.selectors.as_deref());
        Self {
            selectors,
            extended_resource: spec.extended_resource_name.as_deref().map(Box::from),
            created: class.metadata.creation_timestamp.as_ref().map(|time| time.0),
        }
    }
}

fn selectors(selectors: Option<&[k8s::DeviceSelector]>) -> (Vec<Selector>, Option<&'static str>) {
    let selectors = selectors.unwrap_or_default();
    let known = selectors.iter().filter_map(|selector| selector.cel.as_ref());
    let known: Vec<_> = known.map(|cel| Selector::new(&cel.expression)).collect();
    let unknown =
        (known.len() < selectors.len()).then_some("CEL expression empty (unsupported selector type?)");
    (known, unknown)
}

impl ClaimSpec {
    fn read(spec: &k8s::ResourceClaimSpec) -> Self {
        let Some(devices) = &spec.devices else { return Self::default() };
        Self {
            requests: devices.requests.iter().flatten().map(Request::read).collect(),
            constraints: devices.constraints.iter().flatten().map(Constraint::read).collect(),
        }
    }

    /// Reads a template of claims.
    pub fn of_template(template: &ResourceClaimTemplate) -> Self {
        template.spec.as_ref().and_then(|spec| spec.spec.as_ref()).map(Self::read).unwrap_or_default()
    }
}

impl Request {
    fn read(request: &k8s::DeviceRequest) -> Self {
        let exactly = request.exactly.iter().map(|exactly| {
            // What only one of both kinds has aside, they say the same.
            let same = k8s::DeviceSubRequest {
                name: String::new(),
                allocation_mode: exactly.allocation_mode.clone(),
                capacity: exactly.capacity.clone(),
                count: exactly.count,
                derived_attributes: exactly.derived_attributes.clone(),
                device_class_name: exactly.device_class_name.clone(),
                selectors: exactly.selectors.clone(),
                tolerations: exactly.tolerations.clone(),
            };
            Alternative { is_admin: exactly.admin_access == Some(true), ..Alternative::read(&same) }
        });
        let first = request.first_available.iter().flatten().map(Alternative::read);
        Self { name: request.name.as_str().into(), alternatives: exactly.chain(first).collect() }
    }
}

impl Alternative {
    fn read(request: &k8s::DeviceSubRequest) -> Self {
        let (selectors, unknown) = selectors(request.selectors.as_deref());
        let derived = request.derived_attributes.as_ref().is_some_and(|derived| !derived.is_empty());
        let derived = derived.then_some("derived attributes are not supported");
        let (count, mode) = match request.allocation_mode.as_deref() {
            None | Some("" | "ExactCount") => {
                (Count::Exactly(usize::try_from(request.count.unwrap_or(1)).unwrap_or(usize::MAX)), None)
            }
            Some("All") => (Count::All, None),
            Some(_) => (Count::All, Some("unsupported count mode")),
        };
        let requests = request.capacity.iter().flat_map(|capacity| capacity.requests.iter().flatten());
        Self {
            name: request.name.as_str().into(),
            class: request.device_class_name.as_str().into(),
            selectors,
            count,
            tolerations: request.tolerations.iter().flatten().map(DeviceToleration::read).collect(),
            is_admin: false,
            capacity: amounts(requests),
            unknown: derived.or(unknown).or(mode),
        }
    }
}

impl DeviceToleration {
    fn read(toleration: &k8s::DeviceToleration) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let exists = toleration.operator.as_deref() == Some("Exists");
        Self {
            key: text(&toleration.key),
            value: (!exists).then(|| text(&toleration.value)),
            effect: text(&toleration.effect),
        }
    }

    /// Whether it tolerates a taint.
    pub(super) fn tolerates(&self, taint: &DeviceTaint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
    }
}

impl Constraint {
    fn read(constraint: &k8s::DeviceConstraint) -> Self {
        let (attribute, rule) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (Some(attribute), _) => (attribute.as_str(), Rule::Same),
            (None, Some(attribute)) => (attribute.as_str(), Rule::Distinct),
            (None, None) => ("", Rule::Unknown),
        };
        Self {
            requests: constraint.requests.iter().flatten().map(|name| name.as_str().into()).collect(),
            attribute: attribute.into(),
            rule,
        }
    }
}

impl Claim {
    /// Reads a claim of the API.
    pub fn read(claim: &ResourceClaim) -> Self {
        let status = claim.status.as_ref();
        let reserved = status.into_iter().flat_map(|status| status.reserved_for.iter().flatten());
        Self {
            spec: Arc::new(claim.spec.as_ref().map(ClaimSpec::read).unwrap_or_default()),
            allocation: status
                .and_then(|status| status.allocation.as_ref())
                .map(|allocation| Arc::new(Allocation::read(allocation))),
            reserved: reserved.map(|consumer| consumer.uid.as_str().into()).collect(),
            is_deleting: claim.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// As of [`Access`](super::Access).
impl Eq for Allocation {}

impl Allocation {
    fn read(allocation: &k8s::AllocationResult) -> Self {
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        Self {
            devices: results.map(Allocated::read).collect(),
            nodes: allocation.node_selector.clone().map(Box::new),
        }
    }
}

impl Allocated {
    fn read(result: &k8s::DeviceRequestAllocationResult) -> Self {
        let consumed = || amounts(result.consumed_capacity.iter().flatten());
        let is_share = result.share_id.is_some() || result.consumed_capacity.is_some();
        Self {
            pool: (result.driver.as_str().into(), result.pool.as_str().into()),
            device: result.device.as_str().into(),
            is_admin: result.admin_access == Some(true),
            share: is_share.then(consumed),
        }
    }
}

fn amounts<'a>(quantities: impl Iterator<Item = (&'a String, &'a Quantity)>) -> Requested {
    quantities.map(|(name, quantity)| (name.as_str().into(), amount(quantity))).collect()
}
