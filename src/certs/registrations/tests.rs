//! Which objects are ours, and what is written into them.

use super::*;

const BUNDLE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn ours(names: &[String]) -> Ours<'_> {
    Ours { namespace: "tandem", service: "tandem", names }
}

fn encoded(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap()
}

fn api_service(metadata: Value, spec: Value) -> APIService {
    let mut object = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.external.metrics.k8s.io", "resourceVersion": "7"},
        "spec": {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                 "versionPriority": 100},
    });
    for (key, additions) in [("metadata", metadata), ("spec", spec)] {
        object[key].as_object_mut().unwrap().extend(additions.as_object().unwrap().clone());
    }
    serde_json::from_value(object).unwrap()
}

#[test]
fn api_services() {
    let service = json!({"namespace": "tandem", "name": "tandem", "port": 443});
    let other = json!({"namespace": "datadog", "name": "cluster-agent"});
    let foreign = |owner: &str| Standing::Foreign { owner: owner.to_owned() };
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/spec/caBundle", "value": encoded(BUNDLE)},
    ]);
    for (name, metadata, spec, want) in [
        ("no bundle yet", json!({}), json!({"service": service}), Standing::Outdated(patch.clone())),
        (
            "another bundle",
            json!({}),
            json!({"service": service, "caBundle": encoded("old")}),
            Standing::Outdated(patch),
        ),
        ("in place", json!({}), json!({"service": service, "caBundle": encoded(BUNDLE)}), Standing::InPlace),
        ("another's", json!({}), json!({"service": other}), foreign("Service datadog/cluster-agent")),
        (
            "another's, with labels",
            json!({
                "labels": {"app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"meta.helm.sh/release-name": "dd"},
            }),
            json!({"service": other}),
            foreign("Service datadog/cluster-agent (Helm release dd, managed by Helm)"),
        ),
        (
            "our name in another namespace",
            json!({}),
            json!({"service": {"namespace": "keda", "name": "tandem"}}),
            foreign("Service keda/tandem"),
        ),
        ("local", json!({}), json!({}), foreign("kube-apiserver itself")),
        (
            "unverified",
            json!({}),
            json!({"service": service, "insecureSkipTLSVerify": true}),
            Standing::LeftAlone("insecureSkipTLSVerify is set".to_owned()),
        ),
        (
            "injected",
            json!({"annotations": {"cert-manager.io/inject-ca-from": "tandem/ca"}}),
            json!({"service": service}),
            Standing::LeftAlone(
                "cert-manager fills it in (cert-manager.io/inject-ca-from: tandem/ca)".to_owned(),
            ),
        ),
    ] {
        let standing = examine_api_service(&api_service(metadata, spec), &ours(&[]), BUNDLE);
        assert_eq!(standing, want, "{name}");
    }
}

fn webhooks(configs: &[Value]) -> ValidatingWebhookConfiguration {
    let webhooks: Vec<_> = configs
        .iter()
        .enumerate()
        .map(|(index, config)| {
            json!({"name": format!("w{index}.keda.sh"), "clientConfig": config, "sideEffects": "None",
                   "admissionReviewVersions": ["v1"]})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "keda-admission", "resourceVersion": "9"},
        "webhooks": webhooks,
    }))
    .unwrap()
}

#[test]
fn webhook_configurations() {
    let service = json!({"namespace": "tandem", "name": "tandem"});
    let missing = json!({"service": service});
    let in_place = json!({"service": service, "caBundle": encoded(BUNDLE)});
    let by_url = json!({"url": "https://127.0.0.1:9443/validate", "caBundle": encoded("old")});
    let other = json!({"service": {"namespace": "keda", "name": "keda-admission-webhooks"}});
    let patch = |indices: &[usize]| {
        let sets = indices.iter().map(|index| {
            json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": encoded(BUNDLE)})
        });
        let guard = json!({"op": "test", "path": "/metadata/resourceVersion", "value": "9"});
        Standing::Outdated(std::iter::once(guard).chain(sets).collect())
    };
    let foreign = |owner: &str| Standing::Foreign { owner: owner.to_owned() };
    for (name, configs, want) in [
        ("two missing", &[missing.clone(), missing.clone()][..], patch(&[0, 1])),
        ("one missing", &[in_place.clone(), missing.clone()], patch(&[1])),
        ("in place", &[in_place.clone(), in_place.clone()], Standing::InPlace),
        ("another's beside ours", &[other.clone(), in_place.clone()], Standing::InPlace),
        ("another's beside ours, missing", &[other.clone(), missing], patch(&[1])),
        ("by URL", &[by_url], patch(&[0])),
        (
            "by another URL",
            &[json!({"url": "https://elsewhere/validate"})],
            foreign("https://elsewhere/validate"),
        ),
        ("another's", &[other], foreign("Service keda/keda-admission-webhooks")),
        ("no webhooks", &[], foreign("nobody")),
    ] {
        let names = ["127.0.0.1".to_owned()];
        assert_eq!(examine_webhooks(&webhooks(configs), &ours(&names), BUNDLE), want, "{name}");
    }
}

#[test]
fn publishing_starts_anew_with_another_bundle() {
    let (sender, receiver) = watch::channel(None);
    let at = |second| Timestamp::from_second(second).unwrap();
    for (bundle, second, since) in [
        (None, 0, None),
        (Some("a"), 1, Some(1)),
        (Some("a"), 2, Some(1)),
        (Some("b"), 3, Some(3)),
        (None, 4, None),
        (Some("b"), 5, Some(5)),
    ] {
        note(&sender, bundle.map(Into::into), at(second));
        let published = receiver.borrow().clone();
        assert_eq!(published.as_ref().map(|published| published.since), since.map(at), "{second}");
    }
}
