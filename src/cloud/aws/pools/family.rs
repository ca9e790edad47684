//! Families of images: where EKS publishes them, which disks they want, and what their kubelet can be told.
//!
//! Source: karpenter-provider-aws, `pkg/providers/amifamily`.

use tandem_core::{
    api::karpenter::{BlockDevice, BlockDeviceMapping, EC2NodeClassSpec},
    nodes::pools::requirements::{
        Operator, Requirement, Requirements,
        labels::{ARCH, OS, WINDOWS_BUILD},
    },
};

use super::labels::{ACCELERATOR_COUNT, GPU_COUNT};

/// Disks of nodes that do not say: `gp3`.
const VOLUME_TYPE: &str = "gp3";

/// A family of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Amazon Linux 2.
    Al2,
    /// Amazon Linux 2023.
    Al2023,
    /// Bottlerocket.
    Bottlerocket,
    /// Windows Server of this year.
    Windows(u16),
    /// Images of the user's own, who says all of the user data.
    Custom,
}

/// An image that EKS publishes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Published {
    /// The parameter of Systems Manager that holds its id.
    pub(super) parameter: String,
    /// Machines that it is for.
    pub(super) variant: Variant,
}

/// Machines that an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variant {
    /// Any with neither of the others' devices.
    Standard,
    /// Those with GPUs.
    Nvidia,
    /// Those with AWS' own chips.
    Neuron,
    /// Any of the architecture.
    Any,
}

impl Variant {
    /// What the labels of machines have to be that it is for.
    pub(super) fn requirements(self) -> Requirements {
        let none = |key| Requirement::new(key, Operator::DoesNotExist, Vec::<&str>::new());
        match self {
            Self::Standard => [none(GPU_COUNT), none(ACCELERATOR_COUNT)].into_iter().collect(),
            Self::Nvidia => [Requirement::exists(GPU_COUNT)].into_iter().collect(),
            Self::Neuron => [Requirement::exists(ACCELERATOR_COUNT)].into_iter().collect(),
            Self::Any => Requirements::new(),
        }
    }
}

impl Family {
    /// The family of a class: what it says, or what its alias is of.
    pub(super) fn of(spec: &EC2NodeClassSpec) -> Self {
        let alias = spec.ami_selector_terms.iter().find_map(|term| term.alias.as_deref());
        let named = spec.ami_family.as_deref().or_else(|| alias?.split('@').next());
        match named.unwrap_or_default().to_ascii_lowercase().as_str() {
            "al2" => Self::Al2,
            "al2023" => Self::Al2023,
            "bottlerocket" => Self::Bottlerocket,
            name => name
                .strip_prefix("windows")
                .map_or(Self::Custom, |year| year.parse().map_or(Self::Custom, Self::Windows)),
        }
    }

    /// Whether it is Windows.
    pub(super) fn is_windows(self) -> bool {
        matches!(self, Self::Windows(_))
    }

    /// What the labels of its nodes are because of it.
    pub(super) fn requirements(self) -> Vec<Requirement> {
        match self {
            Self::Windows(year) => {
                let build = match year {
                    2019 => "10.0.17763",
                    2022 => "10.0.20348",
                    _ => "10.0.26100",
                };
                vec![Requirement::is(OS, "windows"), Requirement::is(WINDOWS_BUILD, build)]
            }
            _ => vec![Requirement::is(OS, "linux")],
        }
    }

    /// Whether the memory that its kubelet keeps follows from the addresses of the machine, not from its pods.
    pub(super) fn reserves_by_addresses(self) -> bool {
        matches!(self, Self::Al2 | Self::Al2023 | Self::Custom)
    }

    /// Whether there are as many pods as addresses, unless the class says otherwise.
    pub(super) fn pods_by_addresses(self) -> bool {
        !self.is_windows()
    }

    /// Whether its kubelet can be told a number of pods by core.
    pub(super) fn knows_pods_per_core(self) -> bool {
        self != Self::Bottlerocket
    }

