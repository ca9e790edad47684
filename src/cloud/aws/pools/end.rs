//! What was made for a node class goes when nothing uses it any more, and before the class does (karpenter-provider-aws,
//! `pkg/controllers/nodeclass`).

use std::sync::Arc;

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tandem_core::api::karpenter::{EC2NodeClass, NodeClaim};

use super::{AwsPools, class::named};
use crate::{
    cloud::{CloudError, pools::Class},
    cluster::finalizer,
};

/// As Karpenter writes it: a class that it has left behind has it too.
const FINALIZER: &str = "karpenter.k8s.aws/termination";

/// The annotation of a class with the names of the profiles that were made for it: another role is another profile.
const PROFILES: &str = "tandem.dev/instance-profiles";

/// The annotation of a claim with the profile that its machine was launched with, as Karpenter writes it.
pub(super) const PROFILE: &str = "karpenter.k8s.aws/instance-profile-name";

/// The profiles that were made for a class.
fn made_for(object: &EC2NodeClass) -> impl Iterator<Item = &str> {
    let names = object.annotations().get(PROFILES).map_or("", String::as_str);
    names.split(',').filter(|name| !name.is_empty())
}

/// Whether a machine may still be, or get, one with this profile. Of a claim that does not tell it has to be assumed.
fn uses(claim: &NodeClaim, profile: &str) -> bool {
    claim.annotations().get(PROFILE).is_none_or(|used| used == profile)
}

/// Whether a class is being deleted.
pub(super) fn is_ending(object: &EC2NodeClass) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

impl AwsPools {
    /// Keeps a class for which a profile is made from going before it, and notes the profile before it is made. A class that
    /// names a profile leaves nothing behind.
    pub(super) async fn hold(&self, class: &Class, object: &EC2NodeClass) -> Result<(), CloudError> {
        let Some((profile, _)) = self.own_profile(class, &object.spec) else { return Ok(()) };
        let mut made: Vec<&str> = made_for(object).collect();
        let is_noted = made.contains(&profile.as_str());
        if is_noted && finalizer::is_set(object, FINALIZER) {
            return Ok(());
        }
        if !is_noted {
            made.push(&profile);
        }
        let mut finalizers = object.finalizers().to_vec();
        if !finalizer::is_set(object, FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        self.annotate(object, json!({"finalizers": finalizers, "annotations": {PROFILES: made.join(",")}}))
            .await
    }

    /// Removes the profiles of roles that a class named once, as soon as none of its claims uses them.
    pub(super) async fn forget(&self, class: &Class, claims: &[Arc<NodeClaim>]) -> Result<(), CloudError> {
        let (spec, object) = self.spec(class)?;
        let Some(object) = object else { return Ok(()) };
        let current = self.own_profile(class, &spec).map(|(profile, _)| profile);
        let is_kept = |profile: &str| {
            current.as_deref() == Some(profile) || claims.iter().any(|claim| uses(claim, profile))
        };
        let (kept, former): (Vec<_>, Vec<_>) = made_for(&object).partition(|profile| is_kept(profile));
        if former.is_empty() {
            return Ok(());
        }
        for profile in former {
            self.profiles.remove(&self.client, profile).await?;
            tracing::info!(
                class = named(&class.reference),
                profile,
                "the profile of its former role is gone"
            );
        }
        let kept = (!kept.is_empty()).then(|| kept.join(","));
        self.annotate(&object, json!({"annotations": {PROFILES: kept}})).await
    }

    async fn annotate(
        &self,
        object: &EC2NodeClass,
        mut metadata: serde_json::Value,
    ) -> Result<(), CloudError> {
        // The version makes the patch fail instead of undoing what another controller wrote meanwhile.
        metadata["resourceVersion"] = json!(object.resource_version());
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        match self.class_api.patch(&object.name_any(), &PatchParams::default(), &patch).await {
            // Somebody else has changed it: its watch leads here again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            result => result.map(drop).map_err(|error| {
                CloudError::from_api(format!("patch ec2nodeclasses {}", object.name_any()), &error)
            }),
        }
    }

    /// Removes what was made for a class that nothing uses any more, and lets it go.
    pub(super) async fn end(&self, class: &Class) -> Result<(), CloudError> {
        let (spec, object) = self.spec(class)?;
        let Some(object) = object.filter(|object| is_ending(object)) else { return Ok(()) };
        let current = self.own_profile(class, &spec).map(|(profile, _)| profile);
        let former = made_for(&object).filter(|profile| current.as_deref() != Some(profile));
        for profile in current.as_deref().into_iter().chain(former) {
            self.profiles.remove(&self.client, profile).await?;
        }
        let released = finalizer::set(&self.class_api, &object, FINALIZER, false).await;
        if released.map_err(|error| CloudError::from_api("patch ec2nodeclasses", &error))? {
            tracing::info!(class = named(&class.reference), "what was made for the node class is gone");
        }
        Ok(())
    }
}
