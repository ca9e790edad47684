//! The status ConfigMap, and in its annotation what has to outlive a crash.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tandem_core::nodes::{
    group::NodeGroup,
    pass::{Memory, Outcome},
    printed::timestamp,
    status::{KEY, LAST_UPDATED, Seen, Status},
};

/// A document that says the same is written again after so long: monitors take an older one for a loop that hangs.
const REFRESH: SignedDuration = SignedDuration::from_mins(1);
/// Annotation with what is remembered from pass to pass: nodes asked for, groups that back off, timers.
const MEMORY: &str = "tandem.dev/memory";
/// Bytes of it: all annotations of an object have 256 KiB (Kubernetes, `TotalAnnotationSizeLimitB`), and ours is the only large
/// one.
const MOST: usize = 240 << 10;
/// Who writes the fields.
const FIELD_MANAGER: &str = "tandem";

/// The status ConfigMap.
pub(super) struct StatusMap {
    maps: Api<ConfigMap>,
    name: String,
    enabled: bool,
    written: Option<Written>,
}

/// What was written last.
struct Written {
    status: Status,
    memory: String,
    at: Timestamp,
}

/// What an earlier process, or the one that runs, remembers.
pub async fn remembered(maps: &Api<ConfigMap>, name: &str) -> Memory {
    let map = match maps.get_opt(name).await {
        Ok(map) => map,
        Err(error) => {
            tracing::warn!(%error, map = name, "what was remembered cannot be read; timers start anew");
            None
        }
    };
    let text = map.and_then(|map| map.metadata.annotations?.remove(MEMORY));
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// What is remembered, in as many bytes at the most. Of what is too much, nodes that could not be removed are looked at again
/// first, and then those wait anew that are not needed for the shortest time.
fn bounded(memory: &Memory, most: usize) -> serde_json::Result<String> {
    let text = serde_json::to_string(memory)?;
    if text.len() <= most {
        return Ok(text);
    }
    let mut less = memory.clone();
    less.unremovable.clear();
    let mut longest: Vec<(String, Timestamp)> = std::mem::take(&mut less.unneeded).into_iter().collect();
    longest.sort_by(|left, right| (left.1, &left.0).cmp(&(right.1, &right.0)));
    loop {
        less.unneeded = longest.iter().cloned().collect();
        let text = serde_json::to_string(&less)?;
        if text.len() <= most || longest.is_empty() {
            return Ok(text);
        }
        longest.truncate(longest.len() / 2);
    }
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

    /// Says that passes are about to begin; returns what an earlier process remembered.
    pub(super) async fn start(&mut self) -> Memory {
        self.written = None;
        let memory = remembered(&self.maps, &self.name).await;
        let now = Timestamp::now();
        self.apply(Status::initializing(now), &memory, now).await;
        memory
    }

    /// Writes what there is after a pass, if it says anything new or was not written for long.
    pub(super) async fn write(
        &mut self,
        outcome: &Outcome,
        groups: &[NodeGroup],
        memory: &Memory,
        problems: &[String],
    ) {
        let now = Timestamp::now();
        let mut candidates: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        for unneeded in &outcome.unneeded {
            *candidates.entry(unneeded.group.clone()).or_default() += 1;
        }
        let (found, cluster) = (&outcome.found, &memory.cluster);
        let seen = Seen { now, found, memory: cluster, groups, candidates: &candidates };
        let status = Status::after(&seen, self.written.as_ref().map(|written| &written.status));
        self.apply(status.saying(problems), memory, now).await;
    }

    /// Writes why there is no pass; the rest stays as the last one left it.
    pub(super) async fn say(&mut self, problems: &[String], memory: &Memory) {
        let now = Timestamp::now();
        let status = self.written.as_ref().map(|written| written.status.clone());
        let status = status.unwrap_or_else(|| Status::initializing(now));
        self.apply(status.saying(problems), memory, now).await;
    }

    async fn apply(&mut self, status: Status, memory: &Memory, now: Timestamp) {
        let Ok(memory) = bounded(memory, MOST) else { return };
        let known = self.written.as_ref().is_some_and(|written| {
            written.memory == memory
                && written.status.says_the_same(&status)
                && now.duration_since(written.at) < REFRESH
        });
        if !self.enabled || known {
            return;
        }
        let text = match serde_saphyr::to_string(&status) {
            Ok(text) => text,
            Err(error) => return tracing::warn!(%error, map = self.name, "status cannot be put into YAML"),
        };
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "annotations": {LAST_UPDATED: timestamp(now), MEMORY: memory},
            },
            "data": {KEY: text},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match self.maps.patch(&self.name, &params, &Patch::Apply(map)).await {
            Ok(_) => self.written = Some(Written { status, memory, at: now }),
            Err(error) => tracing::warn!(%error, map = self.name, "status cannot be written"),
        }
    }

    /// Takes the status away at a clean exit, so that nobody takes it for the state of a loop that runs. What the next
    /// process has to know stays.
    pub(super) async fn clear(&self) {
        if !self.enabled {
            return;
        }
        let patch = Patch::Merge(json!({"data": null}));
        match self.maps.patch(&self.name, &PatchParams::default(), &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(%error, map = self.name, "status cannot be cleared"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_large_cluster_fits_an_annotation() {
        let node = |number: usize| {
            let since = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(number.try_into().unwrap());
            (format!("ip-10-0-0-{number}.ec2.internal"), since)
        };
        let mut memory = Memory::default();
        memory.unneeded = (0..100).map(node).collect();
        memory.unremovable = (100..200).map(node).collect();
        memory.grown = Some(Timestamp::UNIX_EPOCH);
        let kept = |most: usize| {
            let text = bounded(&memory, most).unwrap();
            assert!(text.len() <= most, "{} of {most}", text.len());
            serde_json::from_str::<Memory>(&text).unwrap()
        };
        let all = serde_json::to_string(&memory).unwrap().len();
        assert_eq!(kept(all), memory);
        let without = kept(all - 1);
        assert_eq!((without.unneeded.len(), without.unremovable.len()), (100, 0));
        let half = kept(all / 2 - 500);
        assert_eq!(half.unneeded, (0..50).map(node).collect(), "those that waited longest");
        assert_eq!(kept(1_000).grown, memory.grown);
    }
}
