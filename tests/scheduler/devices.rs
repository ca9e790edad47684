//! Random devices, and claims of them, judged by the real scheduler.

mod draw;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Error, Result, bail, ensure};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Namespace, Pod},
        resource::v1::{DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tandem_core::{
    draws::Draws,
    scheduling::{
        Surroundings,
        devices::{self, Claim, ClaimSpec, Objects, PoolName, Slice, TaintRule},
    },
};

use crate::{Counts, Judge, LOOK, Twin, Verdict, World, generate::Worlds, storage::Storage};

/// Claims and pods are in one namespace, whose claims may look at devices that others have.
const NAMESPACE: &str = "default";
const ADMIN: &str = "resource.kubernetes.io/admin-access";
/// The condition that some devices have to meet before their pod may start.
const ATTACHED: &str = "attached";
/// Pods that are tried in a world.
const PODS: usize = 16;

/// What is drawn for a world beside nodes and pods.
struct Drawn {
    slices: Vec<ResourceSlice>,
    rules: Vec<DeviceTaintRule>,
    classes: Vec<DeviceClass>,
}

/// What is drawn of a pod.
struct Asking {
    pod: Pod,
    claims: Vec<ResourceClaim>,
    templates: Vec<ResourceClaimTemplate>,
}

/// Ways to devices that have to be met, or nothing is proven of them.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Resources by name, that a device plugin offers.
    pub(crate) by_plugin: u32,
    /// Resources by name, for which the scheduler made a claim.
    pub(crate) by_claim: u32,
    /// Pods that some node would take but for a DeviceTaintRule.
    pub(crate) by_rule: u32,
    /// Pods that waited until a device was attached.
    pub(crate) after_waiting: u32,
}

impl Judge {
    /// As [`Judge::try_world`] with devices; a disagreement is an error with the whole world.
    pub(crate) async fn try_devices(&self, seed: u64, counts: &mut Counts, ways: &mut Ways) -> Result<()> {
        self.clear_devices().await?;
        let mut draws = Worlds(Draws(seed));
        let nodes = draws.nodes(&format!("d{seed}"))?;
        let names: Vec<_> = nodes.iter().map(ResourceExt::name_any).collect();
        let Drawn { slices, rules, classes } = draws.devices(&names)?;
        for class in &classes {
            Api::all(self.client.clone()).create(&PostParams::default(), class).await?;
        }
        for rule in &rules {
            Api::all(self.client.clone()).create(&PostParams::default(), rule).await?;
        }
        for slice in &slices {
            let created = Api::all(self.client.clone()).create(&PostParams::default(), slice).await;
            created.with_context(|| serde_json::to_string(slice).unwrap_or_default())?;
        }
        let mut world = self.furnish(Storage::default(), nodes, Vec::new()).await?;
        let mut shared = Vec::new();
        for number in 0..PODS {
            let Asking { pod, claims, templates } =
                draws.asking(&format!("d{seed}-{number}"), &mut shared)?;
            if !self.create_all(&claims).await? || !self.create_all(&templates).await? {
                counts.invalid += 1;
                continue;
            }
            world.devices = Some(Arc::new(self.objects().await?));
            let Some(seen) = self.create(&pod).await? else {
                counts.invalid += 1;
                continue;
            };
            let surroundings = self.surroundings().await?;
            let (verdict, disagreement) = self.judge(&world, &surroundings, &seen).await?;
            if let Some(disagreement) = disagreement {
                let lines = |values: Vec<Value>| values.iter().map(Value::to_string).collect::<Vec<_>>();
                let objects = slices.iter().map(|it| json!(it)).chain(classes.iter().map(|it| json!(it)));
                let objects = objects.chain(rules.iter().map(|it| json!(it)));
                let claims = self.list::<ResourceClaim>().await?.into_iter().map(|claim| json!(claim));
                let templates = templates.iter().map(|it| json!(it));
                let all = lines(objects.chain(claims).chain(templates).collect()).join("\n");
                bail!("{disagreement}\n{all}\n{}", world.text(&pod)?);
            }
            ways.by_rule += u32::from(world.is_ruled_by_taints(&surroundings, &seen));
            match verdict {
                Verdict::Node(node) => {
                    counts.placed += 1;
                    self.compare_devices(&world, &surroundings, (&seen, &node), ways).await?;
                    let mut twin = Twin { seen: self.pods(&seen).get(&seen.name_any()).await?, drawn: pod };
                    twin.drawn.spec.get_or_insert_default().node_name = Some(node);
                    world.pods.push(twin);
                    continue;
                }
                Verdict::Unschedulable(_) | Verdict::Failed(_) => counts.refused += 1,
                Verdict::Gated => counts.gated += 1,
            }
            self.delete(&seen).await?;
        }
        self.clear_devices().await
    }

