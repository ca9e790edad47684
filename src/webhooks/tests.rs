//! admission reviews in, admission reviews out: every rule through the handler that kube-apiserver calls.

mod bad_input;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::check::manifests::Set;

const SCALED_OBJECT: &str = "/validate-keda-sh-v1alpha1-scaledobject";
const SCALED_JOB: &str = "/validate-keda-sh-v1alpha1-scaledjob";
const AUTHENTICATION: &str = "/validate-keda-sh-v1alpha1-triggerauthentication";
const CLUSTER_AUTHENTICATION: &str = "/validate-keda-sh-v1alpha1-clustertriggerauthentication";

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A ScaledObject `nginx` in `web` with a trigger that is fine, changed by `spec` (a merge patch in YAML).
fn scaled_object(spec: &str) -> Value {
    let mut object = yaml(
        "
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: nginx, namespace: web, uid: '1', finalizers: [finalizer.keda.sh]}
spec:
  scaleTargetRef: {name: nginx}
  triggers: [{type: cron, metadata: {timezone: UTC, start: 0 8 * * *, end: 0 18 * * *, desiredReplicas: '3'}}]
",
    );
    merge(&mut object["spec"], &yaml(spec));
    object
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// What kube-apiserver sends.
fn review(operation: &str, object: &Value, old: &Value, dry_run: bool) -> Value {
    let kind = object["kind"].as_str().or(old["kind"].as_str()).unwrap_or_default();
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "keda.sh", "version": "v1alpha1", "kind": kind},
            "resource": {"group": "keda.sh", "version": "v1alpha1", "resource": kind.to_lowercase() + "s"},
            "name": object["metadata"]["name"].as_str().unwrap_or_default(),
            "namespace": object["metadata"]["namespace"].as_str().unwrap_or_default(),
            "operation": operation,
            "userInfo": {"username": "kubernetes-admin", "groups": ["system:authenticated"]},
            "object": object,
            "oldObject": old,
            "dryRun": dry_run,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

/// The `response` of an `AdmissionReview`.
struct Answer(Value);

impl Answer {
    fn allowed(&self) -> bool {
        self.0["allowed"].as_bool().unwrap()
    }

    fn message(&self) -> &str {
        self.0["status"]["message"].as_str().unwrap_or_default()
    }

    fn reasons(&self) -> Vec<&str> {
        let causes = self.0["status"]["details"]["causes"].as_array();
        causes.into_iter().flatten().map(|cause| cause["reason"].as_str().unwrap()).collect()
    }

    fn warnings(&self) -> Vec<&str> {
        self.0["warnings"].as_array().into_iter().flatten().map(|warning| warning.as_str().unwrap()).collect()
    }
}

