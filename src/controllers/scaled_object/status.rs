//! The status of a ScaledObject, kept in memory and written when something in it changed.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tandem_core::{
    api::keda::{
        Condition, GroupVersionKindResource, HealthStatus, ScaledObject, ScaledObjectSpec,
        ScaledObjectStatus, TriggerActivity,
    },
    pods::{
        fallback,
        hpa::{self, ScaleTargetGvk, TriggerMetric},
        reasons,
    },
};

use super::Task;
use crate::controllers::merge;

/// While a trigger stays active, `lastActiveTime` is written this often and not with every poll: two writes an hour,
/// and a restart takes an object that was active at the last write as active now, so no cooldown is cut short.
const LAST_ACTIVE_EVERY: SignedDuration = SignedDuration::from_mins(30);

/// Conditions before anything is known (KEDA, `apis/keda/v1alpha1/condition_types.go`).
const INITIAL: [(&str, &str); 4] = [
    (reasons::READY, "Unknown"),
    (reasons::ACTIVE, "Unknown"),
    (reasons::FALLBACK, "Unknown"),
    (reasons::PAUSED, "False"),
];

/// The status as it should be, and as it was last written: one and the same while they are equal, which is nearly always.
#[derive(Default)]
pub(super) struct StatusKeeper {
    seeded: bool,
    current: Arc<ScaledObjectStatus>,
    written: Arc<ScaledObjectStatus>,
    last_active: Option<Timestamp>,
}

impl StatusKeeper {
    /// Starts from what the API server holds, once a leadership.
    pub(super) fn seed(&mut self, object: &ScaledObject) {
        if self.seeded {
            return;
        }
        let mut current = object.status.clone().unwrap_or_default();
        self.last_active = current.last_active_time.as_ref().map(|time| time.0);
        self.written = Arc::new(current.clone());
        for (type_, status) in INITIAL {
            if !current.conditions.iter().any(|condition| condition.type_ == type_) {
                let (type_, status) = (type_.to_owned(), status.to_owned());
                current.conditions.push(Condition { type_, status, ..Condition::default() });
            }
        }
        self.current = Arc::new(current);
        if self.is_true(reasons::ACTIVE) {
            // Nobody knows how long it stayed active after the last write: the cooldown starts anew.
            self.last_active = Some(Timestamp::now());
        }
        self.seeded = true;
    }

    /// Another replica may write from now on.
    pub(super) fn forget(&mut self) {
        self.seeded = false;
    }

    fn edit(&mut self) -> &mut ScaledObjectStatus {
        Arc::make_mut(&mut self.current)
    }

    pub(super) fn set(&mut self, condition: Condition) {
        reasons::set(&mut self.edit().conditions, condition);
    }

    pub(super) fn is_true(&self, type_: &str) -> bool {
        self.current.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    }

    pub(super) fn message_of(&self, type_: &str) -> Option<&String> {
        self.current.conditions.iter().find(|condition| condition.type_ == type_).map(|c| &c.message)
    }

    pub(super) fn hpa_name(&self) -> Option<&str> {
        self.current.hpa_name.as_deref().filter(|name| !name.is_empty())
    }

    pub(super) fn last_active(&self) -> Option<Timestamp> {
        self.last_active
    }

    /// A trigger is active at `now`.
    pub(super) fn touch(&mut self, now: Timestamp) {
        self.last_active = Some(now);
    }

    pub(super) fn paused_replicas(&mut self, replicas: Option<i32>) {
        self.edit().paused_replica_count = replicas;
    }

    /// What the printer columns show of the spec.
    pub(super) fn describe(&mut self, object: &ScaledObject) {
        let joined = |names: Vec<&str>| (!names.is_empty()).then(|| names.join(","));
        let mut types: Vec<_> = object.spec.triggers.iter().map(|trigger| trigger.type_.as_str()).collect();
        types.sort_unstable();
        types.dedup();
        self.edit().triggers_types = joined(types);
        let mut authentications: Vec<_> = object
            .spec
            .triggers
            .iter()
            .filter_map(|trigger| trigger.authentication_ref.as_ref())
            .map(|reference| reference.name.as_str())
            .collect();
        authentications.sort_unstable();
        authentications.dedup();
        self.edit().authentications_types = joined(authentications);
    }

    /// The target's kind; its replicas are kept at first sight.
    pub(super) fn target(&mut self, gvk: &ScaleTargetGvk, replicas: i32) {
        let ScaleTargetGvk { group, version, kind, resource } = gvk.clone();
        let group_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        let status = self.edit();
        status.scale_target_kind = Some(format!("{group_version}.{kind}"));
        status.scale_target_gvkr = Some(GroupVersionKindResource { group, version, kind, resource });
        status.original_replica_count.get_or_insert(replicas);
    }

