//! What providers have no more of: not asked for again for a while.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{
    instance_type::{InstanceType, Offering},
    requirements::labels::{CAPACITY_TYPE, INSTANCE_TYPE, PLACEMENT_GROUP, ZONE},
};
use crate::api::karpenter::NodeClaim;

/// How long an offering is left alone (aws, `pkg/cache/cache.go`, `UnavailableOfferingsTTL`).
const LEFT_ALONE: SignedDuration = SignedDuration::from_mins(3);

/// The terms on which a machine could not be had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfferingKey {
    /// What it is paid by.
    pub capacity_type: String,
    /// Its type.
    pub instance_type: String,
    /// The zone.
    pub zone: String,
    /// The placement group: outside of it there may be machines still.
    pub placement_group: Option<String>,
}

impl OfferingKey {
    /// What the machine of a claim was bought as: who takes one back has no other to give.
    pub fn of(claim: &NodeClaim) -> Option<Self> {
        let label = |key: &str| claim.labels().get(key).cloned();
        Some(Self {
            capacity_type: label(CAPACITY_TYPE)?,
            instance_type: label(INSTANCE_TYPE)?,
            zone: label(ZONE)?,
            placement_group: label(PLACEMENT_GROUP),
        })
    }
}

/// Offerings that are sold out, each until it is tried again.
#[derive(Debug, Clone, Default)]
pub struct SoldOut(BTreeMap<OfferingKey, Timestamp>);

impl SoldOut {
    /// Notes that these are sold out.
    pub fn note(&mut self, offerings: impl IntoIterator<Item = OfferingKey>, now: Timestamp) {
        let until = now.saturating_add(LEFT_ALONE).unwrap_or(Timestamp::MAX);
        self.0.extend(offerings.into_iter().map(|offering| (offering, until)));
    }

    /// Forgets what may be tried again; whether anything is left.
    pub fn is_any(&mut self, now: Timestamp) -> bool {
        self.0.retain(|_, until| *until > now);
        !self.0.is_empty()
    }

    /// The instance types, in which what is sold out cannot be had.
    pub fn mask(&mut self, types: &[Arc<InstanceType>], now: Timestamp) -> Vec<Arc<InstanceType>> {
        if !self.is_any(now) {
            return types.to_vec();
        }
        let is_out = |instance_type: &InstanceType, offering: &Offering| {
            let key = OfferingKey {
                capacity_type: offering.capacity_type().unwrap_or_default().to_owned(),
                instance_type: instance_type.name.to_string(),
                zone: offering.zone().unwrap_or_default().to_owned(),
                placement_group: offering.label(PLACEMENT_GROUP).map(str::to_owned),
            };
            offering.available && self.0.contains_key(&key)
        };
        let masked = |instance_type: &Arc<InstanceType>| {
            let mut masked = instance_type.clone();
            for at in 0..instance_type.offerings.len() {
                if is_out(instance_type, &instance_type.offerings[at]) {
                    Arc::make_mut(&mut masked).offerings[at].available = false;
                }
            }
            masked
        };
        types.iter().map(masked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nodes::pools::requirements::{Requirement, Requirements},
        scheduling::Resources,
    };

    #[test]
    fn an_offering_is_tried_again_after_three_minutes() {
        let offering = |zone: &str, group: Option<&str>| {
            let terms = [Requirement::is(ZONE, zone), Requirement::is(CAPACITY_TYPE, "spot")];
            Offering {
                requirements: terms
                    .into_iter()
                    .chain(group.map(|group| Requirement::is(PLACEMENT_GROUP, group)))
                    .collect(),
                price: 1.0,
                available: true,
                reservation: None,
            }
        };
        let offerings = vec![offering("a", None), offering("b", None), offering("a", Some("pg"))];
        let none = Resources::default();
        let types = [Arc::new(InstanceType::new("t", Requirements::new(), none.clone(), none, offerings))];
        let mut sold_out = SoldOut::default();
        let start = Timestamp::UNIX_EPOCH;
        let key = |group: Option<&str>| OfferingKey {
            capacity_type: "spot".into(),
            instance_type: "t".into(),
            zone: "a".into(),
            placement_group: group.map(str::to_owned),
        };
        let available = |sold_out: &mut SoldOut, seconds| {
            let masked = sold_out.mask(&types, start + SignedDuration::from_secs(seconds));
            masked[0].offerings.iter().map(|offering| offering.available).collect::<Vec<_>>()
        };
        sold_out.note([key(None)], start);
        assert_eq!(available(&mut sold_out, 179), [false, true, true]);
        assert_eq!(available(&mut sold_out, 180), [true, true, true]);
        sold_out.note([key(Some("pg"))], start);
        assert_eq!(available(&mut sold_out, 0), [true, true, false], "others are not of that group");
    }
}
