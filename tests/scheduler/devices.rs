//! Random devices, and claims of them, judged by the real scheduler.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Namespace, Pod},
        resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice},
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tandem_core::{
    draws::Draws,
    scheduling::devices::{self, Claim, ClaimSpec, Objects, Slice},
};

use crate::{
    Counts, Judge, Twin, Verdict,
    generate::{Worlds, ZONE},
    storage::Storage,
};

/// Claims and pods are in one namespace, whose claims may look at devices that others have.
const NAMESPACE: &str = "default";
const ADMIN: &str = "resource.kubernetes.io/admin-access";
/// Pods that are tried in a world.
const PODS: usize = 16;

/// What is drawn for a world beside nodes and pods.
struct Drawn {
    slices: Vec<ResourceSlice>,
    classes: Vec<DeviceClass>,
}

/// What is drawn of a pod.
struct Asking {
    pod: Pod,
    claims: Vec<ResourceClaim>,
    templates: Vec<ResourceClaimTemplate>,
}

impl Judge {
    /// As [`Judge::try_world`] with devices; a disagreement is an error with the whole world.
    pub(crate) async fn try_devices(&self, seed: u64, counts: &mut Counts) -> Result<()> {
        self.clear_devices().await?;
        let mut draws = Worlds(Draws(seed));
        let nodes = draws.nodes(&format!("d{seed}"))?;
        let names: Vec<_> = nodes.iter().map(ResourceExt::name_any).collect();
        let Drawn { slices, classes } = draws.devices(&names)?;
        for class in &classes {
            Api::all(self.client.clone()).create(&PostParams::default(), class).await?;
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
                let claims = self.list::<ResourceClaim>().await?.into_iter().map(|claim| json!(claim));
                let templates = templates.iter().map(|it| json!(it));
                let all = lines(objects.chain(claims).chain(templates).collect()).join("\n");
                bail!("{disagreement}\n{all}\n{}", world.text(&pod)?);
            }
            match verdict {
                Verdict::Node(node) => {
                    counts.placed += 1;
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

    /// What the scheduler reads of devices.
    async fn objects(&self) -> Result<Objects> {
        let slices: Api<ResourceSlice> = Api::all(self.client.clone());
        let classes: Api<DeviceClass> = Api::all(self.client.clone());
        let all = ListParams::default();
        let key = |object: &dyn Fn() -> String| (Arc::from(NAMESPACE), Arc::from(object()));
        let (slices, classes) = (slices.list(&all).await?, classes.list(&all).await?);
        let (claims, templates) =
            (self.list::<ResourceClaim>().await?, self.list::<ResourceClaimTemplate>().await?);
        Ok(Objects {
            slices: slices.iter().map(|it| (it.name_any().into(), Arc::new(Slice::read(it)))).collect(),
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
        Api::<DeviceClass>::all(self.client.clone()).delete_collection(&now, &all).await?;
        harness::wait::until("no claims", crate::SOON, || async {
            anyhow::ensure!(self.list::<ResourceClaim>().await?.is_empty());
            Ok(())
        })
        .await
    }
}

impl Worlds {
    fn devices(&mut self, nodes: &[String]) -> Result<Drawn, serde_json::Error> {
        let mut slices = Vec::new();
        for node in nodes {
            if self.0.percent(80) {
                slices.extend(self.pool(&format!("gpu-{node}"), "gpu.test", &json!({"nodeName": node})));
            }
            if self.0.percent(30) {
                slices.extend(self.pool(&format!("nic-{node}"), "nic.test", &json!({"nodeName": node})));
            }
        }
        if self.0.percent(40) {
            let zone = self.0.one(&["z1", "z2"]);
            let term = json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]});
            let access = match self.0.below(3) {
                0 => json!({"allNodes": true}),
                1 => json!({"nodeSelector": {"nodeSelectorTerms": [term]}}),
                _ => json!({"perDeviceNodeSelection": true}),
            };
            let mut pool = self.pool("net", "nic.test", &access);
            if access["perDeviceNodeSelection"] == true {
                for device in
                    pool.iter_mut().filter_map(|slice| slice["spec"]["devices"].as_array_mut()).flatten()
                {
                    match self.0.below(3) {
                        0 => device["allNodes"] = json!(true),
                        1 => device["nodeSelector"] = json!({"nodeSelectorTerms": [term]}),
                        _ => device["nodeName"] = json!(nodes[0]),
                    }
                }
            }
            slices.extend(pool);
        }
        let classes = [
            ("gpu", json!([{"cel": {"expression": "device.driver == 'gpu.test'"}}])),
            ("nic", json!([{"cel": {"expression": "device.driver == 'nic.test'"}}])),
            ("any", json!([])),
            (
                "big",
                json!([{"cel": {"expression":
                "has(device.capacity['gpu.test'].memory) && device.capacity['gpu.test'].memory.compareTo(quantity('80Gi')) >= 0"}}]),
            ),
        ];
        let class = |(name, selectors)| json!({"metadata": {"name": name}, "spec": {"selectors": selectors}});
        Ok(Drawn {
            slices: slices.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?,
            classes: classes.into_iter().map(class).map(serde_json::from_value).collect::<Result<_, _>>()?,
        })
    }

    /// The slices of a pool.
    fn pool(&mut self, name: &str, driver: &str, access: &Value) -> Vec<Value> {
        let parts = self.0.percent(25);
        let mut contents: Vec<Value> = (0..=self.0.below(2))
            .map(|slice| {
                let devices: Vec<_> = (0..=self.0.below(3))
                    .map(|number| self.device(&format!("dev-{slice}-{number}"), parts))
                    .collect();
                json!({"devices": devices})
            })
            .collect();
        if parts {
            let amount = self.0.one(&["2", "3", "5"]);
            contents.push(json!({"sharedCounters": [
                {"name": "set", "counters": {"units": {"value": amount}, "memory": {"value": "80Gi"}}}]}));
        }
        let wrong = i64::from(self.0.percent(8));
        let count = i64::try_from(contents.len()).unwrap_or(0) + wrong;
        let generation = 1 + self.0.below(2);
        let mut slices: Vec<_> = contents
            .into_iter()
            .enumerate()
            .map(|(number, spec)| (format!("{name}-{number}"), generation, count, spec))
            .collect();
        if self.0.percent(15) {
            let devices = json!({"devices": [self.device("old", false)]});
            slices.push((format!("{name}-old"), 0, 1, devices));
        }
        let slice = |(slice, generation, count, mut spec): (String, u64, i64, Value)| {
            spec["driver"] = json!(driver);
            spec["pool"] = json!({"name": name, "generation": generation, "resourceSliceCount": count});
            // Counters have no nodes of their own; they are where their pool is.
            let has_counters = !spec["sharedCounters"].is_null();
            let access = if has_counters && access["perDeviceNodeSelection"] == true {
                json!({"allNodes": true})
            } else {
                access.clone()
            };
            for (key, value) in access.as_object().into_iter().flatten() {
                spec[key] = value.clone();
            }
            json!({"metadata": {"name": slice}, "spec": spec})
        };
        slices.into_iter().map(slice).collect()
    }

    fn device(&mut self, name: &str, parts: bool) -> Value {
        let mut attributes = json!({"model": {"string": self.0.one(&["a", "b"])}});
        if self.0.percent(80) {
            attributes["numa"] = json!({"int": self.0.below(2)});
        }
        if self.0.percent(70) {
            attributes["version"] = json!({"version": self.0.one(&["1.2.3", "1.10.0", "2.0.0-rc.1"])});
        }
        if self.0.percent(30) {
            attributes["other.test/healthy"] = json!({"bool": self.0.percent(50)});
        }
        let mut device = json!({"name": name, "attributes": attributes});
        if self.0.percent(70) {
            device["capacity"] = json!({"memory": {"value": self.0.one(&["40Gi", "80Gi"])}});
        }
        if self.0.percent(15) {
            let effect = self.0.one(&["NoSchedule", "NoExecute", "None"]);
            device["taints"] = json!([{"key": "k", "value": self.0.one(&["1", "2"]), "effect": effect}]);
        }
        if parts && self.0.percent(70) {
            let counters = json!({"units": {"value": self.0.one(&["1", "2"])}, "memory": {"value": self.0.one(&["20Gi", "40Gi"])}});
            device["consumesCounters"] = json!([{"counterSet": "set", "counters": counters}]);
        }
        if self.0.percent(25) {
            device["allowMultipleAllocations"] = json!(true);
            device["capacity"] = json!({"memory": {"value": "80Gi"}});
            match self.0.below(3) {
                0 => {
                    let values = json!({"default": "20Gi", "validValues": ["20Gi", "40Gi"]});
                    device["capacity"]["memory"]["requestPolicy"] = values;
                }
                1 => {
                    let range = json!({"min": "10Gi", "max": "60Gi", "step": "10Gi"});
                    let policy = json!({"default": "20Gi", "validRange": range});
                    device["capacity"]["memory"]["requestPolicy"] = policy;
                }
                _ => {}
            }
        }
        device
    }

    /// A pod with claims of its own, and perhaps one that others use too.
    fn asking(&mut self, name: &str, shared: &mut Vec<String>) -> Result<Asking, serde_json::Error> {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"containers": [{"name": "c", "image": "app", "resources": {"requests": {"cpu": "100m"}}}],
                     "tolerations": [{"operator": "Exists"}]},
        });
        if self.0.percent(15) {
            pod["spec"]["nodeSelector"] = json!({ZONE: self.0.one(&["z1", "z2"])});
        }
        let (mut claims, mut templates, mut references) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..=u64::from(self.0.percent(30)) {
            let (claim, spec) = (format!("{name}-{number}"), self.claim_of_devices());
            let metadata = json!({"name": claim, "namespace": NAMESPACE});
            if self.0.percent(30) {
                templates.push(json!({"metadata": metadata, "spec": {"spec": spec}}));
                references.push(json!({"name": format!("own{number}"), "resourceClaimTemplateName": claim}));
            } else {
                claims.push(json!({"metadata": metadata, "spec": spec}));
                references.push(json!({"name": format!("r{number}"), "resourceClaimName": claim}));
                shared.push(claim);
            }
        }
        if self.0.percent(25) {
            let at = usize::try_from(self.0.below(shared.len().max(1) as u64)).unwrap_or(0);
            let other = shared.get(at).filter(|other| !other.starts_with(&format!("{name}-")));
            references.extend(other.map(|other| json!({"name": "shared", "resourceClaimName": other})));
        }
        pod["spec"]["resourceClaims"] = json!(references);
        Ok(Asking {
            pod: serde_json::from_value(pod)?,
            claims: claims.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?,
            templates: templates.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?,
        })
    }

    fn claim_of_devices(&mut self) -> Value {
        let requests: Vec<_> = (0..=u64::from(self.0.percent(30)))
            .map(|number| {
                let name = format!("r{number}");
                if self.0.percent(20) {
                    let alternatives: Vec<_> = ["one", "two"]
                        .iter()
                        .map(|name| {
                            let mut alternative = self.request();
                            alternative["name"] = json!(name);
                            alternative
                        })
                        .collect();
                    return json!({"name": name, "firstAvailable": alternatives});
                }
                let mut exactly = self.request();
                if self.0.percent(6) {
                    exactly["adminAccess"] = json!(true);
                }
                json!({"name": name, "exactly": exactly})
            })
            .collect();
        let mut devices = json!({"requests": requests});
        if self.0.percent(30) {
            let attribute = self.0.one(&["gpu.test/numa", "gpu.test/model", "nic.test/numa"]);
            let rule = self.0.one(&["matchAttribute", "distinctAttribute"]);
            devices["constraints"] = json!([{rule: attribute}]);
            if self.0.percent(30) {
                devices["constraints"][0]["requests"] = json!(["r0"]);
            }
        }
        json!({"devices": devices})
    }

    fn request(&mut self) -> Value {
        const SELECTORS: [&str; 9] = [
            "device.attributes['gpu.test'].model == 'a'",
            "device.attributes['gpu.test'].?model.orValue('c') != 'a'",
            "device.attributes['gpu.test'].?numa.orValue(0) == 0",
            "has(device.attributes['other.test'].healthy) && device.attributes['other.test'].healthy",
            "'gpu.test' in device.attributes",
            "has(device.capacity['gpu.test'].memory) && device.capacity['gpu.test'].memory.isGreaterThan(quantity('40Gi'))",
            "has(device.attributes['gpu.test'].version) && device.attributes['gpu.test'].version.isGreaterThan(semver('1.9.0'))",
            "cel.bind(it, device.attributes['gpu.test'], has(it.model) && it.model in ['b', 'c'])",
            "device.allowMultipleAllocations == false",
        ];
        let class =
            if self.0.percent(3) { "absent" } else { self.0.one(&["gpu", "gpu", "any", "nic", "big"]) };
        let mut request = json!({"deviceClassName": class});
        if self.0.percent(45) {
            request["selectors"] = json!([{"cel": {"expression": self.0.one(&SELECTORS)}}]);
        }
        match self.0.below(10) {
            0 => request["allocationMode"] = json!("All"),
            1..=3 => request["count"] = json!(2 + self.0.below(2)),
            _ => {}
        }
        if self.0.percent(25) {
            request["tolerations"] =
                json!([{"key": "k", "operator": "Equal", "value": "1", "effect": "NoSchedule"}]);
        }
        if self.0.percent(15) {
            request["capacity"] = json!({"requests": {"memory": self.0.one(&["15Gi", "25Gi", "50Gi"])}});
        }
        request
    }
}
