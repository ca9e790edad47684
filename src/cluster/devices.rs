//! Devices as the scheduler sees them: slices that drivers publish, classes, and claims.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::api::resource::v1 as k8s;
use kube::Client;
use parking_lot::Mutex;
use tandem_core::scheduling::devices::{Claim, ClaimSpec, DeviceClass, Objects, Slice, TaintRule};

use super::mirror::Mirror;

/// The devices of the cluster.
pub(super) struct Devices {
    slices: Arc<Mirror<Slice>>,
    /// Nothing before Kubernetes 1.37, which is the first to serve them in `resource.k8s.io/v1`.
    taint_rules: Arc<Mirror<TaintRule>>,
    classes: Arc<Mirror<DeviceClass>>,
    claims: Arc<Mirror<Claim>>,
    templates: Arc<Mirror<ClaimSpec>>,
    /// The last answer, and the versions of what it was made from.
    last: Mutex<Option<([u64; 5], Arc<Objects>)>>,
    /// Whether it has been said that they may not be read.
    warned: AtomicBool,
}

impl Devices {
    /// Starts the watches; `changed` hears of new slices.
    pub(super) fn start(client: &Client, changed: impl Fn() + Send + 'static) -> Self {
        Self {
            slices: Mirror::start_if_readable(
                client,
                |slice: &k8s::ResourceSlice| Slice::read(slice),
                changed,
            ),
            taint_rules: Mirror::start_if_readable(
                client,
                |rule: &k8s::DeviceTaintRule| TaintRule::read(rule),
                || {},
            ),
            classes: Mirror::start_if_readable(
                client,
                |class: &k8s::DeviceClass| DeviceClass::read(class),
                || {},
            ),
            claims: Mirror::start_if_readable(client, |claim: &k8s::ResourceClaim| Claim::read(claim), || {}),
            templates: Mirror::start_if_readable(
                client,
                |template: &k8s::ResourceClaimTemplate| ClaimSpec::of_template(template),
                || {},
            ),
            last: Mutex::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// Waits for the first listing of every kind, or until it is known that one may not be read.
    pub(super) async fn synced(&self) {
        tokio::join!(
            self.slices.synced(),
            self.taint_rules.synced(),
            self.classes.synced(),
            self.claims.synced(),
            self.templates.synced(),
        );
        if self.objects().is_none() && !self.warned.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "resource.k8s.io/v1 is not served, or its resourceslices, deviceclasses, resourceclaims and \
                 resourceclaimtemplates may not be read: no node is made or left for pods with claims of devices"
            );
        }
    }

    /// Devices and claims of them; `None` if they cannot be read. The same until something changes.
    pub(super) fn objects(&self) -> Option<Arc<Objects>> {
        let Self { slices, taint_rules, classes, claims, templates, .. } = self;
        if !(slices.is_listed() && classes.is_listed() && claims.is_listed() && templates.is_listed()) {
            return None;
        }
        let versions = [
            slices.version(),
            taint_rules.version(),
            classes.version(),
            claims.version(),
            templates.version(),
        ];
        let mut last = self.last.lock();
        if let Some((of, objects)) = &*last
            && *of == versions
        {
            return Some(objects.clone());
        }
        let objects = Arc::new(Objects {
            slices: by_name(slices),
            taint_rules: by_name(taint_rules),
            classes: by_name(classes),
            claims: by_key(claims),
            templates: by_key(templates),
        });
        *last = Some((versions, objects.clone()));
        Some(objects)
    }
}

fn by_name<T: PartialEq + Send + Sync + 'static>(mirror: &Mirror<T>) -> BTreeMap<Arc<str>, Arc<T>> {
    mirror.entries().into_iter().map(|(key, object)| (key.name.into(), object)).collect()
}

fn by_key<T: PartialEq + Send + Sync + 'static>(
    mirror: &Mirror<T>,
) -> BTreeMap<(Arc<str>, Arc<str>), Arc<T>> {
    let entries = mirror.entries().into_iter();
    entries.map(|(key, object)| ((key.namespace.into(), key.name.into()), object)).collect()
}
