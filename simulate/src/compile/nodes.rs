//! Node groups, node pools, DaemonSets and disruption budgets: what pods run on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet, core::v1::Taint, policy::v1::PodDisruptionBudget, scheduling::v1::PriorityClass,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use serde::Deserialize;
use tandem_core::{
    api::karpenter::{AWSNodeTemplate, NodeOverlay, NodePool, NodePoolSpec, Provisioner},
    nodes::{
        drain::Budget,
        group::{GroupOptions, NodeGroup, Template},
        pools::{
            catalogue,
            cluster::Pool,
            overlay::{Offers, evaluate},
            provisioner::{Lost, translate},
            requirements::WellKnownLabels,
        },
        template,
        told::Told,
    },
    scheduling::{HOSTNAME, Node, Pod, Resources, Surroundings},
};

use super::{Compiler, workload};
use crate::{
    engine::Interruptions,
    input::{GROUP, Manifest, duration},
    problem::Problem,
};

/// Pods that a node takes when its group does not say: the kubelet's default.
const PODS: i64 = 110;

/// `spec` of a manifest `kind: NodeGroup`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeGroupSpec {
    #[serde(default)]
    min: u32,
    max: u32,
    /// Nodes at the start; the minimum by default.
    size: Option<u32>,
    /// Dollars.
    price_per_hour: Option<f64>,
    /// From the request of a node to its readiness.
    node_start: Option<String>,
    template: NodeTemplate,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeTemplate {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    taints: Vec<Taint>,
    allocatable: BTreeMap<String, Quantity>,
}

/// A group of nodes.
pub(crate) struct Group {
    /// As its provider would tell of it, without instances.
    pub offer: NodeGroup,
    /// What a new node of it looks like.
    pub template: Template,
    /// Nodes at the start.
    pub size: u32,
    pub price: Option<f64>,
    /// Seconds from the request of a node to its readiness.
    pub starts_in: u32,
}

/// A PodDisruptionBudget, which a controller would keep counted.
pub(crate) struct Disruption {
    /// Nothing allowed as yet.
    pub budget: Budget,
    /// How many of so many pods must stay.
    limit: Limit,
}

enum Limit {
    Available(IntOrString),
    Unavailable(IntOrString),
}

impl Disruption {
    /// Evictions that it allows, of pods that are wanted and that are ready
    /// (Kubernetes, `pkg/controller/disruption/disruption.go`: percentages are rounded up).
    pub(crate) fn allowed(&self, wanted: u32, ready: u32) -> i32 {
        let stay = match &self.limit {
            Limit::Available(amount) => of(amount, wanted),
            Limit::Unavailable(amount) => i64::from(wanted) - of(amount, wanted),
        };
        i32::try_from((i64::from(ready) - stay).max(0)).unwrap_or(i32::MAX)
    }
}

/// Labels that nodes of the pretended instance types have.
fn well_known() -> WellKnownLabels {
    WellKnownLabels::default().with(catalogue::LABELS)
}

/// A number, or a percentage of the whole rounded up.
fn of(amount: &IntOrString, whole: u32) -> i64 {
    match amount {
        IntOrString::Int(count) => i64::from(*count),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            (i64::from(whole) * percent + 99) / 100
        }
    }
}

/// What pods run on.
#[derive(Default)]
pub(crate) struct Nodes {
    /// In order of name.
    pub groups: Vec<Group>,
    /// In order of name.
    pub pools: Vec<Pool>,
    /// Labels that a node of a pool will have although nobody asks for them.
    pub well_known: WellKnownLabels,
    pub daemon_sets: Vec<Arc<Pod>>,
    pub disruptions: Vec<Disruption>,
    /// How often spot capacity is taken back, if ever.
    pub interruptions: Option<Interruptions>,
    /// Dollars an hour by instance type, over those of the types.
    pub prices: BTreeMap<String, f64>,
    /// Time from the request of a node to its readiness, and that by instance type.
    start: u32,
    starts: BTreeMap<String, u32>,
}

impl Nodes {
    /// Whether anything is known of nodes.
    pub(crate) fn matter(&self) -> bool {
        !self.groups.is_empty() || !self.pools.is_empty()
    }

