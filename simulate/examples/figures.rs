//! What `cargo xtask bench simulate` measures.
//!
//! `figures OBJECTS DAYS NODES`: one world of so many objects with samples every 15 s (0 nodes: they are no matter).
//! `figures sweep THREADS`: a hundred settings of one object over a day. Prints one JSON object: the seconds of processor time
//! that it took, which a busy machine does not change, the most memory that the process ever held, in MiB, and what tells that
//! something happened.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZero,
    process::ExitCode,
    sync::Arc,
};

use serde_json::{Value, json};
use simulate::{
    Input, Manifest, Options, Problem,
    shape::{Form, Shape},
    sweep::{self, Wish},
};

/// The midnight of a Monday.
const START: i64 = 1_767_571_200;
/// A hundred settings.
const SWEPT: [&str; 2] = ["threshold=5..24", "max=20..100/20"];
/// Clock ticks a second, in which Linux counts the time of a process for everybody.
const TICKS: f64 = 100.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, default| arguments.get(place).and_then(|text| text.parse().ok()).unwrap_or(default);
    let figures = if arguments.first().is_some_and(|first| first == "sweep") {
        of_sweep(number(1, 1))
    } else {
        of_world(number(0, 1), number(1, 7), number(2, 0))
    };
    match figures {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            ExitCode::FAILURE
        }
    }
}

fn of_world(objects: u32, days: u32, nodes: u32) -> Result<Value, Vec<Problem>> {
    let input = input(objects, days, nodes).map_err(|problem| vec![problem])?;
    let begun = thread_seconds();
    let outcome = simulate::run(&input, &Options::default())?;
    let seconds = thread_seconds() - begun;
    let most = outcome.nodes.types.iter().flat_map(|kind| &kind.ready).max();
    Ok(json!({
        "seconds": seconds,
        "peakMiB": peak_kib() / 1024,
        "scaleEvents": outcome.summary.scale_events,
        "nodesAdded": outcome.summary.nodes_added,
        "mostNodes": most,
    }))
}

fn of_sweep(threads: u32) -> Result<Value, Vec<Problem>> {
    let one = |problem| vec![problem];
    let input = input(1, 1, 0).map_err(one)?;
    let dimensions: Result<Vec<_>, _> = SWEPT.iter().map(|text| text.parse()).collect();
    let dimensions = dimensions.map_err(|problem: String| one(Problem::new(problem)))?;
    let threads = NonZero::new(threads as usize);
    let begun = process_seconds();
    let sweep = sweep::sweep(&input, &Options::default(), &dimensions, &Wish { threads, ..Wish::default() })?;
    let seconds = process_seconds() - begun;
    let mut digest = DefaultHasher::new();
    sweep.to_string().hash(&mut digest);
    json!(sweep).to_string().hash(&mut digest);
    Ok(json!({
        "seconds": seconds,
        "peakMiB": peak_kib() / 1024,
        "settings": sweep.points.len(),
        "scaleEvents": sweep.points.iter().map(|point| point.summary.scale_events).sum::<u64>(),
        "digest": format!("{:016x}", digest.finish()),
    }))
}

fn input(objects: u32, days: u32, nodes: u32) -> Result<Input, Problem> {
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

/// Processor time of this thread; 0 where the system does not say.
fn thread_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds: f64 =
        text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default();
    nanoseconds / 1e9
}

/// Processor time of the process with all its threads; 0 where the system does not say.
fn process_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold spaces: state, then user and system time as fields 12 and 13.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}
