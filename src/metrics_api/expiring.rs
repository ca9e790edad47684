//! A map of bounded size whose entries know their age. Time comes in as an argument.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Two generations: when the young one is full or has served its time, it becomes the old one and the old one goes.
/// So at most twice `capacity` entries are held, and none survives two `lifetime`s of insertions.
#[derive(Debug)]
pub(super) struct ExpiringMap<K, V> {
    capacity: usize,
    lifetime: Duration,
    young: HashMap<K, (Instant, V)>,
    old: HashMap<K, (Instant, V)>,
    /// When the young generation began.
    began: Option<Instant>,
}

impl<K: Hash + Eq, V> ExpiringMap<K, V> {
    /// `lifetime` is the age beyond which no caller wants an entry.
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { capacity, lifetime, young: HashMap::new(), old: HashMap::new(), began: None }
    }

    /// The entry and its age, if it is younger than the lifetime.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<(&V, Duration)> {
        let (since, value) = self.young.get(key).or_else(|| self.old.get(key))?;
        let age = now.saturating_duration_since(*since);
        (age < self.lifetime).then_some((value, age))
    }

    /// Puts an entry that was true at `since`.
    pub(super) fn insert(&mut self, key: K, value: V, since: Instant) {
        let began = *self.began.get_or_insert(since);
        if self.young.len() >= self.capacity || since.saturating_duration_since(began) >= self.lifetime {
            self.old = std::mem::take(&mut self.young);
            self.began = Some(since);
        }
        self.young.insert(key, (since, value));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_mins(1);

    #[test]
    fn entries_age_and_end() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut map = ExpiringMap::new(8, LIFETIME);
        map.insert("a", 1, start);
        for (seconds, want) in [(0, Some((&1, 0))), (59, Some((&1, 59))), (60, None), (3600, None)] {
            let want = want.map(|(value, age)| (value, Duration::from_secs(age)));
            assert_eq!(map.get(&"a", after(seconds)), want, "{seconds}");
        }
        map.insert("a", 2, after(30));
        assert_eq!(map.get(&"a", after(89)), Some((&2, Duration::from_secs(59))));
        // A new generation must not bring an older entry back.
        map.insert("b", 3, after(61));
        map.insert("a", 4, after(62));
        assert_eq!(map.get(&"a", after(62)), Some((&4, Duration::ZERO)));
        assert_eq!(map.get(&"b", after(62)), Some((&3, Duration::from_secs(1))));
    }

    #[test]
    fn size_is_bounded_and_the_newest_stay() {
        let now = Instant::now();
        let mut map = ExpiringMap::new(10, LIFETIME);
        for key in 0..1000 {
            map.insert(key, key, now);
            assert!(map.len() <= 20);
        }
        assert!((990..1000).all(|key| map.get(&key, now).is_some()));
        assert_eq!(map.get(&0, now), None);
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let start = Instant::now();
        let mut map = ExpiringMap::new(10, LIFETIME);
        map.insert(0, (), start);
        for minute in 1u64..=3 {
            map.insert(1, (), start + LIFETIME * u32::try_from(minute).unwrap());
        }
        assert_eq!(map.len(), 2);
        assert!(!map.old.contains_key(&0));
    }
}