async fn post(webhooks: &Webhooks, path: &str, body: impl Into<Bytes>) -> (StatusCode, Vec<u8>) {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    let response = webhooks.handle(request.body(Full::new(body.into())).unwrap()).await;
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn ask(path: &str, review: &Value, existing: &[Value]) -> Answer {
    let webhooks = Webhooks::new(Arc::new(Set::of(existing)), Observer::default());
    let (status, body) = post(&webhooks, path, review.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    Answer(answer["response"].clone())
}

async fn create(object: &Value, existing: &[Value]) -> Answer {
    let path = match object["kind"].as_str().unwrap() {
        "ScaledObject" => SCALED_OBJECT,
        "ScaledJob" => SCALED_JOB,
        "TriggerAuthentication" => AUTHENTICATION,
        _ => CLUSTER_AUTHENTICATION,
    };
    ask(path, &review("CREATE", object, &Value::Null, false), existing).await
}

/// KEDA's rules on a ScaledObject alone: its spec, the reason, a part of the message.
#[tokio::test]
async fn rules_on_the_object_alone() {
    for (spec, reason, message) in [
        (
            "{minReplicaCount: 5, maxReplicaCount: 3}",
            "incorrect-replicas",
            "MinReplicaCount=5 must be less than MaxReplicaCount=3",
        ),
        (
            "{idleReplicaCount: 2, minReplicaCount: 2}",
            "incorrect-replicas",
            "IdleReplicaCount=2 must be less than MinReplicaCount=2",
        ),
        (
            "{minReplicaCount: 1, triggers: [{type: cpu, metricType: Utilization, metadata: {value: '60'}}], fallback: {failureThreshold: 3, replicas: 2}}",
            "incorrect-fallback",
            "at least one trigger (that is not cpu or memory) has to have the `AverageValue` type for the fallback to be enabled",
        ),
        (
            "{triggers: [{type: cron, useCachedMetrics: true, metadata: {timezone: UTC, start: 0 8 * * *, end: 0 18 * * *, desiredReplicas: '3'}}]}",
            "incorrect-triggers",
            "property \"useCachedMetrics\" is not supported for \"cron\" scaler",
        ),
        (
            "{triggers: [{type: cpu, metricType: Utilization, metadata: {value: '60'}}]}",
            "scale-to-zero-requirements-not-met",
            "scaledobject has only cpu/memory triggers AND minReplica is 0 (scale to zero doesn't work in this case)",
        ),
        (
            "{advanced: {scalingModifiers: {formula: 'unknown + 1', target: '2'}}}",
            "scaling-modifiers",
            "unknown",
        ),
        (
            "{advanced: {scalingModifiers: {target: '2'}}}",
            "scaling-modifiers",
            "error ScalingModifiers.Formula is mandatory",
        ),
        (
            "{fallback: {failureThreshold: 3, replicas: 2, behavior: scalingModifiers}}",
            "scaling-modifiers-fallback",
            "formula",
        ),
        (
            "{advanced: {horizontalPodAutoscalerConfig: {name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}}",
            "hpa-name-too-long",
            "is 64 characters long",
        ),
    ] {
        assert_refused(spec, reason, message).await;
    }
    let mut long = scaled_object("{}");
    long["metadata"]["name"] = "a".repeat(64).into();
    assert_eq!(create(&long, &[]).await.reasons(), ["name-too-long"]);
}

async fn assert_refused(spec: &str, reason: &str, message: &str) {
    let answer = create(&scaled_object(spec), &[]).await;
    assert!(!answer.allowed(), "{spec}");
    assert!(answer.reasons().contains(&reason), "{spec}: {:?}", answer.0);
    assert!(answer.message().contains(message), "{spec}: {}", answer.message());
    assert_eq!(answer.0["status"]["code"], 403, "{spec}");
}

/// What the schema and the scalers' parsers find.
#[tokio::test]
async fn parameters_and_types() {
    let prometheus = |metadata: &str| format!("triggers: [{{type: prometheus, metadata: {metadata}}}]");
    for (spec, reason, message) in [
        (
            "{triggers: [{type: promethues, metadata: {}}]}",
            "incorrect-trigger-metadata",
            "spec.triggers[0]: unknown trigger type \"promethues\", did you mean \"prometheus\"?",
        ),
        (&prometheus("{serverAddress: http://p, query: up}"), "incorrect-trigger-metadata", "threshold"),
        (
            &prometheus("{serverAddress: http://p, query: up, threshold: ten}"),
            "incorrect-trigger-metadata",
            "spec.triggers[0].metadata.threshold: unable to set param \"threshold\" value \"ten\"",
        ),
        (
            &prometheus("{serverAddress: http://p, query: 'sum(', threshold: '1'}"),
            "incorrect-trigger-metadata",
            "spec.triggers[0].metadata.query: query \"sum(\" is not PromQL",
        ),
        (
            "{triggers: [{type: cron, metadata: {timezone: Mars/Base, start: 0 8 * * *, end: 0 18 * * *, desiredReplicas: '3'}}]}",
            "incorrect-trigger-metadata",
            "Mars/Base",
        ),
        (
            "{triggers: [{type: cron, metadata: {timezone: UTC, start: 0 8 * *, end: 0 18 * * *, desiredReplicas: '3'}}]}",
            "incorrect-trigger-metadata",
            "start",
        ),
        (
            "{triggers: [{type: prometheus, metricType: Percent, metadata: {serverAddress: http://p, query: up, threshold: '1'}}]}",
            "incorrect-trigger-metadata",
            "spec.triggers[0].metricType: unknown metricType \"Percent\"",
        ),
        (
            "{minReplicaCount: 1, triggers: [{type: cpu, metadata: {value: '60'}}]}",
            "incorrect-trigger-metadata",
            "spec.triggers[0].metricType: ",
        ),
        (
            "{minReplicaCount: many}",
            "schema",
            "spec.minReplicaCount: must be an integer, not the string \"many\"",
        ),
        (
            "{triggers: [{type: cron, metadata: {desiredReplicas: 3}}]}",
            "schema",
            "spec.triggers[0].metadata.desiredReplicas: must be a string, not the number 3 (put it in quotes: \"3\")",
        ),
    ] {
        assert_refused(spec, reason, message).await;
    }
}

/// Every rule that reads what exists in the namespace.
#[tokio::test]
async fn rules_among_others() {
    let deployment = |resources: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: nginx, namespace: web}}\nspec: {{selector: {{}}, \
             template: {{spec: {{containers: [{{name: main, resources: {resources}}}]}}}}}}"
        )
    };
    let hpa = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: theirs, namespace: web}\n\
               spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: nginx}}";
    let limits = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: l, namespace: web}\n\
                  spec: {limits: [{type: Container, defaultRequest: {cpu: 100m}}]}";
    let other = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: other, namespace: web}\n\
                 spec: {scaleTargetRef: {name: nginx}, triggers: []}";
    let other_hpa = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: other, namespace: web}\n\
                     spec: {scaleTargetRef: {name: api}, advanced: {horizontalPodAutoscalerConfig: {name: h}}, triggers: []}";
    let cpu =
        "{minReplicaCount: 1, triggers: [{type: cpu, metricType: Utilization, metadata: {value: '60'}}]}";
    let (bare, requested) = (deployment("{}"), deployment("{requests: {cpu: 1}}"));
    let both = format!("{bare}\n---\n{limits}");
    let elsewhere = hpa.replace("namespace: web", "namespace: api");
    for (spec, existing, reasons, message) in [
        (
            "{}",
            hpa,
            &["other-hpa"][..],
            "the workload 'nginx' of type 'apps/v1.Deployment' is already managed by the hpa 'theirs'",
        ),
        ("{}", &elsewhere, &[], ""),
        (
            "{}",
            other,
            &["other-scaled-object"],
            "the workload 'nginx' of type 'apps/v1.Deployment' is already managed by the ScaledObject 'other'",
        ),
        (
            "{advanced: {horizontalPodAutoscalerConfig: {name: h}}}",
            other_hpa,
            &["other-scaled-object-hpa"],
            "the HPA 'h' is already managed by the ScaledObject 'other'",
        ),
        (
            cpu,
            &bare,
            &["missing-requests"],
            "the scaledobject has a cpu trigger but the container main doesn't have the cpu request defined",
        ),
        (cpu, &requested, &[], ""),
        (cpu, &both, &[], ""),
    ] {
        let answer = create(&scaled_object(spec), &documents(existing)).await;
        assert_eq!(answer.reasons(), reasons, "{spec} {existing}: {}", answer.message());
        assert_eq!(answer.allowed(), reasons.is_empty());
        assert!(answer.message().starts_with(message), "{}", answer.message());
    }

    let request = review("CREATE", &scaled_object(cpu), &Value::Null, true);
    assert!(
        ask(SCALED_OBJECT, &request, &documents(&bare)).await.allowed(),
        "requests do not count in a dry run"
    );

    let mut transfer = scaled_object("{}");
    transfer["metadata"]["annotations"] = json!({"scaledobject.keda.sh/transfer-hpa-ownership": "true"});
    assert_eq!(create(&transfer, &documents(hpa)).await.reasons(), ["transfer-ownership-missing-hpa-name"]);
    transfer["spec"]["advanced"] = json!({"horizontalPodAutoscalerConfig": {"name": "theirs"}});
    assert!(create(&transfer, &documents(hpa)).await.allowed());
}