    /// Lets claims of the namespace look at devices that others have.
    pub(crate) async fn permit_admin_access(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let label = json!({"metadata": {"labels": {ADMIN: "true"}}});
        namespaces.patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(label)).await?;
        Ok(())
    }

    /// Holds what a pod that was placed has got to what the core would give it.
    async fn compare_devices(
        &self,
        world: &World,
        surroundings: &Arc<Surroundings>,
        (pod, node): (&Pod, &str),
        ways: &mut Ways,
    ) -> Result<()> {
        let mut got = Vec::new();
        let mut waited = false;
        for claim in self.list::<ResourceClaim>().await? {
            let before = world.devices.as_ref().and_then(|objects| {
                objects.claims.get(&(NAMESPACE.into(), claim.name_any().into()))?.allocation.clone()
            });
            let status = claim.status.unwrap_or_default();
            let mut users = status.reserved_for.iter().flatten();
            if before.is_some() || !users.any(|user| Some(&user.uid) == pod.metadata.uid.as_ref()) {
                continue;
            }
            for result in status.allocation.and_then(|it| it.devices?.results).unwrap_or_default() {
                waited |= result.binding_conditions.is_some();
                let pool: PoolName = (result.driver.into(), result.pool.into());
                got.push((pool, Arc::from(result.device)));
            }
        }
        let (snapshot, nodes, class) = world.view(surroundings, pod);
        let at = world.nodes.iter().position(|it| it.seen.name_any() == *node).context("a known node")?;
        let mut expected = snapshot.devices_for(class, nodes[at]).map_err(Error::msg)?;
        got.sort();
        expected.sort();
        ensure!(got == expected, "{} got {got:?}, the core gives {expected:?}", pod.name_any());
        let claimed = self
            .pods(pod)
            .get(&pod.name_any())
            .await?
            .status
            .and_then(|it| it.extended_resource_claim_status);
        let claims = pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_ref());
        match claimed {
            Some(_) => ways.by_claim += 1,
            None => ways.by_plugin += u32::from(claims.is_none()),
        }
        ways.after_waiting += u32::from(waited);
        Ok(())
    }

    /// What the scheduler reads of devices.
    async fn objects(&self) -> Result<Objects> {
        let slices: Api<ResourceSlice> = Api::all(self.client.clone());
        let classes: Api<DeviceClass> = Api::all(self.client.clone());
        let all = ListParams::default();
        let key = |object: &dyn Fn() -> String| (Arc::from(NAMESPACE), Arc::from(object()));
        let rules: Api<DeviceTaintRule> = Api::all(self.client.clone());
        let rules = rules.list(&all).await?;
        let (slices, classes) = (slices.list(&all).await?, classes.list(&all).await?);
        let (claims, templates) =
            (self.list::<ResourceClaim>().await?, self.list::<ResourceClaimTemplate>().await?);
        Ok(Objects {
            slices: slices.iter().map(|it| (it.name_any().into(), Arc::new(Slice::read(it)))).collect(),
            taint_rules: rules
                .iter()
                .map(|it| (it.name_any().into(), Arc::new(TaintRule::read(it))))
                .collect(),
            classes: classes
                .iter()
                .map(|it| (it.name_any().into(), Arc::new(devices::DeviceClass::read(it))))
                .collect(),
            claims: claims.iter().map(|it| (key(&|| it.name_any()), Arc::new(Claim::read(it)))).collect(),
            templates: templates
                .iter()
                .map(|it| (key(&|| it.name_any()), Arc::new(ClaimSpec::of_template(it))))
                .collect(),
        })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn list<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        Ok(self.api().list(&ListParams::default()).await?.items)
    }

    /// Creates objects; `false` if one is not valid.
    async fn create_all<K>(&self, objects: &[K]) -> Result<bool>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        for object in objects {
            match self.api::<K>().create(&PostParams::default(), object).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                    eprintln!("{}", status.message);
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    async fn clear_devices(&self) -> Result<()> {
        self.clear().await?;
        let (now, all) = (DeleteParams::default(), ListParams::default());
        // Claims in use have a finalizer, which their controller takes away once their pods are gone.
        self.api::<ResourceClaim>().delete_collection(&now, &all).await?;
        self.api::<ResourceClaimTemplate>().delete_collection(&now, &all).await?;
        Api::<ResourceSlice>::all(self.client.clone()).delete_collection(&now, &all).await?;
        Api::<DeviceTaintRule>::all(self.client.clone()).delete_collection(&now, &all).await?;
        Api::<DeviceClass>::all(self.client.clone()).delete_collection(&now, &all).await?;
        harness::wait::until("no claims", crate::SOON, || async {
            ensure!(self.list::<ResourceClaim>().await?.is_empty());
            Ok(())
        })
        .await
    }
}

