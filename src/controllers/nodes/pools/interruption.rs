//! Machines of pools that are taken away (karpenter-provider-aws, `pkg/controllers/interruption`).

use jiff::Timestamp;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::{
        interruption::{Home, Kind, Settings, Verdict, decide, reasons},
        pools::requirements::labels::{CAPACITY_TYPE, INSTANCE_TYPE, ZONE},
    },
    pods::reasons::Event,
};

use super::{Pools, claim::is_deleting};
use crate::cloud::pools::OfferingKey;

impl Pools {
    /// Acts on a notice about a machine, if it is one of a claim; whether it is.
    ///
    /// The claim is deleted, and takes care of its node and its pods; its pods get another node at once, as they count as
    /// waiting from then on.
    ///
    /// # Errors
    /// The API server's.
    pub async fn interrupt(
        &self,
        machine: &str,
        kind: &Kind,
        settings: &Settings,
    ) -> Result<bool, kube::Error> {
        let of = |claim: &NodeClaim| {
            let id = claim.status.as_ref().and_then(|status| status.provider_id.as_deref());
            id.is_some_and(|id| id.rsplit('/').next() == Some(machine))
        };
        let Some(claim) = self.claims.list("").into_iter().find(|claim| of(claim)) else { return Ok(false) };
        if is_deleting(&claim) {
            return Ok(true);
        }
        let Event { type_, reason, message } = reasons::noticed(kind, Home::Pool);
        self.tell(&*claim, type_, reason, message).await;
        match decide(kind, Home::Pool, settings) {
            Verdict::Leave(why) => {
                tracing::info!(
                    claim = claim.name_any(),
                    machine,
                    notice = kind.name(),
                    why,
                    "the node stays"
                );
            }
            Verdict::DeleteClaim | Verdict::Empty { .. } => {
                if *kind == Kind::SpotInterruption {
                    self.sold_out.note(offering(&claim), Timestamp::now());
                }
                tracing::info!(
                    claim = claim.name_any(),
                    machine,
                    notice = kind.name(),
                    "the node is replaced"
                );
                self.delete_claim(&claim, kind.name()).await?;
            }
        }
        Ok(true)
    }
}

/// What the machine of a claim was bought as: who takes one back has no other to give.
fn offering(claim: &NodeClaim) -> Option<OfferingKey> {
    let label = |key: &str| claim.labels().get(key).cloned();
    Some(OfferingKey {
        capacity_type: label(CAPACITY_TYPE)?,
        instance_type: label(INSTANCE_TYPE)?,
        zone: label(ZONE)?,
    })
}
