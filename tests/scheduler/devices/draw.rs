//! What is drawn of devices.

use serde_json::{Value, json};

use super::{ATTACHED, Asking, Drawn, NAMESPACE};
use crate::generate::{Worlds, ZONE};

/// An extended resource that some nodes offer by a device plugin, as [`Worlds::nodes`] has it.
const OFFERED: &str = "example.com/device";

impl Worlds {
    pub(super) fn devices(&mut self, nodes: &[String]) -> Result<Drawn, serde_json::Error> {
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
            if self.0.percent(60) {
                pool.iter_mut()
                    .filter_map(|slice| slice["spec"]["devices"].as_array_mut())
                    .flatten()
                    .for_each(attached);
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
        let two = self.0.percent(50);
        let class = |(name, selectors)| {
            let mut class = json!({"metadata": {"name": name}, "spec": {"selectors": selectors}});
            match name {
                "gpu" => class["spec"]["extendedResourceName"] = json!(OFFERED),
                "big" if two => class["spec"]["extendedResourceName"] = json!(OFFERED),
                "nic" => class["spec"]["extendedResourceName"] = json!("example.com/nic"),
                _ => {}
            }
            class
        };
        let rules: Vec<_> = self.0.percent(30).then(|| self.taint_rule()).into_iter().collect();
        Ok(Drawn {
            rules: rules.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?,
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

    /// A pod with claims of its own, and perhaps one that others use too; or one that names resources.
    pub(super) fn asking(
        &mut self,
        name: &str,
        shared: &mut Vec<String>,
    ) -> Result<Asking, serde_json::Error> {
        if self.0.percent(40) {
            return self.naming(name);
        }
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

    /// A pod whose containers ask for extended resources that classes stand for.
    fn naming(&mut self, name: &str) -> Result<Asking, serde_json::Error> {
        let mut containers = self.some(1, Self::container_of_devices);
        let mut before =
            if self.0.percent(40) { self.some(1, Self::container_of_devices) } else { Vec::new() };
        for container in &mut before {
            if self.0.percent(40) {
                container["restartPolicy"] = json!("Always");
            }
        }
        for (number, container) in before.iter_mut().chain(&mut containers).enumerate() {
            container["name"] = json!(format!("c{number}"));
        }
        let tolerations = json!([{"operator": "Exists"}]);
        let pod = json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"containers": containers, "initContainers": before, "tolerations": tolerations},
        });
        Ok(Asking { pod: serde_json::from_value(pod)?, claims: Vec::new(), templates: Vec::new() })
    }

    fn container_of_devices(&mut self) -> Value {
        let mut asked = json!({"cpu": "10m"});
        for _ in 0..=u64::from(self.0.percent(20)) {
            let resource = self.0.one(&[
                OFFERED,
                OFFERED,
                "example.com/nic",
                "deviceclass.resource.kubernetes.io/any",
                "deviceclass.resource.kubernetes.io/gpu",
            ]);
            asked[resource] = json!(self.0.one(&["1", "1", "2"]));
        }
        json!({"image": "app", "resources": {"requests": asked, "limits": asked}})
    }

    /// A taint of devices that their driver does not tell.
    fn taint_rule(&mut self) -> Value {
        let selector = match self.0.below(6) {
            0 => json!({"driver": "gpu.test", "device": "dev-0-0"}),
            1 => json!({"driver": "nic.test"}),
            2 => json!({"pool": "net"}),
            3 => json!({"device": "dev-0-1"}),
            4 => json!({"driver": "gpu.test"}),
            _ => Value::Null,
        };
        let taint = json!({"key": "k", "value": self.0.one(&["1", "2"]), "effect": "NoSchedule"});
        json!({"metadata": {"name": "rule"}, "spec": {"deviceSelector": selector, "taint": taint}})
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

/// Makes a device one that has to be attached before its pod may start.
fn attached(device: &mut Value) {
    if device["allowMultipleAllocations"].is_null() {
        device["bindingConditions"] = json!([ATTACHED]);
        device["bindingFailureConditions"] = json!(["failed"]);
        device["bindsToNode"] = json!(true);
    }
}
