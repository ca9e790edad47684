//! Whole passes over node groups: Cluster Autoscaler's `RunOnce` benchmarks, and passes over a great cluster.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{self as resource, ResourceClaimTemplate, ResourceSlice};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tandem_core::{
    nodes::{
        action::Action,
        drain::SAFE_TO_EVICT,
        group::{GroupOptions, Instance, InstanceState, NodeGroup, Template},
        pass::{Input, Memory, Model, Outcome, PassSettings, run},
    },
    scheduling::{
        Node, Pod, Surroundings,
        devices::{ClaimSpec, DeviceClass, Objects, PodClaim, Slice},
    },
};

use super::{
    Measured, Row,
    inputs::{MIB, node, pods, running, shape, unschedulable},
    measured,
    pools::{diverse, inhabited},
};

/// What is measured here.
pub(crate) const ROWS: &[Row] = &[
    ("scale up", || scale_up(false)),
    ("scale up, different", || scale_up(true)),
    ("scale up, devices", scale_up_for_devices),
    ("scale down", || scale_down(false)),
    ("scale down, different", || scale_down(true)),
    ("efficiency", efficiency),
    ("groups beside 150000 pods", beside_others),
    ("one pod later", one_pod_later),
    ("idle", idle),
];

/// The name of the group that every node is of.
const GROUP: &str = "group";

fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

/// Cluster Autoscaler's defaults, except for what its benchmarks set.
fn settings() -> PassSettings {
    let mut settings = PassSettings::default();
    settings.scale_up.most_at_once = 10_000;
    settings.scale_up.max_cores = i64::MAX / 1_000;
    settings.scale_down.unneeded_time = SignedDuration::ZERO;
    settings.scale_down.delay_after_add = SignedDuration::ZERO;
    settings.scale_down.delay_after_failure = SignedDuration::ZERO;
    settings.scale_down.parallelism = 2_000;
    settings.scale_down.drain_parallelism = 2_000;
    settings.scale_down.marks_at_once = 0;
    settings
}

/// A cluster of one group.
fn cluster(nodes: Vec<Node>, pods: Vec<Arc<Pod>>, template: Node) -> Input {
    let instance = |node: &Node| Instance { id: node.provider_id.clone(), state: InstanceState::Running };
    let group = NodeGroup {
        id: GROUP.into(),
        min: 0,
        max: 10_000,
        target: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
        instances: nodes.iter().map(instance).collect(),
        options: GroupOptions::default(),
    };
    Input {
        now: at(1),
        nodes: nodes.into_iter().map(Arc::new).collect(),
        pods,
        templates: [(group.id.clone(), Template { node: template, pods: Vec::new() })].into(),
        groups: vec![group],
        ..Input::default()
    }
}

/// A pass that takes the first option there is.
fn pass(memory: &mut Memory, input: &Input, settings: &PassSettings) -> Outcome {
    run(memory, input, settings, &mut |_, options| (!options.is_empty()).then_some(0))
}

/// The nodes that a pass makes and takes away.
fn answer(outcome: &Outcome) -> Value {
    let (mut more, mut less) = (0, 0);
    for action in &outcome.actions {
        match action {
            Action::Increase(increase) => more += increase.to - increase.from,
            Action::Remove(_) => less += 1,
            _ => {}
        }
    }
    json!({"nodes": more + less})
}

/// `BenchmarkRunOnceScaleUp`.
fn scale_up(differ: bool) -> Measured {
    let waiting = pods("waiting", 50_000, &shape(200, 200), differ).into_iter().map(unschedulable);
    let input = cluster(Vec::new(), waiting.collect(), node("template", 10_000, 10_000, 100));
    let settings = settings();
    measured(|| pass(&mut Memory::default(), &input, &settings), |outcome| answer(&outcome))
}