    /// The HPA and the metrics it reads; health of metrics that are gone goes too.
    pub(super) fn hpa(&mut self, name: &str, metrics: &[TriggerMetric], object: &ScaledObject) {
        let (external, resource) = hpa::metric_names(metrics);
        let status = self.edit();
        status.health.retain(|metric, _| external.contains(metric) || metric == hpa::COMPOSITE);
        status.hpa_name = Some(name.to_owned());
        status.external_metric_names = external;
        status.resource_metric_names = resource;
        status.composite_scaler_name = object.spec.scaling_modifiers().map(|_| hpa::COMPOSITE.to_owned());
    }

    /// Failures by metric. Once a fallback stands in, a further failure changes nothing and is not worth a write.
    pub(super) fn health(&mut self, mut health: BTreeMap<String, HealthStatus>, spec: &ScaledObjectSpec) {
        health.retain(|_, health| *health != HealthStatus::default());
        for (metric, health) in &mut health {
            if let Some(known) = self.current.health.get(metric)
                && known.status == health.status
                && fallback::is_due(spec, known)
                && fallback::is_due(spec, health)
            {
                health.clone_from(known);
            }
        }
        self.edit().health = health;
    }

    pub(super) fn activity(&mut self, activity: BTreeMap<String, TriggerActivity>) {
        self.edit().triggers_activity = activity;
    }

    /// The patch that brings the API server up to date, `None` where nothing changed.
    fn patch(&mut self) -> Option<Value> {
        if !self.seeded {
            return None;
        }
        let written = self.current.last_active_time.as_ref().map(|time| time.0);
        let overdue = self.last_active.is_some_and(|last| {
            written.is_none_or(|written| last.duration_since(written) >= LAST_ACTIVE_EVERY)
        });
        // A change is written with the time as it is; the time alone only now and then.
        if overdue || self.current != self.written {
            self.edit().last_active_time = self.last_active.map(whole_seconds);
        }
        if self.current == self.written {
            self.current = self.written.clone();
            return None;
        }
        merge::diff(&json!(*self.written), &json!(*self.current))
    }

    /// The patch arrived.
    fn patched(&mut self) {
        self.written = self.current.clone();
    }
}

/// The API server keeps times by the second.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

impl Task {
    /// Writes what changed; a failure is tried again with the next change or poll.
    pub(super) async fn write_status(&mut self) {
        let Some(patch) = self.status.patch() else { return };
        let Ok(_place) = self.shared.writes.acquire().await else { return };
        let api: Api<ScaledObject> = Api::namespaced(self.shared.cluster.client.clone(), &self.key.namespace);
        let body = Patch::Merge(json!({"status": patch}));
        match api.patch_status(&self.key.name, &PatchParams::default(), &body).await {
            Ok(_) => self.status.patched(),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(key = %self.key, %error, "status could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper() -> StatusKeeper {
        let mut keeper = StatusKeeper::default();
        keeper.seed(&ScaledObject::default());
        keeper
    }

    fn write(keeper: &mut StatusKeeper) -> Option<Value> {
        let patch = keeper.patch()?;
        keeper.patched();
        Some(patch)
    }

    #[test]
    fn an_active_object_that_stays_active_is_written_twice_an_hour() {
        let mut keeper = keeper();
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        keeper.set(reasons::scaler_active(false));
        let mut writes = 0;
        for poll in 0..=120 {
            keeper.touch(start + SignedDuration::from_secs(30 * poll));
            writes += usize::from(write(&mut keeper).is_some());
        }
        assert_eq!(writes, 3, "the first, and one each half hour");
    }

    #[test]
    fn the_end_of_activity_is_written_with_its_time() {
        let mut keeper = keeper();
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        keeper.set(reasons::scaler_active(false));
        keeper.touch(start);
        write(&mut keeper);
        keeper.touch(start + SignedDuration::from_secs(90));
        assert_eq!(write(&mut keeper), None);
        keeper.set(reasons::scaler_not_active());
        let patch = write(&mut keeper).unwrap();
        assert_eq!(patch["lastActiveTime"], "2023-11-14T22:14:50Z");
    }

    #[test]
    fn an_object_that_was_active_before_the_restart_gets_its_whole_cooldown() {
        let mut object = ScaledObject { status: Some(ScaledObjectStatus::default()), ..Default::default() };
        let status = object.status.as_mut().unwrap();
        status.last_active_time = Some(Time(Timestamp::from_second(1_700_000_000).unwrap()));
        reasons::set(&mut status.conditions, reasons::scaler_active(false));
        let mut keeper = StatusKeeper::default();
        keeper.seed(&object);
        assert!(keeper.last_active().unwrap() > Timestamp::from_second(1_700_000_000).unwrap());
        assert!(write(&mut keeper).is_some(), "the new time is overdue");
    }
}
