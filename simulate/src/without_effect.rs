//! Fields that mean something in a cluster and nothing here, which is said rather than passed over.

use serde_json::Value;

use crate::{input::Input, problem::Problem};

/// A field, as a JSON pointer and as users write it, and why it changes nothing.
struct Field {
    kinds: &'static [&'static str],
    pointer: &'static str,
    /// The value that it has to have to mean anything; any, if absent.
    value: Option<&'static str>,
    why: &'static str,
}

const FIELDS: &[Field] = &[
    Field {
        kinds: &["ScaledObject"],
        pointer: "/spec/advanced/restoreToOriginalReplicaCount",
        value: Some("true"),
        why: "nothing is deleted in a simulation",
    },
    Field {
        kinds: &["NodePool"],
        pointer: "/spec/replicas",
        value: None,
        why: "static pools are not played: write their nodes as a NodeGroup",
    },
    Field {
        kinds: &["NodePool"],
        pointer: "/spec/template/spec/startupTaints",
        value: None,
        why: "nobody takes them off in a simulation, a node is ready when it has started",
    },
    Field {
        kinds: &["Deployment"],
        pointer: "/spec/paused",
        value: Some("true"),
        why: "nothing is rolled out in a simulation",
    },
    Field {
        kinds: &["StatefulSet"],
        pointer: "/spec/podManagementPolicy",
        value: Some("OrderedReady"),
        why: "pods start side by side in a simulation",
    },
];

/// What manifests say that means nothing in a simulation, each with its place.
pub fn without_effect(input: &Input) -> Vec<Problem> {
    let mut found = Vec::new();
    for manifest in &input.manifests {
        for Field { kinds, pointer, value, why } in FIELDS {
            let written = manifest.value.pointer(pointer).filter(|_| kinds.contains(&manifest.kind()));
            let says =
                |written: &Value| value.is_none_or(|value| written.to_string().trim_matches('"') == value);
            if written.is_some_and(|written| !written.is_null() && says(written)) {
                let path = pointer.trim_start_matches('/').replace('/', ".");
                found.push(Problem::at(manifest.place(&path), format!("without effect: {why}")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::input::Manifest;

    #[test]
    fn what_means_nothing_is_said_with_its_place() {
        let manifest = |kind: &str, spec: Value| {
            let value = json!({"kind": kind, "metadata": {"name": "a", "namespace": "b"}, "spec": spec});
            Manifest { file: "f.yaml".into(), line: 3, value: Arc::new(value) }
        };
        let restore = |value: bool| json!({"advanced": {"restoreToOriginalReplicaCount": value}});
        let manifests = vec![
            manifest("ScaledObject", restore(true)),
            manifest("ScaledObject", restore(false)),
            manifest("Deployment", json!({"replicas": 3})),
            manifest("NodePool", json!({"replicas": 3})),
            manifest("StatefulSet", json!({"podManagementPolicy": "Parallel"})),
            manifest("StatefulSet", json!({"podManagementPolicy": "OrderedReady"})),
        ];
        let found = without_effect(&Input { manifests, ..Input::default() });
        let said: Vec<_> = found.iter().map(ToString::to_string).collect();
        let begin = [
            "f.yaml:3: ScaledObject b/a: spec.advanced.restoreToOriginalReplicaCount: without effect",
            "f.yaml:3: NodePool b/a: spec.replicas: without effect: static pools",
            "f.yaml:3: StatefulSet b/a: spec.podManagementPolicy: without effect: pods start side by side",
        ];
        assert_eq!(said.len(), begin.len(), "{said:?}");
        for (said, begin) in said.iter().zip(begin) {
            assert!(said.starts_with(begin), "{said}");
        }
    }
}
