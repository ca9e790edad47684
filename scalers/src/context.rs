//! What scalers may use of the world: HTTP clients, gRPC channels, the cluster, the clock.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::channels::Channels;
use crate::error::Error;
use crate::http::{HttpClients, HttpSettings};

/// Handed to every call of a scaler. Cloning is cheap; all clones share the same connections.
#[derive(Clone)]
pub struct Context {
    /// Shared connection pools.
    pub http: HttpClients,
    /// Shared gRPC channels of `external` and `external-push` triggers.
    pub channels: Channels,
    /// The Kubernetes API, as far as scalers need it.
    pub cluster: Arc<dyn Cluster>,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Hears of every request.
    pub observer: Arc<dyn Observer>,
}

/// Hears of the requests of one metric.
pub trait Observer: Send + Sync {
    /// A request took this long and was answered with a status, or not at all.
    fn request(&self, status: Option<u16>, took: Duration);

    /// A query was answered without a value, which `ignored` takes for 0.
    fn empty_answer(&self, ignored: bool);
}

/// Nobody listens.
struct Silence;

impl Observer for Silence {
    fn request(&self, _: Option<u16>, _: Duration) {}
    fn empty_answer(&self, _: bool) {}
}

impl Context {
    /// Fresh pools and the system's clock.
    pub fn new(cluster: Arc<dyn Cluster>) -> Result<Self, Error> {
        Ok(Self {
            http: HttpClients::new()?,
            channels: Channels::default(),
            cluster,
            now: Timestamp::now,
            observer: Arc::new(Silence),
        })
    }

    /// Fresh pools where there is no cluster: for whoever only judges history.
    pub fn without_cluster() -> Result<Self, Error> {
        Self::new(Arc::new(NoCluster))
    }

    /// The same, trusting the authorities of these PEM bundles beside the system's.
    pub fn connecting(self, bundles: &[String], settings: HttpSettings) -> Result<Self, Error> {
        Ok(Self { http: HttpClients::with(bundles, settings)?, ..self })
    }

    /// The same with an observer of one metric.
    #[must_use]
    pub fn observed(&self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self.clone() }
    }
}

/// The Kubernetes API, as far as scalers need it. Errors are [`Error::Cluster`].
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Number of pods of `namespace` that match the label `selector` and are neither Succeeded nor Failed; with
    /// `by_node`, the number of nodes that run at least one of them.
    async fn count_pods(&self, namespace: &str, selector: &str, by_node: bool) -> Result<i64, Error>;

    /// The value at `key`; `None` when the `ConfigMap` exists without that key.
    async fn config_map_value(&self, namespace: &str, name: &str, key: &str)
    -> Result<Option<String>, Error>;

    /// The decoded value at `key`; `None` when the `Secret` exists without that key.
    async fn secret_value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, Error>;

    /// `ip:port` of each ready endpoint of a Service, from its `EndpointSlice`s.
    async fn service_endpoints(&self, namespace: &str, service: &str) -> Result<Vec<String>, Error>;
}

/// There is no cluster to ask.
struct NoCluster;

impl NoCluster {
    fn refuse<T>() -> Result<T, Error> {
        Err(Error::Cluster("there is no cluster".to_owned()))
    }
}

#[async_trait]
impl Cluster for NoCluster {
    async fn count_pods(&self, _: &str, _: &str, _: bool) -> Result<i64, Error> {
        Self::refuse()
    }

    async fn config_map_value(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
        Self::refuse()
    }

    async fn secret_value(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
        Self::refuse()
    }

    async fn service_endpoints(&self, _: &str, _: &str) -> Result<Vec<String>, Error> {
        Self::refuse()
    }
}
