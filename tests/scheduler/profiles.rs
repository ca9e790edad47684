//! Schedulers that are configured otherwise, several in one process: each world's pods are of one of them, and of the one that
//! is not.

use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, StatefulSet},
        core::v1::{Pod, PodSpec, ReplicationController, Service},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kube::{Api, Resource, ResourceExt, api::PostParams, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tandem::cluster::world::World;
use tandem_core::scheduling::profile::Configuration;

use crate::{
    Judge,
    generate::{HOST, NAMESPACES, Worlds, ZONE},
};

/// Keeps pods as the worlds have them: nobody makes more of them, takes them away, or evicts them.
pub(crate) const CONTROLLER_FLAGS: &[&str] = &["--controllers=*,-replicaset-controller,\
       -replicationcontroller-controller,-statefulset-controller,-taint-eviction-controller"];

/// Filters of which each is left out by one scheduler.
const FILTERS: [&str; 11] = [
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeBinding",
    "PodTopologySpread",
    "InterPodAffinity",
    "NodeDeclaredFeatures",
];

/// What configurations do, each of which has to decide about pods.
const WAYS: [&str; 5] = ["spread", "added", "ignored", "bare", "all"];

/// The name of the owners, one of each kind in each namespace.
const OWNER: &str = "web";

fn document(profiles: &Value) -> Value {
    let (version, kind) = ("kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration");
    json!({"apiVersion": version, "kind": kind, "profiles": profiles})
}

fn profiles() -> Vec<Value> {
    let rule = |key: &str, when: &str| json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when});
    let mut rules = json!([rule(ZONE, "DoNotSchedule"), rule(HOST, "ScheduleAnyway")]);
    rules[0]["minDomains"] = json!(3);
    let spread =
        json!({"name": "PodTopologySpread", "args": {"defaultingType": "List", "defaultConstraints": rules}});
    let one = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    let terms = [one(ZONE, "In", &["z1", "z2"]), one("size", "Gt", &["2"])];
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    let added = json!({"name": "NodeAffinity", "args": {"addedAffinity": required}});
    let fit = |key: &str, value: &str| json!({"name": "NodeResourcesFit", "args": {key: [value]}});
    let enabled = ["PrioritySort", "SchedulingGates", "DefaultBinder", "NodeAffinity", "NodeResourcesFit"];
    let enabled = enabled.map(|name| json!({"name": name}));
    let any = [json!({"name": "*"})];
    let bare = json!({"multiPoint": {"disabled": any, "enabled": enabled}});
    let without = |name: &str| json!({"filter": {"disabled": [{"name": name}]}});
    let mut profiles = vec![
        json!({"schedulerName": "spread", "pluginConfig": [spread]}),
        json!({"schedulerName": "added", "pluginConfig": [added]}),
        json!({"schedulerName": "ignored", "pluginConfig": [fit("ignoredResources", "example.com/device")]}),
        json!({"schedulerName": "bare", "plugins": bare}),
        json!({
            "schedulerName": "all", "plugins": without("TaintToleration"),
            "pluginConfig": [spread, added, fit("ignoredResourceGroups", "example.com")],
        }),
    ];
    profiles.extend(FILTERS.iter().map(|name| {
        let plugins = json!({"multiPoint": {"disabled": [{"name": name}]}});
        json!({"schedulerName": format!("without-{}", name.to_lowercase()), "plugins": plugins})
    }));
    profiles
}

/// What the scheduler has; pods that name none of these are another's.
pub(crate) fn configuration() -> &'static str {
    static ALL: LazyLock<String> = LazyLock::new(|| {
        let own = json!({"schedulerName": "default-scheduler"});
        document(&profiles().into_iter().chain([own]).collect()).to_string()
    });
    &ALL
}

/// How often a configuration changed what becomes of a pod, by way.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    counts: [u32; WAYS.len()],
    /// Of any single filter that is left out.
    without: u32,
    scheduler: String,
    owners: Vec<(String, OwnerReference)>,
}

