//! What nodes have beside processors and memory, as labels of metrics tell it (Cluster Autoscaler, `utils/gpu`).

use std::collections::BTreeSet;

use tandem_core::scheduling::Node;

/// Resources of GPUs, by their vendors.
const RESOURCES: [&str; 5] =
    ["nvidia.com/gpu", "habana.ai/gaudi", "gpu.intel.com/xe", "amd.com/gpu", "microsoft.com/directx"];
/// GPUs of a type that nobody named.
const GENERIC: &str = "generic";
/// A type is named, and there are no GPUs.
const UNEXPECTED: &str = "unexpected-label";

/// What nodes have; all empty for most.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Accelerators {
    /// The resource of their GPUs.
    pub(super) resource: &'static str,
    /// The type of their GPUs. One that the provider does not list is told nevertheless, and not as `not-listed`.
    pub(super) name: String,
    /// The drivers that publish their devices, commas between.
    pub(super) drivers: String,
}

impl Accelerators {
    /// What nodes like this one have, with the provider's label of GPUs.
    pub(super) fn of(node: &Node, gpu_label: &str) -> Self {
        let named = node.labels.get(gpu_label).filter(|_| !gpu_label.is_empty());
        let offered = RESOURCES.into_iter().find(|resource| node.allocatable.get(resource) > 0);
        let drivers: BTreeSet<&str> =
            node.slices.iter().flat_map(|slices| slices.iter()).map(|slice| &*slice.pool.0).collect();
        let name = match (named, offered) {
            (None, None) => "",
            (Some(name), Some(_)) if !name.is_empty() => name,
            (_, Some(_)) => GENERIC,
            (Some(_), None) => UNEXPECTED,
        };
        let resource = offered.or(named.and(RESOURCES.first().copied())).unwrap_or_default();
        let drivers = drivers.into_iter().collect::<Vec<_>>().join(",");
        Self { resource, name: name.to_owned(), drivers }
    }

    /// Whether there are none.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Those of the labels that say something: to Prometheus an empty label is none.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let of_gpus = self.gpu_labels();
        let drivers = ("dra_drivers", self.drivers.clone());
        of_gpus.into_iter().chain([drivers]).filter(|(_, value)| !value.is_empty())
    }

    /// Those of the metrics that are only about GPUs.
    pub(super) fn gpu_labels(&self) -> [(&'static str, String); 2] {
        [("gpu_resource_name", self.resource.to_owned()), ("gpu_name", self.name.clone())]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tandem_core::scheduling::devices::Slice;

    use super::*;

    #[test]
    fn gpus_and_drivers_are_told_by_label_resource_and_slices() {
        let node = |label: Option<&str>, resource: &str| {
            let mut node = Node::default();
            node.labels.extend(label.map(|label| ("gpu".to_owned(), label.to_owned())));
            node.allocatable.set(resource, 1);
            node
        };
        for (node, resource, name) in [
            (node(None, "cpu"), "", ""),
            (node(None, "amd.com/gpu"), "amd.com/gpu", "generic"),
            (node(Some(""), "nvidia.com/gpu"), "nvidia.com/gpu", "generic"),
            (node(Some("t4"), "nvidia.com/gpu"), "nvidia.com/gpu", "t4"),
            (node(Some("t4"), "cpu"), "nvidia.com/gpu", "unexpected-label"),
        ] {
            let found = Accelerators::of(&node, "gpu");
            assert_eq!((found.resource, &*found.name, &*found.drivers), (resource, name, ""));
        }
        let slice = |driver: &str| {
            let mut slice = Slice::default();
            slice.pool = (driver.into(), "pool".into());
            Arc::new(slice)
        };
        let slices = Some([slice("b"), slice("a"), slice("b")].into());
        let found = Accelerators::of(&Node { slices, ..Node::default() }, "");
        assert_eq!((found.resource, &*found.name, &*found.drivers), ("", "", "a,b"));
        assert_eq!(found.labels().collect::<Vec<_>>(), [("dra_drivers", "a,b".to_owned())]);
    }
}
