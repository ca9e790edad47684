//! What `kubectl apply` says to objects that cannot work.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::case::{Case, scaled_object};

/// Applies as a user does; the refusal's text.
async fn refusal(case: &Case<'_>, manifest: &Value) -> Result<String> {
    match case.kubectl_apply(manifest).await {
        Ok(printed) => bail!("accepted: {printed}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

pub(crate) async fn refusals(case: &Case<'_>) -> Result<()> {
    case.deployment("shop", 1).await?;
    let good = || case.prometheus("vector(1)", "10");
    let mut misspelt = good();
    misspelt["type"] = json!("promethues");
    let mut no_query = good();
    no_query["metadata"].as_object_mut().unwrap().remove("query");
    let mut bad_number = good();
    bad_number["metadata"]["threshold"] = json!("ten");
    let mut bad_query = good();
    bad_query["metadata"]["query"] = json!("sum(rate(x[5m])");
    let named = |name: &str| {
        let mut trigger = good();
        trigger["name"] = json!(name);
        trigger
    };
    let bad_cron = json!({
        "type": "cron",
        "metadata": { "timezone": "Mars/Olympus", "start": "99 * * * *", "end": "0 1 * * *", "desiredReplicas": "2" },
    });
    let only_cpu = json!({ "type": "cpu", "metricType": "Utilization", "metadata": { "value": "50" } });
    let formula = |formula: &str| json!({ "scalingModifiers": { "formula": formula, "target": "1" } });

    // (what is wrong, the spec, what the refusal must name)
    let cases: [(&str, Value, &[&str]); 10] = [
        ("unknown trigger type", json!({ "triggers": [misspelt] }), &["promethues", "prometheus"]),
        ("missing parameter", json!({ "triggers": [no_query] }), &["query"]),
        ("not a number", json!({ "triggers": [bad_number] }), &["threshold", "ten"]),
        ("PromQL that does not parse", json!({ "triggers": [bad_query] }), &["query"]),
        ("cron and time zone", json!({ "triggers": [bad_cron] }), &["Mars/Olympus", "99"]),
        (
            "min above max",
            json!({ "minReplicaCount": 5, "maxReplicaCount": 2, "triggers": [good()] }),
            &["minReplicaCount"],
        ),
        ("one name twice", json!({ "triggers": [named("a"), named("a")] }), &["a"]),
        (
            "formula with a stranger",
            json!({ "triggers": [named("a")], "advanced": formula("a + b") }),
            &["b"],
        ),
        ("cpu alone to zero", json!({ "minReplicaCount": 0, "triggers": [only_cpu] }), &["scale to zero"]),
        (
            "all at once",
            json!({ "idleReplicaCount": 5, "minReplicaCount": 2, "triggers": [bad_number.clone()] }),
            &["IdleReplicaCount", "threshold"],
        ),
    ];
    for (what, spec, named) in cases {
        let text = refusal(case, &scaled_object("shop", spec)).await.map_err(|error| error.context(what))?;
        for part in named {
            ensure!(text.contains(part), "{what}: the refusal does not name {part:?}: {text}");
        }
    }
    let mut authentication = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": { "name": "cloud" },
        "spec": { "podIdentity": { "provider": "aws", "roleArn": "arn:aws:iam::1:role/x" } },
    });
    case.kubectl_apply(&authentication).await?;
    authentication["spec"]["podIdentity"]["identityOwner"] = json!("workload");
    let text = refusal(case, &authentication).await?;
    ensure!(text.contains("roleArn"), "{text}");
    Ok(())
}

/// Two masters for one workload.
pub(crate) async fn targets_taken(case: &Case<'_>) -> Result<()> {
    case.deployment("shop", 1).await?;
    case.deployment("other", 1).await?;
    let trigger = || case.prometheus("vector(1)", "10");
    case.scaled_object("shop", json!({ "triggers": [trigger()] })).await?;
    case.hpa("shop").await?;
    let second =
        scaled_object("second", json!({ "scaleTargetRef": { "name": "shop" }, "triggers": [trigger()] }));
    let text = refusal(case, &second).await?;
    ensure!(text.contains("is already managed by"), "{text}");

    case.kubectl(&["autoscale", "deployment/other", "--max=3", "--cpu=50%"]).await?;
    let text = refusal(case, &scaled_object("other", json!({ "triggers": [trigger()] }))).await?;
    ensure!(text.contains("is already managed by the hpa 'other'"), "{text}");

    // Adoption, as KEDA spells it.
    let adopting = json!({
        "triggers": [trigger()], "advanced": { "horizontalPodAutoscalerConfig": { "name": "other" } },
    });
    let mut adopting = scaled_object("other", adopting);
    adopting["metadata"]["annotations"] = json!({ "scaledobject.keda.sh/transfer-hpa-ownership": "true" });
    case.kubectl_apply(&adopting).await?;
    case.wait_condition("other", "Ready", "True", "").await?;
    let hpa = serde_json::to_value(case.hpas().get("other").await?)?;
    ensure!(hpa["metadata"]["ownerReferences"][0]["kind"] == "ScaledObject", "{hpa}");
    Ok(())
}

/// Objects that went in while nobody looked (the webhooks are away, `failurePolicy: Ignore`): each is told in its own
/// condition what is wrong with it, disturbs no other, and leaves its pods alone.
pub(crate) async fn nobody_checked(case: &Case<'_>) -> Result<()> {
    case.world.stop_replicas().await?;
    let applied = apply_unchecked(case).await;
    case.world.start_replicas().await?;
    applied?;
    for Unchecked { name, said, .. } in unchecked(case) {
        let message = case.wait_condition(name, "Ready", "False", "ScaledObjectCheckFailed").await?;
        for part in said {
            ensure!(message.contains(part), "{name}: the condition does not say {part:?}: {message}");
        }
        let hpa = case.hpas().get_opt(&format!("keda-hpa-{name}")).await?;
        ensure!(hpa.is_none(), "{name} has an HPA");
    }
    case.wait_replicas("good", 3).await?;
    for Unchecked { name, .. } in unchecked(case).iter().filter(|it| it.name != "nowhere") {
        case.replicas_stay(name, 2, Duration::from_secs(1)).await?;
    }
    // The HPA that was there first works on, until it is deleted.
    let hpa = serde_json::to_value(case.hpas().get("taken").await?)?;
    ensure!(!hpa["status"]["conditions"].to_string().contains("AmbiguousSelector"), "{hpa}");
    case.hpas().delete("taken", &DeleteParams::default()).await?;
    case.wait_condition("taken", "Ready", "True", "ScaledObjectReady").await?;
    Ok(())
}

/// An object that the webhook would have refused, or that it cannot judge.
struct Unchecked {
    name: &'static str,
    spec: Value,
    /// What its condition must say.
    said: &'static [&'static str],
}