impl Ways {
    /// Makes the objects by which pods know their like, in every namespace.
    pub(crate) async fn prepare(judge: &mut Judge) -> Result<Self> {
        let mut owners = Vec::new();
        for (namespace, _) in NAMESPACES {
            let service = |name: &str, selector: Value| {
                let spec = json!({"clusterIP": "None", "selector": selector, "ports": [{"port": 80}]});
                judge.make::<Service>(namespace, json!({"metadata": {"name": name}, "spec": spec}))
            };
            service("none", json!(null)).await?;
            if namespace != "team-y" {
                service("a", json!({"app": "a"})).await?;
            }
            if namespace == "team-x" {
                service("one", json!({"version": "1"})).await?;
                service("b-two", json!({"app": "b", "version": "2"})).await?;
            }
            let template = |labels: &Value| json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "app"}]}});
            let (a, b, one) =
                (json!({"app": "a", "version": "1"}), json!({"app": "b"}), json!({"version": "1"}));
            let exists = json!([{"key": "version", "operator": "Exists"}]);
            let set = json!({"metadata": {"name": OWNER}, "spec": {"replicas": 3, "template": template(&a),
                "selector": {"matchLabels": {"app": "a"}, "matchExpressions": exists}}});
            owners.push((namespace.to_owned(), judge.make::<ReplicaSet>(namespace, set).await?));
            let set = json!({"metadata": {"name": OWNER}, "spec": {"replicas": 3, "serviceName": "none",
                "template": template(&b), "selector": {"matchLabels": b}}});
            owners.push((namespace.to_owned(), judge.make::<StatefulSet>(namespace, set).await?));
            let controller = json!({"metadata": {"name": OWNER},
                "spec": {"replicas": 3, "template": template(&one), "selector": one}});
            owners.push((
                namespace.to_owned(),
                judge.make::<ReplicationController>(namespace, controller).await?,
            ));
        }
        judge.configure(&profiles()[0])?;
        let world = World::start(&judge.client, judge.surroundings.profile.clone());
        world.synced().await;
        judge.surroundings.workloads = world.surroundings().workloads;
        ensure!(judge.surroundings.workloads.controllers.len() == owners.len(), "not all owners are seen");
        Ok(Self { owners, ..Self::default() })
    }

    /// Takes the next scheduler: by turns one of some way, and one without a filter.
    pub(crate) fn next(&mut self, judge: &mut Judge, seed: u64) -> Result<()> {
        let (profiles, turn) = (profiles(), usize::try_from(seed / 2)?);
        let of_way = seed.is_multiple_of(2);
        let at = if of_way { turn % WAYS.len() } else { WAYS.len() + turn % FILTERS.len() };
        profiles[at]["schedulerName"].as_str().context("a name")?.clone_into(&mut self.scheduler);
        judge.configure(&profiles[at])
    }

    /// Makes a pod one of the scheduler's, and perhaps of a controller. Most have few rules of their own, so that those of the
    /// configuration decide.
    pub(crate) fn dress(&self, draws: &mut Worlds, pod: &mut Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        let spec = pod.spec.get_or_insert_default();
        if draws.0.percent(85) {
            spec.scheduler_name = Some(self.scheduler.clone());
        }
        if draws.0.percent(70) {
            strip(spec);
            let device = draws.0.percent(25);
            if let Some(container) = spec.containers.first_mut().filter(|_| device) {
                let one = || Some([("example.com/device".to_owned(), Quantity("1".to_owned()))].into());
                let resources = container.resources.get_or_insert_default();
                (resources.requests, resources.limits) = (one(), one());
            }
        }
        let own: Vec<_> = self.owners.iter().filter(|(of, _)| *of == namespace).collect();
        if draws.0.percent(40) {
            let (_, owner) = draws.0.one(&own);
            pod.metadata.owner_references = Some(vec![owner.clone()]);
        }
    }

    /// Notes whether the configuration decided about a pod.
    pub(crate) fn note(&mut self, decided: bool) {
        match WAYS.iter().position(|way| *way == self.scheduler) {
            Some(way) => self.counts[way] += u32::from(decided),
            None => self.without += u32::from(decided),
        }
    }

    pub(crate) fn report(&self) -> Result<()> {
        let Self { counts, without, .. } = self;
        eprintln!("decided by {WAYS:?}: {counts:?}, by single filters: {without}");
        ensure!(counts.iter().all(|count| *count > 0) && *without > 0, "these worlds leave some way out");
        Ok(())
    }
}

/// Leaves a pod little but its labels, ports and tolerations.
fn strip(spec: &mut PodSpec) {
    (spec.affinity, spec.node_selector, spec.topology_spread_constraints) = (None, None, None);
    (spec.volumes, spec.scheduling_gates, spec.resources) = (None, None, None);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        (container.resources, container.volume_mounts) = (None, None);
    }
}

impl Judge {
    /// Judges by a profile from now on.
    fn configure(&mut self, profile: &Value) -> Result<()> {
        let read = Configuration::read(&document(&json!([profile])).to_string())?;
        self.surroundings.profile = Some(Arc::new(read.profile));
        Ok(())
    }

    /// Makes an object, and refers to it as the controller of a pod.
    async fn make<K>(&self, namespace: &str, object: Value) -> Result<OwnerReference>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let made = api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        made.controller_owner_ref(&()).context("an object that was made has a uid")
    }
}
