//! Devices as drivers publish them: `ResourceSlice`s.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::NodeSelector,
        resource::v1::{self as k8s, ResourceSlice},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt as _;

use super::{capacity::Capacity, selector::Judged};
use crate::quantity::parse_milli;

/// Amounts in thousandths, by name.
pub type Amounts = BTreeMap<Box<str>, i64>;

/// A driver and the name of one of its pools.
pub type PoolName = (Arc<str>, Arc<str>);

/// The domain of an attribute, and its name.
pub type AttributeName = (Box<str>, Box<str>);

/// A `ResourceSlice`: a part of a pool of devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    /// Its name: of slices of a pool the first by name is allocated from first.
    pub name: Arc<str>,
    /// Its pool.
    pub pool: PoolName,
    /// Slices of an older generation do not count.
    pub generation: i64,
    /// How many slices the generation has.
    pub slices: i64,
    /// The nodes that may use it; `None` if each of its devices says so.
    pub access: Option<Access>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// What devices of the pool share, by set of counters.
    pub counters: Vec<(Box<str>, Amounts)>,
    /// What selectors say of its devices, as far as they were asked.
    pub(super) judged: Judged,
}

/// The nodes that may use devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Access {
    /// None: whatever is said of nodes is not known here.
    #[default]
    Nobody,
    /// The node of this name.
    Node(Arc<str>),
    /// Every node.
    All,
    /// Those with these labels.
    Nodes(Box<NodeSelector>),
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A number.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A string.
    Text(Arc<str>),
    /// A semantic version.
    Version(Arc<str>),
    /// Of a type that is not known here.
    Unknown,
}

/// A taint of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTaint {
    /// Its key.
    pub key: Box<str>,
    /// Its value.
    pub value: Box<str>,
    /// Such as `NoSchedule`.
    pub effect: Box<str>,
}

/// A `DeviceTaintRule`: a taint of devices that their drivers did not publish with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaintRule {
    /// The taint.
    pub taint: DeviceTaint,
    /// The driver of the devices; `None` for any, as of the others.
    pub driver: Option<Box<str>>,
    /// Their pool.
    pub pool: Option<Box<str>>,
    /// Their name.
    pub device: Option<Box<str>>,
}

/// A device, or a way to cut a part from one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Its name in the pool.
    pub name: Arc<str>,
    /// The nodes that may use it, where devices say so one by one.
    pub access: Access,
    /// By domain and name; what the driver says without a domain has the driver's.
    pub attributes: BTreeMap<AttributeName, Attribute>,
    /// By domain and name, as attributes.
    pub capacity: BTreeMap<(Box<str>, Box<str>), Capacity>,
    /// Its taints.
    pub taints: Vec<DeviceTaint>,
    /// What it takes of what is shared, by set of counters.
    pub consumes: Vec<(Box<str>, Amounts)>,
    /// Whether several requests may share it (`allowMultipleAllocations`).
    pub is_shared: bool,
    /// Whether something has to be made ready before a pod may start (`bindingConditions`).
    pub binds_later: bool,
    /// Whether who has it stays on one node, though others could reach it (`bindsToNode`).
    pub binds_to_node: bool,
}

impl Slice {
    /// Reads a slice of the API.
    pub fn read(slice: &ResourceSlice) -> Self {
        let spec = &slice.spec;
        let devices = spec.devices.as_deref().unwrap_or_default();
        let by_device = spec.per_device_node_selection == Some(true);
        let access = Access::read(spec.node_name.as_deref(), spec.all_nodes, spec.node_selector.as_ref());
        // Which devices may be had together is not judged: kube-scheduler leaves such slices out as long as the feature is
        // off, so that their pool is incomplete.
        let has_groups = |device: &k8s::Device| {
            let consumed = device.consumes_counters.iter().flatten();
            consumed.into_iter().any(|consumed| consumed.compatibility_groups.is_some())
        };
        let slices = if devices.iter().any(has_groups) { -1 } else { spec.pool.resource_slice_count };
        let shared = spec.shared_counters.iter().flatten();
        Self {
            name: slice.name_any().into(),
            pool: (spec.driver.as_str().into(), spec.pool.name.as_str().into()),
            generation: spec.pool.generation,
            slices,
            access: (!by_device).then_some(access),
            devices: devices.iter().map(|device| Device::read(device, &spec.driver)).collect(),
            counters: shared.map(|set| (set.name.as_str().into(), counters(&set.counters))).collect(),
            judged: Judged::default(),
        }
    }

    /// The slice without some attributes; the same if it has none of them.
    pub fn without(self: &Arc<Self>, is_gone: impl Fn(&Device, &AttributeName) -> bool) -> Arc<Self> {
        let loses = |device: &Device| device.attributes.keys().any(|name| is_gone(device, name));
        if !self.devices.iter().any(loses) {
            return self.clone();
        }
        // What selectors said of its devices holds no longer.
        let mut changed = Self { judged: Judged::default(), ..(**self).clone() };
        for (device, before) in changed.devices.iter_mut().zip(&self.devices) {
            device.attributes.retain(|name, _| !is_gone(before, name));
        }
        Arc::new(changed)
    }