#[tokio::test]
async fn a_target_that_does_not_exist_yet_is_a_warning() {
    let cpu =
        "{minReplicaCount: 1, triggers: [{type: cpu, metricType: Utilization, metadata: {value: '60'}}]}";
    let answer = create(&scaled_object(cpu), &[]).await;
    assert!(answer.allowed());
    assert_eq!(
        answer.warnings(),
        [
            "spec.scaleTargetRef.name: Deployment \"nginx\" does not exist yet: its resource requests were not checked"
        ]
    );
}

/// All violations come together: KEDA's first, then the triggers in their order.
#[tokio::test]
async fn all_violations_at_once_in_one_order() {
    let object = scaled_object(
        "{minReplicaCount: 5, maxReplicaCount: 3, triggers: [\
         {type: prometheus, name: same, metadata: {serverAddress: http://p, query: up, threshold: x}}, \
         {type: kafak, name: same, metadata: {}}]}",
    );
    let first = create(&object, &[]).await;
    assert_eq!(
        first.reasons(),
        [
            "incorrect-replicas",
            "incorrect-triggers",
            "incorrect-trigger-metadata",
            "incorrect-trigger-metadata"
        ]
    );
    assert_eq!(first.message().lines().count(), 4, "{}", first.message());
    let fields: Vec<_> =
        first.0["status"]["details"]["causes"].as_array().unwrap().iter().map(|c| &c["field"]).collect();
    assert_eq!(
        fields,
        [
            "spec.minReplicaCount",
            "spec.triggers[1].name",
            "spec.triggers[0].metadata.threshold",
            "spec.triggers[1]"
        ]
    );
    for _ in 0..5 {
        assert_eq!(create(&object, &[]).await.0, first.0);
    }
}

