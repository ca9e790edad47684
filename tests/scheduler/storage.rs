//! The storage of a world: classes, claims, volumes, what drivers say of nodes and of the room that they have, and somebody
//! who makes volumes.

use std::{fmt::Debug, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use harness::wait;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tandem_core::scheduling::{
    Node as CoreNode, Surroundings,
    surroundings::{Capacity, Claim, Driver, StorageClass as CoreClass, Volume},
};
use tokio::task::JoinSet;

use crate::generate::{HOST, Worlds, ZONE};

/// Claims of a namespace that pods use; one more has none.
pub(crate) const CLAIMS: u64 = 7;
/// Namespaces with claims.
const NAMESPACES: [&str; 2] = ["default", "team-x"];
/// For what takes a second on an idle machine; this one may be busy.
const SOON: Duration = Duration::from_mins(1);
/// Between two looks at claims that wait for a volume.
const LOOK: Duration = Duration::from_millis(50);
/// Where the scheduler writes down for which node a claim's volume is to be made.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// A driver that says how much room it has, one that does not, and one without which a node takes none of its pods.
const DRIVERS: [&str; 3] = ["counted.example.com", "plain.example.com", "strict.example.com"];
/// Storage classes, their drivers, and the zones that they are confined to.
const CLASSES: [(&str, &str, &[&str]); 5] = [
    ("counted", DRIVERS[0], &[]),
    ("counted-in-zones", DRIVERS[0], &["z1", "z2"]),
    ("plain", DRIVERS[1], &[]),
    ("plain-in-zone", DRIVERS[1], &["z2"]),
    ("strict", DRIVERS[2], &[]),
];

/// The name of a claim.
pub(crate) fn claim(number: u64) -> String {
    format!("claim-{number}")
}

/// What was drawn for a world.
#[derive(Clone, Default)]
pub(crate) struct Storage {
    claims: Vec<PersistentVolumeClaim>,
    volumes: Vec<PersistentVolume>,
    capacities: Vec<CSIStorageCapacity>,
    nodes: Vec<CSINode>,
}

impl Worlds {
    /// Storage for nodes that were drawn.
    pub(crate) fn storage(&mut self, prefix: &str, nodes: &[Node]) -> Result<Storage, serde_json::Error> {
        let mut storage = Storage::default();
        for node in nodes {
            if self.0.percent(85) {
                storage.nodes.push(serde_json::from_value(self.csi_node(&node.name_any()))?);
            }
        }
        for namespace in NAMESPACES {
            for number in 0..CLAIMS - 1 {
                storage.claims.push(serde_json::from_value(self.claim(namespace, &claim(number)))?);
            }
        }
        for number in 0..self.0.below(3) {
            let volume = self.volume(&format!("{prefix}-{number}"), nodes);
            storage.volumes.push(serde_json::from_value(volume)?);
        }
        for number in 0..self.0.below(6) {
            let capacity = self.capacity(&format!("{prefix}-{number}"), nodes);
            storage.capacities.push(serde_json::from_value(capacity)?);
        }
        Ok(storage)
    }

    fn csi_node(&mut self, name: &str) -> Value {
        let mut drivers = Vec::new();
        for driver in DRIVERS {
            if self.0.percent(60) {
                let count = self.0.one(&[None, Some(1), Some(1), Some(2)]);
                let allocatable = count.map(|count| json!({"count": count}));
                drivers.push(json!({"name": driver, "nodeID": name, "allocatable": allocatable}));
            }
        }
        json!({"metadata": {"name": name}, "spec": {"drivers": drivers}})
    }

    fn claim(&mut self, namespace: &str, name: &str) -> Value {
        let (class, ..) = self.0.one(&CLASSES);
        let mode = if self.0.percent(15) { "ReadWriteOncePod" } else { "ReadWriteOnce" };
        json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "storageClassName": class, "accessModes": [mode],
                "resources": {"requests": {"storage": self.0.one(&["1Gi", "2Gi", "4Gi"])}},
            },
        })
    }

    /// A place: some nodes by their labels.
    fn place(&mut self, nodes: &[Node]) -> (&'static str, String) {
        if self.0.percent(60) {
            return (ZONE, self.0.one(&["z1", "z2", "z3"]).to_owned());
        }
        let names: Vec<_> = nodes.iter().map(ResourceExt::name_any).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        (HOST, self.0.one(&names).to_owned())
    }

    /// A volume that somebody made by hand.
    fn volume(&mut self, name: &str, nodes: &[Node]) -> Value {
        let (class, driver, _) = self.0.one(&CLASSES);
        let (size, mode) = (self.0.one(&["1Gi", "4Gi"]), self.0.one(&["ReadWriteOnce", "ReadWriteOncePod"]));
        let place = place_to_json(Some(self.place(nodes)));
        volume(name, (class, driver), size, &json!([mode]), &place, &Value::Null)
    }

    fn capacity(&mut self, name: &str, nodes: &[Node]) -> Value {
        let (key, value) = self.place(nodes);
        let topology = match self.0.below(8) {
            0 => Value::Null,
            1 => json!({}),
            2 => json!({"matchExpressions": [{"key": ZONE, "operator": "Exists"}]}),
            _ => json!({"matchLabels": {key: value}}),
        };
        let mut capacity = json!({
            "metadata": {"name": name, "namespace": "default"},
            "storageClassName": self.0.one(&["counted", "counted", "counted-in-zones"]),
            "nodeTopology": topology,
        });
        if self.0.percent(85) {
            capacity["capacity"] = json!(self.0.one(&["1Gi", "2Gi", "5Gi"]));
        }
        if self.0.percent(25) {
            capacity["maximumVolumeSize"] = json!(self.0.one(&["1Gi", "3Gi"]));
        }
        capacity
    }
}