/// `BenchmarkRunOnceScaleUpDRA`: nodes of eight devices, pods that ask for one each.
fn scale_up_for_devices() -> Measured {
    let devices: Vec<_> = (0..8).map(|number| json!({"name": format!("gpu-{number}")})).collect();
    let pool = json!({"name": "template", "generation": 1, "resourceSliceCount": 1});
    let slice =
        json!({"driver": "gpu.example.com", "pool": pool, "nodeName": "template", "devices": devices});
    let class = json!({"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]});
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": "gpu"}});
    let template = json!({"spec": {"devices": {"requests": [request]}}});
    let slice: ResourceSlice = object("template", &slice);
    let class: resource::DeviceClass = object("gpu", &class);
    let template: ResourceClaimTemplate = object("one", &template);
    let objects = Objects {
        classes: [("gpu".into(), Arc::new(DeviceClass::read(&class)))].into(),
        templates: [(("default".into(), "one".into()), Arc::new(ClaimSpec::of_template(&template)))].into(),
        ..Objects::default()
    };
    let claims = vec![PodClaim::Own { template: "one".into(), name: None }];
    let waiting = pods("waiting", 4_000, &shape(625, 1), false).into_iter();
    let waiting = waiting.map(|pod| unschedulable(Pod { device_claims: claims.clone(), ..pod }));
    let template = Node {
        slices: Some([Arc::new(Slice::read(&slice))].into()),
        ..node("template", 10_000, 10_000, 100)
    };
    let mut input = cluster(Vec::new(), waiting.collect(), template);
    let devices = Some(Arc::new(objects));
    input.surroundings = Arc::new(Surroundings { devices, ..Surroundings::default() });
    let settings = settings();
    measured(|| pass(&mut Memory::default(), &input, &settings), |outcome| answer(&outcome))
}

/// An object of the API.
#[allow(clippy::expect_used, reason = "what is written here is an object")]
fn object<T: DeserializeOwned>(name: &str, spec: &Value) -> T {
    let object = json!({"metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).expect("an object of the API")
}

/// `BenchmarkRunOnceScaleDown`.
fn scale_down(differ: bool) -> Measured {
    let nodes: Vec<_> =
        (0..2_000).map(|number| node(&format!("node-{number:04}"), 10_000, 10_000, 100)).collect();
    let mut shape = shape(100, 100);
    shape.annotations.insert(SAFE_TO_EVICT.to_owned(), "true".to_owned());
    let there = pods("running", 80_000, &shape, differ).into_iter().enumerate();
    let there = there.map(|(number, pod)| running(pod, &nodes[number / 40].name)).collect();
    let template = node("template", 10_000, 10_000, 100);
    let input = cluster(nodes, there, template);
    let settings = settings();
    measured(|| pass(&mut Memory::default(), &input, &settings), |outcome| answer(&outcome))
}

/// `BenchmarkScaledownEfficiency`: three passes, after each of which the pods of the nodes that went run on the emptiest
/// nodes left.
fn efficiency() -> Measured {
    let sizes = [1_000, 1_000, 4_000, 4_000, 4_000, 9_000];
    let nodes = sizes.iter().enumerate();
    let nodes: Vec<_> =
        nodes.map(|(number, cpu)| node(&format!("node-{number}"), *cpu, 1 << 40, 100)).collect();
    let mut plain = shape(1_000, 1);
    plain.annotations.insert(SAFE_TO_EVICT.to_owned(), "true".to_owned());
    let there = pods("running", sizes.len(), &plain, false).into_iter().zip(&nodes);
    let there = there.map(|(pod, node)| running(pod, &node.name)).collect();
    let mut input = cluster(nodes, there, node("template", 1_000, 1 << 40, 100));
    let mut settings = settings();
    settings.scale_down.threshold = 0.75;
    let section = || {
        let mut memory = Memory::default();
        for minute in [10, 20, 30] {
            input.now = at(minute);
            let outcome = pass(&mut memory, &input, &settings);
            take_away(&mut input, &outcome);
        }
        let capacity: i64 = input.nodes.iter().map(|node| node.allocatable.cpu).sum();
        let used: i64 = input.pods.iter().map(|pod| pod.shape.requests.cpu).sum();
        used * 100 / capacity
    };
    measured(section, |percent| json!({"percent": percent}))
}

/// Does what a pass says, as the provider, the controller of the pods and the scheduler would.
fn take_away(input: &mut Input, outcome: &Outcome) {
    for action in &outcome.actions {
        let Action::Remove(removal) = action else { continue };
        input.nodes.retain(|node| node.name != removal.node);
        for group in &mut input.groups {
            group.target -= 1;
            group.instances.retain(|instance| instance.id != removal.provider_id);
        }
    }
    let used = |pods: &[Arc<Pod>], node: &Node| -> i64 {
        let on = pods.iter().filter(|pod| pod.node.as_ref() == Some(&node.name));
        on.map(|pod| pod.shape.requests.cpu).sum()
    };
    for at in 0..input.pods.len() {
        let pod = &input.pods[at];
        if input.nodes.iter().any(|node| Some(&node.name) == pod.node.as_ref()) {
            continue;
        }
        let free = |node: &&Arc<Node>| node.allocatable.cpu - used(&input.pods, node);
        if let Some(node) = input.nodes.iter().max_by_key(free) {
            input.pods[at] = running((**pod).clone(), &node.name);
        }
    }
}

/// Nodes of 32 cores that 150,000 pods run on, almost full.
fn great() -> (Vec<Node>, Vec<Arc<Pod>>) {
    let mut nodes = Vec::new();
    let mut there = Vec::new();
    for (node, pods) in inhabited(5_000, 30) {
        there.extend(pods.into_iter().map(|pod| running(pod, &node.name)));
        nodes.push(node);
    }
    (nodes, there)
}

/// A pass in which 20,000 of Karpenter's diverse pods wait.
fn beside_others() -> Measured {
    let (nodes, mut pods) = great();
    pods.extend(diverse(20_000).into_iter().map(unschedulable));
    let mut template = node("template", 16_000, 32_768 * MIB, 110);
    template.labels.insert("topology.kubernetes.io/zone".to_owned(), "test-zone-1".to_owned());
    let input = cluster(nodes, pods, template);
    let settings = settings();
    measured(
        || pass(&mut Memory::default(), &input, &settings),
        |outcome| {
            let mut answer = answer(&outcome);
            answer["pods"] = json!(20_000 - outcome.plan.refused.len());
            answer
        },
    )
}

/// A pass in which nothing is new since the one before.
fn idle() -> Measured {
    let (nodes, pods) = great();
    let mut input = cluster(nodes, pods, node("template", 16_000, 32_768 * MIB, 110));
    let mut model = Model::new(settings());
    let mut memory = Memory::default();
    model.pass(&mut memory, &input, &mut |_, _| None);
    input = Input { now: at(2), ..input.clone() };
    measured(|| model.pass(&mut memory, &input, &mut |_, _| None), |outcome| answer(&outcome))
}

/// A pass since the one before which a single pod was replaced.
fn one_pod_later() -> Measured {
    let (nodes, pods) = great();
    let mut input = cluster(nodes, pods, node("template", 16_000, 32_768 * MIB, 110));
    let mut model = Model::new(settings());
    let mut memory = Memory::default();
    model.pass(&mut memory, &input, &mut |_, _| None);
    let mut pods = input.pods.clone();
    pods[70_000] = Arc::new((*pods[70_000]).clone());
    input = Input { now: at(2), pods, ..input };
    measured(|| model.pass(&mut memory, &input, &mut |_, _| None), |outcome| answer(&outcome))
}
