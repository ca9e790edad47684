//! The status ConfigMap, and in its annotation what has to outlive a restart.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tandem_core::nodes::pass::{Memory, Outcome};

/// Annotation with the time of the last pass that changed anything.
const LAST_UPDATED: &str = "cluster-autoscaler.kubernetes.io/last-updated";
/// Annotation with what is remembered from pass to pass: nodes asked for, groups that back off, timers.
const MEMORY: &str = "tandem.dev/memory";
/// Who writes the fields.
const FIELD_MANAGER: &str = "tandem";

/// The status ConfigMap.
pub(super) struct StatusMap {
    maps: Api<ConfigMap>,
    name: String,
    enabled: bool,
    written: Option<String>,
}

/// The ConfigMap as the object of events.
pub(super) fn reference(namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("ConfigMap".to_owned()),
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectReference::default()
    }
}

impl StatusMap {
    pub(super) fn new(client: Client, namespace: &str, name: &str, enabled: bool) -> Self {
        Self { maps: Api::namespaced(client, namespace), name: name.to_owned(), enabled, written: None }
    }

    /// What an earlier process remembered.
    pub(super) async fn read_memory(&self) -> Memory {
        let map = match self.maps.get_opt(&self.name).await {
            Ok(map) => map,
            Err(error) => {
                tracing::warn!(%error, map = self.name, "what was remembered cannot be read; timers start anew");
                None
            }
        };
        let text = map.and_then(|map| map.metadata.annotations?.remove(MEMORY));
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Writes it if anything is different from what was written last.
    pub(super) async fn write(&mut self, outcome: &Outcome, memory: &Memory, provider: &str) {
        let _ = (outcome, provider);
        let Ok(memory) = serde_json::to_string(memory) else { return };
        if !self.enabled || self.written.as_ref() == Some(&memory) {
            return;
        }
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "annotations": {LAST_UPDATED: Timestamp::now().to_string(), MEMORY: memory},
            },
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match self.maps.patch(&self.name, &params, &Patch::Apply(map)).await {
            Ok(_) => self.written = Some(memory),
            Err(error) => tracing::warn!(%error, map = self.name, "status cannot be written"),
        }
    }
}