fn place_to_json(place: Option<(&str, String)>) -> Value {
    let Some((key, value)) = place else { return Value::Null };
    let expression = json!({"key": key, "operator": "In", "values": [value]});
    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}})
}

fn volume(
    name: &str,
    (class, driver): (&str, &str),
    size: &str,
    modes: &Value,
    affinity: &Value,
    claim: &Value,
) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "storageClassName": class, "capacity": {"storage": size}, "accessModes": modes,
            "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": driver, "volumeHandle": name},
            "nodeAffinity": affinity, "claimRef": claim,
        },
    })
}

/// Makes the drivers and their classes. What is returned makes the volumes that the scheduler asks for until it is dropped.
pub(crate) async fn start(client: &Client) -> Result<JoinSet<()>> {
    for driver in DRIVERS {
        let spec = json!({
            "attachRequired": false, "storageCapacity": driver == DRIVERS[0],
            "preventPodSchedulingIfMissing": driver == DRIVERS[2],
        });
        let driver: CSIDriver = serde_json::from_value(json!({"metadata": {"name": driver}, "spec": spec}))?;
        create(&Api::all(client.clone()), &driver).await?;
    }
    for (class, driver, zones) in CLASSES {
        let topology = json!({"matchLabelExpressions": [{"key": ZONE, "values": zones}]});
        let topologies = if zones.is_empty() { json!([]) } else { json!([topology]) };
        let class: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": class}, "provisioner": driver, "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": topologies,
        }))?;
        create(&Api::all(client.clone()), &class).await?;
    }
    let (client, mut drivers) = (client.clone(), JoinSet::new());
    drivers.spawn(async move {
        loop {
            if let Err(error) = make_volumes(&client).await {
                eprintln!("volumes: {error:#}");
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    Ok(drivers)
}

async fn create<T>(api: &Api<T>, object: &T) -> Result<()>
where
    T: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    api.create(&PostParams::default(), object).await?;
    Ok(())
}

/// Does what drivers do: makes a volume for each claim that has a node.
async fn make_volumes(client: &Client) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let nodes: Api<Node> = Api::all(client.clone());
    for claim in claims.list(&ListParams::default()).await? {
        let spec = claim.spec.clone().unwrap_or_default();
        let Some(node) = claim.annotations().get(SELECTED_NODE).filter(|_| spec.volume_name.is_none()) else {
            continue;
        };
        let class = spec.storage_class_name.unwrap_or_default();
        let driver = CLASSES.iter().find(|(name, ..)| *name == class).context("class")?.1;
        let zone = nodes.get_opt(node).await?.and_then(|node| node.labels().get(ZONE).cloned());
        let size =
            spec.resources.and_then(|resources| resources.requests).and_then(|mut it| it.remove("storage"));
        let uid = claim.uid().unwrap_or_default();
        let reference = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": uid,
            "namespace": claim.namespace(), "name": claim.name_any(),
        });
        let size = size.map(|size| size.0).unwrap_or_default();
        let modes = json!(spec.access_modes);
        let place = place_to_json(zone.map(|zone| (ZONE, zone)));
        let made = volume(&uid, (&class, driver), &size, &modes, &place, &reference);
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        match volumes.create(&PostParams::default(), &serde_json::from_value(made)?).await {
            Ok(_) => {}
            // It was made a moment ago, and the claim is not bound yet.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Storage {
    /// Makes what was drawn.
    pub(crate) async fn furnish(&self, client: &Client) -> Result<()> {
        for node in &self.nodes {
            create(&Api::all(client.clone()), node).await?;
        }
        for capacity in &self.capacities {
            create(&Api::namespaced(client.clone(), "default"), capacity).await?;
        }
        for claim in &self.claims {
            create(&Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default()), claim).await?;
        }
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        for volume in &self.volumes {
            create(&volumes, volume).await?;
        }
        wait::until("volumes that can be had", SOON, || async {
            for volume in volumes.list(&ListParams::default()).await? {
                ensure!(Volume::read(&volume).available, "{} cannot be had yet", volume.name_any());
            }
            Ok(())
        })
        .await
    }

    /// What was drawn, a line an object.
    pub(crate) fn text(&self, lines: &mut Vec<String>) -> Result<(), serde_json::Error> {
        self.nodes.iter().try_for_each(|it| serde_json::to_string(it).map(|line| lines.push(line)))?;
        self.claims.iter().try_for_each(|it| serde_json::to_string(it).map(|line| lines.push(line)))?;
        self.volumes.iter().try_for_each(|it| serde_json::to_string(it).map(|line| lines.push(line)))?;
        self.capacities.iter().try_for_each(|it| serde_json::to_string(it).map(|line| lines.push(line)))
    }

    /// What drivers say of a node.
    pub(crate) fn tell(&self, mut node: CoreNode) -> CoreNode {
        let of = self.nodes.iter().find(|of| of.name_any() == *node.name);
        let drivers = of.into_iter().flat_map(|of| &of.spec.drivers);
        let running = drivers.clone().map(|driver| driver.name.as_str().into()).collect();
        Arc::make_mut(&mut node.declared).drivers = Some(running);
        for driver in drivers {
            let count = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count);
            if let Some(count) = count {
                node.volume_limits.insert(driver.name.as_str().into(), count.into());
            }
        }
        node
    }
}

