//! ProvisioningRequests (`--enable-provisioning-requests`): read before a pass over node groups, told after it.
//!
//! What is decided in between is `tandem_core::nodes::provisioning_request`, and the pass. The loop of node groups is the only
//! one who writes their status, once a pass at most.

mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as k8s;
use kube::{Client, ResourceExt as _, core::ApiResource};
use tandem_core::{
    api::autoscaling::{ProvisioningRequest, v1beta1},
    nodes::provisioning_request::{API_GROUP, Answered, KIND, Request, Sight, consumed_by, look},
    scheduling::Pod,
};

use super::buffer::Template;
use crate::cluster::{
    Key,
    cache::{Cache, Scope, watch_custom},
    client::served,
    mirror::Mirror,
    world::World,
};

/// The versions in which the kind may be served, the best first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// How the kind is called in paths.
const PLURAL: &str = "provisioningrequests";

/// Why requests cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// Their kind is not there.
    #[error(
        "CRD provisioningrequests.autoscaling.x-k8s.io is not installed, and --enable-provisioning-requests is set; apply \
         it: kubectl apply --server-side -f crds/autoscaling.x-k8s.io_provisioningrequests.yaml"
    )]
    NotInstalled,
    /// The API server did not say.
    #[error("it is not known whether there are ProvisioningRequests: {0}")]
    Unknown(#[from] kube::Error),
}

/// All requests, in the version that is served.
enum Objects {
    V1(Arc<Cache<ProvisioningRequest>>),
    V1Beta1(Arc<Cache<v1beta1::ProvisioningRequest>>),
}

impl Objects {
    async fn synced(&self) {
        match self {
            Self::V1(cache) => cache.synced().await,
            Self::V1Beta1(cache) => cache.synced().await,
        }
    }

    /// In the order in which they were made.
    fn all(&self) -> Vec<Arc<ProvisioningRequest>> {
        let mut all: Vec<_> = match self {
            Self::V1(cache) => cache.all(),
            Self::V1Beta1(cache) => {
                cache.all().iter().map(|object| Arc::new(ProvisioningRequest::from(&**object))).collect()
            }
        };
        let age = |object: &ProvisioningRequest| object.creation_timestamp().map(|time| time.0);
        all.sort_by_key(|object| (age(object), object.namespace(), object.name_any()));
        all
    }
}

/// All requests, and what is needed to read and to answer them.
pub struct Requests {
    client: Client,
    objects: Objects,
    kind: ApiResource,
    templates: Arc<Mirror<Template>>,
    /// `--check-capacity-processor-instance`.
    instance: String,
    /// Whether statuses are written.
    writes: bool,
}

/// A request that was looked at, until it is told what came of that.
pub struct Seen {
    object: Arc<ProvisioningRequest>,
    sight: Sight,
}

impl Requests {
    /// Starts the watches.
    ///
    /// # Errors
    /// See [`NotServed`].
    pub async fn start(
        client: &Client,
        world: &Arc<World>,
        instance: &str,
        writes: bool,
    ) -> Result<Self, NotServed> {
        let mut best = None;
        for version in VERSIONS {
            let is_there = served(client, &format!("{API_GROUP}/{version}")).await?.contains(PLURAL);
            best = best.or(is_there.then_some(version));
        }
        let version = best.ok_or(NotServed::NotInstalled)?;
        // Whoever asks for room waits for no interval.
        let tell = || {
            let world = world.clone();
            move || world.unschedulable.notify_one()
        };
        let (scope, changed) = (Scope::default(), tell());
        let objects = if version == VERSIONS[0] {
            Objects::V1(watch_custom(client, &scope, move |_, _: &_| changed()))
        } else {
            Objects::V1Beta1(watch_custom(client, &scope, move |_, _: &_| changed()))
        };
        let kind = ApiResource {
            group: API_GROUP.to_owned(),
            version: version.to_owned(),
            api_version: format!("{API_GROUP}/{version}"),
            kind: KIND.to_owned(),
            plural: PLURAL.to_owned(),
        };
        tracing::info!(version, "ProvisioningRequests are answered");
        Ok(Self {
            templates: Mirror::start(client, |template: &k8s::PodTemplate| Template::read(template), tell()),
            client: client.clone(),
            objects,
            kind,
            instance: instance.to_owned(),
            writes,
        })
    }

    /// Waits for the first listings: whoever decides before that would take booked room away.
    pub async fn synced(&self) {
        tokio::join!(self.objects.synced(), self.templates.synced());
    }

    /// Looks at all requests.
    pub fn look(&self, pods: &[Arc<Pod>], now: Timestamp) -> Vec<Seen> {
        let all = self.objects.all();
        let consumers = if all.is_empty() { BTreeMap::new() } else { consumers(pods) };
        let seen = |object: Arc<ProvisioningRequest>| {
            let key = Key::of(&*object);
            let template =
                |name: &str| self.templates.get(&key.namespace, name).map(|template| template.shape());
            let own = consumers.get(&(&*key.namespace, &*key.name)).map_or(&[][..], Vec::as_slice);
            let sight = look(&object, own, template, &self.instance, now)?;
            Some(Seen { object, sight })
        };
        all.into_iter().filter_map(seen).collect()
    }

    /// Tells requests what was seen of them and what a pass answered. `failed` are groups that were asked to grow and did not.
    pub async fn tell(&self, seen: Vec<Seen>, answers: &[Answered], failed: &BTreeSet<Arc<str>>) {
        if !self.writes {
            return;
        }
        let now = Timestamp::now();
        let answers: BTreeMap<&str, &Answered> =
            answers.iter().map(|answered| (&*answered.request, answered)).collect();
        for Seen { object, sight } in seen {
            let key = Key::of(&*object);
            let answer = answers.get(key.to_string().as_str()).map(|answered| &answered.answer);
            let wanted = status::of(&object, &sight, answer, failed, now);
            if object.status.as_ref().is_some_and(|status| *status == wanted) {
                continue;
            }
            if let Err(error) = status::write(&self.client, &self.kind, &object, &wanted).await {
                tracing::warn!(request = %key, %error, "its status could not be written");
            }
        }
    }
}

/// What a pass has to see of them.
pub fn requests(seen: &[Seen]) -> Vec<Request> {
    seen.iter().filter_map(|seen| seen.sight.request.clone()).collect()
}

/// The pods that have, or had, a node, by namespace and name of the request that they consume.
fn consumers(pods: &[Arc<Pod>]) -> BTreeMap<(&str, &str), Vec<Arc<Pod>>> {
    let mut consumers: BTreeMap<_, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.node.is_some()) {
        if let Some(request) = consumed_by(pod) {
            consumers.entry((&*pod.shape.namespace, request)).or_default().push(pod.clone());
        }
    }
    consumers
}
