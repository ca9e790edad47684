//! Instance types that kwok and simulations pretend to offer: Karpenter's own, or those of a file in its format.
//!
//! Source: kubernetes-sigs/karpenter, `kwok/tools/gen_instance_types.go`, `kwok/cloudprovider/helpers.go`.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::NodeSelectorRequirement, apimachinery::pkg::api::resource::Quantity};
use serde::Deserialize;

use super::{
    instance_type::{InstanceType, Offering},
    requirements::{
        Operator, Requirement, Requirements,
        labels::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, ON_DEMAND, OS, SPOT, ZONE},
    },
};
use crate::scheduling::Resources;

/// Labels that tell instance types apart.
pub const SIZE: &str = "karpenter.kwok.sh/instance-size";
/// See [`SIZE`].
pub const FAMILY: &str = "karpenter.kwok.sh/instance-family";
/// See [`SIZE`]; cores.
pub const CPU: &str = "karpenter.kwok.sh/instance-cpu";
/// See [`SIZE`]; a quantity.
pub const MEMORY: &str = "karpenter.kwok.sh/instance-memory";

/// All of them.
pub const LABELS: [&str; 4] = [SIZE, FAMILY, CPU, MEMORY];

/// What the kubelet keeps of a node: 100m and 10Mi.
const OVERHEAD: (i64, i64) = (100, 10 << 20);
/// Pods of a node that does not say.
const PODS: i64 = 110;

const CORES: [i64; 12] = [1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256];
/// Families by their memory, GiB a core.
const FAMILIES: [(&str, i64); 3] = [("c", 2), ("s", 4), ("m", 8)];
const SYSTEMS: [&str; 2] = ["linux", "windows"];
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
const ZONES: [&str; 4] = ["test-zone-a", "test-zone-b", "test-zone-c", "test-zone-d"];
/// Dollars an hour for a core.
const PRICE_OF_CORE: f64 = 0.025;
/// Dollars an hour for a gigabyte of memory.
const PRICE_OF_GIGABYTE: f64 = 0.001;
/// The share of the price that spot costs.
const SPOT_SHARE: f64 = 0.7;
/// Pods a core, up to [`MOST_PODS`].
const PODS_OF_CORE: i64 = 16;
const MOST_PODS: i64 = 1024;
/// Ephemeral storage, bytes: 20Gi.
const STORAGE: i64 = 20 << 30;

/// An instance type in a file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    offerings: Vec<ListedOffering>,
    architecture: String,
    operating_systems: Vec<String>,
    resources: BTreeMap<String, Quantity>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedOffering {
    price: f64,
    #[serde(default = "yes")]
    available: bool,
    requirements: Vec<NodeSelectorRequirement>,
}

fn yes() -> bool {
    true
}

/// What a file lists, in order.
pub fn read(text: &str) -> Result<Vec<Arc<InstanceType>>, serde_json::Error> {
    let listed: Vec<Listed> = serde_json::from_str(text)?;
    Ok(listed.into_iter().map(|listed| Arc::new(listed.build())).collect())
}

impl Listed {
    fn build(self) -> InstanceType {
        let amount = |name: &str| self.resources.get(name).map_or_else(String::new, |it| it.0.clone());
        let size = (amount("cpu"), amount("memory"));
        let mut capacity = Resources::from_list(&self.resources);
        if capacity.pods == 0 {
            capacity.pods = PODS;
        }
        let offering = |offering: ListedOffering| {
            let requirement = |selector: &NodeSelectorRequirement| {
                let operator = Operator::parse(&selector.operator).unwrap_or(Operator::DoesNotExist);
                Requirement::new(&selector.key, operator, selector.values.iter().flatten())
            };
            Offering {
                requirements: offering.requirements.iter().map(requirement).collect(),
                price: offering.price,
                available: offering.available,
                reservation: None,
            }
        };
        let offerings = self.offerings.into_iter().map(offering).collect();
        build(&self.name, &self.architecture, &self.operating_systems, &size, capacity, offerings)
    }
}

/// Karpenter's own 144, by name.
pub fn built_in() -> Vec<Arc<InstanceType>> {
    let mut types = Vec::new();
    for cores in CORES {
        for (family, gibibytes) in FAMILIES {
            for system in SYSTEMS {
                types.extend(
                    ARCHITECTURES.map(|arch| Arc::new(generate(family, cores, gibibytes, system, arch))),
                );
            }
        }
    }
    types.sort_by(|left, right| left.name.cmp(&right.name));
    types
}

