//! What is said of a pass: events and log lines, as Cluster Autoscaler's users know them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use tandem_core::{
    nodes::{
        action::Increase,
        buffer::reasons::{not_trigger_scale_up, triggered_scale_up},
        pass::{Buffered, Outcome},
        provisioning_request::{consumed_by, reasons as requests},
        reasons,
    },
    pods::reasons::Event,
    scheduling::Pod,
};

use crate::{controllers::nodes::drain::Evicted, telemetry::events::Events};

/// Events of pods in one pass; of ten thousand pods that fit nowhere a few tell it all.
const POD_EVENTS: usize = 100;
/// Log lines of pods in one pass (Cluster Autoscaler's `MaxPodsLogged`).
const POD_LINES: usize = 20;

/// Messages by buffer and reason.
type ToldOfRoom = BTreeMap<(Arc<str>, &'static str), String>;

/// Says what is decided and done.
#[derive(Clone)]
pub(super) struct Reporter {
    events: Events,
    status: ObjectReference,
    /// What pods were told last, by uid, so that it is said once.
    told: Arc<Mutex<BTreeMap<Arc<str>, String>>>,
    /// What buffers were told last, by reason.
    told_of_room: Arc<tokio::sync::Mutex<ToldOfRoom>>,
}

impl Reporter {
    pub(super) fn new(events: Events, status: ObjectReference) -> Self {
        Self { events, status, told: Arc::default(), told_of_room: Arc::default() }
    }

    /// Where events are written.
    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// On the status ConfigMap, where what concerns no single object is told.
    pub(super) async fn on_status(&self, event: &Event) {
        tracing::info!(reason = event.reason, "{}", event.message);
        self.events.tell(&self.status, event).await;
    }

    /// On a node.
    pub(super) async fn on_node(&self, node: &str, event: &Event) {
        tracing::info!(node, reason = event.reason, "{}", event.message);
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            // What kubectl describe node asks for.
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        self.events.tell(&object, event).await;
    }

    /// On a pod that is evicted, without waiting for it.
    pub(super) fn evicted(&self, pod: &Pod, evicted: &Evicted) {
        let event = match evicted {
            Evicted::Done => reasons::pod_evicted(),
            Evicted::Not(_) => reasons::pod_not_evicted(),
        };
        let (events, object) = (self.events.clone(), object(pod));
        tokio::spawn(async move { events.tell(&object, &event).await });
    }

    /// What a pass decided.
    pub(super) async fn decided(&self, outcome: &Outcome) {
        Self::lines(outcome);
        if !outcome.found.healthy {
            self.on_status(&reasons::cluster_unhealthy()).await;
        }
        if let Some(limit) = outcome.max_nodes_reached {
            self.on_status(&reasons::max_nodes_total_reached(limit)).await;
        }
        for expired in &outcome.found.expired {
            let waited = format!("{:#}", expired.waited);
            self.on_status(&reasons::scale_up_timed_out(&expired.group, &waited)).await;
        }
        for (group, nodes, error) in &outcome.found.failures {
            self.on_status(&reasons::scale_up_failed(group, *nodes, error)).await;
        }
        for (group, took) in &outcome.found.fulfilled {
            tracing::info!("Scale-up in group {group} finished successfully in {took:#}");
        }
        self.pods(outcome).await;
    }

    async fn pods(&self, outcome: &Outcome) {
        let plan = &outcome.plan;
        let mut events = Vec::new();
        let increases_of = |groups: &[Arc<str>]| -> Vec<_> {
            plan.increases.iter().filter(|increase| groups.contains(&increase.group)).cloned().collect()
        };
        {
            let mut told = self.told.lock();
            let waiting = || outcome.unschedulable.iter().chain(&outcome.consuming);
            if told.len() > waiting().count() {
                told.retain(|uid, _| waiting().any(|pod| pod.uid == *uid));
            }
            let helped = plan
                .helped
                .iter()
                .map(|(pod, groups)| (pod, reasons::triggered_scale_up(&increases_of(groups))));
            let refused =
                plan.refused.iter().map(|(pod, refusals)| (pod, reasons::not_trigger_scale_up(refusals)));
            let consuming = outcome
                .consuming
                .iter()
                .filter_map(|pod| Some((pod, requests::consuming(&pod.shape.namespace, consumed_by(pod)?))));
            for (pod, event) in helped.chain(refused).chain(consuming) {
                if events.len() >= POD_EVENTS {
                    break;
                }
                if told.get(&pod.uid) != Some(&event.message) {
                    told.insert(pod.uid.clone(), event.message.clone());
                    events.push((object(pod), event));
                }
            }
        }
        let events = events.iter().map(|(object, event)| self.events.tell(object, event));
        futures::future::join_all(events).await;
    }

    /// What a pass does for the room of buffers, on each of them, once.
    pub(super) async fn room(&self, outcome: &Outcome, reference: impl Fn(&str) -> Option<ObjectReference>) {
        let mut told = self.told_of_room.lock().await;
        told.retain(|(buffer, _), _| outcome.buffers.iter().any(|it| it.buffer == *buffer));
        for Buffered { buffer, placement, groups, refusals } in &outcome.buffers {
            let increases = outcome.plan.increases.iter().filter(|increase| groups.contains(&increase.group));
            let increases: Vec<_> = increases.cloned().collect();
            let grown = (!increases.is_empty()).then(|| triggered_scale_up(placement.new, &increases));
            let refused = (placement.nowhere > 0).then(|| not_trigger_scale_up(placement.nowhere, refusals));
            for event in grown.into_iter().chain(refused) {
                let last = told.insert((buffer.clone(), event.reason), event.message.clone());
                if last.as_ref() != Some(&event.message)
                    && let Some(object) = reference(buffer)
                {
                    tracing::info!(%buffer, reason = event.reason, "{}", event.message);
                    self.events.tell(&object, &event).await;
                }
            }
        }
    }

    fn lines(outcome: &Outcome) {
        let waiting = &outcome.unschedulable;
        for pod in waiting.iter().take(POD_LINES) {
            tracing::info!("Pod {} is unschedulable", pod.key());
        }
        if waiting.len() > POD_LINES {
            tracing::info!("{} other pods are also unschedulable", waiting.len() - POD_LINES);
        }
        if waiting.is_empty() {
            tracing::debug!("No unschedulable pods");
        } else {
            tracing::info!("Upcoming {} nodes", outcome.upcoming);
        }
        for groups in &outcome.plan.splits {
            let (count, names) = (groups.len(), groups.join(", "));
            tracing::info!("Splitting scale-up between {count} similar node groups: {{{names}}}");
        }
        for (pod, refusals) in outcome.plan.refused.iter().take(POD_LINES) {
            for refusal in refusals.iter() {
                let (pod, group, why) = (pod.key(), &refusal.group, &refusal.reason);
                tracing::debug!("Pod {pod} can't be scheduled on {group}, predicate checking error: {why}");
            }
        }
        for Increase { group, from, to, .. } in &outcome.plan.increases {
            tracing::info!("Best option to resize: {group}");
            tracing::info!("Estimated {} nodes needed in {group}", to - from);
        }
        if !outcome.plan.increases.is_empty() {
            tracing::info!("Final scale-up plan: {}", reasons::plan_text(&outcome.plan.increases));
        } else if !waiting.is_empty() {
            tracing::info!("No expansion options");
        }
        for unneeded in &outcome.unneeded {
            tracing::info!("{} is unneeded since {}", unneeded.node, unneeded.since);
        }
        for unremovable in &outcome.unremovable {
            tracing::debug!("Node {} unremovable: {}", unremovable.node, unremovable.text);
        }
    }
}

fn object(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name.to_string()),
        namespace: Some(pod.shape.namespace.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}
