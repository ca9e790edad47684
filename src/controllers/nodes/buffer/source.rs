//! What a buffer refers to: a PodTemplate, or a workload with its replicas.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1 as k8s;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use tandem_core::{
    api::autoscaling::{CapacityBuffer, CapacityBufferSpec, ScalableReference},
    nodes::{
        buffer::{Problem, Source, Traits},
        drain::selects,
    },
    scheduling::{Pod, pod::Shape},
};

use super::Buffers;
use crate::cluster::{
    Key,
    model::Model,
    scale::{ScaleError, Target},
};

/// What is kept of a PodTemplate.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::controllers::nodes) struct Template {
    generation: i64,
    shape: Arc<Shape>,
    traits: Traits,
}

impl Template {
    pub(in crate::controllers::nodes) fn read(template: &k8s::PodTemplate) -> Self {
        let of = template.template.clone().unwrap_or_default();
        let traits = of.spec.as_ref().map(Traits::read).unwrap_or_default();
        let mut pod =
            k8s::Pod { metadata: of.metadata.unwrap_or_default(), spec: of.spec, ..k8s::Pod::default() };
        pod.metadata.namespace.clone_from(&template.metadata.namespace);
        let generation = template.metadata.generation.unwrap_or_default();
        Self { generation, shape: Arc::new(Shape::read(&pod)), traits }
    }

    /// What its pods are like.
    pub(in crate::controllers::nodes) fn shape(&self) -> Arc<Shape> {
        self.shape.clone()
    }
}

/// What a buffer refers to, read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) shape: Arc<Shape>,
    pub(super) traits: Traits,
    /// Of a workload.
    pub(super) replicas: Option<i32>,
    /// Name and generation of a PodTemplate.
    pub(super) template: Option<(String, i64)>,
}

/// Why what a buffer refers to is not known.
#[derive(Debug)]
pub(super) enum Unresolved {
    /// Somebody has to mend it.
    Wrong(Problem),
    /// It may be known a moment later.
    Failed(ScaleError),
}

impl From<Problem> for Unresolved {
    fn from(problem: Problem) -> Self {
        Self::Wrong(problem)
    }
}

/// What workloads make their pods from, by buffer, read again when the workload changes.
#[derive(Debug, Default)]
pub(super) struct Models(Mutex<BTreeMap<Key, (Target, Arc<Model>)>>);

impl Models {
    /// Forgets all but these buffers.
    pub(super) fn keep(&self, buffers: &[Arc<CapacityBuffer>]) {
        let is_there = |key: &Key| {
            buffers.iter().any(|buffer| {
                buffer.namespace().as_deref() == Some(&*key.namespace) && buffer.name_any() == key.name
            })
        };
        self.0.lock().retain(|key, _| is_there(key));
    }
}

impl Buffers {
    pub(super) async fn source(&self, key: &Key, spec: &CapacityBufferSpec) -> Result<Found, Unresolved> {
        match Source::of(spec)? {
            Source::Template(name) => {
                let (namespace, name) = (key.namespace.clone(), name.to_owned());
                let found = self.templates.get(&namespace, &name);
                let template = found.ok_or_else(|| Problem::NoTemplate { namespace, name: name.clone() })?;
                let (shape, traits) = (template.shape.clone(), template.traits.clone());
                Ok(Found { shape, traits, replicas: None, template: Some((name, template.generation)) })
            }
            Source::Scalable(reference) => self.scalable(key, reference).await,
        }
    }

