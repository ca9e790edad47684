//! What a scale target makes its pods from, read when it is needed: most targets are never asked.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{self as k8s, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference},
};
use kube::api::DynamicObject;
use serde_json::Value;
use tandem_core::{nodes::buffer::Traits, scheduling::Pod};

use super::scale::Target;

/// What a target's pods look like, and which they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The target's `metadata.generation`.
    pub generation: i64,
    /// Which pods are its own: those of `spec.selector`, else those with the labels of its template.
    pub selector: LabelSelector,
    /// A pod as its template has it; absent if it has none (`spec.template`).
    pub pod: Option<Pod>,
    /// What ResourceQuotas tell its pods apart by.
    pub traits: Traits,
}

impl Model {
    /// Reads a target.
    pub fn read(target: &Target, object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        let template: Option<PodTemplateSpec> = typed(&spec["template"]);
        let labels = || {
            let metadata = template.as_ref().and_then(|template| template.metadata.as_ref());
            let match_labels =
                Some(metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default());
            LabelSelector { match_labels, ..LabelSelector::default() }
        };
        Self {
            generation: object.metadata.generation.unwrap_or_default(),
            selector: typed(&spec["selector"]).unwrap_or_else(labels),
            pod: template.as_ref().map(|template| pod(target, object, template)),
            traits: template
                .and_then(|template| template.spec)
                .as_ref()
                .map(Traits::read)
                .unwrap_or_default(),
        }
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    // Of a kind that nobody knows any field may be anything.
    value.is_object().then(|| serde_json::from_value(value.clone()).ok()).flatten()
}

/// A pod as the target's controller would make it.
fn pod(target: &Target, object: &DynamicObject, template: &PodTemplateSpec) -> Pod {
    let mut pod = k8s::Pod {
        metadata: template.metadata.clone().unwrap_or_default(),
        spec: template.spec.clone(),
        ..k8s::Pod::default()
    };
    pod.metadata.name = Some(target.name.clone());
    pod.metadata.namespace = Some(target.namespace.clone());
    pod.metadata.owner_references = Some(vec![OwnerReference {
        api_version: target.gvk.api_version(),
        kind: target.gvk.kind.clone(),
        name: target.name.clone(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    Pod::read(&pod, Arc::new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tandem_core::pods::hpa::ScaleTargetGvk;

    use super::*;

    fn read(spec: &Value) -> Model {
        let gvk = ScaleTargetGvk { kind: "Rollout".to_owned(), ..ScaleTargetGvk::default() };
        let target = Target { gvk, namespace: "ns".to_owned(), name: "web".to_owned() };
        let object = json!({"metadata": {"name": "web", "generation": 3}, "spec": spec});
        Model::read(&target, &serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_template_and_a_selector_are_read_of_any_kind() {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}});
        let labels = |labels: Value| LabelSelector {
            match_labels: serde_json::from_value(labels).unwrap(),
            ..LabelSelector::default()
        };
        let model = read(&json!({"template": template, "selector": {"matchLabels": {"a": "b"}}}));
        let pod = model.pod.unwrap();
        assert_eq!((model.generation, pod.shape.requests.cpu, &*pod.shape.namespace), (3, 500, "ns"));
        assert_eq!(model.selector, labels(json!({"a": "b"})));
        assert_eq!(read(&json!({"template": template})).selector, labels(json!({"app": "web"})));
        assert_eq!(read(&json!({"selector": {"matchLabels": {"a": "b"}}})).pod, None);
    }
}
