//! What `cargo xtask bench simulate` measures: `objects` objects for `days` days, with nodes if there are more than one.
//! Prints the seconds that the run took and the points it made.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use serde_json::json;
use simulate::{
    Input, Manifest, Options,
    shape::{Form, Shape},
};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>().unwrap_or(1));
    let (objects, days) = (arguments.next().unwrap_or(1), arguments.next().unwrap_or(7));
    let manifest = |value| Manifest { file: "bench".into(), line: 1, value: Arc::new(value) };
    let mut input = Input { name: "bench".to_owned(), ..Input::default() };
    let mut histories = BTreeMap::new();
    for index in 0..objects {
        let name = format!("object-{index}");
        input.manifests.push(manifest(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": name, "namespace": "bench"},
            "spec": {
                "scaleTargetRef": {"name": name},
                "triggers": [{"type": "prometheus", "metadata": {
                    "serverAddress": "http://prometheus:9090", "query": "sum(rate(x[2m]))", "threshold": "10"}}],
            },
        })));
        input.manifests.push(manifest(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "bench"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{
                "name": "app", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}}},
        })));
        let shape =
            Shape { form: Form::Daily, length: days * 86_400, seed: index.into(), ..Shape::default() };
        match shape.history(&name, 1_767_571_200, 10.0) {
            Ok(history) => histories.insert((format!("bench/{name}"), "0".to_owned()), Arc::new(history)),
            Err(problem) => return eprintln!("{problem}"),
        };
    }
    input.histories = histories;
    let begun = Instant::now();
    match simulate::run(&input, &Options::default()) {
        Ok(outcome) => println!(
            "{:.3} s, {} scale events, {} points",
            begun.elapsed().as_secs_f64(),
            outcome.summary.scale_events,
            outcome.axis.points
        ),
        Err(problems) => problems.iter().for_each(|problem| eprintln!("{problem}")),
    }
}
