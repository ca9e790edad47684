//! The Secret that every replica serves from: created by the first, watched by all, rotated by the leader.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    CertsConfig, Clock,
    material::{Material, MaterialError},
    registrations::Published,
    rotation::{Action, decide},
};
use crate::serve::CertificateResolver;

/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(10);

/// Longest pause without a look at the clock: it may be set, and timers sleep while a machine does.
const LOOK: Duration = Duration::from_mins(10);

/// Keeps the Secret, and what is served, in order.
pub(super) struct Keeper {
    pub(super) api: Api<Secret>,
    pub(super) config: Arc<CertsConfig>,
    pub(super) clock: Clock,
    pub(super) certificates: Arc<CertificateResolver>,
    pub(super) leads: watch::Receiver<bool>,
    /// Told: what must stand in every `caBundle`.
    pub(super) bundle: watch::Sender<Option<Arc<str>>>,
    /// Heard: what stands there.
    pub(super) published: watch::Receiver<Option<Published>>,
}

/// What is known of the Secret.
#[derive(Default)]
enum View {
    #[default]
    Unknown,
    Absent,
    Present(Box<Secret>),
}

impl View {
    /// Takes a watched Secret, unless it is older than what our own write returned.
    fn see(&mut self, secret: Secret) {
        if let Self::Present(known) = self
            && known.metadata.uid == secret.metadata.uid
            && version(&secret) < version(known)
        {
            return;
        }
        *self = Self::Present(Box::new(secret));
    }
}

/// Versions of one resource compare as numbers (KEP-5504).
fn version(secret: &Secret) -> Option<u64> {
    secret.metadata.resource_version.as_deref()?.parse().ok()
}

impl Keeper {
    /// Until `shutdown`.
    pub(super) async fn keep(mut self, shutdown: CancellationToken) {
        let secrets = watch_object(self.api.clone(), &self.config.secret).default_backoff();
        pin_mut!(secrets);
        let names = self.config.names();
        let mut view = View::Unknown;
        let mut served = None;
        loop {
            let leading = *self.leads.borrow_and_update();
            let published = self.published.borrow_and_update().clone();
            let pause = match self.step(&mut view, &mut served, &names, leading, published).await {
                Ok(until) => {
                    Duration::try_from(self.now().duration_until(until)).unwrap_or_default().min(LOOK)
                }
                Err(error) => {
                    warn!(%error, "certificates not kept; trying again in {} s", RETRY.as_secs());
                    RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(seen) = secrets.next() => match seen {
                    Ok(Some(secret)) => view.see(secret),
                    Ok(None) => view = View::Absent,
                    Err(error) => warn!(%error, secret = self.config.secret, "cannot watch"),
                },
                Ok(()) = self.leads.changed() => {}
                Ok(()) = self.published.changed() => {}
                () = sleep(pause) => {}
                else => return,
            }
        }
    }

    /// Does all that is due now; the answer is when to look again. `served` is the last material that was good, which
    /// outlives a Secret that was deleted or broken.
    async fn step(
        &self,
        view: &mut View,
        served: &mut Option<Material>,
        names: &[String],
        leading: bool,
        published: Option<Published>,
    ) -> Result<Timestamp, KeepError> {
        loop {
            let Some(material) = self.read(view, served.is_some()) else {
                let View::Unknown = view else {
                    let material = self.renewed(served.clone(), names)?;
                    self.write(view, &material).await?;
                    continue;
                };
                return Ok(Timestamp::MAX);
            };
            self.adopt(&material, served);
            let bundle = material.bundle();
            let since = published.as_ref().filter(|published| *published.bundle == *bundle).map(|p| p.since);
            let now = self.now();
            let action = decide(&material.state(names), since, &self.config.policy, now);
            if let Action::Wait(until) = action {
                return Ok(until);
            }
            if !leading {
                return Ok(Timestamp::MAX);
            }
            let mut next = material;
            match action {
                Action::AddAuthority(reason) => {
                    info!(%reason, "adding a certificate authority");
                    next.add_authority(&self.config.policy, now)?;
                }
                Action::IssueServing(reason) => {
                    info!(%reason, "issuing a serving certificate");
                    next.issue_serving(names, &self.config.policy, now)?;
                }
                Action::DropAuthorities(reason) => {
                    info!(%reason, "dropping the former certificate authority");
                    next.drop_authorities();
                }
                Action::Wait(_) => {}
            }
            self.write(view, &next).await?;
        }
    }

    /// The Secret's material; None if there is none, or none that can be read.
    fn read(&self, view: &View, kept: bool) -> Option<Material> {
        let View::Present(secret) = view else { return None };
        let data = secret.data.as_ref().filter(|data| !data.is_empty())?;
        match Material::from_data(data) {
            Ok(material) => Some(material),
            Err(error) => {
                warn!(%error, secret = self.config.secret, kept, "Secret cannot be read; making it anew");
                None
            }
        }
    }

    /// For a Secret that is gone or broken. Deleting it is how users ask for new certificates: a replica that still
    /// knows the old ones puts a new authority beside them, and the rotation goes its way without a gap.
    fn renewed(&self, former: Option<Material>, names: &[String]) -> Result<Material, MaterialError> {
        let (policy, now) = (&self.config.policy, self.now());
        match former {
            Some(mut material) => {
                material.add_authority(policy, now)?;
                Ok(material)
            }
            None => Material::generate(names, policy, now),
        }
    }

    /// Serves it and has its bundle published.
    fn adopt(&self, material: &Material, served: &mut Option<Material>) {
        if served.as_ref() == Some(material) {
            return;
        }
        if served.as_ref().map(Material::serving) != Some(material.serving()) {
            let (chain, key) = material.serving();
            match self.certificates.set(chain.as_bytes(), key.as_bytes()) {
                Ok(()) => info!(secret = self.config.secret, "serving certificate taken up"),
                Err(error) => warn!(%error, secret = self.config.secret, "serving certificate not taken up"),
            }
        }
        let bundle: Arc<str> = material.bundle().into();
        self.bundle.send_if_modified(|former| {
            let changed = former.as_ref() != Some(&bundle);
            *former = Some(bundle);
            changed
        });
        *served = Some(material.clone());
    }

    /// Creates the Secret, or replaces the one that was seen. Whoever comes second loses, and reads what the first
    /// has written.
    async fn write(&self, view: &mut View, material: &Material) -> Result<(), KeepError> {
        let written = match &view {
            View::Present(secret) => {
                let mut secret = (**secret).clone();
                secret.data.get_or_insert_default().extend(material.to_data());
                self.api.replace(&self.config.secret, &PostParams::default(), &secret).await
            }
            View::Absent | View::Unknown => {
                let labels = [("app.kubernetes.io/part-of".to_owned(), "tandem".to_owned())];
                let metadata = ObjectMeta {
                    name: Some(self.config.secret.clone()),
                    labels: Some(labels.into()),
                    ..ObjectMeta::default()
                };
                let secret = Secret { metadata, data: Some(material.to_data()), ..Secret::default() };
                self.api.create(&PostParams::default(), &secret).await
            }
        };
        *view = match written {
            Ok(secret) => View::Present(Box::new(secret)),
            Err(kube::Error::Api(status)) if status.is_already_exists() || status.is_conflict() => self
                .api
                .get_opt(&self.config.secret)
                .await?
                .map_or(View::Absent, |secret| View::Present(Box::new(secret))),
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error("Secret: {0}")]
    Api(#[from] kube::Error),
}
