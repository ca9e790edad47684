//! What `tandem check` prints, as golden files, and the schema's findings as a table.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    files::Text,
    manifests::{self, Set, Severity},
    *,
};

fn text(name: &str, content: &str) -> Text {
    Text { name: name.to_owned(), content: content.to_owned() }
}

/// The manifest that a KEDA user brings, in its older form.
const NGINX: &str = r#"apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: nginx, namespace: web}
spec:
  scaleTargetRef: {kind: Deployment, name: nginx}
  minReplicaCount: 1
  maxReplicaCount: 10
  cooldownPeriod: 30
  pollingInterval: 1
  triggers:
  - type: prometheus
    metadata:
      serverAddress: http://prometheus-operated.monitoring:9090
      metricName: istio_requests_total_keda
      query: |
        sum(istio_requests_total{destination_app="nginx"})
      threshold: "10"
"#;

const BROKEN: &str = r#"# Several faults, each on a line of its own.
apiVersion: v1
kind: Namespace
metadata:
  name: web
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: api
  namespace: web
spec:
  scaleTargetRef:
    name: api
  pollingIntervall: 5
  minReplicaCount: 5
  maxReplicaCount: 3
  triggers:
    - type: prometheus
      metadata:
        serverAddress: http://prometheus:9090
        query: sum(rate(http_requests_total[2m])
        treshold: "10"
    - type: promethues
      metadata: {}
    - type: cron
      metadata:
        timezone: Europe/Zurich
        start: 0 8 * *
        end: 0 18 * * *
        desiredReplicas: many
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: unquoted
  namespace: web
  annotations:
    autoscaling.keda.sh/paused: true
spec:
  triggers:
    - type: cron
      metadata:
        desiredReplicas: 3
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObjekt
metadata: {name: x}
---
apiVersion: keda.k8s.io/v1alpha1
kind: ScaledObject
metadata: {name: old}
"#;

const CONFLICTS: &str = "apiVersion: v1
kind: List
items:
  - apiVersion: keda.sh/v1alpha1
    kind: ScaledObject
    metadata: {name: first}
    spec:
      scaleTargetRef: {name: api}
      triggers: [{type: kubernetes-workload, metadata: {podSelector: app=x, value: '1'}}]
  - apiVersion: keda.sh/v1alpha1
    kind: ScaledObject
    metadata: {name: second, namespace: default}
    spec:
      scaleTargetRef: {name: api}
      triggers: [{type: kubernetes-workload, metadata: {podSelector: app=x, value: '1'}}]
  - apiVersion: keda.sh/v1alpha1
    kind: ScaledObject
    metadata: {name: third}
    spec:
      scaleTargetRef: {name: worker}
      minReplicaCount: 1
      triggers: [{type: cpu, metricType: Utilization, metadata: {value: '60'}}]
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {name: worker}
    spec:
      selector: {}
      template: {spec: {containers: [{name: main}]}}
  - apiVersion: autoscaling/v2
    kind: HorizontalPodAutoscaler
    metadata: {name: by-hand}
    spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}}
";

#[test]
fn a_manifest_of_keda_passes_with_warnings() {
    let outcome = manifests::check(&[text("nginx.yaml", NGINX)]);
    assert_eq!(outcome.count(Severity::Error), 0);
    insta::assert_snapshot!(render::text(&outcome));
}

#[test]
fn every_fault_has_its_line() {
    insta::assert_snapshot!(render::text(&manifests::check(&[text("broken.yaml", BROKEN)])));
}

#[test]
fn objects_of_the_set_clash() {
    insta::assert_snapshot!(render::text(&manifests::check(&[text("list.yaml", CONFLICTS)])));
}

#[test]
fn machine_readable() {
    let outcome = manifests::check(&[text("a.yaml", CONFLICTS), text("b.yaml", "a: [1\n")]);
    insta::assert_snapshot!(render::json(&outcome));
}

#[test]
fn texts_that_are_no_manifests() {
    let texts = [
        text("template.yaml", "metadata:\n  name: {{ .Release.Name }}\n"),
        text("syntax.json", "{\"kind\": \"ScaledObject\",\n"),
        text("values.yaml", "replicas: 3\n"),
        text("empty.yaml", "# nothing\n"),
        text("scalar.yaml", "just text\n"),
    ];
    insta::assert_snapshot!(render::text(&manifests::check(&texts)));
}

