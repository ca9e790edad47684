//! What users get wrong, one by one: `tandem check` and the webhook say the same of it, with what was seen, where, and
//! what to write instead.

use super::*;
use crate::check::{files::Text, manifests, render};

/// A spec that is fine but for `patch`, and what is said of it.
struct Fault {
    patch: &'static str,
    /// Where, in `tandem check` and in the causes of a refusal.
    path: &'static str,
    /// What was seen, and what to write instead.
    said: &'static [&'static str],
}

const fn fault(patch: &'static str, path: &'static str, said: &'static [&'static str]) -> Fault {
    Fault { patch, path, said }
}

const FAULTS: &[Fault] = &[
    // Trigger types and parameters.
    fault(
        "triggers: [{type: promethues, metadata: {}}]",
        "spec.triggers[0]",
        &["unknown trigger type \"promethues\"", "did you mean \"prometheus\"?"],
    ),
    fault(
        "triggers: [{type: prometheus, metadata: {serverAddress: 'http://p', threshold: '1'}}]",
        "spec.triggers[0].metadata",
        &["missing required parameter \"query\" in [triggerMetadata]"],
    ),
    fault(
        "triggers: [{type: metrics-api, metadata: {url: 'http://a', valueLocation: depth, targetValue: '1', format: jsn}}]",
        "spec.triggers[0].metadata.format",
        &["value \"jsn\" must be one of [prometheus json xml yaml]", "did you mean \"json\"?"],
    ),
    // Numbers, durations, addresses.
    fault(
        "triggers: [{type: prometheus, metadata: {serverAddress: 'http://p', query: vector(1), threshold: ten}}]",
        "spec.triggers[0].metadata.threshold",
        &["value \"ten\": expected a number"],
    ),
    fault(
        "triggers: [{type: prometheus, metadata: {serverAddress: 'http://p', query: vector(1), threshold: '0'}}]",
        "spec.triggers[0].metadata.threshold",
        &["threshold must be a number of at least 0.001, is 0"],
    ),
    fault(
        "triggers: [{type: prometheus, metadata: {serverAddress: 'http://p', query: vector(1), threshold: '1', timeout: 5x}}]",
        "spec.triggers[0].metadata.timeout",
        &["value \"5x\"", "a duration string (e.g. '30s', '5m') or a number of milliseconds"],
    ),
    fault(
        "triggers: [{type: prometheus, metadata: {serverAddress: 'prometheus:9090', query: vector(1), threshold: '1'}}]",
        "spec.triggers[0].metadata.serverAddress",
        &[
            "\"prometheus:9090\" is not an http or https URL with a host",
            "\"http://prometheus.monitoring:9090\"",
        ],
    ),
    fault(
        "triggers: [{type: external, metadata: {scalerAddress: 'scaler:port'}}]",
        "spec.triggers[0].metadata.scalerAddress",
        &["\"scaler:port\" is not the address of a gRPC server", "host:port"],
    ),
    // Cron lines, time zones, formulas, PromQL.
    fault(
        "triggers: [{type: cron, metadata: {timezone: UTC, start: 0 8 * *, end: 0 18 * * *, desiredReplicas: '3'}}]",
        "spec.triggers[0].metadata.start",
        &["expected exactly 5 fields, found 4: [0 8 * *]", "minute hour day-of-month month day-of-week"],
    ),
    fault(
        "triggers: [{type: cron, metadata: {timezone: Europe/Berln, start: 0 8 * * *, end: 0 18 * * *, desiredReplicas: '3'}}]",
        "spec.triggers[0].metadata.timezone",
        &["unknown time zone Europe/Berln", "did you mean \"Europe/Berlin\"?"],
    ),
    fault(
        "advanced: {scalingModifiers: {formula: 'a +', target: '1'}}",
        "spec.advanced.scalingModifiers.formula",
        &["error validating formula in ScalingModifiers", "a +"],
    ),
    fault(
        "advanced: {scalingModifiers: {formula: '1 + 1', target: many}}",
        "spec.advanced.scalingModifiers.target",
        &["\"many\" is not a number above zero"],
    ),
    fault(
        "triggers: [{type: prometheus, metadata: {serverAddress: 'http://p', query: 'sum(rate(x[2m])', threshold: '1'}}]",
        "spec.triggers[0].metadata.query",
        &["query \"sum(rate(x[2m])\" is not PromQL", "unclosed left parenthesis"],
    ),
    // Counts.
    fault(
        "{minReplicaCount: 5, maxReplicaCount: 3}",
        "spec.minReplicaCount",
        &["MinReplicaCount=5 must be less than MaxReplicaCount=3"],
    ),
    fault("minReplicaCount: -1", "spec.minReplicaCount", &["must be at least 0, not -1"]),
];

#[tokio::test]
async fn is_said_alike_by_check_and_webhook() {
    for Fault { patch, path, said } in FAULTS {
        let object = scaled_object(patch);
        let text = Text { name: "bad.yaml".to_owned(), content: object.to_string() };
        let outcome = manifests::check(&[text]);
        let errors: Vec<_> =
            outcome.findings.iter().filter(|it| it.severity == manifests::Severity::Error).collect();
        let printed = render::text(&outcome);
        assert_eq!(errors.len(), 1, "{patch}: {printed}");

        let refusal = create(&object, &[]).await;
        assert!(!refusal.allowed(), "{patch}");
        let causes = refusal.0["status"]["details"]["causes"].as_array().unwrap();
        assert_eq!(causes.len(), 1, "{patch}: {}", refusal.message());
        assert_eq!(causes[0]["field"], *path, "{patch}");
        for part in said.iter().chain([path]) {
            assert!(printed.contains(part), "{patch}: check does not say {part:?}: {printed}");
        }
        for part in *said {
            assert!(
                refusal.message().contains(part),
                "{patch}: the webhook does not say {part:?}: {}",
                refusal.message()
            );
        }
    }
}

/// A name that leads nowhere is known to a cluster only, and is no refusal: what it names may come a moment later.
#[tokio::test]
async fn what_is_not_there_yet_is_a_warning() {
    let authenticated = scaled_object(
        "triggers: [{type: prometheus, authenticationRef: {name: nobody}, \
         metadata: {serverAddress: 'http://p', query: vector(1), threshold: '1', authModes: basic}}]",
    );
    let answer = create(&authenticated, &[]).await;
    assert!(answer.allowed(), "{}", answer.message());
    assert!(
        answer.warnings().iter().any(|warning| warning.contains("\"nobody\"")),
        "{:?}",
        answer.warnings()
    );
}
