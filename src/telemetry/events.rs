//! Publishing of Kubernetes Events (events.k8s.io). Reasons live in `tandem_core::pods::reasons`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tandem_core::pods::reasons::Event as Decided;

/// The longest note the API server accepts, in bytes (events.k8s.io/v1 validation: 1 kB).
const NOTE_LIMIT: usize = 1000;

/// Writes events about objects, each repeated one aggregated by the recorder.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    recorder: Recorder,
}

impl Events {
    /// `controller` is the reporter's name, as in `kubectl describe`; `instance` the pod.
    pub fn new(client: Client, controller: &str, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance };
        let recorder = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, recorder }
    }

    /// Publishes one event about `object`; one with the same reason as before counts that one up, and keeps its note.
    /// A failure is logged and forgotten: an event is never worth a retry.
    pub async fn publish(&self, object: &ObjectReference, event: &Decided) {
        write(&self.recorder, object, event).await;
    }

    /// Writes events apart from all others: only those that it published itself are counted up.
    pub fn apart(&self) -> Self {
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        Self { recorder, ..self.clone() }
    }

    /// As [`Self::publish`], for what happens once: a node that goes, a group that grows. Every one has its own note.
    pub async fn tell(&self, object: &ObjectReference, event: &Decided) {
        self.apart().publish(object, event).await;
    }
}

async fn write(recorder: &Recorder, object: &ObjectReference, event: &Decided) {
    let event = Event {
        type_: if event.type_ == "Warning" { EventType::Warning } else { EventType::Normal },
        reason: event.reason.to_owned(),
        note: Some(truncate(&event.message).to_owned()),
        action: event.reason.to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, object).await {
        tracing::warn!(%error, reason = event.reason, "event could not be published");
    }
}

fn truncate(note: &str) -> &str {
    if note.len() <= NOTE_LIMIT {
        return note;
    }
    let end = (0..=NOTE_LIMIT).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
    &note[..end]
}

#[cfg(test)]
mod tests {
    #[test]
    fn long_notes_are_cut_at_a_character() {
        let note = "ä".repeat(700);
        let cut = super::truncate(&note);
        assert!(cut.len() <= super::NOTE_LIMIT && note.starts_with(cut));
    }
}
