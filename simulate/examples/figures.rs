//! What `cargo xtask bench simulate` measures: OBJECTS objects for DAYS days of samples every 15 s, on NODES nodes (0: nodes
//! are no matter). Prints one JSON object: the seconds of processor time that the run took, which a busy machine does not
//! change, the most memory that the process ever held, in MiB, and counts that tell that something happened.

use std::{collections::BTreeMap, fs, process::ExitCode, sync::Arc};

use serde_json::{Value, json};
use simulate::{
    Input, Manifest, Options,
    shape::{Form, Shape},
};

/// The midnight of a Monday.
const START: i64 = 1_767_571_200;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<u32>().ok());
    let mut argument = |default| arguments.next().unwrap_or(default);
    let (objects, days, nodes) = (argument(1), argument(7), argument(0));
    let input = match input(objects, days, nodes) {
        Ok(input) => input,
        Err(problem) => return complain(&[problem]),
    };
    let begun = processor_seconds();
    match simulate::run(&input, &Options::default()) {
        Ok(outcome) => {
            let most = outcome.nodes.types.iter().flat_map(|kind| &kind.ready).max();
            println!(
                "{}",
                json!({
                    "seconds": processor_seconds() - begun,
                    "peakMiB": peak_kib() / 1024,
                    "scaleEvents": outcome.summary.scale_events,
                    "nodesAdded": outcome.summary.nodes_added,
                    "mostNodes": most,
                })
            );
            ExitCode::SUCCESS
        }
        Err(problems) => complain(&problems),
    }
}

fn complain(problems: &[simulate::Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}");
    }
    ExitCode::FAILURE
}

fn input(objects: u32, days: u32, nodes: u32) -> Result<Input, simulate::Problem> {
    let manifest = |value: Value| Manifest { file: "figures".into(), line: 1, value: Arc::new(value) };
    let mut input = Input { name: "figures".to_owned(), ..Input::default() };
    let mut histories = BTreeMap::new();
    for index in 0..objects {
        let name = format!("object-{index}");
        input.manifests.push(manifest(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": name, "namespace": "figures"},
            "spec": {
                "scaleTargetRef": {"name": name},
                "triggers": [{"type": "prometheus", "metadata": {
                    "serverAddress": "http://prometheus:9090", "query": "sum(rate(x[2m]))", "threshold": "10"}}],
            },
        })));
        input.manifests.push(manifest(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "figures"},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{
                        "name": "app", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
                },
            },
        })));
        let shape =
            Shape { form: Form::Daily, length: days * 86_400, seed: index.into(), ..Shape::default() };
        let history = shape.history(&name, START, 10.0)?;
        histories.insert((format!("figures/{name}"), "0".to_owned()), Arc::new(history));
    }
    input.histories = histories;
    if nodes > 0 {
        input.manifests.push(manifest(json!({
            "apiVersion": "simulate.tandem.dev/v1", "kind": "NodeGroup", "metadata": {"name": "general"},
            "spec": {
                "min": 1, "size": nodes, "max": nodes * 2, "pricePerHour": 0.2,
                "template": {"allocatable": {"cpu": "4", "memory": "16Gi"}},
            },
        })));
    }
    Ok(input)
}

/// The most memory that this process ever held, in KiB; 0 where the system does not say.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Processor time of this thread, which is the only one; 0 where the system does not say.
fn processor_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds: f64 =
        text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default();
    nanoseconds / 1e9
}
