//! Publishing of Kubernetes Events (events.k8s.io). Reasons live in `tandem_core::pods::reasons`.
//!
//! kube's own recorder keeps the whole of every event it wrote, some 3 kB, and looks through all of them at each: a quarter of
//! the memory of ten thousand objects that start together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use tandem_core::pods::reasons::Event as Decided;

/// The longest note the API server accepts, in bytes (events.k8s.io/v1 validation: 1 kB).
const NOTE_LIMIT: usize = 1000;
/// An event that comes again within this counts the one before up (client-go's events broadcaster).
const SAME_SERIES: SignedDuration = SignedDuration::from_mins(6);
/// Series are looked through for old ones when there are twice as many as were left the last time, and at least this many.
const SWEEP_FROM: usize = 64;

/// Writes events about objects, each repeated one counted up.
#[derive(Clone)]
pub struct Events {
    client: Client,
    controller: String,
    instance: String,
    annotations: Arc<BTreeMap<String, String>>,
    lately: Arc<Mutex<Lately>>,
}

impl Events {
    /// `controller` is the reporter's name, as in `kubectl describe`; `instance` the pod.
    pub fn new(client: Client, controller: &str, instance: Option<String>) -> Self {
        let controller = controller.to_owned();
        let instance = instance.unwrap_or_else(|| controller.clone());
        Self { client, controller, instance, annotations: Arc::default(), lately: Arc::default() }
    }

    /// Events with these annotations.
    #[must_use]
    pub fn annotated(self, annotations: BTreeMap<String, String>) -> Self {
        Self { annotations: Arc::new(annotations), ..self }
    }

    /// Publishes one event about `object`; one with the same reason as before counts that one up, and keeps its note.
    /// A failure is logged and forgotten: an event is never worth a retry.
    pub async fn publish(&self, object: &ObjectReference, event: &Decided) {
        self.publish_in(Key::of(object, event), object, event).await;
    }

    /// As [`Self::publish`], but one that says something else is an event of its own.
    pub async fn publish_by_message(&self, object: &ObjectReference, event: &Decided) {
        let key = Key { message: event.message.clone(), ..Key::of(object, event) };
        self.publish_in(key, object, event).await;
    }

    async fn publish_in(&self, key: Key, object: &ObjectReference, event: &Decided) {
        let now = Timestamp::now();
        let again = self.lately.lock().again(&key, now);
        if let Some((name, count)) = again
            && self.count_up(object, &name, count, now).await.is_ok()
        {
            return;
        }
        // The first of its series, or somebody deleted that.
        let created = self.create(object, event, now).await;
        complain(created.map(|name| self.lately.lock().first(key, name, now)), event);
    }

    /// As [`Self::publish`], for what happens once: a node that goes, a group that grows. Every one has its own note.
    pub async fn tell(&self, object: &ObjectReference, event: &Decided) {
        complain(self.create(object, event, Timestamp::now()).await, event);
    }

    async fn create(
        &self,
        object: &ObjectReference,
        event: &Decided,
        now: Timestamp,
    ) -> kube::Result<String> {
        let about = object.name.as_deref().unwrap_or(&self.controller);
        let name = format!("{about}.{:x}", now.as_nanosecond());
        let event = Event {
            action: Some(event.reason.to_owned()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta {
                annotations: Some(&*self.annotations).filter(|it| !it.is_empty()).cloned(),
                namespace: object.namespace.clone(),
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            note: Some(truncate(&event.message).to_owned()),
            reason: Some(event.reason.to_owned()),
            regarding: Some(object.clone()),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(event.type_.to_owned()),
            ..Event::default()
        };
        self.api(object).create(&PostParams::default(), &event).await.map(|_| name)
    }

    async fn count_up(
        &self,
        object: &ObjectReference,
        name: &str,
        count: i32,
        now: Timestamp,
    ) -> kube::Result<()> {
        let series = Some(EventSeries { count, last_observed_time: MicroTime(now) });
        let patch = Patch::Merge(Event { series, ..Event::default() });
        self.api(object).patch(name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Events about what has no namespace are in `default`.
    fn api(&self, object: &ObjectReference) -> Api<Event> {
        Api::namespaced(self.client.clone(), object.namespace.as_deref().unwrap_or("default"))
    }
}

/// What tells one series from another, for one reporter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// The object's uid, or its kind, namespace and name where it has none.
    about: String,
    reason: &'static str,
    /// Empty where one series has them all.
    message: String,
}

impl Key {
    fn of(object: &ObjectReference, event: &Decided) -> Self {
        let named = || {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{}/{}/{}", part(&object.kind), part(&object.namespace), part(&object.name))
        };
        Self { about: object.uid.clone().unwrap_or_else(named), reason: event.reason, message: String::new() }
    }
}

/// The event that began a series.
struct Begun {
    name: String,
    count: i32,
    last: Timestamp,
}

/// What was published in the last minutes.
#[derive(Default)]
struct Lately {
    series: HashMap<Key, Begun>,
    /// How many were left when old ones were last looked for.
    swept: usize,
}

impl Lately {
    /// Counts one more of a series that goes on: the name of its event, and how many it stands for now.
    fn again(&mut self, key: &Key, now: Timestamp) -> Option<(String, i32)> {
        let begun = self.series.get_mut(key).filter(|begun| goes_on(begun, now))?;
        begun.count += 1;
        begun.last = now;
        Some((begun.name.clone(), begun.count))
    }

    /// Begins a series.
    fn first(&mut self, key: Key, name: String, now: Timestamp) {
        if self.series.len() >= SWEEP_FROM.max(2 * self.swept) {
            self.series.retain(|_, begun| goes_on(begun, now));
            self.series.shrink_to_fit();
            self.swept = self.series.len();
        }
        self.series.insert(key, Begun { name, count: 1, last: now });
    }
}

fn goes_on(begun: &Begun, now: Timestamp) -> bool {
    now.duration_since(begun.last) < SAME_SERIES
}

fn complain<T>(published: kube::Result<T>, event: &Decided) {
    if let Err(error) = published {
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
    use super::*;

    fn key(about: &str) -> Key {
        Key { about: about.to_owned(), reason: "Ready", message: String::new() }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    #[test]
    fn what_comes_again_is_counted_up_while_it_goes_on() {
        let mut lately = Lately::default();
        assert_eq!(lately.again(&key("a"), at(0)), None);
        lately.first(key("a"), "a.1".to_owned(), at(0));
        assert_eq!(lately.again(&key("b"), at(1)), None);
        assert_eq!(lately.again(&Key { reason: "Paused", ..key("a") }, at(1)), None);
        assert_eq!(lately.again(&Key { message: "another".to_owned(), ..key("a") }, at(1)), None);
        assert_eq!(lately.again(&key("a"), at(5)), Some(("a.1".to_owned(), 2)));
        assert_eq!(lately.again(&key("a"), at(10)), Some(("a.1".to_owned(), 3)));
        assert_eq!(lately.again(&key("a"), at(16)), None);
    }

    #[test]
    fn old_series_are_forgotten() {
        let mut lately = Lately::default();
        for number in 0..1000 {
            lately.first(key(&number.to_string()), String::new(), at(number));
        }
        assert!(lately.series.len() <= SWEEP_FROM, "{}", lately.series.len());
        assert_eq!(lately.again(&key("999"), at(999)).map(|(_, count)| count), Some(2));
    }

    #[test]
    fn long_notes_are_cut_at_a_character() {
        let note = "ä".repeat(700);
        let cut = truncate(&note);
        assert!(cut.len() <= NOTE_LIMIT && note.starts_with(cut));
    }
}