    /// Time from the request of a node of an instance type to its readiness.
    pub(crate) fn starts_in(&self, instance_type: &str) -> Duration {
        let seconds = self.starts.get(instance_type).copied().unwrap_or(self.start);
        Duration::from_secs(seconds.into())
    }
}

impl Compiler<'_> {
    /// The priorities of pods that name a class.
    pub(super) fn priorities(&mut self) -> BTreeMap<String, i32> {
        let mut priorities = BTreeMap::from([
            ("system-cluster-critical".to_owned(), 2_000_000_000),
            ("system-node-critical".to_owned(), 2_000_001_000),
        ]);
        for manifest in self.of_kind("PriorityClass") {
            if let Some(class) = self.typed::<PriorityClass>(manifest) {
                priorities.insert(manifest.name().to_owned(), class.value.unwrap_or_default());
            }
        }
        priorities
    }

    pub(super) fn nodes(&mut self) -> Nodes {
        let mut nodes = Nodes {
            prices: self.options.prices.clone(),
            start: self.options.node_start,
            starts: self.options.node_starts.clone(),
            well_known: well_known(),
            pools: self.pools(),
            interruptions: (self.options.spot_interruptions_per_day > 0.0).then_some(Interruptions {
                per_day: self.options.spot_interruptions_per_day,
                seed: self.options.seed,
            }),
            ..Nodes::default()
        };
        for manifest in self.of_kind("DaemonSet") {
            if let Some(object) = self.typed::<DaemonSet>(manifest) {
                let pod = workload::pod(manifest, "DaemonSet", object.spec.template, &self.priorities);
                nodes.daemon_sets.push(Arc::new(Pod::read(&pod, Arc::new)));
            }
        }
        for manifest in self.of_kind("PodDisruptionBudget") {
            nodes.disruptions.extend(self.disruption(manifest));
        }
        for manifest in self.of_kind("NodeGroup").filter(|manifest| manifest.api_version().starts_with(GROUP))
        {
            match self.group(manifest, &nodes.daemon_sets) {
                Ok(group) => nodes.groups.push(group),
                Err(message) => self.problems.push(Problem::at(manifest.place("spec"), message)),
            }
        }
        nodes.groups.sort_by(|one, other| one.offer.id.cmp(&other.offer.id));
        nodes
    }

    /// Node pools, with the instance types that the input lists, else those that Karpenter's kwok provider pretends to have.
    fn pools(&mut self) -> Vec<Pool> {
        let mut types = None;
        for manifest in self.of_kind("InstanceTypes") {
            let listed = manifest.value.get("types").cloned().unwrap_or_default();
            match catalogue::read(&listed.to_string()) {
                Ok(listed) => types.get_or_insert_with(Vec::new).extend(listed),
                Err(error) => {
                    self.problems.push(Problem::at(manifest.place("types"), error.to_string()));
                }
            }
        }
        let types = types.unwrap_or_else(catalogue::built_in);
        let mut pools = Vec::new();
        for manifest in self.of_kind("NodePool") {
            let Some(pool) = self.typed::<NodePool>(manifest) else { continue };
            let (name, spec) = (manifest.name().into(), pool.spec);
            pools.push(Pool { name, spec, types: types.clone(), is_usable: true, told: Told::default() });
        }
        for manifest in self.of_kind("Provisioner") {
            let name = manifest.name();
            // As in a cluster: a NodePool of the same name stands above it.
            if !pools.iter().any(|pool| *pool.name == *name)
                && let Some(spec) = self.provisioner(manifest)
            {
                pools.push(Pool {
                    name: name.into(),
                    spec,
                    types: types.clone(),
                    is_usable: true,
                    told: Told::default(),
                });
            }
        }
        pools.sort_by(|one, other| one.name.cmp(&other.name));
        self.overlay(&mut pools);
        pools
    }

    /// Gives pools their instance types as NodeOverlays have them.
    fn overlay(&mut self, pools: &mut [Pool]) {
        let manifests: Vec<_> = self.of_kind("NodeOverlay").collect();
        let overlays: Vec<_> =
            manifests.iter().filter_map(|it| self.typed::<NodeOverlay>(it)).map(Arc::new).collect();
        if overlays.is_empty() {
            return;
        }
        let offers: Vec<_> = pools
            .iter()
            .map(|pool| Offers { pool: &pool.name, spec: &pool.spec, types: &pool.types })
            .collect();
        let mut evaluation = evaluate(&overlays, &offers, &well_known());
        for manifest in manifests {
            if let Some(problem) = evaluation.problems.get(manifest.name()) {
                self.problems.push(Problem::at(manifest.place("spec"), problem.to_string()));
            }
        }
        for pool in pools {
            if let Some(types) = evaluation.types.remove(&*pool.name) {
                pool.types = types.to_vec();
            }
        }
    }

    /// A Provisioner as the NodePool that followed it.
    fn provisioner(&mut self, manifest: &Manifest) -> Option<NodePoolSpec> {
        let object = self.typed::<Provisioner>(manifest)?;
        let template = |name: &str| {
            let templates = self.of_kind("AWSNodeTemplate");
            let found = templates.filter(|template| template.name() == name).last()?;
            AWSNodeTemplate::deserialize(&*found.value).ok()
        };
        match translate(&object, template) {
            Ok(mut translation) => {
                // The instance types are listed, not EC2's.
                translation.without_labels_of_class();
                let lost = translation.lost.iter().filter(|lost| !matches!(lost, Lost::InstanceProfile));
                self.notes.extend(lost.map(|lost| format!("Provisioner {}: {lost}", manifest.name())));
                Some(translation.pool.spec)
            }
            Err(error) => {
                self.problems.push(Problem::at(manifest.place("spec"), error.to_string()));
                None
            }
        }
    }

    fn disruption(&mut self, manifest: &Manifest) -> Option<Disruption> {
        let mut object = self.typed::<PodDisruptionBudget>(manifest)?;
        object.metadata.namespace = Some(manifest.namespace().to_owned());
        let spec = object.spec.clone().unwrap_or_default();
        let limit = match (spec.min_available, spec.max_unavailable) {
            (Some(available), _) => Limit::Available(available),
            (None, Some(unavailable)) => Limit::Unavailable(unavailable),
            (None, None) => Limit::Available(IntOrString::Int(1)),
        };
        Some(Disruption { budget: Budget::read(&object), limit })
    }

    fn group(&self, manifest: &Manifest, daemon_sets: &[Arc<Pod>]) -> Result<Group, String> {
        let spec = manifest.value.get("spec").cloned().unwrap_or_default();
        let spec: NodeGroupSpec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
        let (name, size) = (manifest.name(), spec.size.unwrap_or(spec.min));
        if !(spec.min..=spec.max).contains(&size) {
            return Err(format!("size {size} is not between min {} and max {}", spec.min, spec.max));
        }
        let mut allocatable = Resources::from_list(&spec.template.allocatable);
        if allocatable.cpu <= 0 || allocatable.memory <= 0 {
            return Err("template.allocatable needs cpu and memory above zero".to_owned());
        }
        if allocatable.pods == 0 {
            allocatable.pods = PODS;
        }
        let mut labels = spec.template.labels;
        labels.entry(HOSTNAME.to_owned()).or_insert_with(|| name.to_owned());
        let node = Node {
            name: name.into(),
            labels,
            taints: spec.template.taints,
            capacity: allocatable.clone(),
            allocatable,
            ready: true,
            ..Node::default()
        };
        let starts_in = match (self.options.node_starts.get(name), &spec.node_start) {
            (Some(seconds), _) => *seconds,
            (None, Some(text)) => duration(text)?,
            (None, None) => self.options.node_start,
        };
        Ok(Group {
            offer: NodeGroup {
                id: name.into(),
                min: spec.min,
                max: spec.max,
                target: size,
                instances: Vec::new(),
                options: GroupOptions::default(),
            },
            template: template::with_daemon_pods(
                node,
                Vec::new(),
                daemon_sets,
                false,
                &Surroundings::default(),
            ),
            size,
            price: self.options.prices.get(name).copied().or(spec.price_per_hour),
            starts_in,
        })
    }
}
