//! Random nodes and pods, made of few names so that rules often meet. What comes of a seed is always the same.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Map, Value, json};
use tandem_core::draws::Draws;

use crate::storage;

pub(crate) const NAMESPACES: [(&str, Option<&str>); 3] =
    [("default", None), ("team-x", Some("x")), ("team-y", Some("y"))];
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
pub(crate) const HOST: &str = "kubernetes.io/hostname";
/// What nodes declare, in order; of the first no pod has any need when it is scheduled.
const FEATURES: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "RestartAllContainersOnContainerExits",
    "UserNamespacesHostNetworkSupport",
    "VolumeBindMountOptions",
];

/// Draws worlds.
pub(crate) struct Worlds(pub(crate) Draws);

impl Worlds {
    pub(crate) fn some<T>(&mut self, most: u64, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..=self.0.below(most)).map(|_| draw(self)).collect()
    }

    /// Some nodes, whose names begin with a prefix.
    pub(crate) fn nodes(&mut self, prefix: &str) -> Result<Vec<Node>, serde_json::Error> {
        let count = 3 + self.0.below(4);
        (0..count).map(|number| serde_json::from_value(self.node(&format!("{prefix}-{number}")))).collect()
    }

    fn node(&mut self, name: &str) -> Value {
        let mut labels = Map::new();
        if self.0.percent(90) {
            labels.insert(HOST.into(), json!(name));
        }
        if self.0.percent(85) {
            labels.insert(ZONE.into(), json!(self.0.one(&["z1", "z2", "z3"])));
        }
        if self.0.percent(70) {
            labels.insert("size".into(), json!(self.0.one(&["1", "2", "3"])));
        }
        let mut taints = Vec::new();
        if self.0.percent(30) {
            let effect = self.0.one(&["NoSchedule", "NoExecute", "PreferNoSchedule"]);
            taints.push(
                json!({"key": self.0.one(&["k1", "k2"]), "value": self.0.one(&["1", "5"]), "effect": effect}),
            );
        }
        let mut resources = json!({
            "cpu": self.0.one(&["1", "2", "3500m"]), "memory": self.0.one(&["1Gi", "4Gi"]),
            "ephemeral-storage": "10Gi", "pods": self.0.one(&["3", "6", "110"]),
        });
        if self.0.percent(40) {
            resources["example.com/device"] = json!(self.0.one(&["1", "2"]));
        }
        let mut features = FEATURES.to_vec();
        features.retain(|_| self.0.percent(60));
        json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": taints, "unschedulable": self.0.percent(7)},
            "status": {"allocatable": resources, "capacity": resources, "declaredFeatures": features},
        })
    }

    /// A pod.
    pub(crate) fn pod(&mut self, name: &str) -> Result<Pod, serde_json::Error> {
        let mut labels = Map::new();
        for (key, values) in [("app", &["a", "b"]), ("version", &["1", "2"])] {
            if self.0.percent(75) {
                labels.insert(key.into(), json!(self.0.one(values)));
            }
        }
        let (namespace, _) = self.0.one(&NAMESPACES);
        let mut spec = json!({"containers": self.some(2, Self::container), "affinity": self.affinity()});
        for (number, container) in spec["containers"].as_array_mut().into_iter().flatten().enumerate() {
            container["name"] = json!(format!("c{number}"));
        }
        if self.0.percent(15) {
            let mut container = self.container();
            container["name"] = json!("init");
            if self.0.percent(50) {
                container["restartPolicy"] = json!("Always");
            }
            spec["initContainers"] = json!([container]);
        }
        if self.0.percent(10) {
            spec["resources"] = json!({"requests": {"cpu": "1800m", "memory": "2Gi"}});
        }
        if self.0.percent(10) {
            spec["nodeSelector"] = json!({"size": self.0.one(&["1", "2"])});
        }
        if self.0.percent(50) {
            spec["tolerations"] = json!(self.some(2, Self::toleration));
        }
        if self.0.percent(45) {
            let mut spread = self.some(2, Self::spread);
            spread.dedup_by(|one, other| one["topologyKey"] == other["topologyKey"]);
            spec["topologySpreadConstraints"] = json!(spread);
        }
        if self.0.percent(30) {
            self.claims(&mut spec);
        }
        if self.0.percent(12) {
            self.features(&mut spec);
        }
        if self.0.percent(30) {
            self.disk(&mut spec);
        }
        if self.0.percent(4) {
            spec["schedulingGates"] = json!([{"name": "example.com/gate"}]);
        }
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec}))
    }

    /// One claim, or two of different classes.
    fn claims(&mut self, spec: &mut Value) {
        let first = self.0.below(storage::CLAIMS);
        let mut claims = vec![first];
        if self.0.percent(25) {
            claims.push((first + 1) % storage::CLAIMS);
        }
        let volume = |claim: &u64| {
            let name = storage::claim(*claim);
            json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
        };
        spec["volumes"] = claims.iter().map(volume).collect();
    }

    /// Something that not every kubelet can do.
    fn features(&mut self, spec: &mut Value) {
        let first = &mut spec["containers"][0];
        match self.0.below(4) {
            0 => {
                first["restartPolicy"] = json!("Never");
                let exit = json!({"operator": "In", "values": [42]});
                let action = self.0.one(&["RestartAllContainers", "RestartAllContainers", "Restart"]);
                first["restartPolicyRules"] = json!([{"action": action, "exitCodes": exit}]);
            }
            1 => {
                let path = json!({"name": "scratch", "mountPath": "/tmp", "bindMountOptions": ["noexec"]});
                first["volumeMounts"] = json!([path]);
                add(&mut spec["volumes"], json!({"name": "scratch", "emptyDir": {}}));
            }
            host => {
                spec["hostNetwork"] = json!(true);
                spec["hostUsers"] = json!(host == 2);
            }
        }
    }

    /// A disk that pods of one node share at most to read it.
    fn disk(&mut self, spec: &mut Value) {
        let read_only = self.0.percent(50);
        let monitors = [["m1", "m2"], ["m2", "m3"], ["m3", "m4"]];
        let (kind, disk) = match self.0.below(6) {
            0 => ("gcePersistentDisk", json!({"pdName": "disk", "readOnly": read_only})),
            1..3 => ("awsElasticBlockStore", json!({"volumeID": "vol-1", "readOnly": read_only})),
            3 => {
                let name = "iqn.2001-04.com.example:storage";
                let disk = json!({"targetPortal": "10.0.0.1", "iqn": name, "lun": 0, "readOnly": read_only});
                ("iscsi", disk)
            }
            _ => ("rbd", json!({"monitors": self.0.one(&monitors), "image": "disk", "readOnly": read_only})),
        };
        add(&mut spec["volumes"], json!({"name": "disk", kind: disk}));
    }

    fn container(&mut self) -> Value {
        let mut requests = json!({});
        if self.0.percent(80) {
            requests["cpu"] = json!(self.0.one(&["0", "100m", "250m", "800m"]));
        }
        if self.0.percent(60) {
            requests["memory"] = json!(self.0.one(&["64Mi", "300Mi", "1Gi"]));
        }
        let mut limits = json!({});
        if self.0.percent(12) {
            requests["example.com/device"] = json!("1");
            limits["example.com/device"] = json!("1");
        }
        let mut container = json!({"image": "app", "resources": {"requests": requests, "limits": limits}});
        if self.0.percent(12) {
            let port = self.0.one(&[80, 81]);
            let ip = self.0.one(&["", "0.0.0.0", "10.0.0.1", "10.0.0.2"]);
            let protocol = self.0.one(&["TCP", "TCP", "UDP"]);
            container["ports"] =
                json!([{"containerPort": port, "hostPort": port, "hostIP": ip, "protocol": protocol}]);
        }
        container
    }

    fn toleration(&mut self) -> Value {
        let mut toleration = json!({});
        if self.0.percent(85) {
            toleration["key"] = json!(self.0.one(&["k1", "k2", "node.kubernetes.io/unschedulable"]));
        }
        let exists = toleration["key"].is_null() || self.0.percent(40);
        toleration["operator"] = json!(if exists { "Exists" } else { "Equal" });
        if !exists {
            toleration["value"] = json!(self.0.one(&["1", "5", ""]));
        }
        if self.0.percent(60) {
            toleration["effect"] = json!(self.0.one(&["NoSchedule", "NoExecute"]));
        }
        toleration
    }

    fn label_selector(&mut self) -> Value {
        let mut selector = json!({});
        if self.0.percent(70) {
            selector["matchLabels"] = json!({"app": self.0.one(&["a", "b"])});
        }
        if self.0.percent(25) {
            let operator = self.0.one(&["In", "NotIn", "Exists", "DoesNotExist"]);
            let mut expression = json!({"key": "version", "operator": operator});
            if operator.ends_with("In") {
                expression["values"] = json!(["1"]);
            }
            selector["matchExpressions"] = json!([expression]);
        }
        selector
    }

    fn spread(&mut self) -> Value {
        let hard = self.0.percent(85);
        let mut spread = json!({
            "maxSkew": 1 + self.0.below(2), "topologyKey": self.0.one(&[ZONE, HOST]),
            "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" },
            "labelSelector": self.label_selector(),
        });
        if hard && self.0.percent(30) {
            spread["minDomains"] = json!(1 + self.0.below(4));
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if self.0.percent(40) {
                spread[policy] = json!(self.0.one(&["Honor", "Ignore"]));
            }
        }
        if spread["labelSelector"]["matchExpressions"].is_null() && self.0.percent(30) {
            spread["matchLabelKeys"] = json!(["version"]);
        }
        spread
    }

    fn term(&mut self) -> Value {
        let mut term =
            json!({"topologyKey": self.0.one(&[ZONE, HOST, "size"]), "labelSelector": self.label_selector()});
        if self.0.percent(20) {
            term["namespaces"] = json!([self.0.one(&["team-x", "team-y"])]);
        }
        if self.0.percent(30) {
            let any = self.0.percent(40);
            let team = self.0.one(&["x", "y"]);
            term["namespaceSelector"] = if any { json!({}) } else { json!({"matchLabels": {"team": team}}) };
        }
        if term["labelSelector"]["matchExpressions"].is_null() && self.0.percent(25) {
            let keys = self.0.one(&["matchLabelKeys", "mismatchLabelKeys"]);
            term[keys] = json!(["version"]);
        }
        term
    }

    fn affinity(&mut self) -> Value {
        let mut affinity = json!({});
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        if self.0.percent(15) {
            affinity["nodeAffinity"][required]["nodeSelectorTerms"] = json!(self.some(2, Self::node_term));
        }
        if self.0.percent(25) {
            affinity["podAffinity"][required] = json!(self.some(2, Self::term));
        }
        if self.0.percent(30) {
            affinity["podAntiAffinity"][required] = json!(self.some(2, Self::term));
        }
        affinity
    }

    fn node_term(&mut self) -> Value {
        let expression = |draws: &mut Self| {
            let operator = draws.0.one(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]);
            let mut expression = json!({"key": draws.0.one(&["size", ZONE]), "operator": operator});
            match operator {
                "Gt" | "Lt" => expression["values"] = json!([draws.0.one(&["1", "2"])]),
                "In" | "NotIn" => expression["values"] = json!([draws.0.one(&["1", "2"]), "z1"]),
                _ => {}
            }
            expression
        };
        json!({"matchExpressions": self.some(2, expression)})
    }
}

fn add(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}