    /// The node that alone has it.
    pub fn node(&self) -> Option<&Arc<str>> {
        match &self.access {
            Some(Access::Node(node)) => Some(node),
            _ => None,
        }
    }
}

/// A selector of nodes is made of strings, for which its crate does not say so.
impl Eq for Access {}

impl Access {
    fn read(node: Option<&str>, all: Option<bool>, selector: Option<&NodeSelector>) -> Self {
        match (node.filter(|node| !node.is_empty()), all, selector) {
            (Some(node), ..) => Self::Node(node.into()),
            (None, Some(true), _) => Self::All,
            (None, _, Some(selector)) => Self::Nodes(Box::new(selector.clone())),
            _ => Self::Nobody,
        }
    }
}

impl Device {
    fn read(device: &k8s::Device, driver: &str) -> Self {
        let attributes = device.attributes.iter().flatten();
        let capacity = device.capacity.iter().flatten();
        let taints = device.taints.iter().flatten();
        let consumes = device.consumes_counters.iter().flatten();
        Self {
            name: device.name.as_str().into(),
            access: Access::read(
                device.node_name.as_deref(),
                device.all_nodes,
                device.node_selector.as_ref(),
            ),
            attributes: attributes
                .map(|(name, attribute)| (qualified(name, driver), Attribute::read(attribute)))
                .collect(),
            capacity: capacity
                .map(|(name, capacity)| (qualified(name, driver), Capacity::read(capacity)))
                .collect(),
            taints: taints.map(DeviceTaint::read).collect(),
            consumes: consumes
                .map(|consumed| (consumed.counter_set.as_str().into(), counters(&consumed.counters)))
                .collect(),
            is_shared: device.allow_multiple_allocations == Some(true),
            binds_later: device.binding_conditions.is_some(),
            binds_to_node: device.binds_to_node == Some(true),
        }
    }
}

impl DeviceTaint {
    fn read(taint: &k8s::DeviceTaint) -> Self {
        Self {
            key: taint.key.as_str().into(),
            value: taint.value.as_deref().unwrap_or_default().into(),
            effect: taint.effect.as_str().into(),
        }
    }

    /// Whether it keeps who does not tolerate it away.
    pub(super) fn repels(&self) -> bool {
        matches!(&*self.effect, "NoSchedule" | "NoExecute")
    }
}

impl TaintRule {
    /// Reads a rule of the API. Without a selector it is about every device, as one with an empty selector is: so says
    /// kube-scheduler (`resourceslice/tracker`), whatever the API's documentation says.
    pub fn read(rule: &k8s::DeviceTaintRule) -> Self {
        let selector = rule.spec.device_selector.clone().unwrap_or_default();
        Self {
            taint: DeviceTaint::read(&rule.spec.taint),
            driver: selector.driver.map(Into::into),
            pool: selector.pool.map(Into::into),
            device: selector.device.map(Into::into),
        }
    }

    /// Whether it is about a device. How the pool of a node to come will be named nobody knows: `pool` is `None` then.
    pub(super) fn selects(&self, driver: &str, pool: Option<&str>, device: &str) -> bool {
        self.driver.as_ref().is_none_or(|of| **of == *driver)
            && self.pool.as_ref().is_none_or(|of| Some(&**of) == pool)
            && self.device.as_ref().is_none_or(|of| **of == *device)
    }
}

impl Attribute {
    fn read(attribute: &k8s::DeviceAttribute) -> Self {
        let k8s::DeviceAttribute { int, bool, string, version, .. } = attribute;
        match (int, bool, string, version) {
            (Some(int), ..) => Self::Int(*int),
            (_, Some(bool), ..) => Self::Bool(*bool),
            (_, _, Some(text), _) => Self::Text(text.as_str().into()),
            (.., Some(version)) => Self::Version(version.as_str().into()),
            _ => Self::Unknown,
        }
    }
}

/// A name with its domain; that of the driver if it has none.
pub(super) fn qualified(name: &str, driver: &str) -> (Box<str>, Box<str>) {
    let (domain, id) = name.split_once('/').unwrap_or((driver, name));
    (domain.into(), id.into())
}

/// In thousandths; what is no quantity counts as nothing.
pub(super) fn amount(quantity: &Quantity) -> i64 {
    parse_milli(&quantity.0).unwrap_or(0)
}

fn counters(counters: &BTreeMap<String, k8s::Counter>) -> Amounts {
    counters.iter().map(|(name, counter)| (name.as_str().into(), amount(&counter.value))).collect()
}