fn generate(family: &str, cores: i64, gibibytes: i64, system: &str, architecture: &str) -> InstanceType {
    let memory = (cores * gibibytes) << 30;
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let price = PRICE_OF_CORE * cores as f64 + PRICE_OF_GIGABYTE * (memory as f64 / 1e9);
    let offering = |zone: &str, (capacity_type, share): (&str, f64)| Offering {
        requirements: [Requirement::is(ZONE, zone), Requirement::is(CAPACITY_TYPE, capacity_type)]
            .into_iter()
            .collect(),
        price: price * share,
        available: true,
        reservation: None,
    };
    let terms = [(SPOT, SPOT_SHARE), (ON_DEMAND, 1.0)];
    let offerings = ZONES
        .into_iter()
        .flat_map(|zone| terms.into_iter().map(move |terms| offering(zone, terms)))
        .collect();
    let capacity = Resources {
        cpu: cores * 1000,
        memory,
        storage: STORAGE,
        pods: (cores * PODS_OF_CORE).min(MOST_PODS),
        ..Resources::default()
    };
    let name = format!("{family}-{cores}x-{architecture}-{system}");
    let size = (cores.to_string(), format!("{}Gi", cores * gibibytes));
    build(&name, architecture, &[system.to_owned()], &size, capacity, offerings)
}

fn build(
    name: &str,
    architecture: &str,
    systems: &[String],
    (cpu, memory): &(String, String),
    capacity: Resources,
    offerings: Vec<Offering>,
) -> InstanceType {
    let every = |key: &str, of: fn(&Offering) -> Option<&str>| {
        Requirement::new(key, Operator::In, offerings.iter().filter_map(of))
    };
    let requirements = [
        Requirement::is(INSTANCE_TYPE, name),
        Requirement::is(ARCH, architecture),
        Requirement::new(OS, Operator::In, systems),
        every(ZONE, Offering::zone),
        every(CAPACITY_TYPE, Offering::capacity_type),
        Requirement::is(SIZE, size_of(name).unwrap_or(cpu)),
        Requirement::is(FAMILY, family_of(name)),
        Requirement::is(CPU, cpu),
        Requirement::is(MEMORY, memory),
    ];
    let overhead = Resources { cpu: OVERHEAD.0, memory: OVERHEAD.1, ..Resources::default() };
    let requirements = requirements.into_iter().collect::<Requirements>();
    InstanceType::new(name, requirements, capacity, overhead, offerings)
}

/// The part of an AWS name behind the point.
fn size_of(name: &str) -> Option<&str> {
    let (family, size) = name.split_once('.')?;
    let is_family = family.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    let is_size = matches!(size, "nano" | "micro" | "small" | "medium" | "large" | "metal")
        || size.strip_suffix("xlarge").is_some_and(|times| times.chars().all(|digit| digit.is_ascii_digit()));
    (is_family && !family.is_empty() && is_size).then_some(size)
}

/// What stands before the first point or dash, else the first letter.
fn family_of(name: &str) -> &str {
    let first = name.chars().next().map_or(0, char::len_utf8);
    name.split_once(['.', '-']).map_or(&name[..first], |(family, _)| family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_ones_are_karpenters() {
        let types = built_in();
        assert_eq!(types.len(), 144);
        assert!(types.iter().all(|instance_type| instance_type.offerings.len() == 8));
        let smallest = types.iter().find(|it| &*it.name == "c-1x-amd64-linux").unwrap();
        let on_demand = smallest.offerings.iter().find(|it| it.capacity_type() == Some(ON_DEMAND)).unwrap();
        assert!((on_demand.price - 0.027_147_483_648).abs() < 1e-15);
        assert_eq!((smallest.allocatable().cpu, smallest.allocatable().pods), (900, 16));
        let sixteen = types.iter().find(|it| &*it.name == "m-256x-arm64-windows").unwrap();
        assert_eq!(sixteen.capacity.pods, 1024);
    }

    #[test]
    fn a_file_is_read() {
        let text = r#"[{"name": "m5.xlarge", "architecture": "amd64", "operatingSystems": ["linux"],
            "offerings": [{"Price": 0.2, "Available": true, "Requirements": [
                {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["z"]}]}],
            "resources": {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "20Gi"}}]"#;
        let types = read(text).unwrap();
        let only = &types[0];
        assert_eq!((only.capacity.cpu, only.capacity.pods), (4000, 110));
        let value = |key: &str| only.requirements.get(key).and_then(Requirement::any).unwrap();
        assert_eq!(
            (value(SIZE), value(FAMILY), value(MEMORY)),
            ("xlarge".into(), "m5".into(), "16Gi".into())
        );
        assert_eq!(only.offerings[0].zone(), Some("z"));
        assert!(read("{}").is_err());
    }

    #[test]
    fn sizes_and_families_are_read_off_names() {
        for (name, size, family) in [
            ("m5.2xlarge", Some("2xlarge"), "m5"),
            ("n2-standard-8", None, "n2"),
            ("Standard_D4", None, "S"),
            ("c-4x-amd64-linux", None, "c"),
        ] {
            assert_eq!((size_of(name), family_of(name)), (size, family), "{name}");
        }
    }
}
