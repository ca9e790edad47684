//! Machines of pools that are taken away (karpenter-provider-aws, `pkg/controllers/interruption`).

use jiff::Timestamp;
use kube::ResourceExt as _;
use tandem_core::{
    api::karpenter::NodeClaim,
    nodes::{
        interruption::{Home, Kind, Settings, Verdict, decide, reasons},
        pools::sold_out::OfferingKey,
    },
    pods::reasons::Event,
};

use super::{Pools, claim::is_deleting};

impl Pools {
    /// Acts on a notice about a machine; what came of it, and `None` of one that is no claim's.
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
    ) -> Result<Option<Verdict>, kube::Error> {
        let of = |claim: &NodeClaim| {
            let id = claim.status.as_ref().and_then(|status| status.provider_id.as_deref());
            id.is_some_and(|id| id.rsplit('/').next() == Some(machine))
        };
        let Some(claim) = self.claims.list("").into_iter().find(|claim| of(claim)) else { return Ok(None) };
        if is_deleting(&claim) {
            return Ok(Some(Verdict::Leave("it is being deleted already")));
        }
        let Event { type_, reason, message } = reasons::noticed(kind, Home::Pool);
        self.tell(&*claim, type_, reason, message).await;
        let verdict = decide(kind, Home::Pool, settings);
        match verdict {
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
                    self.sold_out.lock().note(OfferingKey::of(&claim), Timestamp::now());
                }
                tracing::info!(
                    claim = claim.name_any(),
                    machine,
                    notice = kind.name(),
                    "the node is replaced"
                );
                let Event { type_, reason, message } = reasons::terminating();
                self.tell(&*claim, type_, reason, message).await;
                self.delete_claim(&claim, kind.name()).await?;
            }
        }
        Ok(Some(verdict))
    }
}