    async fn scalable(&self, key: &Key, reference: &ScalableReference) -> Result<Found, Unresolved> {
        let scale = &self.config.scale;
        let wrong = |error| judge(key, reference, error);
        let group = reference.api_group.as_deref().unwrap_or_default();
        let target = scale.target_of(&key.namespace, group, &reference.kind, &reference.name).await;
        let target = target.map_err(wrong)?;
        let replicas = scale.replicas(&target).await.map_err(wrong)?;
        let model = self.model(key, &target).await.map_err(wrong)?;
        // The newest pod has what admission added, too: defaults, sidecars.
        let pods = self.config.world.pods.all();
        let own = pods.iter().filter(|pod| {
            !pod.is_terminal()
                && pod.deleting.is_none()
                && *pod.shape.namespace == *key.namespace
                && selects(&model.selector, &pod.shape.labels)
        });
        let newest: Option<&Pod> = own.max_by_key(|pod| (pod.created, pod.name.clone())).map(|pod| &**pod);
        let pod = newest.or(model.pod.as_ref()).ok_or_else(|| Problem::Unscalable {
            reference: written(reference),
            why: "it has no pods and no spec.template".to_owned(),
        })?;
        let (shape, traits) = (pod.shape.clone(), model.traits.clone());
        Ok(Found { shape, traits, replicas: Some(replicas), template: None })
    }

    /// What a workload makes its pods from; of those that are watched read once a generation.
    async fn model(&self, key: &Key, target: &Target) -> Result<Arc<Model>, ScaleError> {
        let scale = &self.config.scale;
        let known = self.models.0.lock().get(key).cloned();
        let generation = scale.workload(target).map(|workload| workload.generation);
        let is_same =
            |(of, model): &(Target, Arc<Model>)| of == target && generation == Some(model.generation);
        if let Some((_, model)) = known.filter(is_same) {
            return Ok(model);
        }
        let model = Arc::new(scale.model(target).await?);
        self.models.0.lock().insert(key.clone(), (target.clone(), model.clone()));
        Ok(model)
    }
}

/// `GROUP KIND NAME`.
fn written(reference: &ScalableReference) -> String {
    let group = reference.api_group.as_deref().unwrap_or_default();
    format!("{group:?} {} {}", reference.kind, reference.name)
}

/// Whether an error is the buffer's fault.
fn judge(key: &Key, reference: &ScalableReference, error: ScaleError) -> Unresolved {
    let is_gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    let missing = || Problem::NoScalable {
        namespace: key.namespace.clone(),
        kind: reference.kind.clone(),
        name: reference.name.clone(),
    };
    match error {
        ScaleError::NotFound { .. } => missing().into(),
        ScaleError::Api { ref source, .. } if is_gone(source) => missing().into(),
        ScaleError::UnknownKind { .. } | ScaleError::NoScale { .. } => {
            Problem::Unscalable { reference: written(reference), why: error.to_string() }.into()
        }
        ScaleError::Api { .. } => Unresolved::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_template_is_read_as_its_pods_would_be() {
        let template = json!({"metadata": {"name": "small", "namespace": "shop", "generation": 4}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}}});
        let Template { generation, shape, .. } = Template::read(&serde_json::from_value(template).unwrap());
        assert_eq!((generation, shape.requests.cpu, &*shape.namespace), (4, 500, "shop"));
        assert_eq!(shape.labels["app"], "web");
    }

    #[test]
    fn what_somebody_has_to_mend_is_told_from_what_passes() {
        let key = Key::new("shop", "spare");
        let reference = ScalableReference {
            api_group: Some("example.com".to_owned()),
            kind: "Thing".to_owned(),
            name: "one".to_owned(),
        };
        let (kind, name) = (|| "Thing".to_owned(), || "one".to_owned());
        let api = |code: u16| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            let source = kube::Error::Api(status.boxed());
            ScaleError::Api { action: "getting", kind: kind(), name: name(), source }
        };
        let of = |error| match judge(&key, &reference, error) {
            Unresolved::Wrong(problem) => problem.reason(),
            Unresolved::Failed(_) => "passes",
        };
        assert_eq!(of(ScaleError::NotFound { kind: kind(), name: name() }), "ScalableRefNotFound");
        assert_eq!(of(ScaleError::NoScale { kind: kind(), name: name() }), "ResolutionFailed");
        assert_eq!((of(api(404)), of(api(503))), ("ScalableRefNotFound", "passes"));
    }
}
