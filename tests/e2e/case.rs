//! One scenario's own namespace, and what scenarios do and look at there.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::wait;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::{Client, discovery};
use serde_json::{Value, json};

use crate::world::World;

/// For what takes a few evaluations of the HPA (every 2 s here): generous, since the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(45);

/// A scenario in its namespace.
pub(crate) struct Case<'a> {
    pub(crate) world: &'a World,
    pub(crate) namespace: String,
}

impl<'a> Case<'a> {
    pub(crate) async fn new(world: &'a World, namespace: String) -> Result<Self> {
        let case = Self { world, namespace };
        case.create_namespace(&case.namespace).await?;
        Ok(case)
    }

    pub(crate) async fn create_namespace(&self, name: &str) -> Result<()> {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespaces: Api<Namespace> = Api::all(self.client());
        namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await?;
        Ok(())
    }

    /// Starts the deletion of the namespace.
    pub(crate) async fn delete(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        // Already gone is as good.
        let _ = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        Ok(())
    }

    pub(crate) fn client(&self) -> Client {
        self.world.control_plane.client()
    }

    /// kubectl in the scenario's namespace.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let arguments = [&["--namespace", &self.namespace], arguments].concat();
        self.world.control_plane.kubectl().run(&arguments, "").await
    }

    /// `kubectl apply` of one manifest, as a user does it: returns what kubectl printed, warnings too, or fails with
    /// it.
    pub(crate) async fn kubectl_apply(&self, manifest: &Value) -> Result<String> {
        let arguments = ["--namespace", &self.namespace, "apply", "-f", "-"];
        self.world.control_plane.kubectl().run(&arguments, &manifest.to_string()).await
    }

    /// Server-side apply of one object, without the cost of a kubectl.
    pub(crate) async fn apply(&self, mut object: Value) -> Result<()> {
        let types: TypeMeta = serde_json::from_value(object.clone())?;
        let kind = GroupVersionKind::try_from(&types)?;
        let (resource, _) = discovery::pinned_kind(&self.client(), &kind).await?;
        object["metadata"]["namespace"] = json!(self.namespace);
        let object: DynamicObject = serde_json::from_value(object)?;
        let name = object.metadata.name.clone().context("object without name")?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), &self.namespace, &resource);
        api.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// The API of a kind in the scenario's namespace.
    pub(crate) async fn api(&self, api_version: &str, kind: &str) -> Result<Api<DynamicObject>> {
        let types = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
        let (resource, _) =
            discovery::pinned_kind(&self.client(), &GroupVersionKind::try_from(&types)?).await?;
        Ok(Api::namespaced_with(self.client(), &self.namespace, &resource))
    }

    /// A Deployment whose pods carry the label `app`.
    pub(crate) async fn deployment(&self, name: &str, replicas: i32) -> Result<()> {
        self.apply(workload("Deployment", name, replicas)).await
    }

    /// A `ScaledObject` on the Deployment of the same name. `polling interval` is 1 s, and the HPA scales down without
    /// its usual five minutes of patience, unless `spec` says otherwise.
    pub(crate) async fn scaled_object(&self, name: &str, spec: Value) -> Result<()> {
        self.apply(scaled_object(name, spec)).await
    }

    /// A merge patch of the `ScaledObject`.
    pub(crate) async fn patch(&self, name: &str, patch: Value) -> Result<()> {
        let api = self.api("keda.sh/v1alpha1", "ScaledObject").await?;
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Sets an annotation of the `ScaledObject`, or removes it.
    pub(crate) async fn annotate(&self, name: &str, annotation: &str, value: Option<&str>) -> Result<()> {
        self.patch(name, json!({ "metadata": { "annotations": { annotation: value } } })).await
    }

    /// The `ScaledObject` as it is now.
    pub(crate) async fn get(&self, name: &str) -> Result<Value> {
        let api = self.api("keda.sh/v1alpha1", "ScaledObject").await?;
        Ok(serde_json::to_value(api.get(name).await?)?)
    }

    /// The HPAs of the namespace.
    pub(crate) fn hpas(&self) -> Api<HorizontalPodAutoscaler> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// The HPA that belongs to a `ScaledObject`, once it is there.
    pub(crate) async fn hpa(&self, scaled_object: &str) -> Result<HorizontalPodAutoscaler> {
        let (hpas, name) = (self.hpas(), format!("keda-hpa-{scaled_object}"));
        wait::until("the HPA", SOON, || async { Ok(hpas.get(&name).await?) }).await
    }

    /// What the Deployment is asked to run.
    pub(crate) async fn replicas(&self, deployment: &str) -> Result<i32> {
        let api: Api<k8s_openapi::api::apps::v1::Deployment> =
            Api::namespaced(self.client(), &self.namespace);
        Ok(api.get(deployment).await?.spec.replicas.unwrap_or(1))
    }

    /// Waits until the Deployment is asked to run so many.
    pub(crate) async fn wait_replicas(&self, deployment: &str, wanted: i32) -> Result<()> {
        wait::until(&format!("{deployment} to have {wanted} replicas"), SOON, || async {
            let seen = self.replicas(deployment).await?;
            ensure!(seen == wanted, "it has {seen}");
            Ok(())
        })
        .await
    }

    /// Makes sure that the Deployment keeps that many for `duration`.
    pub(crate) async fn replicas_stay(
        &self,
        deployment: &str,
        wanted: i32,
        duration: Duration,
    ) -> Result<()> {
        wait::throughout(&format!("{deployment} has {wanted} replicas"), duration, || async {
            let seen = self.replicas(deployment).await?;
            ensure!(seen == wanted, "it has {seen}");
            Ok(())
        })
        .await
    }

    /// Waits until a condition of the `ScaledObject` has this status, and the reason too unless that is empty. Returns
    /// its message.
    pub(crate) async fn wait_condition(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> Result<String> {
        wait::until(&format!("condition {kind}={status} {reason} of {name}"), SOON, || async {
            let object = self.get(name).await?;
            let condition = condition(&object, kind)?;
            let right = condition["status"] == status && (reason.is_empty() || condition["reason"] == reason);
            ensure!(right, "it is {condition}");
            Ok(condition["message"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    /// Waits for an event about `object` with this reason, and `text` in its message.
    pub(crate) async fn wait_event(&self, object: &str, reason: &str, text: &str) -> Result<String> {
        let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(self.client(), &self.namespace);
        wait::until(&format!("event {reason} {text:?} about {object}"), SOON, || async {
            let seen = events.list(&kube::api::ListParams::default()).await?.items;
            let messages: Vec<String> = seen
                .into_iter()
                .filter(|event| event.involved_object.name.as_deref() == Some(object))
                .filter(|event| event.reason.as_deref() == Some(reason))
                .filter_map(|event| event.message)
                .collect();
            let found = messages.iter().find(|message| message.contains(text));
            found.cloned().with_context(|| format!("events with that reason: {messages:?}"))
        })
        .await
    }

    /// Waits for one event about `object` with this reason that stands for `count`.
    pub(crate) async fn wait_event_counted(&self, object: &str, reason: &str, count: i32) -> Result<()> {
        let events: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.client(), &self.namespace);
        wait::until(&format!("{count} times {reason} about {object}"), SOON, || async {
            let mut seen = events.list(&kube::api::ListParams::default()).await?.items;
            seen.retain(|event| event.reason.as_deref() == Some(reason));
            seen.retain(|event| {
                event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(object)
            });
            let counted: Vec<_> =
                seen.iter().map(|event| event.series.as_ref().map(|series| series.count)).collect();
            ensure!(counted == [Some(count)], "events with that reason: {counted:?}");
            Ok(())
        })
        .await
    }

    /// The value that an HPA would read, through the aggregator.
    pub(crate) async fn read_metric(&self, metric: &str, scaled_object: &str) -> Result<String> {
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{metric}?labelSelector=scaledobject.keda.sh%2Fname%3D{scaled_object}",
            self.namespace
        );
        let request = http::Request::get(path).body(Vec::new())?;
        let list: Value = self.client().request(request).await?;
        let value = list["items"][0]["value"].as_str();
        Ok(value.with_context(|| format!("no value in {list}"))?.to_owned())
    }

    /// Everything that helps to see why a scenario failed.
    pub(crate) async fn report(&self) -> String {
        let mut report = String::new();
        let views: [&[&str]; 4] = [
            &["get", "scaledobjects,hpa,deployments,statefulsets"],
            &[
                "get",
                "scaledobjects",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}{\": \"}{.status}{\"\\n\"}{end}",
            ],
            &[
                "get",
                "hpa",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}{\": \"}{.status}{\"\\n\"}{end}",
            ],
            &[
                "get",
                "events",
                "--sort-by=.lastTimestamp",
                "-o",
                "custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message",
            ],
        ];
        for view in views {
            let text = self.kubectl(view).await.unwrap_or_else(|error| format!("{error:#}"));
            let _ = writeln!(report, "--- kubectl {}\n{}", view.join(" "), text.trim_end());
        }
        let _ = writeln!(report, "--- {}", self.world.log_lines(&self.namespace, 15).await);
        report
    }

    // Queries and triggers.

    /// The sum that [`harness::IstioExporter::set_total`] sets, for an app named after the scenario.
    pub(crate) fn requests(&self) -> String {
        format!("sum(istio_requests_total{{destination_app=\"{}\"}})", self.namespace)
    }

    /// A prometheus trigger on the shared Prometheus.
    pub(crate) fn prometheus(&self, query: &str, threshold: &str) -> Value {
        prometheus(&self.world.prometheus.url(), query, threshold)
    }

    /// Sets what [`Case::requests`] answers and waits until Prometheus says so.
    pub(crate) async fn set_requests(&self, total: u32) -> Result<()> {
        self.world.istio.set_total(&self.namespace, total);
        self.world.prometheus.wait_for(&self.requests(), f64::from(total)).await
    }
}

/// A prometheus trigger.
pub(crate) fn prometheus(server: &str, query: &str, threshold: &str) -> Value {
    json!({
        "type": "prometheus",
        "metadata": { "serverAddress": server, "query": query, "threshold": threshold },
    })
}

/// A condition of a `ScaledObject` or `ScaledJob`.
pub(crate) fn condition(object: &Value, kind: &str) -> Result<Value> {
    let conditions = object["status"]["conditions"].as_array().context("no conditions yet")?;
    conditions.iter().find(|condition| condition["type"] == kind).cloned().context("no such condition yet")
}

/// See [`Case::scaled_object`].
pub(crate) fn scaled_object(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": { "name": name },
        "spec": {
            "scaleTargetRef": { "name": name },
            "pollingInterval": 1,
            "advanced": { "horizontalPodAutoscalerConfig": {
                "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 } },
            } },
        },
    });
    merge(&mut object["spec"], spec);
    object
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A Deployment or `StatefulSet`.
pub(crate) fn workload(kind: &str, name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": name, "image": "nginx" }] },
            },
        },
    })
}
