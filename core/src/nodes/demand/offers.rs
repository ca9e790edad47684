//! What HPAs are about to ask for, from the sample that tells until their pods have come.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{Expectation, Forecast, STEPS, Wanted};
use crate::scheduling::{Pod, pod::Shape};

/// How long nothing is expected of an object whose expected pods did not come: whatever keeps them away (a quota, an
/// admission webhook, an HPA that is fed otherwise) takes somebody minutes to mend.
pub const COOL_OFF: SignedDuration = SignedDuration::from_mins(5);

/// How long an offer stands that nothing came of: as many syncs as a forecast looks ahead.
pub fn patience(sync_period: SignedDuration) -> SignedDuration {
    sync_period * i32::try_from(STEPS).unwrap_or(i32::MAX)
}

/// What the HPA of an object is about to ask for.
#[derive(Debug, Clone)]
pub struct Offer<T> {
    /// Whatever tells whoever keeps it which target it is of.
    pub of: T,
    /// What it will ask for.
    pub forecast: Forecast,
    /// Replicas that it may have at most.
    pub max: i32,
    /// When the sample was taken.
    pub at: Timestamp,
}

impl<T> Offer<T> {
    /// Whether it still stands at `now`: it is not older than `patience`, and its target (of so many replicas, if that is
    /// known) was not scaled down since.
    pub fn stands(&self, replicas: Option<i32>, now: Timestamp, patience: SignedDuration) -> bool {
        let fell = replicas.is_some_and(|replicas| (1..self.forecast.from).contains(&replicas));
        !fell && now.duration_since(self.at) < patience
    }

    /// What the object wants, whose target has so many pods.
    pub fn wanted(&self, object: Arc<str>, pods: usize) -> Wanted {
        Wanted {
            object,
            replicas: u32::try_from(self.forecast.to).unwrap_or_default(),
            max: u32::try_from(self.max).unwrap_or_default(),
            pods: u32::try_from(pods).unwrap_or(u32::MAX),
        }
    }
}

/// The offers of all objects, by `NAMESPACE/NAME`.
#[derive(Debug, Clone)]
pub struct Offers<T>(BTreeMap<Arc<str>, Offer<T>>);

impl<T> Default for Offers<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Offers<T> {
    /// Takes what an object's HPA is about to ask for; whether that is more than it was.
    pub fn take(&mut self, object: Arc<str>, offer: Offer<T>) -> bool {
        if offer.forecast.falls {
            self.withdraw(&object);
            return false;
        }
        let before = self.0.get(&object).map(|offer| offer.forecast.to);
        let rises = offer.forecast.rises();
        if !rises && before.is_none() {
            return false;
        }
        let is_more = rises && before.is_none_or(|before| offer.forecast.to > before);
        self.0.insert(object, offer);
        is_more
    }

    /// Forgets what an object was about to ask for.
    pub fn withdraw(&mut self, object: &str) {
        self.0.remove(object);
    }

    /// Forgets offers that stand no more.
    pub fn retain(&mut self, mut stands: impl FnMut(&Offer<T>) -> bool) {
        self.0.retain(|_, offer| stands(offer));
    }

    /// Forgets offers that are met: of all that lack pods there is an expectation.
    pub fn settle(&mut self, expectations: &[Expectation]) {
        let lacks = |object: &Arc<str>| expectations.iter().any(|one| one.object == *object);
        self.0.retain(|object, offer| offer.forecast.rises() || lacks(object));
    }

    /// The offer of an object.
    pub fn get(&self, object: &str) -> Option<&Offer<T>> {
        self.0.get(object)
    }

    /// All, by object.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Offer<T>)> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The pods of an expectation: unbound, in order, each with what the object's pods have in common.
pub fn pods<'a>(expectation: &'a Expectation, shape: &'a Arc<Shape>) -> impl Iterator<Item = Arc<Pod>> + 'a {
    (0..expectation.pods).map(|number| {
        let name: Arc<str> = format!("{}-expected-{number}", expectation.object).into();
        Arc::new(Pod { uid: name.clone(), name, shape: shape.clone(), ..Pod::default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(from: i32, to: i32, second: i64) -> Offer<()> {
        let at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second);
        Offer { of: (), forecast: Forecast { from, to, metric: None, falls: to < from }, max: 20, at }
    }

    #[test]
    fn only_more_than_was_known_is_news() {
        let mut offers = Offers::default();
        for (from, to, news, kept) in [
            (2, 2, false, None),
            (2, 8, true, Some(8)),
            (2, 8, false, Some(8)),
            (2, 6, false, Some(6)),
            (2, 9, true, Some(9)),
            (9, 9, false, Some(9)),
            (9, 3, false, None),
        ] {
            assert_eq!(offers.take("a".into(), offer(from, to, 0)), news, "{from} -> {to}");
            assert_eq!(offers.get("a").map(|offer| offer.forecast.to), kept, "{from} -> {to}");
        }
    }

    #[test]
    fn an_offer_stands_until_it_is_old_or_its_target_fell() {
        let (offer, patience) = (offer(4, 8, 100), patience(SignedDuration::from_secs(15)));
        for (replicas, second, stands) in [
            (None, 144, true),
            (Some(4), 144, true),
            (Some(8), 100, true),
            (Some(0), 100, true),
            (Some(3), 100, false),
            (None, 145, false),
        ] {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second);
            assert_eq!(offer.stands(replicas, now, patience), stands, "{replicas:?} after {second} s");
        }
    }

    #[test]
    fn what_is_met_is_forgotten_unless_it_rises() {
        let mut offers = Offers::default();
        for (object, from, to) in [("met", 8, 8), ("lacks", 8, 8), ("rises", 8, 9)] {
            offers.0.insert(object.into(), offer(from, to, 0));
        }
        let lacks = Expectation { object: "lacks".into(), pods: 1, missing: 1, held: None, begins: false };
        offers.settle(std::slice::from_ref(&lacks));
        assert_eq!(offers.iter().map(|(object, _)| &**object).collect::<Vec<_>>(), ["lacks", "rises"]);
        let names: Vec<_> = pods(&lacks, &Arc::default()).map(|pod| pod.name.clone()).collect();
        assert_eq!(names, ["lacks-expected-0".into()]);
    }
}
