//! `drain`: which pods leave with a node, and which keep it.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{core::v1 as k8s, policy::v1::PodDisruptionBudget};
use serde_json::{Value, json};
use tandem_core::{
    nodes::drain::{
        self, BlockingReason, Budget, Budgets, Context, Evictable, Opinion, Options, Outcome, OutcomeKind,
        Owners, Rule,
    },
    scheduling::Pod,
};

use super::{Differences, Verdict, read};

pub(super) fn judge(case: &Value) -> Verdict {
    match case["level"].as_str() {
        Some("node") => node(case),
        Some("rule") => rule(case),
        Some("ruleChain") => rule_chain(case),
        Some("pdbCanRemove") => can_remove(case),
        Some("pdbRemove") => remove(case),
        _ => Verdict::Disagrees(format!("no runner knows the level {}", case["level"])),
    }
}

fn pods(case: &Value) -> Vec<Arc<Pod>> {
    let pods: Vec<k8s::Pod> = read(&case["pods"]);
    pods.iter().map(|pod| Arc::new(Pod::read(pod, Arc::new))).collect()
}

fn budgets(case: &Value) -> Budgets {
    let budgets: Vec<PodDisruptionBudget> = read(&case["pdbs"]);
    Budgets::new(budgets.iter().map(Budget::read))
}

/// Cases leave out options that do not matter.
fn options(case: &Value) -> Options {
    let options = &case["options"];
    let flag = |name: &str| options[name].as_bool().unwrap_or(true);
    Options {
        skip_system_pods: flag("skipNodesWithSystemPods"),
        skip_local_storage: flag("skipNodesWithLocalStorage"),
        skip_custom_controllers: flag("skipNodesWithCustomControllerPods"),
        min_replica_count: read(&options["minReplicaCount"]),
        system_pod_timeout: SignedDuration::from_secs(read(&options["bspDisruptionTimeoutSeconds"])),
    }
}

/// The controllers that a case says exist; `None` if they are not looked up.
fn owners(case: &Value) -> Option<Owners> {
    let objects = case["objects"].as_object()?;
    let mut owners = Owners::default();
    for (field, kind) in [
        ("replicationControllers", "ReplicationController"),
        ("replicaSets", "ReplicaSet"),
        ("daemonSets", "DaemonSet"),
        ("jobs", "Job"),
        ("statefulSets", "StatefulSet"),
    ] {
        let listed = objects.get(field).and_then(Value::as_array).into_iter().flatten();
        let text = |value: &Value| Arc::<str>::from(value.as_str().unwrap_or_default());
        owners.add(
            kind,
            listed.map(|object| {
                let metadata = &object["metadata"];
                (text(&metadata["namespace"]), text(&metadata["name"]), read(&object["spec"]["replicas"]))
            }),
        );
    }
    Some(owners)
}

/// Runs `check` with what the rules of a case look at.
fn with_context<T>(case: &Value, check: impl FnOnce(&Context<'_>) -> T) -> T {
    let now: Timestamp = read(&case["now"]);
    let (options, owners, budgets) = (options(case), owners(case), budgets(case));
    check(&Context { options: &options, owners: owners.as_ref(), budgets: &budgets, now })
}

fn prepended(case: &Value) -> Vec<Rule> {
    let names: Vec<String> = read(&case["prependedRules"]);
    let rule = |name: &str| -> Rule {
        match name {
            "alwaysDrain" => |_, _| Some(Outcome::Drain),
            "alwaysBlock" => |_, _| Some(Outcome::Blocked(BlockingReason::UnexpectedError, String::new())),
            "undecided" => |_, _| None,
            _ => panic!("no rule {name}"),
        }
    };
    names.iter().map(|name| rule(name)).collect()
}

fn node(case: &Value) -> Verdict {
    let pods = pods(case);
    let verdict = with_context(case, |context| drain::node_with(&prepended(case), &pods, context));
    let blocker = verdict.blocked.as_ref().map(|(pod, ..)| pod);
    let among = |list: &[Arc<Pod>], pod: &Arc<Pod>| list.iter().any(|other| Arc::ptr_eq(other, pod));
    let mut outcomes = Vec::new();
    for pod in &pods {
        if blocker.is_some_and(|blocker| Arc::ptr_eq(blocker, pod)) {
            outcomes.push("blocked");
            break;
        }
        outcomes.push(match pod {
            pod if among(&verdict.drain, pod) => "drain",
            pod if among(&verdict.daemon, pod) => "drainDaemonSet",
            pod if among(&verdict.waiting, pod) => "waitForCompletion",
            _ => "skip",
        });
    }
    let expected = &case["expected"];
    let index = blocker.and_then(|blocker| pods.iter().position(|pod| Arc::ptr_eq(blocker, pod)));
    let reason = verdict.blocked.as_ref().map(|(_, reason, _)| reason.name().to_owned());
    let mut differences = Differences::default();
    differences.same("outcomes", json!(outcomes), expected["outcomes"].clone());
    differences.same("blocked", blocker.is_some(), read(&expected["blocked"]));
    differences.same("blocking pod", index, read(&expected["blockingPodIndex"]));
    differences.same("reason", reason, read(&expected["blockingReason"]));
    differences.verdict()
}

fn name(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        None => "undefined",
        Some(Outcome::Drain) => "drain",
        Some(Outcome::DrainDaemonSet) => "drainDaemonSet",
        Some(Outcome::Skip) => "skip",
        Some(Outcome::WaitForCompletion) => "waitForCompletion",
        Some(Outcome::Blocked(..)) => "blocked",
    }
}