impl World {
    /// Whether some node would take a pod but for the taints of a rule.
    fn is_ruled_by_taints(&self, surroundings: &Arc<Surroundings>, pod: &Pod) -> bool {
        let Some(objects) = &self.devices else { return false };
        let fit = |objects: Objects| {
            let surroundings = Surroundings { devices: Some(Arc::new(objects)), ..(**surroundings).clone() };
            let (snapshot, nodes, class) = self.view_with(surroundings, pod);
            nodes.iter().filter(|node| snapshot.check(class, **node).is_ok()).count()
        };
        fit(Objects::clone(objects))
            < fit(Objects { taint_rules: BTreeMap::new(), ..Objects::clone(objects) })
    }
}

/// Attaches devices that wait for it, as their drivers would.
pub(crate) async fn attach(client: Client) {
    let claims: Api<ResourceClaim> = Api::namespaced(client, NAMESPACE);
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(list) = claims.list(&ListParams::default()).await else { continue };
        for claim in list {
            let Some(devices) = attached(&claim) else { continue };
            let patch = Patch::Merge(json!({"status": {"devices": devices}}));
            // A claim that has just gone needs nothing any more; whoever else came between is followed by the next look.
            let _ = claims.patch_status(&claim.name_any(), &PatchParams::default(), &patch).await;
        }
    }
}

/// What a driver says of the devices of a claim that wait for it; `None` if it has said so, or none waits.
fn attached(claim: &ResourceClaim) -> Option<Value> {
    let status = claim.status.as_ref()?;
    if status.devices.is_some() {
        return None;
    }
    let results = status.allocation.as_ref()?.devices.as_ref()?.results.as_deref()?;
    let waiting = results.iter().filter(|result| result.binding_conditions.is_some());
    let devices: Vec<_> = waiting
        .map(|result| {
            json!({
                "driver": result.driver, "pool": result.pool, "device": result.device,
                "conditions": [{"type": ATTACHED, "status": "True", "reason": "Attached", "message": "",
                                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            })
        })
        .collect();
    (!devices.is_empty()).then(|| json!(devices))
}