    /// The device on which pods' files are.
    pub(super) fn root_device(self) -> Option<&'static str> {
        match self {
            Self::Al2 | Self::Al2023 => Some("/dev/xvda"),
            Self::Bottlerocket => Some("/dev/xvdb"),
            Self::Windows(_) => Some("/dev/sda1"),
            Self::Custom => None,
        }
    }

    /// Disks of nodes whose class names none.
    pub(super) fn disks(self) -> Vec<BlockDeviceMapping> {
        let disk = |device: &str, size: &str| BlockDeviceMapping {
            device_name: Some(device.to_owned()),
            ebs: Some(BlockDevice {
                encrypted: Some(true),
                delete_on_termination: Some(true),
                volume_type: Some(VOLUME_TYPE.to_owned()),
                volume_size: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(size.to_owned())),
                ..BlockDevice::default()
            }),
            root_volume: None,
        };
        match self {
            Self::Al2 | Self::Al2023 => vec![disk("/dev/xvda", "20Gi")],
            Self::Bottlerocket => vec![disk("/dev/xvda", "4Gi"), disk("/dev/xvdb", "20Gi")],
            Self::Windows(_) => vec![disk("/dev/sda1", "50Gi")],
            Self::Custom => Vec::new(),
        }
    }

    /// Images that EKS publishes of it, in this version or `latest`, for clusters of this version of Kubernetes.
    pub(super) fn published(self, version: &str, kubernetes: &str) -> Vec<Published> {
        let image = |parameter: String, variant| Published { parameter, variant };
        let eks = format!("/aws/service/eks/optimized-ami/{kubernetes}");
        match self {
            Self::Al2 => [
                ("", "", Variant::Standard),
                ("-gpu", "-gpu", Variant::Nvidia),
                ("-gpu", "-gpu", Variant::Neuron),
                ("-arm64", "-arm64", Variant::Standard),
            ]
            .map(|(path, name, variant)| {
                let build = match version {
                    "latest" => "recommended".to_owned(),
                    build => format!("amazon-eks{name}-node-{kubernetes}-{build}"),
                };
                image(format!("{eks}/amazon-linux-2{path}/{build}/image_id"), variant)
            })
            .into(),
            Self::Al2023 => [
                ("x86_64", "standard", Variant::Standard),
                ("x86_64", "nvidia", Variant::Nvidia),
                ("x86_64", "neuron", Variant::Neuron),
                ("arm64", "standard", Variant::Standard),
                ("arm64", "nvidia", Variant::Nvidia),
            ]
            .map(|(architecture, kind, variant)| {
                let build = match version {
                    "latest" => "recommended".to_owned(),
                    build => format!("amazon-eks-node-al2023-{architecture}-{kind}-{kubernetes}-{build}"),
                };
                image(format!("{eks}/amazon-linux-2023/{architecture}/{kind}/{build}/image_id"), variant)
            })
            .into(),
            Self::Bottlerocket => [
                ("", "x86_64", Variant::Standard),
                ("-nvidia", "x86_64", Variant::Nvidia),
                ("", "arm64", Variant::Standard),
                ("-nvidia", "arm64", Variant::Nvidia),
            ]
            .map(|(kind, architecture, variant)| {
                let build = version.strip_prefix('v').unwrap_or(version);
                let family = format!("/aws/service/bottlerocket/aws-k8s-{kubernetes}{kind}");
                image(format!("{family}/{architecture}/{build}/image_id"), variant)
            })
            .into(),
            Self::Windows(year) => {
                let name = format!("Windows_Server-{year}-English-Core-EKS_Optimized-{kubernetes}");
                vec![image(format!("/aws/service/ami-windows-latest/{name}/image_id"), Variant::Any)]
            }
            Self::Custom => Vec::new(),
        }
    }
}

/// The architecture of an image as a requirement of machines.
pub(super) fn architecture(of_image: &str) -> Requirement {
    Requirement::is(ARCH, if of_image == "arm64" { "arm64" } else { "amd64" })
}

#[cfg(test)]
mod tests {
    use tandem_core::api::karpenter::AmiSelectorTerm;

    use super::*;

    #[test]
    fn a_family_is_named_or_that_of_the_alias() {
        let spec = |family: Option<&str>, alias: Option<&str>| EC2NodeClassSpec {
            ami_family: family.map(str::to_owned),
            ami_selector_terms: vec![AmiSelectorTerm {
                alias: alias.map(str::to_owned),
                ..AmiSelectorTerm::default()
            }],
            ..EC2NodeClassSpec::default()
        };
        for (family, alias, wanted) in [
            (Some("AL2"), None, Family::Al2),
            (None, Some("al2023@v20250101"), Family::Al2023),
            (Some("Custom"), Some("al2023@latest"), Family::Custom),
            (None, Some("bottlerocket@latest"), Family::Bottlerocket),
            (Some("Windows2022"), None, Family::Windows(2022)),
            (None, None, Family::Custom),
        ] {
            assert_eq!(Family::of(&spec(family, alias)), wanted, "{family:?} {alias:?}");
        }
    }

    #[test]
    fn images_are_where_eks_publishes_them() {
        let first = |family: Family, version| family.published(version, "1.33")[0].parameter.clone();
        for (family, version, wanted) in [
            (
                Family::Al2,
                "latest",
                "/aws/service/eks/optimized-ami/1.33/amazon-linux-2/recommended/image_id",
            ),
            (
                Family::Al2023,
                "latest",
                "/aws/service/eks/optimized-ami/1.33/amazon-linux-2023/x86_64/standard/recommended/image_id",
            ),
            (
                Family::Al2023,
                "v20250403",
                "/aws/service/eks/optimized-ami/1.33/amazon-linux-2023/x86_64/standard/amazon-eks-node-al2023-x86_64-standard-1.33-v20250403/image_id",
            ),
            (
                Family::Bottlerocket,
                "v1.10.1",
                "/aws/service/bottlerocket/aws-k8s-1.33/x86_64/1.10.1/image_id",
            ),
            (
                Family::Windows(2022),
                "latest",
                "/aws/service/ami-windows-latest/Windows_Server-2022-English-Core-EKS_Optimized-1.33/image_id",
            ),
        ] {
            assert_eq!(first(family, version), wanted);
        }
        assert_eq!(Family::Custom.published("latest", "1.33"), []);
    }
}
