//! Nodes for pods: how long pods are thought about, how many wait for what, and how soon they start (core,
//! `pkg/controllers/provisioning/scheduling/metrics.go`, `pkg/controllers/metrics/pod`, `pkg/controllers/state/metrics.go`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tandem_core::nodes::pools::solver::Zones;
use tokio::time::Instant;

use super::{
    super::startups::{Reached, Stage},
    Nothing, OBJECTIVES, durations,
};
use crate::telemetry::summary::Summary;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfController {
    controller: &'static str,
}

/// One search for nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(in super::super) struct OfSearch {
    controller: &'static str,
    scheduling_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfZone {
    controller: &'static str,
    zone: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Eviction {
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Drained {
    reason: String,
}

/// The controller whose pods wait.
const PROVISIONER: &str = "provisioner";
const OF_PROVISIONER: OfController = OfController { controller: PROVISIONER };

/// Counters of pods and of the search for nodes.
#[derive(Debug, Clone)]
pub(in super::super) struct Scheduling {
    evictions: Family<Eviction, Counter>,
    drained: Family<Drained, Counter>,
    bound_seconds: Arc<Histogram>,
    startup_seconds: Summary<Nothing>,
    placed_bound_seconds: Arc<Histogram>,
    placed_startup_seconds: Arc<Histogram>,
    decision_seconds: Arc<Histogram>,
    seconds: Family<OfController, Histogram, fn() -> Histogram>,
    queue: Family<OfSearch, Gauge>,
    unschedulable: Family<OfController, Gauge>,
    zones: Family<OfZone, Gauge>,
    /// The search that goes on, and since when.
    running: Arc<Mutex<Option<(OfSearch, Instant)>>>,
    /// How many searches there were.
    searches: Arc<AtomicU64>,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            evictions: Family::default(),
            drained: Family::default(),
            bound_seconds: Arc::new(durations()),
            startup_seconds: Summary::new(OBJECTIVES),
            placed_bound_seconds: Arc::new(durations()),
            placed_startup_seconds: Arc::new(durations()),
            decision_seconds: Arc::new(durations()),
            seconds: Family::new_with_constructor(durations),
            queue: Family::default(),
            unschedulable: Family::default(),
            zones: Family::default(),
            running: Arc::default(),
            searches: Arc::default(),
        }
    }
}

impl Scheduling {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_pods(registry.sub_registry_with_prefix("pods"));
        let registry = registry.sub_registry_with_prefix("scheduler");
        registry.register(
            "scheduling_duration_seconds",
            "How long a batch of pods was thought about and answered",
            self.seconds.clone(),
        );
        registry.register("queue_depth", "Pods that are being thought about", self.queue.clone());
        registry.register(
            "unschedulable_pods_count",
            "Pods for which there is no node to be had",
            self.unschedulable.clone(),
        );
        registry.register(
            "pending_pods_by_effective_zone_count",
            "Pods that wait, by the zone that they are bound to; flexible if to several, none if they have no zone in common",
            self.zones.clone(),
        );
    }

    fn register_pods(&self, registry: &mut Registry) {
        registry.register("eviction_requests", "Evictions by answer", self.evictions.clone());
        registry.register(
            "drained",
            "Pods that were made to leave nodes that end, by why these do",
            self.drained.clone(),
        );
        registry.register(
            "bound_duration_seconds",
            "From the creation of a pod until it has a node",
            (*self.bound_seconds).clone(),
        );
        registry.register(
            "startup_duration_seconds",
            "From the creation of a pod until it is ready",
            self.startup_seconds.clone(),
        );
        registry.register(
            "provisioning_bound_duration_seconds",
            "From the time at which there was first a place for a pod until it has a node",
            (*self.placed_bound_seconds).clone(),
        );
        registry.register(
            "provisioning_startup_duration_seconds",
            "From the time at which there was first a place for a pod until it is ready",
            (*self.placed_startup_seconds).clone(),
        );
        registry.register(
            "scheduling_decision_duration_seconds",
            "From the time at which a pod was first seen to need a node until it was thought about",
            (*self.decision_seconds).clone(),
        );
    }

    /// A pod has come so far.
    pub(in super::super) fn reached(&self, reached: Reached) {
        let Reached { stage, seconds, since_placed } = reached;
        let since_first_place = match stage {
            Stage::Waiting => return,
            Stage::Bound => {
                self.bound_seconds.observe(seconds);
                &self.placed_bound_seconds
            }
            Stage::Started => {
                self.startup_seconds.observe(Nothing {}, seconds);
                &self.placed_startup_seconds
            }
        };
        if let Some(seconds) = since_placed {
            since_first_place.observe(seconds);
        }
    }

    /// A pod was thought about for the first time, so many seconds after it was seen.
    pub(in super::super) fn decided(&self, seconds: f64) {
        self.decision_seconds.observe(seconds);
    }

    /// The API server answered an eviction so.
    pub(in super::super) fn evicted(&self, code: u16) {
        self.evictions.get_or_create(&Eviction { code }).inc();
    }

    /// A pod was made to leave a node that ends.
    pub(in super::super) fn drained(&self, reason: &str) {
        self.drained.get_or_create(&Drained { reason: reason.to_owned() }).inc();
    }

    /// So many pods are thought about from now on.
    pub(in super::super) fn begins(&self, pods: usize) {
        let scheduling_id = self.searches.fetch_add(1, Ordering::Relaxed).to_string();
        let search = OfSearch { controller: PROVISIONER, scheduling_id };
        self.queue.clear();
        self.queue.get_or_create(&search).set(i64::try_from(pods).unwrap_or(i64::MAX));
        *self.running.lock() = Some((search, Instant::now()));
    }

    /// They have been thought about.
    pub(in super::super) fn ended(&self) {
        if let Some((search, since)) = self.running.lock().take() {
            self.queue.get_or_create(&search).set(0);
            self.seconds.get_or_create(&OF_PROVISIONER).observe(since.elapsed().as_secs_f64());
        }
    }

    /// How long the search that goes on has taken so far, seconds.
    pub(in super::super) fn unfinished(&self) -> Option<(OfSearch, f64)> {
        let running = self.running.lock();
        running.as_ref().map(|(search, since)| (search.clone(), since.elapsed().as_secs_f64()))
    }

    /// So many pods have no node to be had, and so many are bound to which zones.
    pub(in super::super) fn found(&self, unschedulable: usize, zones: &BTreeMap<Zones, usize>) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.unschedulable.get_or_create(&OF_PROVISIONER).set(gauge(unschedulable));
        self.zones.clear();
        for (zones, count) in zones {
            let labels = OfZone { controller: PROVISIONER, zone: zones.label().to_owned() };
            self.zones.get_or_create(&labels).set(gauge(*count));
        }
    }
}
