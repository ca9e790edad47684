//! What is said of a pass: events and log lines, as Cluster Autoscaler's users know them.

mod lines;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use tandem_core::{
    nodes::{
        buffer::reasons::{not_trigger_scale_up, triggered_scale_up},
        pass::{Buffered, Outcome},
        provisioning_request::{consumed_by, reasons as requests},
        reasons,
    },
    pods::reasons::Event,
    scheduling::Pod,
};
use tracing::Level;

pub(super) use self::lines::Told;
use crate::{controllers::nodes::drain::Evicted, telemetry::events::Events};

/// Events of pods in one pass; of ten thousand pods that fit nowhere a few tell it all.
const POD_EVENTS: usize = 100;

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
        self.tell(&self.status, event).await;
    }

    /// On any object; every event is in the log, too.
    async fn tell(&self, object: &ObjectReference, event: &Event) {
        tracing::info!("{}", lines::event(object, event));
        self.events.tell(object, event).await;
    }

    /// On a node.
    pub(super) async fn on_node(&self, node: &str, event: &Event) {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            // What kubectl describe node asks for.
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        self.tell(&object, event).await;
    }

    /// On a pod that is evicted, without waiting for it.
    pub(super) fn evicted(&self, pod: &Pod, evicted: &Evicted) {
        let event = match evicted {
            Evicted::Done => reasons::pod_evicted(),
            Evicted::Not(_) => reasons::pod_not_evicted(),
        };
        let (reporter, object) = (self.clone(), object(pod));
        tokio::spawn(async move { reporter.tell(&object, &event).await });
    }

    /// What a pass decided.
    pub(super) async fn decided(&self, told: &Told<'_>) {
        let outcome = told.outcome;
        told.lines(&mut |level, text| match level {
            Level::WARN => tracing::warn!("{text}"),
            Level::INFO => tracing::info!("{text}"),
            _ => tracing::debug!("{text}"),
        });
        if !outcome.found.healthy {
            self.on_status(&reasons::cluster_unhealthy()).await;
        }
        if let Some(limit) = outcome.max_nodes_reached {
            self.on_status(&reasons::max_nodes_total_reached(limit)).await;
        }
        for expired in &outcome.found.expired {
            self.on_status(&reasons::scale_up_timed_out(&expired.group, expired.waited)).await;
        }
        for (group, nodes, error) in &outcome.found.failures {
            self.on_status(&reasons::scale_up_failed(group, *nodes, error)).await;
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
        let events = events.iter().map(|(object, event)| self.tell(object, event));
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
                    self.tell(&object, &event).await;
                }
            }
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
