//! `expanders`: which of several groups grows.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1 as k8s;
use serde_json::Value;
use tandem_core::{
    nodes::expander::{
        Chain, Choice, Context, Expander, Pricing, Priorities, Progress, preferred_cpu, score, unfitness,
    },
    quantity::parse_milli,
    scheduling::{Node, Resources, resources::pod_requests},
};

use super::{Differences, Verdict, read};

pub(super) fn judge(case: &Value) -> Verdict {
    match case["expander"].as_str() {
        Some("price-preferred-node") => preferred_node(case),
        Some("price-unfitness") => node_unfitness(case),
        Some("chain") => chain(case),
        Some(name) => one(case, name),
        None => Verdict::Disagrees("the case names no expander".to_owned()),
    }
}

fn node(node: &Value) -> Node {
    Node::read(&read::<k8s::Node>(node))
}

fn choices(case: &Value) -> Vec<Choice> {
    case["options"].as_array().into_iter().flatten().map(|option| choice(case, option)).collect()
}

fn choice(case: &Value, option: &Value) -> Choice {
    let pods: Vec<k8s::Pod> = read(&option["pods"]);
    let mut requested = Resources::default();
    for pod in &pods {
        requested.add(&pod_requests(pod));
    }
    let count = u32::try_from(pods.len()).expect("few pods");
    let price = |pod: &k8s::Pod| case["podPrices"][pod.metadata.name.as_deref()?].as_f64();
    Choice {
        group: option["group"].as_str().expect("a name").into(),
        nodes: read(&option["nodeCount"]),
        pods: option["podCount"].as_u64().map_or(count, |count| u32::try_from(count).expect("few pods")),
        requested,
        capacity: node(&option["template"]).capacity,
        pricing: Pricing {
            node: option["nodePrice"].as_f64(),
            pods: pods.iter().map(price).sum(),
            stabilization: case["stabilizationPodPrice"].as_f64().unwrap_or(0.0),
            has_gpu: false,
            exists: option["exists"].as_bool().unwrap_or(true),
        },
    }
}

fn names(choices: &[Choice], left: &[usize]) -> Vec<String> {
    left.iter().map(|choice| choices[*choice].group.to_string()).collect()
}

fn one(case: &Value, name: &str) -> Verdict {
    let choices = choices(case);
    let data: BTreeMap<String, String> = read(&case["configMap"]["data"]);
    let priorities = Priorities::of_config_map(&data).ok();
    // The preferred node of a case is given; ours follows from the size of a cluster.
    let preferred = node(&case["preferredNode"]).capacity.cpu;
    let sizes = [0, 3, 7, 21, 61, 201];
    let cluster_nodes = sizes.into_iter().find(|size| preferred_cpu(*size) == preferred).unwrap_or(0);
    let context = Context { priorities: priorities.as_ref(), cluster_nodes, seed: 0 };
    let chain: Chain = name.parse().expect("an expander");
    let mut differences = Differences::default();
    match chain.begin(&choices, &context, &mut Vec::new()) {
        Progress::Left(left) => {
            differences.same("kept", names(&choices, &left), read(&case["expected"]));
        }
        Progress::Ask(_) => differences.holds(false, || format!("{name} is asked outside")),
    }
    let scores: BTreeMap<String, f64> = read(&case["derivedScores"]);
    for choice in &choices {
        let Some(wanted) = scores.get(&*choice.group) else { continue };
        let got = score(choice, preferred).map(|score| score.total);
        let near = got.is_some_and(|got| (got - wanted).abs() <= 1e-9 * wanted.abs());
        differences.holds(near, || format!("score of {}: got {got:?}, wanted {wanted}", choice.group));
    }
    differences.verdict()
}

/// Filters that are made up answer as a server would.
fn chain(case: &Value) -> Verdict {
    let filters: Vec<String> = read(&case["filters"]);
    let choices = choices(case);
    let chain = Chain::new(vec![Expander::Grpc; filters.len()]);
    let (context, mut events) = (Context::default(), Vec::new());
    let mut progress = chain.begin(&choices, &context, &mut events);
    let mut filters = filters.iter();
    let left = loop {
        match progress {
            Progress::Left(left) => break left,
            Progress::Ask(question) => {
                let filter = filters.next().expect("one question a filter");
                let named = |choice: &&usize| choices[**choice].group.contains(filter.as_str());
                let kept: Vec<usize> = question.left.iter().filter(named).copied().collect();
                progress = chain.answer(&question, &kept, &choices, &context, &mut events);
            }
        }
    };
    let fallback: String = read(&case["fallback"]);
    let chosen = match &*left {
        [one] => Some(*one),
        _ => left.iter().copied().find(|choice| choices[*choice].group.contains(&fallback)),
    };
    let mut differences = Differences::default();
    let chosen: Vec<usize> = chosen.into_iter().collect();
    differences.same("chosen", names(&choices, &chosen), read(&case["expected"]));
    differences.verdict()
}

fn preferred_node(case: &Value) -> Verdict {
    let mut differences = Differences::default();
    let wanted: Arc<str> = case["expectedCpu"].as_str().expect("a quantity").into();
    let got = preferred_cpu(read(&case["clusterNodes"]));
    differences.same("cpu", got, parse_milli(&wanted).expect("a quantity"));
    differences.verdict()
}

fn node_unfitness(case: &Value) -> Verdict {
    let cpu = |part: &str| node(&case[part]).capacity.cpu;
    let mut differences = Differences::default();
    let wanted = case["expected"].as_f64();
    differences.same("unfitness", Some(unfitness(cpu("preferred"), cpu("evaluated"))), wanted);
    differences.verdict()
}
