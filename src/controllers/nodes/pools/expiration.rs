//! Claims that have lived long enough: their end asks no budget, though pods still leave under theirs.

use jiff::Timestamp;
use tandem_core::api::karpenter::{NEVER, NodeClaim};

use super::claim::created;

/// When a claim ends; never if it does not say when, or what it says is no duration.
pub(super) fn expires(claim: &NodeClaim) -> Option<Timestamp> {
    let after = claim.spec.expire_after.as_deref().filter(|after| *after != NEVER)?;
    let after: jiff::SignedDuration = after.parse().ok()?;
    created(claim).checked_add(after).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_claim_ends_so_long_after_it_was_made() {
        let mut claim = NodeClaim::default();
        claim.metadata.creation_timestamp = Some(Time("2024-01-01T00:00:00Z".parse().unwrap()));
        for (after, wanted) in [
            (Some("720h"), Some("2024-01-31T00:00:00Z")),
            (Some("2592000s"), Some("2024-01-31T00:00:00Z")),
            (Some("Never"), None),
            (Some("soon"), None),
            (None, None),
        ] {
            claim.spec.expire_after = after.map(str::to_owned);
            assert_eq!(expires(&claim), wanted.map(|time| time.parse().unwrap()), "{after:?}");
        }
    }
}
