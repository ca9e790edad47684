//! The end of a node class: what was made for it goes first (karpenter-provider-aws, `pkg/controllers/nodeclass`).

use kube::ResourceExt as _;
use tandem_core::api::karpenter::EC2NodeClass;

use super::{AwsPools, class::named};
use crate::{
    cloud::{CloudError, pools::Class},
    cluster::finalizer,
};

/// As Karpenter writes it: a class that it has left behind has it too.
const FINALIZER: &str = "karpenter.k8s.aws/termination";

/// Whether a class is being deleted.
pub(super) fn is_ending(object: &EC2NodeClass) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

impl AwsPools {
    /// Keeps a class for which a profile is made from going before it. A class that names a profile leaves nothing behind.
    pub(super) async fn hold(&self, class: &Class, object: &EC2NodeClass) -> Result<(), CloudError> {
        if self.own_profile(class, &object.spec).is_none() {
            return Ok(());
        }
        match finalizer::set(&self.class_api, object, FINALIZER, true).await {
            // Somebody else has changed it: its watch leads here again.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            result => result.map(drop).map_err(|error| {
                CloudError::from_api(format!("patch ec2nodeclasses {}", object.name_any()), &error)
            }),
        }
    }

    /// Removes what was made for a class that nothing uses any more, and lets it go.
    pub(super) async fn end(&self, class: &Class) -> Result<(), CloudError> {
        let (spec, object) = self.spec(class)?;
        let Some(object) = object.filter(|object| is_ending(object)) else { return Ok(()) };
        if let Some((profile, _)) = self.own_profile(class, &spec) {
            self.profiles.remove(&self.client, &profile).await?;
        }
        let released = finalizer::set(&self.class_api, &object, FINALIZER, false).await;
        if released.map_err(|error| CloudError::from_api("patch ec2nodeclasses", &error))? {
            tracing::info!(class = named(&class.reference), "what was made for the node class is gone");
        }
        Ok(())
    }
}