fn rule(case: &Value) -> Verdict {
    let rule: String = read(&case["rule"]);
    let pods = pods(case);
    let pod = pods.first().expect("a pod");
    let outcome = with_context(case, |context| drain::by_rule(&rule, pod, context));
    let expected = &case["expected"];
    let mut differences = Differences::default();
    if let Some(wanted) = expected["outcome"].as_str() {
        // A rule alone only says that a pod may go: the node's verdict tells those of DaemonSets from others.
        let plain = |name| if name == "drainDaemonSet" { "drain" } else { name };
        differences.same("outcome", plain(name(outcome.as_ref())), plain(wanted));
    }
    let reason = match &outcome {
        Some(Outcome::Blocked(reason, _)) => Some(reason.name().to_owned()),
        _ => None,
    };
    differences.same("blocked", reason.is_some(), read(&expected["blocked"]));
    differences.same("reason", reason, read(&expected["blockingReason"]));
    differences.verdict()
}

fn outcome(status: &Value) -> Option<Outcome> {
    Some(match status["outcome"].as_str()? {
        "undefined" => return None,
        "drain" => Outcome::Drain,
        "drainDaemonSet" => Outcome::DrainDaemonSet,
        "skip" => Outcome::Skip,
        "waitForCompletion" => Outcome::WaitForCompletion,
        "blocked" => Outcome::Blocked(blocking_reason(&status["blockingReason"]), String::new()),
        other => panic!("no outcome {other}"),
    })
}

fn blocking_reason(name: &Value) -> BlockingReason {
    use BlockingReason as Reason;
    let all = [
        Reason::ControllerNotFound,
        Reason::MinReplicasReached,
        Reason::NotReplicated,
        Reason::LocalStorageRequested,
        Reason::NotSafeToEvictAnnotation,
        Reason::UnmovableKubeSystemPod,
        Reason::NotEnoughPdb,
    ];
    all.into_iter().find(|reason| *name == reason.name()).unwrap_or(Reason::UnexpectedError)
}

fn opinion(status: &Value) -> Opinion {
    let kind = |name: &String| match name.as_str() {
        "drain" | "drainDaemonSet" => OutcomeKind::Drain,
        "skip" => OutcomeKind::Skip,
        "waitForCompletion" => OutcomeKind::WaitForCompletion,
        "blocked" => OutcomeKind::Blocked,
        other => panic!("no outcome {other}"),
    };
    let overrides: Vec<String> = read(&status["overrides"]);
    Opinion { outcome: outcome(status), overrides: overrides.iter().map(kind).collect() }
}

fn rule_chain(case: &Value) -> Verdict {
    let statuses = case["ruleStatuses"].as_array().expect("a list");
    let got = drain::decide(statuses.iter().map(opinion));
    let mut differences = Differences::default();
    differences.same("opinion", got, opinion(&case["expected"]));
    differences.verdict()
}

fn can_remove(case: &Value) -> Verdict {
    let (can, in_parallel) = match budgets(case).can_evict(&pods(case)) {
        Evictable::InParallel => (true, true),
        Evictable::InTurn => (true, false),
        Evictable::Not(_) => (false, false),
    };
    let expected = &case["expected"];
    let mut differences = Differences::default();
    differences.same("can remove", can, read(&expected["canRemove"]));
    differences.same("in parallel", in_parallel, read(&expected["inParallel"]));
    differences.verdict()
}

fn remove(case: &Value) -> Verdict {
    let mut budgets = budgets(case);
    budgets.evict(&pods(case));
    let after: BTreeMap<String, i32> =
        budgets.allowed().map(|budget| (budget.name.to_string(), budget.allowed)).collect();
    let mut differences = Differences::default();
    differences.same("allowed", after, read(&case["expected"]["disruptionsAllowedAfter"]));
    differences.verdict()
}
