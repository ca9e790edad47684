//! What the scheduling simulation reads beside pods and nodes: namespaces and storage.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass as ApiStorageClass,
};
use kube::Client;
use parking_lot::Mutex;
use tandem_core::scheduling::{
    Surroundings,
    surroundings::{Claim, StorageClass, Volume},
};

use super::mirror::Mirror;

/// Labels of an object.
type Labels = BTreeMap<String, String>;

/// Watches of namespaces and storage.
pub struct SurroundingsCache {
    namespaces: Arc<Mirror<Labels>>,
    claims: Arc<Mirror<Claim>>,
    volumes: Arc<Mirror<Volume>>,
    classes: Arc<Mirror<StorageClass>>,
    /// What was read last, and the versions that it was read from.
    last: Mutex<([u64; 4], Arc<Surroundings>)>,
}

impl SurroundingsCache {
    /// Starts the watches; `changed` hears of every change.
    pub fn start(client: &Client, changed: impl Fn() + Clone + Send + 'static) -> Self {
        Self {
            namespaces: Mirror::start(
                client,
                |namespace: &Namespace| namespace.metadata.labels.clone().unwrap_or_default(),
                changed.clone(),
            ),
            claims: Mirror::start(
                client,
                |claim: &PersistentVolumeClaim| Claim::read(claim),
                changed.clone(),
            ),
            volumes: Mirror::start(client, |volume: &PersistentVolume| Volume::read(volume), changed.clone()),
            classes: Mirror::start(client, |class: &ApiStorageClass| StorageClass::read(class), changed),
            last: Mutex::default(),
        }
    }

    /// Waits for the first listing of every kind.
    pub async fn synced(&self) {
        tokio::join!(
            self.namespaces.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.classes.synced()
        );
    }

    /// All of it as it is now.
    pub fn read(&self) -> Arc<Surroundings> {
        let versions = [
            self.namespaces.version(),
            self.claims.version(),
            self.volumes.version(),
            self.classes.version(),
        ];
        let mut last = self.last.lock();
        if last.0 != versions {
            *last = (versions, Arc::new(self.collect()));
        }
        last.1.clone()
    }

    fn collect(&self) -> Surroundings {
        let named = |name: &str| Arc::from(name);
        let namespaces = self.namespaces.entries().into_iter();
        let volumes = self.volumes.entries().into_iter();
        let classes = self.classes.entries().into_iter();
        let claims = self.claims.entries().into_iter();
        Surroundings {
            namespaces: namespaces.map(|(key, labels)| (named(&key.name), (*labels).clone())).collect(),
            claims: claims
                .map(|(key, claim)| ((named(&key.namespace), named(&key.name)), (*claim).clone()))
                .collect(),
            volumes: volumes.map(|(key, volume)| (named(&key.name), (*volume).clone())).collect(),
            classes: classes.map(|(key, class)| (named(&key.name), (*class).clone())).collect(),
        }
    }
}