fn unchecked(case: &Case<'_>) -> [Unchecked; 7] {
    let prometheus = |parameter: &str, value: Option<&str>| {
        let mut trigger = case.prometheus("vector(50)", "10");
        trigger["metadata"][parameter] = json!(value);
        trigger["metadata"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        trigger
    };
    let mut misspelt = case.prometheus("vector(50)", "10");
    misspelt["type"] = json!("promethues");
    let cron = json!({
        "type": "cron",
        "metadata": { "timezone": "Mars/Olympus", "start": "99 * * * *", "end": "0 1 * * *", "desiredReplicas": "2" },
    });
    let formula = json!({ "scalingModifiers": { "formula": "a + b", "target": "1" } });
    let spec = |trigger: Value| json!({ "minReplicaCount": 1, "triggers": [trigger] });
    let good = || case.prometheus("vector(50)", "10");
    [
        Unchecked {
            name: "misspelt",
            spec: spec(misspelt),
            said: &["trigger 0", "unknown trigger type \"promethues\"", "did you mean \"prometheus\"?"],
        },
        Unchecked {
            name: "queryless",
            spec: spec(prometheus("query", None)),
            said: &["trigger 0 (prometheus)", "missing required parameter \"query\""],
        },
        Unchecked {
            name: "wordy",
            spec: spec(prometheus("threshold", Some("ten"))),
            said: &["param \"threshold\" value \"ten\": expected a number"],
        },
        Unchecked {
            name: "martian",
            spec: spec(cron),
            said: &["error parsing start schedule", "unknown time zone Mars/Olympus"],
        },
        Unchecked {
            name: "formulaic",
            spec: json!({ "minReplicaCount": 1, "triggers": [good()], "advanced": formula }),
            said: &["error validating formula in ScalingModifiers", "a + b"],
        },
        Unchecked {
            name: "nowhere",
            spec: spec(good()),
            said: &["Target resource doesn't exist: Deployment nowhere"],
        },
        Unchecked {
            name: "taken",
            spec: spec(good()),
            said: &["is already managed by the hpa 'taken'", "delete that HPA, or hand it over"],
        },
    ]
}

async fn apply_unchecked(case: &Case<'_>) -> Result<()> {
    for Unchecked { name, spec, .. } in unchecked(case) {
        if name != "nowhere" {
            case.deployment(name, 2).await?;
        }
        case.scaled_object(name, spec).await?;
    }
    case.kubectl(&["autoscale", "deployment/taken", "--min=2", "--max=3", "--cpu=50%"]).await?;
    // The kind's own schema holds while nobody looks.
    let upside_down =
        json!({ "minReplicaCount": 5, "maxReplicaCount": 2, "triggers": [case.prometheus("up", "1")] });
    let text = refusal(case, &scaled_object("upside-down", upside_down)).await?;
    ensure!(text.contains("minReplicaCount must be less than or equal to maxReplicaCount"), "{text}");
    case.deployment("good", 1).await?;
    let trigger = case.prometheus("vector(30)", "10");
    case.scaled_object("good", json!({ "triggers": [trigger] })).await
}

pub(crate) async fn warnings(case: &Case<'_>) -> Result<()> {
    case.deployment("shop", 1).await?;
    // (the query, what the warning must name)
    let cases = [
        (r#"sum(http_requests_total{app="shop"})"#, "rate("),
        (r#"http_requests_total{app="shop"}"#, "sum("),
    ];
    for (query, advice) in cases {
        let spec = json!({ "minReplicaCount": 1, "triggers": [case.prometheus(query, "10")] });
        let printed = case.kubectl_apply(&scaled_object("shop", spec)).await?;
        ensure!(printed.contains("Warning:") && printed.contains(advice), "{query}: {printed}");
    }
    let spec = json!({ "minReplicaCount": 0, "triggers": [case.prometheus("sum(rate(http_requests_total[2m]))", "10")] });
    let printed = case.kubectl_apply(&scaled_object("shop", spec)).await?;
    ensure!(!printed.contains("Warning:"), "a good object is warned about: {printed}");
    Ok(())
}
