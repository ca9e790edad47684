//! How many pods are expected, and since when: what is asked for is bounded, and who called in vain is not heard for
//! a while.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

/// `--max-expected-pods` where nothing else is said.
pub const MOST: u32 = 100;

/// How much may be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemandSettings {
    /// `--max-expected-pods`: pods of all objects together.
    pub most: u32,
    /// An object of which nothing came for so long is not believed.
    pub patience: SignedDuration,
    /// How long it is not believed then; each time in a row twice as long.
    pub cool_off: SignedDuration,
    /// The longest time for which it is not believed.
    pub longest: SignedDuration,
}

/// What an object will ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The object, `NAMESPACE/NAME`.
    pub object: Arc<str>,
    /// Replicas that its target will ask for.
    pub replicas: u32,
    /// Replicas that it may have at most.
    pub max: u32,
    /// Pods that its target has, whether they have a node or wait for one.
    pub pods: u32,
}

/// What is expected of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The object, `NAMESPACE/NAME`.
    pub object: Arc<str>,
    /// Pods for which nodes are asked for.
    pub pods: u32,
    /// Pods that its target lacks.
    pub missing: u32,
    /// Why that is not all of them.
    pub held: Option<Held>,
    /// Whether it was not there a moment ago.
    pub begins: bool,
}

/// Why pods that a target lacks are not expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// As many as may be are expected already.
    Most,
    /// Those that were expected did not come; nothing is expected until then.
    CoolOff {
        /// Until then.
        until: Timestamp,
        /// Whether patience ended just now.
        begins: bool,
    },
}

/// What is expected of every object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: BTreeMap<Arc<str>, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Since when pods are missing and none came.
    since: Timestamp,
    /// Pods that there were then.
    pods: u32,
    /// Not believed until then.
    cool_off: Option<Timestamp>,
    /// For how long it was not believed the last time, if nothing came since.
    waited: Option<SignedDuration>,
    /// Whether any of its pods are expected.
    expected: bool,
}

impl Ledger {
    /// What is expected now, in order of name. Whoever waits longest comes first where not all may be expected.
    pub fn update(
        &mut self,
        wanted: &[Wanted],
        now: Timestamp,
        settings: &DemandSettings,
    ) -> Vec<Expectation> {
        let lacking = |wanted: &&Wanted| missing(wanted) > 0;
        let mut lacking: Vec<&Wanted> = wanted.iter().filter(lacking).collect();
        lacking.sort_by(|one, other| one.object.cmp(&other.object));
        lacking.dedup_by(|one, other| one.object == other.object);
        // A cool-off outlasts the rise that it was for, or a metric that flaps would never have one.
        self.entries.retain(|object, entry| {
            let lacks = lacking.binary_search_by(|wanted| wanted.object.cmp(object)).is_ok();
            lacks || entry.cool_off.is_some_and(|until| now < until)
        });
        let mut expectations: Vec<_> =
            lacking.into_iter().map(|wanted| self.expect(wanted, now, settings)).collect();
        self.share(&mut expectations, settings.most);
        expectations
    }

    /// All that an object lacks, or nothing while it is not believed.
    fn expect(&mut self, wanted: &Wanted, now: Timestamp, settings: &DemandSettings) -> Expectation {
        let missing = missing(wanted);
        let fresh = Entry { since: now, pods: wanted.pods, cool_off: None, waited: None, expected: false };
        let entry = self.entries.entry(wanted.object.clone()).or_insert_with(|| fresh.clone());
        let came = wanted.pods > entry.pods;
        if came || entry.cool_off.is_some_and(|until| now >= until) {
            let waited = entry.waited.filter(|_| !came);
            *entry = Entry { expected: entry.expected && entry.cool_off.is_none(), waited, ..fresh };
        }
        entry.pods = wanted.pods;
        let in_vain = entry.cool_off.is_none() && now.duration_since(entry.since) >= settings.patience;
        if in_vain {
            let wait = entry.waited.map_or(settings.cool_off, |waited| waited.saturating_mul(2));
            let wait = wait.min(settings.longest);
            entry.waited = Some(wait);
            entry.cool_off = Some(now.checked_add(wait).unwrap_or(Timestamp::MAX));
        }
        let held = entry.cool_off.map(|until| Held::CoolOff { until, begins: in_vain });
        let pods = if held.is_some() { 0 } else { missing };
        Expectation { object: wanted.object.clone(), pods, missing, held, begins: false }
    }