/// Takes everything away that [`Storage::furnish`] and drivers made; no pod is left.
pub(crate) async fn clear(client: &Client) -> Result<()> {
    for namespace in NAMESPACES {
        gone::<PersistentVolumeClaim>(&Api::namespaced(client.clone(), namespace)).await?;
    }
    gone::<PersistentVolume>(&Api::all(client.clone())).await?;
    gone::<CSIStorageCapacity>(&Api::namespaced(client.clone(), "default")).await?;
    gone::<CSINode>(&Api::all(client.clone())).await
}

async fn gone<T>(api: &Api<T>) -> Result<()>
where
    T: Resource + Clone + Debug + DeserializeOwned,
{
    let all = ListParams::default();
    if api.list(&all).await?.items.is_empty() {
        return Ok(());
    }
    api.delete_collection(&DeleteParams::default(), &all).await?;
    wait::until("the storage of a world to go", SOON, || async {
        ensure!(api.list(&all).await?.items.is_empty());
        Ok(())
    })
    .await
}

/// What the scheduler reads of storage, as it is now.
pub(crate) async fn read(client: &Client, into: &mut Surroundings) -> Result<()> {
    let all = ListParams::default();
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let key = |claim: &PersistentVolumeClaim| {
        (claim.namespace().unwrap_or_default().into(), claim.name_any().into())
    };
    into.claims = claims.list(&all).await?.iter().map(|claim| (key(claim), Claim::read(claim))).collect();
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volumes = volumes.list(&all).await?;
    into.volumes = volumes.iter().map(|it| (it.name_any().into(), Volume::read(it))).collect();
    let classes: Api<StorageClass> = Api::all(client.clone());
    let classes = classes.list(&all).await?;
    into.classes = classes.iter().map(|it| (it.name_any().into(), CoreClass::read(it))).collect();
    let drivers: Api<CSIDriver> = Api::all(client.clone());
    let drivers = drivers.list(&all).await?;
    let read = |it: &CSIDriver| Some((it.name_any().into(), Driver::read(it)?));
    into.drivers = drivers.iter().filter_map(read).collect();
    let capacities: Api<CSIStorageCapacity> = Api::all(client.clone());
    for (class, capacity) in capacities.list(&all).await?.iter().map(Capacity::read) {
        into.capacities.entry(class).or_default().push(capacity);
    }
    Ok(())
}