#[tokio::test]
async fn warnings_do_not_refuse() {
    let counter = "{minReplicaCount: 1, maxReplicaCount: 10, cooldownPeriod: 30, pollingInterval: 1, triggers: [{type: prometheus, \
                   metadata: {serverAddress: http://p:9090, metricName: x, threshold: '10', \
                   query: \"sum(istio_requests_total{destination_app=\\\"nginx\\\"})\\n\"}}]}";
    let answer = create(&scaled_object(counter), &[]).await;
    assert!(answer.allowed(), "{}", answer.message());
    let said = answer.warnings().join("\n");
    for part in [
        "PollingInterval is configured but is not relevant",
        "CooldownPeriod is configured but is not relevant",
        "spec.triggers[0].metadata.query: ",
        "rate(istio_requests_total{destination_app=\"nginx\"}[",
        "spec.triggers[0].metadata.metricName: ",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(
        answer.warnings().iter().all(|warning| warning.len() <= 256 && !warning.contains('\n')),
        "{said}"
    );

    let answer = create(&scaled_object("{pollingIntervall: 5}"), &[]).await;
    assert!(answer.allowed());
    let wanted = "spec.pollingIntervall: unknown field \"pollingIntervall\" is ignored (did you mean \"pollingInterval\"?)";
    assert_eq!(answer.warnings(), [wanted]);
}

/// A trigger's TriggerAuthentication is known by the names of its parameters, never by their values.
#[tokio::test]
async fn parameters_of_trigger_authentications() {
    let trigger = |kind: &str| {
        format!(
            "{{triggers: [{{type: metrics-api, authenticationRef: {{name: a, kind: {kind}}}, metadata: {{url: http://x, \
             valueLocation: a.b, targetValue: '1', authModes: bearer}}}}]}}"
        )
    };
    let namespaced = documents(
        "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: a, namespace: web}\n\
         spec: {secretTargetRef: [{parameter: token, name: s, key: t}]}",
    );
    let answer = create(&scaled_object(&trigger("TriggerAuthentication")), &namespaced).await;
    assert!(answer.allowed() && answer.warnings().is_empty(), "{:?}", answer.0);
    let answer = create(&scaled_object(&trigger("ClusterTriggerAuthentication")), &namespaced).await;
    assert!(answer.allowed());
    assert!(
        answer.warnings()[0].contains("ClusterTriggerAuthentication \"a\" does not exist"),
        "{:?}",
        answer.0
    );
    let answer = create(&scaled_object(&trigger("TriggerAuthentication")), &[]).await;
    assert!(answer.warnings()[0].contains("TriggerAuthentication \"a\" does not exist in namespace \"web\""));
}

#[tokio::test]
async fn other_kinds() {
    let job = |triggers: &str| {
        yaml(&format!(
            "apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\nmetadata: {{name: j, namespace: web}}\nspec: {{jobTargetRef: \
             {{template: {{spec: {{restartPolicy: Never, containers: [{{name: a, image: b, resources: {{requests: \
             {{cpu: 1}}}}}}]}}}}}}, triggers: {triggers}}}"
        ))
    };
    let authentication = |kind: &str, spec: &str| {
        yaml(&format!(
            "apiVersion: keda.sh/v1alpha1\nkind: {kind}\nmetadata: {{name: a, namespace: web}}\nspec: {spec}"
        ))
    };
    let fine = "[{type: prometheus, metadata: {serverAddress: http://p, query: sum(up), threshold: '1'}}]";
    let aws = "{podIdentity: {provider: aws, roleArn: a, identityOwner: workload}}";
    let azure = "{podIdentity: {provider: azure-workload, identityId: ''}}";
    for (object, reason, message) in [
        (job(fine), "", ""),
        (job("[]"), "schema", "spec.triggers: must have at least 1 element"),
        (
            job("[{type: promethues, metadata: {}}]"),
            "incorrect-trigger-metadata",
            "spec.triggers[0]: unknown trigger type",
        ),
        (
            authentication("TriggerAuthentication", "{secretTargetRef: [{parameter: a, name: b, key: c}]}"),
            "",
            "",
        ),
        (
            authentication("TriggerAuthentication", aws),
            "incorrect-authentication",
            "roleArn of PodIdentity can't be set if KEDA isn't identityOwner",
        ),
        (
            authentication("ClusterTriggerAuthentication", azure),
            "incorrect-authentication",
            "identityId of PodIdentity should not be empty",
        ),
        (
            authentication("TriggerAuthentication", "{secretTargetRef: [{parameter: a, name: b}]}"),
            "schema",
            "spec.secretTargetRef[0].key: is missing",
        ),
    ] {
        let answer = create(&object, &[]).await;
        assert_eq!(answer.allowed(), reason.is_empty(), "{object}: {}", answer.message());
        assert!(reason.is_empty() || answer.reasons() == [reason], "{:?}", answer.0);
        assert!(answer.message().starts_with(message), "{}", answer.message());
    }
}

/// Updates: what is looked at, and what is not.
#[tokio::test]
async fn updates() {
    let broken = scaled_object("{minReplicaCount: 5, maxReplicaCount: 3}");
    let bad_trigger = scaled_object("{triggers: [{type: promethues, metadata: {}}]}");
    let with = |object: &Value, pointer: &str, value: Value| {
        let mut object = object.clone();
        merge(&mut object["metadata"], &json!({pointer: value}));
        object
    };
    let paused = json!({"autoscaling.keda.sh/paused": "true"});
    for (what, old, new, allowed) in [
        ("a spec that breaks", scaled_object("{}"), broken.clone(), false),
        (
            "a spec that stays broken while it changes",
            broken.clone(),
            scaled_object("{minReplicaCount: 6, maxReplicaCount: 3}"),
            false,
        ),
        ("a finalizer less", broken.clone(), with(&broken, "finalizers", json!([])), true),
        ("a label more", broken.clone(), with(&broken, "labels", json!({"a": "b"})), true),
        ("an annotation, KEDA's rule", broken.clone(), with(&broken, "annotations", paused.clone()), false),
        (
            "an annotation, a trigger that KEDA would take",
            bad_trigger.clone(),
            with(&bad_trigger, "annotations", paused),
            true,
        ),
    ] {
        let answer = ask(SCALED_OBJECT, &review("UPDATE", &new, &old, false), &[]).await;
        assert_eq!(answer.allowed(), allowed, "{what}: {}", answer.message());
    }
    let answer = ask(SCALED_OBJECT, &review("DELETE", &Value::Null, &broken, false), &[]).await;
    assert!(answer.allowed(), "a delete is never refused");
}

#[tokio::test]
async fn what_is_no_admission_review() {
    let webhooks = Webhooks::new(Arc::new(Set::default()), Observer::default());
    let empty = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}).to_string();
    for (path, body, status, text) in [
        ("/validate", "{}", StatusCode::NOT_FOUND, "no webhook at \"/validate\""),
        (SCALED_OBJECT, "{", StatusCode::BAD_REQUEST, "the body is no AdmissionReview"),
        (SCALED_OBJECT, &empty, StatusCode::BAD_REQUEST, "the AdmissionReview has no request"),
        (SCALED_OBJECT, &"x".repeat(BODY_LIMIT + 1), StatusCode::PAYLOAD_TOO_LARGE, "cannot read the body"),
    ] {
        let (got, body) = post(&webhooks, path, body.to_owned()).await;
        assert_eq!(got, status, "{path}");
        assert!(String::from_utf8_lossy(&body).starts_with(text), "{}", String::from_utf8_lossy(&body));
    }
    let get = Request::get(SCALED_OBJECT).body(Full::<Bytes>::default()).unwrap();
    assert_eq!(webhooks.handle(get).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let text = Request::post(SCALED_OBJECT).header(CONTENT_TYPE, "text/plain");
    let text = text.body(Full::<Bytes>::default()).unwrap();
    assert_eq!(webhooks.handle(text).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn counted_as_keda_counts() {
    let observer = Observer::default();
    let mut registry = prometheus_client::registry::Registry::default();
    observer.register(&mut registry);
    let webhooks = Webhooks::new(Arc::new(Set::default()), observer);
    let bad = scaled_object("{minReplicaCount: 5, maxReplicaCount: 3}");
    for object in [&scaled_object("{}"), &bad] {
        post(&webhooks, SCALED_OBJECT, review("CREATE", object, &Value::Null, false).to_string()).await;
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"keda_webhook_scaled_object_validations_total{namespace="web",action="create"} 2"#,
        r#"keda_webhook_scaled_object_validation_errors_total{namespace="web",action="create",reason="incorrect-replicas"} 1"#,
        "tandem_webhook_duration_seconds_count 2",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
