//! What providers have no more of: not asked for again for a while.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tandem_core::nodes::pools::instance_type::{InstanceType, Offering};

use super::OfferingKey;

/// How long an offering is left alone (aws, `pkg/cache/cache.go`, `UnavailableOfferingsTTL`).
const LEFT_ALONE: SignedDuration = SignedDuration::from_mins(3);

/// Offerings that are sold out, each until it is tried again.
#[derive(Debug, Default)]
pub struct SoldOut(Mutex<BTreeMap<OfferingKey, Timestamp>>);

impl SoldOut {
    /// Notes that these are sold out.
    pub fn note(&self, offerings: impl IntoIterator<Item = OfferingKey>, now: Timestamp) {
        let until = now.saturating_add(LEFT_ALONE).unwrap_or(Timestamp::MAX);
        self.0.lock().extend(offerings.into_iter().map(|offering| (offering, until)));
    }

    /// The instance types, in which what is sold out cannot be had.
    pub fn mask(&self, types: &[Arc<InstanceType>], now: Timestamp) -> Vec<Arc<InstanceType>> {
        let mut sold_out = self.0.lock();
        sold_out.retain(|_, until| *until > now);
        if sold_out.is_empty() {
            return types.to_vec();
        }
        let is_out = |instance_type: &InstanceType, offering: &Offering| {
            let key = OfferingKey {
                capacity_type: offering.capacity_type().unwrap_or_default().to_owned(),
                instance_type: instance_type.name.to_string(),
                zone: offering.zone().unwrap_or_default().to_owned(),
            };
            offering.available && sold_out.contains_key(&key)
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
    use tandem_core::{
        nodes::pools::requirements::{
            Requirement, Requirements,
            labels::{CAPACITY_TYPE, ZONE},
        },
        scheduling::Resources,
    };

    use super::*;

    #[test]
    fn an_offering_is_tried_again_after_three_minutes() {
        let offering = |zone: &str| Offering {
            requirements: [Requirement::is(ZONE, zone), Requirement::is(CAPACITY_TYPE, "spot")]
                .into_iter()
                .collect(),
            price: 1.0,
            available: true,
            reservation: None,
        };
        let offerings = vec![offering("a"), offering("b")];
        let none = Resources::default();
        let types = [Arc::new(InstanceType::new("t", Requirements::new(), none.clone(), none, offerings))];
        let sold_out = SoldOut::default();
        let start = Timestamp::UNIX_EPOCH;
        let key = OfferingKey { capacity_type: "spot".into(), instance_type: "t".into(), zone: "a".into() };
        sold_out.note([key], start);
        let available = |seconds| {
            let masked = sold_out.mask(&types, start + SignedDuration::from_secs(seconds));
            masked[0].offerings.iter().map(|offering| offering.available).collect::<Vec<_>>()
        };
        assert_eq!(available(179), [false, true]);
        assert_eq!(available(180), [true, true]);
    }
}