    /// Lets no more than `most` be expected, and says which expectations are new.
    fn share(&mut self, expectations: &mut [Expectation], most: u32) {
        let since =
            |expectation: &Expectation| self.entries.get(&expectation.object).map(|entry| entry.since);
        let mut order: Vec<usize> = (0..expectations.len()).collect();
        order.sort_by_key(|index| (since(&expectations[*index]), *index));
        let mut left = most;
        for index in order {
            let expectation = &mut expectations[index];
            if expectation.pods > left {
                expectation.pods = left;
                expectation.held = Some(Held::Most);
            }
            left -= expectation.pods;
            if let Some(entry) = self.entries.get_mut(&expectation.object) {
                expectation.begins = expectation.pods > 0 && !entry.expected;
                entry.expected = expectation.pods > 0;
            }
        }
    }
}

fn missing(wanted: &Wanted) -> u32 {
    wanted.replicas.min(wanted.max).saturating_sub(wanted.pods)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: DemandSettings = DemandSettings {
        most: 10,
        patience: SignedDuration::from_secs(45),
        cool_off: SignedDuration::from_mins(5),
        longest: SignedDuration::from_mins(5),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn wanted(object: &str, replicas: u32, pods: u32) -> Wanted {
        Wanted { object: object.into(), replicas, max: 20, pods }
    }

    /// What is expected of each object that lacks pods.
    fn pods(ledger: &mut Ledger, second: i64, wanted: &[Wanted]) -> Vec<u32> {
        let expectations = ledger.update(wanted, at(second), &SETTINGS);
        expectations.into_iter().map(|expectation| expectation.pods).collect()
    }

    #[test]
    fn what_is_there_is_not_expected() {
        let cases = [
            ("all of them", wanted("a", 8, 2), vec![6]),
            ("those that came are not", wanted("a", 8, 5), vec![3]),
            ("all came", wanted("a", 8, 8), vec![]),
            ("more came", wanted("a", 8, 9), vec![]),
            ("the object's maximum", Wanted { max: 4, ..wanted("a", 8, 2) }, vec![2]),
            ("the cluster's", wanted("a", 20, 2), vec![10]),
        ];
        for (name, wanted, expected) in cases {
            assert_eq!(pods(&mut Ledger::default(), 0, &[wanted]), expected, "{name}");
        }
    }

    #[test]
    fn who_waits_longest_comes_first() {
        let mut ledger = Ledger::default();
        assert_eq!(pods(&mut ledger, 0, &[wanted("b", 8, 0)]), [8]);
        assert_eq!(pods(&mut ledger, 1, &[wanted("a", 8, 0), wanted("b", 8, 0)]), [2, 8]);
        let expectations =
            ledger.update(&[wanted("c", 1, 0), wanted("b", 8, 0), wanted("a", 8, 0)], at(2), &SETTINGS);
        let held: Vec<_> = expectations.iter().map(|expectation| expectation.held).collect();
        assert_eq!(held, [Some(Held::Most), None, Some(Held::Most)]);
    }

    #[test]
    fn an_expectation_begins_once() {
        let mut ledger = Ledger::default();
        let mut begins = |second, replicas, pods| -> Vec<bool> {
            let expectations = ledger.update(&[wanted("a", replicas, pods)], at(second), &SETTINGS);
            expectations.iter().map(|expectation| expectation.begins).collect()
        };
        assert_eq!(begins(0, 8, 2), [true]);
        assert_eq!(begins(1, 9, 2), [false]);
        assert_eq!(begins(2, 9, 5), [false], "they come");
        assert_eq!(begins(3, 9, 9), Vec::<bool>::new());
        assert_eq!(begins(4, 12, 9), [true]);
    }

    #[test]
    fn pods_that_do_not_come_are_not_expected_for_a_while() {
        let mut ledger = Ledger::default();
        let object = [wanted("a", 8, 2)];
        assert_eq!(pods(&mut ledger, 0, &object), [6]);
        assert_eq!(pods(&mut ledger, 44, &object), [6]);
        let until = at(45 + 300);
        let held = |ledger: &mut Ledger, second| ledger.update(&object, at(second), &SETTINGS)[0].held;
        assert_eq!(held(&mut ledger, 45), Some(Held::CoolOff { until, begins: true }));
        assert_eq!(held(&mut ledger, 46), Some(Held::CoolOff { until, begins: false }));
        assert!(pods(&mut ledger, 47, &[wanted("a", 2, 2)]).is_empty(), "the metric falls");
        assert_eq!(pods(&mut ledger, 344, &object), [0], "and rises again");
        assert_eq!(pods(&mut ledger, 345, &object), [6]);
        assert_eq!(pods(&mut ledger, 345 + 44, &object), [6]);
        assert_eq!(pods(&mut ledger, 345 + 45, &object), [0]);
    }

    #[test]
    fn pods_that_come_slowly_are_waited_for() {
        let mut ledger = Ledger::default();
        for (second, there) in [(0, 2), (40, 3), (80, 4), (120, 5)] {
            assert_eq!(pods(&mut ledger, second, &[wanted("a", 8, there)]), [8 - there]);
        }
        assert_eq!(pods(&mut ledger, 165, &[wanted("a", 8, 5)]), [0]);
        assert_eq!(pods(&mut ledger, 170, &[wanted("a", 8, 6)]), [2], "they come after all");
    }

    fn trace() -> impl Strategy<Value = Vec<(i64, Vec<Wanted>)>> {
        let one = (0..4_u32, 0..30_u32, 0..30_u32, 0..30_u32).prop_map(|(object, replicas, max, pods)| {
            Wanted { object: object.to_string().into(), replicas, max, pods }
        });
        prop::collection::vec((0..400_i64, prop::collection::vec(one, 0..6)), 1..20)
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_happens(trace in trace()) {
            let (mut ledger, mut second) = (Ledger::default(), 0);
            for (later, wanted) in trace {
                second += later;
                let mut other = ledger.clone();
                let expectations = ledger.update(&wanted, at(second), &SETTINGS);
                prop_assert!(expectations.iter().map(|one| one.pods).sum::<u32>() <= SETTINGS.most);
                for one in &expectations {
                    prop_assert!(one.pods <= one.missing);
                    let fits = |wanted: &Wanted| {
                        wanted.object == one.object && one.pods + wanted.pods <= wanted.max.min(wanted.replicas)
                    };
                    prop_assert!(wanted.iter().any(fits));
                    prop_assert_eq!(one.held.is_none(), one.pods == one.missing);
                }
                let distinct: std::collections::BTreeMap<_, _> =
                    wanted.iter().rev().map(|wanted| (wanted.object.clone(), wanted.clone())).collect();
                let mut turned: Vec<_> = distinct.into_values().collect();
                turned.reverse();
                if turned.len() == wanted.len() {
                    prop_assert_eq!(other.update(&turned, at(second), &SETTINGS), expectations);
                }
            }
        }

        #[test]
        fn what_never_comes_is_asked_for_at_most_a_part_of_the_time(
            steps in prop::collection::vec((1..30_i64, 0..20_u32), 50..100),
        ) {
            let (mut ledger, mut second, mut begun) = (Ledger::default(), 0, None);
            for (later, replicas) in steps {
                second += later;
                let asked = pods(&mut ledger, second, &[wanted("a", replicas + 1, 0)]);
                if asked == [0] {
                    begun = None;
                } else {
                    let begun = *begun.get_or_insert(second);
                    prop_assert!(second - begun < SETTINGS.patience.as_secs());
                }
            }
        }
    }
}