/// Parameters that the TriggerAuthentication of the set gives are not missing; those that it does not give are.
#[test]
fn trigger_authentications_of_the_set_count_by_name() {
    let object = "apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: api}
spec:
  scaleTargetRef: {name: api}
  triggers:
    - type: metrics-api
      metadata: {url: http://api/depth, valueLocation: depth, targetValue: '5'}
      authenticationRef: {name: creds}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: creds}
spec:
  secretTargetRef: [{parameter: token, name: api, key: token}]
";
    let outcome = manifests::check(&[text("a.yaml", object)]);
    assert_eq!(outcome.findings.len(), 0, "{}", render::text(&outcome));
    assert_eq!(outcome.objects, 2);
}

/// What the schema finds: the spec of a ScaledObject, where, what, and what to do.
#[test]
fn schema_findings() {
    let schemas = Schemas::default();
    let set = Set::default();
    let world = World { lookup: &set, dry_run: false, complete: false };
    let fine = "scaleTargetRef: {name: a}\ntriggers: [{type: cpu, metricType: Utilization, metadata: {value: '5'}}]\nminReplicaCount: 1\n";
    for (spec, wanted) in [
        (
            "scaleTargetRef: {}\ntriggers: []",
            "spec.scaleTargetRef.name: is missing|spec.triggers: must have at least 1 element",
        ),
        (
            "scaleTargetRef: {name: ''}",
            "spec.triggers: is missing|spec.scaleTargetRef.name: must not be empty",
        ),
        ("pollingInterval: 0", "spec.pollingInterval: must be at least 1, not 0"),
        ("maxReplicaCount: 99999999999", "spec.maxReplicaCount: must be at most 2147483647, not 99999999999"),
        (
            "cooldownPeriod: '30'",
            "spec.cooldownPeriod: must be an integer, not the string \"30\" (write it without quotes: 30)",
        ),
        ("cooldownPeriod: 30s", "spec.cooldownPeriod: must be an integer, not the string \"30s\""),
        ("cooldownPeriod: 1.5", "spec.cooldownPeriod: must be an integer, not the number 1.5"),
        ("cooldownPeriod: null", ""),
        (
            "fallback: {failureThreshold: 3, replicas: 1, behavior: statik}",
            "spec.fallback.behavior: must be one of static, currentReplicas, currentReplicasIfHigher, currentReplicasIfLower, scalingModifiers, not \"statik\" (did you mean \"static\"?)",
        ),
        ("fallback: {replicas: 1}", "spec.fallback.failureThreshold: is missing"),
        (
            "triggers: {type: cpu}",
            "spec.triggers: must be a list, not a map (begin each element with \"- \")",
        ),
        (
            "advanced: {restoreToOriginalReplicaCount: 'yes'}",
            "spec.advanced.restoreToOriginalReplicaCount: must be a boolean, not the string \"yes\"",
        ),
        (
            "advanced: {horizontalPodAutoscalerConfig: {behavior: {scaleDown: {tolerance: 0, stabilizationWindowSeconds: 5}}}}",
            "",
        ),
    ] {
        let base: Value = serde_saphyr::from_str(fine).unwrap();
        let patch: Value = serde_saphyr::from_str(spec).unwrap();
        let whole = patch.get("scaleTargetRef").is_some();
        let mut merged = if whole { patch.clone() } else { base };
        for (key, value) in patch.as_object().unwrap() {
            merged[key] = value.clone();
        }
        let object_value = serde_json::json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "a"}, "spec": merged,
        });
        let report = object(Kind::ScaledObject, &object_value, &schemas, &world);
        let found: Vec<_> =
            report.errors.iter().filter(|f| f.rule == Rule::Schema).map(ToString::to_string).collect();
        assert_eq!(found.join("|"), wanted, "{spec}");
    }
}

/// 100 files are checked in well under 100 ms, debug build and a busy machine allowed for.
#[test]
fn a_hundred_files_are_no_wait() {
    let texts: Vec<_> = (0..100)
        .map(|i| text(&format!("{i}.yaml"), &NGINX.replace("nginx", &format!("nginx-{i}"))))
        .collect();
    let started = Instant::now();
    let outcome = manifests::check(&texts);
    assert_eq!((outcome.objects, outcome.count(Severity::Error)), (100, 0));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
